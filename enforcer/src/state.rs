//! The controller's state file: who has which address. Standalone mode's only allocator writes it; agents, gateways
//! and DNS read it.
//!
//! Versioned JSON, replaced by rename, never inside the watched folder.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::model::ObjectKey;

/// Version of the file that this code writes.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    pub version: u32,
    /// Random /48 of this install: services live in its subnet 2, nodes from subnet 0x1000 on.
    pub ula: Ipv6Net,
    pub service_range: Ipv4Net,
    pub workload_range: Ipv4Net,
    /// Key: [`text_key`] of an instance.
    pub services: BTreeMap<String, Allocation>,
    /// Key: name of the TunnelNode.
    pub nodes: BTreeMap<String, NodeAllocation>,
    /// Key: name of the TunnelGateway.
    pub gateways: BTreeMap<String, Allocation>,
    /// Key: [`text_key`].
    pub status: BTreeMap<String, ObjectStatus>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// Unique among its kind, never reused while anything refers to it.
    pub number: u32,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAllocation {
    pub number: u32,
    /// The node's own tunnel address, the first of its first block.
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Blocks (/26) that the node takes workload addresses from.
    pub blocks: Vec<Ipv4Net>,
    /// The node's /64.
    pub subnet: Ipv6Net,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Everything else that `get -o yaml` shows below `status`.
    #[serde(flatten)]
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// Kubernetes' condition.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub message: String,
    /// RFC 3339; kept while status stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

/// `Kind/namespace/name`, `Kind/name` for cluster-scoped kinds: key of the JSON objects.
pub fn text_key(key: &ObjectKey) -> String {
    if key.namespace.is_empty() {
        format!("{}/{}", key.kind, key.name)
    } else {
        format!("{}/{}/{}", key.kind, key.namespace, key.name)
    }
}
