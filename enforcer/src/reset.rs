//! Resets with exact sequence numbers (RFC 5961), as packets: what ends a connection at a party whose socket is out of
//! reach.
//!
//! A reset that is off by one changes nothing, so the number is the last acknowledgement that the receiver itself has
//! sent. Where that was lost on its way, the one before it is too old to be answered even with a challenge, and a
//! receiver that has nothing to send would wait for ever. So each reset comes with a question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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

impl Reset {
    /// A segment with nothing in it from before the window: its receiver says which byte it expects (RFC 9293, 3.10.7.4),
    /// and the programs answer that with an exact reset. `None` where the number that it must acknowledge is not known.
    pub fn question(&self) -> Option<Vec<u8>> {
        let acknowledgement = self.acknowledgement?;
        let numbers = Numbers { sequence: self.sequence.wrapping_sub(1), acknowledgement, flags: FLAG_ACK };
        between(self.source, self.destination, &numbers)
    }

    /// The reset itself; `None` where the two addresses are of different families.
    pub fn packet(&self) -> Option<Vec<u8>> {
        let flags = FLAG_RST | if self.acknowledgement.is_some() { FLAG_ACK } else { 0 };
        let acknowledgement = self.acknowledgement.unwrap_or(0);
        between(self.source, self.destination, &Numbers { sequence: self.sequence, acknowledgement, flags })
    }
}

/// What the two kinds of segment differ in.
struct Numbers {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

/// IP protocol number.
pub const TCP: u8 = 6;
const TCP_LENGTH: usize = 20;
const FLAG_RST: u8 = 0x04;
const FLAG_ACK: u8 = 0x10;
const HOPS: u8 = 64;

/// A window for what answers a question to be sent in; a reset has none.
const WINDOW: u16 = 512;

/// The whole IP packet.
fn between(source: SocketAddr, destination: SocketAddr, numbers: &Numbers) -> Option<Vec<u8>> {
    let segment = segment(source.port(), destination.port(), numbers);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Some(ipv4(source, destination, segment)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Some(ipv6(source, destination, segment)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// TCP header with a zero checksum.
fn segment(source: u16, destination: u16, numbers: &Numbers) -> [u8; TCP_LENGTH] {
    let mut segment = [0; TCP_LENGTH];
    segment[..2].copy_from_slice(&source.to_be_bytes());
    segment[2..4].copy_from_slice(&destination.to_be_bytes());
    segment[4..8].copy_from_slice(&numbers.sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&numbers.acknowledgement.to_be_bytes());
    segment[12] = (TCP_LENGTH as u8 / 4) << 4;
    segment[13] = numbers.flags;
    let window = if numbers.flags & FLAG_RST == 0 { WINDOW } else { 0 };
    segment[14..16].copy_from_slice(&window.to_be_bytes());
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

#[cfg(test)]
mod tests {
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
        let packet = reset.packet().unwrap();
        let expected = [
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0xb6, 0xc4, 192, 0, 2, 1, 192, 0, 2, 10, // IPv4
            0xee, 0x48, 0x15, 0x38, 1, 2, 3, 4, 10, 11, 12, 13, 0x50, 0x14, 0, 0, 0x0e, 0x26, 0,
            0, // TCP
        ];
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_question_is_an_empty_segment_from_before_the_window() {
        let reset = Reset {
            source: address("192.0.2.1:61000"),
            destination: address("192.0.2.10:5432"),
            sequence: 0,
            acknowledgement: Some(7),
        };
        let packet = reset.question().unwrap();
        let expected = [0xee, 0x48, 0x15, 0x38, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 7, 0x50, 0x10, 0x02, 0x00];
        assert_eq!(packet[20..36], expected);
        assert_eq!(Reset { acknowledgement: None, ..reset }.question(), None);
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
            let packet = reset.packet().unwrap();
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
}
