//! Real sockets through the gateway's programs: a client behind a pair of TUNs that stands for the tunnel, and a server
//! behind a veth. What single packets cannot show: neighbours, unfinished checksums, segments, path MTU.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use enforcer::netns::run_in;
use enforcer_common::{config::GatewayConfig, maps::name};
use enforcer_tests::prog::wire::{TCP, UDP};

use crate::world::{
    Family, TCP_PORT, TCP_TARGET, TUNNEL_MTU, UDP_PORT, UDP_TARGET, V4, V6, World, addr, backend,
};

/// Namespaces of a client, a gateway and a server; gone with the value.
struct Place {
    names: [String; 3],
    stop: Arc<AtomicBool>,
}

const CLIENT: usize = 0;
const GATEWAY: usize = 1;
const SERVER: usize = 2;
/// Index of the gateway's device towards the server.
const BACKEND_SIDE: u32 = 77;

impl Place {
    fn new(test: &str) -> Self {
        let names = ["client", "gateway", "server"].map(|part| {
            let name = format!("ef-gw-{test}-{}-{part}", std::process::id());
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
            name
        });
        let place = Self { names, stop: Arc::new(AtomicBool::new(false)) };
        let [client, gateway, server] = &place.names;
        for netns in [client, gateway] {
            ip(&format!("-n {netns} tuntap add dev tun0 mode tun"));
            ip(&format!("-n {netns} link set tun0 mtu {TUNNEL_MTU} up"));
        }
        ip(&format!("-n {gateway} link add be0 index {BACKEND_SIDE} type veth peer name gw0 netns {server}"));
        for (netns, device, v4, v6) in
            [(gateway, "be0", V4.source, V6.source), (server, "gw0", V4.backend, V6.backend)]
        {
            ip(&format!("-n {netns} addr add {v4}/24 dev {device}"));
            ip(&format!("-n {netns} addr add {v6}/64 dev {device} nodad"));
            ip(&format!("-n {netns} link set {device} up"));
        }
        for (address, route) in [(V4.client, "198.18.0.0/16"), (V6.client, "fd00:1:2::/64")] {
            ip(&format!("-n {client} addr add {address} dev tun0 nodad"));
            ip(&format!("-n {client} route add {route} dev tun0 src {address}"));
        }
        place.relay();
        place
    }

    fn path(&self, part: usize) -> PathBuf {
        Path::new("/run/netns").join(&self.names[part])
    }

    /// Runs `f` on a thread inside.
    fn run<T: Send>(&self, part: usize, f: impl FnOnce() -> T + Send) -> T {
        run_in(&self.path(part), f).expect("the namespace can be entered")
    }

    /// Carries packets between the TUNs: the tunnel.
    fn relay(&self) {
        let ends = [CLIENT, GATEWAY].map(|part| self.run(part, open_tun));
        for (from, to) in [(0, 1), (1, 0)] {
            let (mut from, mut to) =
                (ends[from].try_clone().expect("a copy"), ends[to].try_clone().expect("a copy"));
            let stop = Arc::clone(&self.stop);
            thread::spawn(move || {
                let mut packet = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    match from.read(&mut packet) {
                        Ok(length) => {
                            // A device that is down takes nothing, as a tunnel would.
                            let _ = to.write(&packet[..length]);
                        }
                        Err(_) => thread::sleep(Duration::from_micros(200)),
                    }
                }
            });
        }
    }

    /// A gateway that knows the server, with its programs attached.
    fn gateway(&self) -> World {
        let mut world = World::new();
        let tunnel_ifindex = self.run(GATEWAY, || nix::net::if_::if_nametoindex("tun0").expect("a device"));
        let config = GatewayConfig {
            gateway4: addr(V4.gateway),
            gateway6: addr(V6.gateway),
            tunnel_ifindex,
            tunnel_mtu: TUNNEL_MTU,
        };
        world.programs.array(name::GW_CONFIG).set(0, config, 0).expect("room");
        for family in [&V4, &V6] {
            for protocol in [TCP, UDP] {
                let mut backend = backend(family, protocol, true);
                backend.ifindex = BACKEND_SIDE;
                let set = if family.client.contains(':') { 40 } else { 30 };
                world.serve(family, protocol, set + u32::from(protocol == UDP), &[backend]);
            }
        }
        self.run(GATEWAY, || {
            world.programs.attach("gw_from_tunnel", "tun0");
            world.programs.attach("gw_from_backend", "be0");
        });
        world
    }

    /// A connection of the client to the service.
    fn connect(&self, family: &Family) -> TcpStream {
        let to: SocketAddr = Family::at(family.service, TCP_PORT).parse().expect("address:port");
        self.run(CLIENT, || {
            let stream =
                TcpStream::connect_timeout(&to, Duration::from_secs(10)).expect("the server answers");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
            stream
        })
    }

    /// A server that sends back what it gets, on every connection.
    fn echo(&self, family: &Family) {
        let at: SocketAddr = Family::at(family.backend, TCP_TARGET).parse().expect("address:port");
        let listener = self.run(SERVER, || TcpListener::bind(at).expect("a free port"));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                thread::spawn(move || {
                    let mut copy = stream.try_clone().expect("a copy");
                    // The client may reset it.
                    let _ = std::io::copy(&mut stream, &mut copy);
                });
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Opens `tun0` of the caller's namespace; reads do not block.
fn open_tun() -> File {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .expect("TUN devices can be opened");
    // SAFETY: all zeros is a value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(*b"tun0") {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is a whole ifreq that outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    assert_eq!(result, 0, "the device exists: {}", std::io::Error::last_os_error());
    file
}

#[test]
fn a_server_and_a_client_exchange_megabytes() {
    let place = Place::new("bulk");
    let _world = place.gateway();
    for family in [&V4, &V6] {
        place.echo(family);
        let stream = place.connect(family);
        let sent: Vec<u8> = (0..4_000_000_u32).map(|index| ((index * 31) >> 3) as u8).collect();
        let mut writer = stream.try_clone().expect("a copy");
        let bytes = sent.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&bytes).expect("the connection lives");
            writer.shutdown(Shutdown::Write).expect("the connection lives");
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).expect("the connection lives");
        writing.join().expect("the writer ends");
        assert!(received == sent, "{} of {} bytes came back as they were", received.len(), sent.len());
    }
}

#[test]
fn datagrams_of_any_size_come_back() {
    let place = Place::new("udp");
    let _world = place.gateway();
    for family in [&V4, &V6] {
        let at: SocketAddr = Family::at(family.backend, UDP_TARGET).parse().expect("address:port");
        let server = place.run(SERVER, || UdpSocket::bind(at).expect("a free port"));
        thread::spawn(move || {
            let mut datagram = [0; 8192];
            while let Ok((length, from)) = server.recv_from(&mut datagram) {
                // Too large for the tunnel the first time: the kernel learns it from the gateway's answer.
                let _ = server.send_to(&datagram[..length], from);
            }
        });
        let to: SocketAddr = Family::at(family.service, UDP_PORT).parse().expect("address:port");
        let any = if family.client.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let client = place.run(CLIENT, || UdpSocket::bind(any).expect("a port"));
        client.connect(to).expect("a route");
        client.set_read_timeout(Some(Duration::from_secs(2))).expect("a time");
        for length in [1, 1300, 1385, 4000] {
            let sent = vec![0xc3; length];
            let mut answer = [0; 8192];
            let came = (0..5).any(|_| {
                client.send(&sent).is_ok()
                    && client.recv(&mut answer).is_ok_and(|got| answer[..got] == sent[..])
            });
            assert!(came, "{length} bytes come back from {to}");
        }
    }
}

#[test]
fn a_closed_port_is_told_to_the_client() {
    let place = Place::new("closed");
    let _world = place.gateway();
    for family in [&V4, &V6] {
        let to: SocketAddr = Family::at(family.service, UDP_PORT).parse().expect("address:port");
        let any = if family.client.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let client = place.run(CLIENT, || UdpSocket::bind(any).expect("a port"));
        client.connect(to).expect("a route");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        client.send(b"anybody there?").expect("it can be sent");
        let error = client.recv(&mut [0; 8]).expect_err("nobody is");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{to}: {error}");
        let tcp: SocketAddr = Family::at(family.service, TCP_PORT).parse().expect("address:port");
        let error = place
            .run(CLIENT, || TcpStream::connect_timeout(&tcp, Duration::from_secs(10)))
            .expect_err("nobody listens");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{tcp}: {error}");
    }
}

#[test]
fn a_revoked_connection_ends_with_a_reset() {
    let place = Place::new("revoked");
    let mut world = place.gateway();
    for family in [&V4, &V6] {
        place.echo(family);
        let mut stream = place.connect(family);
        stream.write_all(b"hello").expect("the connection lives");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("the connection lives");
        world.revoke(family, TCP);
        stream.write_all(b"again").expect("the kernel takes it");
        let error = stream.read_exact(&mut answer).expect_err("the grant is gone");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
    }
}
