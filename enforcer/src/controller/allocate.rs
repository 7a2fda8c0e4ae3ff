//! Who gets which number and address. Pure: objects, what they need, and the allocations so far in; allocations out.
//!
//! An allocation lives exactly as long as its object, whatever the object says and whichever file it is in. A freed
//! number is given again only when all higher ones have been.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use crate::{
    model::{Kind, ObjectKey},
    resolve::age,
    state::{self, GATEWAY_SIZE, NodeAllocation, State, nth4, range_size},
    store::Snapshot,
};

/// Prefix length of the blocks that nodes take workload addresses from.
const BLOCK: u8 = 26;
const BLOCK_SIZE: u32 = 1 << (32 - BLOCK);
/// Gateways have the host numbers 1 to 254 of their /24.
const MOST_GATEWAYS: u32 = 254;
/// Nodes have the subnets 0x1001 to 0x1fff.
const MOST_NODES: u32 = 4095;

/// The workload range has to hold the gateways' /24 and at least one block.
pub const LONGEST_WORKLOAD_PREFIX: u8 = 23;
/// A service range that holds at least two services.
pub const LONGEST_SERVICE_PREFIX: u8 = 30;

/// Objects that got nothing, or less than they need, and why.
pub type Shortages = BTreeMap<ObjectKey, String>;

/// Gives every object that needs one a place and frees those of objects that are gone. `workloads` says how many
/// granted pods each TunnelNode has.
pub fn allocate(
    snapshot: &Snapshot,
    workloads: &BTreeMap<String, u32>,
    before: &State,
) -> (State, Shortages) {
    let mut state = before.clone();
    let mut shortages = Shortages::new();
    if !snapshot.incomplete {
        free(snapshot, &mut state);
    }
    let lacks = |key: &ObjectKey| match key.kind {
        Kind::TunnelGateway => !state.gateways.contains_key(&key.name),
        kind => kind.is_instance() && !state.services.contains_key(key),
    };
    // Numbers say who was there first: what is new gets them by its age.
    let mut by_age: Vec<_> = snapshot.objects.iter().filter(|(key, _)| lacks(key)).collect();
    by_age.sort_by_cached_key(|(key, object)| (age(object), *key));
    for (key, _) in by_age {
        let result = match key.kind {
            Kind::TunnelGateway => gateway(key, &mut state),
            _ => service(key, &mut state),
        };
        if let Err(message) = result {
            shortages.insert(key.clone(), message);
        }
    }
    shortages.extend(blocks(snapshot, workloads, &mut state));
    (state, shortages)
}

/// Gives every node the blocks that its granted pods need, and what else it has to have.
pub fn blocks(snapshot: &Snapshot, workloads: &BTreeMap<String, u32>, state: &mut State) -> Shortages {
    let nodes = snapshot.objects.iter().filter(|(key, _)| key.kind == Kind::TunnelNode);
    let mut by_age: Vec<_> = nodes.collect();
    by_age.sort_by_cached_key(|(key, object)| (age(object), *key));
    let mut shortages = Shortages::new();
    for (key, _) in by_age {
        let granted = workloads.get(&key.name).copied().unwrap_or_default();
        if let Err(message) = node(key, granted, state) {
            shortages.insert(key.clone(), message);
        }
    }
    shortages
}

fn free(snapshot: &Snapshot, state: &mut State) {
    let cluster_scoped =
        |kind, name: &String| snapshot.objects.contains_key(&ObjectKey::new(kind, "", name.as_str()));
    retain_known(&mut state.services, snapshot);
    retain_known(&mut state.status, snapshot);
    state.nodes.retain(|name, _| cluster_scoped(Kind::TunnelNode, name));
    state.gateways.retain(|name, _| cluster_scoped(Kind::TunnelGateway, name));
}

/// Drops what is of no object. Both are in the order of their keys, so that one pass tells.
fn retain_known<T>(map: &mut BTreeMap<ObjectKey, T>, snapshot: &Snapshot) {
    let mut known = snapshot.objects.keys().peekable();
    map.retain(|key, _| {
        while known.next_if(|known| *known < key).is_some() {}
        known.peek() == Some(&key)
    });
}

/// The next free number of `first..=last`, from `next` on and around.
fn number(next: &mut u32, first: u32, last: u32, taken: &BTreeSet<u32>) -> Option<u32> {
    let start = (*next).clamp(first, last);
    let found = (start..=last).chain(first..start).find(|number| !taken.contains(number))?;
    *next = if found == last { first } else { found + 1 };
    Some(found)
}

fn service(key: &ObjectKey, state: &mut State) -> Result<(), String> {
    // The first address is the range's name and the last its broadcast address.
    let last = range_size(state.service_range) - 2;
    let taken = state.services.values().map(|allocation| allocation.number).collect();
    let number = number(&mut state.next.service, 1, last, &taken)
        .ok_or_else(|| format!("all {last} addresses of service range {} are taken", state.service_range))?;
    state.services.extend(state::service_at(state, number).map(|place| (key.clone(), place)));
    Ok(())
}

fn gateway(key: &ObjectKey, state: &mut State) -> Result<(), String> {
    let taken = state.gateways.values().map(|allocation| allocation.number).collect();
    let number = number(&mut state.next.gateway, 1, MOST_GATEWAYS, &taken)
        .ok_or_else(|| format!("there are {MOST_GATEWAYS} gateways, which is the most"))?;
    state.gateways.extend(state::gateway_at(state, number).map(|place| (key.name.clone(), place)));
    Ok(())
}

fn node(key: &ObjectKey, granted: u32, state: &mut State) -> Result<(), String> {
    let mut allocation = match state.nodes.remove(&key.name) {
        Some(allocation) => allocation,
        None => new_node(state)?,
    };
    let mut result = Ok(());
    // Half of the addresses stay free for pods that come and go; the node's own counts as used.
    while 2 * (granted + 1) > allocation.blocks.len() as u32 * BLOCK_SIZE {
        match block(state, &allocation.blocks) {
            Ok(block) => allocation.blocks.push(block),
            Err(message) => {
                result = Err(message);
                break;
            }
        }
    }
    state.nodes.insert(key.name.clone(), allocation);
    result
}

fn new_node(state: &mut State) -> Result<NodeAllocation, String> {
    let taken = state.nodes.values().map(|allocation| allocation.number).collect();
    let first = block(state, &[])?;
    let number = number(&mut state.next.node, 1, MOST_NODES, &taken)
        .ok_or_else(|| format!("there are {MOST_NODES} nodes, which is the most"))?;
    state::node_at(state, number, vec![first])
        .ok_or_else(|| format!("there is no /64 for node number {number}"))
}

/// A block that no node has, `own` being those of a node that is not in the state for the moment.
fn block(state: &mut State, own: &[Ipv4Net]) -> Result<Ipv4Net, String> {
    let range = state.workload_range;
    let index = |block: &Ipv4Net| (u32::from(block.network()) - u32::from(range.network())) / BLOCK_SIZE;
    let others = state.nodes.values().flat_map(|node| &node.blocks);
    let taken = others.chain(own).map(index).collect();
    let blocks = (range_size(range) - GATEWAY_SIZE) / BLOCK_SIZE;
    let number = number(&mut state.next.block, 0, blocks - 1, &taken)
        .ok_or_else(|| format!("all {blocks} blocks (/{BLOCK}) of workload range {range} are taken"))?;
    Ok(Ipv4Net::new_assert(nth4(range.network(), number * BLOCK_SIZE), BLOCK))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Metadata, Object, Spec};
    use crate::state::Allocation;

    fn snapshot(keys: &[(Kind, &str)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (kind, name) in keys {
            let namespace = if kind.namespaced() { "shop" } else { "" };
            let metadata =
                Metadata { name: (*name).into(), namespace: namespace.into(), ..Metadata::default() };
            // The allocator asks for keys only.
            let object = Object { metadata, spec: Spec::Namespace };
            snapshot.objects.insert(ObjectKey::new(*kind, namespace, *name), Arc::new(object));
        }
        snapshot
    }

    fn install(services: &str, workloads: &str) -> State {
        State::new("fd00:1:2::/48".parse().unwrap(), services.parse().unwrap(), workloads.parse().unwrap())
    }

    fn allocated(keys: &[(Kind, &str)], before: &State) -> State {
        let (state, shortages) = allocate(&snapshot(keys), &BTreeMap::new(), before);
        assert_eq!(shortages, Shortages::new());
        state
    }

    fn services(state: &State) -> Vec<(String, String)> {
        state
            .services
            .iter()
            .map(|(key, a)| (key.text(), format!("{} {} {}", a.number, a.v4, a.v6)))
            .collect()
    }

    #[test]
    fn everything_gets_the_place_that_the_design_gives_it() {
        let keys = [(Kind::Postgres, "pg"), (Kind::TunnelGateway, "eu-1"), (Kind::TunnelNode, "n1")];
        let state = allocated(&keys, &install("198.18.0.0/16", "198.19.0.0/16"));
        let place = |number, v4: &str, v6: &str| Allocation {
            number,
            v4: v4.parse().unwrap(),
            v6: v6.parse().unwrap(),
        };
        assert_eq!(
            state.services[&"Postgres/shop/pg".parse().unwrap()],
            place(1, "198.18.0.1", "fd00:1:2:2::1")
        );
        assert_eq!(state.gateways["eu-1"], place(1, "198.19.255.1", "fd00:1:2:3::1"));
        let node = NodeAllocation {
            number: 1,
            v4: "198.19.0.1".parse().unwrap(),
            v6: "fd00:1:2:1001::1".parse().unwrap(),
            blocks: vec!["198.19.0.0/26".parse().unwrap()],
            subnet: "fd00:1:2:1001::/64".parse().unwrap(),
        };
        assert_eq!(state.nodes["n1"], node);
    }

    #[test]
    fn what_exists_keeps_its_place_and_a_freed_one_waits() {
        let (a, b, c, d) =
            ((Kind::Postgres, "a"), (Kind::Postgres, "b"), (Kind::MySQL, "c"), (Kind::Postgres, "d"));
        // Five addresses: 1 to 6 without the last.
        let first = allocated(&[a, b, c], &install("198.18.0.0/29", "198.19.0.0/16"));
        assert_eq!(allocated(&[a, b, c], &first), first, "the same objects change nothing");
        let without = allocated(&[b, c], &first);
        let again = allocated(&[a, b, c], &without);
        let kept = |state: &State, text: &str| state.services[&text.parse().unwrap()];
        assert_eq!(kept(&again, "Postgres/shop/b"), kept(&first, "Postgres/shop/b"));
        assert_eq!(kept(&again, "MySQL/shop/c"), kept(&first, "MySQL/shop/c"));
        assert_eq!(kept(&again, "Postgres/shop/a").number, 4, "the freed number is not given at once");
        let more = [a, b, c, d, (Kind::Postgres, "e"), (Kind::Postgres, "f")];
        let full = allocated(&more, &again);
        assert_eq!(
            kept(&full, "Postgres/shop/f").number,
            1 + services(&first).len() as u32 - 1 - 1,
            "{full:?}"
        );
    }

    #[test]
    fn an_incomplete_view_frees_nothing() {
        let first = allocated(&[(Kind::Postgres, "a")], &install("198.18.0.0/16", "198.19.0.0/16"));
        let incomplete = Snapshot { incomplete: true, ..snapshot(&[]) };
        assert_eq!(allocate(&incomplete, &BTreeMap::new(), &first).0, first);
        assert_eq!(services(&allocated(&[], &first)), []);
    }

    #[test]
    fn a_node_gets_a_block_when_half_is_used() {
        let nodes = snapshot(&[(Kind::TunnelNode, "n1"), (Kind::TunnelNode, "n2")]);
        let blocks = |granted: u32, state: &State| {
            let (state, shortages) = allocate(&nodes, &BTreeMap::from([("n1".into(), granted)]), state);
            (state.nodes["n1"].blocks.len(), state, shortages)
        };
        let empty = install("198.18.0.0/16", "198.19.0.0/23");
        let (count, state, _) = blocks(31, &empty);
        assert_eq!(count, 1);
        let (count, state, shortages) = blocks(32, &state);
        assert_eq!((count, shortages), (2, Shortages::new()));
        let (count, state, _) = blocks(0, &state);
        assert_eq!(count, 2, "a node's blocks are in use by pods that nobody here knows");
        let (count, state, shortages) = blocks(200, &state);
        let all = "all 4 blocks (/26) of workload range 198.19.0.0/23 are taken";
        let short = ObjectKey::new(Kind::TunnelNode, "", "n1");
        assert_eq!((count, shortages), (3, Shortages::from([(short, all.into())])));
        assert_eq!(state.nodes["n2"].blocks.len(), 1);
    }

    #[test]
    fn a_full_range_refuses_the_new_and_keeps_the_old() {
        let empty = install("198.18.0.0/30", "198.19.0.0/16");
        let keys = [(Kind::Postgres, "a"), (Kind::Postgres, "b")];
        let full = allocated(&keys, &empty);
        let more = snapshot(&[keys[0], keys[1], (Kind::Postgres, "c")]);
        let (state, shortages) = allocate(&more, &BTreeMap::new(), &full);
        assert_eq!(services(&state), services(&full));
        let short = ObjectKey::new(Kind::Postgres, "shop", "c");
        let all = "all 2 addresses of service range 198.18.0.0/30 are taken";
        assert_eq!(shortages, Shortages::from([(short, all.into())]));
    }
}
