//! Which connections select which pods, and what has changed about them since the last time. Both ends of the tunnel
//! ask this: the agent for its grants, the gateway for its own check of them.
//!
//! Numbers stand for connections: pods × connections is the product that must stay cheap.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    model::{Labels, ObjectKey},
    resolve::{Connection, Destination, Resolved, match_pod},
};

/// What the next run compares with. `T` is what all results depend on besides the objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memo<T> {
    resolved: Arc<Resolved>,
    /// Rank (place in `resolved.connections`) by number.
    ranks: Arc<BTreeMap<u32, usize>>,
    terms: T,
    /// Nothing was compiled yet, or read back from the kernel only.
    filled: bool,
}

/// What selectors look at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subject<'a> {
    /// Of the pod's node.
    pub cluster: &'a str,
    pub namespace: &'a str,
    pub labels: &'a Labels,
    pub namespace_labels: &'a Labels,
}

/// Numbers of connections, shared between pods that are selected alike.
pub type Numbers = Arc<BTreeSet<u32>>;

/// A connection with its number and its destination.
pub type Charged<'a> = (u32, &'a Connection, &'a Destination);

pub struct Index<'a, T> {
    resolved: &'a Resolved,
    memo: Memo<T>,
    /// Connections that are new or not what they were; their destinations count as part of them.
    changed: BTreeSet<u32>,
    /// Everything has to be compiled again.
    all: bool,
    /// The objects are the very ones of the last time.
    same: bool,
}

impl<'a, T: PartialEq> Index<'a, T> {
    /// `number` gives a connection its number, always the same one.
    pub fn new(
        resolved: &'a Arc<Resolved>,
        mut number: impl FnMut(&ObjectKey) -> u32,
        terms: T,
        old: &Memo<T>,
    ) -> Self {
        let same = old.filled && Arc::ptr_eq(&old.resolved, resolved);
        let ranks = if same {
            Arc::clone(&old.ranks)
        } else {
            Arc::new((0..).zip(&resolved.connections).map(|(rank, c)| (number(&c.key), rank)).collect())
        };
        let memo = Memo { resolved: Arc::clone(resolved), ranks, terms, filled: true };
        let all = !old.filled || old.terms != memo.terms || !same && reordered(&old.ranks, &memo.ranks);
        let changed = if all { memo.ranks.keys().copied().collect() } else { changed(old, &memo) };
        Self { resolved, memo, changed, all, same }
    }

    /// Numbers of the connections that select the pod. `old` is what it was and what selected it the last time: the
    /// old set itself comes back where it is still right.
    pub fn matches(&self, pod: Subject, old: Option<(Subject, &Numbers)>) -> Numbers {
        let Some((_, old)) = old.filter(|(old, _)| !self.all && *old == pod) else {
            return Arc::new(
                self.memo.ranks.keys().copied().filter(|number| self.selects(*number, pod)).collect(),
            );
        };
        let mut numbers = Arc::clone(old);
        for number in &self.changed {
            match (old.contains(number), self.selects(*number, pod)) {
                (false, true) => _ = Arc::make_mut(&mut numbers).insert(*number),
                (true, false) => _ = Arc::make_mut(&mut numbers).remove(number),
                (true, true) | (false, false) => {}
            }
        }
        numbers
    }

    /// Whether the grants that the old connections gave are still the ones that the new connections give.
    pub fn unchanged(&self, old: &Numbers, new: &Numbers) -> bool {
        !self.all && Arc::ptr_eq(old, new) && self.changed.iter().all(|number| !new.contains(number))
    }

    /// The connections in the order in which they are charged, each with its destination.
    pub fn in_order(&self, numbers: &BTreeSet<u32>) -> Vec<Charged<'a>> {
        let mut ranked: Vec<(usize, u32)> =
            numbers.iter().filter_map(|number| Some((*self.memo.ranks.get(number)?, *number))).collect();
        ranked.sort_unstable();
        let found = |(rank, number): (usize, u32)| {
            let connection = &**self.resolved.connections.get(rank)?;
            Some((number, connection, &**self.resolved.destinations.get(&connection.destination)?))
        };
        ranked.into_iter().filter_map(found).collect()
    }

    /// Whether the objects mean what they meant the last time.
    pub const fn same(&self) -> bool {
        self.same
    }

    pub fn names(&self) -> BTreeMap<u32, ObjectKey> {
        let key = |(number, rank): (&u32, &usize)| {
            Some((*number, self.resolved.connections.get(*rank)?.key.clone()))
        };
        self.memo.ranks.iter().filter_map(key).collect()
    }

    pub fn into_memo(self) -> Memo<T> {
        self.memo
    }

    fn selects(&self, number: u32, pod: Subject) -> bool {
        let connection = self.memo.ranks.get(&number).and_then(|rank| self.resolved.connections.get(*rank));
        connection.is_some_and(|connection| {
            match_pod(connection, pod.cluster, pod.namespace, pod.labels, pod.namespace_labels).is_ok()
        })
    }
}

/// Whether connections that both have stand in another order.
fn reordered(old: &BTreeMap<u32, usize>, new: &BTreeMap<u32, usize>) -> bool {
    let mut both: Vec<(usize, usize)> =
        new.iter().filter_map(|(number, rank)| Some((*old.get(number)?, *rank))).collect();
    both.sort_unstable();
    !both.is_sorted_by_key(|(_, rank)| *rank)
}

/// Numbers of connections that are new, gone, or differ in themselves or in their destination.
fn changed<T>(old: &Memo<T>, new: &Memo<T>) -> BTreeSet<u32> {
    if Arc::ptr_eq(&old.resolved, &new.resolved) {
        return BTreeSet::new();
    }
    let destinations: BTreeSet<&ObjectKey> = new
        .resolved
        .destinations
        .iter()
        .filter(|(key, destination)| old.resolved.destinations.get(key) != Some(destination))
        .map(|(key, _)| key)
        .chain(old.resolved.destinations.keys().filter(|key| !new.resolved.destinations.contains_key(key)))
        .collect();
    let mut changed: BTreeSet<u32> =
        old.ranks.keys().filter(|number| !new.ranks.contains_key(number)).copied().collect();
    for (number, rank) in &*new.ranks {
        let now = &new.resolved.connections[*rank];
        let before = old.ranks.get(number).map(|rank| &old.resolved.connections[*rank]);
        if before != Some(now) || destinations.contains(&now.destination) {
            changed.insert(*number);
        }
    }
    changed
}
