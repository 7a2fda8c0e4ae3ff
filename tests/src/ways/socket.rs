//! Ways out that go through a socket of the protocol itself.

use std::io::Result;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Shot, text};
use crate::{
    packet::{DCCP, ICMP, ICMPV6},
    probe::option,
};

const UDP_LITE: i32 = 136;
/// `SOCK_DCCP`
pub const DCCP_TYPE: Type = Type::DCCP;
/// `SOL_DCCP`, and the number of the service that is asked for, without which nobody connects.
const DCCP_LEVEL: i32 = 269;
const DCCP_SERVICE: i32 = 2;

impl Shot<'_> {
    /// A socket that is bound to the plan's device and never waits.
    pub(super) fn socket(&self, kind: Type, protocol: i32) -> Result<Socket> {
        let domain = if self.to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        self.socket_of(domain, kind, protocol)
    }

    pub(super) fn socket_of(&self, domain: Domain, kind: Type, protocol: i32) -> Result<Socket> {
        let socket = Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
        if let Some(device) = &self.plan.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The SYN, INIT or request that `connect` sends.
    pub(super) fn connect(&self, kind: Type, protocol: u8) -> Result<()> {
        let socket = self.socket(kind, protocol.into())?;
        if protocol == DCCP {
            option(&socket, DCCP_LEVEL, DCCP_SERVICE, 1)?;
        }
        match socket.connect(&self.marked().into()) {
            Err(err) if err.raw_os_error() != Some(libc::EINPROGRESS) => Err(err),
            _ => Ok(()),
        }
    }

    pub(super) fn udp(&self, connected: bool) -> Result<()> {
        let (socket, to) = (self.socket(Type::DGRAM, 0)?, self.marked().into());
        if connected {
            socket.connect(&to)?;
            socket.send(text(self.mark).as_bytes())?;
        } else {
            socket.send_to(text(self.mark).as_bytes(), &to)?;
        }
        Ok(())
    }

    pub(super) fn udp_lite(&self) -> Result<()> {
        let socket = self.socket(Type::DGRAM, UDP_LITE)?;
        socket.send_to(text(self.mark).as_bytes(), &self.marked().into())?;
        Ok(())
    }

    /// An echo request, by a ping socket or a raw one.
    pub(super) fn echo(&self, kind: Type) -> Result<()> {
        let (protocol, request) = if self.to.is_ipv4() { (ICMP, 8) } else { (ICMPV6, 128) };
        let socket = self.socket(kind, protocol.into())?;
        let mut message = vec![request, 0, 0, 0, 0, 7, 0, 1];
        message.extend(text(self.mark).bytes());
        // Only IPv4's raw sockets leave the checksum to the program.
        let checksum = !crate::packet::sum(&message, 0);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        socket.send_to(&message, &self.without_port())?;
        Ok(())
    }

    /// Any protocol, by a raw socket.
    pub(super) fn raw(&self, protocol: u8) -> Result<()> {
        let socket = self.socket(Type::RAW, protocol.into())?;
        socket.send_to(text(self.mark).as_bytes(), &self.without_port())?;
        Ok(())
    }

    /// IPv6's raw sockets take the port for a protocol.
    pub(super) fn without_port(&self) -> SockAddr {
        std::net::SocketAddr::new(self.to.ip(), 0).into()
    }
}
