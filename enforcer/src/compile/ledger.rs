//! Numbers and addresses that this node has given out: what must stay the same over restarts of the agent, because
//! maps, flows and the far end refer to it.
//!
//! A value without I/O: the agent writes it to a file before anything that it says reaches the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use enforcer_common::grant::MAX_TUNNELS;
use serde::{Deserialize, Serialize};

use crate::{model::ObjectKey, resolve::Node};

/// Version of the ledger's text form.
pub const VERSION: u32 = 1;
/// An address rests so long before another pod gets it: the longest lifetime of a flow at the far end.
pub const REST_SECONDS: u64 = 26 * 3600;
/// Grant ids are reserved in lots, so that the file is not written for each of them.
const LOT: u32 = 65_536;
/// The same for the numbers of connections.
const LOT_OF_CONNECTIONS: u32 = 1024;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ledger {
    pub version: u32,
    /// Key: uid of the pod.
    workloads: BTreeMap<String, Entry>,
    next_workload: u32,
    /// Addresses that nobody has and nobody may have yet. Key: their index.
    resting: BTreeMap<u32, Resting>,
    connections: BTreeMap<ObjectKey, u32>,
    /// Every connection's number below this may have been used.
    next_connection: u32,
    #[serde(skip)]
    next_number: Option<u32>,
    /// Key: name of the gateway.
    slots: BTreeMap<String, u32>,
    /// Every grant id below this may have been used.
    reserved_grants: u32,
    #[serde(skip)]
    next_grant: Option<u32>,
}

/// What a pod has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Id of the workload; never given to another pod.
    pub id: u32,
    /// Workload addresses; absent until the pod has its first grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
}

/// Addresses after their pod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Resting {
    /// The pod that had them.
    uid: String,
    /// Seconds of the Unix epoch.
    since: u64,
    /// Gateways that may still have flows of it; absent: nobody knows which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateways: Option<BTreeSet<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// Position in the node's blocks, and the last bits of the IPv6 address.
    pub index: u32,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            version: VERSION,
            workloads: BTreeMap::new(),
            next_workload: 1,
            resting: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            next_number: None,
            slots: BTreeMap::new(),
            reserved_grants: 1,
            next_grant: None,
        }
    }
}

impl Ledger {
    /// The id of a pod's workload, a new one where it has none.
    pub fn workload(&mut self, uid: &str) -> Entry {
        if let Some(entry) = self.workloads.get(uid) {
            return *entry;
        }
        let entry = Entry { id: self.next_workload, addresses: None };
        self.next_workload += 1;
        self.workloads.insert(uid.to_owned(), entry);
        entry
    }

    /// The same with workload addresses, where the node has any left.
    pub fn addressed(&mut self, uid: &str, node: &Node) -> Entry {
        let entry = self.workload(uid);
        if entry.addresses.is_some() {
            return entry;
        }
        let taken: BTreeSet<u32> =
            self.workloads.values().filter_map(|entry| Some(entry.addresses?.index)).collect();
        let free = candidates(node).find(|addresses| {
            !taken.contains(&addresses.index) && !self.resting.contains_key(&addresses.index)
        });
        let entry = Entry { addresses: free, ..entry };
        self.workloads.insert(uid.to_owned(), entry);
        entry
    }

    /// What a pod has, without giving it anything.
    pub fn get(&self, uid: &str) -> Option<Entry> {
        self.workloads.get(uid).copied()
    }

    /// Uid by workload id.
    pub fn uids(&self) -> BTreeMap<u32, &str> {
        self.workloads.iter().map(|(uid, entry)| (entry.id, uid.as_str())).collect()
    }

    /// Forgets pods that are gone. Their ids are never used again; their addresses are when every gateway that was
    /// `told` of them has released them, or after [`REST_SECONDS`].
    pub fn retain(
        &mut self,
        now_unix_s: u64,
        keep: impl Fn(&str) -> bool,
        told: impl Fn(&str) -> Option<BTreeSet<String>>,
    ) {
        let resting = &mut self.resting;
        self.workloads.retain(|uid, entry| {
            let keep = keep(uid);
            if let (false, Some(addresses)) = (keep, entry.addresses) {
                let rest = Resting { uid: uid.clone(), since: now_unix_s, gateways: told(uid) };
                resting.insert(addresses.index, rest);
            }
            keep
        });
        resting.retain(|_, rest| {
            let released = rest.gateways.as_ref().is_some_and(BTreeSet::is_empty);
            !released && now_unix_s.saturating_sub(rest.since) < REST_SECONDS
        });
    }

    /// A gateway has no flow of this pod any more.
    pub fn released(&mut self, uid: &str, gateway: &str) {
        for rest in self.resting.values_mut().filter(|rest| rest.uid == uid) {
            if let Some(gateways) = &mut rest.gateways {
                gateways.remove(gateway);
            }
        }
        self.resting.retain(|_, rest| rest.gateways.as_ref().is_none_or(|gateways| !gateways.is_empty()));
    }

    /// The number that stands for a connection in grants and events.
    pub fn connection(&mut self, key: &ObjectKey) -> u32 {
        if let Some(number) = self.connections.get(key) {
            return *number;
        }
        let number = self.next_number.unwrap_or(self.next_connection);
        self.next_number = Some(number + 1);
        if number >= self.next_connection {
            self.next_connection = number + LOT_OF_CONNECTIONS;
        }
        self.connections.insert(key.clone(), number);
        number
    }

    /// Forgets the numbers of connections that are gone; they are never used again.
    pub fn retain_connections(&mut self, keep: &BTreeSet<u32>) {
        self.connections.retain(|_, number| keep.contains(number));
    }

    /// The tunnel slot of a gateway. A slot goes to another gateway only when none is left and its own is gone.
    pub fn slot(&mut self, gateway: &str, is_known: impl Fn(&str) -> bool) -> Option<u32> {
        if let Some(slot) = self.slots.get(gateway) {
            return Some(*slot);
        }
        let taken: BTreeSet<u32> = self.slots.values().copied().collect();
        let slot = (0..MAX_TUNNELS).find(|slot| !taken.contains(slot)).or_else(|| {
            let gone = self.slots.keys().find(|name| !is_known(name))?.clone();
            self.slots.remove(&gone)
        })?;
        self.slots.insert(gateway.to_owned(), slot);
        Some(slot)
    }

    /// A grant id that was never used.
    pub fn grant(&mut self) -> u32 {
        let id = self.next_grant.unwrap_or(self.reserved_grants);
        self.next_grant = Some(id + 1);
        if id >= self.reserved_grants {
            self.reserved_grants = id + LOT;
        }
        id
    }

    /// Whether both say the same once written and read back.
    pub fn same_on_disk(&self, other: &Self) -> bool {
        self.same_but_for_connections(other) && self.connections == other.connections
    }

    /// The same without the numbers of single connections. One that is lost is given a new one, which nobody has
    /// had, and its grants are counted anew: nothing that the kernel or a gateway relies on.
    pub fn same_but_for_connections(&self, other: &Self) -> bool {
        // Taken apart, so that a field that is added is not forgotten here.
        let Self {
            version,
            workloads,
            next_workload,
            resting,
            connections: _,
            next_connection,
            next_number: _,
            slots,
            reserved_grants,
            next_grant: _,
        } = self;
        (version, next_workload, next_connection, reserved_grants)
            == (&other.version, &other.next_workload, &other.next_connection, &other.reserved_grants)
            && *workloads == other.workloads
            && *resting == other.resting
            && *slots == other.slots
    }
}

/// Every workload address of a node in order. The first of the first block is the node's own, and the first and last
/// of the range are left out where they fall into a block.
fn candidates(node: &Node) -> impl Iterator<Item = Addresses> + '_ {
    let all = node.blocks.iter().flat_map(|block| {
        let first = u32::from(block.network());
        (0..(1_u32 << (32 - block.prefix_len()))).map(move |offset| Ipv4Addr::from(first + offset))
    });
    all.zip(0_u32..)
        .filter(|(v4, index)| *index != 0 && *v4 != node.v4)
        .map(|(v4, index)| {
            let v6 = Ipv6Addr::from(u128::from(node.subnet.network()) | u128::from(index));
            Addresses { index, v4, v6 }
        })
        .filter(|addresses| addresses.v6 != node.v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            name: "n1".to_owned(),
            number: 1,
            v4: "198.19.0.0".parse().unwrap(),
            v6: "fd00:0:0:1000::1".parse().unwrap(),
            blocks: vec!["198.19.0.0/30".parse().unwrap()],
            subnet: "fd00:0:0:1000::/64".parse().unwrap(),
            public_key: [0; 32],
            cluster: "c".to_owned(),
        }
    }

    #[test]
    fn a_pod_keeps_what_it_has_and_nobody_gets_it_twice() {
        let mut ledger = Ledger::default();
        let a = ledger.addressed("a", &node());
        let b = ledger.addressed("b", &node());
        assert_eq!(
            a,
            Entry {
                id: 1,
                addresses: Some(Addresses {
                    index: 2,
                    v4: "198.19.0.2".parse().unwrap(),
                    v6: "fd00:0:0:1000::2".parse().unwrap(),
                }),
            },
            "index 1 would have the node's own IPv6 address"
        );
        assert_eq!(b.addresses.map(|addresses| addresses.index), Some(3));
        assert_eq!(ledger.addressed("c", &node()), Entry { id: 3, addresses: None }, "none is left");
        assert_eq!(ledger.addressed("a", &node()), a);
    }

    #[test]
    fn an_address_rests_before_it_is_used_again() {
        let mut ledger = Ledger::default();
        let a = ledger.addressed("a", &node());
        ledger.retain(1000, |_| false, |_| None);
        let b = ledger.addressed("b", &node());
        assert_ne!(a.id, b.id);
        assert_eq!(b.addresses.map(|addresses| addresses.index), Some(3));
        ledger.retain(1000 + REST_SECONDS, |_| true, |_| None);
        let c = ledger.addressed("c", &node());
        assert_eq!(c.addresses, a.addresses);
    }

    #[test]
    fn an_address_is_free_when_every_gateway_that_knew_it_has_let_go() {
        let mut ledger = Ledger::default();
        let a = ledger.addressed("a", &node());
        ledger.retain(1000, |_| false, |_| Some(BTreeSet::from(["eu-1".to_owned(), "eu-2".to_owned()])));
        ledger.released("a", "eu-1");
        assert_ne!(ledger.addressed("b", &node()).addresses, a.addresses);
        ledger.released("a", "eu-2");
        assert_eq!(ledger.addressed("c", &node()).addresses, a.addresses);
    }

    #[test]
    fn grant_ids_survive_in_lots() {
        let mut ledger = Ledger::default();
        assert_eq!((ledger.grant(), ledger.grant()), (1, 2));
        let mut back: Ledger = serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap();
        assert!(back.same_on_disk(&ledger));
        assert_eq!(back.grant(), 1 + LOT, "ids 1 and 2 may be in use");
    }

    #[test]
    fn a_number_that_was_given_after_the_last_save_is_not_given_to_another() {
        let key = |name: &str| ObjectKey::new(crate::model::Kind::ServiceConnection, "shop", name);
        let mut ledger = Ledger::default();
        assert_eq!((ledger.connection(&key("a")), ledger.connection(&key("a"))), (1, 1));
        let saved = serde_json::to_string(&ledger).unwrap();
        let mut back: Ledger = serde_json::from_str(&saved).unwrap();
        assert_eq!(ledger.connection(&key("b")), 2);
        assert!(ledger.same_but_for_connections(&back) && !ledger.same_on_disk(&back));
        assert_eq!(back.connection(&key("a")), 1);
        assert_eq!(back.connection(&key("c")), 1 + LOT_OF_CONNECTIONS, "2 may be in use");
    }
}
