//! Packets as bytes: made with every checksum right, and read back with every checksum proven.
//!
//! Shares no code with what it tests: sums are made from the bytes, never from differences.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// Addresses of the frames that tests make.
pub const FROM_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const TO_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// An IP packet, as a test wants it or as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wire {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// IPv4: may not be fragmented.
    pub df: bool,
    /// Identification, offset in bytes, whether more follow.
    pub fragment: Option<(u32, u16, bool)>,
    pub body: Body,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    Tcp {
        ports: (u16, u16),
        seq: u32,
        ack: u32,
        flags: u8,
        options: Vec<u8>,
        payload: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
        payload: Vec<u8>,
    },
    /// `rest` is the second word of the header.
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
        payload: Vec<u8>,
    },
    /// Anything else, and what follows the first fragment.
    Raw {
        protocol: u8,
        payload: Vec<u8>,
    },
}

/// A TCP segment without payload: sequence number 1000, acknowledgement 2000.
pub fn tcp(source: &str, destination: &str, flags: u8) -> Wire {
    let (source, destination) = ends(source, destination);
    let ack = if flags & ACK == 0 { 0 } else { 2000 };
    let ports = (source.port(), destination.port());
    let body = Body::Tcp { ports, seq: 1000, ack, flags, options: Vec::new(), payload: Vec::new() };
    Wire::new(source.ip(), destination.ip(), body)
}

/// A datagram with this many bytes of payload.
pub fn udp(source: &str, destination: &str, length: usize) -> Wire {
    let (source, destination) = ends(source, destination);
    let body = Body::Udp { ports: (source.port(), destination.port()), payload: vec![0xa5; length] };
    Wire::new(source.ip(), destination.ip(), body)
}

/// An ICMP error of this type, code and second word about the head of a packet.
pub fn error(source: &str, destination: &str, (kind, code, rest): (u8, u8, u32), about: &[u8]) -> Wire {
    let body = Body::Icmp { kind, code, rest, payload: about.to_vec() };
    Wire::new(source.parse().expect("an address"), destination.parse().expect("an address"), body)
}

fn ends(source: &str, destination: &str) -> (SocketAddr, SocketAddr) {
    (source.parse().expect("address:port"), destination.parse().expect("address:port"))
}

impl Wire {
    pub fn new(source: IpAddr, destination: IpAddr, body: Body) -> Self {
        Self { source, destination, ttl: 64, df: true, fragment: None, body }
    }

    /// With these TCP options; padded by the caller to words.
    #[must_use]
    pub fn with_options(mut self, with: &[u8]) -> Self {
        if let Body::Tcp { options, .. } = &mut self.body {
            *options = with.to_vec();
        }
        self
    }

    /// With this many bytes of TCP payload.
    #[must_use]
    pub fn with_payload(mut self, length: usize) -> Self {
        match &mut self.body {
            Body::Tcp { payload, .. } | Body::Udp { payload, .. } => *payload = vec![0x5a; length],
            Body::Icmp { .. } | Body::Raw { .. } => {}
        }
        self
    }

    /// With these TCP numbers.
    #[must_use]
    pub fn numbered(mut self, with_seq: u32, with_ack: u32) -> Self {
        if let Body::Tcp { seq, ack, .. } = &mut self.body {
            (*seq, *ack) = (with_seq, with_ack);
        }
        self
    }

    fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => TCP,
            Body::Udp { .. } => UDP,
            Body::Icmp { .. } if self.source.is_ipv4() => ICMP,
            Body::Icmp { .. } => ICMPV6,
            Body::Raw { protocol, .. } => protocol,
        }
    }

    /// The packet from its IP header on.
    pub fn bare(&self) -> Vec<u8> {
        let body = self.body_bytes();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.v4(source, destination, &body),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.v6(source, destination, &body),
            _ => panic!("one family"),
        }
    }

    /// The packet in an Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        let kind: u16 = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        let mut frame = [&TO_MAC[..], &FROM_MAC[..], &kind.to_be_bytes()].concat();
        frame.extend(self.bare());
        frame
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr, body: &[u8]) -> Vec<u8> {
        let (id, offset, more) = self.fragment.unwrap_or((0x1234, 0, false));
        let flags = (u16::from(self.df) << 14) | (u16::from(more) << 13) | (offset / 8);
        let mut header = vec![0x45, 0];
        header.extend(((20 + body.len()) as u16).to_be_bytes());
        header.extend((id as u16).to_be_bytes());
        header.extend(flags.to_be_bytes());
        header.extend([self.ttl, self.protocol(), 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        let check = checksum(&[&header]);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        header.extend(body);
        header
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> Vec<u8> {
        let mut extension = Vec::new();
        let mut next = self.protocol();
        if let Some((id, offset, more)) = self.fragment {
            extension.extend([next, 0]);
            extension.extend((offset | u16::from(more)).to_be_bytes());
            extension.extend(id.to_be_bytes());
            next = 44;
        }
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(((extension.len() + body.len()) as u16).to_be_bytes());
        header.extend([next, self.ttl]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(extension);
        header.extend(body);
        header
    }

    /// What follows the IP header. The checksum of a first fragment covers what is in it: nobody here reassembles.
    fn body_bytes(&self) -> Vec<u8> {
        let (mut bytes, check_at) = match &self.body {
            Body::Tcp { ports, seq, ack, flags, options, payload } => {
                let words = (20 + options.len()) / 4;
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend(seq.to_be_bytes());
                bytes.extend(ack.to_be_bytes());
                bytes.extend([(words << 4) as u8, *flags, 0x20, 0, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.extend(payload);
                (bytes, 16)
            }
            Body::Udp { ports, payload } => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(payload);
                (bytes, 6)
            }
            Body::Icmp { kind, code, rest, payload } => {
                let mut bytes = vec![*kind, *code, 0, 0];
                bytes.extend(rest.to_be_bytes());
                bytes.extend(payload);
                (bytes, 2)
            }
            Body::Raw { payload, .. } => return payload.clone(),
        };
        let check = checksum(&[&self.pseudo(bytes.len()), &bytes]);
        bytes[check_at..check_at + 2].copy_from_slice(&check.to_be_bytes());
        bytes
    }

    /// The pseudo header that the body's checksum covers.
    fn pseudo(&self, length: usize) -> Vec<u8> {
        let mut pseudo = match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) if self.protocol() == ICMP => return Vec::new(),
            (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
            (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
            _ => panic!("one family"),
        };
        pseudo.extend((length as u32).to_be_bytes());
        pseudo.extend(u32::from(self.protocol()).to_be_bytes());
        pseudo
    }
}

/// Reads a packet from its IP header on, and proves its checksums and its length.
pub fn read(bytes: &[u8]) -> Wire {
    let wire = read_unproven(bytes);
    let half = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let start = if wire.source.is_ipv4() {
        assert_eq!(checksum(&[&bytes[..20]]), 0, "the header's checksum is right: {wire:?}");
        assert_eq!(half(2), bytes.len(), "the header says how long the packet is: {wire:?}");
        20
    } else {
        assert_eq!(40 + half(4), bytes.len(), "the header says how long the packet is: {wire:?}");
        40
    };
    if wire.fragment.is_none_or(|(_, offset, more)| offset == 0 && !more) {
        let body = &bytes[start..];
        assert_eq!(checksum(&[&wire.pseudo(body.len()), body]), 0, "the checksum is right: {wire:?}");
    }
    wire
}

/// Reads a frame, its addresses aside, as [`read`].
pub fn read_frame(bytes: &[u8]) -> Wire {
    let kind: &[u8] = if bytes[14] >> 4 == 4 { &[8, 0] } else { &[0x86, 0xdd] };
    assert_eq!(&bytes[12..14], kind, "the EtherType is the packet's");
    read(&bytes[14..])
}

fn read_unproven(bytes: &[u8]) -> Wire {
    let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    if bytes[0] >> 4 == 4 {
        let flags = half(6);
        let (offset, more) = ((flags & 0x1fff) * 8, flags & 0x2000 != 0);
        let id = u32::from(half(4));
        let fragment = (offset > 0 || more || id != 0x1234).then_some((id, offset, more));
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).expect("four"));
        let body = read_body(bytes[9], offset > 0, &bytes[20..half(2).into()]);
        let df = flags & 0x4000 != 0;
        return Wire { source: address(12), destination: address(16), ttl: bytes[8], df, fragment, body };
    }
    let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen"));
    let (next, start, fragment) = if bytes[6] == 44 {
        let id = u32::from_be_bytes(bytes[44..48].try_into().expect("four"));
        (bytes[40], 48, Some((id, half(42) & 0xfff8, half(42) & 1 == 1)))
    } else {
        (bytes[6], 40, None)
    };
    let later = fragment.is_some_and(|(_, offset, _)| offset > 0);
    let body = read_body(next, later, &bytes[start..40 + usize::from(half(4))]);
    Wire { source: address(8), destination: address(24), ttl: bytes[7], df: true, fragment, body }
}

fn read_body(protocol: u8, later: bool, bytes: &[u8]) -> Body {
    let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
    match protocol {
        _ if later => Body::Raw { protocol, payload: bytes.to_vec() },
        TCP => {
            let header = usize::from(bytes[12] >> 4) * 4;
            Body::Tcp {
                ports: (half(0), half(2)),
                seq: word(4),
                ack: word(8),
                flags: bytes[13],
                options: bytes[20..header].to_vec(),
                payload: bytes[header..].to_vec(),
            }
        }
        UDP => Body::Udp { ports: (half(0), half(2)), payload: bytes[8..].to_vec() },
        ICMP | ICMPV6 => {
            Body::Icmp { kind: bytes[0], code: bytes[1], rest: word(4), payload: bytes[8..].to_vec() }
        }
        _ => Body::Raw { protocol, payload: bytes.to_vec() },
    }
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += (u64::from(pair[0]) << 8) | pair.get(1).copied().map_or(0, u64::from);
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
