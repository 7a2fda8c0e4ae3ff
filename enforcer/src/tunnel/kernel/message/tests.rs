//! Bytes on the wire as the kernel's uapi/linux/wireguard.h has them, and dumps put together.

use super::*;

fn bytes(message: &WireguardMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// One attribute: length, type, value, padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const NESTED: u16 = 0x8000;

#[test]
fn a_request_has_the_bytes_that_the_kernel_documents() {
    let set = Set {
        private_key: Some([1; 32]),
        listen_port: Some(51820),
        peers: vec![
            SetPeer { public_key: [2; 32], remove: true, ..SetPeer::default() },
            SetPeer {
                public_key: [3; 32],
                endpoint: Some("203.0.113.1:51820".parse().unwrap()),
                keepalive: Some(2),
                replace_allowed_ips: true,
                allowed_ips: vec![net("10.0.0.0/8")],
                ..SetPeer::default()
            },
        ],
        ..Set::default()
    };
    let endpoint: Vec<u8> = [
        libc::AF_INET.to_ne_bytes()[..2].to_vec(),
        51820_u16.to_be_bytes().to_vec(),
        vec![203, 0, 113, 1],
        vec![0; 8],
    ]
    .concat();
    let allowed_ip = attribute(
        NESTED,
        &[attribute(1, &2_u16.to_ne_bytes()), attribute(2, &[10, 0, 0, 0]), attribute(3, &[8])].concat(),
    );
    let removed = [attribute(1, &[2; 32]), attribute(3, &1_u32.to_ne_bytes())].concat();
    let changed = [
        attribute(1, &[3; 32]),
        attribute(3, &2_u32.to_ne_bytes()),
        attribute(4, &endpoint),
        attribute(5, &2_u16.to_ne_bytes()),
        attribute(9 | NESTED, &allowed_ip),
    ]
    .concat();
    let expected = [
        attribute(2, b"ef-000000\0"),
        attribute(3, &[1; 32]),
        attribute(6, &51820_u16.to_ne_bytes()),
        attribute(8 | NESTED, &[attribute(NESTED, &removed), attribute(NESTED, &changed)].concat()),
    ]
    .concat();
    let requests = requests("ef-000000", &set);
    assert_eq!(requests.iter().map(bytes).collect::<Vec<_>>(), [expected]);
}

#[test]
fn many_peers_are_asked_for_in_parts_that_fit_and_the_device_is_set_once() {
    let set = Set {
        listen_port: Some(1),
        peers: (0..2000_u16)
            .map(|number| {
                let mut key = [0; 32];
                key[..2].copy_from_slice(&number.to_be_bytes());
                SetPeer { public_key: key, allowed_ips: vec![net("fd00::/64")], ..SetPeer::default() }
            })
            .collect(),
        ..Set::default()
    };
    let requests = requests("ef-000000", &set);
    assert!(requests.len() > 1, "everything went into one request");
    assert!(
        requests.iter().all(|request| request.buffer_len() < usize::from(u16::MAX)),
        "a part does not fit"
    );
    let ports = requests.iter().flat_map(|request| &request.attributes);
    assert_eq!(ports.filter(|attribute| matches!(attribute, WireguardAttribute::ListenPort(_))).count(), 1);
    let sent = device(requests);
    assert_eq!(sent.peers.len(), 2000);
}

#[test]
fn a_peer_that_the_kernel_continues_in_the_next_message_is_one_peer() {
    let part = |networks: &[&str]| WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::Peers(vec![WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([2; 32]),
            WireguardPeerAttribute::PresharedKey([0; 32]),
            WireguardPeerAttribute::AllowedIps(networks.iter().map(|text| allowed_ip(&net(text))).collect()),
        ])])],
    };
    let expected = Peer { allowed_ips: [net("10.0.0.0/24"), net("fd00::/64")].into(), ..Peer::default() };
    let device = device(vec![part(&["10.0.0.0/24"]), part(&["fd00::/64"])]);
    assert!(device.peers == [([2; 32], expected)].into(), "the parts were not put together");
}
