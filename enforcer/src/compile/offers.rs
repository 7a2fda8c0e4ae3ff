//! What a set of connections offers to every pod that it selects: worked out once, whatever the number of pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use enforcer_common::{
    Addr, Port,
    grant::{DestinationKey, FOREVER},
};

use super::matching::{Index, Numbers};
use crate::resolve::{Connection, Destination};

/// What offers depend on besides the connections.
pub struct Terms<'a> {
    /// Unix time minus `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_unix_ns: i128,
    /// [`Offer::slots`] of a destination; `None`: it is not offered here.
    pub slots: &'a dyn Fn(&Destination) -> Option<u64>,
}

/// One grant but for the pod.
pub struct Offer {
    pub key: DestinationKey,
    /// Number of the connection that is charged.
    pub connection: u32,
    pub valid_until_ns: u64,
    /// Bit n: the gateway behind tunnel slot n leads there.
    pub slots: u64,
}

/// Offers in the order of their keys.
pub struct Offers {
    pub list: Vec<Offer>,
    /// Names of the gateways that lead to them.
    pub gateways: BTreeSet<String>,
}

/// Sets of connections and their offers, so that pods which are selected alike share them.
#[derive(Default)]
pub struct Shared {
    sets: BTreeMap<Numbers, Arc<Offers>>,
    /// The one that was asked for last: most pods are like the one before.
    last: Option<(Numbers, Arc<Offers>)>,
}

impl Shared {
    /// The set, shared with those that are equal, and what it offers.
    pub fn of<T: PartialEq>(
        &mut self,
        terms: &Terms,
        index: &Index<T>,
        numbers: Numbers,
    ) -> (Numbers, Arc<Offers>) {
        if let Some((last, offers)) = self.last.as_ref().filter(|(last, _)| *last == numbers) {
            return (Arc::clone(last), Arc::clone(offers));
        }
        let found = self.sets.get_key_value(&numbers);
        let both = if let Some((numbers, offers)) = found {
            (Arc::clone(numbers), Arc::clone(offers))
        } else {
            let offers = Arc::new(offers(terms, index, &numbers));
            self.sets.insert(Arc::clone(&numbers), Arc::clone(&offers));
            (numbers, offers)
        };
        self.last = Some(both.clone());
        both
    }
}

fn offers<T: PartialEq>(terms: &Terms, index: &Index<T>, numbers: &BTreeSet<u32>) -> Offers {
    let charged = index.in_order(numbers);
    let mut list = Vec::with_capacity(charged.len());
    for (number, connection, destination) in &charged {
        let Some(slots) = (terms.slots)(destination) else { continue };
        let valid_until_ns = boot_time(terms, connection);
        for service in addresses(destination) {
            for port in &connection.ports {
                let (protocol, port) = (port.protocol.number(), Port::new(port.port));
                let key = DestinationKey { service, port, protocol, pad: [0; 5] };
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

fn boot_time(terms: &Terms, connection: &Connection) -> u64 {
    let Some(until) = connection.valid_until_unix_ns else { return FOREVER };
    let boot = (i128::from(until) - terms.boot_unix_ns).max(0);
    u64::try_from(boot).unwrap_or(FOREVER)
}

/// The families that are published.
pub fn addresses(destination: &Destination) -> impl Iterator<Item = Addr> + use<> {
    destination.v4.map(Addr::v4).into_iter().chain(destination.v6.map(Addr::v6))
}
