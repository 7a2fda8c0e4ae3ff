//! Sockets of the announce connection: bound to the tunnel, and quick to notice a dead peer.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// What has not been acknowledged for so long ends the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a peer that went away without a word noticeable in seconds, with data under way or without.
pub fn watch_peer(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(2))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_nodelay(true)
}

/// A socket for a connection from this address, made in the network namespace (own one: `None`). Not connected yet.
pub fn client(netns: Option<&Path>, address: IpAddr) -> io::Result<std::net::TcpStream> {
    let make = move || {
        let socket = open(address)?;
        socket.bind(&SocketAddr::new(address, 0).into())?;
        watch_peer(&socket)?;
        Ok(std::net::TcpStream::from(socket))
    };
    crate::netns::run_in_or_here(netns, make)?
}

/// A listening socket of the own namespace that takes connections through this device only (any: `None`).
pub fn listener(address: SocketAddr, device: Option<&str>) -> io::Result<std::net::TcpListener> {
    let socket = open(address.ip())?;
    socket.set_reuse_address(true)?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn open(address: IpAddr) -> io::Result<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
