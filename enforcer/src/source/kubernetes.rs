//! A Kubernetes API server as the source of objects, and as the place that the controller writes to.
//!
//! ```text
//! list + watch, one per kind ─▶ View (pure) ─▶ Snapshot, State, Facts
//! ```
//!
//! What a role watches is its own choice ([`Interest`]); objects are cut down to what is used as soon as they arrive.
//! Nothing is taken for gone before a list of its kind is complete, so that neither a start, nor a `410 Gone`, nor an
//! API server that is away removes anything. Allocations are read from the objects' `status`, which only the
//! controller may write.
//!
//! Nothing outside of this folder names `kube`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::sync::watch;

use crate::{model::ObjectKey, state::State, store::Snapshot};

pub mod allocations;
mod documents;
mod facts;
mod hearing;
mod raw;
mod resource;
mod view;
mod watching;

pub use documents::ApiError;
pub use facts::{Facts, NodeFacts, Report, ReportedConnection};
pub use hearing::Hearing;
pub use resource::Resource;
pub use view::DocumentKey;
pub use watching::{Interest, Pods, Written};

/// Where the API server is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connect {
    /// kubeconfig of the API server [default: $KUBECONFIG, ~/.kube/config, the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// A client of one API server; clones share its connections.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    /// The same for whoever asks again at a pace of their own: it passes on what the server says at once.
    direct: kube::Client,
    /// Its URL.
    server: Arc<str>,
    namespace: Arc<str>,
}

/// What is followed, until nobody listens any more.
pub struct Watched {
    /// Empty until every list has been complete once.
    pub told: watch::Receiver<Told>,
    pub heard: watch::Receiver<Hearing>,
}

/// What the watches say together; its parts are of one moment.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub snapshot: Arc<Snapshot>,
    /// `None` until an object's status names the ranges of the install.
    pub state: Option<Arc<State>>,
    /// What the server says of our objects besides what they mean.
    pub facts: Arc<BTreeMap<ObjectKey, Arc<Facts>>>,
    /// Objects that do not say anything that could be understood, each with what is wrong.
    pub refused: Arc<BTreeMap<ObjectKey, String>>,
    /// What a controller of ours has written, for [`Interest::written`].
    pub documents: Arc<BTreeMap<DocumentKey, Arc<Value>>>,
}

/// Label of everything that a controller of ours writes besides status.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "enforcer");

/// Until a connection counts as refused.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Reads the configuration; nothing is asked of the server yet.
    pub async fn connect(connect: &Connect) -> anyhow::Result<Self> {
        let options = KubeConfigOptions { context: connect.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &connect.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)
                    .with_context(|| format!("--kubeconfig {}: cannot be read", path.display()))?;
                let config = kube::Config::from_custom_kubeconfig(file, &options).await;
                config.with_context(|| format!("--kubeconfig {}", path.display()))?
            }
            None if connect.context.is_some() => {
                kube::Config::from_kubeconfig(&options).await.context("--context: no kubeconfig has it")?
            }
            None => kube::Config::infer().await.context(
                "no API server is known: expected --kubeconfig, $KUBECONFIG, ~/.kube/config or a pod's service account",
            )?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        Self::of(config)
    }

    fn of(config: kube::Config) -> anyhow::Result<Self> {
        let namespace = Arc::from(config.default_namespace.as_str());
        let server = Arc::from(config.cluster_url.to_string());
        let mut direct = config.clone();
        direct.default_retry = false;
        let [client, direct] = [config, direct].map(kube::Client::try_from);
        let what = "cannot make a client of the API server";
        Ok(Self { client: client.context(what)?, direct: direct.context(what)?, server, namespace })
    }

    fn without_retries(&self) -> Self {
        Self { client: self.direct.clone(), ..self.clone() }
    }

    /// The namespace of the kubeconfig's context, or of the pod.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Follows what a role is interested in, from tasks of its own. Call it from within a tokio runtime.
    pub fn follow(&self, interest: &Interest) -> Watched {
        watching::follow(self, self, interest)
    }

    /// The same where objects of ours are at this server, and pods and all else at another one.
    pub fn follow_with(&self, pods: &Self, interest: &Interest) -> Watched {
        watching::follow(self, pods, interest)
    }
}
