//! Objects as a person sees them: one line each, as in `get`.

use serde_json::Value;

use super::{kinds, selector, table};
use crate::model::{Kind, LabelSelector};

type Column = (&'static str, fn(&Value) -> String);

/// A table of objects of one kind. `projects`: with a column that names the project, which is there anyway where the
/// objects are of several.
pub fn as_table(kind: Kind, objects: &[Value], projects: bool, wide: bool) -> String {
    let namespaces: std::collections::BTreeSet<_> =
        objects.iter().map(|object| text(&object["metadata"]["namespace"])).collect();
    let mut columns: Vec<Column> = Vec::new();
    if kind.namespaced() && (projects || namespaces.len() > 1) {
        columns.push(("NAMESPACE", |object| text(&object["metadata"]["namespace"])));
    }
    columns.push(("NAME", |object| text(&object["metadata"]["name"])));
    columns.extend_from_slice(columns_of(kind));
    if wide {
        columns.extend_from_slice(more_columns_of(kind));
        columns.push(("REASON", |object| {
            let condition = ready(object);
            let (reason, message) = (text(&condition["reason"]), text(&condition["message"]));
            if message.is_empty() { reason } else { format!("{reason}: {message}") }
        }));
    }
    let header: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let rows: Vec<Vec<String>> =
        objects.iter().map(|object| columns.iter().map(|(_, cell)| cell(object)).collect()).collect();
    table::render(&header, &rows)
}

fn columns_of(kind: Kind) -> &'static [Column] {
    const READY: Column = ("READY", |object| text(&ready(object)["status"]));
    match kind {
        Kind::ServiceConnection => &[
            ("SOURCE", |object| reference(&object["spec"]["source"])),
            ("DESTINATION", |object| reference(&object["spec"]["destination"])),
            ("DESTINATION-DNS", |object| text(&object["status"]["destinationDNS"])),
            READY,
        ],
        Kind::KeyValueStore | Kind::MySQL | Kind::Postgres => &[
            ("GATEWAYS", |object| joined(&object["spec"]["gateways"])),
            ("ADDRESSES", |object| joined(&object["status"]["addresses"])),
            ("DNS", |object| text(&object["status"]["privateNetworkingFQDN"])),
            READY,
        ],
        Kind::MySQLDatabase | Kind::PostgresDatabase => &[
            ("INSTANCE", |object| text(&object["spec"]["instance"])),
            ("DATABASE", |object| text(&object["spec"]["database"])),
            ("DNS", |object| text(&object["status"]["privateNetworkingFQDN"])),
            READY,
        ],
        Kind::Pod => &[
            ("NODE", |object| text(&object["spec"]["nodeName"])),
            ("GUARDED", |object| text(&object["status"]["guarded"])),
            ("WORKLOAD-ADDRESSES", |object| joined(&object["status"]["workloadAddresses"])),
        ],
        Kind::TunnelGateway => &[
            ("NUMBER", |object| text(&object["status"]["number"])),
            ("ENDPOINTS", |object| joined(&object["spec"]["endpoints"])),
            ("ADDRESSES", |object| joined(&object["status"]["addresses"])),
            READY,
        ],
        Kind::TunnelNode => &[
            ("NUMBER", |object| text(&object["status"]["number"])),
            ("CLUSTER", |object| text(&object["spec"]["cluster"])),
            ("ADDRESSES", |object| joined(&object["status"]["addresses"])),
            ("RANGES", |object| joined(&object["status"]["ranges"]["blocks"])),
            ("SUBNET", |object| text(&object["status"]["ranges"]["subnet"])),
            READY,
        ],
        Kind::Application => &[
            ("SERVICES", |object| {
                let services = object["spec"]["services"].as_array().map(Vec::as_slice).unwrap_or_default();
                services.iter().map(|service| text(&service["name"])).collect::<Vec<_>>().join(",")
            }),
            READY,
        ],
        Kind::KubernetesCluster => &[("CLUSTER", |object| text(&object["spec"]["clusterName"])), READY],
        Kind::Namespace | Kind::Node | Kind::Service | Kind::EndpointSlice => &[],
    }
}

/// What `-o wide` has besides.
fn more_columns_of(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::ServiceConnection => &[
            ("PODS", |object| selected(&object["spec"]["source"]["podSelector"])),
            ("NAMESPACES", |object| selected(&object["spec"]["source"]["namespaceSelector"])),
            ("MATCHED", |object| text(&object["status"]["matchedPods"])),
            ("ACTIVE", |object| text(&object["status"]["activePods"])),
            ("UNTIL", |object| text(&object["spec"]["validUntil"])),
        ],
        Kind::Application => &[
            ("PODS", |object| selected(&object["spec"]["podSelector"])),
            ("MATCHED", |object| text(&object["status"]["matchedPods"])),
        ],
        _ => &[],
    }
}

/// A selector as it is typed; nothing for one that is not there.
fn selected(value: &Value) -> String {
    if value.is_null() {
        return String::new();
    }
    serde_json::from_value::<LabelSelector>(value.clone())
        .map_or_else(|_| value.to_string(), |given| selector::text(&given))
}

/// `postgres.enforcer.dev/orders`: what other tools take as well.
pub fn title(object: &Value) -> String {
    let kind = text(&object["kind"]);
    let kind = kind.parse().map_or_else(|_| kind.to_lowercase(), kinds::qualified);
    format!("{kind}/{}", text(&object["metadata"]["name"]))
}

/// The condition that a person wants to see: `Ready`, or the first one that is missing on the way there.
pub fn ready(object: &Value) -> &Value {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind);
    for kind in ["Valid", "Programmed"] {
        if let Some(condition) = of(kind).filter(|condition| condition["status"] != "True") {
            return condition;
        }
    }
    of("Ready").or_else(|| of("Programmed")).or_else(|| of("Valid")).unwrap_or(&Value::Null)
}

fn reference(value: &Value) -> String {
    format!("{}/{}", text(&value["kind"]).to_lowercase(), text(&value["name"]))
}

fn joined(value: &Value) -> String {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(text).collect::<Vec<_>>().join(",")
}

/// A scalar as a person reads it; nothing for what is not there.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn connection() -> Value {
        json!({
            "kind": "ServiceConnection",
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": {
                "source": {
                    "kind": "KubernetesCluster", "name": "blue",
                    "podSelector": {
                        "matchLabels": { "app": "cart" },
                        "matchExpressions": [{ "key": "old", "operator": "DoesNotExist" }],
                    },
                },
                "destination": { "kind": "KeyValueStore", "name": "kvs" },
            },
            "status": {
                "destinationDNS": "keyvaluestore-kvs.shop.svc.cluster.local", "matchedPods": 3,
                "conditions": [
                    { "type": "Valid", "status": "True", "reason": "Valid", "message": "" },
                    { "type": "Programmed", "status": "False", "reason": "Waiting", "message": "1 of 2 nodes" },
                    { "type": "Ready", "status": "False", "reason": "NotProgrammed", "message": "" },
                ],
            },
        })
    }

    #[test]
    fn a_connection_has_the_columns_of_the_documents() {
        assert_eq!(
            as_table(Kind::ServiceConnection, &[connection()], false, false),
            "NAME   SOURCE                   DESTINATION         DESTINATION-DNS                            READY\n\
             cart   kubernetescluster/blue   keyvaluestore/kvs   keyvaluestore-kvs.shop.svc.cluster.local   False\n"
        );
    }

    #[test]
    fn wide_has_the_selectors_as_they_are_typed_and_why_it_is_not_ready() {
        let table = as_table(Kind::ServiceConnection, &[connection()], true, true);
        let cells = |line: &str| {
            line.split("   ")
                .map(|cell| cell.trim().to_owned())
                .filter(|cell| !cell.is_empty())
                .collect::<Vec<_>>()
        };
        let lines: Vec<_> = table.lines().map(cells).collect();
        assert_eq!(
            lines,
            [
                vec![
                    "NAMESPACE",
                    "NAME",
                    "SOURCE",
                    "DESTINATION",
                    "DESTINATION-DNS",
                    "READY",
                    "PODS",
                    "NAMESPACES",
                    "MATCHED",
                    "ACTIVE",
                    "UNTIL",
                    "REASON",
                ],
                vec![
                    "shop",
                    "cart",
                    "kubernetescluster/blue",
                    "keyvaluestore/kvs",
                    "keyvaluestore-kvs.shop.svc.cluster.local",
                    "False",
                    "app=cart,!old",
                    "3",
                    "Waiting: 1 of 2 nodes",
                ],
            ]
        );
    }
}
