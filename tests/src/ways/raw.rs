//! Ways out whose packets are written by hand: headers, packets in packets, source routes, frames of others.

use std::{
    fs,
    io::{Error, Result},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use socket2::{Domain, Type};

use super::{Shot, text};
use crate::{
    packet::{Fragment, Packet, SYN, Transport},
    probe::option,
};

const IPIP: i32 = 4;
const IPV6_IN: i32 = 41;
const ROUTING: u8 = 43;

impl Shot<'_> {
    /// A datagram of the sender's own with the text in it.
    fn datagram(&self, source: IpAddr, destination: SocketAddr) -> Packet {
        let mut packet = Packet::udp(SocketAddr::new(source, 4000), destination, 0);
        if let Transport::Udp { payload, .. } = &mut packet.transport {
            *payload = text(self.mark).into_bytes();
        }
        packet
    }

    fn send_bare(&self, packet: &Packet) -> Result<()> {
        let socket = self.socket(Type::RAW, libc::IPPROTO_RAW)?;
        socket.send_to(&packet.bare(), &SocketAddr::new(packet.destination, 0).into())?;
        Ok(())
    }

    pub(super) fn with_header(&self) -> Result<()> {
        let own = self.own_address(self.plan.control[self.family()])?;
        self.send_bare(&self.datagram(own, self.marked()))
    }

    /// In a packet of a family to the control address.
    pub(super) fn encapsulated(&self, outer: usize) -> Result<()> {
        let own = self.own_address(self.plan.control[self.family()])?;
        let inner = self.datagram(own, self.marked()).bare();
        let protocol = if self.to.is_ipv4() { IPIP } else { IPV6_IN };
        let domain = [Domain::IPV4, Domain::IPV6][outer];
        let socket = self.socket_of(domain, Type::RAW, protocol)?;
        socket.send_to(&inner, &SocketAddr::new(self.plan.control[outer], 0).into())?;
        Ok(())
    }

    /// By way of `first`: a loose source route, or a segment routing header.
    pub(super) fn source_routed(&self, first: [IpAddr; 2]) -> Result<()> {
        let first = first[self.family()];
        let own = self.own_address(self.plan.control[self.family()])?;
        let mut packet = self.datagram(own, SocketAddr::new(first, self.mark));
        match (self.to.ip(), first) {
            (IpAddr::V4(last), _) => {
                packet.options = vec![1, 131, 7, 4];
                packet.options.extend(last.octets());
            }
            (IpAddr::V6(last), IpAddr::V6(first)) => {
                // Length in eights, type, segments left, last entry, flags, tag, and the segments in reverse.
                let mut body = vec![4, 4, 1, 1, 0, 0, 0];
                body.extend(last.octets());
                body.extend(first.octets());
                packet.extensions = vec![(ROUTING, body)];
            }
            (IpAddr::V6(_), IpAddr::V4(_)) => return Err(Error::other("one packet has one family")),
        }
        self.send_bare(&packet)
    }

    /// A datagram with so many bytes, the text first.
    fn long_datagram(&self, bytes: usize) -> Result<Packet> {
        let mut packet = self.datagram(self.own_address(self.plan.control[self.family()])?, self.marked());
        if let Transport::Udp { payload, .. } = &mut packet.transport {
            payload.resize(bytes, b'.');
        }
        packet.dont_fragment = false;
        Ok(packet)
    }

    /// Offsets, lengths and whether more follow, of a datagram of 48 bytes with its header.
    pub(super) fn fragments(&self) -> Result<()> {
        let alone = [(8, 40, false)];
        let overlapping = [(0, 24, true), (16, 32, false)];
        let tiny = [(0, 8, true), (8, 40, false)];
        for (number, parts) in (0..).zip([&alone[..], &overlapping, &tiny]) {
            for (offset, length, more) in parts {
                let id = u32::from(self.mark) * 4 + number;
                let fragment = Some(Fragment { id, offset: *offset, length: *length, more: *more });
                self.send_bare(&Packet { fragment, ..self.long_datagram(40)? })?;
            }
        }
        Ok(())
    }

    /// As the device would be given it.
    fn framed(&self, packet: Packet) -> Result<(&str, Vec<u8>)> {
        let device = self.plan.device.as_deref().unwrap_or("eth0");
        let mac = [neighbour(device)?, address(device)?];
        Ok((device, Packet { mac, ..packet }.frame()))
    }

    pub(super) fn non_linear(&self) -> Result<()> {
        let (device, frame) = self.framed(self.long_datagram(5000)?)?;
        // No offload of any kind, and fourteen bytes of headers: the rest of more than a page goes elsewhere.
        let mut header = vec![0; 10];
        header[2..4].copy_from_slice(&14_u16.to_ne_bytes());
        let socket = packet_socket(device, &frame)?;
        option(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        header.extend(frame);
        socket.send(&header)?;
        Ok(())
    }

    pub(super) fn tagged(&self) -> Result<()> {
        const CUSTOMER: u16 = 0x8100;
        const SERVICE: u16 = 0x88a8;
        for tags in [&[][..], &[CUSTOMER], &[SERVICE, CUSTOMER]] {
            let (device, frame) = self.framed(Packet { tags: tags.to_vec(), ..self.long_datagram(40)? })?;
            // Most are dropped, which the sender is told.
            let sent = inject(device, &frame, false);
            if self.plan.control.contains(&self.to.ip()) {
                sent?;
            }
        }
        Ok(())
    }

    /// A frame from here with somebody else's source, to the port that may be theirs.
    pub(super) fn spoofed(&self, source: [IpAddr; 2]) -> Result<()> {
        let device = self.plan.device.as_deref().unwrap_or("eth0");
        let mut packet = Packet::tcp(SocketAddr::new(source[self.family()], 4000), self.to, SYN);
        if let Transport::Tcp { payload, .. } = &mut packet.transport {
            *payload = text(self.mark).into_bytes();
        }
        packet.mac = [neighbour(device)?, address(device)?];
        inject(device, &packet.frame(), false)
    }
}

/// Sends a packet with its IP header, as the routes have it.
pub fn send_bare(packet: &[u8], to: IpAddr) -> Result<()> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = socket2::Socket::new(domain, Type::RAW, Some(libc::IPPROTO_RAW.into()))?;
    socket.send_to(packet, &SocketAddr::new(to, 0).into())?;
    Ok(())
}

/// Sends a frame out of a device; `bypass` leaves the queue and its hooks out.
pub fn inject(device: &str, frame: &[u8], bypass: bool) -> Result<()> {
    let socket = packet_socket(device, frame)?;
    option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, bypass.into())?;
    socket.send(frame).map(drop)
}

/// A socket for frames like this one out of a device.
fn packet_socket(device: &str, frame: &[u8]) -> Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::PACKET, Type::RAW, None)?;
    let index = nix::net::if_::if_nametoindex(device)?;
    let protocol = u16::from_ne_bytes([frame[12], frame[13]]);
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [frame[0], frame[1], frame[2], frame[3], frame[4], frame[5], 0, 0],
    };
    // SAFETY: the address outlives the call, which reads no more than its length.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound == 0 { Ok(socket) } else { Err(Error::last_os_error()) }
}

/// Hardware address of a device of this namespace. `/sys` may show another one's.
fn address(device: &str) -> Result<[u8; 6]> {
    let found = nix::ifaddrs::getifaddrs()?.find_map(|entry| {
        let link = entry.address.as_ref()?.as_link_addr()?.addr()?;
        (entry.interface_name == device).then_some(link)
    });
    found.ok_or_else(|| Error::other(format!("{device} has no hardware address")))
}

/// Hardware address of the first neighbour that is known there.
fn neighbour(device: &str) -> Result<[u8; 6]> {
    let table = fs::read_to_string("/proc/net/arp")?;
    let found = table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bytes: Option<Vec<u8>> =
            words.get(3)?.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let mac: [u8; 6] = bytes?.try_into().ok()?;
        (words.get(5) == Some(&device) && mac != [0; 6]).then_some(mac)
    });
    found.ok_or_else(|| Error::other(format!("{device} has no neighbour")))
}
