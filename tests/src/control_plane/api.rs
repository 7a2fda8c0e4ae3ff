//! Requests to an API server from within a test, many at once where there are many: a program for each would take its
//! time.

use std::{future::Future, path::PathBuf};

use anyhow::{Context as _, Result};
use enforcer::{
    model::Kind,
    source::kubernetes::{ApiError, Cluster, Connect, Resource},
};
use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinSet};

use super::newer;

/// Requests that are under way at one time.
const AT_ONCE: usize = 16;
/// Owner of the fields that others than ours write.
const MANAGER: &str = "enforcer-tests";

/// The user of a kubeconfig.
pub struct Api {
    runtime: Runtime,
    cluster: Cluster,
}

impl Api {
    pub fn connect(kubeconfig: PathBuf) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a runtime")?;
        let connect = Connect { kubeconfig: Some(kubeconfig), context: None };
        let cluster = runtime.block_on(Cluster::connect(&connect))?;
        Ok(Self { runtime, cluster })
    }

    /// Makes an object; the server's word if it refuses.
    pub fn create(&self, document: &Value) -> Result<Value, ApiError> {
        self.runtime.block_on(self.cluster.create(&resource(document), document))
    }

    /// Writes the fields of a document, as our roles do; the server's word if it refuses.
    pub fn apply(&self, document: &Value, subresource: Option<&str>) -> Result<Value, ApiError> {
        let resource = resource(document);
        self.runtime.block_on(self.cluster.apply(&resource, MANAGER, subresource, document))
    }

    /// Deletes the object of its kind, namespace and name; the server's word if it refuses.
    pub fn delete(&self, document: &Value) -> Result<(), ApiError> {
        let (namespace, name) = place(document);
        self.runtime.block_on(self.cluster.delete(&resource(document), namespace, name))
    }

    /// All of them; the first refusal ends it.
    pub fn create_all(&self, documents: Vec<Value>) -> Result<Vec<Value>> {
        self.each(documents, |cluster, document| async move {
            cluster.create(&resource(&document), &document).await
        })
    }

    /// Writes statuses, as kubelets do.
    pub fn say_all(&self, documents: Vec<Value>) -> Result<Vec<Value>> {
        self.each(documents, |cluster, document| async move {
            cluster.apply(&resource(&document), MANAGER, Some("status"), &document).await
        })
    }

    /// Merges each change into the object of its kind, namespace and name.
    pub fn change_all(&self, changes: Vec<Value>) -> Result<Vec<Value>> {
        self.each(changes, |cluster, change| async move { merge(&cluster, &change).await })
    }

    /// Deletes objects, each named by a document.
    pub fn delete_all(&self, documents: Vec<Value>) -> Result<()> {
        self.each(documents, |cluster, document| async move {
            let (namespace, name) = place(&document);
            cluster.delete(&resource(&document), namespace, name).await.map(|()| Value::Null)
        })
        .map(drop)
    }

    /// The same for one object.
    pub fn change(&self, change: &Value) -> Result<Value, ApiError> {
        self.runtime.block_on(merge(&self.cluster, change))
    }

    /// `None`: there is none.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        self.runtime.block_on(self.cluster.get(resource, namespace, name))
    }

    /// All of a kind, of all namespaces.
    pub fn list(&self, resource: &Resource) -> Result<Vec<Value>, ApiError> {
        self.runtime.block_on(self.cluster.list(resource, "", ""))
    }

    fn each<F: Future<Output = Result<Value, ApiError>> + 'static>(
        &self,
        documents: Vec<Value>,
        request: impl Fn(Cluster, Value) -> F,
    ) -> Result<Vec<Value>> {
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&self.runtime, async {
            let mut running = JoinSet::new();
            let mut answers = Vec::new();
            for document in documents {
                if running.len() >= AT_ONCE {
                    answers.extend(running.join_next().await.transpose()?.transpose()?);
                }
                running.spawn_local(request(self.cluster.clone(), document));
            }
            while let Some(answer) = running.join_next().await {
                answers.push(answer??);
            }
            Ok(answers)
        })
    }
}

async fn merge(cluster: &Cluster, change: &Value) -> Result<Value, ApiError> {
    cluster.merge(&resource(change), place(change), change).await
}

fn place(document: &Value) -> (&str, &str) {
    let text = |field: &str| document["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

/// The kind that a document is of.
fn resource(document: &Value) -> Resource {
    let name = document["kind"].as_str().unwrap_or_default();
    let kind = Kind::ALL.iter().find(|kind| kind.name() == name);
    match kind {
        Some(Kind::EndpointSlice) => Resource::OLD_ENDPOINT_SLICE,
        Some(kind) => Resource::of(*kind),
        None if name == newer::DEFINITION.kind => newer::DEFINITION,
        None => Resource::CONFIG_MAP,
    }
}
