//! WireGuard's cross-platform user-space configuration protocol: its two requests as values.
//!
//! Owns the meaning of `set=1` ([`Device::apply`]) and, in the modules below, the text on the socket. The same text,
//! as one `set=1` request, is what the tunnel process keeps on disk. Does no I/O.
//!
//! Types that carry private or preshared keys have no `Debug`, so that no log line can show them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use super::{DeviceStatus, PeerStatus};

mod decode;
mod encode;

pub use decode::ParseError;
pub(crate) use decode::errno;

/// A Curve25519 key, private, public or preshared.
pub(crate) type Key = [u8; 32];

/// Removes a key or preshared key when it is set to this.
const NO_KEY: Key = [0; 32];

/// One `set=1` request: what is absent stays as it is.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Set {
    pub private_key: Option<Key>,
    pub listen_port: Option<u16>,
    pub fwmark: Option<u32>,
    pub replace_peers: bool,
    pub peers: Vec<SetPeer>,
}

#[derive(Clone, Default, PartialEq)]
pub(crate) struct SetPeer {
    pub public_key: Key,
    pub remove: bool,
    pub update_only: bool,
    pub preshared_key: Option<Key>,
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0: none.
    pub keepalive: Option<u16>,
    pub replace_allowed_ips: bool,
    pub allowed_ips: Vec<IpNet>,
    /// Sent by newer `wg` as `allowed_ip=-CIDR`.
    pub removed_ips: Vec<IpNet>,
}

/// A device: the answer to `get=1`, and the state that `set=1` changes.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Device {
    pub private_key: Option<Key>,
    pub listen_port: u16,
    pub fwmark: u32,
    pub peers: BTreeMap<Key, Peer>,
}

#[derive(Clone, Default, PartialEq)]
pub(crate) struct Peer {
    pub preshared_key: Option<Key>,
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0: none.
    pub keepalive: u16,
    pub allowed_ips: BTreeSet<IpNet>,
    /// Seconds since the Unix epoch; 0: never.
    pub last_handshake: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl Set {
    /// True if the request would change nothing.
    pub fn is_empty(&self) -> bool {
        *self == Set::default()
    }
}

impl Device {
    /// Applies a request the way the kernel does: an allowed IP belongs to the last peer that claims it.
    pub fn apply(&mut self, set: &Set) {
        if let Some(key) = set.private_key {
            self.private_key = (key != NO_KEY).then_some(key);
        }
        if let Some(port) = set.listen_port {
            self.listen_port = port;
        }
        if let Some(mark) = set.fwmark {
            self.fwmark = mark;
        }
        if set.replace_peers {
            // A peer that is named again keeps what a session needs; only its settings start afresh.
            let named: BTreeSet<Key> = set.peers.iter().map(|peer| peer.public_key).collect();
            self.peers.retain(|key, _| named.contains(key));
            for peer in self.peers.values_mut() {
                peer.allowed_ips.clear();
                peer.preshared_key = None;
                peer.keepalive = 0;
            }
        }
        for change in &set.peers {
            self.apply_peer(change);
        }
    }

    fn apply_peer(&mut self, change: &SetPeer) {
        if change.remove {
            self.peers.remove(&change.public_key);
            return;
        }
        if change.update_only && !self.peers.contains_key(&change.public_key) {
            return;
        }
        for (key, peer) in &mut self.peers {
            if *key != change.public_key {
                peer.allowed_ips.retain(|net| !change.allowed_ips.contains(net));
            }
        }
        let peer = self.peers.entry(change.public_key).or_default();
        if let Some(key) = change.preshared_key {
            peer.preshared_key = (key != NO_KEY).then_some(key);
        }
        if let Some(endpoint) = change.endpoint {
            peer.endpoint = Some(endpoint);
        }
        if let Some(keepalive) = change.keepalive {
            peer.keepalive = keepalive;
        }
        if change.replace_allowed_ips {
            peer.allowed_ips.clear();
        }
        peer.allowed_ips.extend(change.allowed_ips.iter().copied());
        peer.allowed_ips.retain(|net| !change.removed_ips.contains(net));
    }

    /// The request that makes an empty device this one, without statistics.
    pub fn to_set(&self) -> Set {
        Set {
            private_key: self.private_key,
            listen_port: Some(self.listen_port),
            fwmark: (self.fwmark != 0).then_some(self.fwmark),
            replace_peers: true,
            peers: self
                .peers
                .iter()
                .map(|(key, peer)| SetPeer {
                    public_key: *key,
                    preshared_key: peer.preshared_key,
                    endpoint: peer.endpoint,
                    keepalive: Some(peer.keepalive),
                    replace_allowed_ips: true,
                    allowed_ips: peer.allowed_ips.iter().copied().collect(),
                    ..SetPeer::default()
                })
                .collect(),
        }
    }

    /// What callers of the tunnel may see of it.
    pub fn status(&self) -> DeviceStatus {
        DeviceStatus {
            listen_port: self.listen_port,
            peers: self
                .peers
                .iter()
                .map(|(key, peer)| PeerStatus {
                    public_key: *key,
                    endpoint: peer.endpoint,
                    allowed_ips: peer.allowed_ips.iter().copied().collect(),
                    last_handshake: peer.last_handshake,
                    received_bytes: peer.received_bytes,
                    sent_bytes: peer.sent_bytes,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
