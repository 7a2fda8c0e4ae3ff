//! A gateway as the tests find it: one node, one workload, a service on TCP and UDP in both families.

use enforcer_common::{
    Addr, Port,
    config::GatewayConfig,
    flow::FlowKey,
    gateway::{
        AllowedBackend, GwBackend, GwBackendKey, GwFlow, GwGrant, GwGrantKey, GwNode, GwService,
        GwServiceKey, GwSource, PortRange,
    },
    grant::FOREVER,
    maps::name,
};
use enforcer_tests::prog::{
    Action, Programs, Ran,
    kernel::ago_ns,
    wire::{self, TCP, UDP, Wire},
};

pub const TUNNEL_MTU: u32 = 1420;
pub const NODE: u32 = 7;
pub const CONNECTION: u32 = 3;

/// Addresses of one family, with the ports that the tests use.
pub struct Family {
    pub gateway: &'static str,
    pub node: &'static str,
    /// Workload, its port 40000.
    pub client: &'static str,
    pub service: &'static str,
    pub backend: &'static str,
    /// The gateway's address towards the backend.
    pub source: &'static str,
    /// A router between gateway and backend.
    pub router: &'static str,
}

pub const V4: Family = Family {
    gateway: "198.19.255.1",
    node: "198.19.0.1",
    client: "198.19.0.5",
    service: "198.18.0.7",
    backend: "192.0.2.10",
    source: "192.0.2.1",
    router: "192.0.2.254",
};
pub const V6: Family = Family {
    gateway: "fd00:1:1fff::1",
    node: "fd00:1:1000::1",
    client: "fd00:1:1000::5",
    service: "fd00:1:2::7",
    backend: "2001:db8::10",
    source: "2001:db8::1",
    router: "2001:db8::254",
};

pub const CLIENT_PORT: u16 = 40_000;
pub const TCP_PORT: u16 = 5432;
pub const UDP_PORT: u16 = 53;
/// Ports of the backend.
pub const TCP_TARGET: u16 = 15_432;
pub const UDP_TARGET: u16 = 1053;

impl Family {
    /// `address:port`, as the builders take it.
    pub fn at(address: &str, port: u16) -> String {
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }

    /// A TCP segment of the workload.
    pub fn segment(&self, flags: u8) -> Wire {
        wire::tcp(&Self::at(self.client, CLIENT_PORT), &Self::at(self.service, TCP_PORT), flags)
    }

    /// A datagram of the workload.
    pub fn datagram(&self, length: usize) -> Wire {
        wire::udp(&Self::at(self.client, CLIENT_PORT), &Self::at(self.service, UDP_PORT), length)
    }

    /// A TCP segment of the backend to a source port of the gateway.
    pub fn reply(&self, port: u16, flags: u8) -> Wire {
        wire::tcp(&Self::at(self.backend, TCP_TARGET), &Self::at(self.source, port), flags)
    }

    pub fn udp_reply(&self, port: u16, length: usize) -> Wire {
        wire::udp(&Self::at(self.backend, UDP_TARGET), &Self::at(self.source, port), length)
    }

    /// Key of the flow that [`Family::segment`] or [`Family::datagram`] belongs to.
    pub fn flow(&self, protocol: u8) -> FlowKey {
        let port = if protocol == TCP { TCP_PORT } else { UDP_PORT };
        FlowKey::new(addr(self.client), Port::new(CLIENT_PORT), addr(self.service), Port::new(port), protocol)
    }

    pub fn grant(&self, protocol: u8) -> GwGrantKey {
        let port = if protocol == TCP { TCP_PORT } else { UDP_PORT };
        GwGrantKey {
            client: addr(self.client),
            service: addr(self.service),
            port: Port::new(port),
            protocol,
            pad: [0; 5],
        }
    }
}

pub fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().expect("an address").into()
}

/// A gateway's programs and maps.
pub struct World {
    pub programs: Programs,
}

impl World {
    pub fn new() -> Self {
        Self::with_sizes(&[])
    }

    pub fn with_sizes(sizes: &[(&'static str, u32)]) -> Self {
        let mut world = Self { programs: Programs::load(&["gw_from_tunnel", "gw_from_backend"], sizes) };
        let config = GatewayConfig {
            gateway4: addr(V4.gateway),
            gateway6: addr(V6.gateway),
            tunnel_ifindex: 1,
            tunnel_mtu: TUNNEL_MTU,
        };
        world.programs.array(name::GW_CONFIG).set(0, config, 0).expect("room");
        for (family, block) in [(&V4, "198.19.0.0/26"), (&V6, "fd00:1:1000::/64")] {
            let node = GwNode { number: NODE };
            world.programs.hash(name::GW_NODES).insert(addr(family.node), node, 0).expect("room");
            world.own(block, NODE, 100);
            for (protocol, set) in [(TCP, 1), (UDP, 2)] {
                world.grant(family, protocol, FOREVER);
                let set = set + if family.client.contains(':') { 10 } else { 0 };
                world.serve(family, protocol, set, &[backend(family, protocol, true)]);
            }
        }
        for prefix in ["192.0.2.0/24", "2001:db8::/64"] {
            world.allow(prefix, &[(TCP_TARGET, TCP), (UDP_TARGET, UDP)]);
        }
        world
    }

    pub fn own(&mut self, block: &str, node: u32, flow_quota: u32) {
        self.programs.set_prefix(name::GW_SOURCES, block, GwSource { node, flow_quota });
    }

    pub fn grant(&mut self, family: &Family, protocol: u8, valid_until_ns: u64) {
        let grant =
            GwGrant { valid_until_ns, id: protocol.into(), connection: CONNECTION, node: NODE, pad: 0 };
        self.programs.hash(name::GW_GRANTS).insert(family.grant(protocol), grant, 0).expect("room");
    }

    pub fn revoke(&mut self, family: &Family, protocol: u8) {
        let mut grants = self.programs.hash::<GwGrantKey, GwGrant>(name::GW_GRANTS);
        grants.remove(&family.grant(protocol)).expect("a grant");
    }

    /// Gives the family's service these backends.
    pub fn serve(&mut self, family: &Family, protocol: u8, set: u32, backends: &[GwBackend]) {
        for (index, backend) in (0..).zip(backends) {
            let key = GwBackendKey { set, index };
            self.programs.hash(name::GW_BACKENDS).insert(key, *backend, 0).expect("room");
        }
        let port = if protocol == TCP { TCP_PORT } else { UDP_PORT };
        let key =
            GwServiceKey { service: addr(family.service), port: Port::new(port), protocol, pad: [0; 5] };
        let service = GwService { set, count: backends.len() as u32 };
        self.programs.hash(name::GW_SERVICES).insert(key, service, 0).expect("room");
        let allocated = GwServiceKey { port: Port::NONE, protocol: 0, ..key };
        self.programs
            .hash(name::GW_SERVICES)
            .insert(allocated, GwService { set: 0, count: 0 }, 0)
            .expect("room");
    }

    pub fn allow(&mut self, prefix: &str, ports: &[(u16, u8)]) {
        let mut allowed = AllowedBackend { count: ports.len() as u32, ranges: Default::default() };
        for (range, (port, protocol)) in allowed.ranges.iter_mut().zip(ports) {
            *range = PortRange { first: *port, last: *port, protocol: *protocol, pad: 0 };
        }
        self.programs.set_prefix(name::GW_ALLOWED, prefix, allowed);
    }

    /// Out of the tunnel.
    pub fn out(&self, packet: &Wire) -> Ran {
        self.programs.run("gw_from_tunnel", &packet.bare())
    }

    /// Out of the tunnel, on to the backend: what arrives there.
    pub fn forwarded(&self, packet: &Wire) -> Wire {
        let ran = self.out(packet);
        assert_eq!((ran.action, self.programs.refusals()), (Action::Redirect, Vec::new()), "{packet:?}");
        wire::read_frame(&ran.bytes)
    }

    /// From the backend's side.
    pub fn back(&self, packet: &Wire) -> Ran {
        self.programs.run("gw_from_backend", &packet.frame())
    }

    /// From the backend's side, into the tunnel: what arrives there.
    pub fn returned(&self, packet: &Wire) -> Wire {
        let ran = self.back(packet);
        assert_eq!((ran.action, self.programs.refusals()), (Action::Redirect, Vec::new()), "{packet:?}");
        wire::read_frame(&ran.bytes)
    }

    pub fn flow(&mut self, key: &FlowKey) -> Option<GwFlow> {
        self.programs.hash::<FlowKey, GwFlow>(name::GW_FLOWS).get(key, 0).ok()
    }

    /// Makes the flow look as if its last packet had been that long ago.
    pub fn age(&mut self, key: &FlowKey, by_ns: u64) {
        let mut flow = self.flow(key).expect("a flow");
        flow.seen_ns = ago_ns(by_ns);
        self.programs.hash(name::GW_FLOWS).insert(*key, flow, 0).expect("room");
    }

    /// Source port that the gateway uses for the workload's flow.
    pub fn port(&mut self, key: &FlowKey) -> u16 {
        self.flow(key).expect("a flow").source_port.get()
    }
}

/// The backend of a family; `preserve` keeps the workload's address.
pub fn backend(family: &Family, protocol: u8, masquerade: bool) -> GwBackend {
    GwBackend {
        address: addr(family.backend),
        source: if masquerade { addr(family.source) } else { Addr::NONE },
        next_hop: addr(family.backend),
        ifindex: 1,
        mtu: 1500,
        port: Port::new(if protocol == TCP { TCP_TARGET } else { UDP_TARGET }),
        pad: [0; 6],
    }
}
