//! The agent's word to the API server: its TunnelNode, with the node's public key and a report.
//!
//! One object and one writer; it is written when it says something new, a second apart at most, and again when it is
//! not there or asks for another key. No pod waits for it.

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Agent, Args, view};
use crate::{
    keygen,
    model::{API_VERSION, Kind, ObjectKey},
    source::{
        self,
        kubernetes::{Cluster, Hearing, Interest, Pods, Report, ReportedConnection, Resource, Told, Written},
        manifests::Memory,
    },
    state::State,
    store::Snapshot,
};

/// Owner of the fields that the agent writes.
const MANAGER: &str = "enforcer-agent";
/// Between two writes.
const PACE: Duration = Duration::from_secs(1);
/// Until the next try after one that failed: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Who the node is.
#[derive(Clone, Debug)]
struct Identity {
    /// Name of the TunnelNode.
    name: String,
    cluster: String,
    /// What Kubernetes calls the node.
    node: String,
    /// Base64.
    public_key: String,
}

impl Identity {
    fn of(args: &Args, private_key: &[u8; 32]) -> Self {
        Self {
            name: args.tunnel_node(),
            cluster: args.cluster_name.clone(),
            node: args.kubernetes_node().to_owned(),
            public_key: keygen::encode_key(&keygen::public_key(private_key)),
        }
    }

    fn document(&self, report: &Report) -> Value {
        let mut report = json!(report);
        // Servers as old as 1.20 make null of empty texts.
        let conditions = report.get_mut("conditions").and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten() {
            if let Some(fields) = condition.as_object_mut() {
                fields.retain(|_, value| value.as_str() != Some(""));
            }
        }
        let mut document = json!({
            "apiVersion": API_VERSION,
            "kind": Kind::TunnelNode.name(),
            "metadata": { "name": self.name },
            "spec": { "publicKey": self.public_key, "cluster": self.cluster, "node": self.node },
        });
        // What is not said does not become null either: no server takes that for a list.
        if report.as_object().is_some_and(|report| !report.is_empty()) {
            document["report"] = report;
        }
        document
    }

    /// Whether the server's object is what this node says of itself.
    fn is_asked_for(&self, told: &Told) -> bool {
        let key = ObjectKey::new(Kind::TunnelNode, "", self.name.as_str());
        let asked = told.facts.get(&key).and_then(|facts| facts.asked.as_ref());
        asked.is_some_and(|asked| {
            (&asked.public_key, &asked.cluster, &asked.node) == (&self.public_key, &self.cluster, &self.node)
        })
    }
}

type Followed = (watch::Receiver<Arc<Snapshot>>, watch::Receiver<Option<Arc<State>>>, Option<Registered>);

/// Where the objects come from an API server: what it is told of this node, and what is heard of it.
pub struct Registered {
    pub report: watch::Sender<Report>,
    pub heard: watch::Receiver<Hearing>,
}

/// Begins to follow objects and allocations; where they come from an API server, it is told of the node.
pub async fn follow(args: &Args, run_dir: &Path, private_key: &[u8; 32]) -> anyhow::Result<Followed> {
    let interest = Interest {
        pods: Pods::OfNode(args.kubernetes_node().to_owned()),
        only_services: false,
        written: Written::Nothing,
    };
    let source::Followed { snapshots, states, server } =
        args.source.follow_in(Memory::Own(run_dir.join("accepted")), &interest, &args.project).await?;
    let identity = Identity::of(args, private_key);
    let server = server.map(|(cluster, watched)| Registered {
        report: keep(cluster, watched.told, identity),
        heard: watched.heard,
    });
    Ok((snapshots, states, server))
}

/// Keeps the TunnelNode from a task of its own for as long as the sender lives.
fn keep(cluster: Cluster, mut told: watch::Receiver<Told>, identity: Identity) -> watch::Sender<Report> {
    let (sender, mut reports) = watch::channel(Report::default());
    tokio::spawn(async move {
        let mut written = None;
        let mut wait = FIRST_WAIT;
        loop {
            let document = identity.document(&reports.borrow_and_update());
            let is_there = identity.is_asked_for(&told.borrow_and_update());
            if written.as_ref() != Some(&document) || !is_there {
                let resource = Resource::of(Kind::TunnelNode);
                match cluster.apply(&resource, MANAGER, None, &document).await {
                    Ok(_) => (written, wait) = (Some(document), FIRST_WAIT),
                    Err(error) => {
                        let error = format!("{:#}", anyhow::Error::new(error));
                        tracing::warn!(error, "the node's TunnelNode cannot be written");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(LONGEST_WAIT);
                        continue;
                    }
                }
            }
            tokio::time::sleep(PACE).await;
            let changed = tokio::select! {
                changed = reports.changed() => changed,
                changed = told.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    sender
}

/// What the agent says of its node now.
pub fn report(agent: &mut Agent) -> Report {
    let generation =
        |key: &ObjectKey| agent.snapshot.objects.get(key).and_then(|object| object.metadata.generation);
    let mut connections = Vec::new();
    let exact = agent.applied.is_exact();
    let mut not_guardable = view::not_guardable(&agent.applied.compiled);
    for (number, count) in view::active_pods(&agent.applied.compiled) {
        let Some(key) = agent.applied.compiled.connections.get(&number) else { continue };
        if count.matched == 0 || !exact {
            continue;
        }
        connections.push(ReportedConnection {
            name: format!("{}/{}", key.namespace, key.name),
            generation: generation(key).unwrap_or_default(),
            pods: u32::try_from(count.matched).unwrap_or(u32::MAX),
            live: u32::try_from(count.active).unwrap_or(u32::MAX),
            not_guardable: not_guardable.remove(&number).unwrap_or_default(),
        });
    }
    connections.sort_by(|left, right| left.name.cmp(&right.name));
    Report { boot_id: boot_id(), conditions: view::role_conditions(agent), connections }
}

/// The kernel's id of this boot; empty where it does not say.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
