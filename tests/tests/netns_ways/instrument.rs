//! What is counted: packets with a guarded address on the underlay, and attempts that got into the tunnel.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    process::Command,
};

use enforcer_tests::{
    lab::{
        Lab,
        capture::Capture,
        manifests::Service,
        network::{GATEWAY4, GATEWAY6, NODE4, NODE6},
        query::Family,
        wait,
    },
    packet::{DCCP, SCTP, TCP},
    ways::{Plan, Way, text},
};

use crate::{
    places::Spot,
    shared::{Turn, address},
};

/// Guarded addresses of each kind: a service's, one that no service has, one of a workload.
#[derive(Clone, Debug)]
pub struct Guarded {
    pub targets: Vec<SocketAddr>,
    /// First six bytes of every guarded IPv6 address.
    prefix: [u8; 6],
}

impl Guarded {
    pub fn of(lab: &Lab) -> Self {
        let service = |family| {
            address(lab, "cart", Service::Postgres, family).expect("the service has an address of the family")
        };
        let [v4, v6] = [service(Family::V4), service(Family::V6)];
        let IpAddr::V6(address) = v6.ip() else { panic!("an IPv6 address: {v6}") };
        let s = address.segments();
        let nobody = Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0xdead, 0xbeef);
        let workload = Ipv6Addr::new(s[0], s[1], s[2], 0x1abc, 0, 0, 0, 5);
        let others: [IpAddr; 4] =
            [[198, 18, 200, 9].into(), [198, 19, 200, 9].into(), nobody.into(), workload.into()];
        let port = Service::Postgres.port();
        let targets = others.map(|ip| SocketAddr::new(ip, port));
        let prefix = address.octets()[..6].try_into().expect("six bytes");
        Self { targets: [v4, v6].into_iter().chain(targets).collect(), prefix }
    }

    /// As source or destination, or anywhere else in the packet.
    pub fn is_in(&self, frame: &[u8]) -> bool {
        let in_v4 = |at: usize| matches!(frame.get(at..at + 2), Some([198, 18 | 19]));
        let in_v6 = |at: usize| frame.get(at..at + 6) == Some(&self.prefix[..]);
        let at_ends = match frame.get(12..14) {
            Some([0x08, 0x00]) => in_v4(26) || in_v4(30),
            Some([0x86, 0xdd]) => in_v6(22) || in_v6(38),
            // Whoever is bound to a device asks there for the hardware address, which carries nothing.
            Some([0x08, 0x06]) => return false,
            _ => false,
        };
        at_ends || self.targets.iter().any(|target| contains(frame, &bytes(target.ip())))
    }
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Protocols whose first packet carries no text, but the mark as its port.
const SILENT: [u8; 3] = [TCP, DCCP, SCTP];

/// Whether a frame is the packet with this mark to the control address.
fn shows(frame: &[u8], mark: u16) -> bool {
    let (l4, protocol) = match frame.get(12..14) {
        Some([0x08, 0x00]) => (34, frame.get(23)),
        _ => (54, frame.get(20)),
    };
    let is_first = protocol.is_some_and(|protocol| SILENT.contains(protocol))
        && frame.get(l4 + 2..l4 + 4) == Some(&mark.to_be_bytes()[..]);
    is_first || contains(frame, text(mark).as_bytes())
}

/// Everything that looks on while a test tries.
pub struct Watch {
    pub guarded: Guarded,
    underlay: Vec<Capture>,
    tunnel: Capture,
    /// Marks of packets to the control address, and who sent each.
    expected: BTreeMap<u16, String>,
}

/// Marks begin above the ports of services and below the ephemeral ones.
const FIRST_MARK: u16 = 10_000;
/// Of packets that may be in the tunnel: this one over IPv4, the next over IPv6.
const GRANTED_MARK: u16 = 9_000;

impl Watch {
    pub fn start(lab: &Lab, name: &str) -> Self {
        let tunnel = device(&lab.tunnel_netns());
        let inside = lab.capture_at(&format!("{name}-tunnel"), &lab.tunnel_netns(), &tunnel);
        Self {
            guarded: Guarded::of(lab),
            underlay: vec![lab.capture(name).expect("tcpdump starts")],
            tunnel: inside.expect("tcpdump starts in the tunnel's namespace"),
            expected: BTreeMap::new(),
        }
    }

    /// Another device that leads to the underlay.
    pub fn also(&mut self, lab: &Lab, netns: &str, device: &str) {
        self.underlay.push(lab.capture_at(device, netns, device).expect("tcpdump starts"));
    }

    /// Tries these ways from there towards every guarded address.
    pub fn attempt(&mut self, lab: &Lab, spot: &Spot, ways: &[Way]) {
        let targets = self.guarded.targets.clone();
        let control = [GATEWAY4, GATEWAY6].map(|ip| ip.parse().expect("an address"));
        self.attempt_at(lab, spot, ways, targets, control);
    }

    /// The same with other addresses.
    pub fn attempt_at(
        &mut self,
        lab: &Lab,
        spot: &Spot,
        ways: &[Way],
        targets: Vec<SocketAddr>,
        control: [IpAddr; 2],
    ) {
        let plan = Plan {
            ways: ways.to_vec(),
            first_mark: self.expected.last_key_value().map_or(FIRST_MARK, |(mark, _)| mark + 1),
            device: spot.device.map(str::to_owned),
            control,
            targets,
            ..plan(lab)
        };
        run(&plan, spot);
        self.expected
            .extend(plan.marks().into_iter().map(|(mark, way)| (mark, format!("{}: {way}", spot.title))));
    }

    /// What others pretend, the granted pod may do: it shows that the instrument sees such packets.
    fn assert_only_the_granted_is_in_the_tunnel(&self, lab: &Lab) {
        let targets = self.guarded.targets[..2].to_vec();
        run(&Plan { ways: vec![Way::SpoofedPod], targets, ..plan(lab) }, &Spot::pod(lab, "cart"));
        let granted = [text(GRANTED_MARK), text(GRANTED_MARK + 1)];
        let is = |frame: &[u8], text: &String| contains(frame, text.as_bytes());
        wait::for_true("the granted packets are in the tunnel", || {
            granted.iter().all(|text| self.tunnel.has(|frame| is(frame, text)))
        })
        .expect("the granted pod may send");
        let others = self.tunnel.has(|frame| {
            contains(frame, b"way ")
                && contains(frame, b" out")
                && !granted.iter().any(|text| is(frame, text))
        });
        assert!(!others, "an attempt is in the tunnel");
    }

    /// Waits until every control packet has been seen, and judges. Nothing of a guarded address may be with them.
    pub fn finish(mut self, lab: &mut Turn) {
        let seen = wait::for_true("every control packet is on the underlay", || {
            let underlay = &self.underlay;
            self.expected
                .retain(|mark, _| !underlay.iter().any(|capture| capture.has(|frame| shows(frame, *mark))));
            self.expected.is_empty()
        });
        let leaks: Vec<String> = std::mem::take(&mut self.underlay)
            .into_iter()
            .flat_map(|capture| {
                capture.finish_foreign(|frame| self.guarded.is_in(frame)).expect("the capture ends")
            })
            .collect();
        assert_eq!(leaks, Vec::<String>::new(), "on the underlay");
        self.assert_only_the_granted_is_in_the_tunnel(lab);
        seen.unwrap_or_else(|err| panic!("{err:#}: {:?}", self.expected));
    }
}

/// With the addresses of the lab, and nothing to do.
fn plan(lab: &Lab) -> Plan {
    let addresses = |list: [&str; 2]| list.map(|ip| ip.parse().expect("an address"));
    let [cart4, cart6] = lab.pod("cart").addresses();
    Plan {
        ways: Vec::new(),
        first_mark: GRANTED_MARK,
        device: None,
        control: addresses([GATEWAY4, GATEWAY6]),
        node: addresses([NODE4, NODE6]),
        victim: addresses([&cart4, &cart6]),
        targets: Vec::new(),
    }
}

fn run(plan: &Plan, spot: &Spot) {
    let args = plan.args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = spot.place.run(env!("CARGO_BIN_EXE_enforcer-lab"), &args).expect("the sender starts");
    assert!(outcome.success, "{}: {}", spot.title, outcome.said());
}

/// Name of the only tunnel device in a namespace.
pub fn device(netns: &str) -> String {
    let output = Command::new("ip").args(["-n", netns, "-brief", "link"]).output().expect("ip starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names = text.lines().filter_map(|line| line.split([' ', '@']).next());
    names.find(|name| name.starts_with("ef-")).expect("there is a tunnel device").to_owned()
}
