//! Properties of `compile`, on whole values.

pub(crate) mod world;

use enforcer_common::{
    Port,
    config::{EndpointKey, NodeConfig},
    grant::{Destination as DestinationValue, FOREVER},
    guard::GuardKind,
    workload::{NOT_GUARDABLE, Place, WireKey, Workload},
};
use world::{World, addr, connection, gateways, grant_key, granted, id, labels, netns, tunnel};

use super::*;
use crate::reconcile;

#[test]
fn a_node_holds_exactly_what_its_objects_say() {
    let mut world = World::new();
    world.acknowledge("u-shop", &[("198.18.0.7", 5432)]);
    let compiled = world.compile();

    assert_eq!(compiled.tables(), tables_of_the_world());
    let binding = Binding {
        uid: "u-shop".to_owned(),
        generation: 0,
        v4: Some("198.19.0.2".parse().unwrap()),
        v6: Some("fd00:0:0:1000::2".parse().unwrap()),
        cluster: "c1".to_owned(),
        namespace: "shop".to_owned(),
        namespace_labels: labels(&[("env", "prod")]),
        pod: "web".to_owned(),
        labels: labels(&[("app", "web")]),
    };
    assert_eq!(
        compiled.bindings,
        BTreeMap::from([("eu-1".to_owned(), BTreeMap::from([("u-shop".to_owned(), Arc::new(binding))]))])
    );
    assert_eq!(compiled.problems, []);
}

/// What the maps hold for the one granted pod of a new [`World`].
fn tables_of_the_world() -> Tables {
    let workload =
        Workload { address4: addr("198.19.0.2"), address6: addr("fd00:0:0:1000::2"), id: 1, flags: 0 };
    let place = |address: &str| Place { address: addr(address), ifindex: 11, workload: 1 };
    let offer = |service, port, protocol| DestinationKey {
        service: addr(service),
        port: Port::new(port),
        protocol,
        pad: [0; 5],
    };
    let number = DestinationValue { number: 7 };
    Tables {
        config: Some(NodeConfig {
            node4: addr("198.19.0.1"),
            node6: addr("fd00:0:0:1000::1"),
            enforcer0: 2,
            tunnel0: 3,
            flow_quota: 1000,
            pad: 0,
        }),
        guard: [
            ("198.18.0.0/16".parse().unwrap(), GuardKind::Service),
            ("198.19.0.0/16".parse().unwrap(), GuardKind::Workload),
            ("10.99.0.0/24".parse().unwrap(), GuardKind::Listed),
        ]
        .into(),
        tunnels: [(4, tunnel())].into(),
        endpoints: [(
            EndpointKey {
                address: addr("203.0.113.1"),
                port: Port::new(51820),
                local_port: Port::new(4000),
                pad: 0,
            },
            4,
        )]
        .into(),
        destinations: [(offer("198.18.0.7", 0, 0), number), (offer("198.18.0.7", 5432, 6), number)].into(),
        grants: [(
            grant_key(1, "198.18.0.7", 5432),
            Grant { valid_until_ns: FOREVER, gateways: 1 << 4, id: 1, connection: 1 },
        )]
        .into(),
        places: [(addr("198.19.0.2"), place("10.0.0.5")), (addr("fd00:0:0:1000::2"), place("fd10::5"))]
            .into(),
        wire: [
            (WireKey { address: addr("10.0.0.5"), ifindex: 11, pad: 0 }, workload),
            (WireKey { address: addr("fd10::5"), ifindex: 11, pad: 0 }, workload),
            (WireKey { address: Addr::NONE, ifindex: 11, pad: 0 }, workload),
        ]
        .into(),
        netns: [(77, workload)].into(),
        cgroups: BTreeMap::new(),
    }
}

#[test]
fn only_pods_that_both_selectors_select_get_a_grant_and_the_others_are_known_without_addresses() {
    let mut world = World::new();
    world.pod("u-label", "shop", "other", &[("app", "batch")], &[("env", "prod")], netns(78, 12, "10.0.0.6"));
    world.pod("u-space", "test", "web", &[("app", "web")], &[("env", "test")], netns(79, 13, "10.0.0.7"));
    world.pod("u-bare", "shop", "bare", &[], &[("env", "prod")], netns(80, 14, "10.0.0.8"));
    let compiled = world.compile();

    assert_eq!(granted(&compiled), [(id(&world, "u-shop"), "198.18.0.7".to_owned(), 5432)]);
    for (uid, cookie) in [("u-label", 78), ("u-space", 79), ("u-bare", 80)] {
        let workload = Workload { address4: Addr::NONE, address6: Addr::NONE, id: id(&world, uid), flags: 0 };
        assert_eq!(compiled.node.netns.get(&cookie), Some(&workload), "{uid}");
    }
    assert_eq!(
        compiled.node.places.len(),
        2,
        "only the granted pod has workload addresses, one of each family"
    );
}

#[test]
fn a_label_change_takes_the_grant_away_and_the_identity_stays() {
    let mut world = World::new();
    let before = world.compile();
    world.pod("u-shop", "shop", "web", &[("app", "batch")], &[("env", "prod")], netns(77, 11, "10.0.0.5"));
    let after = world.compile_after(&before);

    let (have, want) = before.difference(&after);
    assert_eq!(
        reconcile::plan(&have, &want),
        [
            crate::datapath::Op::RemoveGrant(grant_key(id(&world, "u-shop"), "198.18.0.7", 5432)),
            crate::datapath::Op::RemoveWire(WireKey { address: addr("fd10::5"), ifindex: 11, pad: 0 }),
            crate::datapath::Op::RemovePlace(addr("fd00:0:0:1000::2")),
        ]
    );
    assert_eq!(after.bindings, BTreeMap::new());
}

#[test]
fn a_grant_is_pending_until_its_gateway_acknowledges_exactly_it() {
    let mut world = World::new();
    assert_eq!(gateways(&world.compile()), [0]);
    world.acknowledge("u-shop", &[("198.18.0.7", 5433), ("198.18.0.8", 5432)]);
    assert_eq!(gateways(&world.compile()), [0], "another port and another service were acknowledged");
    world.acknowledge("u-shop", &[("198.18.0.7", 5432)]);
    assert_eq!(gateways(&world.compile()), [1 << 4]);
}

#[test]
fn after_a_restart_grants_stay_live_until_the_gateway_has_spoken() {
    let mut world = World::new();
    world.acknowledge("u-shop", &[("198.18.0.7", 5432)]);
    let live = world.compile();
    let adopted = Compiled::adopt(live.tables());
    world.acknowledged.clear();
    let device = world.tunnels.get_mut("eu-1").unwrap().device.take();
    let after = world.compile_after(&adopted);
    let (have, want) = adopted.difference(&after);
    assert_eq!(reconcile::plan(&have, &want), [], "nothing changes in the kernel");
    world.tunnels.get_mut("eu-1").unwrap().device = device;

    world.acknowledge("u-shop", &[]);
    assert_eq!(gateways(&world.compile_after(&after)), [0], "what it says counts at once");
}

#[test]
fn overlapping_connections_charge_the_oldest_and_last_as_long_as_the_longest() {
    let mut world = World::new();
    world.first().valid_until_unix_ns = Some(5_000);
    let mut younger = connection("younger");
    younger.valid_until_unix_ns = Some(9_000);
    world.resolved.connections.push(younger.into());
    world.boot_unix_ns = 1_000;
    let compiled = world.compile();
    assert_eq!(
        compiled.tables().grants.into_values().collect::<Vec<_>>(),
        [Grant { valid_until_ns: 8_000, gateways: 0, id: 1, connection: 1 }]
    );
    assert_eq!(compiled.connections[&1].name, "oldest");
}

#[test]
fn a_grant_that_another_connection_is_charged_for_is_counted_anew() {
    let mut world = World::new();
    let before = world.compile();
    let mut older = connection("older");
    older.key = ObjectKey::new(older.key.kind, older.key.namespace.as_str(), "a-older");
    world.resolved.connections.insert(0, older.into());
    let after = world.compile_after(&before);
    let charged = |compiled: &Compiled| -> Vec<(u32, String)> {
        let grants = compiled.tables().grants.into_values();
        grants.map(|grant| (grant.id, compiled.connections[&grant.connection].name.clone())).collect()
    };
    assert_eq!(charged(&before), [(1, "oldest".to_owned())]);
    assert_eq!(charged(&after), [(2, "a-older".to_owned())]);
    assert_eq!(charged(&world.compile_after(&after)), [(2, "a-older".to_owned())]);
}

#[test]
fn a_grant_that_was_over_before_the_machine_started_is_over() {
    let mut world = World::new();
    world.first().valid_until_unix_ns = Some(999);
    world.boot_unix_ns = 1_000;
    let ends: Vec<u64> = world.compile().tables().grants.values().map(|grant| grant.valid_until_ns).collect();
    assert_eq!(ends, [0]);
}

#[test]
fn a_pod_that_cannot_be_guarded_is_marked_wherever_it_is_known() {
    let mut world = World::new();
    let location = Location::Netns {
        cookie: 77,
        ifindex: 0,
        addresses: vec!["10.0.0.5".parse().unwrap()],
        not_guardable: Some("eth0 is a macvlan".to_owned()),
    };
    world.pod("u-shop", "shop", "web", &[("app", "web")], &[("env", "prod")], location);
    let compiled = world.compile();
    assert_eq!(
        compiled.node.netns.values().map(|workload| workload.flags).collect::<Vec<_>>(),
        [NOT_GUARDABLE]
    );
    assert_eq!(compiled.node.wire, BTreeMap::new());
    assert_eq!(compiled.node.places, BTreeMap::new());
}

#[test]
fn a_host_network_pod_is_known_by_its_cgroups_and_answered_at_the_nodes_address() {
    let mut world = World::new();
    let location = Location::Host { cgroups: vec![500, 501] };
    world.pod("u-shop", "shop", "web", &[("app", "web")], &[("env", "prod")], location);
    let compiled = world.compile();
    assert_eq!(compiled.node.cgroups.keys().copied().collect::<Vec<_>>(), [500, 501]);
    let place = |address| Place { address: addr(address), ifindex: 0, workload: 1 };
    assert_eq!(
        compiled.node.places,
        BTreeMap::from([
            (addr("198.19.0.2"), place("198.19.0.1")),
            (addr("fd00:0:0:1000::2"), place("fd00:0:0:1000::1")),
        ])
    );
}

#[test]
fn a_family_is_granted_only_where_it_is_published() {
    let mut world = World::new();
    let destination = world.destination();
    (destination.v4, destination.v6) = (None, Some("fd00:0:0:2::7".parse().unwrap()));
    assert_eq!(granted(&world.compile()), [(1, "fd00:0:0:2::7".to_owned(), 5432)]);
}

#[test]
fn two_pods_in_one_namespace_are_told_and_the_older_keeps_it() {
    let mut world = World::new();
    let before = world.compile();
    world.pod("u-a", "shop", "twin", &[], &[], netns(77, 11, "10.0.0.5"));
    let after = world.compile_after(&before);
    assert_eq!(after.node.netns[&77].id, id(&world, "u-shop"));
    assert_eq!(
        after.problems,
        [CompileProblem::SharedNamespace { pod: "shop/twin".to_owned(), holder: "shop/web".to_owned() }]
    );
}

#[test]
fn the_previous_outcome_never_changes_the_next() {
    let mut world = World::new();
    let mut previous = world.compile();
    let edits: [fn(&mut World); 6] = [
        |world| world.resolved.connections.insert(0, connection("added").into()),
        |world| world.first().ports.clear(),
        |world| {
            world.pod("u-2", "shop", "two", &[("app", "web")], &[("env", "prod")], netns(90, 20, "10.0.0.9"));
        },
        |world| world.destination().v4 = Some("198.18.0.9".parse().unwrap()),
        |world| world.resolved.connections.swap(0, 1),
        |world| drop(world.resolved.connections.remove(0)),
    ];
    for (step, edit) in edits.into_iter().enumerate() {
        edit(&mut world);
        let next = world.compile_after(&previous);
        let ledger = world.ledger.clone();
        let fresh = world.compile();
        world.ledger = ledger;
        let without_ids = |compiled: &Compiled| {
            let mut tables = compiled.tables();
            tables.grants.values_mut().for_each(|grant| grant.id = 0);
            tables
        };
        assert_eq!(without_ids(&next), without_ids(&fresh), "step {step}");
        assert_eq!(next.bindings, fresh.bindings, "step {step}");
        previous = next;
    }
}

#[test]
fn a_pod_that_nothing_happened_to_is_not_compiled_again() {
    let mut world = World::new();
    world.pod("u-2", "shop", "two", &[("app", "web")], &[("env", "prod")], netns(90, 20, "10.0.0.9"));
    let before = world.compile();
    world.acknowledge("u-2", &[("198.18.0.7", 5432)]);
    let after = world.compile_after(&before);
    let (one, two) = (id(&world, "u-shop"), id(&world, "u-2"));
    assert!(Arc::ptr_eq(&before.pods[&one], &after.pods[&one]));
    let (have, want) = before.difference(&after);
    assert_eq!(have.grants.keys().map(|key| key.workload).collect::<Vec<_>>(), [two]);
    assert_eq!(want.grants.keys().map(|key| key.workload).collect::<Vec<_>>(), [two]);
}
