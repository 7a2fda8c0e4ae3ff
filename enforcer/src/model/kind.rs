//! The kinds of objects.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::API_VERSION;

/// Every kind that a source can deliver.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    ServiceConnection,
    KeyValueStore,
    MySQL,
    MySQLDatabase,
    Postgres,
    PostgresDatabase,
    Application,
    KubernetesCluster,
    TunnelGateway,
    TunnelNode,
}

impl Kind {
    pub const ALL: &[Self] = &[
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::ServiceConnection,
        Self::KeyValueStore,
        Self::MySQL,
        Self::MySQLDatabase,
        Self::Postgres,
        Self::PostgresDatabase,
        Self::Application,
        Self::KubernetesCluster,
        Self::TunnelGateway,
        Self::TunnelNode,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceConnection => "ServiceConnection",
            Self::KeyValueStore => "KeyValueStore",
            Self::MySQL => "MySQL",
            Self::MySQLDatabase => "MySQLDatabase",
            Self::Postgres => "Postgres",
            Self::PostgresDatabase => "PostgresDatabase",
            Self::Application => "Application",
            Self::KubernetesCluster => "KubernetesCluster",
            Self::TunnelGateway => "TunnelGateway",
            Self::TunnelNode => "TunnelNode",
        }
    }

    /// The name in the API's paths; people type it as well.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::ServiceConnection => "serviceconnections",
            Self::KeyValueStore => "keyvaluestores",
            Self::MySQL => "mysqls",
            Self::MySQLDatabase => "mysqldatabases",
            Self::Postgres => "postgreses",
            Self::PostgresDatabase => "postgresdatabases",
            Self::Application => "applications",
            Self::KubernetesCluster => "kubernetesclusters",
            Self::TunnelGateway => "tunnelgateways",
            Self::TunnelNode => "tunnelnodes",
        }
    }

    /// What people in a hurry type.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Namespace => "ns",
            Self::Node => "no",
            Self::Pod => "po",
            Self::Service => "svc",
            Self::EndpointSlice => "eps",
            Self::ServiceConnection => "sc",
            Self::KeyValueStore => "kvs",
            Self::MySQL => "my",
            Self::MySQLDatabase => "mydb",
            Self::Postgres => "pg",
            Self::PostgresDatabase => "pgdb",
            Self::Application => "app",
            Self::KubernetesCluster => "kc",
            Self::TunnelGateway => "tgw",
            Self::TunnelNode => "tn",
        }
    }

    /// Group and version.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            _ => API_VERSION,
        }
    }

    /// Another group and version in which the kind means the same.
    pub const fn older_api_version(self) -> Option<&'static str> {
        match self {
            Self::EndpointSlice => Some("discovery.k8s.io/v1beta1"),
            _ => None,
        }
    }

    /// Kinds of `enforcer.dev`; the others are Kubernetes' own, of which only some fields are known here.
    pub const fn is_ours(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::Pod | Self::Service | Self::EndpointSlice)
    }

    /// Cluster-scoped kinds have no namespace.
    pub const fn namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::TunnelGateway | Self::TunnelNode)
    }

    /// Kinds that have an address of their own: instances, not the logical databases on them.
    pub const fn is_instance(self) -> bool {
        matches!(self, Self::KeyValueStore | Self::MySQL | Self::Postgres)
    }

    /// Kinds that a connection may lead to.
    pub const fn is_destination(self) -> bool {
        self.is_instance() || matches!(self, Self::MySQLDatabase | Self::PostgresDatabase)
    }
}

/// The name as it stands in YAML.
impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let known = Self::ALL.iter().find(|kind| kind.name() == text);
        known.copied().ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("\"{0}\" is no kind")]
pub struct UnknownKind(String);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
