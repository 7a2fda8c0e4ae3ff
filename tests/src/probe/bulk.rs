//! Large writes and large datagrams, in both directions, each byte of which is checked at its end.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use super::{connection_info, option};

/// What both ends make of a seed: no two stretches of it are alike.
struct Stream(u64);

impl Stream {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0 as u8;
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }
}

const THERE: u64 = 0x9e37_79b9_7f4a_7c15;
const BACK: u64 = 0xd1b5_4a32_d192_ed03;
const CHUNK: usize = 64 * 1024;
/// Far beyond what anything takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(50);

/// Takes as much as a client says, answers with its own largest segment and as much again, and sends datagrams back.
/// Never returns but with an error.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                if let Err(err) = exchange(stream) {
                    eprintln!("bulk: {err}");
                }
            });
        }
    });
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    writeln!(std::io::stdout(), "listening")?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                // One that is too large for what the path was heard to carry is told so, and asked for again.
                if let Err(err) = socket.send_to(&buffer[..length], from) {
                    eprintln!("bulk: {length} bytes to {from}: {err}");
                }
            }
            Err(err) => eprintln!("bulk: {err}"),
        }
    }
}

fn exchange(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length) as usize;
    expect(&mut stream, THERE, length)?;
    let segment = connection_info(&stream)?.tcpi_snd_mss;
    stream.write_all(&segment.to_be_bytes())?;
    send(&mut stream, BACK, length)
}

/// Reads what the stream of a seed begins with.
fn expect(from: &mut TcpStream, seed: u64, length: usize) -> Result<()> {
    let (mut stream, mut left) = (Stream(seed), length);
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let count = from.read(&mut buffer[..left.min(CHUNK)])?;
        if count == 0 {
            return Err(Error::new(
                ErrorKind::UnexpectedEof,
                format!("{left} of {length} bytes are missing"),
            ));
        }
        if buffer[..count] != stream.take(count) {
            return Err(Error::other(format!("bytes differ after {}", length - left)));
        }
        left -= count;
    }
    Ok(())
}

fn send(to: &mut TcpStream, seed: u64, length: usize) -> Result<()> {
    let mut stream = Stream(seed);
    let mut left = length;
    while left > 0 {
        let count = left.min(CHUNK);
        to.write_all(&stream.take(count))?;
        left -= count;
    }
    Ok(())
}

/// Sends and receives so many bytes over one connection. Returns the largest segments, there and back.
pub fn tcp(to: SocketAddr, length: usize) -> Result<[u32; 2]> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&(length as u64).to_be_bytes())?;
    send(&mut stream, THERE, length)?;
    let mut back = [0; 4];
    stream.read_exact(&mut back)?;
    expect(&mut stream, BACK, length)?;
    let there = connection_info(&stream)?.tcpi_snd_mss;
    stream.shutdown(Shutdown::Both)?;
    Ok([there, u32::from_be_bytes(back)])
}

/// How datagrams are sent.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    pub length: usize,
    /// Datagrams that one write becomes (`UDP_SEGMENT` of `length`).
    pub count: usize,
    /// `IP_PMTUDISC_…`, the same numbers in both families.
    pub discovery: i32,
}

/// Sends datagrams, and again after a second, until each has come back. Returns how often it took, and the MTU of the
/// path as the kernel knows it then.
pub fn udp(to: SocketAddr, datagrams: Datagrams) -> Result<(u32, i32)> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    discover(&socket, to, datagrams.discovery)?;
    if datagrams.count > 1 {
        let length = i32::try_from(datagrams.length).map_err(Error::other)?;
        option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, length)?;
    }
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(to)?;
    let bytes = Stream(THERE).take(datagrams.length * datagrams.count);
    let mut missing: Vec<&[u8]> = bytes.chunks(datagrams.length).collect();
    let mut last = Error::from(ErrorKind::TimedOut);
    let mut buffer = vec![0; CHUNK];
    for attempt in 1..=20 {
        // An error may be one that an earlier datagram has met.
        if let Err(err) = socket.send(&bytes) {
            last = err;
            thread::sleep(Duration::from_millis(100));
        }
        while !missing.is_empty() {
            match socket.recv(&mut buffer) {
                Ok(length) => missing.retain(|part| *part != &buffer[..length]),
                Err(err) => {
                    last = err;
                    break;
                }
            }
        }
        if missing.is_empty() {
            return Ok((attempt, path_mtu(&socket, to)?));
        }
    }
    let mtu = path_mtu(&socket, to)?;
    Err(Error::other(format!("{} of {} are missing, MTU {mtu}: {last}", missing.len(), datagrams.count)))
}

/// Sends one datagram that must not be fragmented until the kernel refuses it. Returns the MTU that it has learnt.
pub fn learn_mtu(to: SocketAddr, length: usize) -> Result<i32> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    discover(&socket, to, libc::IP_PMTUDISC_DO)?;
    socket.connect(to)?;
    let bytes = Stream(THERE).take(length);
    for _ in 0..100 {
        match socket.send(&bytes) {
            Err(err) if err.raw_os_error() == Some(libc::EMSGSIZE) => return path_mtu(&socket, to),
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

fn discover(socket: &UdpSocket, to: SocketAddr, how: i32) -> Result<()> {
    let (level, name) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    option(socket, level, name, how)
}

fn path_mtu(socket: &UdpSocket, to: SocketAddr) -> Result<i32> {
    let (level, name) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut value: i32 = 0;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: value and length outlive the call, which fills at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    if result == 0 { Ok(value) } else { Err(Error::last_os_error()) }
}
