//! Which connections select which pods, and what has changed about them since the last time.
//!
//! Numbers stand for connections: pods × connections is the product that must stay cheap.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Compiled, Input, Ledger, Pod, PodGrants};
use crate::{
    model::ObjectKey,
    resolve::{Connection, Destination, Resolved, match_pod},
};

/// What the next run compares with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Memo {
    resolved: Arc<Resolved>,
    /// Rank (place in `resolved.connections`) by number.
    ranks: BTreeMap<u32, usize>,
    /// Tunnel slot by gateway.
    slots: BTreeMap<String, u32>,
    cluster: String,
    boot_unix_ns: i128,
    /// Nothing was compiled yet, or read back from the kernel only.
    filled: bool,
}

/// A connection with its number and its destination.
pub(super) type Charged<'a> = (u32, &'a Connection, &'a Destination);

pub(super) struct Index<'a> {
    resolved: &'a Resolved,
    cluster: &'a str,
    memo: Memo,
    /// Connections that are new or not what they were; their destinations count as part of them.
    changed: BTreeSet<u32>,
    /// Everything has to be compiled again.
    all: bool,
}

impl<'a> Index<'a> {
    pub(super) fn new(input: &Input<'a>, ledger: &mut Ledger, previous: &Compiled) -> Self {
        let resolved: &'a Arc<Resolved> = input.resolved;
        let ranks: BTreeMap<u32, usize> =
            (0..).zip(&resolved.connections).map(|(rank, c)| (ledger.connection(&c.key), rank)).collect();
        let memo = Memo {
            resolved: Arc::clone(resolved),
            ranks,
            slots: input.tunnels.iter().map(|(name, end)| (name.clone(), end.slot)).collect(),
            cluster: input.cluster.to_owned(),
            boot_unix_ns: input.boot_unix_ns,
            filled: true,
        };
        let old = &previous.memo;
        let all = !old.filled
            || old.slots != memo.slots
            || old.cluster != memo.cluster
            || old.boot_unix_ns != memo.boot_unix_ns
            || reordered(&old.ranks, &memo.ranks);
        let changed = if all { memo.ranks.keys().copied().collect() } else { changed(old, &memo) };
        Self { resolved, cluster: input.cluster, memo, changed, all }
    }

    /// Numbers of the connections that select the pod; the old set itself where it is still right.
    pub(super) fn matches(&self, pod: &Arc<Pod>, old: Option<&PodGrants>) -> Arc<BTreeSet<u32>> {
        let known = old.filter(|old| !self.all && old.pod.as_ref().is_some_and(|old| same_labels(old, pod)));
        let Some(old) = known else {
            return Arc::new(
                self.memo.ranks.keys().copied().filter(|number| self.selects(*number, pod)).collect(),
            );
        };
        let mut numbers = Arc::clone(&old.connections);
        for number in &self.changed {
            match (old.connections.contains(number), self.selects(*number, pod)) {
                (false, true) => _ = Arc::make_mut(&mut numbers).insert(*number),
                (true, false) => _ = Arc::make_mut(&mut numbers).remove(number),
                (true, true) | (false, false) => {}
            }
        }
        numbers
    }

    /// Whether the grants that the old connections gave are still the ones that the new connections give.
    pub(super) fn unchanged(&self, old: &Arc<BTreeSet<u32>>, new: &Arc<BTreeSet<u32>>) -> bool {
        !self.all && Arc::ptr_eq(old, new) && self.changed.iter().all(|number| !new.contains(number))
    }

    /// The connections in the order in which they are charged, each with its destination.
    pub(super) fn in_order(&self, numbers: &BTreeSet<u32>) -> Vec<Charged<'a>> {
        let mut ranked: Vec<(usize, u32)> =
            numbers.iter().filter_map(|number| Some((*self.memo.ranks.get(number)?, *number))).collect();
        ranked.sort_unstable();
        let found = |(rank, number): (usize, u32)| {
            let connection = self.resolved.connections.get(rank)?;
            Some((number, connection, self.resolved.destinations.get(&connection.destination)?))
        };
        ranked.into_iter().filter_map(found).collect()
    }

    pub(super) fn names(&self) -> BTreeMap<u32, ObjectKey> {
        let key = |(number, rank): (&u32, &usize)| {
            Some((*number, self.resolved.connections.get(*rank)?.key.clone()))
        };
        self.memo.ranks.iter().filter_map(key).collect()
    }

    pub(super) fn into_memo(self) -> Memo {
        self.memo
    }

    fn selects(&self, number: u32, pod: &Pod) -> bool {
        let connection = self.memo.ranks.get(&number).and_then(|rank| self.resolved.connections.get(*rank));
        connection.is_some_and(|connection| {
            match_pod(connection, self.cluster, &pod.namespace, &pod.labels, &pod.namespace_labels).is_ok()
        })
    }
}

fn same_labels(a: &Arc<Pod>, b: &Arc<Pod>) -> bool {
    Arc::ptr_eq(a, b)
        || a.namespace == b.namespace && a.labels == b.labels && a.namespace_labels == b.namespace_labels
}

/// Whether connections that both have stand in another order.
fn reordered(old: &BTreeMap<u32, usize>, new: &BTreeMap<u32, usize>) -> bool {
    let mut both: Vec<(usize, usize)> =
        new.iter().filter_map(|(number, rank)| Some((*old.get(number)?, *rank))).collect();
    both.sort_unstable();
    !both.is_sorted_by_key(|(_, rank)| *rank)
}

/// Numbers of connections that are new, gone, or differ in themselves or in their destination.
fn changed(old: &Memo, new: &Memo) -> BTreeSet<u32> {
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
    for (number, rank) in &new.ranks {
        let now = &new.resolved.connections[*rank];
        let before = old.ranks.get(number).map(|rank| &old.resolved.connections[*rank]);
        if before != Some(now) || destinations.contains(&now.destination) {
            changed.insert(*number);
        }
    }
    changed
}
