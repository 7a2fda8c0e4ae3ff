//! What `kubectl get` shows of each kind.

use serde_json::{Value, json};

use super::super::Kind;

fn column(name: &str, path: &str, description: &str) -> Value {
    json!({ "name": name, "type": "string", "jsonPath": path, "description": description })
}

/// Shown with `-o wide` only.
fn wide(name: &str, path: &str, description: &str) -> Value {
    let mut column = column(name, path, description);
    column["priority"] = json!(1);
    column
}

fn condition(name: &str) -> Value {
    let path = format!(".status.conditions[?(@.type==\"{name}\")].status");
    column(name, &path, "Whether the condition holds")
}

pub(super) fn of(kind: Kind) -> Value {
    let mut columns = match kind {
        Kind::ServiceConnection => vec![
            column("Source", ".spec.source.name", "Cluster or Application"),
            column("Destination", ".spec.destination.name", "The service"),
            column("Destination-DNS", ".status.destinationDNS", "The name that pods connect to"),
            wide("Pods", ".status.matchedPods", "How many pods the source selects"),
            wide("Active", ".status.activePods", "How many of them may connect now"),
        ],
        Kind::KeyValueStore | Kind::MySQL | Kind::Postgres => vec![
            column("DNS", ".status.privateNetworkingFQDN", "The name that pods connect to"),
            wide("Addresses", ".status.addresses", "What the name resolves to"),
        ],
        Kind::MySQLDatabase | Kind::PostgresDatabase => vec![
            column("Instance", ".spec.instance", "The server that has it"),
            column("Database", ".spec.database", "Its name on the server"),
            column("DNS", ".status.privateNetworkingFQDN", "The name that pods connect to"),
        ],
        Kind::Application => vec![column("Pods", ".status.matchedPods", "How many pods it has")],
        Kind::KubernetesCluster => {
            vec![column("Cluster", ".spec.clusterName", "What its agents call it, where it differs")]
        }
        Kind::TunnelGateway => vec![
            column("Endpoints", ".spec.endpoints", "Where nodes reach it"),
            wide("Addresses", ".status.addresses", "Its addresses in the tunnel"),
        ],
        Kind::TunnelNode => vec![
            column("Cluster", ".status.cluster", "The node's cluster"),
            condition("Guarded"),
            wide("Addresses", ".status.addresses", "Its addresses in the tunnel"),
        ],
        Kind::Namespace | Kind::Node | Kind::Pod | Kind::Service | Kind::EndpointSlice => Vec::new(),
    };
    columns.push(condition(if kind == Kind::ServiceConnection { "Ready" } else { "Valid" }));
    columns.push(json!({
        "name": "Age",
        "type": "date",
        "jsonPath": ".metadata.creationTimestamp",
        "description": "Since when it is there",
    }));
    Value::Array(columns)
}
