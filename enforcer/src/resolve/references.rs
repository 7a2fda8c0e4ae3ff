//! References are immutable: what an object leads to when it is valid first is what it leads to for good.
//!
//! An edit makes the object `Valid=False/Immutable` until it is undone, or the object is deleted and made again. The
//! controller writes what it saw first into the state file, so that all roles, restarted or not, say the same.

use super::Refusal;
use crate::{
    model::{ObjectKey, SourceKind, Spec},
    state::{self, State},
};

/// Field of an object's status in the state file: the [`references`] it had when it was valid first.
pub const REFERENCES: &str = "references";

/// `KubernetesCluster/blue -> Postgres/orders`, `-> Postgres/pg`; `None` for kinds whose references may change.
pub fn references(spec: &Spec) -> Option<String> {
    match spec {
        Spec::ServiceConnection(spec) => {
            let source = match spec.source.kind {
                SourceKind::KubernetesCluster => "KubernetesCluster",
                SourceKind::Application => "Application",
            };
            let (kind, name) = (spec.destination.kind, &spec.destination.name);
            Some(format!("{source}/{} -> {kind}/{name}", spec.source.name))
        }
        Spec::MySQLDatabase(spec) => Some(format!("-> MySQL/{}", spec.instance)),
        Spec::PostgresDatabase(spec) => Some(format!("-> Postgres/{}", spec.instance)),
        _ => None,
    }
}

pub(super) fn unchanged(key: &ObjectKey, spec: &Spec, state: &State) -> Result<(), Refusal> {
    let status = state.status.get(&state::text_key(key));
    let first = status.and_then(|status| status.fields.get(REFERENCES)).and_then(serde_json::Value::as_str);
    match (first, references(spec)) {
        (Some(first), Some(now)) if first != now => {
            let message = format!(
                "references are immutable: \"{now}\", expected \"{first}\"; delete and create it anew"
            );
            Err(Refusal::new("Immutable", "spec", message))
        }
        _ => Ok(()),
    }
}
