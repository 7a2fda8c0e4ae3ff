//! Single documents: read, listed, made, changed, deleted. What the server says when it refuses is kept whole.

use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::Value;

use super::{Cluster, Resource};

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
        match self.api(resource, namespace).get_opt(name).await {
            Ok(found) => Ok(found.map(|object| document(resource, &object))),
            Err(error) => Err(ApiError::of(what(resource, namespace, name), error)),
        }
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
        let listed = self.api(resource, namespace).list(&params).await;
        let listed = listed.map_err(|error| ApiError::of(format!("list of {}", resource.plural), error))?;
        Ok(listed.items.iter().map(|object| document(resource, object)).collect())
    }

    /// Makes an object that must not be there yet.
    pub async fn create(&self, resource: &Resource, new: &Value) -> Result<Value, ApiError> {
        let (namespace, name) = (text(new, "namespace"), text(new, "name"));
        let failed = |error| ApiError::of(what(resource, namespace, name), error);
        let object: DynamicObject =
            serde_json::from_value(new.clone()).map_err(|error| failed(kube::Error::SerdeError(error)))?;
        let made = self.api(resource, namespace).create(&PostParams::default(), &object).await;
        made.map(|object| document(resource, &object)).map_err(failed)
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
        let applied = match subresource {
            None => api.patch(name, &params, &patch).await,
            Some(subresource) => api.patch_subresource(subresource, name, &params, &patch).await,
        };
        applied
            .map(|object| document(resource, &object))
            .map_err(|error| ApiError::of(what(resource, namespace, name), error))
    }

    /// A JSON merge patch, for objects of which only a little is ours.
    pub async fn merge(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        change: &Value,
    ) -> Result<Value, ApiError> {
        let patched =
            self.api(resource, namespace).patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
        patched
            .map(|object| document(resource, &object))
            .map_err(|error| ApiError::of(what(resource, namespace, name), error))
    }

    /// Replaces an object; its `resourceVersion` must be the one that is there.
    pub async fn replace(&self, resource: &Resource, new: &Value) -> Result<Value, ApiError> {
        let (namespace, name) = (text(new, "namespace"), text(new, "name"));
        let failed = |error| ApiError::of(what(resource, namespace, name), error);
        let object: DynamicObject =
            serde_json::from_value(new.clone()).map_err(|error| failed(kube::Error::SerdeError(error)))?;
        let replaced = self.api(resource, namespace).replace(name, &PostParams::default(), &object).await;
        replaced.map(|object| document(resource, &object)).map_err(failed)
    }

    /// Deletes it, and what it owns after it.
    pub async fn delete(&self, resource: &Resource, namespace: &str, name: &str) -> Result<(), ApiError> {
        let deleted = self.api(resource, namespace).delete(name, &DeleteParams::background()).await;
        deleted.map(|_| ()).map_err(|error| ApiError::of(what(resource, namespace, name), error))
    }

    /// Versions that the server has of a group, the preferred one first; empty where it does not know the group.
    pub async fn versions(&self, group: &str) -> Result<Vec<String>, ApiError> {
        let groups = self.client.list_api_groups().await;
        let groups = groups.map_err(|error| ApiError::of("list of API groups".to_owned(), error))?;
        let found = groups.groups.into_iter().find(|found| found.name == group);
        Ok(found.map_or_else(Vec::new, |found| {
            found.versions.into_iter().map(|version| version.version).collect()
        }))
    }

    /// `v1.20.2`
    pub async fn version(&self) -> Result<String, ApiError> {
        let version = self.client.apiserver_version().await;
        version
            .map(|version| version.git_version)
            .map_err(|error| ApiError::of("version of the API server".to_owned(), error))
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
