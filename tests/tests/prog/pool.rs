//! What one test leaves, the next does not find.

use aya::maps::Map;
use enforcer_common::maps::name;
use enforcer_tests::{
    packet::SYN,
    prog::{
        kernel::Kernel,
        node::{self, families},
        pool::{Lease, litter, occupied},
    },
};

/// An object of this test's own: no other has room for so many flows.
fn lease() -> Lease {
    Lease::shared(&[(name::FLOW_RING, 77)])
}

fn map_id(lease: &Lease) -> u32 {
    let Some(Map::HashMap(flows)) = lease.map(name::FLOWS) else { panic!("flows are a hash") };
    flows.info().expect("the kernel describes its maps").id()
}

#[test]
fn an_object_comes_to_the_next_test_empty() {
    let first = lease();
    let id = map_id(&first);
    let littered = litter(&first);
    for map in name::NODE.iter().chain(name::GATEWAY).chain(name::SHARED).filter(|map| **map != name::EVENTS)
    {
        assert!(littered.contains(map), "{map} is littered: {littered:?}");
    }
    assert_eq!(occupied(&first), littered);
    drop(first);
    let second = lease();
    assert_eq!(map_id(&second), id, "the same object");
    assert_eq!(occupied(&second), [""; 0]);
    assert_ne!(map_id(&lease()), id, "which nobody else has meanwhile");
}

#[test]
fn events_and_flows_of_one_test_are_gone_in_the_next() {
    let kernel = || Kernel::with_flows(78, &[]);
    let mut first = node::node_with_flows(78);
    for family in families() {
        first.run("from_pod", &family.out(SYN).frame());
        first.run("to_wire", &family.out(SYN).frame());
    }
    drop(first);
    let mut second = kernel();
    assert_eq!(second.events(), []);
    for family in families() {
        assert_eq!(node::flow(&mut second, &family, 6), None);
    }
    assert_eq!((0..enforcer_common::maps::counter::COUNT).map(|index| second.counter(index)).sum::<u64>(), 0);
}
