//! Kinds of the API, ours and Kubernetes', as its paths name them.

use kube::core::{ApiResource, GroupVersionKind};

use crate::model::Kind;

/// A kind of the API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
}

impl Resource {
    pub const LEASE: Self = Self::of_group("coordination.k8s.io", "v1", "Lease", "leases");
    pub const SECRET: Self = Self::of_group("", "v1", "Secret", "secrets");
    pub const CONFIG_MAP: Self = Self::of_group("", "v1", "ConfigMap", "configmaps");
    pub const EVENT: Self = Self::of_group("", "v1", "Event", "events");
    /// Served where `v1` is not, up to 1.20; the fields that are used are the same.
    pub const OLD_ENDPOINT_SLICE: Self =
        Self::of_group("discovery.k8s.io", "v1beta1", "EndpointSlice", "endpointslices");

    const fn of_group(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self { group, version, kind, plural, namespaced: true }
    }

    /// The version that this code is written for.
    pub fn of(kind: Kind) -> Self {
        let (group, version) = kind.api_version().split_once('/').unwrap_or(("", kind.api_version()));
        Self { group, version, kind: kind.name(), plural: kind.plural(), namespaced: kind.namespaced() }
    }

    /// `enforcer.dev/v1alpha1`, `v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub(super) fn api(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_the_path_that_the_server_knows() {
        let path = |kind| {
            let api = Resource::of(kind).api();
            format!("{} {}", api.api_version, api.plural)
        };
        assert_eq!(path(Kind::Pod), "v1 pods");
        assert_eq!(path(Kind::EndpointSlice), "discovery.k8s.io/v1 endpointslices");
        assert_eq!(path(Kind::Postgres), "enforcer.dev/v1alpha1 postgreses");
        assert_eq!(Resource::of(Kind::Pod).api_version(), "v1");
    }
}
