//! What the sources have told: the last good object of every name, and what is wrong with the rest.

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc};

use crate::model::{Object, ObjectKey};

/// One consistent view. Sources publish it through a `tokio::sync::watch` channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Grows with every change.
    pub revision: u64,
    pub objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// Where an object was read: its file without the folder.
    pub origins: BTreeMap<ObjectKey, Arc<str>>,
    /// What could not be taken over; the last good state of those objects is in `objects`.
    pub problems: Vec<Problem>,
    /// Objects whose document is refused and that are what it said last, each with what is wrong with it.
    pub kept: BTreeMap<ObjectKey, String>,
    /// There is something of which it cannot be told what it means, nor what it last meant: an object that is not in
    /// `objects` may be there all the same. Nothing is freed or forgotten on the word of such a view.
    pub incomplete: bool,
}

impl Snapshot {
    /// Objects that are not what they were in `before`, each with what it was and what it is, in the order of their
    /// keys.
    pub fn since<'a>(&'a self, before: &'a Self) -> Vec<Change<'a>> {
        let (mut old, mut new) = (before.objects.iter().peekable(), self.objects.iter().peekable());
        let mut changes = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return changes,
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            let key = is.or(was).map(|(key, _)| key);
            let (was, is) = (was.map(|(_, object)| object), is.map(|(_, object)| object));
            changes.extend(key.filter(|_| was != is).map(|key| Change { key, was, is }));
        }
    }
}

/// An object that comes, goes or is another than before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change<'a> {
    pub key: &'a ObjectKey,
    pub was: Option<&'a Arc<Object>>,
    pub is: Option<&'a Arc<Object>>,
}

/// One refusal, for a person.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// File without the folder; empty for what no file says.
    pub origin: String,
    /// Object as far as it is known: `ServiceConnection shop/cart`, `document 2`.
    pub object: String,
    /// Path of the field, `spec.source.kind`; empty where the whole document is meant.
    pub field: String,
    /// What is there and what was expected.
    pub message: String,
}

/// `orders.yaml: Postgres shop/orders: spec.ports[0].port: 0 is not a port, expected 1 to 65535`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}: ", self.origin)?;
        }
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
