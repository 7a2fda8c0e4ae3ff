//! What names an object.

use std::{cmp::Ordering, fmt, ops::Deref, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Kind;

/// Names one object. A clone shares the names: every layer has its maps of thousands of objects.
///
/// In JSON and files it is a text: `Kind/namespace/name`, `Kind/name` for cluster-scoped kinds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObjectKey(Arc<KeyParts>);

/// What an [`ObjectKey`] is made of. `namespace` is empty for cluster-scoped kinds.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct KeyParts {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self(Arc::new(KeyParts { kind, namespace: namespace.into(), name: name.into() }))
    }

    /// `Kind/namespace/name`, `Kind/name` for cluster-scoped kinds.
    pub fn text(&self) -> String {
        if self.namespace.is_empty() {
            format!("{}/{}", self.kind, self.name)
        } else {
            format!("{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl Deref for ObjectKey {
    type Target = KeyParts;

    fn deref(&self) -> &KeyParts {
        &self.0
    }
}

/// By kind, namespace, name. Most keys that are compared come from the same object, and need no look at their names.
impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `Kind namespace/name`, `Kind name` for cluster-scoped kinds.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A text that names no object.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("\"{0}\" names no object, expected Kind/namespace/name or Kind/name")]
pub struct NoKey(String);

/// The form of [`ObjectKey::text`].
impl FromStr for ObjectKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let parse = || {
            let (kind, rest) = text.split_once('/')?;
            let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
            Some(Self::new(kind.parse().ok()?, namespace, name))
        };
        parse().ok_or_else(|| NoKey(text.to_owned()))
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = ObjectKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Kind/namespace/name or Kind/name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ObjectKey, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_key_that_made_it() {
        for key in [
            ObjectKey::new(Kind::Postgres, "shop", "pg"),
            ObjectKey::new(Kind::TunnelNode, "", "worker-1.example"),
        ] {
            assert_eq!(key.text().parse(), Ok(key));
        }
        for text in ["", "Postgres", "Cat/shop/pg"] {
            assert_eq!(text.parse::<ObjectKey>(), Err(NoKey(text.to_owned())));
        }
    }
}
