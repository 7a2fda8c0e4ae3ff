//! Which capabilities a container has, and why. Everything else is dropped.

/// A capability, and what it is for. Each was taken away alone, and what it is for failed; BPF and PERFMON are not among
/// them because SYS_ADMIN has what they have.
pub type Capability = (&'static str, &'static str);

pub const AGENT: &[Capability] = &[
    ("NET_ADMIN", "attaches programs; devices, routes and addresses; destroys sockets of grants that went"),
    ("NET_RAW", "sends the resets of sessions whose grant went"),
    ("SYS_ADMIN", "loads programs; enters pods' network namespaces and the host's mount namespace"),
    ("SYS_CHROOT", "enters the host's mount namespace, where what outlives the agent is mounted"),
    ("SYS_PTRACE", "opens /proc/PID/ns of pods' processes, and the host's"),
];

pub const TUNNEL: &[Capability] =
    &[("NET_ADMIN", "opens the TUN devices"), ("SYS_ADMIN", "enters the network namespace that they are in")];

pub const GATEWAY: &[Capability] = &[
    ("NET_ADMIN", "attaches programs; devices, routes and addresses"),
    ("NET_RAW", "sends the resets of sessions whose grant went"),
    ("SYS_ADMIN", "loads programs; enters the host's mount namespace"),
    ("SYS_CHROOT", "enters the host's mount namespace, to keep ports free in /proc/sys/net"),
    ("SYS_PTRACE", "opens /proc/1/ns for that"),
];
