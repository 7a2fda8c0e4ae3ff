//! What a person reads of an event.

use enforcer_common::Port;

use super::*;
use crate::{
    compile::tests::world::{World, addr, connection, netns},
    model::LabelSelector,
};

const NOTHING: Event = Event {
    time_ns: 1_000_000_000,
    netns: 0,
    cgroup: 0,
    source: Addr::NONE,
    destination: Addr::NONE,
    ifindex: 0,
    pid: 0,
    workload: 0,
    connection: 0,
    source_port: Port::NONE,
    destination_port: Port::NONE,
    protocol: 6,
    kind: EventKind::Denied as u8,
    hook: Hook::Connect as u8,
    reason: 0,
    comm: [0; 16],
};

/// The world's pod with the namespace cookie 77, and one without labels with 78.
fn names(edit: impl FnOnce(&mut World)) -> Names {
    let mut world = World::new();
    world.pod("u-bare", "shop", "bare", &[], &[("env", "prod")], netns(78, 12, "10.0.0.6"));
    edit(&mut world);
    let compiled = Arc::new(world.compile());
    let resolved = Arc::new(world.resolved);
    Names { compiled, resolved, cluster: "c1".to_owned(), boot_unix_ns: 1_700_000_000_000_000_000 }
}

fn refused(netns: u64, reason: DropReason) -> Event {
    let (destination, destination_port) = (addr("198.18.0.7"), Port::new(5432));
    Event { netns, reason: reason as u8, destination, destination_port, ..NOTHING }
}

#[test]
fn a_refused_connect_names_pod_process_destination_and_the_term_that_failed() {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"psql");
    let event = Event { pid: 42, comm, ..refused(78, DropReason::NoGrant) };
    assert_eq!(
        names(|_| {}).translate(&event),
        MonitorEvent {
            time: "2023-11-14T22:13:21.000Z".to_owned(),
            kind: "denied".to_owned(),
            hook: "connect".to_owned(),
            reason: "NoGrant".to_owned(),
            protocol: "TCP".to_owned(),
            source: String::new(),
            source_port: 0,
            destination: "198.18.0.7".to_owned(),
            destination_port: 5432,
            pod: "shop/bare".to_owned(),
            destination_name: "Postgres shop/pg".to_owned(),
            connection: "shop/oldest".to_owned(),
            explanation: "pod label app: missing, expected \"web\"".to_owned(),
            pid: 42,
            process: "psql".to_owned(),
            interface: 0,
        }
    );
}

#[test]
fn the_connection_that_came_nearest_is_named() {
    let names = names(|world| {
        let mut nearer = connection("nearer");
        nearer.ports.clear();
        nearer.pod_selector = LabelSelector::default();
        world.resolved.connections.push(nearer.into());
    });
    let line = names.translate(&refused(78, DropReason::NoGrant));
    assert_eq!(
        (line.connection.as_str(), line.explanation.as_str()),
        ("shop/nearer", "it does not grant TCP 5432")
    );
}

#[test]
fn every_refusal_says_why_in_words() {
    let nobody = names(|world| world.resolved.connections.clear());
    let names = names(|_| {});
    let explained = |names: &Names, event| names.translate(&event).explanation;
    assert_eq!(
        explained(&nobody, refused(77, DropReason::NoGrant)),
        "no ServiceConnection leads to Postgres shop/pg"
    );
    let table = [
        (DropReason::PortNotOffered, "it offers TCP 5432"),
        (DropReason::NoDestination, "no destination has this address"),
        (DropReason::UnknownWorkload, "no pod of this node is known to send from here"),
        (DropReason::Spoofed, "the interface belongs to a pod with other addresses"),
        (DropReason::Pending, "granted, but no gateway has acknowledged it yet"),
        (DropReason::TunnelDown, "none of its gateways is answering: eu-1"),
        (DropReason::Revoked, "the flow's grant was taken away"),
    ];
    for (reason, explanation) in table {
        assert_eq!(explained(&names, refused(77, reason)), explanation);
    }
    let expired = Event { connection: 1, ..refused(77, DropReason::Expired) };
    assert_eq!(explained(&names, expired), "validUntil of shop/oldest is over");
}

#[test]
fn a_pod_is_found_by_its_device_where_the_hook_knows_no_more() {
    let event = Event { ifindex: 12, hook: Hook::FromPod as u8, ..refused(0, DropReason::Spoofed) };
    assert_eq!(names(|_| {}).translate(&event).pod, "shop/bare");
}
