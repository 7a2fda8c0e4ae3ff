//! Text to values and back, and what `set=1` means.

use super::*;

const SET: &str = "set=1
private_key=0101010101010101010101010101010101010101010101010101010101010101
listen_port=51820
replace_peers=true
public_key=0202020202020202020202020202020202020202020202020202020202020202
endpoint=203.0.113.1:51820
persistent_keepalive_interval=2
replace_allowed_ips=true
allowed_ip=10.0.0.0/8
allowed_ip=fd00::/16
public_key=0303030303030303030303030303030303030303030303030303030303030303
preshared_key=0404040404040404040404040404040404040404040404040404040404040404
endpoint=[2001:db8::1]:1
persistent_keepalive_interval=0
replace_allowed_ips=true

";

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn peer(networks: &[&str]) -> Peer {
    Peer { allowed_ips: networks.iter().map(|text| net(text)).collect(), ..Peer::default() }
}

fn set(peers: Vec<SetPeer>) -> Set {
    Set { peers, ..Set::default() }
}

/// Asserts without showing keys: the types have no Debug.
macro_rules! assert_same {
    ($left:expr, $right:expr, $why:literal) => {
        assert!($left == $right, $why);
    };
}

#[test]
fn a_saved_device_is_the_same_after_reading_it() {
    let parsed = Set::parse(SET).unwrap();
    assert_eq!(parsed.encode(), SET);
    let mut device = Device::default();
    device.apply(&parsed);
    assert_eq!(device.to_set().encode(), SET);
}

#[test]
fn an_answer_is_read_as_it_was_written() {
    let mut device = Device::default();
    device.apply(&Set::parse(SET).unwrap());
    for peer in device.peers.values_mut() {
        (peer.last_handshake, peer.received_bytes, peer.sent_bytes) = (1_700_000_000, 5, 6);
    }
    assert_same!(Device::parse(&device.encode()).unwrap(), device, "the answer lost something");
}

#[test]
fn an_answer_of_wireguard_go_is_read() {
    let text = "private_key=0101010101010101010101010101010101010101010101010101010101010101\n\
        listen_port=1\nprotocol_version=1\nfuture=thing\n\
        public_key=0202020202020202020202020202020202020202020202020202020202020202\n\
        preshared_key=0000000000000000000000000000000000000000000000000000000000000000\n\
        protocol_version=1\nlast_handshake_time_sec=7\nlast_handshake_time_nsec=9\ntx_bytes=1\nrx_bytes=2\n\
        persistent_keepalive_interval=0\nallowed_ip=10.0.0.1/32\nerrno=0\n\n";
    let expected = Device {
        private_key: Some([1; 32]),
        listen_port: 1,
        fwmark: 0,
        peers: BTreeMap::from([(
            [2; 32],
            Peer { last_handshake: 7, sent_bytes: 1, received_bytes: 2, ..peer(&["10.0.0.1/32"]) },
        )]),
    };
    assert_same!(Device::parse(text).unwrap(), expected, "something was read wrong");
}

#[test]
fn what_is_no_request_is_refused_by_line_and_key_without_its_value() {
    let key = "00".repeat(32);
    for (text, expected) in [
        ("get=1\n".to_owned(), ParseError::Start { expected: "set=1" }),
        ("set=1\nlisten_port\n".to_owned(), ParseError::NotAPair { line: 2 }),
        ("set=1\nlisten_port=x\n".to_owned(), ParseError::BadValue { line: 2, key: "listen_port" }),
        ("set=1\nprivate_key=00\n".to_owned(), ParseError::BadValue { line: 2, key: "private_key" }),
        (
            format!("set=1\nprivate_key={}\n", "0g".repeat(32)),
            ParseError::BadValue { line: 2, key: "private_key" },
        ),
        (
            format!("set=1\nprivate_key={}\n", "é".repeat(32)),
            ParseError::BadValue { line: 2, key: "private_key" },
        ),
        (
            "set=1\nendpoint=1.1.1.1:1\n".to_owned(),
            ParseError::UnknownKey { line: 2, key: "endpoint".into() },
        ),
        (
            format!("set=1\npublic_key={key}\nlisten_port=1\n"),
            ParseError::UnknownKey { line: 3, key: "listen_port".into() },
        ),
        (format!("set=1\npublic_key={key}\nremove=false\n"), ParseError::BadValue { line: 3, key: "remove" }),
    ] {
        assert_eq!(Set::parse(&text).err(), Some(expected), "{text}");
    }
}

#[test]
fn an_answer_cut_off_anywhere_is_no_answer() {
    let mut device = Device::default();
    device.apply(&Set::parse(SET).unwrap());
    let text = device.encode();
    let complete = text.find("errno=0").unwrap() + "errno=0".len();
    for end in 0..complete {
        assert!(Device::parse(&text[..end]).is_err(), "{end} bytes were taken for an answer");
    }
}

#[test]
fn an_error_number_is_an_error() {
    assert_eq!(errno("errno=0\n\n"), Ok(()));
    assert_eq!(errno("errno=-22\n\n"), Err(ParseError::Refused { errno: -22 }));
}

#[test]
fn an_allowed_ip_belongs_to_the_last_peer_that_claims_it() {
    let mut device = Device {
        peers: BTreeMap::from([([1; 32], peer(&["10.0.0.0/24", "10.0.1.0/24"])), ([2; 32], peer(&[]))]),
        ..Device::default()
    };
    device.apply(&set(vec![SetPeer {
        public_key: [2; 32],
        allowed_ips: vec![net("10.0.1.0/24")],
        ..SetPeer::default()
    }]));
    let expected = BTreeMap::from([([1; 32], peer(&["10.0.0.0/24"])), ([2; 32], peer(&["10.0.1.0/24"]))]);
    assert_same!(device.peers, expected, "the prefix did not move");
}

#[test]
fn peers_are_removed_updated_and_added_as_asked() {
    let mut device = Device {
        peers: BTreeMap::from([([1; 32], peer(&["10.0.0.0/24"])), ([2; 32], peer(&["10.0.2.0/24"]))]),
        ..Device::default()
    };
    device.apply(&set(vec![
        SetPeer { public_key: [1; 32], remove: true, ..SetPeer::default() },
        SetPeer {
            public_key: [2; 32],
            keepalive: Some(2),
            allowed_ips: vec![net("10.0.3.0/24")],
            removed_ips: vec![net("10.0.2.0/24")],
            ..SetPeer::default()
        },
        SetPeer { public_key: [3; 32], update_only: true, ..SetPeer::default() },
        SetPeer { public_key: [4; 32], ..SetPeer::default() },
    ]));
    let expected =
        BTreeMap::from([([2; 32], Peer { keepalive: 2, ..peer(&["10.0.3.0/24"]) }), ([4; 32], peer(&[]))]);
    assert_same!(device.peers, expected, "the peers are not what was asked for");
}

#[test]
fn zeros_take_a_key_away() {
    let mut device = Device::default();
    device.apply(&Set::parse(SET).unwrap());
    device.apply(&Set {
        private_key: Some(NO_KEY),
        peers: vec![SetPeer { public_key: [3; 32], preshared_key: Some(NO_KEY), ..SetPeer::default() }],
        ..Set::default()
    });
    assert!(device.private_key.is_none(), "the private key is still there");
    assert!(device.peers[&[3; 32]].preshared_key.is_none(), "the preshared key is still there");
}
