//! Small clients and servers that say more about their sockets than ordinary programs do.

use std::{
    io::{Error, Result, Write as _},
    mem::{size_of, zeroed},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

/// Answers every datagram with its text and where it came from. Never returns but with an error.
pub fn udp_echo(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let text = format!("{} from {from}", String::from_utf8_lossy(&buffer[..length]));
        socket.send_to(text.as_bytes(), from_any(from))?;
    }
}

/// Prints the text of every datagram. Never returns but with an error.
pub fn udp_hear(port: u16) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let mut out = std::io::stdout();
    writeln!(out, "listening")?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        writeln!(out, "{} from {from}", String::from_utf8_lossy(&buffer[..length]))?;
    }
}

/// An IPv6 socket speaks to IPv4 by mapped addresses.
fn from_any(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

/// Sends one datagram without `connect` and returns the answer; asks again while there is none, as UDP clients do.
pub fn udp_ask(to: SocketAddr, text: &str) -> Result<String> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut last = Error::from(std::io::ErrorKind::TimedOut);
    for _ in 0..4 {
        socket.send_to(text.as_bytes(), to)?;
        let mut buffer = [0; 2048];
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) if from == to => {
                return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            Ok((_, from)) => last = Error::other(format!("answer from {from} instead of {to}")),
            Err(err) => last = err,
        }
    }
    Err(last)
}

/// Connects and returns how many segments had to be sent again for it.
pub fn tcp_connect(to: SocketAddr) -> Result<u32> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(20))?;
    // SAFETY: all bytes zero is a valid tcp_info, which holds nothing but numbers.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the socket is open, and `info` and `length` outlive the call that fills at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(Error::last_os_error());
    }
    Ok(info.tcpi_total_retrans)
}
