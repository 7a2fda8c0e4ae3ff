//! Objects as Kubernetes would show them: spec as written, status from everybody who knows something.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::View;
use crate::{
    model::{API_VERSION, Kind, Object, ObjectKey, Spec},
    state::{ObjectStatus, text_key},
};

/// One object with its status.
pub fn object(view: &View, key: &ObjectKey, object: &Object) -> Value {
    let mut rendered = Map::new();
    let api_version = if matches!(key.kind, Kind::Namespace | Kind::Pod) { "v1" } else { API_VERSION };
    rendered.insert("apiVersion".into(), api_version.into());
    rendered.insert("kind".into(), key.kind.name().into());
    rendered.insert("metadata".into(), json!(object.metadata));
    let spec = spec(&object.spec);
    if !spec.is_null() {
        rendered.insert("spec".into(), spec);
    }
    rendered.insert("status".into(), status(view, key, object));
    Value::Object(rendered)
}

fn spec(spec: &Spec) -> Value {
    match spec {
        Spec::Namespace => Value::Null,
        Spec::Pod(spec, _) => json!(spec),
        Spec::ServiceConnection(spec) => json!(spec),
        Spec::KeyValueStore(spec) | Spec::MySQL(spec) | Spec::Postgres(spec) => json!(spec),
        Spec::MySQLDatabase(spec) | Spec::PostgresDatabase(spec) => json!(spec),
        Spec::Application(spec) => json!(spec),
        Spec::TunnelGateway(spec) => json!(spec),
        Spec::TunnelNode(spec) => json!(spec),
    }
}

/// Later sources overrule earlier ones: what the object brings, what follows from it, the controller, this role.
fn status(view: &View, key: &ObjectKey, object: &Object) -> Value {
    let mut merged = ObjectStatus::default();
    if let Spec::Pod(_, status) = &object.spec
        && let Value::Object(fields) = json!(status)
    {
        merged.fields.extend(fields);
    }
    if let Some(conditions) = view.resolved.conditions.get(key) {
        merged.conditions.clone_from(conditions);
    }
    if let Some(destination) = view.resolved.destinations.get(key) {
        let addresses: Vec<String> =
            [destination.v4.map(|a| a.to_string()), destination.v6.map(|a| a.to_string())]
                .into_iter()
                .flatten()
                .collect();
        merged.fields.insert("privateNetworkingFQDN".into(), destination.fqdn.clone().into());
        merged.fields.insert("addresses".into(), json!(addresses));
    }
    let controller = view.state.as_ref().and_then(|state| state.status.get(&text_key(key)));
    for status in controller.into_iter().chain(view.object_status.get(key)) {
        merge(&mut merged, status);
    }
    json!(merged)
}

fn merge(into: &mut ObjectStatus, from: &ObjectStatus) {
    into.fields.extend(from.fields.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut conditions: BTreeMap<_, _> =
        into.conditions.drain(..).map(|condition| (condition.kind.clone(), condition)).collect();
    conditions.extend(from.conditions.iter().map(|condition| (condition.kind.clone(), condition.clone())));
    into.conditions = conditions.into_values().collect();
}
