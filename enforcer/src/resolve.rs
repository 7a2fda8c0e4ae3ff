//! From objects to meaning: which destinations, gateways, nodes and connections are valid, and why the others are not.
//!
//! Pure: objects and allocations in, values out. Controller (status), agent (grants) and gateway (its own check) all
//! take their truth from here, so that the two ends cannot disagree about what an object says.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    model::{AllowedBackend, LabelSelector, ObjectKey, Protocol, SourceMode},
    state::Condition,
};

/// All that is valid, and the conditions of everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// Instances that have their addresses. Key: the instance (databases resolve to theirs).
    pub destinations: BTreeMap<ObjectKey, Destination>,
    /// Valid connections, the one that is charged first: oldest first, then by namespace and name.
    pub connections: Vec<Connection>,
    pub gateways: BTreeMap<String, Gateway>,
    pub nodes: BTreeMap<String, Node>,
    /// `Valid` of every object of ours.
    pub conditions: BTreeMap<ObjectKey, Vec<Condition>>,
    /// Ranges that are guarded: services, workloads, `guardedCIDRs`.
    pub service_ranges: Vec<IpNet>,
    pub workload_ranges: Vec<IpNet>,
    pub listed_ranges: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    pub key: ObjectKey,
    pub number: u32,
    /// A family is published only if an endpoint has it.
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub ports: Vec<DestinationPort>,
    /// Names of valid gateways, as written.
    pub gateways: Vec<String>,
    pub endpoints: Vec<IpAddr>,
    /// `keyvaluestore-my-kvs.my-project.svc.cluster.local`
    pub fqdn: String,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DestinationPort {
    pub protocol: Protocol,
    pub port: u16,
    pub target_port: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    pub key: ObjectKey,
    /// The instance.
    pub destination: ObjectKey,
    /// `source.name` where the source is a KubernetesCluster; `None` for an Application: any cluster.
    pub cluster: Option<String>,
    pub pod_selector: LabelSelector,
    /// `None`: every namespace. An Application's is its own namespace.
    pub namespace_selector: Option<LabelSelector>,
    /// Pods of this namespace only: an Application, or the administrator does not allow to reach further.
    pub only_namespace: Option<String>,
    pub ports: Vec<DestinationPort>,
    /// Nanoseconds since the Unix epoch.
    pub valid_until_unix_ns: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    pub name: String,
    pub number: u32,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub public_key: [u8; 32],
    pub endpoints: Vec<SocketAddr>,
    pub mtu: u32,
    pub source_mode: SourceMode,
    pub allowed_backends: Vec<AllowedBackend>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    pub number: u32,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub blocks: Vec<Ipv4Net>,
    pub subnet: Ipv6Net,
    pub public_key: [u8; 32],
    pub cluster: String,
}
