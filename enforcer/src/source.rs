//! Where objects come from. Each source publishes [`crate::store::Snapshot`]s through a watch channel; nothing behind
//! the channel knows which source it was.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use tokio::sync::watch;

use crate::{
    state::{self, Condition, State},
    store::Snapshot,
};

mod document;
pub mod kubernetes;
pub mod manifests;

use kubernetes::{Cluster, Connect, Hearing, Interest, Told, Watched};
use manifests::Memory;

/// Where a role has its objects from: one of two.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SourceArgs {
    /// Folder of YAML that has the objects
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubernetes", "kubeconfig", "context"])]
    pub manifests: Option<PathBuf>,
    /// The controller's state file [default: DIR.state.json]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Have the objects from a Kubernetes API server
    #[arg(long)]
    pub kubernetes: bool,
    #[command(flatten)]
    pub connect: Connect,
}

/// Where the objects of ours are, if not where the pods are: an API server that several clusters share.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Project {
    /// kubeconfig of the API server that has connections, destinations and gateways [default: the one that has the pods]
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    pub connections_kubeconfig: Option<PathBuf>,
}

impl Project {
    pub const fn is_elsewhere(&self) -> bool {
        self.connections_kubeconfig.is_some()
    }

    pub async fn server(&self, pods: &Cluster) -> anyhow::Result<Cluster> {
        let Some(path) = &self.connections_kubeconfig else { return Ok(pods.clone()) };
        let connect = Connect { kubeconfig: Some(path.clone()), context: None };
        Cluster::connect(&connect).await.context("--connections-kubeconfig")
    }
}

/// What a role follows.
pub struct Followed {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// `None` while there are no allocations: nothing is concluded then.
    pub states: watch::Receiver<Option<Arc<State>>>,
    /// The API server that has the objects of ours, where one is the source.
    pub server: Option<(Cluster, Watched)>,
}

/// Whether everything can be followed: a condition of a role that has its objects from an API server.
pub fn informed(hearing: &Hearing) -> Condition {
    let Hearing { since, silent } = hearing;
    Condition {
        kind: "Informed".to_owned(),
        status: if silent.is_none() { "True" } else { "False" }.to_owned(),
        reason: if silent.is_none() { "Informed" } else { "NoAnswer" }.to_owned(),
        message: silent.clone().unwrap_or_default(),
        last_transition_time: Some(since.clone()),
    }
}

impl SourceArgs {
    /// The controller's state file; `None` where the objects themselves have the allocations.
    pub fn state_path(&self) -> Option<PathBuf> {
        let manifests = self.manifests.as_ref()?;
        Some(self.state.clone().unwrap_or_else(|| state::default_path(manifests)))
    }

    /// The API server that is meant.
    pub async fn server(&self) -> anyhow::Result<Cluster> {
        let is_meant = self.kubernetes || self.connect.kubeconfig.is_some() || self.connect.context.is_some();
        anyhow::ensure!(is_meant, "where are the objects? expected --manifests DIR, or --kubernetes");
        Cluster::connect(&self.connect).await
    }

    /// Begins to follow; `memory` is for a folder, `interest` for an API server. Call it from within a tokio runtime.
    pub async fn follow(&self, memory: Memory, interest: &Interest) -> anyhow::Result<Followed> {
        self.follow_in(memory, interest, &Project::default()).await
    }

    /// The same where the objects of ours may be at another API server.
    pub async fn follow_in(
        &self,
        memory: Memory,
        interest: &Interest,
        project: &Project,
    ) -> anyhow::Result<Followed> {
        if let (Some(manifests), Some(state)) = (&self.manifests, self.state_path()) {
            let snapshots = manifests::watch(manifests, memory)?;
            return Ok(Followed { snapshots, states: state::watch_state(state), server: None });
        }
        let pods = self.server().await?;
        let cluster = project.server(&pods).await?;
        let watched = cluster.follow_with(&pods, interest);
        let (snapshots, states) = apart(watched.told.clone());
        Ok(Followed { snapshots, states, server: Some((cluster, watched)) })
    }
}

type Apart = (watch::Receiver<Arc<Snapshot>>, watch::Receiver<Option<Arc<State>>>);

/// Objects and allocations in a channel each. Allocations go first: an object that has none waits for them, one whose
/// allocation comes late is concluded twice.
fn apart(mut told: watch::Receiver<Told>) -> Apart {
    let (snapshots, snapshot) = watch::channel(Arc::default());
    let (states, state) = watch::channel(None);
    tokio::spawn(async move {
        while told.changed().await.is_ok() {
            let Told { snapshot, state, .. } = told.borrow_and_update().clone();
            states.send_if_modified(|known| {
                let is_same = match (&*known, &state) {
                    (Some(known), Some(state)) => Arc::ptr_eq(known, state),
                    (known, state) => known.is_none() && state.is_none(),
                };
                *known = state;
                !is_same
            });
            snapshots.send_if_modified(|known| {
                let is_same = Arc::ptr_eq(known, &snapshot);
                *known = snapshot;
                !is_same
            });
            if snapshots.is_closed() && states.is_closed() {
                return;
            }
        }
    });
    (snapshot, state)
}
