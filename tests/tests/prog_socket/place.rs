//! Where the test's sockets live: a cgroup of its own for the process, a network namespace of its own for a thread.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

/// `SO_NETNS_COOKIE`, which libc does not name.
const SO_NETNS_COOKIE: libc::c_int = 71;

type Task = Box<dyn FnOnce() -> i32 + Send>;

/// The process is in `ROOT/pod/container`; a thread waits in the namespace. Put back when it is dropped.
pub struct Place {
    /// The machine's cgroup v2, and the test's below it.
    machine: PathBuf,
    root: PathBuf,
    pub cgroup: File,
    pub pod_cgroup: u64,
    pub container_cgroup: u64,
    /// Cookie of the network namespace.
    pub cookie: u64,
    tasks: Sender<Task>,
    results: Receiver<i32>,
}

impl Place {
    pub fn new() -> Self {
        let machine = enforcer::cgroup::root(None).expect("a cgroup v2 hierarchy");
        let root = machine.join(format!("ef-prog-{}", std::process::id()));
        let container = root.join("pod/container");
        fs::create_dir_all(&container).expect("a cgroup can be made");
        fs::write(container.join("cgroup.procs"), "0").expect("the process moves");
        let inode = |path: PathBuf| fs::metadata(path).expect("the cgroup is there").ino();
        let (tasks, inbox) = channel::<Task>();
        let (outbox, results) = channel();
        let (cookies, cookie) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            cookies.send(netns_cookie()).expect("the test listens");
            for task in inbox {
                outbox.send(task()).expect("the test listens");
            }
        });
        Self {
            cgroup: File::open(&root).expect("the cgroup is there"),
            pod_cgroup: inode(root.join("pod")),
            container_cgroup: inode(container),
            cookie: cookie.recv().expect("the thread has a namespace"),
            machine,
            root,
            tasks,
            results,
        }
    }

    /// Does something in the namespace.
    pub fn run(&self, task: impl FnOnce(SocketAddr) -> i32 + Send + 'static, to: SocketAddr) -> i32 {
        self.tasks.send(Box::new(move || task(to))).expect("the thread lives");
        self.results.recv_timeout(Duration::from_secs(10)).expect("the thread answers")
    }

    /// Does something as a process of the root cgroup.
    pub fn in_root(&self, task: impl FnOnce()) {
        fs::write(self.machine.join("cgroup.procs"), "0").expect("the process moves");
        task();
        fs::write(self.root.join("pod/container/cgroup.procs"), "0").expect("the process moves back");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Failures leave an empty cgroup behind, which harms nobody and would hide the test's own failure.
        let _ = fs::write(self.machine.join("cgroup.procs"), "0");
        for path in ["pod/container", "pod", ""] {
            let _ = fs::remove_dir(self.root.join(path));
        }
    }
}

fn netns_cookie() -> u64 {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the socket is open; the kernel writes at most `length` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    cookie
}

/// A system call that names an address.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    TcpConnect,
    UdpConnect,
    UdpSend,
}

/// Makes the call, from an IPv6 socket to a mapped address if wanted, and gives its error; 0 is success.
pub fn attempt(call: Call, to: SocketAddr, mapped: bool) -> i32 {
    let to = match to.ip() {
        IpAddr::V4(address) if mapped => SocketAddr::new(address.to_ipv6_mapped().into(), to.port()),
        _ => to,
    };
    let kind = if matches!(call, Call::TcpConnect) { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(to), kind, None).expect("a socket");
    if mapped {
        socket.set_only_v6(false).expect("both families");
        assert!(matches!(to.ip(), IpAddr::V6(address) if address != Ipv6Addr::UNSPECIFIED));
    }
    let result = match call {
        Call::TcpConnect | Call::UdpConnect => socket.connect(&to.into()),
        Call::UdpSend => socket.send_to(b"?", &to.into()).map(|_| ()),
    };
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}
