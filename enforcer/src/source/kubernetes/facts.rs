//! What the server says of an object of ours besides what it means: its versions, its status, a node's report.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    model::TunnelNodeSpec,
    state::{Condition, ObjectStatus},
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub uid: String,
    /// Of this version of the object; greater ones are later. Zero where the server's is no number.
    pub version: u64,
    /// Of its spec.
    pub generation: i64,
    pub status: Arc<ObjectStatus>,
    /// Of a TunnelNode: what its agent says.
    pub report: Option<Arc<Report>>,
    /// Of a TunnelNode: what its spec says, accepted or not.
    pub asked: Option<TunnelNodeSpec>,
    /// Of a Node.
    pub node: Option<NodeFacts>,
}

/// What decides whether ordinary pods may come to a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    pub boot_id: String,
    /// As they stand in `spec`.
    pub taints: Vec<Value>,
}

/// What an agent says of its node, in the top-level field `report` of its TunnelNode: agents may write no status.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    #[serde(rename = "bootID", skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<ReportedConnection>,
}

/// A connection that pods of the node have.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReportedConnection {
    /// `namespace/name`
    pub name: String,
    /// Of the object that is in force.
    pub generation: i64,
    /// How many pods of the node it selects.
    pub pods: u32,
    /// How many of them may connect now.
    pub live: u32,
    /// `namespace/name: why` of those that are denied because not all that they can send can be guarded; some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_guardable: Vec<String>,
}

impl Facts {
    pub(super) fn of(document: &Value) -> Self {
        let metadata = &document["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let read = |field: &str| document.get(field).filter(|value| !value.is_null()).cloned();
        // What the schema of the server let through and is no status is none: the controller writes it anew.
        let status =
            read("status").and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default();
        let report = read("report").and_then(|report| serde_json::from_value(report).ok());
        Self {
            uid: text("uid").to_owned(),
            version: text("resourceVersion").parse().unwrap_or_default(),
            generation: metadata["generation"].as_i64().unwrap_or_default(),
            status: Arc::new(status),
            report: report.map(Arc::new),
            asked: None,
            node: (document["kind"] == "Node").then(|| NodeFacts {
                boot_id: document["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_owned(),
                taints: document["spec"]["taints"].as_array().cloned().unwrap_or_default(),
            }),
        }
    }

    /// Who a TunnelNode is: the spec that the controller has accepted, as it stands in `status`.
    pub fn accepted(&self) -> Option<TunnelNodeSpec> {
        let text = |field: &str| self.status.fields.get(field).and_then(Value::as_str).map(str::to_owned);
        Some(TunnelNodeSpec {
            public_key: text("publicKey")?,
            cluster: text("cluster").unwrap_or_default(),
            node: text("node").unwrap_or_default(),
        })
    }

    /// The object's number in the install.
    pub(super) fn number(&self) -> Option<u32> {
        let number = self.status.fields.get("number")?.as_u64()?;
        u32::try_from(number).ok()
    }
}
