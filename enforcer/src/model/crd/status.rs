//! Schemas of `status`, which the controller writes, and of a TunnelNode's `report`, which its agent writes.
//!
//! They are apart because they are trusted differently: gateways take addresses and the identity of a node from `status`,
//! and no agent may write any.

use serde_json::{Value, json};

use super::super::Kind;

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn number(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

fn texts(description: &str) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "description": description })
}

/// A list of which several writers own items, as server-side apply tells them apart.
fn conditions() -> Value {
    let mut list = own_conditions();
    list["x-kubernetes-list-type"] = json!("map");
    list["x-kubernetes-list-map-keys"] = json!(["type"]);
    list
}

/// A list of one writer, which replaces it as a whole: where items go one by one, servers as old as 1.20 make null of
/// what is left of the last, and refuse it.
fn own_conditions() -> Value {
    json!({
        "type": "array",
        "description": "What is true of the object, and why.",
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "required": ["type", "status"],
            "properties": {
                "type": text("Valid, Programmed, Ready and others."),
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": text("One word, for programs."),
                "message": text("Sentences, for people."),
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "observedGeneration": number("The generation of the object that this is said of."),
            },
        },
    })
}

fn ranges(kind: Kind) -> Value {
    let mut properties = json!({
        "ula": text("The install's /48."),
        "service": text("Addresses of services."),
        "workload": text("Addresses of pods, nodes and gateways in the tunnel."),
    });
    if kind == Kind::TunnelNode {
        properties["blocks"] = texts("What the node's pods take their IPv4 addresses from.");
        properties["subnet"] = text("The node's /64.");
    } else {
        let next = ["service", "node", "gateway", "block"];
        let next = next.map(|name| (name.to_owned(), number("Where the search for a free one goes on.")));
        properties["next"] = json!({ "type": "object", "properties": serde_json::Map::from_iter(next) });
    }
    json!({ "type": "object", "description": "Ranges of the install.", "properties": properties })
}

pub(super) fn schema(kind: Kind) -> Value {
    let mut properties = json!({
        "conditions": conditions(),
        "observedGeneration": number("The generation of the object that this status is of."),
    });
    let mut add = |name: &str, schema: Value| properties[name] = schema;
    match kind {
        Kind::ServiceConnection => {
            add("destinationDNS", text("The name that pods connect to."));
            add("matchedPods", number("How many pods the source selects."));
            add("activePods", number("How many of them may connect now."));
            add("nodes", texts("Nodes that have such pods."));
            add("references", text("What it led to when it was valid first."));
        }
        Kind::KeyValueStore | Kind::MySQL | Kind::Postgres => {
            add("privateNetworkingFQDN", text("The name that pods connect to."));
            add("addresses", texts("What the name resolves to."));
            add("number", number("The service's number in the install."));
        }
        Kind::MySQLDatabase | Kind::PostgresDatabase => {
            add("privateNetworkingFQDN", text("The name that pods connect to."));
            add("addresses", texts("What the name resolves to."));
            add("database", text("Name of the database on the server."));
            add("references", text("What it led to when it was valid first."));
        }
        Kind::Application => {
            add("matchedPods", number("How many pods it has."));
            add("connections", texts("Connections that are managed for it."));
        }
        Kind::TunnelGateway => {
            add("number", number("The gateway's number in the install."));
            add("addresses", texts("Its addresses in the tunnel."));
            add("ranges", ranges(kind));
        }
        Kind::TunnelNode => {
            add("number", number("The node's number in the install."));
            add("addresses", texts("Its addresses in the tunnel."));
            add("ranges", ranges(kind));
            add("publicKey", text("The key that was accepted; gateways take no other."));
            add("cluster", text("The cluster that was accepted; no other's connections are the node's."));
            add(
                "node",
                text("The Kubernetes node that was accepted; pods of no other are the TunnelNode's."),
            );
            add("bootID", text("The boot of the node that its conditions are of."));
        }
        _ => {}
    }
    json!({ "type": "object", "description": "What the controller says.", "properties": properties })
}

/// What an agent says of its node.
pub(super) fn report() -> Value {
    let connection = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": text("NAMESPACE/NAME of a ServiceConnection, or of one that follows from an Application."),
            "generation": number("The generation of the object that is in force."),
            "pods": number("How many pods of the node it selects."),
            "live": number("How many of them may connect now."),
            "notGuardable": texts("Pods that are denied because they have another way out, and which."),
        },
    });
    json!({
        "type": "object",
        "description": "What the node's agent says.",
        "properties": {
            "bootID": text("The kernel's boot id."),
            "conditions": own_conditions(),
            "connections": {
                "type": "array",
                "description": "Connections that pods of the node have.",
                "x-kubernetes-list-type": "atomic",
                "items": connection,
            },
        },
    })
}
