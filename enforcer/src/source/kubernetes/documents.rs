//! Single documents: read, listed, made, changed, deleted. What the server says when it refuses is kept whole.

use std::{future::Future, time::Duration};

use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::Value;

use super::{Cluster, Resource};

/// A server that has said nothing for so long does not answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Why the server did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It has no such object, or no such kind.
    #[error("{what}: there is none")]
    NotFound { what: String },
    /// Somebody else has changed it, or it exists already.
    #[error("{what}: {message}")]
    Conflict { what: String, message: String },
    /// The object is not what the server takes; names the field.
    #[error("{what}: {message}")]
    Invalid { what: String, message: String },
    #[error("{what}: not allowed: {message}")]
    Forbidden { what: String, message: String },
    #[error("{what}: the API server does not answer")]
    Silent { what: String },
    /// It did not answer, or not with what was asked for.
    #[error("{what}: the API server cannot be asked")]
    Server {
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
}

impl ApiError {
    fn of(what: String, error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else { return Self::Server { what, source: Box::new(error) } };
        let message = status.message.clone();
        match status.code {
            404 => Self::NotFound { what },
            409 => Self::Conflict { what, message },
            400 | 422 => Self::Invalid { what, message },
            401 | 403 => Self::Forbidden { what, message },
            _ => Self::Server { what, source: Box::new(error) },
        }
    }
}

async fn answer<T>(what: String, request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answered) => answered.map_err(|error| ApiError::of(what, error)),
        Err(_) => Err(ApiError::Silent { what }),
    }
}

/// `Postgres shop/orders`
fn what(resource: &Resource, namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        format!("{} {name}", resource.kind)
    } else {
        format!("{} {namespace}/{name}", resource.kind)
    }
}

fn text<'a>(document: &'a Value, field: &str) -> &'a str {
    document["metadata"][field].as_str().unwrap_or_default()
}

impl Cluster {
    fn api(&self, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
        if resource.namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), namespace, &resource.api())
        } else {
            Api::all_with(self.client.clone(), &resource.api())
        }
    }

    /// `None`: there is none of this name.
    pub async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        let found =
            answer(what(resource, namespace, name), self.api(resource, namespace).get_opt(name)).await?;
        Ok(found.map(|object| document(resource, &object)))
    }

    /// All of a namespace, or of all where it is empty; `labels` is a selector, empty for all.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: &str,
        labels: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let params =
            if labels.is_empty() { ListParams::default() } else { ListParams::default().labels(labels) };
        self.listed(resource, namespace, &params).await
    }

    /// Events of the object of this uid.
    pub async fn events(&self, namespace: &str, uid: &str) -> Result<Vec<Value>, ApiError> {
        // What is in no namespace has them in this one.
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        let params = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        self.listed(&Resource::EVENT, namespace, &params).await
    }

    async fn listed(
        &self,
        resource: &Resource,
        namespace: &str,
        params: &ListParams,
    ) -> Result<Vec<Value>, ApiError> {
        let api = self.api(resource, namespace);
        let listed = answer(format!("list of {}", resource.plural), api.list(params)).await?;
        Ok(listed.items.iter().map(|object| document(resource, object)).collect())
    }

    /// Makes an object that must not be there yet.
    pub async fn create(&self, resource: &Resource, new: &Value) -> Result<Value, ApiError> {
        self.create_as(resource, new, &PostParams::default()).await
    }

    /// The server does everything but to keep it: what it would have made.
    pub async fn try_create(&self, resource: &Resource, new: &Value) -> Result<Value, ApiError> {
        self.create_as(resource, new, &PostParams { dry_run: true, ..PostParams::default() }).await
    }

    async fn create_as(
        &self,
        resource: &Resource,
        new: &Value,
        params: &PostParams,
    ) -> Result<Value, ApiError> {
        let (namespace, name) = (text(new, "namespace"), text(new, "name"));
        let what = what(resource, namespace, name);
        let object: DynamicObject = match serde_json::from_value(new.clone()) {
            Ok(object) => object,
            Err(error) => return Err(ApiError::of(what, kube::Error::SerdeError(error))),
        };
        let api = self.api(resource, namespace);
        let made = answer(what, api.create(params, &object)).await?;
        Ok(document(resource, &made))
    }

    /// Server-side apply: the fields of the document become `manager`'s. `subresource` is `status` or nothing.
    ///
    /// A `resourceVersion` in its metadata makes it a condition: [`ApiError::Conflict`] if the object is another one
    /// by now.
    pub async fn apply(
        &self,
        resource: &Resource,
        manager: &str,
        subresource: Option<&str>,
        wanted: &Value,
    ) -> Result<Value, ApiError> {
        let (namespace, name) = (text(wanted, "namespace"), text(wanted, "name"));
        let api = self.api(resource, namespace);
        let params = PatchParams::apply(manager).force();
        let patch = Patch::Apply(wanted);
        let what = what(resource, namespace, name);
        let applied = match subresource {
            None => answer(what, api.patch(name, &params, &patch)).await?,
            Some(part) => answer(what, api.patch_subresource(part, name, &params, &patch)).await?,
        };
        Ok(document(resource, &applied))
    }

    /// Replaces `status` as a whole, whoever has written what of it.
    pub async fn replace_status(&self, resource: &Resource, wanted: &Value) -> Result<Value, ApiError> {
        let (namespace, name) = (text(wanted, "namespace"), text(wanted, "name"));
        let (api, what) = (self.api(resource, namespace), what(resource, namespace, name));
        let mut object = answer(what.clone(), api.get(name)).await?;
        object.data["status"] = wanted["status"].clone();
        let replaced = answer(what, api.replace_status(name, &PostParams::default(), &object)).await?;
        Ok(document(resource, &replaced))
    }

    /// A JSON merge patch, for objects of which only a little is ours.
    pub async fn merge(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        change: &Value,
    ) -> Result<Value, ApiError> {
        let api = self.api(resource, namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(change));
        let patched = answer(what(resource, namespace, name), api.patch(name, &params, &patch)).await?;
        Ok(document(resource, &patched))
    }

    /// Replaces an object; its `resourceVersion` must be the one that is there.
    pub async fn replace(&self, resource: &Resource, new: &Value) -> Result<Value, ApiError> {
        let (namespace, name) = (text(new, "namespace"), text(new, "name"));
        let what = what(resource, namespace, name);
        let object: DynamicObject = match serde_json::from_value(new.clone()) {
            Ok(object) => object,
            Err(error) => return Err(ApiError::of(what, kube::Error::SerdeError(error))),
        };
        let api = self.api(resource, namespace);
        let replaced = answer(what, api.replace(name, &PostParams::default(), &object)).await?;
        Ok(document(resource, &replaced))
    }

    /// Deletes it, and what it owns after it.
    pub async fn delete(&self, resource: &Resource, namespace: &str, name: &str) -> Result<(), ApiError> {
        self.delete_as(resource, (namespace, name), &DeleteParams::background()).await
    }

    /// The server does everything but to delete it.
    pub async fn try_delete(&self, resource: &Resource, namespace: &str, name: &str) -> Result<(), ApiError> {
        self.delete_as(resource, (namespace, name), &DeleteParams::background().dry_run()).await
    }

    async fn delete_as(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        params: &DeleteParams,
    ) -> Result<(), ApiError> {
        let api = self.api(resource, namespace);
        answer(what(resource, namespace, name), api.delete(name, params)).await.map(drop)
    }

    /// Versions that the server has of a group, the preferred one first; empty where it does not know the group.
    pub async fn versions(&self, group: &str) -> Result<Vec<String>, ApiError> {
        let groups = answer("list of API groups".to_owned(), self.client.list_api_groups()).await?;
        let found = groups.groups.into_iter().find(|found| found.name == group);
        Ok(found.map_or_else(Vec::new, |found| {
            found.versions.into_iter().map(|version| version.version).collect()
        }))
    }

    /// `v1.20.2`
    pub async fn version(&self) -> Result<String, ApiError> {
        let version = answer("version of the API server".to_owned(), self.client.apiserver_version()).await?;
        Ok(version.git_version)
    }

    /// What the server has of EndpointSlices.
    pub async fn endpoint_slices(&self) -> Result<Resource, ApiError> {
        let versions = self.versions("discovery.k8s.io").await?;
        let is_new = versions.iter().any(|version| version == "v1");
        Ok(if is_new {
            Resource::of(crate::model::Kind::EndpointSlice)
        } else {
            Resource::OLD_ENDPOINT_SLICE
        })
    }
}

/// Items of a list do not say what they are.
fn document(resource: &Resource, object: &DynamicObject) -> Value {
    let mut document = serde_json::to_value(object).unwrap_or_default();
    document["apiVersion"] = resource.api_version().into();
    document["kind"] = resource.kind.into();
    if let Some(metadata) = document["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    document
}
