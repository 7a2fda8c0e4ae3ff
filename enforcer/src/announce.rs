//! How the two ends agree: agents tell a gateway which workloads they have, the gateway tells which grants it holds.
//!
//! One TCP connection per node and gateway, inside the tunnel: node address → gateway address, port 7118. It begins
//! with `Hello` in both directions; then the agent sends a `Snapshot` and changes of it, the gateway `Live` and
//! `Released`. Losing the connection takes nothing away on either side: the next snapshot settles it.
//!
//! ```text
//! agent                                  gateway
//!   Hello {version, node}          ──▶
//!                                  ◀──   Hello {version, gateway}
//!   Snapshot {generation, bindings} ──▶
//!   Upsert {binding}               ──▶
//!                                  ◀──   Live {uid, generation, grants}
//!   Remove {uid}                   ──▶
//!                                  ◀──   Released {uid}, once no flow of it is left
//! ```

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use crate::model::{Labels, Protocol};

pub mod client;
pub mod codec;
pub mod server;
mod socket;
#[cfg(test)]
mod tests;

/// Version of the protocol. Either end closes the connection of another one.
pub const VERSION: u32 = 1;

/// One workload of a node: who it is, and its addresses inside the tunnel.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Of the pod.
    pub uid: String,
    /// Grows with every change of this binding; `Live` repeats it.
    pub generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
    pub cluster: String,
    pub namespace: String,
    #[serde(default)]
    pub namespace_labels: Labels,
    /// Name of the pod.
    pub pod: String,
    #[serde(default)]
    pub labels: Labels,
}

impl Binding {
    /// The workload addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

/// One grant that the gateway's kernel holds for a binding.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LiveGrant {
    /// Service address.
    pub service: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// What an agent says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Request {
    Hello {
        version: u32,
        /// Name of the TunnelNode. Only for people: the source address says who it is.
        node: String,
    },
    /// All bindings of the node; whatever is not among them is gone.
    Snapshot {
        generation: u64,
        bindings: Vec<Binding>,
    },
    Upsert {
        binding: Binding,
    },
    Remove {
        uid: String,
    },
}

/// What a gateway says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Answer {
    Hello {
        version: u32,
        gateway: String,
    },
    /// The gateway's kernel holds exactly these grants for the binding.
    Live {
        uid: String,
        /// Of the binding that was matched.
        generation: u64,
        grants: BTreeSet<LiveGrant>,
    },
    /// No flow of the removed binding is left: its addresses may be given to another workload.
    Released {
        uid: String,
    },
    /// The binding is not taken over, and why: it has no grant here.
    Refused {
        uid: String,
        generation: u64,
        message: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    #[error("announce connection closed by the other end")]
    Closed,
    #[error("announce frame of {length} bytes, expected at most {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("announce frame is no message of this protocol")]
    Malformed(#[source] serde_json::Error),
    #[error("announce protocol version {version}, expected {VERSION}")]
    Version { version: u32 },
    #[error("announce connection began with {got}, expected Hello")]
    NoHello { got: &'static str },
    #[error("announce connection from {address}, expected the tunnel address of a known node")]
    UnknownNode { address: IpAddr },
    #[error("announce connection: cannot {action}")]
    Io {
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("announce connection: no answer within {seconds} s")]
    Silent { seconds: u64 },
}
