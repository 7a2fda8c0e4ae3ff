//! What the tests need of the machine, and its removal also after a failure.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use enforcer::datapath::kernel::Options;
use enforcer_common::maps::name;

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn unique() -> String {
    format!("ef-datapath-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Small maps: a test does not need the memory of a real node.
pub fn small() -> Options {
    let sizes = [
        (name::GRANTS, 4096),
        (name::GRANT_STATS, 64),
        (name::DESTINATIONS, 1024),
        (name::EVENTS, 1 << 16),
        (name::GW_GRANTS, 4096),
        (name::GW_SERVICES, 1024),
        (name::GW_BACKENDS, 1024),
        (name::GW_SOURCES, 1024),
    ];
    Options { sizes: BTreeMap::from(sizes), flows: Some(256), ..Options::default() }
}

/// A directory for pins, on no BPF file system yet.
pub struct Pins {
    pub path: PathBuf,
}

impl Pins {
    pub fn new() -> Self {
        Self { path: Path::new("/run").join(unique()) }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A network namespace.
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new() -> Self {
        let netns = Self { name: unique() };
        ip(&["netns", "add", &netns.name]);
        netns
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// `ip` inside.
    pub fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }

    /// `tc` inside.
    pub fn tc(&self, arguments: &[&str]) {
        run("tc", &[&["-n", &self.name], arguments].concat());
    }

    /// A veth pair inside, the first end with this index.
    pub fn veth(&self, name: &str, ifindex: u32, peer: &str) {
        let index = ifindex.to_string();
        self.ip(&["link", "add", "dev", name, "index", &index, "type", "veth", "peer", "name", peer]);
        self.ip(&["link", "set", name, "up"]);
        self.ip(&["link", "set", peer, "up"]);
    }

    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        enforcer::netns::run_in(&self.path(), f).expect("the namespace can be entered")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A cgroup below the machine's, with nobody in it.
pub struct Cgroup {
    pub path: PathBuf,
}

impl Cgroup {
    pub fn new() -> Self {
        let root = enforcer::cgroup::root(None).expect("cgroup v2 is mounted");
        let path = root.join(unique());
        fs::create_dir(&path).expect("a cgroup can be made");
        Self { path }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
