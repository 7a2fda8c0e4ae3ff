//! Small clients and servers that say more about their sockets than ordinary programs do.

pub mod bulk;
pub mod calls;

use std::{
    io::{Error, Read as _, Result, Write as _},
    mem::{size_of, zeroed},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use socket2::{SockAddr, Socket};

/// Addresses of documentation ranges that the lab does not use.
pub const NOBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 9)),
];

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

/// Prints what comes over each connection once that is complete, and the text of every datagram.
pub fn hear(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || hear_stream(stream));
        }
    });
    udp_hear(port)
}

fn hear_stream(mut stream: TcpStream) -> Result<()> {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    writeln!(std::io::stdout(), "{text} from {}: {end:?}", stream.peer_addr()?)
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
    Ok(connection_info(&stream)?.tcpi_total_retrans)
}

/// What the kernel knows of a connection.
fn connection_info(stream: &TcpStream) -> Result<libc::tcp_info> {
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
    Ok(info)
}

/// Sets an option that is an integer.
pub fn option(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> Result<()> {
    // SAFETY: the value outlives the call, which reads no more than its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// Sends datagrams by one `sendmmsg`, and returns how many.
pub fn send_many(socket: &Socket, to: SocketAddr, datagrams: &[&[u8]]) -> Result<usize> {
    let to = SockAddr::from(to);
    let mut parts: Vec<libc::iovec> = datagrams
        .iter()
        .map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: all bytes zero is a valid message header: no address, no buffers.
            let mut message: libc::mmsghdr = unsafe { zeroed() };
            message.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = to.len();
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: headers, parts, bytes and the address outlive the call; the kernel writes only the lengths.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}
