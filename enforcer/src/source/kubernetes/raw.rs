//! An object as it comes off the wire, whatever its kind. It lives until it is cut down, a page at a time.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

#[derive(Clone, Debug)]
pub(super) struct Raw {
    meta: ObjectMeta,
    pub document: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut document = Value::deserialize(deserializer)?;
        let metadata = document.get_mut("metadata").map(Value::take).unwrap_or_default();
        let Value::Object(mut fields) = metadata else {
            return Err(D::Error::custom("an object of the API server has no metadata"));
        };
        // The largest part of many objects, and of use to nobody here.
        fields.remove("managedFields");
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        // What the watch itself needs.
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            uid: text("uid"),
            ..ObjectMeta::default()
        };
        document["metadata"] = Value::Object(fields);
        Ok(Self { meta, document })
    }
}

impl kube::Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(api: &ApiResource) -> Cow<'_, str> {
        api.kind.as_str().into()
    }

    fn group(api: &ApiResource) -> Cow<'_, str> {
        api.group.as_str().into()
    }

    fn version(api: &ApiResource) -> Cow<'_, str> {
        api.version.as_str().into()
    }

    fn api_version(api: &ApiResource) -> Cow<'_, str> {
        api.api_version.as_str().into()
    }

    fn plural(api: &ApiResource) -> Cow<'_, str> {
        api.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
