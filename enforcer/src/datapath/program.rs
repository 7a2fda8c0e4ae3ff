//! The programs: their names in the object, where each is attached, and which role has them.

use aya_obj::generated::bpf_attach_type;

use crate::netlink::filters::Hook;

/// Whose programs and maps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    Node,
    Gateway,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    Ingress,
    Egress,
    /// One of the socket calls of a cgroup.
    Cgroup,
}

macro_rules! programs {
    ($($(#[$meta:meta])* $item:ident = $name:literal $role:ident $place:ident $attach:ident,)+) => {
        /// One program of the BPF object.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Program { $($(#[$meta])* $item,)+ }

        impl Program {
            pub const ALL: &[Self] = &[$(Self::$item),+];

            /// Name in the object, in pins and in status.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$item => $name,)+ }
            }

            pub const fn role(self) -> Role {
                match self { $(Self::$item => Role::$role,)+ }
            }

            pub const fn place(self) -> Place {
                match self { $(Self::$item => Place::$place,)+ }
            }

            /// The kernel's number of the place.
            pub(super) const fn attach_type(self) -> u32 {
                match self { $(Self::$item => bpf_attach_type::$attach as u32,)+ }
            }
        }
    };
}

programs! {
    Connect4 = "connect4" Node Cgroup BPF_CGROUP_INET4_CONNECT,
    Connect6 = "connect6" Node Cgroup BPF_CGROUP_INET6_CONNECT,
    Sendmsg4 = "sendmsg4" Node Cgroup BPF_CGROUP_UDP4_SENDMSG,
    Sendmsg6 = "sendmsg6" Node Cgroup BPF_CGROUP_UDP6_SENDMSG,
    /// Host side of a pod's veth.
    FromPod = "from_pod" Node Ingress BPF_TCX_INGRESS,
    /// Host side of a pod's veth.
    ToPod = "to_pod" Node Egress BPF_TCX_EGRESS,
    /// `enforcer0`.
    FromHost = "from_host" Node Egress BPF_TCX_EGRESS,
    /// `enforcer0`.
    ToWorkload = "to_workload" Node Ingress BPF_TCX_INGRESS,
    /// Any other device with Ethernet headers.
    ToWire = "to_wire" Node Egress BPF_TCX_EGRESS,
    FromWire = "from_wire" Node Ingress BPF_TCX_INGRESS,
    /// Any other device without Ethernet headers.
    ToWireL3 = "to_wire_l3" Node Egress BPF_TCX_EGRESS,
    FromWireL3 = "from_wire_l3" Node Ingress BPF_TCX_INGRESS,
    /// `tunnel0`, in the tunnel netns.
    IntoTunnel = "into_tunnel" Node Ingress BPF_TCX_INGRESS,
    /// Tunnel devices, in the tunnel netns.
    OutOfTunnel = "out_of_tunnel" Node Ingress BPF_TCX_INGRESS,
    /// The gateway's tunnel device.
    GwFromTunnel = "gw_from_tunnel" Gateway Ingress BPF_TCX_INGRESS,
    /// Devices that lead to backends.
    GwFromBackend = "gw_from_backend" Gateway Ingress BPF_TCX_INGRESS,
}

impl Program {
    /// Where it is on a device; a cgroup's program has no such place.
    pub(super) const fn hook(self) -> Hook {
        match self.place() {
            Place::Egress => Hook::Egress,
            Place::Ingress | Place::Cgroup => Hook::Ingress,
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|program| program.name() == name)
    }
}
