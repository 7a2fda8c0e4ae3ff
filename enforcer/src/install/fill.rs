//! Where the values in a document come from: they are filled in, or a Helm template says where they will be.
//!
//! So the same description of the documents makes `enforcer install` and the chart.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::{
    served::Served,
    values::{Values, lookup},
};
use crate::model::crd::Rules;

/// A word of a command line.
pub enum Arg {
    Is(&'static str),
    /// A text with one `%v`, and the value that takes its place.
    Of(&'static str, &'static str),
}

/// Servers of which versions (1.MINOR).
#[derive(Clone, Copy)]
pub enum When {
    Since(u16),
    Before(u16),
}

pub enum Fill<'a> {
    Values {
        values: Value,
        served: &'a Served,
    },
    /// Each expression stands in the document as a [`marker`] with its number.
    Template(RefCell<Vec<Expression>>),
}

/// A place of the chart.
pub struct Expression {
    text: String,
    /// Where this does not hold, or is an empty value, the line is not there.
    only_with: Option<String>,
}

impl<'a> Fill<'a> {
    pub fn values(values: &Values, served: &'a Served) -> Self {
        Self::Values { values: json!(values), served }
    }

    pub fn template() -> Self {
        Self::Template(RefCell::default())
    }

    /// The value of this key, of whatever type.
    pub fn value(&self, key: &str) -> Value {
        match self {
            Self::Values { values, .. } => lookup(values, key).cloned().unwrap_or_default(),
            Self::Template(_) => self.expression(format!(".Values.{key}")),
        }
    }

    /// The value of this key, as the field of a map that is left out where the value is empty.
    pub fn field(&self, map: &mut Value, field: &str, key: &str) {
        match self {
            Self::Values { values, .. } => {
                let value = lookup(values, key).filter(|value| **value != json!(""));
                if let Some(value) = value {
                    map[field] = value.clone();
                }
            }
            Self::Template(_) => {
                let value = format!(".Values.{key}");
                map[field] = self.add(Expression { text: value.clone(), only_with: Some(value) });
            }
        }
    }

    /// A map of one text, as the field of a map that only servers of some versions get.
    pub fn at(&self, map: &mut Value, field: &str, when: When, [key, text]: [&str; 2]) {
        match self {
            Self::Values { served, .. } => {
                let holds = match when {
                    When::Since(minor) => served.version.minor >= minor,
                    When::Before(minor) => served.version.minor < minor,
                };
                if holds {
                    map[field] = json!({ key: text });
                }
            }
            Self::Template(_) => {
                let since =
                    |minor| format!("semverCompare \">=1.{minor}-0\" .Capabilities.KubeVersion.Version");
                let only_with = Some(match when {
                    When::Since(minor) => since(minor),
                    When::Before(minor) => format!("not ({})", since(minor)),
                });
                map[field] = self.add(Expression { text: format!("dict {key:?} {text:?}"), only_with });
            }
        }
    }

    /// A text with a `%v` for each key.
    pub fn text(&self, format: &str, keys: &[&str]) -> Value {
        match self {
            Self::Values { values, .. } => {
                let texts = keys.iter().map(|key| lookup(values, key).map(plain).unwrap_or_default());
                Value::String(texts.fold(format.to_owned(), |text, value| text.replacen("%v", &value, 1)))
            }
            Self::Template(_) => self.expression(printf(format, keys)),
        }
    }

    /// A command line, with the list of this key at its end.
    pub fn args(&self, args: &[Arg], more: &str) -> Value {
        match self {
            Self::Values { values, .. } => {
                let fixed = args.iter().map(|arg| match arg {
                    Arg::Is(text) => json!(text),
                    Arg::Of(format, key) => self.text(format, &[key]),
                });
                let more = lookup(values, more).and_then(Value::as_array).cloned();
                fixed.chain(more.into_iter().flatten()).collect()
            }
            Self::Template(_) => {
                let words = args.iter().map(|arg| match arg {
                    Arg::Is(text) => format!("{text:?}"),
                    Arg::Of(format, key) => format!("({})", printf(format, &[key])),
                });
                let words: Vec<String> = words.collect();
                self.expression(format!("concat (list {}) .Values.{more}", words.join(" ")))
            }
        }
    }

    /// `new` where the server serves this API, else `old`.
    pub fn served(&self, api: &str, new: &str, old: &str) -> Value {
        match self {
            Self::Values { served, .. } => json!(if served.has(api) { new } else { old }),
            Self::Template(_) => {
                self.expression(format!("ternary {new:?} {old:?} (.Capabilities.APIVersions.Has {api:?})"))
            }
        }
    }

    /// Helm does not validate CRDs, and an old server drops what it does not know.
    pub fn rules(&self) -> Rules {
        match self {
            Self::Values { served, .. } => served.rules(),
            Self::Template(_) => Rules::Cel,
        }
    }

    fn expression(&self, text: String) -> Value {
        self.add(Expression { text, only_with: None })
    }

    fn add(&self, expression: Expression) -> Value {
        let Self::Template(expressions) = self else { return Value::Null };
        let mut expressions = expressions.borrow_mut();
        expressions.push(expression);
        Value::String(marker(expressions.len() - 1))
    }

    /// Puts the expressions where their markers are. JSON is YAML, whatever the value holds.
    pub fn expand(&self, yaml: &str) -> String {
        let Self::Template(expressions) = self else { return yaml.to_owned() };
        let expressions = expressions.borrow();
        let line = |line: &str| {
            let mut line = format!("{line}\n");
            for (number, Expression { text, only_with }) in expressions.iter().enumerate() {
                if !line.contains(&marker(number)) {
                    continue;
                }
                line = line.replace(&marker(number), &format!("{{{{ {text} | toJson }}}}"));
                if let Some(value) = only_with {
                    line = format!("{{{{- if {value} }}}}\n{line}{{{{- end }}}}\n");
                }
            }
            line
        };
        yaml.lines().map(line).collect()
    }
}

/// No marker is a part of another.
fn marker(number: usize) -> String {
    format!("expression-{number}-of-the-chart")
}

fn printf(format: &str, keys: &[&str]) -> String {
    keys.iter().fold(format!("printf {format:?}"), |text, key| text + " .Values." + key)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
