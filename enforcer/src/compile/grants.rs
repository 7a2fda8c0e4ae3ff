//! What one pod may reach.

use std::sync::Arc;

use enforcer_common::grant::{Grant, GrantKey};

use super::{
    Acknowledged, Input, Ledger, Pod, PodGrants, Terms,
    ledger::Addresses,
    matching::{Index, Numbers},
    offers::{self, Offer, Offers, Shared},
    table::GrantTable,
};
use crate::{announce::Binding, resolve::Destination};

/// The pod's grants; the old ones where nothing that they depend on has changed.
pub(super) fn compile(
    input: &Input,
    ledger: &mut Ledger,
    (index, shared): (&Index<Terms>, &mut Shared),
    pod: &Arc<Pod>,
    old: Option<&Arc<PodGrants>>,
    connections: Numbers,
) -> Arc<PodGrants> {
    let entry = if connections.is_empty() {
        ledger.workload(&pod.uid)
    } else {
        ledger.addressed(&pod.uid, input.node)
    };
    let acknowledged = input.acknowledged.get(&pod.uid).cloned().unwrap_or_default();
    if let Some(old) = old
        && old.pod.as_ref() == Some(pod)
        && old.addresses == entry.addresses
        && old.acknowledged == acknowledged
        && index.unchanged(&old.connections, &connections)
    {
        return Arc::clone(old);
    }
    let slots = |destination: &Destination| Some(slots(input, destination));
    let terms = offers::Terms { boot_unix_ns: input.boot_unix_ns, slots: &slots };
    let (connections, offers) = shared.of(&terms, index, connections);
    let mut grants = PodGrants { connections, addresses: entry.addresses, ..PodGrants::default() };
    // Without a workload address nothing can be carried, and a grant would promise it.
    if let Some(addresses) = entry.addresses {
        grants.gateways.clone_from(&offers.gateways);
        grants.binding = Some(Arc::new(binding(input, pod, addresses)));
        grants.grants = of_pod(&offers, entry.id, &acknowledged, old.map(|old| &old.grants), ledger);
        grants.live = grants.grants.live();
        grants.waiting = grants.grants.waiting();
    }
    grants.pod = Some(Arc::clone(pod));
    grants.acknowledged = acknowledged;
    Arc::new(grants)
}

fn binding(input: &Input, pod: &Pod, addresses: Addresses) -> Binding {
    Binding {
        uid: pod.uid.clone(),
        generation: 0,
        v4: Some(addresses.v4),
        v6: Some(addresses.v6),
        cluster: input.cluster.to_owned(),
        namespace: pod.namespace.clone(),
        namespace_labels: pod.namespace_labels.clone(),
        pod: pod.name.clone(),
        labels: pod.labels.clone(),
    }
}

fn slots(input: &Input, destination: &Destination) -> u64 {
    let ends = destination.gateways.iter().filter_map(|gateway| input.tunnels.get(gateway));
    ends.fold(0, |bits, end| bits | 1 << end.slot)
}

fn of_pod(
    offers: &Offers,
    workload: u32,
    acknowledged: &Acknowledged,
    old: Option<&GrantTable>,
    ledger: &mut Ledger,
) -> GrantTable {
    // Both are in the same order, so that one pass finds what was before.
    let mut rest = old.map_or(&[][..], GrantTable::entries);
    let mut entries = Vec::with_capacity(offers.list.len());
    for offer in &offers.list {
        let key = GrantKey {
            service: offer.key.service,
            workload,
            port: offer.key.port,
            protocol: offer.key.protocol,
            pad: 0,
        };
        while rest.first().is_some_and(|(other, _)| *other < key) {
            rest = &rest[1..];
        }
        let before = rest.first().filter(|(other, _)| *other == key).map(|(_, grant)| grant);
        let grant = Grant {
            valid_until_ns: offer.valid_until_ns,
            gateways: gateways(offer, acknowledged, before),
            // Statistics are the id's: they must not go over to another connection.
            id: before
                .filter(|grant| grant.connection == offer.connection)
                .map_or_else(|| ledger.grant(), |grant| grant.id),
            connection: offer.connection,
        };
        entries.push((key, grant));
    }
    GrantTable::from_sorted(entries)
}

/// The slots of gateways that have acknowledged the grant; of those that have said nothing, what was before.
fn gateways(offer: &Offer, acknowledged: &Acknowledged, old: Option<&Grant>) -> u64 {
    let old = old.map_or(0, |old| old.gateways);
    let (mut live, mut rest) = (0, offer.slots);
    while rest != 0 {
        let slot = rest.trailing_zeros();
        let bit = 1 << slot;
        rest ^= bit;
        let said = acknowledged.get(&slot).map(|offers| offers.contains(&offer.key));
        if said.unwrap_or(old & bit != 0) {
            live |= bit;
        }
    }
    live
}
