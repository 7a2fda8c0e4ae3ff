//! Random objects, and packets that are likely to meet them.

use std::net::IpAddr;

use enforcer_tests::packet::{ACK, FIN, ICMP, ICMPV6, Packet, RST, SYN, TCP, Transport, UDP};

/// SplitMix64: the same numbers on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Interface that every packet comes from.
pub const HERE: u32 = 1;
pub const ELSEWHERE: u32 = 2;

#[derive(Clone, Debug)]
pub struct Pod {
    /// Tells it apart; its addresses follow from it.
    pub number: u8,
    pub app: &'static str,
    pub namespace: &'static str,
    /// Label `env` of its namespace.
    pub env: &'static str,
    /// 0: no interface.
    pub ifindex: u32,
    pub families: (bool, bool),
    pub guardable: bool,
    /// Destinations (by number) whose ports the gateway has acknowledged for it.
    pub acknowledged: Vec<u8>,
}

impl Pod {
    pub fn addresses(&self) -> Vec<IpAddr> {
        let [v4, v6] = pod_addresses(self.number);
        [(self.families.0, v4), (self.families.1, v6)]
            .into_iter()
            .filter_map(|(has, address)| has.then_some(address))
            .collect()
    }
}

fn pod_addresses(number: u8) -> [IpAddr; 2] {
    [[10, 0, 0, number].into(), [0xfd10, 0, 0, 0, 0, 0, 0, number.into()].into()]
}

#[derive(Clone, Debug)]
pub struct Destination {
    pub number: u8,
    pub families: (bool, bool),
    /// Protocol and port.
    pub ports: Vec<(u8, u16)>,
}

impl Destination {
    pub fn addresses(&self) -> Vec<IpAddr> {
        let [v4, v6] = service_addresses(self.number);
        [(self.families.0, v4), (self.families.1, v6)]
            .into_iter()
            .filter_map(|(has, address)| has.then_some(address))
            .collect()
    }
}

pub fn service_addresses(number: u8) -> [IpAddr; 2] {
    [[198, 18, 0, number].into(), [0xfd00, 1, 2, 2, 0, 0, 0, number.into()].into()]
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Validity {
    Forever,
    Over,
    /// Long after the test.
    Later,
}

#[derive(Clone, Debug)]
pub struct Connection {
    pub number: u8,
    pub destination: u8,
    pub ports: Vec<(u8, u16)>,
    /// Selects by label `app`; `None` selects all.
    pub app: Option<&'static str>,
    /// Selects namespaces by label `env`; `None` selects all.
    pub env: Option<&'static str>,
    pub only_namespace: Option<&'static str>,
    pub validity: Validity,
}

#[derive(Clone, Debug)]
pub struct Scene {
    pub pods: Vec<Pod>,
    pub destinations: Vec<Destination>,
    pub connections: Vec<Connection>,
    pub answering: bool,
}

const APPS: [&str; 3] = ["web", "batch", "cron"];
const NAMESPACES: [(&str, &str); 3] = [("shop", "prod"), ("test", "dev"), ("shop-2", "prod")];
const PORTS: [(u8, u16); 4] = [(TCP, 5432), (UDP, 5432), (TCP, 6379), (UDP, 53)];

impl Scene {
    pub fn random(random: &mut Random) -> Self {
        let count = 1 + random.below(4) as u8;
        let destinations: Vec<_> = (1..=count).map(|number| destination(random, number)).collect();
        let count = random.below(7) as u8;
        let connections = (1..=count).map(|number| connection(random, number, &destinations)).collect();
        let count = random.below(6) as u8;
        let pods = (1..=count).map(|number| pod(random, number, &destinations)).collect();
        Self { pods, destinations, connections, answering: !random.one_in(5) }
    }

    /// This scene without one of its objects, each in turn. Destinations stay: the others name them.
    pub fn without_one(&self) -> Vec<Self> {
        let pods = (0..self.pods.len()).map(|index| {
            let mut smaller = self.clone();
            smaller.pods.remove(index);
            smaller
        });
        let connections = (0..self.connections.len()).map(|index| {
            let mut smaller = self.clone();
            smaller.connections.remove(index);
            smaller
        });
        pods.chain(connections).collect()
    }
}

fn families(random: &mut Random) -> (bool, bool) {
    random.pick(&[(true, true), (true, true), (true, false), (false, true)])
}

fn some_of<T: Clone>(random: &mut Random, all: &[T]) -> Vec<T> {
    let mut some: Vec<_> = all.iter().filter(|_| random.one_in(2)).cloned().collect();
    if some.is_empty() {
        some.push(random.pick(all));
    }
    some
}

fn destination(random: &mut Random, number: u8) -> Destination {
    Destination { number, families: families(random), ports: some_of(random, &PORTS) }
}

fn connection(random: &mut Random, number: u8, destinations: &[Destination]) -> Connection {
    let destination = random.pick(destinations);
    Connection {
        number,
        destination: destination.number,
        ports: some_of(random, &destination.ports),
        app: (!random.one_in(3)).then(|| random.pick(&APPS)),
        env: (!random.one_in(2)).then(|| random.pick(&["prod", "dev"])),
        only_namespace: random.one_in(4).then(|| random.pick(&NAMESPACES).0),
        validity: random.pick(&[Validity::Forever, Validity::Forever, Validity::Over, Validity::Later]),
    }
}

fn pod(random: &mut Random, number: u8, destinations: &[Destination]) -> Pod {
    let (namespace, env) = random.pick(&NAMESPACES);
    Pod {
        number,
        app: random.pick(&APPS),
        namespace,
        env,
        ifindex: random.pick(&[HERE, HERE, HERE, ELSEWHERE, 0]),
        families: families(random),
        guardable: !random.one_in(6),
        acknowledged: destinations
            .iter()
            .filter(|_| !random.one_in(4))
            .map(|destination| destination.number)
            .collect(),
    }
}

/// A packet, and what of it matters to the model.
#[derive(Clone, Debug)]
pub struct Probe {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub port: u16,
    pub flags: u8,
    pub frame: Vec<u8>,
}

impl Probe {
    pub fn random(random: &mut Random, scene: &Scene) -> Self {
        let v6 = random.one_in(2);
        let source = source(random, v6, scene);
        let destination = target(random, v6);
        let (protocol, port) = match random.below(10) {
            0 => (random.pick(&[TCP, UDP]), random.pick(&[1, 5433, 65_535])),
            1 => (if v6 { ICMPV6 } else { ICMP }, 0),
            2 => (132, 0),
            _ => random.pick(&PORTS),
        };
        let (source, destination, protocol, port) =
            aimed(random, v6, scene).unwrap_or((source, destination, protocol, port));
        let flags = random.pick(&[SYN, SYN, ACK, FIN | ACK, RST, SYN | ACK, RST | ACK]);
        let client = (source, random.pick(&[40_000, 40_001, 1, 65_535])).into();
        let mut packet = match protocol {
            TCP => Packet::tcp(client, (destination, port).into(), flags),
            UDP => Packet::udp(client, (destination, port).into(), random.below(40)),
            132 => Packet::new(source, destination, Transport::Raw { protocol, payload: vec![0x5a; 40] }),
            _ => Packet::icmp(source, destination, if v6 { 128 } else { 8 }, 0, 7, vec![0; 24]),
        };
        packet.tags = random.pick(&[vec![], vec![], vec![0x8100], vec![0x88a8, 0x8100]]);
        if random.one_in(5) {
            if v6 {
                packet.extensions = vec![(random.pick(&[0, 60]), vec![0, 1, 4, 0, 0, 0, 0])];
            } else {
                packet.options = vec![1; 4 * (1 + random.below(10))];
            }
        }
        Self { source, destination, protocol, port, flags, frame: packet.frame() }
    }

    /// Whether TCP would say something to it that is not an answer to a beginning or an end.
    pub fn is_mid_flow(&self) -> bool {
        self.protocol == TCP && self.flags & ACK != 0 && self.flags & RST == 0
    }
}

/// Two times of three what a connection names: blind shots are hardly ever allowed.
fn aimed(random: &mut Random, v6: bool, scene: &Scene) -> Option<(IpAddr, IpAddr, u8, u16)> {
    if random.one_in(3) || scene.connections.is_empty() {
        return None;
    }
    let connection = random.pick(&scene.connections);
    let here: Vec<_> = scene.pods.iter().filter(|pod| pod.ifindex == HERE).collect();
    if here.is_empty() {
        return None;
    }
    let pod = random.pick(&here);
    let (protocol, port) = random.pick(&connection.ports);
    let at = usize::from(v6);
    Some((pod_addresses(pod.number)[at], service_addresses(connection.destination)[at], protocol, port))
}

fn source(random: &mut Random, v6: bool, scene: &Scene) -> IpAddr {
    let at = usize::from(v6);
    match random.below(12) {
        0 => pod_addresses(200)[at],
        1 => service_addresses(1)[at],
        2 => workload_addresses()[at],
        3 => nowhere()[at],
        _ if scene.pods.is_empty() => pod_addresses(1)[at],
        _ => pod_addresses(random.pick(&scene.pods).number)[at],
    }
}

fn target(random: &mut Random, v6: bool) -> IpAddr {
    let at = usize::from(v6);
    match random.below(14) {
        0 => workload_addresses()[at],
        1 => [[10, 99, 0, 7].into(), [0xfd00, 9, 9, 0, 0, 0, 0, 7].into()][at],
        2 => [[203, 0, 113, 9].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 9].into()][at],
        3 => [[198, 20, 0, 1].into(), [0xfd00, 1, 3, 0, 0, 0, 0, 1].into()][at],
        4 => [[10, 98, 255, 255].into(), [0xfd00, 9, 8, 0, 0, 0, 0, 1].into()][at],
        5 => service_addresses(99)[at],
        _ => service_addresses(1 + random.below(4) as u8)[at],
    }
}

fn workload_addresses() -> [IpAddr; 2] {
    [[198, 19, 0, 5].into(), [0xfd00, 1, 2, 0x1000, 0, 0, 0, 5].into()]
}

fn nowhere() -> [IpAddr; 2] {
    [[0, 0, 0, 0].into(), [0_u16; 8].into()]
}
