//! Sockets of a namespace: finding and destroying them (`SOCK_DESTROY`), which ends both ends of a session at once.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket as NetlinkSocket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

use crate::netns::run_in_or_here;

/// Message type of `SOCK_DESTROY`; the crate only writes the type of a query.
const SOCK_DESTROY: u16 = 21;

/// A connected socket.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Socket {
    /// IP protocol number.
    pub protocol: u8,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// Destroys every connected TCP and UDP socket of the namespace that `doomed` names, and returns them.
///
/// The owner's next call gets `ECONNABORTED`; TCP sends a reset to the far end. Blocks; not for a tokio worker.
pub fn destroy(netns: Option<&Path>, doomed: impl Fn(&Socket) -> bool + Send) -> io::Result<Vec<Socket>> {
    run_in_or_here(netns, move || {
        let mut diag = Diag::open()?;
        let mut destroyed = Vec::new();
        for family in [AF_INET, AF_INET6] {
            for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
                for found in diag.dump(family, protocol)? {
                    let socket = socket_of(&found, protocol);
                    if socket.remote.port() != 0
                        && doomed(&socket)
                        && diag.destroy(family, protocol, found)?
                    {
                        destroyed.push(socket);
                    }
                }
            }
        }
        Ok(destroyed)
    })?
}

fn socket_of(found: &InetResponseHeader, protocol: u8) -> Socket {
    let id = &found.socket_id;
    let address = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    Socket {
        protocol,
        local: address(id.source_address, id.source_port),
        remote: address(id.destination_address, id.destination_port),
    }
}

struct Diag {
    socket: NetlinkSocket,
    buffer: Vec<u8>,
}

impl Diag {
    fn open() -> io::Result<Self> {
        let mut socket = NetlinkSocket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, buffer: vec![0; 1 << 16] })
    }

    fn dump(&mut self, family: u8, protocol: u8) -> io::Result<Vec<InetResponseHeader>> {
        let id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
        // Every state but LISTEN and TIME_WAIT, which nothing has to be destroyed in; UDP counts as ESTABLISHED or CLOSE.
        let states = StateFlags::all() - StateFlags::LISTEN - StateFlags::TIME_WAIT;
        self.send(&request(family, protocol, states, id, NLM_F_REQUEST | NLM_F_DUMP))?;
        let mut found = Vec::new();
        loop {
            let size = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = &self.buffer[..size];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                        found.push(response.header);
                    }
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
                let length = message.header.length.next_multiple_of(4) as usize;
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }

    /// Returns whether the socket was still there.
    fn destroy(&mut self, family: u8, protocol: u8, found: InetResponseHeader) -> io::Result<bool> {
        let mut bytes =
            request(family, protocol, StateFlags::all(), found.socket_id, NLM_F_REQUEST | NLM_F_ACK);
        bytes[4..6].copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
        self.send(&bytes)?;
        let size = self.socket.recv(&mut &mut self.buffer[..], 0)?;
        let answer =
            NetlinkMessage::<SockDiagMessage>::deserialize(&self.buffer[..size]).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(true),
            NetlinkPayload::Error(error) => match error.to_io() {
                gone if gone.raw_os_error() == Some(libc::ENOENT) => Ok(false),
                failed => Err(failed),
            },
            _ => Err(io::Error::other("sock_diag gave no acknowledgement")),
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes, 0).map(|_| ())
    }
}

fn request(family: u8, protocol: u8, states: StateFlags, socket_id: SocketId, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let payload = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    });
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn only_the_doomed_session_ends_and_both_its_ends_notice() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let (mut doomed, mut far_end) = connect();
        let (spared, _spared_far_end) = connect();
        let local = doomed.local_addr().unwrap();

        let destroyed = destroy(None, |socket| socket.local == local).unwrap();

        let remote = listener.local_addr().unwrap();
        assert_eq!(destroyed, [Socket { protocol: IPPROTO_TCP, local, remote }]);
        assert_eq!(doomed.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(far_end.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        spared.set_nonblocking(true).unwrap();
        assert_eq!((&spared).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
