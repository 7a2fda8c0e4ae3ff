//! Brings gotatun's device to a configuration, peer by peer: what did not change keeps its session.

use gotatun::{
    device::{DeviceTransports, Peer, configure::DeviceWrite},
    x25519::{PublicKey, StaticSecret},
};

use crate::tunnel::uapi;

/// Changes `device` from `old` to `new`. With `rebind` its socket is opened again even if nothing changed.
pub(super) async fn change<T: DeviceTransports>(
    device: &mut DeviceWrite<'_, T>,
    old: &uapi::Device,
    new: &uapi::Device,
    rebind: bool,
) {
    let Some(key) = new.private_key else {
        // gotatun can hold neither peers nor a socket without a key; they follow together with it.
        return;
    };
    if old.private_key != new.private_key {
        device.set_private_key(StaticSecret::from(key)).await;
    }
    if rebind {
        // A socket that could not be bound leaves its port behind as if it were: any other port wakes gotatun.
        device.set_listen_port(new.listen_port ^ 1);
    }
    if rebind || old.listen_port != new.listen_port {
        device.set_listen_port(new.listen_port);
    }
    for key in old.peers.keys().filter(|key| !new.peers.contains_key(*key)) {
        device.remove_peer(&PublicKey::from(*key)).await;
    }
    for (key, peer) in &new.peers {
        if old.peers.get(key).is_none_or(|old| !same_settings(old, peer)) {
            device.add_or_update_peer(peer_of(key, peer)).await;
        }
    }
}

fn same_settings(one: &uapi::Peer, other: &uapi::Peer) -> bool {
    one.preshared_key == other.preshared_key
        && one.endpoint == other.endpoint
        && one.keepalive == other.keepalive
        && one.allowed_ips == other.allowed_ips
}

/// gotatun's peer with these settings and no session.
pub(super) fn peer_of(key: &uapi::Key, peer: &uapi::Peer) -> Peer {
    let mut settings = Peer::new(PublicKey::from(*key));
    settings.preshared_key = peer.preshared_key;
    settings.endpoint = peer.endpoint;
    settings.keepalive = (peer.keepalive != 0).then_some(peer.keepalive);
    // gotatun has another crate's type for prefixes, and the text is what both have in common.
    settings.allowed_ips = peer.allowed_ips.iter().filter_map(|net| net.to_string().parse().ok()).collect();
    settings
}
