//! What comes in: packets that claim a guarded source, and frames that somebody puts right before the tunnel.

use std::net::{IpAddr, SocketAddr};

use enforcer_tests::{
    lab::{
        Lab, Place, Role, Running,
        network::{NODE4, NODE6, host_end},
        wait,
    },
    packet::{Packet, Transport},
    ways::text,
};

use crate::{
    instrument::{Guarded, Watch},
    places,
    shared::{lab, probe},
};

pub const PORT: u16 = 4242;

/// Hardware address of a device.
fn mac(netns: &str, device: &str) -> [u8; 6] {
    let place = ["-n", netns, "-brief", "link", "show", device];
    let output = std::process::Command::new("ip").args(place).output().expect("ip starts");
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = line.split_whitespace().nth(2).expect("the device has an address").to_owned();
    let bytes: Vec<u8> = word.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
    bytes.try_into().expect("six bytes")
}

/// Puts a frame out of a device of a namespace.
fn inject(place: &Place, how: &str, device: &str, packet: &Packet) {
    let hex = packet.frame().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    // A frame that a hook drops is an error of the sender, and none for us: what arrives is judged.
    place.run(env!("CARGO_BIN_EXE_enforcer-lab"), &[how, device, &hex]).expect("the sender starts");
}

/// A datagram that is known by its number.
pub fn datagram(source: SocketAddr, destination: SocketAddr, mark: u16) -> Packet {
    let mut packet = Packet::udp(source, destination, 0);
    if let Transport::Udp { payload, .. } = &mut packet.transport {
        *payload = text(mark).into_bytes();
    }
    packet
}

/// A listener that notes what it hears.
pub fn hear(lab: &Lab, place: &Place, log: &str) -> Running {
    let port = PORT.to_string();
    let args = ["udp-hear", &port];
    let hearing = place.start_plain(env!("CARGO_BIN_EXE_enforcer-lab"), &args, &lab.id.log(log));
    let hearing = hearing.expect("the listener starts");
    wait::for_true("it listens", || lab.log(log).contains("listening")).expect("it listens");
    hearing
}

/// How many packets have been dropped for a reason.
fn drops(lab: &Lab, reason: &str) -> u64 {
    drops_of(lab, Role::Agent, reason)
}

pub fn drops_of(lab: &Lab, role: Role, reason: &str) -> u64 {
    let status = lab.status(role).expect("the role answers");
    status["counters"]["drops"][reason].as_u64().unwrap_or_default()
}

/// Where forged frames come from: a place, its device, and who gets what it sends and who it is there.
struct Forger {
    place: Place,
    device: &'static str,
    macs: [[u8; 6]; 2],
    /// Addresses that nobody guards and that could be behind the device.
    others: [IpAddr; 2],
}

/// Somebody on the underlay, a pod that is known, and one that is not.
fn forgers(lab: &Lab) -> [Forger; 3] {
    let (node, audit) = (lab.id.netns("node"), lab.pod("audit"));
    let addresses = |list: [&str; 2]| list.map(|ip| ip.parse().expect("an address"));
    let forger = |place: Place, end: &str, others| {
        let macs = [mac(&node, end), mac(&place.netns, "eth0")];
        Forger { place, device: "eth0", macs, others }
    };
    let [own4, own6] = audit.addresses();
    [
        forger(lab.elsewhere("gw"), "eth0", addresses(["192.0.2.99", "2001:db8:1::99"])),
        forger(lab.place("audit"), &host_end(audit), addresses([&own4, &own6])),
        forger(lab.elsewhere("beside"), "beside0", addresses(["10.99.0.2", "fd99:99::2"])),
    ]
}

#[test]
fn clear_text_that_claims_a_guarded_source_reaches_nobody() {
    let lab = lab();
    places::add_once(&lab);
    let (guarded, before) = (Guarded::of(&lab), drops(&lab, "ClearSource"));
    let listeners = [
        (lab.pod("cart").addresses(), lab.place("cart"), "heard-cart"),
        ([NODE4.into(), NODE6.into()], lab.elsewhere("node"), "heard-node"),
    ];
    let mut sent = 0;
    for (addresses, place, log) in listeners {
        let hearing = hear(&lab, &place, log);
        let mut controls = Vec::new();
        // Marks of what nobody may hear are below 100.
        for (number, forger) in (1..).zip(forgers(&lab)) {
            for (family, address) in addresses.iter().enumerate() {
                let to = SocketAddr::new(address.parse().expect("an address"), PORT);
                let send = |source: SocketAddr, mark| {
                    let mut packet = datagram(source, to, mark);
                    packet.mac = forger.macs;
                    inject(&forger.place, "inject", forger.device, &packet);
                };
                for source in guarded.targets.iter().filter(|source| source.is_ipv4() == to.is_ipv4()) {
                    send(*source, number * 10 + family as u16);
                    sent += 1;
                }
                // Afterwards somebody else, on the same way.
                controls.push(text(number * 100 + family as u16));
                send(SocketAddr::new(forger.others[family], 5432), number * 100 + family as u16);
            }
        }
        wait::for_true("the others are heard", || controls.iter().all(|text| lab.log(log).contains(text)))
            .unwrap_or_else(|err| panic!("{log}: {err:#}: {}", lab.log(log)));
        let heard: Vec<String> =
            (0..100).map(text).filter(|text| lab.log(log).contains(text.as_str())).collect();
        assert_eq!(heard, Vec::<String>::new(), "{log}: {}", lab.log(log));
        drop(hearing);
    }
    wait::for_true("the drops are counted", || drops(&lab, "ClearSource") >= before + sent)
        .unwrap_or_else(|err| panic!("{err:#}: {} of {sent}", drops(&lab, "ClearSource") - before));
}

/// With and without the hooks of the pair's end: no flow of that tuple lives, so no packet may pass the last guard.
#[test]
fn frames_that_are_put_before_the_tunnel_do_not_enter_it() {
    let mut lab = lab();
    places::add_once(&lab);
    let watch = Watch::start(&lab, "injected");
    let node = lab.elsewhere("node");
    let before = drops(&lab, "NoFlow");
    let cart = lab.pod("cart").addresses().map(|ip| ip.parse().expect("an address"));
    let own = [NODE4, NODE6].map(|ip| ip.parse().expect("an address"));
    let mut bypassed = 0;
    for target in &watch.guarded.targets {
        for sources in [cart, own] {
            // Not the port of the granted packets that end every test here: their flows may be alive.
            let source = SocketAddr::new(sources[usize::from(target.is_ipv6())], 4001);
            let mut packet = Packet::tcp(source, *target, enforcer_tests::packet::SYN);
            if let Transport::Tcp { payload, .. } = &mut packet.transport {
                *payload = text(1).into_bytes();
            }
            packet.mac = [[2, 0xef, 0, 0, 0, 2], [2, 0xef, 0, 0, 0, 1]];
            inject(&node, "inject", "enforcer0", &packet);
            inject(&node, "inject-bypass", "enforcer0", &packet);
            bypassed += 1;
        }
    }
    // Each that went past the first hook met the last.
    wait::for_true("the last guard has dropped them", || drops(&lab, "NoFlow") >= before + bypassed)
        .unwrap_or_else(|err| panic!("{} after {before} of {bypassed}: {err:#}", drops(&lab, "NoFlow")));
    // What is judged next is also whether anything works at all after this.
    let service = watch.guarded.targets[0].to_string();
    assert!(probe(&lab, "cart", &["tcp-connect", &service]).success, "the granted pod still connects");
    watch.finish(&mut lab);
}
