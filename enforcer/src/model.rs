//! The objects that people write, as they stand in YAML: Kubernetes' own and those of `enforcer.dev/v1alpha1`.
//!
//! Types only know their shape. What a valid object is beyond its shape is decided in `validate`; nothing here does
//! I/O.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

mod cluster;
pub mod crd;
mod key;
mod kind;
mod pod;

pub use cluster::{
    AddressType, ClusterPort, EndpointConditions, EndpointSlice, NodeAddress, NodeStatus, ServiceSpec,
    SliceEndpoint, Transport,
};
pub use key::{KeyParts, ObjectKey};
pub use kind::Kind;
pub use pod::{CGROUP_ANNOTATION, NETNS_ANNOTATION, PodIp, PodSpec, PodStatus};

/// Group and version of our kinds.
pub const API_VERSION: &str = "enforcer.dev/v1alpha1";

/// Label of what was written for an Application: its name.
pub const APPLICATION_LABEL: &str = "enforcer.dev/application";

pub type Labels = BTreeMap<String, String>;

/// The part of Kubernetes' `ObjectMeta` that is used.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Labels,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
}

/// Kubernetes' `LabelSelector`; empty selects all.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    /// IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub port: u16,
    #[serde(default)]
    pub protocol: Protocol,
    /// `port` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub address: IpAddr,
}

/// Spec of KeyValueStore, MySQL and Postgres.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceSpec {
    /// Names of TunnelGateways.
    pub gateways: Vec<String>,
    /// The kind's default port where absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    pub endpoints: Vec<Endpoint>,
}

/// Spec of MySQLDatabase and PostgresDatabase.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSpec {
    pub instance: String,
    pub database: String,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceConnectionSpec {
    pub source: ConnectionSource,
    pub destination: DestinationRef,
    /// Fewer than the destination offers; all where absent. Refers to ports by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRef>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PortRef {
    pub port: u16,
    #[serde(default)]
    pub protocol: Protocol,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionSource {
    pub kind: SourceKind,
    pub name: String,
    /// Absent: every pod. Not allowed for an Application, which has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Absent: every namespace that the gateway's authority allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SourceKind {
    KubernetesCluster,
    Application,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationRef {
    /// One of the five destination kinds.
    #[schemars(schema_with = "destination_kinds")]
    pub kind: Kind,
    pub name: String,
    /// Only ever the object's own; any other is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

fn destination_kinds(_generator: &mut SchemaGenerator) -> Schema {
    let kinds: Vec<_> =
        Kind::ALL.iter().filter(|kind| kind.is_destination()).map(|kind| kind.name()).collect();
    json_schema!({ "type": "string", "enum": kinds })
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationSpec {
    pub pod_selector: LabelSelector,
    #[serde(default)]
    pub services: Vec<ServiceReference>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceReference {
    pub name: String,
    pub target: DestinationRef,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TunnelGatewaySpec {
    /// WireGuard public key, base64.
    pub public_key: String,
    /// `address:port` of the tunnel's UDP socket.
    pub endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Namespaces whose destinations may use it.
    #[serde(default)]
    pub allowed_namespaces: Vec<String>,
    #[serde(default)]
    pub allowed_backends: Vec<AllowedBackend>,
    #[serde(default)]
    pub source_mode: SourceMode,
    #[serde(default, rename = "guardedCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub guarded_cidrs: Vec<String>,
    #[serde(default)]
    pub cross_namespace_sources: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceMode {
    #[default]
    Masquerade,
    Preserve,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedBackend {
    pub cidr: String,
    pub ports: Vec<AllowedPorts>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedPorts {
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    #[serde(default)]
    pub protocol: Protocol,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TunnelNodeSpec {
    /// WireGuard public key, base64.
    pub public_key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
}

/// A cluster as the connections of a project call it. Without one, `source.name` is the agents' `--cluster-name`.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesClusterSpec {
    /// The agents' `--cluster-name`; the object's own name where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
}

/// One object, whatever its kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Object {
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spec {
    Namespace,
    Node(NodeStatus),
    Pod(PodSpec, PodStatus),
    Service(ServiceSpec),
    EndpointSlice(EndpointSlice),
    ServiceConnection(ServiceConnectionSpec),
    KeyValueStore(InstanceSpec),
    MySQL(InstanceSpec),
    Postgres(InstanceSpec),
    MySQLDatabase(DatabaseSpec),
    PostgresDatabase(DatabaseSpec),
    Application(ApplicationSpec),
    KubernetesCluster(KubernetesClusterSpec),
    TunnelGateway(TunnelGatewaySpec),
    TunnelNode(TunnelNodeSpec),
}

impl Object {
    pub const fn kind(&self) -> Kind {
        match &self.spec {
            Spec::Namespace => Kind::Namespace,
            Spec::Node(_) => Kind::Node,
            Spec::Pod(..) => Kind::Pod,
            Spec::Service(_) => Kind::Service,
            Spec::EndpointSlice(_) => Kind::EndpointSlice,
            Spec::ServiceConnection(_) => Kind::ServiceConnection,
            Spec::KeyValueStore(_) => Kind::KeyValueStore,
            Spec::MySQL(_) => Kind::MySQL,
            Spec::Postgres(_) => Kind::Postgres,
            Spec::MySQLDatabase(_) => Kind::MySQLDatabase,
            Spec::PostgresDatabase(_) => Kind::PostgresDatabase,
            Spec::Application(_) => Kind::Application,
            Spec::KubernetesCluster(_) => Kind::KubernetesCluster,
            Spec::TunnelGateway(_) => Kind::TunnelGateway,
            Spec::TunnelNode(_) => Kind::TunnelNode,
        }
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.kind(), &self.metadata.namespace, &self.metadata.name)
    }

    /// The object as it stands in YAML, as far as it is known here.
    pub fn document(&self) -> serde_json::Value {
        let mut document = serde_json::json!({
            "apiVersion": self.kind().api_version(),
            "kind": self.kind().name(),
            "metadata": self.metadata,
        });
        let (field, value) = match &self.spec {
            Spec::Namespace => return document,
            Spec::Node(status) => ("status", serde_json::json!(status)),
            Spec::Pod(spec, status) => {
                document["status"] = serde_json::json!(status);
                ("spec", serde_json::json!(spec))
            }
            Spec::EndpointSlice(slice) => {
                if let (Some(document), serde_json::Value::Object(fields)) =
                    (document.as_object_mut(), serde_json::json!(slice))
                {
                    document.extend(fields);
                }
                return document;
            }
            Spec::Service(spec) => ("spec", serde_json::json!(spec)),
            Spec::ServiceConnection(spec) => ("spec", serde_json::json!(spec)),
            Spec::KeyValueStore(spec) | Spec::MySQL(spec) | Spec::Postgres(spec) => {
                ("spec", serde_json::json!(spec))
            }
            Spec::MySQLDatabase(spec) | Spec::PostgresDatabase(spec) => ("spec", serde_json::json!(spec)),
            Spec::Application(spec) => ("spec", serde_json::json!(spec)),
            Spec::KubernetesCluster(spec) => ("spec", serde_json::json!(spec)),
            Spec::TunnelGateway(spec) => ("spec", serde_json::json!(spec)),
            Spec::TunnelNode(spec) => ("spec", serde_json::json!(spec)),
        };
        document[field] = value;
        document
    }

    /// The instance spec, where this is an instance.
    pub const fn instance(&self) -> Option<&InstanceSpec> {
        match &self.spec {
            Spec::KeyValueStore(spec) | Spec::MySQL(spec) | Spec::Postgres(spec) => Some(spec),
            _ => None,
        }
    }
}
