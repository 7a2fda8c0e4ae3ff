//! A pod's first instant: a process that is there before its pod is known, and does everything at once when told to.

use std::{
    io::{Read as _, Result},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::probe;

/// An IP protocol that nobody has.
const UNKNOWN: i32 = 253;

/// Waits for a byte on standard input; then a datagram, an echo request and a packet of an unknown protocol go to the
/// service, a datagram with `text` to an address that nobody guards, and a plain `connect` to the service. Returns how
/// many segments the connection had to send again.
pub fn instant(service: SocketAddr, control: SocketAddr, text: &str) -> Result<u32> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let udp = UdpSocket::bind(any)?;
    let ping = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(UNKNOWN)))?;
    let host = SockAddr::from(SocketAddr::new(service.ip(), 0));
    std::io::stdin().read_exact(&mut [0])?;
    // Refusals are as good as silence: the capture judges.
    let _ = udp.send_to(text.as_bytes(), service);
    let _ = ping.send_to(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0], &host);
    let _ = raw.send_to(text.as_bytes(), &host);
    udp.send_to(text.as_bytes(), control)?;
    probe::tcp_connect(service)
}
