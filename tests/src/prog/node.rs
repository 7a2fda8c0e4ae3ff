//! A node for prog tests: one granted pod, one destination, one tunnel that answers, in both families.

use std::net::{IpAddr, SocketAddr};

use enforcer_common::{
    Addr, Port,
    config::{NodeConfig, Tunnel, TunnelSeen},
    flow::{Flow, FlowKey, FlowState},
    grant::{Destination, DestinationKey, FOREVER, Grant, GrantKey},
    guard::GuardKind,
    maps::name,
    workload::{Place, WireKey, Workload},
};

use super::kernel::{Kernel, LOOPBACK, ago_ns, boot_ns};
use crate::packet::{Packet, TCP, UDP};

/// Numbers of the pod that is granted, its grant, its connection.
pub const WORKLOAD: u32 = 7;
pub const GRANT: u32 = 70;
pub const CONNECTION: u32 = 3;
pub const SLOT: u32 = 2;
pub const MTU: u32 = 1420;
pub const QUOTA: u32 = 20;

/// Granted, offered without a grant.
pub const PORT: u16 = 5432;
pub const OFFERED: u16 = 5433;

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub pod: IpAddr,
    /// The pod's address inside the tunnel.
    pub inside: IpAddr,
    pub service: IpAddr,
    /// In the service range, but no destination's.
    pub free: IpAddr,
    /// Not guarded.
    pub elsewhere: IpAddr,
    /// The node's own address inside the tunnel.
    pub node: IpAddr,
    pub gateway: IpAddr,
    /// What headers take from the MTU.
    pub headers: u16,
}

pub fn v4() -> Family {
    Family {
        pod: ip("10.0.0.5"),
        inside: ip("198.19.0.65"),
        service: ip("198.18.0.7"),
        free: ip("198.18.0.200"),
        elsewhere: ip("203.0.113.9"),
        node: ip("198.19.0.64"),
        gateway: ip("198.19.255.1"),
        headers: 40,
    }
}

pub fn v6() -> Family {
    Family {
        pod: ip("fd10::5"),
        inside: ip("fd00:1:2:1001::41"),
        service: ip("fd00:1:2:2::7"),
        free: ip("fd00:1:2:2::200"),
        elsewhere: ip("2001:db8::9"),
        node: ip("fd00:1:2:1001::40"),
        gateway: ip("fd00:1:2:1fff::1"),
        headers: 60,
    }
}

pub fn families() -> [Family; 2] {
    [v4(), v6()]
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Family {
    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(self.pod, 40_000)
    }

    /// The client as the tunnel's far end sees it.
    pub fn tunnelled(&self) -> SocketAddr {
        SocketAddr::new(self.inside, 40_000)
    }

    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.service, PORT)
    }

    /// A segment from the pod to the service.
    pub fn out(&self, flags: u8) -> Packet {
        Packet::tcp(self.client(), self.server(), flags)
    }

    /// A segment from the service, as it leaves the tunnel.
    pub fn back(&self, flags: u8) -> Packet {
        Packet::tcp(self.server(), self.tunnelled(), flags)
    }

    pub fn key(&self, protocol: u8) -> FlowKey {
        FlowKey::new(
            Addr::from(self.pod),
            Port::new(40_000),
            Addr::from(self.service),
            Port::new(PORT),
            protocol,
        )
    }

    pub fn grant_key(&self, protocol: u8) -> GrantKey {
        GrantKey {
            service: Addr::from(self.service),
            workload: WORKLOAD,
            port: Port::new(PORT),
            protocol,
            pad: 0,
        }
    }
}

/// A grant without an end, acknowledged by the gateway in [`SLOT`].
pub fn grant() -> Grant {
    Grant { valid_until_ns: FOREVER, gateways: 1 << SLOT, id: GRANT, connection: CONNECTION }
}

pub fn workload() -> Workload {
    Workload { address4: Addr::from(v4().inside), address6: Addr::from(v6().inside), id: WORKLOAD, flags: 0 }
}

/// A node whose maps are filled, and which forgets everything in the end.
pub fn node() -> Kernel {
    node_with_flows(64)
}

pub fn node_with_flows(flows: u32) -> Kernel {
    node_with_sizes(flows, &[])
}

/// With maps of other sizes than tests have them.
pub fn node_with_sizes(flows: u32, others: &[(&'static str, u32)]) -> Kernel {
    filled(Kernel::with_flows(flows, others))
}

/// One that no test had before, with maps as large as a node's but for the flows.
pub fn node_of_its_own(flows: u32) -> Kernel {
    filled(Kernel::own(flows))
}

fn filled(mut kernel: Kernel) -> Kernel {
    let [v4, v6] = families();
    kernel.guard(ip("198.18.0.0"), 16, GuardKind::Service);
    kernel.guard(ip("198.19.0.0"), 16, GuardKind::Workload);
    kernel.guard(ip("fd00:1:2::"), 48, GuardKind::Service);
    kernel.put(
        name::NODE_CONFIG,
        0,
        NodeConfig {
            node4: Addr::from(v4.node),
            node6: Addr::from(v6.node),
            enforcer0: LOOPBACK,
            tunnel0: LOOPBACK,
            flow_quota: QUOTA,
            pad: 0,
        },
    );
    let tunnel = Tunnel {
        gateway4: Addr::from(v4.gateway),
        gateway6: Addr::from(v6.gateway),
        ifindex: LOOPBACK,
        mtu: MTU,
    };
    kernel.put(name::TUNNELS, SLOT, tunnel);
    hear(&mut kernel);
    for family in families() {
        let place = Place { address: Addr::from(family.pod), ifindex: LOOPBACK, workload: WORKLOAD };
        kernel.set(name::PLACES, Addr::from(family.inside), place);
        let wire = WireKey { address: Addr::from(family.pod), ifindex: LOOPBACK, pad: 0 };
        kernel.set(name::WIRE, wire, workload());
        for (port, protocol) in [(0, 0), (PORT, TCP), (PORT, UDP), (OFFERED, TCP)] {
            let key = DestinationKey {
                service: Addr::from(family.service),
                port: Port::new(port),
                protocol,
                pad: [0; 5],
            };
            kernel.set(name::DESTINATIONS, key, Destination { number: 1 });
        }
        for protocol in [TCP, UDP] {
            kernel.set(name::GRANTS, family.grant_key(protocol), grant());
        }
    }
    let interface = WireKey { address: Addr::NONE, ifindex: LOOPBACK, pad: 0 };
    kernel.set(name::WIRE, interface, workload());
    kernel
}

/// So far ahead of the clock are the tunnel's times, that a test on a slow machine finds them as it left them.
const AHEAD_NS: u64 = 600_000_000_000;

/// Marks the tunnel as heard just now.
pub fn hear(kernel: &mut Kernel) {
    kernel.put(name::TUNNEL_SEEN, SLOT, TunnelSeen { seen_ns: boot_ns() + AHEAD_NS, probe_ns: 0 });
}

/// Marks the tunnel as silent, with this second's probe taken (`probed`) or not.
pub fn silence(kernel: &mut Kernel, probed: bool) {
    // Before, no tunnel is silent: one that was never heard counts as heard when the machine started.
    let seen_ns = ago_ns(7_000_000_000);
    kernel.put(
        name::TUNNEL_SEEN,
        SLOT,
        TunnelSeen { seen_ns, probe_ns: if probed { boot_ns() + AHEAD_NS } else { 0 } },
    );
}

/// The flow of a family, if there is one.
pub fn flow(kernel: &mut Kernel, family: &Family, protocol: u8) -> Option<Flow> {
    kernel.get(name::FLOWS, &family.key(protocol))
}

/// The flow once it is over: half-open, and silent for longer than such a one lives.
pub fn over(flow: Flow) -> Flow {
    Flow { seen_ns: ago_ns(31_000_000_000), state: FlowState::HalfOpen as u8, ..flow }
}
