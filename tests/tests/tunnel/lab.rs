//! Two sites over a veth: each has an underlay namespace, where its tunnel process has its UDP socket, and a tunnel
//! namespace with the TUN alone.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use enforcer::{
    keygen, netns,
    tunnel::{self, DeviceConfig, DeviceStatus, KEEPALIVE, Mode, PeerConfig, Tunnel},
};

pub const MTU: u32 = 1420;

/// How long something may take that has no reason to take long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a program of the system and returns its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip` with arguments that hold no spaces.
pub fn ip(arguments: &str) {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>());
}

/// Waits until `done` gives a value.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A network namespace of this test.
pub struct Netns(pub String);

impl Netns {
    fn new(name: String) -> Self {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self(name)
    }

    pub fn path(&self) -> PathBuf {
        netns::path_of(&self.0)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).output();
    }
}

/// One end of the tunnel.
pub struct Site {
    pub device: String,
    pub underlay: Netns,
    pub inside: Netns,
    pub run_dir: PathBuf,
    pub private_key: [u8; 32],
    pub endpoint: SocketAddr,
    /// Addresses in the tunnel, v4 and v6.
    pub addresses: [IpAddr; 2],
    pub tunnel: Box<dyn Tunnel>,
    process: Option<Child>,
}

/// Both ends, joined underneath, with nothing running yet. `case` is one letter that no other test has.
pub fn sites(case: char) -> [Site; 2] {
    let sites = [1, 2].map(|number| Site::new(case, number));
    let (a, b) = (&sites[0].underlay.0, &sites[1].underlay.0);
    ip(&format!("link add under netns {a} type veth peer name under netns {b}"));
    for site in &sites {
        let address = site.endpoint.ip();
        ip(&format!("-n {} address add {address}/24 dev under", site.underlay.0));
        ip(&format!("-n {} link set under up", site.underlay.0));
    }
    sites
}

impl Site {
    fn new(case: char, number: u8) -> Self {
        let id = format!("{case}{:x}{number}", std::process::id());
        let inside = Netns::new(format!("ef-tunnel-in-{id}"));
        let run_dir = std::env::temp_dir().join(format!("ef-tunnel-{id}"));
        let mut private_key = [number; 32];
        private_key[1] = case as u8;
        let tunnel = tunnel::open(Mode::Userspace, &run_dir, Some(&inside.path())).unwrap();
        Self {
            device: format!("ef-{id}"),
            underlay: Netns::new(format!("ef-tunnel-un-{id}")),
            inside,
            run_dir,
            private_key,
            endpoint: SocketAddr::new([192, 0, 2, number].into(), 51820),
            addresses: [
                IpAddr::from([198, 19, 0, number]),
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number.into()]),
            ],
            tunnel,
            process: None,
        }
    }

    /// Starts `enforcer tunnel`, in the underlay namespace.
    pub fn start(&mut self) {
        let child = Command::new("nsenter")
            .arg(format!("--net={}", self.underlay.path().display()))
            .arg(binary())
            .args(["tunnel", "--run-dir"])
            .arg(&self.run_dir)
            .env("ENFORCER_LOG", "trace")
            .stderr(fs::OpenOptions::new().append(true).create(true).open(self.log()).unwrap())
            .spawn();
        self.process = Some(child.unwrap());
    }

    /// Everything that the process has said.
    pub fn log(&self) -> PathBuf {
        fs::create_dir_all(&self.run_dir).unwrap();
        self.run_dir.join("log")
    }

    /// Starts wireguard-go in place of `enforcer tunnel`.
    ///
    /// It asks its own namespace about the TUN when it starts, so the TUN is made there and moved afterwards, like
    /// a device of the kernel.
    pub fn start_wireguard_go(&mut self) {
        let (device, under, inside) = (&self.device, &self.underlay.0, &self.inside.0);
        ip(&format!("-n {under} tuntap add mode tun name {device}"));
        let child = Command::new("nsenter")
            .arg(format!("--net={}", self.underlay.path().display()))
            .args(["wireguard-go", "-f", device])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(child.unwrap());
        eventually("socket of wireguard-go", || tunnel::socket_path(device).exists().then_some(()));
        ip(&format!("-n {under} link set {device} netns {inside}"));
    }

    /// Ends the process as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Makes the device and gives it its addresses and the route to the other end.
    pub fn set_up(&mut self) {
        self.tunnel.ensure_device(&self.device, MTU).unwrap();
        for (address, ranges) in self.addresses.iter().zip(["198.19.0.0/16", "fd00::/64"]) {
            let (inside, device) = (&self.inside.0, &self.device);
            let length = if address.is_ipv4() { 32 } else { 128 };
            let nodad = if address.is_ipv4() { "" } else { "nodad" };
            ip(&format!("-n {inside} address add {address}/{length} dev {device} {nodad}"));
            ip(&format!("-n {inside} route add {ranges} dev {device}"));
        }
    }

    pub fn public_key(&self) -> [u8; 32] {
        keygen::public_key(&self.private_key)
    }

    /// This end as the other end's peer.
    pub fn as_peer(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.public_key(),
            endpoint: Some(self.endpoint),
            allowed_ips: self.addresses.map(Into::into).to_vec(),
            keepalive: KEEPALIVE,
        }
    }

    pub fn configure(&mut self, peers: Vec<PeerConfig>) -> DeviceStatus {
        let config = DeviceConfig {
            name: self.device.clone(),
            private_key: self.private_key,
            listen_port: self.endpoint.port(),
            peers,
        };
        self.tunnel.configure(&config).unwrap()
    }

    pub fn configuration(&self) -> PathBuf {
        tunnel::descriptions(&self.run_dir).join(format!("{}.conf", self.device))
    }

    pub fn mode_of_configuration(&self) -> u32 {
        fs::metadata(self.configuration()).unwrap().permissions().mode() & 0o777
    }

    /// What `wg` says.
    pub fn wg(&self, arguments: &[&str]) -> String {
        run("wg", &[&[arguments[0], &self.device], &arguments[1..]].concat())
    }

    /// Answers whatever is sent to its addresses, byte by byte; returns the port.
    pub fn echo(&self, address: IpAddr) -> SocketAddr {
        let listener =
            netns::run_in(&self.inside.path(), || TcpListener::bind((address, 0)).unwrap()).unwrap();
        let at = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        at
    }

    pub fn connect(&self, to: SocketAddr) -> Connection {
        let stream =
            netns::run_in(&self.inside.path(), || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(stream)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_file(tunnel::socket_path(&self.device));
        let _ = fs::remove_dir_all(&self.run_dir);
    }
}

/// An open TCP connection to an echo.
pub struct Connection(TcpStream);

impl Connection {
    /// Sends some bytes and waits until they come back.
    pub fn exchange(&mut self, bytes: &[u8]) {
        let mut writer = self.0.try_clone().unwrap();
        let mut back = vec![0; bytes.len()];
        thread::scope(|scope| {
            scope.spawn(move || writer.write_all(bytes).unwrap());
            self.0.read_exact(&mut back).unwrap();
        });
        assert!(back == bytes, "the echo is not what was sent");
    }
}

/// The program under test, built together with the test.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "enforcer"]).status();
        assert!(built.unwrap().success(), "enforcer does not build");
        // …/target/debug/deps/tunnel-HASH
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("enforcer")
    })
}
