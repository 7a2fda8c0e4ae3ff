//! Resets with exact sequence numbers (RFC 5961), for both ends of a flow whose grant is gone.
//!
//! The packets are built here and leave through raw sockets. A reset that is off by one is answered with a challenge
//! and changes nothing, so the number is the last acknowledgement that the receiver itself has sent.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use enforcer_common::{
    flow::{ACK_CLIENT, ACK_SERVER, FlowKey},
    gateway::GwFlow,
};
use socket2::{Domain, Protocol, Socket, Type};

/// One reset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reset {
    /// Who seems to have sent it.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// The next byte that the receiver expects.
    pub sequence: u32,
    /// Last byte that the receiver has sent, where it is known: some stacks look at it.
    pub acknowledgement: Option<u32>,
}

const TCP: u8 = 6;
const TCP_LENGTH: usize = 20;
const FLAG_RST: u8 = 0x04;
const FLAG_ACK: u8 = 0x10;
const HOPS: u8 = 64;

/// The resets that end a flow: to the backend and to the client, as far as their numbers are known.
pub fn of_flow(key: &FlowKey, flow: &GwFlow) -> Vec<Reset> {
    if key.protocol != TCP {
        return Vec::new();
    }
    let client_ack = (flow.seen_acks & ACK_CLIENT != 0).then_some(flow.client_ack);
    let backend_ack = (flow.seen_acks & ACK_SERVER != 0).then_some(flow.backend_ack);
    let at = |address: enforcer_common::Addr, port: enforcer_common::Port| {
        SocketAddr::new(address.ip(), port.get())
    };
    let to_backend = backend_ack.map(|sequence| Reset {
        source: at(flow.source, flow.source_port),
        destination: at(flow.backend, flow.backend_port),
        sequence,
        acknowledgement: client_ack,
    });
    let to_client = client_ack.map(|sequence| Reset {
        source: at(key.service, key.service_port),
        destination: at(key.client, key.client_port),
        sequence,
        acknowledgement: backend_ack,
    });
    to_backend.into_iter().chain(to_client).collect()
}

/// The whole IP packet; `None` where the two addresses are of different families.
pub fn packet(reset: &Reset) -> Option<Vec<u8>> {
    let segment = segment(reset);
    match (reset.source.ip(), reset.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Some(ipv4(source, destination, segment)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Some(ipv6(source, destination, segment)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// TCP header with a zero checksum.
fn segment(reset: &Reset) -> [u8; TCP_LENGTH] {
    let mut segment = [0; TCP_LENGTH];
    segment[..2].copy_from_slice(&reset.source.port().to_be_bytes());
    segment[2..4].copy_from_slice(&reset.destination.port().to_be_bytes());
    segment[4..8].copy_from_slice(&reset.sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&reset.acknowledgement.unwrap_or(0).to_be_bytes());
    segment[12] = (TCP_LENGTH as u8 / 4) << 4;
    segment[13] = FLAG_RST | if reset.acknowledgement.is_some() { FLAG_ACK } else { 0 };
    segment
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, mut segment: [u8; TCP_LENGTH]) -> Vec<u8> {
    let mut pseudo = Vec::with_capacity(12);
    pseudo.extend_from_slice(&source.octets());
    pseudo.extend_from_slice(&destination.octets());
    pseudo.extend_from_slice(&[0, TCP, 0, TCP_LENGTH as u8]);
    let sum = checksum(&[&pseudo, &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());

    let mut packet = vec![0x45, 0, 0, 20 + TCP_LENGTH as u8, 0, 0, 0x40, 0, HOPS, TCP, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&segment);
    packet
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, mut segment: [u8; TCP_LENGTH]) -> Vec<u8> {
    let mut pseudo = Vec::with_capacity(40);
    pseudo.extend_from_slice(&source.octets());
    pseudo.extend_from_slice(&destination.octets());
    pseudo.extend_from_slice(&[0, 0, 0, TCP_LENGTH as u8, 0, 0, 0, TCP]);
    let sum = checksum(&[&pseudo, &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());

    let mut packet = vec![0x60, 0, 0, 0, 0, TCP_LENGTH as u8, TCP, HOPS];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&segment);
    packet
}

/// The Internet checksum (RFC 1071) over parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Raw sockets of the own network namespace. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct Injector {
    v4: Socket,
    v6: Socket,
}

impl Injector {
    pub fn open() -> io::Result<Self> {
        // IPPROTO_RAW: the packet brings its own header, and nothing is ever received here.
        let open = |domain| {
            Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(libc::IPPROTO_RAW)))
        };
        let v4 = open(Domain::IPV4)?;
        v4.set_header_included_v4(true)?;
        let v6 = open(Domain::IPV6)?;
        v6.set_header_included_v6(true)?;
        Ok(Self { v4, v6 })
    }

    /// Sends one reset where the routes lead: to the backend's network, or into the tunnel.
    pub fn send(&self, reset: &Reset) -> io::Result<()> {
        let Some(packet) = packet(reset) else { return Ok(()) };
        let socket = if reset.destination.is_ipv4() { &self.v4 } else { &self.v6 };
        // A raw socket takes a port for a protocol number.
        socket.send_to(&packet, &SocketAddr::new(reset.destination.ip(), 0).into()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{Addr, Port};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv4_reset_has_these_bytes() {
        let reset = Reset {
            source: address("192.0.2.1:61000"),
            destination: address("192.0.2.10:5432"),
            sequence: 0x0102_0304,
            acknowledgement: Some(0x0a0b_0c0d),
        };
        let packet = packet(&reset).unwrap();
        let expected = [
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0xb6, 0xc4, 192, 0, 2, 1, 192, 0, 2, 10, // IPv4
            0xee, 0x48, 0x15, 0x38, 1, 2, 3, 4, 10, 11, 12, 13, 0x50, 0x14, 0, 0, 0x0e, 0x26, 0,
            0, // TCP
        ];
        assert_eq!(packet, expected);
    }

    #[test]
    fn the_checksums_add_up_in_both_families() {
        for (source, destination) in
            [("192.0.2.1:1", "198.19.0.5:65535"), ("[fd00::1]:443", "[fd00:0:1000::7]:50000")]
        {
            let reset = Reset {
                source: address(source),
                destination: address(destination),
                sequence: u32::MAX,
                acknowledgement: None,
            };
            let packet = packet(&reset).unwrap();
            let (addresses, segment, header) = if packet[0] >> 4 == 4 {
                (&packet[12..20], &packet[20..], &packet[..20])
            } else {
                (&packet[8..40], &packet[40..], &[][..])
            };
            assert_eq!(checksum(&[addresses, &[0, TCP, 0, 20], segment]), 0, "{source}: TCP");
            assert!(header.is_empty() || checksum(&[header]) == 0, "{source}: IPv4 header");
            assert_eq!(segment[13], FLAG_RST, "without a number to acknowledge there is no ACK flag");
        }
    }

    fn flow(seen_acks: u8) -> GwFlow {
        GwFlow {
            backend: Addr::v4([192, 0, 2, 10].into()),
            source: Addr::v4([192, 0, 2, 1].into()),
            next_hop: Addr::NONE,
            seen_ns: 0,
            ifindex: 0,
            mtu: 0,
            node: 0,
            connection: 0,
            client_ack: 100,
            backend_ack: 200,
            backend_port: Port::new(6379),
            source_port: Port::new(61_000),
            state: 2,
            seen_acks,
            pad: [0; 2],
        }
    }

    #[test]
    fn each_end_is_reset_at_the_number_that_it_expects() {
        let (client, service) = (Addr::v4([198, 19, 0, 2].into()), Addr::v4([198, 18, 0, 7].into()));
        let key = FlowKey::new(client, Port::new(40_000), service, Port::new(6380), 6);
        let to_backend = Reset {
            source: address("192.0.2.1:61000"),
            destination: address("192.0.2.10:6379"),
            sequence: 200,
            acknowledgement: Some(100),
        };
        let to_client = Reset {
            source: address("198.18.0.7:6380"),
            destination: address("198.19.0.2:40000"),
            sequence: 100,
            acknowledgement: Some(200),
        };
        assert_eq!(of_flow(&key, &flow(ACK_CLIENT | ACK_SERVER)), [to_backend, to_client]);
        assert_eq!(of_flow(&key, &flow(ACK_SERVER)), [Reset { acknowledgement: None, ..to_backend }]);
        assert_eq!(of_flow(&FlowKey { protocol: 17, ..key }, &flow(3)), []);
    }
}
