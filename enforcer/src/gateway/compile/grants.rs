//! The grants of one binding.

use std::{collections::BTreeSet, sync::Arc};

use enforcer_common::{
    Addr,
    gateway::{GwGrant, GwGrantKey},
};

use super::{Inputs, Numbers};
use crate::{
    announce::{Binding, LiveGrant},
    compile::{
        matching::{self, Index, Subject},
        offers::{self, Offers, Shared},
    },
    datapath::gateway::GwTables,
    model::Protocol,
    resolve::{Destination, Node},
};

/// Grants of one binding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Granted {
    /// In the order of their keys.
    pub grants: Box<[(GwGrantKey, GwGrant)]>,
    /// What was announced.
    pub binding: Binding,
    /// Number of the node.
    pub node: u32,
    /// Numbers of the connections that match it.
    pub connections: matching::Numbers,
}

impl Granted {
    /// Grants that the kernel does not hold.
    pub fn missing(&self, actual: &GwTables) -> BTreeSet<GwGrantKey> {
        self.grants.iter().map(|(key, _)| *key).filter(|key| !actual.grants.contains_key(key)).collect()
    }

    /// All grants but those, as nodes are told of them.
    pub fn without(&self, missing: &BTreeSet<GwGrantKey>) -> BTreeSet<LiveGrant> {
        self.grants
            .iter()
            .filter(|(key, _)| !missing.contains(key))
            .filter_map(|(key, _)| live(key))
            .collect()
    }

    /// Whether both give the same, whatever it is charged to.
    pub fn same_keys(&self, other: &Self) -> bool {
        self.grants.iter().map(|(key, _)| key).eq(other.grants.iter().map(|(key, _)| key))
    }
}

/// No grant is of another protocol.
fn live(key: &GwGrantKey) -> Option<LiveGrant> {
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.number() == key.protocol)?;
    Some(LiveGrant { service: key.service.ip(), protocol, port: key.port.get() })
}

/// The binding's grants; the old ones where nothing that they depend on has changed. The first connection in the order
/// of `resolved` is charged; a grant lasts as long as the last one of those that give it.
pub(super) fn compile(
    inputs: &Inputs<'_>,
    (index, shared): (&Index<super::Terms>, &mut Shared),
    (actual, numbers): (&GwTables, &mut Numbers),
    (node, binding): (&Node, &Binding),
    old: Option<&Arc<Granted>>,
) -> Arc<Granted> {
    let known = old.map(|old| (subject(&old.binding), &old.connections));
    let connections = index.matches(subject(binding), known);
    if let Some(old) = old
        && old.binding == *binding
        && old.node == node.number
        && index.unchanged(&old.connections, &connections)
    {
        return Arc::clone(old);
    }
    let here = |destination: &Destination| destination.gateways.contains(&inputs.gateway.name).then_some(0);
    let terms = offers::Terms { boot_unix_ns: inputs.boot_time_unix_ns.into(), slots: &here };
    let (connections, offers) = shared.of(&terms, index, connections);
    let old = old.map_or(&[][..], |old| &old.grants);
    let grants = grants(&offers, (node.number, binding), old, (actual, numbers));
    Arc::new(Granted { grants, binding: binding.clone(), node: node.number, connections })
}

fn subject(binding: &Binding) -> Subject<'_> {
    Subject {
        cluster: &binding.cluster,
        namespace: &binding.namespace,
        labels: &binding.labels,
        namespace_labels: &binding.namespace_labels,
    }
}

fn grants(
    offers: &Offers,
    (node, binding): (u32, &Binding),
    old: &[(GwGrantKey, GwGrant)],
    (actual, numbers): (&GwTables, &mut Numbers),
) -> Box<[(GwGrantKey, GwGrant)]> {
    let (v4, v6) = (binding.v4.map(Addr::v4), binding.v6.map(Addr::v6));
    // Services of the other family have no client.
    let keys = offers.list.iter().filter_map(|offer| {
        let service = offer.key.service;
        let client = if service.is_v4() { v4 } else { v6 }?;
        Some((
            GwGrantKey { client, service, port: offer.key.port, protocol: offer.key.protocol, pad: [0; 5] },
            offer,
        ))
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    // Both are in the same order, so that one pass finds what was before.
    let mut rest = old;
    let grant = |(key, offer): (GwGrantKey, &offers::Offer)| {
        while rest.first().is_some_and(|(other, _)| *other < key) {
            rest = &rest[1..];
        }
        let before = rest.first().filter(|(other, _)| *other == key).map(|(_, grant)| grant);
        // Statistics are the id's: they must not go over to another connection.
        let id = match before.or_else(|| actual.grants.get(&key)) {
            Some(there) if there.connection == offer.connection => there.id,
            _ => numbers.next_grant(),
        };
        let valid_until_ns = offer.valid_until_ns;
        (key, GwGrant { valid_until_ns, id, connection: offer.connection, node, pad: 0 })
    };
    keys.into_iter().map(grant).collect()
}
