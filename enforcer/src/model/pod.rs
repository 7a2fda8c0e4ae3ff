//! Pods, as far as they matter here.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The part of a Pod that is used. A Pod is Kubernetes' object: fields that we do not know are no error.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(default)]
    pub node_name: String,
    #[serde(default)]
    pub host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    #[serde(default, rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PodIp {
    pub ip: IpAddr,
}

/// Where a standalone pod's network namespace is: a name below `/run/netns` or a path.
pub const NETNS_ANNOTATION: &str = "enforcer.dev/netns";
/// Where a standalone hostNetwork pod's cgroup is: an absolute path.
pub const CGROUP_ANNOTATION: &str = "enforcer.dev/cgroup";
