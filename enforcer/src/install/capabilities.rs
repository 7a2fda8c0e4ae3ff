//! Which capabilities a container has, and why. Everything else is dropped.

/// A capability, and what fails without it. Found by taking them away one by one.
pub type Capability = (&'static str, &'static str);

pub const AGENT: &[Capability] = &[
    ("BPF", "loads the programs, makes and opens the maps"),
    (
        "NET_ADMIN",
        "attaches the programs; devices, routes and addresses; destroys sockets of grants that went",
    ),
    ("PERFMON", "the verifier lets the programs use what only tracing programs had once"),
    ("SYS_ADMIN", "enters pods' network namespaces; binds the tunnel's where every process sees it"),
    ("SYS_CHROOT", "enters the host's mount namespace for that"),
    ("SYS_PTRACE", "opens /proc/PID/ns of pods' processes, which are other users'"),
];

pub const TUNNEL: &[Capability] =
    &[("NET_ADMIN", "opens the TUN devices"), ("SYS_ADMIN", "enters the network namespace that they are in")];

pub const GATEWAY: &[Capability] = &[
    ("BPF", "loads the programs, makes and opens the maps"),
    ("NET_ADMIN", "attaches the programs; devices, routes and addresses"),
    ("PERFMON", "the verifier lets the programs use what only tracing programs had once"),
    ("SYS_ADMIN", "enters the host's mount namespace, to keep ports free in /proc/sys/net"),
    ("SYS_CHROOT", "the same"),
];
