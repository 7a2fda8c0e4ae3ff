//! What one pod may reach.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use enforcer_common::{
    Addr, Port,
    grant::{DestinationKey, FOREVER, Grant, GrantKey},
};

use super::{
    Acknowledged, Input, Ledger, Pod, PodGrants,
    ledger::Addresses,
    matching::{Charged, Index},
};
use crate::{
    announce::Binding,
    resolve::{Connection, Destination, DestinationPort},
};

/// The pod's grants; the old ones where nothing that they depend on has changed.
pub(super) fn compile(
    input: &Input,
    ledger: &mut Ledger,
    index: &Index,
    pod: &Arc<Pod>,
    old: Option<&Arc<PodGrants>>,
    connections: Arc<BTreeSet<u32>>,
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
    let mut grants = PodGrants { connections, addresses: entry.addresses, ..PodGrants::default() };
    // Without a workload address nothing can be carried, and a grant would promise it.
    if let Some(addresses) = entry.addresses {
        let charged = index.in_order(&grants.connections);
        grants.gateways =
            charged.iter().flat_map(|(.., destination)| &destination.gateways).cloned().collect();
        grants.binding = Some(Arc::new(binding(input, pod, addresses)));
        let old = old.map(|old| &old.grants);
        let context = PodContext { input, workload: entry.id, acknowledged: &acknowledged, old };
        grants.grants = context.grants(ledger, &charged);
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

struct PodContext<'a> {
    input: &'a Input<'a>,
    workload: u32,
    acknowledged: &'a Acknowledged,
    old: Option<&'a BTreeMap<GrantKey, Grant>>,
}

impl PodContext<'_> {
    fn grants(&self, ledger: &mut Ledger, charged: &[Charged]) -> BTreeMap<GrantKey, Grant> {
        let mut grants = BTreeMap::new();
        for (number, connection, destination) in charged {
            let valid_until_ns = self.boot_time(connection);
            for service in addresses(destination) {
                for port in &connection.ports {
                    match grants.entry(self.key(service, *port)) {
                        Entry::Vacant(vacant) => {
                            let old = self.old.and_then(|old| old.get(vacant.key()));
                            let gateways = self.gateways(destination, vacant.key(), old);
                            let id = old.map_or_else(|| ledger.grant(), |old| old.id);
                            vacant.insert(Grant { valid_until_ns, gateways, id, connection: *number });
                        }
                        // Charged to the one that came first, valid as long as any of them.
                        Entry::Occupied(mut grant) => {
                            let grant = grant.get_mut();
                            grant.valid_until_ns = grant.valid_until_ns.max(valid_until_ns);
                        }
                    }
                }
            }
        }
        grants
    }

    fn key(&self, service: Addr, port: DestinationPort) -> GrantKey {
        let (protocol, port) = (port.protocol.number(), Port::new(port.port));
        GrantKey { service, workload: self.workload, port, protocol, pad: 0 }
    }

    /// The slots of gateways that have acknowledged the grant; of those that have said nothing, what was before.
    fn gateways(&self, destination: &Destination, key: &GrantKey, old: Option<&Grant>) -> u64 {
        let offer = DestinationKey { service: key.service, port: key.port, protocol: key.protocol, pad: 0 };
        let slots = destination.gateways.iter().filter_map(|gateway| self.input.tunnels.get(gateway));
        slots.map(|end| end.slot).fold(0, |bits, slot| {
            let bit = 1_u64 << slot;
            let live = match self.acknowledged.get(&slot) {
                Some(offers) => offers.contains(&offer),
                None => old.is_some_and(|old| old.gateways & bit != 0),
            };
            if live { bits | bit } else { bits }
        })
    }

    fn boot_time(&self, connection: &Connection) -> u64 {
        let Some(until) = connection.valid_until_unix_ns else { return FOREVER };
        let boot = (i128::from(until) - self.input.boot_unix_ns).max(0);
        u64::try_from(boot).unwrap_or(FOREVER)
    }
}

/// The families that are published.
pub(super) fn addresses(destination: &Destination) -> impl Iterator<Item = Addr> + use<> {
    destination.v4.map(Addr::v4).into_iter().chain(destination.v6.map(Addr::v6))
}
