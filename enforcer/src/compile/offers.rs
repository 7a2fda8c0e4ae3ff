//! What a set of connections offers to every pod that it selects: worked out once, whatever the number of pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use enforcer_common::{
    Addr, Port,
    grant::{DestinationKey, FOREVER},
};

use super::{Input, matching::Index};
use crate::resolve::{Connection, Destination};

/// One grant but for the pod.
pub(super) struct Offer {
    pub key: DestinationKey,
    /// Number of the connection that is charged.
    pub connection: u32,
    pub valid_until_ns: u64,
    /// Bit n: the gateway behind tunnel slot n leads there.
    pub slots: u64,
}

/// Offers in the order of their keys.
pub(super) struct Offers {
    pub list: Vec<Offer>,
    /// Names of the gateways that lead to them.
    pub gateways: BTreeSet<String>,
}

/// Sets of connections and their offers, so that pods which are selected alike share them.
#[derive(Default)]
pub(super) struct Shared {
    sets: BTreeMap<Arc<BTreeSet<u32>>, Arc<Offers>>,
    /// The one that was asked for last: most pods are like the one before.
    last: Option<(Arc<BTreeSet<u32>>, Arc<Offers>)>,
}

impl Shared {
    /// The set, shared with those that are equal, and what it offers.
    pub fn of(
        &mut self,
        input: &Input,
        index: &Index,
        numbers: Arc<BTreeSet<u32>>,
    ) -> (Arc<BTreeSet<u32>>, Arc<Offers>) {
        if let Some((last, offers)) = self.last.as_ref().filter(|(last, _)| *last == numbers) {
            return (Arc::clone(last), Arc::clone(offers));
        }
        let found = self.sets.get_key_value(&numbers);
        let both = if let Some((numbers, offers)) = found {
            (Arc::clone(numbers), Arc::clone(offers))
        } else {
            let offers = Arc::new(offers(input, index, &numbers));
            self.sets.insert(Arc::clone(&numbers), Arc::clone(&offers));
            (numbers, offers)
        };
        self.last = Some(both.clone());
        both
    }
}

fn offers(input: &Input, index: &Index, numbers: &BTreeSet<u32>) -> Offers {
    let charged = index.in_order(numbers);
    let mut list = Vec::with_capacity(charged.len());
    for (number, connection, destination) in &charged {
        let (valid_until_ns, slots) = (boot_time(input, connection), slots(input, destination));
        for service in addresses(destination) {
            for port in &connection.ports {
                let (protocol, port) = (port.protocol.number(), Port::new(port.port));
                let key = DestinationKey { service, port, protocol, pad: 0 };
                list.push(Offer { key, connection: *number, valid_until_ns, slots });
            }
        }
    }
    // Stable: of equal keys the first is the one that is charged. It is valid as long as any of them.
    list.sort_by_key(|offer| offer.key);
    list.dedup_by(|next, first| {
        let same = next.key == first.key;
        if same {
            first.valid_until_ns = first.valid_until_ns.max(next.valid_until_ns);
        }
        same
    });
    let gateways = charged.iter().flat_map(|(.., destination)| &destination.gateways).cloned().collect();
    Offers { list, gateways }
}

fn slots(input: &Input, destination: &Destination) -> u64 {
    let ends = destination.gateways.iter().filter_map(|gateway| input.tunnels.get(gateway));
    ends.fold(0, |bits, end| bits | 1 << end.slot)
}

fn boot_time(input: &Input, connection: &Connection) -> u64 {
    let Some(until) = connection.valid_until_unix_ns else { return FOREVER };
    let boot = (i128::from(until) - input.boot_unix_ns).max(0);
    u64::try_from(boot).unwrap_or(FOREVER)
}

/// The families that are published.
pub(super) fn addresses(destination: &Destination) -> impl Iterator<Item = Addr> + use<> {
    destination.v4.map(Addr::v4).into_iter().chain(destination.v6.map(Addr::v6))
}
