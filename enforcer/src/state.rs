//! The controller's state file: who has which address. Standalone mode's only allocator writes it; agents, gateways
//! and DNS read it.
//!
//! Versioned JSON, replaced by rename, never inside the watched folder.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};

use crate::model::ObjectKey;

mod file;
mod places;

pub use file::{StateError, accepted_path, default_path, load, replace, save, watch_state};
pub use places::{
    GATEWAY_SIZE, gateway_at, gateway_subnet, node_at, node_subnet, node_subnets, nth4, range_size,
    service_at, service_subnet,
};

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
    /// Key: an instance.
    pub services: BTreeMap<ObjectKey, Allocation>,
    /// Key: name of the TunnelNode.
    pub nodes: BTreeMap<String, NodeAllocation>,
    /// Key: name of the TunnelGateway.
    pub gateways: BTreeMap<String, Allocation>,
    /// Objects of which nothing new is said share what was said with the state before.
    pub status: BTreeMap<ObjectKey, Arc<ObjectStatus>>,
    /// Where the search for free numbers goes on.
    #[serde(default)]
    pub next: Next,
}

/// The number after the one that was given last: a freed number is not given again before all others were.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Next {
    pub service: u32,
    pub node: u32,
    pub gateway: u32,
    /// Index of a /26 in the workload range.
    pub block: u32,
}

impl State {
    /// An install that nothing has an address of.
    pub fn new(ula: Ipv6Net, service_range: Ipv4Net, workload_range: Ipv4Net) -> Self {
        Self {
            version: VERSION,
            ula,
            service_range,
            workload_range,
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            gateways: BTreeMap::new(),
            status: BTreeMap::new(),
            next: Next::default(),
        }
    }

    /// Whether both mean the same to every role, but for the first references of objects that are new in `other`.
    pub fn means_the_same_as(&self, other: &Self) -> bool {
        // Taken apart, so that a field that is added is not forgotten here.
        let Self { version, ula, service_range, workload_range, services, nodes, gateways, status, next } =
            self;
        let same_references = |(key, status): (&ObjectKey, &Arc<ObjectStatus>)| {
            let other = other.status.get(key);
            other.is_some_and(|other| Arc::ptr_eq(status, other))
                || status
                    .references()
                    .is_none_or(|first| other.and_then(|other| other.references()) == Some(first))
        };
        (version, ula, service_range, workload_range, next)
            == (&other.version, &other.ula, &other.service_range, &other.workload_range, &other.next)
            && *services == other.services
            && *nodes == other.nodes
            && *gateways == other.gateways
            && status.iter().all(same_references)
    }

    /// The same state, sharing the status of objects with an earlier one as far as both say the same.
    fn sharing(mut self, earlier: &Self) -> Self {
        for (key, status) in &mut self.status {
            if let Some(same) = earlier.status.get(key).filter(|earlier| *earlier == status) {
                *status = Arc::clone(same);
            }
        }
        self
    }
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
    /// The node's own tunnel address, the first of its first block that is no network address; in `v6` it has the
    /// same place in the node's subnet.
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Blocks (/26) that the node takes workload addresses from.
    pub blocks: Vec<Ipv4Net>,
    /// The node's /64.
    pub subnet: Ipv6Net,
}

#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Everything else that `get -o yaml` shows below `status`.
    #[serde(flatten)]
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// Field of an object's status: what it led to when it was valid first.
pub const REFERENCES: &str = "references";

impl ObjectStatus {
    pub fn references(&self) -> Option<&str> {
        self.fields.get(REFERENCES)?.as_str()
    }
}

/// By hand: what serde makes of `flatten` reads every value twice, and a state file has thousands of them.
impl<'de> Deserialize<'de> for ObjectStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = ObjectStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the status of an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectStatus, A::Error> {
                let mut status = ObjectStatus::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "conditions" {
                        status.conditions = map.next_value()?;
                    } else {
                        status.fields.insert(name, map.next_value()?);
                    }
                }
                Ok(status)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// Kubernetes' condition.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
    /// RFC 3339; kept while status stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}
