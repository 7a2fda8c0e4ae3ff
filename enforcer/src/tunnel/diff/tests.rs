//! The smallest change, as the text of the request that carries it.

use super::*;

fn wanted(peers: Vec<PeerConfig>) -> DeviceConfig {
    DeviceConfig { name: "ef-000000".into(), private_key: [1; 32], listen_port: 0, peers }
}

fn peer(key: u8, networks: &[&str]) -> PeerConfig {
    PeerConfig {
        public_key: [key; 32],
        endpoint: Some("203.0.113.1:51820".parse().unwrap()),
        allowed_ips: networks.iter().map(|text| text.parse().unwrap()).collect(),
        keepalive: 2,
    }
}

/// What a device becomes that was empty and is brought to this configuration.
fn brought(config: &DeviceConfig) -> Device {
    let mut device = Device::default();
    device.apply(&difference(config, &device));
    device
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

#[test]
fn a_device_that_is_right_is_left_alone() {
    let config = wanted(vec![peer(2, &["10.0.0.0/24", "fd00::/64"]), peer(3, &["10.0.1.0/24"])]);
    assert!(difference(&config, &brought(&config)).is_empty());
}

#[test]
fn a_new_device_gets_everything_once() {
    let config = DeviceConfig { listen_port: 51820, ..wanted(vec![peer(2, &["10.0.0.7/24"])]) };
    assert_eq!(
        difference(&config, &Device::default()).encode(),
        format!(
            "set=1\nprivate_key={}\nlisten_port=51820\npublic_key={}\nendpoint=203.0.113.1:51820\n\
             persistent_keepalive_interval=2\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/24\n\n",
            hex(1),
            hex(2)
        )
    );
}

#[test]
fn only_the_peer_that_changed_is_named() {
    let before = wanted(vec![peer(2, &["10.0.0.0/24"]), peer(3, &["10.0.1.0/24"])]);
    let after = wanted(vec![peer(2, &["10.0.0.0/24"]), peer(3, &["10.0.1.0/24", "10.0.9.0/24"])]);
    assert_eq!(
        difference(&after, &brought(&before)).encode(),
        format!("set=1\npublic_key={}\nupdate_only=true\nallowed_ip=10.0.9.0/24\n\n", hex(3))
    );
}

#[test]
fn a_prefix_that_goes_replaces_the_list() {
    let before = wanted(vec![peer(3, &["10.0.1.0/24", "10.0.2.0/24"])]);
    let after = wanted(vec![peer(3, &["10.0.2.0/24"])]);
    assert_eq!(
        difference(&after, &brought(&before)).encode(),
        format!(
            "set=1\npublic_key={}\nupdate_only=true\nreplace_allowed_ips=true\nallowed_ip=10.0.2.0/24\n\n",
            hex(3)
        )
    );
}

#[test]
fn a_peer_that_goes_is_removed_first() {
    let before = wanted(vec![peer(2, &["10.0.0.0/24"]), peer(3, &["10.0.1.0/24"])]);
    let after = wanted(vec![peer(2, &["10.0.0.0/24", "10.0.1.0/24"])]);
    assert_eq!(
        difference(&after, &brought(&before)).encode(),
        format!(
            "set=1\npublic_key={}\nremove=true\npublic_key={}\nupdate_only=true\nallowed_ip=10.0.1.0/24\n\n",
            hex(3),
            hex(2)
        )
    );
}

#[test]
fn a_peer_without_a_configured_endpoint_may_roam_and_any_port_may_be_found() {
    let roaming = PeerConfig { endpoint: None, ..peer(2, &["10.0.0.0/24"]) };
    let config = wanted(vec![roaming]);
    let mut device = brought(&config);
    device.listen_port = 40_000;
    if let Some(peer) = device.peers.get_mut(&[2; 32]) {
        peer.endpoint = Some("192.0.2.9:9".parse().unwrap());
    }
    assert!(difference(&config, &device).is_empty());
}

#[test]
fn a_key_that_the_device_clamped_is_the_same_key() {
    let config = DeviceConfig { private_key: [0xff; 32], ..wanted(vec![]) };
    let mut device = brought(&config);
    if let Some(key) = &mut device.private_key {
        key[0] &= 0b1111_1000;
        key[31] = (key[31] & 0b0111_1111) | 0b0100_0000;
    }
    assert!(difference(&config, &device).is_empty());
}
