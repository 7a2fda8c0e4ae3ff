//! The smallest request that brings a device to its configuration. Pure; shared by both kinds of tunnel.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::uapi::{Device, Key, Peer, Set, SetPeer};
use super::{DeviceConfig, PeerConfig};

/// A peer that is not configured is removed, one that is right is not named. An endpoint that is not configured is
/// left to what the peer was last heard from.
pub(crate) fn difference(wanted: &DeviceConfig, actual: &Device) -> Set {
    let peers: BTreeMap<Key, &PeerConfig> = wanted.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    let gone = actual.peers.keys().filter(|key| !peers.contains_key(*key)).map(|key| SetPeer {
        public_key: *key,
        remove: true,
        ..SetPeer::default()
    });
    let changed = peers.values().filter_map(|peer| match actual.peers.get(&peer.public_key) {
        None => Some(new_peer(peer)),
        Some(actual) => changed_peer(peer, actual),
    });
    Set {
        private_key: Some(wanted.private_key).filter(|_| !same_key(wanted, actual)),
        listen_port: Some(wanted.listen_port).filter(|port| *port != 0 && *port != actual.listen_port),
        fwmark: None,
        replace_peers: false,
        // Removals first: an address that moves to another peer is never held by two.
        peers: gone.chain(changed).collect(),
    }
}

/// The kernel and wireguard-go clamp a private key when it is set, so keys are equal if their public halves are.
fn same_key(wanted: &DeviceConfig, actual: &Device) -> bool {
    let public = crate::keygen::public_key;
    actual
        .private_key
        .is_some_and(|key| key == wanted.private_key || public(&key) == public(&wanted.private_key))
}

fn new_peer(peer: &PeerConfig) -> SetPeer {
    SetPeer {
        public_key: peer.public_key,
        endpoint: peer.endpoint,
        keepalive: Some(peer.keepalive),
        replace_allowed_ips: true,
        allowed_ips: networks(peer).into_iter().collect(),
        ..SetPeer::default()
    }
}

fn changed_peer(wanted: &PeerConfig, actual: &Peer) -> Option<SetPeer> {
    let networks = networks(wanted);
    // Additions alone do not replace the list, so no packet meets a moment without its address.
    let replace = !actual.allowed_ips.is_subset(&networks);
    let unchanged = SetPeer { public_key: wanted.public_key, update_only: true, ..SetPeer::default() };
    let change = SetPeer {
        endpoint: wanted.endpoint.filter(|endpoint| Some(*endpoint) != actual.endpoint),
        keepalive: Some(wanted.keepalive).filter(|keepalive| *keepalive != actual.keepalive),
        replace_allowed_ips: replace,
        allowed_ips: networks
            .into_iter()
            .filter(|net| replace || !actual.allowed_ips.contains(net))
            .collect(),
        ..unchanged.clone()
    };
    (change != unchanged).then_some(change)
}

fn networks(peer: &PeerConfig) -> BTreeSet<IpNet> {
    peer.allowed_ips.iter().map(IpNet::trunc).collect()
}

#[cfg(test)]
mod tests;
