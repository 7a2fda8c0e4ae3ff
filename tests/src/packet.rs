//! Builds packets byte by byte, with right checksums: what goes into a program, and what is expected to come out.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const DCCP: u8 = 33;
pub const SCTP: u8 = 132;

const FAR: [u8; 6] = [0x0a, 0, 0, 0, 0, 1];
const NEAR: [u8; 6] = [0x0a, 0, 0, 0, 0, 2];

/// One packet.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Destination and source MAC address.
    pub mac: [[u8; 6]; 2],
    /// Protocol identifiers of VLAN tags, outermost first.
    pub tags: Vec<u16>,
    /// IPv4 options; a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: their kind, and what follows the next-header byte.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub fragment: Option<Fragment>,
    pub dont_fragment: bool,
    pub id: u16,
    pub ttl: u8,
    pub transport: Transport,
}

/// Part of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    pub id: u32,
    /// Bytes; a multiple of eight.
    pub offset: usize,
    pub length: usize,
    pub more: bool,
}

#[derive(Clone, Debug)]
pub enum Transport {
    Tcp { source: u16, destination: u16, flags: u8, seq: u32, ack: u32, options: Vec<u8>, payload: Vec<u8> },
    Udp { source: u16, destination: u16, checksum: bool, payload: Vec<u8> },
    Icmp { kind: u8, code: u8, rest: u32, payload: Vec<u8> },
    Raw { protocol: u8, payload: Vec<u8> },
}

impl Packet {
    pub fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        Self {
            source,
            destination,
            mac: [FAR, NEAR],
            tags: Vec::new(),
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            dont_fragment: true,
            id: 0x1234,
            ttl: 64,
            transport,
        }
    }

    /// A TCP segment with sequence number 1000, acknowledging 2000 if `flags` say so.
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        let transport = Transport::Tcp {
            source: source.port(),
            destination: destination.port(),
            flags,
            seq: 1000,
            ack: if flags & ACK == 0 { 0 } else { 2000 },
            options: Vec::new(),
            payload: Vec::new(),
        };
        Self::new(source.ip(), destination.ip(), transport)
    }

    pub fn udp(source: SocketAddr, destination: SocketAddr, payload: usize) -> Self {
        let transport = Transport::Udp {
            source: source.port(),
            destination: destination.port(),
            checksum: true,
            payload: bytes(payload),
        };
        Self::new(source.ip(), destination.ip(), transport)
    }

    /// An ICMP message; its protocol follows from the family.
    pub fn icmp(
        source: IpAddr,
        destination: IpAddr,
        kind: u8,
        code: u8,
        rest: u32,
        payload: Vec<u8>,
    ) -> Self {
        Self::new(source, destination, Transport::Icmp { kind, code, rest, payload })
    }

    /// Puts options into the TCP header; a multiple of four bytes.
    #[must_use]
    pub fn tcp_options(mut self, new: &[u8]) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = new.to_vec();
        }
        self
    }

    /// Gives the packet `length` bytes of payload.
    #[must_use]
    pub fn payload(mut self, length: usize) -> Self {
        match &mut self.transport {
            Transport::Tcp { payload, .. }
            | Transport::Udp { payload, .. }
            | Transport::Icmp { payload, .. }
            | Transport::Raw { payload, .. } => *payload = bytes(length),
        }
        self
    }

    /// With Ethernet header and VLAN tags.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.mac.concat();
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 42]);
        }
        let kind: u16 = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        frame.extend(kind.to_be_bytes());
        frame.extend(self.bare());
        frame
    }

    /// Without.
    pub fn bare(&self) -> Vec<u8> {
        let transport = self.transport();
        let part = match self.fragment {
            Some(part) => transport[part.offset..part.offset + part.length].to_vec(),
            None => transport,
        };
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.ipv4(source.octets(), destination.octets(), part.len())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.ipv6(source.octets(), destination.octets(), part.len())
            }
            _ => panic!("one packet has one family: {self:?}"),
        };
        packet.extend(part);
        packet
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => TCP,
            Transport::Udp { .. } => UDP,
            Transport::Icmp { .. } if self.source.is_ipv4() => ICMP,
            Transport::Icmp { .. } => ICMPV6,
            Transport::Raw { protocol, .. } => protocol,
        }
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], payload: usize) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, 0];
        packet.extend(((header + payload) as u16).to_be_bytes());
        let (id, flags) = match self.fragment {
            Some(part) => (part.id as u16, (part.offset / 8) as u16 | u16::from(part.more) << 13),
            None => (self.id, u16::from(self.dont_fragment) << 14),
        };
        packet.extend(id.to_be_bytes());
        packet.extend(flags.to_be_bytes());
        packet.extend([self.ttl, self.protocol(), 0, 0]);
        packet.extend(source);
        packet.extend(destination);
        packet.extend(&self.options);
        let checksum = !sum(&packet, 0);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16], payload: usize) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if let Some(part) = self.fragment {
            let mut body = vec![0];
            body.extend(((part.offset as u16) | u16::from(part.more)).to_be_bytes());
            body.extend(part.id.to_be_bytes());
            chain.push((44, body));
        }
        let length = payload + chain.iter().map(|(_, body)| body.len() + 1).sum::<usize>();
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((length as u16).to_be_bytes());
        packet.extend([chain.first().map_or(self.protocol(), |(kind, _)| *kind), self.ttl]);
        packet.extend(source);
        packet.extend(destination);
        for (index, (_, body)) in chain.iter().enumerate() {
            packet.push(chain.get(index + 1).map_or(self.protocol(), |(kind, _)| *kind));
            packet.extend(body);
        }
        packet
    }

    /// The whole transport header and payload, checksum included.
    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.transport {
            Transport::Tcp { source, destination, flags, seq, ack, options, payload } => {
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend(seq.to_be_bytes());
                bytes.extend(ack.to_be_bytes());
                bytes.extend([((20 + options.len()) / 4 * 16) as u8, *flags]);
                let window: u16 = if flags & RST == 0 { 512 } else { 0 };
                bytes.extend(window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(options);
                bytes.extend(payload);
                self.finish(&mut bytes, 16);
            }
            Transport::Udp { source, destination, checksum, payload } => {
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
                bytes.extend([0; 2]);
                bytes.extend(payload);
                if *checksum {
                    self.finish(&mut bytes, 6);
                }
            }
            Transport::Icmp { kind, code, rest, payload } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(rest.to_be_bytes());
                bytes.extend(payload);
                self.finish(&mut bytes, 2);
            }
            Transport::Raw { payload, .. } => bytes.extend(payload),
        }
        bytes
    }

    /// Writes the checksum of the transport header at an offset.
    fn finish(&self, bytes: &mut [u8], at: usize) {
        let mut pseudo = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                pseudo.extend(source.octets());
                pseudo.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                pseudo.extend(source.octets());
                pseudo.extend(destination.octets());
            }
            _ => panic!("one packet has one family: {self:?}"),
        }
        pseudo.extend([0, self.protocol()]);
        pseudo.extend((bytes.len() as u16).to_be_bytes());
        let seed = if self.protocol() == ICMP { 0 } else { sum(&pseudo, 0) };
        let checksum = match !sum(bytes, seed) {
            0 if self.protocol() == UDP => 0xffff,
            checksum => checksum,
        };
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Recognisable payload.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| index as u8).collect()
}

/// Internet checksum without the inversion.
pub fn sum(bytes: &[u8], seed: u16) -> u16 {
    let mut total = u32::from(seed);
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

/// IPv6 extension headers of every kind that the programs follow, each as [`Packet::extensions`] has them.
pub fn extensions() -> Vec<(u8, Vec<u8>)> {
    let options = vec![0, 1, 4, 0, 0, 0, 0];
    let long = [vec![1, 1, 12], vec![0; 12]].concat();
    let authentication = [vec![4], vec![0; 22]].concat();
    // A route that is used up.
    let route = vec![0, 0, 0, 0, 0, 0, 0];
    vec![(0, options.clone()), (60, options), (60, long), (51, authentication), (43, route)]
}
