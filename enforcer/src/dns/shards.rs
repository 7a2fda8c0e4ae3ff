//! A map of which a changed copy costs what has changed: queries read the copy that was published last, without a lock.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// So many that one holds a few hundred of the most entries that there are, and that to copy their pointers is nothing.
const SHARDS: usize = 1024;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shards<K, V>(Arc<[Arc<BTreeMap<K, V>>]>);

impl<K: Ord, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self(vec![Arc::default(); SHARDS].into())
    }
}

impl<K: Clone + Hash + Ord, V: Clone> Shards<K, V> {
    pub fn get<Q: ?Sized + Hash + Ord>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(place(key))?.get(key)
    }

    /// Puts the value, or takes away what is there.
    pub fn set(&mut self, key: &K, value: Option<V>) {
        if value.is_none() && self.get(key).is_none() {
            return;
        }
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.0)[place(key)]);
        match value {
            Some(value) => drop(shard.insert(key.clone(), value)),
            None => drop(shard.remove(key)),
        }
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().flat_map(|shard| shard.iter())
    }

    /// Shards that both do not share.
    #[cfg(test)]
    pub fn copied_since(&self, other: &Self) -> usize {
        self.0.iter().zip(&*other.0).filter(|(one, other)| !Arc::ptr_eq(one, other)).count()
    }
}

fn place<Q: ?Sized + Hash>(key: &Q) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % SHARDS
}
