//! Taking one object out of the text of a file, with the rest of it as it was. Pure.

use serde::Deserialize as _;
use serde_norway::Value;

use super::parse::{self, Objects, has_extension, list_items};
use crate::{
    model::ObjectKey,
    source::document::{Complaint, Identity, Refusal, object},
};

/// What is left of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rest {
    /// `None`: nothing, the file can go.
    pub text: Option<String>,
    /// The object was an item of a list, which had to be written anew: comments in it are lost.
    pub rewritten: bool,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{key} cannot be taken out of {file} without touching the rest of it: expected documents apart by --- lines; delete it by hand"
)]
pub struct Entangled {
    file: String,
    key: ObjectKey,
}

/// Whether a document of the file means this object, be it valid or not.
pub fn holds(name: &str, text: &str, key: &ObjectKey) -> bool {
    documents(name, text).0.iter().any(|value| means(value, key))
}

/// Documents of objects that the roles cannot take over, each with what is wrong with it.
pub fn refused(name: &str, text: &str) -> Vec<(ObjectKey, serde_json::Value, String)> {
    let (values, _) = documents(name, text);
    let all = values.iter().flat_map(|value| match list_items(value) {
        Some(items) => items.iter().collect(),
        None => vec![value],
    });
    let refused = all.filter_map(|value| match object(value) {
        Err(Refusal { identity: Identity::Object(key), complaint: Complaint { field, message } }) => {
            let message = if field.is_empty() { message } else { format!("{field}: {message}") };
            Some((key, serde_json::to_value(value).ok()?, message))
        }
        _ => None,
    });
    refused.collect()
}

/// The file without the object, which it [`holds`].
pub fn without(name: &str, text: &str, key: &ObjectKey) -> Result<Rest, Entangled> {
    let entangled = || Entangled { file: name.to_owned(), key: key.clone() };
    let is_json = has_extension(name, "json");
    let parts = if is_json { vec![text] } else { split(text) };
    let mut rest = Rest { text: None, rewritten: false };
    let mut kept = String::new();
    for part in parts {
        let (mut values, is_whole) = documents(name, part);
        if values.len() > 1 || !is_whole && values.iter().any(|value| means(value, key)) {
            return Err(entangled());
        }
        let Some(value) = values.pop() else {
            kept.push_str(part);
            continue;
        };
        if is(&value, key) {
            continue;
        }
        if !items_of(&value).any(|item| is(item, key)) {
            kept.push_str(part);
            continue;
        }
        if let Some(value) = without_items(value, key) {
            rest.rewritten |= is_json || part.contains('#');
            kept.push_str(&written(part, &value, is_json).ok_or_else(entangled)?);
        }
    }
    // What cannot be told apart by its lines is left to a person: nothing else may come or go.
    if objects(name, &kept) != others(objects(name, text), key) || holds(name, &kept, key) {
        return Err(entangled());
    }
    let is_left = kept.lines().any(|line| !line.trim().is_empty() && line.trim() != "---");
    rest.text = is_left.then_some(kept);
    Ok(rest)
}

/// Each document with the line that begins it. What stands before the first such line is one as well.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        let begins = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if begins && at > start {
            parts.push(&text[start..at]);
            start = at;
        }
        at += line.len();
    }
    parts.push(&text[start..]);
    parts
}

/// Those that parse, up to the first that does not, and whether that is all of the text.
fn documents(name: &str, text: &str) -> (Vec<Value>, bool) {
    if has_extension(name, "json") {
        let value = serde_json::from_str(text);
        let is_whole = value.is_ok();
        return (value.into_iter().collect(), is_whole);
    }
    let mut values = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        match Value::deserialize(document) {
            Ok(value) => values.extend(Some(value).filter(|value| !value.is_null())),
            Err(_) => return (values, false),
        }
    }
    (values, true)
}

/// Whether the document is the object, or a list that has it.
fn means(value: &Value, key: &ObjectKey) -> bool {
    is(value, key) || items_of(value).any(|item| is(item, key))
}

fn items_of(value: &Value) -> impl Iterator<Item = &Value> {
    list_items(value).into_iter().flatten()
}

fn is(value: &Value, key: &ObjectKey) -> bool {
    match object(value) {
        Ok(object) => object.key() == *key,
        Err(Refusal { identity: Identity::Object(found), .. }) => found == *key,
        Err(_) => false,
    }
}

/// The list without the object; `None` where it was the only item.
fn without_items(mut list: Value, key: &ObjectKey) -> Option<Value> {
    let items = list.get_mut("items")?.as_sequence_mut()?;
    items.retain(|item| !is(item, key));
    (!items.is_empty()).then_some(list)
}

/// The document anew, behind the line that begins it.
fn written(part: &str, value: &Value, is_json: bool) -> Option<String> {
    if is_json {
        return Some(serde_json::to_string_pretty(value).ok()? + "\n");
    }
    let begin = if part.starts_with("---") { "---\n" } else { "" };
    Some(format!("{begin}{}", serde_norway::to_string(value).ok()?))
}

fn objects(name: &str, text: &str) -> Objects {
    if text.trim().is_empty() { Objects::new() } else { parse::file(name, text, &Objects::new()).objects }
}

fn others(mut objects: Objects, key: &ObjectKey) -> Objects {
    objects.remove(key);
    objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    fn namespace(name: &str) -> String {
        format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::Namespace, "", name)
    }

    fn left(text: &str, name: &str) -> Option<String> {
        let rest = without("f.yaml", text, &key(name)).unwrap();
        assert!(!rest.rewritten, "{text}");
        rest.text
    }

    #[test]
    fn any_document_goes_and_all_others_stay_to_the_letter() {
        let documents = [
            format!("# of a\n{}", namespace("a")),
            format!("--- # of b\n{}# behind b\n", namespace("b")),
            format!("---\n# of c\n{}", namespace("c")),
            "---\n# nothing\n".to_owned(),
            format!("---\n{}  annotations: {{x: \"--- no document\"}}\n...\n", namespace("d")),
        ];
        // Every choice of documents, and every object in it.
        for chosen in 0_u32..1 << documents.len() {
            let parts: Vec<&String> = documents
                .iter()
                .enumerate()
                .filter(|(at, _)| chosen >> at & 1 == 1)
                .map(|(_, part)| part)
                .collect();
            let text: String = parts.iter().map(|part| part.as_str()).collect();
            for name in ["a", "b", "c", "d"] {
                let own = format!("name: {name}\n");
                if !parts.iter().any(|part| part.contains(&own)) {
                    assert!(!holds("f.yaml", &text, &key(name)), "{text}");
                    continue;
                }
                assert!(holds("f.yaml", &text, &key(name)), "{text}");
                let rest: String =
                    parts.iter().filter(|part| !part.contains(&own)).map(|part| part.as_str()).collect();
                assert_eq!(left(&text, name), Some(rest).filter(|rest| !rest.is_empty()), "{name} of {text}");
            }
        }
    }

    #[test]
    fn a_document_that_is_refused_can_go_as_well() {
        let bad = "apiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nmetadata: {name: pg, namespace: shop}\nspec: {}\n";
        let text = format!("{bad}---\n{}", namespace("a"));
        let key = ObjectKey::new(Kind::Postgres, "shop", "pg");
        assert!(holds("f.yaml", &text, &key));
        let rest = without("f.yaml", &text, &key).unwrap();
        assert_eq!(rest, Rest { text: Some(format!("---\n{}", namespace("a"))), rewritten: false });

        let refused = refused("f.yaml", &text);
        let said: Vec<_> =
            refused.iter().map(|(key, document, why)| (key, &document["spec"], why.as_str())).collect();
        assert_eq!(said, [(&key, &serde_json::json!({}), "spec.gateways: missing, expected it to be there")]);
    }

    #[test]
    fn an_item_of_a_list_goes_and_it_is_said_that_comments_go_with_it() {
        let item =
            |name: &str| format!("- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: {name}\n");
        let list = |items: &str| format!("apiVersion: v1\nkind: List\nitems:\n{items}");
        let both = list(&(item("a") + &item("b")));
        assert_eq!(left(&both, "a"), Some(list(&item("b"))));
        assert_eq!(left(&list(&item("a")), "a"), None, "an empty list says nothing");
        let commented = format!("# ours\n{both}");
        let rest = without("f.yaml", &commented, &key("a")).unwrap();
        assert_eq!(rest, Rest { text: Some(list(&item("b"))), rewritten: true });

        let json = r#"{"apiVersion":"v1","kind":"List","items":[{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a"}},{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"b"}}]}"#;
        let rest = without("f.json", json, &key("a")).unwrap();
        let expected = "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"List\",\n  \"items\": [\n    {\n      \"kind\": \"Namespace\",\n      \"apiVersion\": \"v1\",\n      \"metadata\": {\n        \"name\": \"b\"\n      }\n    }\n  ]\n}\n";
        assert_eq!(rest.text.as_deref(), Some(expected));
    }

    #[test]
    fn what_cannot_be_told_apart_is_left_to_a_person() {
        // Behind the end of a document stands what no reader understands, and a person wrote.
        let text = format!("{}...\n{}", namespace("a"), namespace("b"));
        let error = without("f.yaml", &text, &key("a")).unwrap_err().to_string();
        assert_eq!(
            error,
            "Namespace a cannot be taken out of f.yaml without touching the rest of it: expected documents \
             apart by --- lines; delete it by hand"
        );
        // Anchors are of one document; what does not parse is not lost.
        let text = format!("{}---\n{{ not: [yaml\n", namespace("a"));
        assert_eq!(left(&text, "a"), Some("---\n{ not: [yaml\n".to_owned()));
    }
}
