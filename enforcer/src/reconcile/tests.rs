//! The plan's properties: complete, idempotent, closed at every moment on the way.

use std::net::Ipv4Addr;

use enforcer_common::{
    Addr, Port,
    config::{NodeConfig, Tunnel},
    gateway::{GwBackend, GwBackendKey, GwGrant, GwGrantKey, GwService, GwServiceKey},
    grant::{Destination, DestinationKey, FOREVER, Grant, GrantKey},
    guard::GuardKind,
    workload::{Place, WireKey, Workload},
};

use super::*;
use crate::datapath::{
    fake::{Fake, FakeGateway},
    faulty::{Fault, Faulty},
};

fn addr(host: u8) -> Addr {
    Addr::v4(Ipv4Addr::new(198, 18, 0, host))
}

/// A node with the workloads of `numbers`, each with a grant of its own, an identity and a place.
fn node(numbers: std::ops::Range<u8>) -> Tables {
    let mut tables = Tables {
        config: Some(NodeConfig {
            node4: addr(1),
            node6: Addr::NONE,
            enforcer0: 2,
            tunnel0: 3,
            flow_quota: 100,
            pad: 0,
        }),
        ..Tables::default()
    };
    for number in numbers {
        let id = u32::from(number);
        let workload = Workload { address4: addr(number), address6: Addr::NONE, id, flags: 0 };
        let port = Port::new(5432);
        tables.guard.insert(format!("198.18.{number}.0/24").parse().unwrap(), GuardKind::Service);
        tables
            .tunnels
            .insert(id, Tunnel { gateway4: addr(number), gateway6: Addr::NONE, ifindex: id, mtu: 1420 });
        tables.destinations.insert(
            DestinationKey { service: addr(number), port, protocol: 6, pad: [0; 5] },
            Destination { number: id },
        );
        tables.grants.insert(
            GrantKey { service: addr(number), workload: id, port, protocol: 6, pad: 0 },
            Grant { valid_until_ns: FOREVER, gateways: 0, id, connection: 1 },
        );
        tables.places.insert(addr(number), Place { address: addr(number), ifindex: id, workload: id });
        tables.wire.insert(WireKey { address: addr(number), ifindex: id, pad: 0 }, workload);
        tables.netns.insert(u64::from(number), workload);
    }
    tables
}

fn gateway(numbers: std::ops::Range<u8>) -> GwTables {
    let mut tables = GwTables::default();
    for number in numbers {
        let set = u32::from(number);
        let port = Port::new(5432);
        let backend = GwBackend {
            address: addr(number),
            source: Addr::NONE,
            next_hop: addr(number),
            ifindex: 2,
            mtu: 1500,
            port,
            pad: [0; 6],
        };
        tables.backends.insert(GwBackendKey { set, index: 0 }, backend);
        let service = GwServiceKey { service: addr(number), port, protocol: 6, pad: [0; 5] };
        tables.services.insert(service, GwService { set, count: 1 });
        tables.grants.insert(
            GwGrantKey { client: addr(number), service: addr(number), port, protocol: 6, pad: [0; 5] },
            GwGrant { valid_until_ns: FOREVER, id: set, connection: 1, node: 1, pad: 0 },
        );
    }
    tables
}

/// Whether the identities that are there have a grant (live or pending), and the grants a guard around them.
fn closed(tables: &Tables) -> bool {
    let granted = |workload: &Workload| tables.grants.keys().any(|key| key.workload == workload.id);
    let guarded = |service: &Addr| tables.destinations.keys().any(|key| key.service == *service);
    tables.wire.values().chain(tables.netns.values()).all(granted)
        && tables.grants.keys().all(|key| guarded(&key.service))
}

#[test]
fn a_plan_between_equals_is_empty() {
    assert_eq!(plan(&node(0..9), &node(0..9)), []);
    assert_eq!(plan_gateway(&gateway(0..9), &gateway(0..9)), []);
}

#[test]
fn a_carried_out_plan_leaves_what_was_desired() {
    for (from, to) in [(0..0, 0..9), (0..9, 3..12), (0..9, 0..0)] {
        let mut fake = Fake { tables: node(from.clone()) };
        let ops = plan(&fake.tables, &node(to.clone()));
        assert!(carry_out(&mut fake, &ops).is_empty());
        assert_eq!(fake.tables, node(to.clone()));

        let mut fake = FakeGateway { tables: gateway(from) };
        let ops = plan_gateway(&fake.tables, &gateway(to.clone()));
        assert!(carry_out_gateway(&mut fake, &ops).is_empty());
        assert_eq!(fake.tables, gateway(to));
    }
}

#[test]
fn a_workload_never_has_an_identity_before_its_grant() {
    let mut fake = Fake { tables: node(0..0) };
    for op in plan(&node(0..0), &node(0..9)) {
        fake.apply(&op).unwrap();
        assert!(closed(&fake.tables), "after {op:?}");
    }
}

#[test]
fn the_guard_comes_first_and_goes_last() {
    let ops = plan(&node(0..3), &node(3..6));
    let guard = |op: &Op| matches!(op, Op::SetGuard(..));
    assert!(ops.iter().take(3).all(guard), "{ops:?}");
    assert!(ops.iter().rev().take(3).all(|op| matches!(op, Op::RemoveGuard(_))), "{ops:?}");
}

#[test]
fn what_is_taken_away_goes_before_what_is_given() {
    let ops = plan(&node(0..3), &node(3..6));
    let last_removed = ops.iter().rposition(|op| matches!(op, Op::RemoveGrant(_))).unwrap();
    let first_given = ops.iter().position(|op| matches!(op, Op::SetGrant(..))).unwrap();
    assert!(last_removed < first_given, "{ops:?}");
}

#[test]
fn a_service_of_the_gateway_never_counts_a_backend_that_is_not_there() {
    let mut fake = FakeGateway { tables: gateway(0..5) };
    for op in plan_gateway(&gateway(0..5), &gateway(3..9)) {
        fake.apply(&op).unwrap();
        for service in fake.tables.services.values() {
            let key = GwBackendKey { set: service.set, index: 0 };
            assert!(fake.tables.backends.contains_key(&key), "after {op:?}");
        }
    }
}

#[test]
fn faults_at_any_call_are_made_good_by_the_next_plan() {
    let desired = node(3..12);
    let calls = plan(&node(0..9), &desired).len() as u64;
    for fault in [Fault::Full, Fault::Refused(libc::ENOMEM), Fault::Done] {
        for call in 0..calls {
            let schedule = BTreeMap::from([(call, fault), (calls + 1, fault)]);
            let mut faulty = Faulty::new(Fake { tables: node(0..9) }, schedule);
            let failed = carry_out(&mut faulty, &plan(&node(0..9), &desired));
            assert_eq!(failed.len(), 1, "the others were carried out all the same");
            for _ in 0..2 {
                let ops = plan(&faulty.dump().unwrap(), &desired);
                carry_out(&mut faulty, &ops);
            }
            assert_eq!(faulty.dump().unwrap(), desired, "{fault:?} at call {call}");
        }
    }
}
