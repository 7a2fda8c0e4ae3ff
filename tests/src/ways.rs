//! Senders for every way in which a packet may try to leave the node: what `enforcer-lab ways` runs in a namespace.
//!
//! Each way is tried towards every guarded address first, and then towards a control address that nobody guards and
//! that must be seen: an instrument that sees nothing proves nothing.

mod raw;
mod socket;

pub use raw::{inject, send_bare};
use socket::DCCP_TYPE;

use std::{
    fmt::Write as _,
    io::Result,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use socket2::Type;

use crate::{
    packet::{DCCP, SCTP},
    probe::NOBODY,
};

/// How a packet is made.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Way {
    Tcp,
    Udp,
    UdpConnected,
    UdpLite,
    /// A packet of the protocol, without a socket of it.
    Sctp,
    Ping,
    RawEcho,
    /// An IP protocol that nobody has.
    RawUnknown,
    /// Written with its IP header.
    RawHeader,
    /// Inside an IPv4 packet to the control address.
    InIpv4,
    /// Inside an IPv6 packet to the control address.
    InIpv6,
    /// To the control address, and from there on.
    SourceRouted,
    /// A later fragment alone, fragments that overlap, and a first that holds nothing but the UDP header.
    Fragments,
    /// Frames of a pod with an address that is another pod's, as SYN to a port that the other may use.
    SpoofedPod,
    /// The same with an address that is nobody's.
    SpoofedNobody,
    /// To the node, and from there on.
    SourceRoutedHere,
    /// A frame of five thousand bytes whose headers are not in the linear part.
    NonLinear,
    /// Frames without a VLAN tag, with one and with two.
    Tagged,
    /// What begins an association, and what begins a connection, by sockets of the protocol.
    SctpSocket,
    DccpSocket,
}

impl Way {
    pub const ALL: &[Self] = &[
        Self::Tcp,
        Self::Udp,
        Self::UdpConnected,
        Self::UdpLite,
        Self::Sctp,
        Self::Ping,
        Self::RawEcho,
        Self::RawUnknown,
        Self::RawHeader,
        Self::InIpv4,
        Self::InIpv6,
        Self::SourceRouted,
        Self::Fragments,
        Self::SpoofedPod,
        Self::SpoofedNobody,
        Self::SourceRoutedHere,
    ];
    /// Those that need no hop to the node.
    pub const LOCAL: &[Self] = Self::ALL.split_at(13).0;
    /// Those that need no node that routes: a macvlan does not even reach the device that it is on.
    pub const BESIDE: &[Self] = Self::ALL.split_at(15).0;

    /// Those that need links of nine thousand bytes.
    pub const JUMBO: &[Self] = &[Self::NonLinear];
    /// Those that need the underlay itself.
    pub const UPLINK: &[Self] = &[Self::Tagged];
    /// Those that need modules of the kernel.
    pub const MODULES: &[Self] = &[Self::SctpSocket, Self::DccpSocket];

    pub fn name(self) -> String {
        format!("{self:?}")
    }

    fn named(name: &str) -> Option<Self> {
        [Self::ALL, Self::JUMBO, Self::UPLINK, Self::MODULES]
            .concat()
            .into_iter()
            .find(|way| way.name() == name)
    }
}

/// What a sender is told.
#[derive(Clone, Debug)]
pub struct Plan {
    pub ways: Vec<Way>,
    /// Number of the first way's IPv4 packets; those over IPv6 and then those of other ways count on from it.
    pub first_mark: u16,
    /// The only device that may be used.
    pub device: Option<String>,
    /// Unguarded address of each family.
    pub control: [IpAddr; 2],
    /// The node's addresses.
    pub node: [IpAddr; 2],
    /// Somebody else's addresses.
    pub victim: [IpAddr; 2],
    /// Guarded addresses.
    pub targets: Vec<SocketAddr>,
}

impl Plan {
    /// Command line of the sender.
    pub fn args(&self) -> Vec<String> {
        let ways: Vec<String> = self.ways.iter().map(|way| way.name()).collect();
        let pairs = [self.control, self.node, self.victim].map(|[v4, v6]| format!("{v4},{v6}"));
        let device = self.device.clone().unwrap_or_else(|| "-".into());
        let head = ["ways".into(), ways.join(","), self.first_mark.to_string(), device];
        let targets = self.targets.iter().map(ToString::to_string);
        head.into_iter().chain(pairs).chain(targets).collect()
    }

    /// The other way round, without the first word.
    pub fn parse(args: &[&str]) -> Option<Self> {
        let [ways, mark, device, control, node, victim, targets @ ..] = args else { return None };
        Some(Self {
            ways: ways.split(',').map(Way::named).collect::<Option<_>>()?,
            first_mark: mark.parse().ok()?,
            device: (*device != "-").then(|| (*device).to_owned()),
            control: pair(control)?,
            node: pair(node)?,
            victim: pair(victim)?,
            targets: targets.iter().map(|target| target.parse().ok()).collect::<Option<_>>()?,
        })
    }

    /// The marks that its control packets carry, and what each stands for.
    pub fn marks(&self) -> Vec<(u16, String)> {
        let rows = self.ways.iter().flat_map(|way| [(way, "IPv4"), (way, "IPv6")]);
        rows.zip(self.first_mark..).map(|((way, family), mark)| (mark, format!("{way:?} {family}"))).collect()
    }

    /// Sends everything. Attempts may fail as they like; what is said of the control packets that could not be sent.
    pub fn run(&self) -> String {
        let mut said = String::new();
        let mut mark = self.first_mark;
        for way in &self.ways {
            for family in 0..2 {
                let control = SocketAddr::new(self.control[family], mark);
                let of_family = |to: &&SocketAddr| to.is_ipv4() == (family == 0);
                for target in self.targets.iter().filter(of_family) {
                    // Refusals are as good as silence: the capture judges.
                    let _ = self.shot(*target, mark).send(*way);
                }
                if let Err(err) = self.shot(control, mark).send(*way) {
                    let _ = writeln!(said, "{way:?} to {control}: {err}");
                }
                mark += 1;
            }
        }
        said
    }

    fn shot(&self, to: SocketAddr, mark: u16) -> Shot<'_> {
        Shot { plan: self, to, mark }
    }
}

/// One packet.
struct Shot<'a> {
    plan: &'a Plan,
    /// Its port is used by ways that imitate what the victim may do; all others use the mark.
    to: SocketAddr,
    mark: u16,
}

/// What a packet carries to be known by.
pub fn text(mark: u16) -> String {
    format!("way {mark:05} out")
}

impl Shot<'_> {
    fn send(&self, way: Way) -> Result<()> {
        match way {
            Way::Tcp => self.connect(Type::STREAM, 0),
            Way::Udp => self.udp(false),
            Way::UdpConnected => self.udp(true),
            Way::UdpLite => self.udp_lite(),
            Way::Sctp => self.raw(SCTP),
            Way::Ping => self.echo(Type::DGRAM),
            Way::RawEcho => self.echo(Type::RAW),
            Way::RawUnknown => self.raw(253),
            Way::RawHeader => self.with_header(),
            Way::InIpv4 => self.encapsulated(0),
            Way::InIpv6 => self.encapsulated(1),
            Way::SourceRouted => self.source_routed(self.plan.control),
            Way::Fragments => self.fragments(),
            Way::NonLinear => self.non_linear(),
            Way::Tagged => self.tagged(),
            Way::SctpSocket => self.connect(Type::STREAM, SCTP),
            Way::DccpSocket => self.connect(DCCP_TYPE, DCCP),
            Way::SourceRoutedHere => self.source_routed(self.plan.node),
            Way::SpoofedPod => self.spoofed(self.plan.victim),
            Way::SpoofedNobody => self.spoofed(NOBODY),
        }
    }

    /// Where to, at the port that is the mark.
    fn marked(&self) -> SocketAddr {
        SocketAddr::new(self.to.ip(), self.mark)
    }

    fn family(&self) -> usize {
        usize::from(self.to.is_ipv6())
    }

    /// The sender's own address towards somewhere.
    fn own_address(&self, to: IpAddr) -> Result<IpAddr> {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        if let Some(device) = &self.plan.device {
            socket2::SockRef::from(&socket).bind_device(Some(device.as_bytes()))?;
        }
        socket.connect((to, 9))?;
        Ok(socket.local_addr()?.ip())
    }
}

fn pair(text: &str) -> Option<[IpAddr; 2]> {
    let (v4, v6) = text.split_once(',')?;
    Some([v4.parse().ok()?, v6.parse().ok()?])
}
