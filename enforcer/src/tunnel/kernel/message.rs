//! Requests and answers of the kernel's WireGuard as the values of the user-space protocol. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Emitable as _;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};

use crate::tunnel::uapi::{Device, Key, Peer, Set, SetPeer};

/// Most bytes of peers in one request: the length of an attribute is a 16 bit number.
const MAX_PEERS: usize = 32 << 10;

pub(super) fn query(name: &str) -> WireguardMessage {
    WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::IfName(name.to_owned())],
    }
}

/// The requests that carry out `set`, in this order. Only the first changes the device itself.
pub(super) fn requests(name: &str, set: &Set) -> Vec<WireguardMessage> {
    let mut device = Vec::new();
    device.extend(set.private_key.map(WireguardAttribute::PrivateKey));
    device.extend(set.listen_port.map(WireguardAttribute::ListenPort));
    device.extend(set.fwmark.map(WireguardAttribute::Fwmark));
    if set.replace_peers {
        device.push(WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers));
    }
    let mut parts: Vec<Vec<WireguardPeer>> = vec![Vec::new()];
    let mut size = 0;
    for peer in set.peers.iter().map(peer) {
        let bytes = std::slice::from_ref(&peer).buffer_len();
        if size + bytes > MAX_PEERS && size > 0 {
            parts.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(part) = parts.last_mut() {
            part.push(peer);
        }
    }
    parts
        .into_iter()
        .map(|peers| {
            let mut attributes = vec![WireguardAttribute::IfName(name.to_owned())];
            attributes.append(&mut device);
            if !peers.is_empty() {
                attributes.push(WireguardAttribute::Peers(peers));
            }
            WireguardMessage { cmd: WireguardCmd::SetDevice, attributes }
        })
        .collect()
}

fn peer(set: &SetPeer) -> WireguardPeer {
    let mut flags = WireguardPeerFlags::empty();
    flags.set(WireguardPeerFlags::RemoveMe, set.remove);
    flags.set(WireguardPeerFlags::UpdateOnly, set.update_only);
    flags.set(WireguardPeerFlags::ReplaceAllowedIps, set.replace_allowed_ips);
    let mut attributes = vec![WireguardPeerAttribute::PublicKey(set.public_key)];
    if !flags.is_empty() {
        attributes.push(WireguardPeerAttribute::Flags(flags));
    }
    attributes.extend(set.preshared_key.map(WireguardPeerAttribute::PresharedKey));
    attributes.extend(set.endpoint.map(WireguardPeerAttribute::Endpoint));
    attributes.extend(set.keepalive.map(WireguardPeerAttribute::PersistentKeepalive));
    if !set.allowed_ips.is_empty() {
        let networks = set.allowed_ips.iter().map(allowed_ip).collect();
        attributes.push(WireguardPeerAttribute::AllowedIps(networks));
    }
    WireguardPeer(attributes)
}

fn allowed_ip(net: &IpNet) -> WireguardAllowedIp {
    let family = match net {
        IpNet::V4(_) => WireguardAddressFamily::Ipv4,
        IpNet::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(net.addr()),
        WireguardAllowedIpAttr::Cidr(net.prefix_len()),
    ])
}

/// Puts the messages of a dump together: the kernel goes on with a peer in the next message when one is full.
pub(super) fn device(dump: Vec<WireguardMessage>) -> Device {
    let mut device = Device::default();
    for attribute in dump.into_iter().flat_map(|message| message.attributes) {
        match attribute {
            WireguardAttribute::PrivateKey(key) => device.private_key = Some(key),
            WireguardAttribute::ListenPort(port) => device.listen_port = port,
            WireguardAttribute::Fwmark(mark) => device.fwmark = mark,
            WireguardAttribute::Peers(peers) => peers.iter().for_each(|peer| read_peer(&mut device, peer)),
            _ => {}
        }
    }
    device
}

fn read_peer(device: &mut Device, attributes: &WireguardPeer) {
    let key = attributes.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(*key),
        _ => None,
    });
    let Some(key) = key else { return };
    let peer: &mut Peer = device.peers.entry(key).or_default();
    for attribute in attributes.iter() {
        match attribute {
            WireguardPeerAttribute::PresharedKey(key) => {
                // The kernel shows an absent one as zeros.
                peer.preshared_key = Some(*key).filter(|key| *key != Key::default());
            }
            WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
            WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.keepalive = *seconds,
            WireguardPeerAttribute::LastHandshake(time) => {
                peer.last_handshake = time.seconds.try_into().unwrap_or_default();
            }
            WireguardPeerAttribute::RxBytes(bytes) => peer.received_bytes = *bytes,
            WireguardPeerAttribute::TxBytes(bytes) => peer.sent_bytes = *bytes,
            WireguardPeerAttribute::AllowedIps(networks) => {
                peer.allowed_ips.extend(networks.iter().filter_map(network));
            }
            _ => {}
        }
    }
}

fn network(attributes: &WireguardAllowedIp) -> Option<IpNet> {
    let mut address: Option<IpAddr> = None;
    let mut length = None;
    for attribute in attributes.iter() {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(value) => address = Some(*value),
            WireguardAllowedIpAttr::Cidr(value) => length = Some(*value),
            _ => {}
        }
    }
    IpNet::new(address?, length?).ok()
}

#[cfg(test)]
mod tests;
