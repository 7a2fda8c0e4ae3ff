//! The controller of a cluster whose connections and destinations are at an API server that it shares with others.
//!
//! Allocations and statuses are the project's controller's, which runs there. This one keeps what pods of its own cluster
//! need in their own namespaces: names of destinations, ConfigMaps of Applications, and nodes without the taint.
//! A namespace of the project means the one of that name here; where there is none, there is nobody to need anything.

use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::watch;

use super::{
    Args,
    documents::{self, Documents},
    lease, plan,
    writer::Writer,
};
use crate::{
    control::View,
    controller::condition,
    model::{Kind, ObjectKey},
    resolve::{Resolved, resolve},
    source::{
        informed,
        kubernetes::{Cluster, Hearing, Interest, Pods, Resource, Told, Watched, Written},
    },
};

/// Leads until it is told to end.
pub async fn lead(
    args: &Args,
    cluster: &Cluster,
    views: &watch::Sender<View>,
    held: lease::Held,
) -> anyhow::Result<()> {
    let name = args.cluster_name.as_deref();
    let name =
        name.context("--connections-kubeconfig: which nodes are this cluster's? expected --cluster-name")?;
    let project = args.project.server(cluster).await?;
    let slices = cluster.endpoint_slices().await?;
    let interest = Interest { pods: Pods::None, only_services: false, written: Written::ForPods };
    let Watched { mut told, mut heard } = project.follow_with(cluster, &interest);
    let mut writer = Writer::new(cluster.clone(), slices, held);
    loop {
        let now_told = told.borrow_and_update().clone();
        let view = turn(&now_told, &heard.borrow().clone(), (name, slices), &mut writer);
        views.send_replace(view);
        tokio::select! {
            changed = told.changed() => changed.context("the API servers are not followed any more")?,
            // Only what is said of it is new then; the sender lives as long as the other one.
            _ = heard.changed() => {}
            () = writer.wait() => {}
        }
        // Names that somebody else has are tried again with the others' back-off, and stand in `Written` until then.
        drop(writer.finished());
    }
}

fn turn(told: &Told, heard: &Hearing, (cluster, slices): (&str, Resource), writer: &mut Writer) -> View {
    // Without allocations nothing is concluded, so that nothing goes.
    let resolved = told.state.as_ref().map(|state| resolve(&told.snapshot, state)).unwrap_or_default();
    if told.state.is_some() {
        let wanted = wanted(told, &resolved, slices);
        let mut writes = plan::documents(told, &wanted);
        writes.extend(plan::untaint(told, Some(cluster)));
        writer.take(told, writes);
    }
    let conditions = [
        condition("Leading", "Leading", "AnotherLeads", &[]),
        informed(heard),
        condition("Written", "Written", "WriteFailed", &writer.failures()),
    ];
    View {
        snapshot: Arc::clone(&told.snapshot),
        resolved: Arc::new(resolved),
        state: told.state.clone(),
        role: json!({"role": "controller", "name": cluster, "conditions": conditions, "writes": writer.counts() }),
        ..View::default()
    }
}

/// What pods of this cluster need. Its owners are at another server: what has no owner here would be collected as
/// garbage, so that it goes by the plan alone.
fn wanted(told: &Told, resolved: &Resolved, slices: Resource) -> Documents {
    let mut wanted = documents::wanted(told, resolved, slices);
    let is_here =
        |namespace: &str| told.snapshot.objects.contains_key(&ObjectKey::new(Kind::Namespace, "", namespace));
    wanted.retain(|key, _| key.kind != Kind::ServiceConnection.name() && is_here(&key.namespace));
    for document in wanted.values_mut() {
        if let Some(metadata) = document["metadata"].as_object_mut() {
            metadata.remove("ownerReferences");
        }
    }
    wanted
}
