//! Large writes and large datagrams through the tunnel, whose MTU is 1420.

use std::net::{IpAddr, SocketAddr};

use enforcer_tests::lab::{Lab, capture::Capture, network::host_end, wait};

use crate::{
    links::{Offloads, datagrams, learn, ready, transfer},
    shared::Turn,
};

/// Above every MTU of the lab's but one.
const BYTES: usize = 200_000;
/// MTU of the tunnel.
const TUNNEL: u32 = 1420;
/// `IP_PMTUDISC_DONT` and `IP_PMTUDISC_WANT`.
const DONT: i32 = 0;
const WANT: i32 = 1;

/// What comes out of the pod.
fn watch(lab: &Lab, name: &str) -> Capture {
    let device = host_end(lab.pod("cart"));
    lab.capture_at(name, &lab.id.netns("node"), &device).expect("tcpdump starts")
}

/// Segments are as large as the tunnel carries: 1420 less IP header, TCP header and the twelve bytes of timestamps.
fn assert_whole_transfers(lab: &Turn, targets: [SocketAddr; 2]) {
    for pod in ["cart", "hostnet"] {
        assert_eq!(transfer(lab, pod, targets[0], BYTES), "1368 1368", "{pod} over IPv4");
        assert_eq!(transfer(lab, pod, targets[1], BYTES), "1348 1348", "{pod} over IPv6");
    }
}

#[test]
fn large_segments_arrive_whole_in_both_directions() {
    let (lab, targets) = ready(1500, Offloads::On);
    let capture = watch(&lab, "large-on");
    assert_whole_transfers(&lab, targets);
    assert!(capture.has(|frame| frame.len() > 1514), "the pod's device segments nothing");
}

#[test]
fn whole_packets_arrive_whole_in_both_directions() {
    let (lab, targets) = ready(1500, Offloads::Off);
    let capture = watch(&lab, "large-off");
    assert_whole_transfers(&lab, targets);
    assert!(!capture.has(|frame| frame.len() > 1514), "the pod's stack segments everything");
}

/// Both ends announce a segment of 8960 bytes; each must learn of less.
#[test]
fn pods_and_servers_on_jumbo_links_send_what_the_tunnel_carries() {
    for offloads in [Offloads::On, Offloads::Off] {
        let (lab, targets) = ready(9000, offloads);
        assert_whole_transfers(&lab, targets);
    }
}

#[test]
fn datagrams_that_a_device_segments_arrive_one_by_one() {
    let (lab, targets) = ready(1500, Offloads::On);
    let capture = watch(&lab, "datagrams-on");
    for to in targets {
        assert_eq!(datagrams(&lab, "cart", to, [1200, 20], WANT), 1500, "{to}");
        assert_eq!(datagrams(&lab, "hostnet", to, [1200, 20], WANT), TUNNEL, "{to}");
    }
    assert!(capture.has(|frame| frame.len() > 1514), "the pod's device segments nothing");
}

/// The largest first, because nobody has been told then of what the tunnel carries: those come in fragments of the
/// link's size. IPv4 packets that may be fragmented are, so that their sender is told nothing; but those of jumbo links are
/// more than the user-space tunnel takes.
#[test]
fn large_datagrams_and_large_replies_arrive() {
    for mtu in [1500, 9000] {
        let (lab, targets) = ready(mtu, Offloads::On);
        for pod in ["cart", "hostnet"] {
            for to in targets {
                for (discovery, lengths) in
                    [(DONT, [20000, 4000, 1450, 1300]), (WANT, [1450, 20000, 4000, 1300])]
                {
                    for length in lengths {
                        let untold = pod == "cart" && to.is_ipv4() && discovery == DONT && mtu == 1500;
                        let expected = if untold { mtu } else { TUNNEL };
                        let learnt = datagrams(&lab, pod, to, [length, 1], discovery);
                        assert_eq!(learnt, expected, "{pod}, link of {mtu}, {length} bytes to {to}");
                    }
                }
            }
        }
    }
}

#[test]
fn whoever_sends_too_much_learns_the_mtu_from_the_service_itself() {
    for (mtu, length) in [(1500, 1450), (9000, 8000)] {
        let (lab, targets) = ready(mtu, Offloads::On);
        let pod = lab.pod("cart");
        let capture = lab.capture_at(&format!("told-{mtu}"), &pod.netns, "eth0").expect("tcpdump starts");
        let tells = |frame: &[u8], service: IpAddr| match service {
            IpAddr::V4(ip) => {
                frame[12..14] == [8, 0]
                    && frame[26..30] == ip.octets()
                    && frame[23] == 1
                    && frame[34..36] == [3, 4]
                    && frame[40..42] == (TUNNEL as u16).to_be_bytes()
            }
            IpAddr::V6(ip) => {
                frame[12..14] == [0x86, 0xdd]
                    && frame[22..38] == ip.octets()
                    && frame[20] == 58
                    && frame[54] == 2
                    && frame[58..62] == TUNNEL.to_be_bytes()
            }
        };
        for to in targets {
            assert_eq!(learn(&lab, "cart", to, length), TUNNEL, "link of {mtu}, {to}");
            assert_eq!(learn(&lab, "hostnet", to, length), TUNNEL, "link of {mtu}, {to}");
            wait::for_true("the capture shows who told", || capture.has(|frame| tells(frame, to.ip())))
                .unwrap_or_else(|err| panic!("link of {mtu}, {to}: {err:#}"));
        }
    }
}
