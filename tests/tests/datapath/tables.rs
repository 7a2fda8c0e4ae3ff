//! What is written is what is read back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enforcer::{
    datapath::{
        Datapath, DatapathError, Op, Tables,
        gateway::{GatewayDatapath, GwTables},
        kernel::{KernelGateway, KernelNode},
    },
    reconcile::{carry_out, carry_out_gateway, plan, plan_gateway},
};
use enforcer_common::{
    Addr, Port,
    config::{EndpointKey, GatewayConfig, NodeConfig, Tunnel},
    gateway::{
        AllowedBackend, GwBackend, GwBackendKey, GwGrant, GwGrantKey, GwNode, GwService, GwServiceKey,
        GwSource, MAX_PORT_RANGES, PortRange,
    },
    grant::{Destination, DestinationKey, Grant, GrantKey},
    guard::GuardKind,
    maps::name,
    workload::{Place, WireKey, Workload},
};
use ipnet::IpNet;

use crate::harness::{Pins, small};

/// Numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn ip(&mut self) -> IpAddr {
        // Few addresses, so that two tables have some in common.
        let host = self.below(32) as u8;
        if self.below(2) == 0 {
            Ipv4Addr::new(198, 18, 0, host).into()
        } else {
            Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, u16::from(host)).into()
        }
    }

    fn addr(&mut self) -> Addr {
        self.ip().into()
    }

    fn net(&mut self) -> IpNet {
        let ip = self.ip();
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, self.below(longest + 1) as u8).unwrap().trunc()
    }

    fn port(&mut self) -> Port {
        Port::new(self.below(4) as u16 + 1)
    }

    fn workload(&mut self) -> Workload {
        Workload { address4: self.addr(), address6: self.addr(), id: self.below(9) as u32, flags: 0 }
    }

    fn tables(&mut self) -> Tables {
        let mut tables = Tables {
            config: Some(NodeConfig {
                node4: self.addr(),
                node6: self.addr(),
                enforcer0: 2,
                tunnel0: 3,
                flow_quota: self.below(1000) as u32,
                pad: 0,
            }),
            ..Tables::default()
        };
        for _ in 0..self.below(40) {
            let kind = [GuardKind::Service, GuardKind::Workload, GuardKind::Listed][self.below(3) as usize];
            tables.guard.insert(self.net(), kind);
            let tunnel = Tunnel { gateway4: self.addr(), gateway6: self.addr(), ifindex: 7, mtu: 1420 };
            tables.tunnels.insert(self.below(64) as u32, tunnel);
            let endpoint =
                EndpointKey { address: self.addr(), port: self.port(), local_port: self.port(), pad: 0 };
            tables.endpoints.insert(endpoint, self.below(64) as u32);
            let offered =
                DestinationKey { service: self.addr(), port: self.port(), protocol: 6, pad: [0; 5] };
            tables.destinations.insert(offered, Destination { number: self.below(9) as u32 });
            let key = GrantKey {
                service: self.addr(),
                workload: self.below(9) as u32,
                port: self.port(),
                protocol: 17,
                pad: 0,
            };
            let grant = Grant { valid_until_ns: self.next(), gateways: self.next(), id: 5, connection: 6 };
            tables.grants.insert(key, grant);
            let place = Place { address: self.addr(), ifindex: 9, workload: self.below(9) as u32 };
            tables.places.insert(self.addr(), place);
            let key = WireKey { address: self.addr(), ifindex: self.below(4) as u32, pad: 0 };
            tables.wire.insert(key, self.workload());
            tables.netns.insert(self.below(20), self.workload());
            tables.cgroups.insert(self.below(20), self.workload());
        }
        tables
    }

    fn allowed(&mut self) -> AllowedBackend {
        let mut ranges = [PortRange::default(); MAX_PORT_RANGES];
        let count = self.below(MAX_PORT_RANGES as u64 + 1) as u32;
        for range in ranges.iter_mut().take(count as usize) {
            *range = PortRange { first: self.below(1 << 16) as u16, last: u16::MAX, protocol: 6, pad: 0 };
        }
        AllowedBackend { count, ranges }
    }

    fn gateway(&mut self) -> GwTables {
        let mut tables = GwTables {
            config: Some(GatewayConfig {
                gateway4: self.addr(),
                gateway6: self.addr(),
                tunnel_ifindex: 4,
                tunnel_mtu: 1420,
            }),
            ..GwTables::default()
        };
        for _ in 0..self.below(40) {
            tables.nodes.insert(self.addr(), GwNode { number: self.below(9) as u32 });
            tables.sources.insert(self.net(), GwSource { node: self.below(9) as u32, flow_quota: 8 });
            tables.allowed.insert(self.net(), self.allowed());
            let backend = GwBackend {
                address: self.addr(),
                source: self.addr(),
                next_hop: self.addr(),
                ifindex: 3,
                mtu: 1500,
                port: self.port(),
                pad: [0; 6],
            };
            let key = GwBackendKey { set: self.below(4) as u32, index: self.below(4) as u32 };
            tables.backends.insert(key, backend);
            let (service, port) = (self.addr(), self.port());
            let key = GwServiceKey { service, port, protocol: 6, pad: [0; 5] };
            tables.services.insert(key, GwService { set: self.below(4) as u32, count: 1 });
            let key = GwGrantKey { client: self.addr(), service, port, protocol: 6, pad: [0; 5] };
            let grant = GwGrant { valid_until_ns: self.next(), id: 1, connection: 2, node: 3, pad: 0 };
            tables.grants.insert(key, grant);
        }
        tables
    }
}

#[test]
fn a_node_reads_back_what_the_plan_wrote_from_any_state_to_any_other() {
    let pins = Pins::new();
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    let mut random = Random(7);
    assert_eq!(node.dump().unwrap(), Tables::default(), "new maps are empty");
    for round in 0..20 {
        let desired = random.tables();
        let ops = plan(&node.dump().unwrap(), &desired);
        assert!(carry_out(&mut node, &ops).is_empty(), "round {round}");
        assert_eq!(node.dump().unwrap(), desired, "round {round}");
        assert_eq!(carry_out(&mut node, &ops).len(), 0, "a plan can be carried out twice, round {round}");
        assert_eq!(node.dump().unwrap(), desired, "round {round}");
    }
}

#[test]
fn a_gateway_reads_back_what_the_plan_wrote_from_any_state_to_any_other() {
    let pins = Pins::new();
    let mut gateway = KernelGateway::open(&pins.path, &small()).unwrap();
    let mut random = Random(11);
    assert_eq!(gateway.dump().unwrap(), GwTables::default(), "new maps are empty");
    for round in 0..20 {
        let desired = random.gateway();
        let ops = plan_gateway(&gateway.dump().unwrap(), &desired);
        assert!(carry_out_gateway(&mut gateway, &ops).is_empty(), "round {round}");
        assert_eq!(gateway.dump().unwrap(), desired, "round {round}");
    }
}

#[test]
fn a_full_map_says_so_and_keeps_what_it_has() {
    let pins = Pins::new();
    let mut options = small();
    options.sizes.extend([(name::GUARD, 2), (name::PLACES, 2)]);
    let mut node = KernelNode::open(&pins.path, &options).unwrap();
    let place = |host| Place { address: Addr::v4(Ipv4Addr::new(10, 0, 0, host)), ifindex: 1, workload: 1 };
    let net = |host| IpNet::from(IpAddr::from(Ipv4Addr::new(198, 18, 0, host)));
    for host in 0..2 {
        node.apply(&Op::SetPlace(place(host).address, place(host))).unwrap();
        node.apply(&Op::SetGuard(net(host), GuardKind::Listed)).unwrap();
    }
    let before = node.dump().unwrap();
    let full = |result| match result {
        Err(DatapathError::Full { map, capacity }) => (map, capacity),
        other => panic!("expected a full map, got {other:?}"),
    };
    assert_eq!(full(node.apply(&Op::SetPlace(place(9).address, place(9)))), (name::PLACES, 2));
    assert_eq!(full(node.apply(&Op::SetGuard(net(9), GuardKind::Listed))), (name::GUARD, 2));
    let tunnel = Tunnel { gateway4: Addr::NONE, gateway6: Addr::NONE, ifindex: 1, mtu: 1420 };
    assert_eq!(full(node.apply(&Op::SetTunnel(64, tunnel))), (name::TUNNELS, 64));
    assert_eq!(node.dump().unwrap(), before);
    let pressure = node.pressure(None).unwrap();
    let places = pressure.iter().find(|pressure| pressure.map == name::PLACES).unwrap();
    assert_eq!((places.entries, places.capacity), (2, 2));
}
