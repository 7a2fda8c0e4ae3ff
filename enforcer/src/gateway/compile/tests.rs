//! Whole tables from whole inputs.

use std::{collections::BTreeSet, net::SocketAddr};

use enforcer_common::{
    Port,
    gateway::{GwBackend, GwBackendKey, GwGrant, GwGrantKey, GwService},
    grant::FOREVER,
};

use super::*;
use crate::{
    announce::{Binding, LiveGrant},
    datapath::gateway::GwOp,
    model::{AllowedBackend, AllowedPorts, Kind, LabelSelector, Protocol, SourceMode},
    reconcile::plan_gateway,
    resolve::Connection,
};

mod again;

const CONFIG: GatewayConfig = GatewayConfig {
    gateway4: Addr::v4(std::net::Ipv4Addr::new(198, 19, 255, 1)),
    gateway6: Addr::NONE,
    tunnel_ifindex: 3,
    tunnel_mtu: 1420,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn redis() -> ObjectKey {
    ObjectKey::new(Kind::KeyValueStore, "shop", "cache")
}

/// A lab with one destination, one connection, one node and one pod.
struct Lab {
    resolved: Arc<Resolved>,
    registry: Registry,
    allowed: allowed::Allowed,
    ways: BTreeMap<IpAddr, Way>,
    health: Health,
}

impl Lab {
    fn new() -> Self {
        let port = DestinationPort { protocol: Protocol::Tcp, port: 6379, target_port: 6380 };
        let destination = Destination {
            key: redis(),
            number: 1,
            v4: Some([198, 18, 0, 7].into()),
            v6: None,
            ports: vec![port],
            gateways: vec!["eu-1".into()],
            endpoints: vec![ip("192.0.2.10"), ip("192.0.2.11")],
            fqdn: String::new(),
        };
        let node = Node {
            name: "n".into(),
            number: 9,
            v4: [198, 19, 0, 1].into(),
            v6: "fd00:0:0:1000::1".parse().unwrap(),
            blocks: vec!["198.19.0.0/26".parse().unwrap()],
            subnet: "fd00:0:0:1000::/64".parse().unwrap(),
            public_key: [0; 32],
            cluster: "c".into(),
        };
        let gateway = Gateway {
            name: "eu-1".into(),
            number: 1,
            v4: [198, 19, 255, 1].into(),
            v6: "fd00::1".parse().unwrap(),
            public_key: [1; 32],
            endpoints: Vec::new(),
            mtu: 1420,
            source_mode: SourceMode::Masquerade,
            allowed_backends: Vec::new(),
        };
        let ports = vec![AllowedPorts { port: 6380, end_port: None, protocol: Protocol::Tcp }];
        let written = [AllowedBackend { cidr: "192.0.2.0/24".into(), ports }];
        let mut lab = Self {
            resolved: Arc::new(Resolved {
                destinations: BTreeMap::from([(redis(), destination.into())]),
                connections: vec![connection("old", None)],
                gateways: BTreeMap::from([("eu-1".into(), gateway)]),
                nodes: BTreeMap::from([("n".into(), node)]),
                ..Resolved::default()
            }),
            registry: Registry::default(),
            allowed: allowed::compile(&written, &BTreeSet::new()),
            ways: ["192.0.2.10", "192.0.2.11"].map(|address| (ip(address), way(address))).into(),
            health: Health::default(),
        };
        lab.registry.upsert("n", pod("a", 2));
        lab.health.set_targets(&targets("eu-1", &lab.resolved, &lab.allowed), &BTreeSet::new());
        for target in lab.health.targets() {
            lab.health.report(target, true);
        }
        lab
    }

    fn resolved(&mut self) -> &mut Resolved {
        Arc::make_mut(&mut self.resolved)
    }

    fn first(&mut self) -> &mut Connection {
        Arc::make_mut(&mut self.resolved().connections[0])
    }

    fn destination(&mut self) -> &mut Destination {
        Arc::make_mut(self.resolved().destinations.get_mut(&redis()).unwrap())
    }

    fn compile(&self, actual: &GwTables, numbers: &mut Numbers) -> Compiled {
        self.compile_after(actual, numbers, &Compiled::default())
    }

    fn compile_after(&self, actual: &GwTables, numbers: &mut Numbers, previous: &Compiled) -> Compiled {
        let inputs = Inputs {
            gateway: &self.resolved.gateways["eu-1"],
            resolved: &self.resolved,
            registry: &self.registry,
            pods: &Pods::default(),
            allowed: &self.allowed,
            ways: &self.ways,
            health: &self.health,
            config: CONFIG,
            boot_time_unix_ns: 1_000,
        };
        compile(&inputs, actual, numbers, previous)
    }

    fn fresh(&self) -> Compiled {
        self.compile(&GwTables::default(), &mut Numbers::default())
    }
}

fn connection(name: &str, valid_until_unix_ns: Option<u64>) -> Arc<Connection> {
    Arc::new(Connection {
        key: ObjectKey::new(Kind::ServiceConnection, "shop", name),
        created_unix_ns: u64::MAX,
        destination: redis(),
        cluster: Some("c".into()),
        pod_selector: LabelSelector {
            match_labels: BTreeMap::from([("app".into(), "cart".into())]),
            match_expressions: Vec::new(),
        },
        namespace_selector: None,
        only_namespace: Some("shop".into()),
        ports: vec![DestinationPort { protocol: Protocol::Tcp, port: 6379, target_port: 6380 }],
        valid_until_unix_ns,
    })
}

fn pod(uid: &str, last: u8) -> Binding {
    Binding {
        uid: uid.into(),
        generation: 4,
        v4: Some([198, 19, 0, last].into()),
        v6: Some("fd00:0:0:1000::2".parse().unwrap()),
        cluster: "c".into(),
        namespace: "shop".into(),
        namespace_labels: BTreeMap::new(),
        pod: uid.into(),
        labels: BTreeMap::from([("app".into(), "cart".into())]),
    }
}

fn way(address: &str) -> Way {
    Way {
        ifindex: 5,
        source: Some(ip("192.0.2.1")),
        next_hop: ip(address),
        mtu: 1500,
        local: false,
        ethernet: true,
    }
}

fn backend(address: &str) -> GwBackend {
    GwBackend {
        address: ip(address).into(),
        source: ip("192.0.2.1").into(),
        next_hop: ip(address).into(),
        ifindex: 5,
        mtu: 1500,
        port: Port::new(6380),
        pad: [0; 6],
    }
}

fn grant_key() -> GwGrantKey {
    GwGrantKey {
        client: ip("198.19.0.2").into(),
        service: ip("198.18.0.7").into(),
        port: Port::new(6379),
        protocol: 6,
        pad: [0; 5],
    }
}

/// The entry that says that the address is a destination's.
fn allocated() -> GwServiceKey {
    GwServiceKey { port: Port::NONE, protocol: 0, ..service() }
}

fn service() -> GwServiceKey {
    GwServiceKey { service: ip("198.18.0.7").into(), port: Port::new(6379), protocol: 6, pad: [0; 5] }
}

#[test]
fn one_pod_one_connection_one_service() {
    let lab = Lab::new();
    let node = GwNode { number: 9 };
    let source = GwSource { node: 9, flow_quota: NODE_FLOWS };
    let tables = GwTables {
        config: Some(CONFIG),
        nodes: BTreeMap::from([(ip("198.19.0.1").into(), node), (ip("fd00:0:0:1000::1").into(), node)]),
        sources: BTreeMap::from([
            ("198.19.0.0/26".parse().unwrap(), source),
            ("fd00:0:0:1000::/64".parse().unwrap(), source),
        ]),
        allowed: lab.allowed.prefixes.clone(),
        backends: BTreeMap::from([
            (GwBackendKey { set: 1, index: 0 }, backend("192.0.2.10")),
            (GwBackendKey { set: 1, index: 1 }, backend("192.0.2.11")),
        ]),
        services: BTreeMap::from([
            (allocated(), GwService { set: 0, count: 0 }),
            (service(), GwService { set: 1, count: 2 }),
        ]),
        grants: BTreeMap::from([(
            grant_key(),
            GwGrant { valid_until_ns: FOREVER, id: 1, connection: 1, node: 9, pad: 0 },
        )]),
    };
    let live = LiveGrant { service: ip("198.18.0.7"), protocol: Protocol::Tcp, port: 6379 };
    let compiled = lab.fresh();
    let endpoint = |address: &str| EndpointView {
        address: SocketAddr::new(ip(address), 6380),
        protocol: Protocol::Tcp,
        used: true,
        state: "healthy",
    };
    assert_eq!(compiled.whole(), tables);
    assert_eq!(compiled.refused, BTreeMap::new());
    let endpoints = vec![endpoint("192.0.2.10"), endpoint("192.0.2.11")];
    assert_eq!(compiled.endpoints, BTreeMap::from([(redis(), endpoints)]));
    let granted = &compiled.grants[&("n".into(), "a".into())];
    assert_eq!(granted.without(&granted.missing(&tables)), BTreeSet::from([live]));
    let nothing = granted.missing(&GwTables::default());
    assert_eq!(granted.without(&nothing), BTreeSet::new(), "only what the kernel holds is acknowledged");
}

#[test]
fn compiling_again_changes_nothing() {
    let lab = Lab::new();
    let mut numbers = Numbers::default();
    let first = lab.compile(&GwTables::default(), &mut numbers);
    assert_eq!(lab.compile(&first.whole(), &mut numbers), first);
    let again = lab.compile_after(&first.whole(), &mut numbers, &first);
    assert_eq!(again, first);
    assert_eq!(first.difference(&again), (GwTables::default(), GwTables::default()));
}

#[test]
fn another_choice_of_backends_is_another_set_written_before_the_service_turns_to_it() {
    let mut lab = Lab::new();
    let before = lab.fresh().tables;
    let down = SocketAddr::new(ip("192.0.2.10"), 6380);
    lab.health.report(down, false);
    lab.health.report(down, false);
    let after = lab.compile(&before, &mut Numbers::default()).tables;
    assert_eq!(
        plan_gateway(&before, &after),
        [
            GwOp::SetBackend(GwBackendKey { set: 2, index: 0 }, backend("192.0.2.11")),
            GwOp::SetService(service(), GwService { set: 2, count: 1 }),
            GwOp::RemoveBackend(GwBackendKey { set: 1, index: 0 }),
            GwOp::RemoveBackend(GwBackendKey { set: 1, index: 1 }),
        ]
    );
}

#[test]
fn an_endpoint_is_left_out_with_the_reason() {
    let mut lab = Lab::new();
    let elsewhere = ip("203.0.113.9");
    lab.destination().endpoints.push(elsewhere);
    lab.ways.insert(elsewhere, way("203.0.113.9"));
    lab.ways.remove(&ip("192.0.2.10"));
    lab.ways.get_mut(&ip("192.0.2.11")).unwrap().local = true;
    let compiled = lab.fresh();
    let states: Vec<_> =
        compiled.endpoints[&redis()].iter().map(|endpoint| (endpoint.used, endpoint.state)).collect();
    assert_eq!(
        states,
        [(false, "no route"), (false, "an address of the gateway itself"), (false, "not in allowedBackends")]
    );
    let empty = GwService { set: 0, count: 0 };
    assert_eq!(compiled.tables.services, BTreeMap::from([(allocated(), empty), (service(), empty)]));
    assert!(!targets("eu-1", &lab.resolved, &lab.allowed).iter().any(|target| target.ip() == elsewhere));
}

#[test]
fn preserve_leaves_the_source_to_the_kernel() {
    let mut lab = Lab::new();
    lab.resolved().gateways.get_mut("eu-1").unwrap().source_mode = SourceMode::Preserve;
    let sources: Vec<_> = lab.fresh().tables.backends.into_values().map(|backend| backend.source).collect();
    assert_eq!(sources, [Addr::NONE, Addr::NONE]);
}

#[test]
fn the_oldest_connection_is_charged_and_the_last_end_counts() {
    let mut lab = Lab::new();
    lab.resolved().connections = vec![connection("old", Some(5_000)), connection("new", Some(9_000))];
    let grants = lab.fresh().whole().grants;
    let expected = GwGrant { valid_until_ns: 8_000, id: 1, connection: 1, node: 9, pad: 0 };
    assert_eq!(grants, BTreeMap::from([(grant_key(), expected)]));
}

#[test]
fn who_is_not_meant_gets_nothing() {
    let lab = Lab::new();
    let granted = |change: &dyn Fn(&mut Binding)| {
        let mut binding = pod("a", 2);
        change(&mut binding);
        let mut registry = Registry::default();
        registry.upsert("n", binding);
        Lab { registry, ..Lab::new() }.fresh().whole().grants.len()
    };
    assert_eq!(lab.fresh().whole().grants.len(), 1);
    assert_eq!(granted(&|binding| drop(binding.labels.insert("app".into(), "web".into()))), 0);
    assert_eq!(granted(&|binding| binding.namespace = "other".into()), 0);
    assert_eq!(granted(&|binding| binding.v4 = Some([198, 19, 0, 1].into())), 0, "the node's own address");
    assert_eq!(granted(&|binding| binding.v4 = Some([198, 19, 7, 2].into())), 0, "another node's block");
    assert_eq!(
        granted(&|binding| binding.v4 = None),
        0,
        "the destination has no address of the other family"
    );
}

#[test]
fn a_destination_of_another_gateway_is_not_served_here() {
    let mut lab = Lab::new();
    lab.destination().gateways = vec!["us-1".into()];
    let compiled = lab.fresh();
    assert_eq!(compiled.tables.services, BTreeMap::new());
    assert_eq!(compiled.whole().grants, BTreeMap::new());
}
