//! The grants of one pod: a sorted list, because a node may hold hundreds of thousands of them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use enforcer_common::grant::{Grant, GrantKey};

/// Grants in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrantTable {
    entries: Box<[(GrantKey, Grant)]>,
}

impl GrantTable {
    /// Of entries that are in order, no key twice.
    pub(super) fn from_sorted(entries: Vec<(GrantKey, Grant)>) -> Self {
        debug_assert!(entries.is_sorted_by(|one, next| one.0 < next.0));
        Self { entries: entries.into() }
    }

    pub(super) const fn entries(&self) -> &[(GrantKey, Grant)] {
        &self.entries
    }

    pub fn get(&self, key: &GrantKey) -> Option<&Grant> {
        let found = self.entries.binary_search_by_key(key, |entry| entry.0).ok()?;
        Some(&self.entries[found].1)
    }

    pub fn contains_key(&self, key: &GrantKey) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&GrantKey, &Grant)> {
        self.entries.iter().map(|(key, grant)| (key, grant))
    }

    pub fn values(&self) -> impl Iterator<Item = &Grant> {
        self.entries.iter().map(|entry| &entry.1)
    }

    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many a gateway has acknowledged.
    pub fn live(&self) -> usize {
        self.values().filter(|grant| grant.gateways != 0).count()
    }

    /// Numbers of the connections that are charged with a grant that no gateway has acknowledged.
    pub fn waiting(&self) -> BTreeSet<u32> {
        self.values().filter(|grant| grant.gateways == 0).map(|grant| grant.connection).collect()
    }
}

/// Puts what differs between two lists in the order of their keys into maps, each list's side into its own.
pub fn differ<K: Copy + Ord, V: Copy + PartialEq>(
    old: &[(K, V)],
    new: &[(K, V)],
    have: &mut BTreeMap<K, V>,
    want: &mut BTreeMap<K, V>,
) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some(old), Some(new)) => old.0.cmp(&new.0),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        if before != after {
            have.extend(before.copied());
            want.extend(after.copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{Addr, Port, grant::FOREVER};

    use super::*;

    fn entry(port: u16, gateways: u64) -> (GrantKey, Grant) {
        let key = GrantKey { service: Addr::NONE, workload: 1, port: Port::new(port), protocol: 6, pad: 0 };
        (key, Grant { valid_until_ns: FOREVER, gateways, id: 1, connection: port.into() })
    }

    #[test]
    fn only_what_differs_is_told() {
        let old = GrantTable::from_sorted(vec![entry(1, 1), entry(2, 1), entry(3, 1), entry(5, 1)]);
        let new = GrantTable::from_sorted(vec![entry(2, 1), entry(3, 0), entry(4, 1)]);
        let (mut have, mut want) = (BTreeMap::new(), BTreeMap::new());
        differ(old.entries(), new.entries(), &mut have, &mut want);
        assert_eq!(have, BTreeMap::from([entry(1, 1), entry(3, 1), entry(5, 1)]));
        assert_eq!(want, BTreeMap::from([entry(3, 0), entry(4, 1)]));
    }

    #[test]
    fn a_table_finds_and_counts() {
        let table = GrantTable::from_sorted(vec![entry(1, 1), entry(2, 0), entry(4, 1)]);
        assert_eq!(table.get(&entry(2, 0).0), Some(&entry(2, 0).1));
        assert!(!table.contains_key(&entry(3, 0).0));
        assert_eq!((table.len(), table.live(), table.waiting()), (3, 2, BTreeSet::from([2])));
    }
}
