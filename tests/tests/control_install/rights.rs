//! Who may do what: every request is made with the token of every role.

use std::{collections::BTreeSet, path::PathBuf};

use enforcer::{
    model::Kind,
    source::kubernetes::{ApiError, Cluster, Connect, Resource},
};
use enforcer_tests::lab::wait;
use serde_json::json;

use super::installed;

const NAMESPACE: &str = "enforcer-system";
const ROLES: [&str; 6] = ["agent", "controller", "dns", "gateway", "member", "tunnel"];

/// One request: a word for what is tried, the kind, and the namespace.
struct Try {
    what: &'static str,
    resource: Resource,
    namespace: &'static str,
}

fn of(what: &'static str, kind: Kind) -> Try {
    Try { what, resource: Resource::of(kind), namespace: if kind.namespaced() { "shop" } else { "" } }
}

const fn other(what: &'static str, group: &'static str, kind: &'static str, plural: &'static str) -> Try {
    let resource = Resource { group, version: "v1", kind, plural, namespaced: false };
    Try { what, resource, namespace: "" }
}

/// Everything that is tried.
fn tries() -> Vec<Try> {
    let mut tries = Vec::new();
    for what in ["list", "create", "patch", "delete", "patch status of"] {
        for kind in Kind::ALL {
            let mut one = of(what, *kind);
            if *kind == Kind::EndpointSlice {
                one.resource = Resource::OLD_ENDPOINT_SLICE;
            }
            tries.push(one);
        }
    }
    for what in ["list", "create", "patch", "delete"] {
        for resource in [Resource::SECRET, Resource::CONFIG_MAP, Resource::EVENT] {
            tries.push(Try { what, resource, namespace: "shop" });
        }
        tries.push(Try { what, resource: Resource::LEASE, namespace: NAMESPACE });
        tries.push(Try { what, resource: Resource::LEASE, namespace: "shop" });
        let rbac = "rbac.authorization.k8s.io";
        tries.push(other(what, rbac, "ClusterRole", "clusterroles"));
        tries.push(other(what, rbac, "ClusterRoleBinding", "clusterrolebindings"));
        tries.push(other(
            what,
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        ));
    }
    tries
}

impl Try {
    fn name(&self) -> String {
        let place = if self.resource.namespaced { format!(" of {}", self.namespace) } else { String::new() };
        format!("{} {}{place}", self.what, self.resource.plural)
    }

    /// Whether it is allowed; what else is wrong with the request comes after that.
    async fn is_allowed(&self, cluster: &Cluster) -> bool {
        let Self { what, resource, namespace } = self;
        let mut document = json!({ "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": { "name": "tried" } });
        if resource.namespaced {
            document["metadata"]["namespace"] = (*namespace).into();
        }
        let result = match *what {
            "list" => cluster.list(resource, namespace, "").await.map(drop),
            "create" => cluster.create(resource, &document).await.map(drop),
            "patch" => cluster.merge(resource, (namespace, "tried"), &json!({})).await.map(drop),
            "patch status of" => cluster.apply(resource, "tried", Some("status"), &document).await.map(drop),
            _ => cluster.delete(resource, namespace, "tried").await,
        };
        match result {
            Err(ApiError::Forbidden { .. }) => false,
            Ok(())
            | Err(ApiError::NotFound { .. } | ApiError::Invalid { .. } | ApiError::Conflict { .. }) => true,
            Err(error) => panic!("{}: {error:?}", self.name()),
        }
    }
}

/// What a role may do, as it is meant.
fn meant(role: &str) -> BTreeSet<String> {
    let ours: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.is_ours()).collect();
    let name = |what, kind| of(what, kind).name();
    let mut meant = BTreeSet::new();
    if role == "tunnel" {
        return meant;
    }
    if role == "member" {
        meant.extend(ours.iter().map(|kind| name("list", *kind)));
        meant.extend(["create", "patch"].map(|what| name(what, Kind::TunnelNode)));
        return meant;
    }
    meant.extend([Kind::Service, Kind::EndpointSlice].map(|kind| name("list", kind)));
    if role == "dns" {
        return meant;
    }
    meant.extend([Kind::Namespace, Kind::Node, Kind::Pod].map(|kind| name("list", kind)));
    meant.extend(ours.iter().map(|kind| name("list", *kind)));
    match role {
        "agent" => {
            meant.extend(["create", "patch"].map(|what| name(what, Kind::TunnelNode)));
        }
        "controller" => {
            meant.extend(ours.iter().map(|kind| name("patch status of", *kind)));
            meant.insert(name("patch", Kind::Node));
            for what in ["create", "patch", "delete"] {
                let kinds = [Kind::ServiceConnection, Kind::Service, Kind::EndpointSlice];
                meant.extend(kinds.map(|kind| name(what, kind)));
                meant.insert(format!("{what} configmaps of shop"));
            }
            meant.insert("list configmaps of shop".to_owned());
            meant.extend(["create", "patch"].map(|what| format!("{what} leases of enforcer-system")));
            meant.extend(["create", "patch"].map(|what| format!("{what} events of shop")));
        }
        _ => {}
    }
    meant
}

/// What of all that is allowed with the token of a kubeconfig.
async fn allowed(kubeconfig: PathBuf) -> BTreeSet<String> {
    let connect = Connect { kubeconfig: Some(kubeconfig), context: None };
    let cluster = Cluster::connect(&connect).await.expect("it is configured");
    let mut allowed = BTreeSet::new();
    for one in tries() {
        if one.is_allowed(&cluster).await {
            allowed.insert(one.name());
        }
    }
    allowed
}

#[test]
fn every_role_may_do_what_it_is_for_and_is_refused_everything_else() {
    let plane = installed();
    plane.kubectl(&["create", "namespace", "shop"]).expect("it is made");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for role in ROLES {
        let kubeconfig =
            plane.kubeconfig_of(NAMESPACE, &format!("enforcer-{role}")).expect("a token is given");
        let (meant, mut found) = (meant(role), BTreeSet::new());
        // The server reads roles with a delay of its own, and only refuses before.
        wait::for_true("the role is in force", || {
            found = runtime.block_on(allowed(kubeconfig.clone()));
            found.len() >= meant.len()
        })
        .unwrap_or_else(|err| {
            panic!("{role}: {err:#}: lacks {:?}", meant.difference(&found).collect::<Vec<_>>())
        });
        assert_eq!(found, meant, "{role}");
    }
}
