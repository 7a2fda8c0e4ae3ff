//! Objects at a Kubernetes API server.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{Place, absence, key_of};
use crate::{
    model::{Kind, ObjectKey},
    source::kubernetes::{ApiError, Cluster, Connect, Resource},
};

pub struct Api {
    runtime: Runtime,
    cluster: Cluster,
    /// Until a server that says nothing counts as gone.
    patience: Duration,
}

impl Api {
    /// Reads the configuration; the server is asked later.
    pub fn connect(connect: &Connect, patience: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime")?;
        let cluster = runtime.block_on(Cluster::connect(connect))?;
        Ok(Self { runtime, cluster, patience })
    }

    fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, ApiError>>,
    ) -> anyhow::Result<Result<T, ApiError>> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(self.patience, question).await });
        answer.map_err(|_| anyhow!("the API server has not answered within {} s", self.patience.as_secs()))
    }

    fn resource(&self, kind: Kind) -> anyhow::Result<Resource> {
        match kind {
            Kind::EndpointSlice => Ok(self.ask(self.cluster.endpoint_slices())??),
            _ => Ok(Resource::of(kind)),
        }
    }

    /// Whether the server knows the kind at all.
    fn is_known(&self, kind: Kind) -> bool {
        let listed = self.ask(self.cluster.list(&Resource::of(kind), "", "enforcer.dev/none=none"));
        !matches!(listed, Ok(Err(ApiError::NotFound { .. })))
    }

    /// What a new object is at the server, or why there is none.
    fn made(&self, document: &Value, made: Result<Value, ApiError>) -> anyhow::Result<Value> {
        let key = key_of(document)?;
        match made {
            Ok(made) => Ok(made),
            Err(ApiError::NotFound { .. }) if !self.is_known(key.kind) => Err(Self::unknown(key.kind)),
            // What else is missing is the namespace.
            Err(ApiError::NotFound { .. }) => {
                let namespace = ObjectKey::new(Kind::Namespace, "", &key.namespace);
                bail!("{key}: {}", absence(self, &namespace))
            }
            Err(ApiError::Conflict { .. }) => {
                bail!("{key} exists already: delete it first, or change it with kubectl edit")
            }
            Err(error) => Err(error.into()),
        }
    }

    fn unknown(kind: Kind) -> anyhow::Error {
        anyhow!("the API server knows no {kind}: expected enforcer's definitions to be installed there")
    }
}

impl Place for Api {
    fn home(&self) -> &str {
        self.cluster.namespace()
    }

    fn project(&self) -> Option<&str> {
        Some(self.cluster.namespace())
    }

    fn list(&self, kind: Kind, project: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let resource = self.resource(kind)?;
        match self.ask(self.cluster.list(&resource, project.unwrap_or_default(), ""))? {
            Err(ApiError::NotFound { .. }) => Err(Self::unknown(kind)),
            listed => Ok(listed?),
        }
    }

    fn get(&self, key: &ObjectKey) -> anyhow::Result<Option<Value>> {
        let resource = self.resource(key.kind)?;
        let found = self.ask(self.cluster.get(&resource, &key.namespace, &key.name))??;
        if found.is_none() && !self.is_known(key.kind) {
            return Err(Self::unknown(key.kind));
        }
        Ok(found)
    }

    fn create(&self, document: &Value) -> anyhow::Result<String> {
        let made = self.ask(self.cluster.create(&Resource::of(key_of(document)?.kind), document))?;
        self.made(document, made).map(|_| String::new())
    }

    fn try_create(&self, document: &Value) -> anyhow::Result<Value> {
        let made = self.ask(self.cluster.try_create(&Resource::of(key_of(document)?.kind), document))?;
        self.made(document, made)
    }

    fn try_delete(&self, key: &ObjectKey) -> anyhow::Result<()> {
        let resource = self.resource(key.kind)?;
        Ok(self.ask(self.cluster.try_delete(&resource, &key.namespace, &key.name))??)
    }

    fn delete(&self, key: &ObjectKey) -> anyhow::Result<String> {
        let resource = self.resource(key.kind)?;
        self.ask(self.cluster.delete(&resource, &key.namespace, &key.name))??;
        Ok(String::new())
    }

    /// Connections are ready when nodes have them; all else is as good as its controller says.
    fn last_condition(&self, kind: Kind) -> &'static str {
        if kind == Kind::ServiceConnection { "Ready" } else { "Valid" }
    }

    fn events(&self, object: &Value) -> anyhow::Result<Vec<Value>> {
        let of = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Ok(self.ask(self.cluster.events(of("namespace"), of("uid")))??)
    }

    fn remains(&self, key: &ObjectKey) -> anyhow::Result<Option<String>> {
        let Some(object) = self.get(key)? else { return Ok(None) };
        let finalizers = object["metadata"]["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let finalizers: Vec<_> = finalizers.iter().filter_map(Value::as_str).collect();
        Ok(Some(match finalizers.as_slice() {
            [] => "it is still there".to_owned(),
            held => format!("it is held by {}", held.join(" and ")),
        }))
    }
}
