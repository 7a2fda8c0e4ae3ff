//! Turns what serde says about a manifest into what a person needs: the field, what is there, what was expected.

use serde_norway::Value;
use serde_path_to_error::{Path, Segment};

use crate::model::Kind;

pub(super) const MISSING: &str = "missing, expected it to be there";

/// Field path and message of one refusal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Complaint {
    pub field: String,
    pub message: String,
}

/// `prefix` is the path of `root` itself, `spec`.
pub(super) fn complaint(prefix: &str, root: &Value, path: &Path, error: &str) -> Complaint {
    let field = join(prefix, path);
    if let Some((name, expected)) = quoted(error, "unknown field ") {
        return Complaint {
            field: below(&field, name),
            message: format!("unknown field, {}", choices(name, &listed(expected))),
        };
    }
    if let Some((name, _)) = quoted(error, "missing field ") {
        return Complaint { field: below(&field, name), message: MISSING.to_owned() };
    }
    if let Some((value, expected)) = quoted(error, "unknown variant ") {
        let mut expected = listed(expected);
        // Where a kind is asked for, it is one of a destination.
        if Kind::ALL.iter().all(|kind| expected.contains(&kind.name())) {
            expected
                .retain(|name| Kind::ALL.iter().any(|kind| kind.is_destination() && kind.name() == *name));
        }
        return Complaint { field, message: format!("\"{value}\", {}", choices(value, &expected)) };
    }
    if error.contains("invalid IP address syntax") {
        let value = lookup(root, path).map_or_else(|| "the value".to_owned(), show);
        return Complaint { field, message: format!("{value}, expected an IP address") };
    }
    let message = error
        .strip_prefix("invalid type: ")
        .or_else(|| error.strip_prefix("invalid value: "))
        .and_then(|rest| rest.split_once(", expected "))
        .map_or_else(
            || error.to_owned(),
            |(found, expected)| format!("{}, expected {}", in_words(found), type_in_words(expected)),
        );
    Complaint { field, message }
}

/// `expected "a", "b" or "c"; did you mean "b"?`
pub(super) fn choices(found: &str, expected: &[&str]) -> String {
    let mut text = "expected ".to_owned();
    for (index, name) in expected.iter().enumerate() {
        if index > 0 {
            text.push_str(if index + 1 == expected.len() { " or " } else { ", " });
        }
        text.push('"');
        text.push_str(name);
        text.push('"');
    }
    if let Some(name) = nearest(found, expected) {
        text.push_str("; did you mean \"");
        text.push_str(name);
        text.push_str("\"?");
    }
    text
}

/// The one that a person most likely meant, where one is near enough to be no guess.
fn nearest<'a>(found: &str, expected: &[&'a str]) -> Option<&'a str> {
    let found = found.to_lowercase();
    expected
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&found, &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 5)
        .min()
        .map(|(_, name)| name)
}

/// The value as it stands in YAML, strings in quotes.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => format!("\"{value}\""),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(tagged) => format!("a value with the tag {}", tagged.tag),
    }
}

fn join(prefix: &str, path: &Path) -> String {
    path.iter().fold(prefix.to_owned(), |field, segment| match segment {
        Segment::Seq { index } => format!("{field}[{index}]"),
        Segment::Map { key } => below(&field, key),
        Segment::Enum { .. } | Segment::Unknown => field,
    })
}

/// Serde reports an unknown field sometimes at the mapping and sometimes at the field.
fn below(field: &str, name: &str) -> String {
    if field.is_empty() {
        name.to_owned()
    } else if field == name || field.ends_with(&format!(".{name}")) {
        field.to_owned()
    } else {
        format!("{field}.{name}")
    }
}

fn lookup<'a>(root: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, segment| match segment {
        Segment::Seq { index } => value.get(*index),
        Segment::Map { key } => value.get(key.as_str()),
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    })
}

/// Splits ``start`name`rest``.
fn quoted<'a>(error: &'a str, start: &str) -> Option<(&'a str, &'a str)> {
    error.strip_prefix(start)?.strip_prefix('`')?.split_once('`')
}

/// The names in backticks.
fn listed(expected: &str) -> Vec<&str> {
    expected.split('`').skip(1).step_by(2).collect()
}

fn in_words(found: &str) -> String {
    match found {
        "map" => "a mapping".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit value" => "nothing".to_owned(),
        _ => ["string ", "integer ", "boolean ", "floating point "]
            .iter()
            .find_map(|kind| found.strip_prefix(kind))
            .map_or_else(|| found.to_owned(), |value| value.trim_matches('`').to_owned()),
    }
}

fn type_in_words(expected: &str) -> String {
    match expected {
        // Every one of them is a port.
        "u16" => "a port, 1 to 65535".to_owned(),
        "u32" => "a number from 0 to 4294967295".to_owned(),
        "i64" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        _ => expected.strip_prefix("struct ").map_or_else(|| expected.to_owned(), |_| "a mapping".to_owned()),
    }
}
