//! What Kubernetes' own objects say about the cluster itself: where its nodes, its API server and its DNS are.
//!
//! Fields that we do not know are no error. Addresses are text: a Node has host names among them, a headless Service
//! has `None`.

use serde::{Deserialize, Deserializer, Serialize};

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeStatus {
    #[serde(default)]
    pub addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeAddress {
    #[serde(default, rename = "type")]
    pub kind: String,
    pub address: String,
}

/// Of the type only `ExternalName` matters: it alone has a meaning of its own in DNS.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, rename = "clusterIP", skip_serializing_if = "String::is_empty")]
    pub cluster_ip: String,
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub external_name: String,
    /// Families that a headless Service publishes; all where absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_families: Vec<AddressType>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_none")]
    pub ports: Vec<ClusterPort>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub publish_not_ready_addresses: bool,
}

/// A port of a Service or an EndpointSlice. `None`: a slice that means every port.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClusterPort {
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_none")]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, deserialize_with = "null_is_none")]
    pub protocol: Transport,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    #[default]
    Tcp,
    Udp,
    Sctp,
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum AddressType {
    IPv4,
    IPv6,
    /// Host names, or what is not known here.
    #[serde(other)]
    Other,
}

/// An EndpointSlice has no `spec`: these stand beside its metadata, alike in `v1` and `v1beta1`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Absent only where somebody left it out: any address counts then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_type: Option<AddressType>,
    #[serde(default, deserialize_with = "null_is_none")]
    pub endpoints: Vec<SliceEndpoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_none")]
    pub ports: Vec<ClusterPort>,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SliceEndpoint {
    #[serde(default, deserialize_with = "null_is_none")]
    pub addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_is_none")]
    pub conditions: EndpointConditions,
}

/// Of the conditions only `ready` decides about names; unknown counts as ready, as the API has it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct EndpointConditions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Kubernetes writes an empty list as `null` where its type does not say otherwise.
fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
