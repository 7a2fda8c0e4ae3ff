//! References are immutable: what an object leads to when it is valid first is what it leads to for good.
//!
//! An edit makes the object `Valid=False/Immutable` until it is undone, or the object is deleted and made again. The
//! controller writes what it saw first into the state file, so that all roles, restarted or not, say the same.

use std::sync::Arc;

use super::Refusal;
use crate::{
    model::{Kind, Object, ObjectKey, SourceKind, Spec},
    state::State,
    store::Snapshot,
};

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

/// Whether both states mean the same for these objects. What the controller says about them decides nothing, but for
/// the references that it saw first.
pub fn is_alike(snapshot: &Snapshot, one: &State, other: &State) -> bool {
    if std::ptr::eq(one, other) {
        return true;
    }
    let ranges = |state: &State| (state.ula, state.service_range, state.workload_range);
    let same_references = |(key, object): (&ObjectKey, &Arc<Object>)| {
        !has_references(key.kind)
            || same_status(key, one, other)
            || first(key, one) == first(key, other)
            || unchanged(key, &object.spec, one) == unchanged(key, &object.spec, other)
    };
    ranges(one) == ranges(other)
        && one.services == other.services
        && one.nodes == other.nodes
        && one.gateways == other.gateways
        && snapshot.objects.iter().all(same_references)
}

/// Whether both share what they say.
fn same_status(key: &ObjectKey, one: &State, other: &State) -> bool {
    let both = one.status.get(key).zip(other.status.get(key));
    both.is_some_and(|(one, other)| Arc::ptr_eq(one, other))
}

const fn has_references(kind: Kind) -> bool {
    matches!(kind, Kind::ServiceConnection | Kind::MySQLDatabase | Kind::PostgresDatabase)
}

fn first<'a>(key: &ObjectKey, state: &'a State) -> Option<&'a str> {
    state.status.get(key)?.references()
}

pub(super) fn unchanged(key: &ObjectKey, spec: &Spec, state: &State) -> Result<(), Refusal> {
    match (first(key, state), references(spec)) {
        (Some(first), Some(now)) if first != now => {
            let message = format!(
                "references are immutable: \"{now}\", expected \"{first}\"; delete and create it anew"
            );
            Err(Refusal::new("Immutable", "spec", message))
        }
        _ => Ok(()),
    }
}
