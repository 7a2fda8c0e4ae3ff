//! Objects as Kubernetes would show them: spec as written, status from everybody who knows something.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::View;
use crate::{
    model::{Object, ObjectKey},
    state::ObjectStatus,
};

/// One object with its status.
pub fn object(view: &View, key: &ObjectKey, object: &Object) -> Value {
    let mut rendered = object.document();
    rendered["status"] = status(view, key, object);
    rendered
}

/// Later sources overrule earlier ones: what the object brings, what follows from it, the controller, this role.
fn status(view: &View, key: &ObjectKey, object: &Object) -> Value {
    let mut merged = ObjectStatus::default();
    if let Some(Value::Object(fields)) = object.document().get("status") {
        merged.fields.extend(fields.clone());
    }
    if let Some(conditions) = view.resolved.conditions.get(key) {
        merged.conditions = conditions.to_vec();
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
    let controller = view.state.as_ref().and_then(|state| state.status.get(key)).map(|status| &**status);
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
