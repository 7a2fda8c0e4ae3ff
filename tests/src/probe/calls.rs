//! Every system call by which a program can reach for an address: what `enforcer-lab calls` runs in a pod.
//!
//! Each call is told as its steps and what each step returned, in words that a table can hold: `connect EPERM`.

mod ring;

use std::{
    fmt::Write as _,
    io::{Error, IoSlice, Result},
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use socket2::{Domain, MsgHdr, Protocol, SockAddr, Socket, Type};

use super::option;
use crate::packet::{ICMP, ICMPV6, sum};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Call {
    Tcp,
    TcpNonBlocking,
    /// `sendto` with `MSG_FASTOPEN`.
    FastOpen,
    /// `TCP_FASTOPEN_CONNECT`: the SYN waits for the first data.
    FastOpenConnect,
    Mptcp,
    /// From an IPv6 socket to the mapped address.
    TcpMapped,
    TcpRing,
    UdpConnected,
    UdpConnectedMapped,
    SendTo,
    SendMsg,
    SendMmsg,
    /// `sendmsg` with the source in `IP_PKTINFO` or `IPV6_PKTINFO`.
    PacketInfo,
    SendToMapped,
    SendMsgRing,
    UdpLite,
    UdpLiteConnected,
    Sctp,
    Dccp,
    Ping,
    PingConnected,
    Raw,
    RawConnected,
}

impl Call {
    pub const ALL: &[Self] = &[
        Self::Tcp,
        Self::TcpNonBlocking,
        Self::FastOpen,
        Self::FastOpenConnect,
        Self::Mptcp,
        Self::TcpMapped,
        Self::TcpRing,
        Self::UdpConnected,
        Self::UdpConnectedMapped,
        Self::SendTo,
        Self::SendMsg,
        Self::SendMmsg,
        Self::PacketInfo,
        Self::SendToMapped,
        Self::SendMsgRing,
        Self::UdpLite,
        Self::UdpLiteConnected,
        Self::Sctp,
        Self::Dccp,
        Self::Ping,
        Self::PingConnected,
        Self::Raw,
        Self::RawConnected,
    ];

    /// Only IPv4 addresses can be mapped.
    pub fn is_for(self, to: SocketAddr) -> bool {
        let mapped = matches!(self, Self::TcpMapped | Self::UdpConnectedMapped | Self::SendToMapped);
        to.is_ipv4() || !mapped
    }

    /// What the packet carries to be known by.
    pub fn text(self, tag: &str, to: SocketAddr) -> String {
        format!("{tag} {self:?} {} over", if to.is_ipv4() { "IPv4" } else { "IPv6" })
    }
}

/// Tries all of them, together; a line each: `Call family: step result, step result`.
pub fn all(tag: &str, patience: Duration, targets: &[SocketAddr]) -> String {
    let rows = targets.iter().flat_map(|to| Call::ALL.iter().map(|call| (*call, *to)));
    let rows: Vec<_> = rows.filter(|(call, to)| call.is_for(*to)).collect();
    let mut said = String::new();
    thread::scope(|scope| {
        let tries: Vec<_> = rows
            .iter()
            .map(|(call, to)| {
                let attempt = Attempt { to: *to, text: call.text(tag, *to), patience };
                scope.spawn(move || attempt.run(*call))
            })
            .collect();
        for ((call, to), attempt) in rows.iter().zip(tries) {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            let steps = attempt.join().expect("an attempt does not panic");
            let _ = writeln!(said, "{call:?} {family}: {steps}");
        }
    });
    said
}

struct Attempt {
    to: SocketAddr,
    text: String,
    /// How long an answer is waited for.
    patience: Duration,
}

const UDP_LITE: i32 = 136;
const SCTP: i32 = 132;
const DCCP: i32 = 33;
const MPTCP: i32 = 262;

impl Attempt {
    fn run(&self, call: Call) -> String {
        let steps = match call {
            Call::Tcp => self.stream(Type::STREAM, Protocol::TCP, self.to),
            Call::Mptcp => self.stream(Type::STREAM, MPTCP.into(), self.to),
            Call::Sctp => self.stream(Type::STREAM, SCTP.into(), self.to),
            Call::Dccp => self.stream(Type::DCCP, DCCP.into(), self.to),
            Call::TcpMapped => self.stream(Type::STREAM, Protocol::TCP, mapped(self.to)),
            Call::TcpNonBlocking => self.non_blocking(),
            Call::FastOpen => self.fast_open(),
            Call::FastOpenConnect => self.fast_open_connect(),
            Call::TcpRing => self.ring_connect(),
            Call::UdpConnected => self.connected(Type::DGRAM, Protocol::UDP, self.to),
            Call::UdpConnectedMapped => self.connected(Type::DGRAM, Protocol::UDP, mapped(self.to)),
            Call::UdpLiteConnected => self.connected(Type::DGRAM, UDP_LITE.into(), self.to),
            Call::PingConnected => self.connected(Type::DGRAM, self.icmp().into(), self.without_port()),
            Call::RawConnected => self.connected(Type::RAW, Protocol::from(253), self.without_port()),
            Call::SendTo => self.send_to(Type::DGRAM, Protocol::UDP, self.to),
            Call::SendToMapped => self.send_to(Type::DGRAM, Protocol::UDP, mapped(self.to)),
            Call::UdpLite => self.send_to(Type::DGRAM, UDP_LITE.into(), self.to),
            Call::Ping => self.send_to(Type::DGRAM, self.icmp().into(), self.without_port()),
            Call::Raw => self.send_to(Type::RAW, Protocol::from(253), self.without_port()),
            Call::SendMsg => self.send_message(&[]),
            Call::PacketInfo => self.own_source().and_then(|source| self.send_message(&packet_info(source))),
            Call::SendMmsg => self.send_two(),
            Call::SendMsgRing => self.ring_send(),
        };
        steps.unwrap_or_else(|error| format!("socket {}", word(&error)))
    }

    fn socket(&self, kind: Type, protocol: Protocol, to: SocketAddr) -> Result<Socket> {
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        socket.set_write_timeout(Some(self.patience))?;
        Ok(socket)
    }

    fn icmp(&self) -> i32 {
        if self.to.is_ipv4() { ICMP.into() } else { ICMPV6.into() }
    }

    /// IPv6's raw sockets take the port for a protocol.
    fn without_port(&self) -> SocketAddr {
        SocketAddr::new(self.to.ip(), 0)
    }

    /// An echo request where the socket is for those, else the text.
    fn message(&self, protocol: Protocol) -> Vec<u8> {
        if protocol != Protocol::from(self.icmp()) {
            return self.text.clone().into_bytes();
        }
        let mut message = vec![if self.to.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0, 7, 0, 1];
        message.extend(self.text.bytes());
        let checksum = !sum(&message, 0);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        message
    }

    fn stream(&self, kind: Type, protocol: Protocol, to: SocketAddr) -> Result<String> {
        let socket = self.socket(kind, protocol, to)?;
        let connected = socket.connect(&to.into());
        Ok(self.then_send(&socket, "connect", &connected))
    }

    fn then_send(&self, socket: &Socket, step: &str, connected: &Result<()>) -> String {
        let first = format!("{step} {}", waited(connected.as_ref()));
        if connected.is_err() {
            return first;
        }
        format!("{first}, send {}", waited(socket.send(self.text.as_bytes()).as_ref()))
    }

    fn non_blocking(&self) -> Result<String> {
        let socket = self.socket(Type::STREAM, Protocol::TCP, self.to)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => return Ok(format!("connect {}", result(other.as_ref()))),
        }
        let end = self.come_true(&socket);
        Ok(self.then_send(&socket, "connect EINPROGRESS, then", &end))
    }

    /// Waits for the end of a connect.
    fn come_true(&self, socket: &Socket) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < self.patience {
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            if socket.peer_addr().is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(Errno::EINPROGRESS.into())
    }

    fn fast_open(&self) -> Result<String> {
        let socket = self.socket(Type::STREAM, Protocol::TCP, self.to)?;
        let sent =
            socket.send_to_with_flags(self.text.as_bytes(), &self.to.into(), libc::MSG_FASTOPEN).map(drop);
        // Data of a SYN that nobody has acknowledged goes with the socket.
        let end = sent.and_then(|()| self.come_true(&socket));
        Ok(format!("sendto {}", waited(end.as_ref())))
    }

    fn fast_open_connect(&self) -> Result<String> {
        let socket = self.socket(Type::STREAM, Protocol::TCP, self.to)?;
        option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
        let connected = socket.connect(&self.to.into());
        let steps = self.then_send(&socket, "connect", &connected);
        if connected.is_err() {
            return Ok(steps);
        }
        Ok(format!("{steps}, then {}", waited(self.come_true(&socket).as_ref())))
    }

    fn connected(&self, kind: Type, protocol: Protocol, to: SocketAddr) -> Result<String> {
        let socket = self.socket(kind, protocol, to)?;
        let connected = format!("connect {}", result(socket.connect(&to.into()).as_ref()));
        if !connected.ends_with("ok") {
            return Ok(connected);
        }
        Ok(format!("{connected}, send {}", result(socket.send(&self.message(protocol)).as_ref())))
    }

    fn send_to(&self, kind: Type, protocol: Protocol, to: SocketAddr) -> Result<String> {
        let socket = self.socket(kind, protocol, to)?;
        let sent = socket.send_to(&self.message(protocol), &to.into());
        Ok(format!("sendto {}", result(sent.as_ref())))
    }

    fn send_message(&self, control: &[u8]) -> Result<String> {
        let socket = self.socket(Type::DGRAM, Protocol::UDP, self.to)?;
        let (to, text) = (SockAddr::from(self.to), [IoSlice::new(self.text.as_bytes())]);
        let message = MsgHdr::new().with_addr(&to).with_buffers(&text);
        let message = if control.is_empty() { message } else { message.with_control(control) };
        Ok(format!("sendmsg {}", result(socket.sendmsg(&message, 0).as_ref())))
    }

    /// The address that the kernel would choose, or one of those that it would choose elsewhere.
    fn own_source(&self) -> Result<IpAddr> {
        let elsewhere = SocketAddr::new(super::NOBODY[usize::from(self.to.is_ipv6())], 9);
        own_source(self.to).or_else(|_| own_source(elsewhere))
    }

    fn send_two(&self) -> Result<String> {
        let socket = self.socket(Type::DGRAM, Protocol::UDP, self.to)?;
        let sent = super::send_many(&socket, self.to, &[self.text.as_bytes(); 2]);
        Ok(format!("sendmmsg {}", sent.map_or_else(|error| word(&error), |count| count.to_string())))
    }

    fn ring_connect(&self) -> Result<String> {
        let socket = self.socket(Type::STREAM, Protocol::TCP, self.to)?;
        match ring::connect(&socket, self.to, self.patience) {
            Ok(connected) => Ok(self.then_send(&socket, "connect", &connected)),
            Err(error) => Ok(format!("ring {}", word(&error))),
        }
    }

    fn ring_send(&self) -> Result<String> {
        let socket = self.socket(Type::DGRAM, Protocol::UDP, self.to)?;
        match ring::send(&socket, self.to, self.text.as_bytes(), self.patience) {
            Ok(sent) => Ok(format!("sendmsg {}", result(sent.as_ref()))),
            Err(error) => Ok(format!("ring {}", word(&error))),
        }
    }
}

fn mapped(to: SocketAddr) -> SocketAddr {
    super::from_any(to)
}

fn own_source(to: SocketAddr) -> Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// The control message that sets a source: length, level, type, and the structure of the family.
fn packet_info(source: IpAddr) -> Vec<u8> {
    let (level, kind, body) = match source {
        IpAddr::V4(ip) => (libc::IPPROTO_IP, libc::IP_PKTINFO, [&[0; 4][..], &ip.octets(), &[0; 4]].concat()),
        IpAddr::V6(ip) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, [&ip.octets()[..], &[0; 4]].concat()),
    };
    let mut message = (16 + body.len()).to_ne_bytes().to_vec();
    message.extend(level.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(body);
    message.resize(message.len().next_multiple_of(8), 0);
    message
}

fn result<T>(result: std::result::Result<T, &Error>) -> String {
    result.map_or_else(word, |_| "ok".into())
}

/// A blocking call that runs out of time tells it as a connect that is still going on.
fn waited<T>(outcome: std::result::Result<T, &Error>) -> String {
    match outcome {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EAGAIN | libc::ETIME)) =>
        {
            "silence".into()
        }
        outcome => result(outcome),
    }
}

/// The error's name in C.
fn word(error: &Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number)))
}
