//! Builders: one gateway, one Postgres, one connection, one pod that it selects.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use enforcer_common::{
    Addr, Port,
    config::Tunnel,
    grant::{DestinationKey, GrantKey},
};

use crate::{
    compile::{Acknowledged, Compiled, Input, Ledger, Location, Pair, Pod, TunnelDevice, TunnelEnd, compile},
    model::{Kind, LabelSelector, Labels, ObjectKey, Protocol, SourceMode},
    resolve::{Connection, Destination, DestinationPort, Gateway, Node, Resolved},
};

/// Input of `compile` that a test changes.
pub(crate) struct World {
    pub(crate) resolved: Resolved,
    pub(crate) node: Node,
    pub(crate) pods: BTreeMap<String, Arc<Pod>>,
    pub(crate) tunnels: BTreeMap<String, TunnelEnd>,
    pub(crate) acknowledged: BTreeMap<String, Acknowledged>,
    pub(crate) boot_unix_ns: i128,
    pub(crate) ledger: Ledger,
}

impl World {
    /// One gateway, one Postgres, one connection for `app=web` in `env=prod`, and one pod that it selects.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            resolved: resolved(),
            node: Node {
                name: "n1".to_owned(),
                number: 1,
                v4: "198.19.0.1".parse().unwrap(),
                v6: "fd00:0:0:1000::1".parse().unwrap(),
                blocks: vec!["198.19.0.0/26".parse().unwrap()],
                subnet: "fd00:0:0:1000::/64".parse().unwrap(),
                public_key: [0; 32],
                cluster: "c1".to_owned(),
            },
            pods: BTreeMap::new(),
            tunnels: BTreeMap::from([(
                "eu-1".to_owned(),
                TunnelEnd {
                    slot: 4,
                    device: Some(TunnelDevice {
                        tunnel: tunnel(),
                        endpoints: vec!["203.0.113.1:51820".parse().unwrap()],
                        local_port: 4000,
                    }),
                },
            )]),
            acknowledged: BTreeMap::new(),
            boot_unix_ns: 0,
            ledger: Ledger::default(),
        };
        let location = Location::Netns {
            cookie: 77,
            ifindex: 11,
            addresses: vec!["10.0.0.5".parse().unwrap(), "fd10::5".parse().unwrap()],
            not_guardable: None,
        };
        world.pod("u-shop", "shop", "web", &[("app", "web")], &[("env", "prod")], location);
        world
    }

    pub(crate) fn pod(
        &mut self,
        uid: &str,
        namespace: &str,
        name: &str,
        own: &[(&str, &str)],
        of_namespace: &[(&str, &str)],
        location: Location,
    ) {
        let pod = Pod {
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: labels(own),
            namespace_labels: labels(of_namespace),
            location,
        };
        self.pods.insert(uid.to_owned(), Arc::new(pod));
    }

    pub(crate) fn acknowledge(&mut self, uid: &str, offers: &[(&str, u16)]) {
        let offers = offers.iter().map(|(service, port)| DestinationKey {
            service: addr(service),
            port: Port::new(*port),
            protocol: 6,
            pad: [0; 5],
        });
        self.acknowledged.insert(uid.to_owned(), BTreeMap::from([(4, Arc::new(offers.collect()))]));
    }

    pub(crate) fn compile(&mut self) -> Compiled {
        self.compile_after(&Compiled::default())
    }

    pub(crate) fn compile_after(&mut self, previous: &Compiled) -> Compiled {
        let input = Input {
            resolved: &Arc::new(self.resolved.clone()),
            cluster: "c1",
            node: &self.node,
            pair: Pair { enforcer0: 2, tunnel0: 3 },
            flow_quota: 1000,
            pods: &self.pods,
            tunnels: &self.tunnels,
            acknowledged: &self.acknowledged,
            boot_unix_ns: self.boot_unix_ns,
        };
        compile(&input, &mut self.ledger, previous)
    }
}

impl World {
    /// The connection that is charged first.
    pub(crate) fn first(&mut self) -> &mut Connection {
        Arc::make_mut(&mut self.resolved.connections[0])
    }

    /// The only destination.
    pub(crate) fn destination(&mut self) -> &mut Destination {
        Arc::make_mut(self.resolved.destinations.get_mut(&instance()).unwrap())
    }
}

fn resolved() -> Resolved {
    let port = DestinationPort { protocol: Protocol::Tcp, port: 5432, target_port: 5432 };
    let destination = Destination {
        key: instance(),
        number: 7,
        v4: Some("198.18.0.7".parse().unwrap()),
        v6: None,
        ports: vec![port],
        gateways: vec!["eu-1".to_owned()],
        endpoints: vec!["192.0.2.10".parse().unwrap()],
        fqdn: "postgres-pg.shop.svc.cluster.local".to_owned(),
    };
    let gateway = Gateway {
        name: "eu-1".to_owned(),
        number: 1,
        v4: "198.19.255.1".parse().unwrap(),
        v6: "fd00::1".parse().unwrap(),
        public_key: [0; 32],
        endpoints: vec!["203.0.113.1:51820".parse().unwrap()],
        mtu: 1420,
        source_mode: SourceMode::Masquerade,
        allowed_backends: Vec::new(),
    };
    Resolved {
        destinations: BTreeMap::from([(instance(), destination.into())]),
        connections: vec![connection("oldest").into()],
        gateways: BTreeMap::from([("eu-1".to_owned(), gateway)]),
        service_ranges: vec!["198.18.0.0/16".parse().unwrap()],
        workload_ranges: vec!["198.19.0.0/16".parse().unwrap()],
        listed_ranges: vec!["10.99.0.0/24".parse().unwrap()],
        ..Resolved::default()
    }
}

pub(crate) fn connection(name: &str) -> Connection {
    let selector = |key: &str, value: &str| LabelSelector {
        match_labels: labels(&[(key, value)]),
        match_expressions: Vec::new(),
    };
    Connection {
        key: ObjectKey::new(Kind::ServiceConnection, "shop", name),
        created_unix_ns: u64::MAX,
        destination: instance(),
        cluster: Some("c1".to_owned()),
        pod_selector: selector("app", "web"),
        namespace_selector: Some(selector("env", "prod")),
        only_namespace: None,
        ports: vec![DestinationPort { protocol: Protocol::Tcp, port: 5432, target_port: 5432 }],
        valid_until_unix_ns: None,
    }
}

pub(crate) fn instance() -> ObjectKey {
    ObjectKey::new(Kind::Postgres, "shop", "pg")
}

pub(crate) fn netns(cookie: u64, ifindex: u32, address: &str) -> Location {
    Location::Netns { cookie, ifindex, addresses: vec![address.parse().unwrap()], not_guardable: None }
}

pub(crate) fn tunnel() -> Tunnel {
    Tunnel { gateway4: addr("198.19.255.1"), gateway6: addr("fd00::1"), ifindex: 9, mtu: 1420 }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().unwrap())
}

pub(crate) fn grant_key(workload: u32, service: &str, port: u16) -> GrantKey {
    GrantKey { service: addr(service), workload, port: Port::new(port), protocol: 6, pad: 0 }
}

pub(crate) fn id(world: &World, uid: &str) -> u32 {
    world.ledger.get(uid).unwrap().id
}

pub(crate) fn granted(compiled: &Compiled) -> Vec<(u32, String, u16)> {
    let grants = compiled.tables().grants;
    grants.keys().map(|key| (key.workload, key.service.to_string(), key.port.get())).collect()
}

pub(crate) fn gateways(compiled: &Compiled) -> Vec<u64> {
    compiled.tables().grants.values().map(|grant| grant.gateways).collect()
}
