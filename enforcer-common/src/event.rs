//! What the programs tell: one fixed-size record through the ring buffer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, Port};

/// One record of `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Event {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// Network namespace cookie of the socket, 0 where the hook cannot know it.
    pub netns: u64,
    /// cgroup of the socket or process, 0 where the hook cannot know it.
    pub cgroup: u64,
    pub source: Addr,
    pub destination: Addr,
    pub ifindex: u32,
    /// Process (thread group), 0 on the wire.
    pub pid: u32,
    /// 0: unknown.
    pub workload: u32,
    /// Number of the connection that is charged; 0: none.
    pub connection: u32,
    pub source_port: Port,
    pub destination_port: Port,
    pub protocol: u8,
    /// An [`EventKind`].
    pub kind: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// A `DropReason`, 0 for none.
    pub reason: u8,
    /// Name of the process, zero-terminated; empty on the wire.
    pub comm: [u8; 16],
}
abi!(Event, 96);

macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident { $($(#[$item_meta:meta])* $item:ident = $number:literal $text:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum $name { $($(#[$item_meta])* $item = $number,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$item),+];

            #[inline(always)]
            pub const fn from_raw(raw: u8) -> Option<Self> {
                match raw { $($number => Some(Self::$item),)+ _ => None }
            }

            /// Stable name, as status, metrics and `monitor` print it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$item => $text,)+ }
            }
        }
    };
}
pub(crate) use numbered;

numbered! {
    /// What happened.
    EventKind {
        /// A packet or a call was refused.
        Denied = 1 "denied",
        /// A granted flow began.
        Opened = 2 "opened",
        /// A flow ended because its grant did: a reset was sent.
        Reset = 3 "reset",
    }
}

numbered! {
    /// Where it happened.
    Hook {
        Connect = 1 "connect",
        Sendmsg = 2 "sendmsg",
        FromPod = 3 "from_pod",
        ToPod = 4 "to_pod",
        FromHost = 5 "from_host",
        ToWire = 6 "to_wire",
        FromWire = 7 "from_wire",
        IntoTunnel = 8 "into_tunnel",
        OutOfTunnel = 9 "out_of_tunnel",
        ToWorkload = 10 "to_workload",
        GwFromTunnel = 11 "gw_from_tunnel",
        GwFromBackend = 12 "gw_from_backend",
    }
}

/// Events a CPU may send in one [`WINDOW_NS`]; what is beyond is counted in `Counter::EventsLimited`.
pub const EVENTS_PER_WINDOW: u32 = 1_000;
pub const WINDOW_NS: u64 = 1_000_000_000;

/// Value of `EVENT_BUDGET`, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct EventBudget {
    pub window_ns: u64,
    pub sent: u32,
    /// The kernel's tick when the clock was read last: it does not move between two ticks.
    pub tick: u32,
}
abi!(EventBudget, 16);
