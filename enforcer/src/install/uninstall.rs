//! `enforcer uninstall`: every node as it was, then everything that `enforcer install` has made gone, the objects too.
//!
//! What runs agents and the gateway becomes what cleans their nodes up: the same pods with the same rights. When all are
//! done, the rest is deleted, in the reverse of the order in which it was made.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{NAMESPACE, manifests, name, served::Served, server, values::Values};
use crate::source::kubernetes::{ApiError, Cluster, Connect, Resource};

/// Between two looks at how far the nodes are.
const LOOK: Duration = Duration::from_secs(1);

/// What `enforcer uninstall` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do it; without this only say what would go
    #[arg(long)]
    yes: bool,
    /// Leave what is in the nodes' kernels: for nodes that are gone anyway
    #[arg(long)]
    leave_nodes: bool,
    /// How long nodes may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    connect: Connect,
}

const DAEMON_SETS: Resource = resource("apps", "v1", "DaemonSet", "daemonsets", true);
const DEPLOYMENTS: Resource = resource("apps", "v1", "Deployment", "deployments", true);
/// Roles that leave something on their nodes.
const ROLES: [(&str, Resource); 2] = [("agent", DAEMON_SETS), ("gateway", DEPLOYMENTS)];

const fn resource(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { group, version, kind, plural, namespaced }
}

/// Every kind that an install has documents of, with the version that any server has.
fn resource_of(kind: &str, served: &Served) -> Option<Resource> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    const ADMISSION: &str = "admissionregistration.k8s.io";
    let policy = if served.has(super::served::POLICY) { "v1" } else { "v1beta1" };
    let admission = if served.has(super::ADMISSION) { "v1" } else { "v1beta1" };
    Some(match kind {
        "ClusterRole" => resource(RBAC, "v1", "ClusterRole", "clusterroles", false),
        "ClusterRoleBinding" => resource(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", false),
        "CustomResourceDefinition" => resource(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            false,
        ),
        "DaemonSet" => DAEMON_SETS,
        "Deployment" => DEPLOYMENTS,
        "Namespace" => resource("", "v1", "Namespace", "namespaces", false),
        "PodDisruptionBudget" => {
            resource("policy", policy, "PodDisruptionBudget", "poddisruptionbudgets", true)
        }
        "Role" => resource(RBAC, "v1", "Role", "roles", true),
        "RoleBinding" => resource(RBAC, "v1", "RoleBinding", "rolebindings", true),
        "Service" => resource("", "v1", "Service", "services", true),
        "ServiceAccount" => resource("", "v1", "ServiceAccount", "serviceaccounts", true),
        "ValidatingAdmissionPolicy" => {
            resource(ADMISSION, admission, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false)
        }
        "ValidatingAdmissionPolicyBinding" => resource(
            ADMISSION,
            admission,
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            false,
        ),
        _ => return None,
    })
}

/// Does it, and says each step through `say`.
pub async fn run(args: &Args, say: impl Fn(&str)) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&args.connect).await?;
    let served = server::served(&cluster).await?;
    let all = everything(&served);
    if !args.yes {
        for (resource, name) in &all {
            say(&format!("would go: {} {name}", resource.kind));
        }
        bail!("with all objects of enforcer.dev, and with what is in the nodes' kernels; --yes does it");
    }
    if !args.leave_nodes {
        for (role, resource) in &ROLES {
            clean_nodes(&cluster, role, resource, Duration::from_secs(args.timeout), &say).await?;
        }
    }
    for (resource, name) in all {
        let namespace = if resource.namespaced { NAMESPACE } else { "" };
        match cluster.delete(&resource, namespace, &name).await {
            Ok(()) => say(&format!("{} {name} is gone", resource.kind)),
            Err(ApiError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What any install may have made, the last first.
fn everything(served: &Served) -> Vec<(Resource, String)> {
    let mut values = Values::default();
    (values.gateway.enabled, values.dns.enabled, values.tunnel.enabled) = (true, true, true);
    let documents = manifests(&values, served).documents;
    let target = |document: &Value| {
        let resource = resource_of(document["kind"].as_str()?, served)?;
        Some((resource, document["metadata"]["name"].as_str()?.to_owned()))
    };
    documents.iter().rev().filter_map(target).collect()
}

/// Turns all pods of a role into cleaners, and waits for them.
async fn clean_nodes(
    cluster: &Cluster,
    role: &str,
    resource: &Resource,
    timeout: Duration,
    say: &impl Fn(&str),
) -> anyhow::Result<()> {
    let name = name(role);
    let Some(found) = cluster.get(resource, NAMESPACE, &name).await? else {
        if role == "agent" {
            say("there are no agents: what is in the nodes' kernels stays");
        }
        return Ok(());
    };
    let cleaner = cleaner(&found, role).with_context(|| format!("{} {name} has no {role}", resource.kind))?;
    if cleaner != found {
        cluster.replace(resource, &cleaner).await?;
    }
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        let found = cluster.get(resource, NAMESPACE, &name).await?.unwrap_or_default();
        let (clean, all) = progress(&found);
        let line = format!(
            "{role}: {clean} of {} nodes are clean",
            all.map_or("?".to_owned(), |all| all.to_string())
        );
        if line != last {
            say(&line);
            last = line;
        }
        if Some(clean) == all {
            return Ok(());
        }
        if begun.elapsed() > timeout {
            bail!("{last}, expected all after {} s; again, or --leave-nodes", timeout.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The same with pods that clean up, then do nothing; they are ready when they have. `None`: it has no such container.
fn cleaner(workload: &Value, role: &str) -> Option<Value> {
    let mut cleaner = workload.clone();
    if cleaner["spec"]["updateStrategy"].is_object() {
        cleaner["spec"]["updateStrategy"] =
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%" } });
    }
    let pod = &mut cleaner["spec"]["template"]["spec"];
    // A cleaner needs no key, and none may be there.
    let is_key = |item: &Value| item["name"] == "key";
    if let Some(volumes) = pod["volumes"].as_array_mut() {
        volumes.retain(|volume| !is_key(volume));
    }
    let container = pod["containers"].as_array()?.iter().find(|container| container["name"] == role)?.clone();
    let role = |more: &[&str]| {
        let mut container = container.clone();
        for field in ["readinessProbe", "livenessProbe", "startupProbe", "ports"] {
            container.as_object_mut()?.remove(field);
        }
        container["volumeMounts"].as_array_mut()?.retain(|mount| !is_key(mount));
        let args = container["args"].as_array_mut()?;
        args.retain(|arg| arg != "--cleanup" && arg != "--stay");
        args.extend(more.iter().map(|arg| json!(arg)));
        Some(container)
    };
    let mut first = role(&["--cleanup"])?;
    first["name"] = json!("cleanup");
    let stay = role(&["--cleanup", "--stay"])?;
    pod["initContainers"] = json!([first]);
    pod["containers"] = json!([stay]);
    // A profile is by the container's name.
    if let Some(annotations) = cleaner.pointer_mut("/spec/template/metadata/annotations") {
        annotations["container.apparmor.security.beta.kubernetes.io/cleanup"] = json!("unconfined");
    }
    Some(cleaner)
}

/// How many nodes are clean, and of how many; `None`: nobody has looked at the DaemonSet or Deployment as it is now.
fn progress(workload: &Value) -> (u64, Option<u64>) {
    let status = &workload["status"];
    let number = |field: &str| status[field].as_u64().unwrap_or_default();
    let is_seen = status["observedGeneration"] == workload["metadata"]["generation"];
    let replicas = workload["spec"]["replicas"].as_u64();
    // A pod of before may be ready as well.
    let clean = match replicas {
        Some(_) => number("updatedReplicas").min(number("readyReplicas")),
        None => number("updatedNumberScheduled").min(number("numberReady")),
    };
    (clean, is_seen.then(|| replicas.unwrap_or_else(|| number("desiredNumberScheduled"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_and_the_gateway_become_cleaners_with_the_same_rights_and_twice_changes_nothing() {
        let mut values = Values::default();
        values.gateway.enabled = true;
        let documents = manifests(&values, &Served::newest()).documents;
        for (role, resource) in ROLES {
            let of_role = |document: &&Value| {
                document["metadata"]["name"] == name(role) && document["kind"] == resource.kind
            };
            let before = documents.iter().find(of_role).unwrap();
            let once = cleaner(before, role).unwrap();
            assert_eq!(cleaner(&once, role).unwrap(), once);
            let (old, new) = (&before["spec"]["template"]["spec"], &once["spec"]["template"]["spec"]);
            let is_key = |item: &Value| item["name"] == "key";
            assert!(!new["volumes"].as_array().unwrap().iter().any(is_key), "none has to be there");
            let mut mounts = old["containers"][0]["volumeMounts"].clone();
            mounts.as_array_mut().unwrap().retain(|mount| !is_key(mount));
            for (container, last) in
                [(&new["initContainers"][0], "--cleanup"), (&new["containers"][0], "--stay")]
            {
                assert_eq!(container["args"].as_array().unwrap().last().unwrap(), last);
                for same in ["image", "env", "securityContext"] {
                    assert_eq!(container[same], old["containers"][0][same], "{same}");
                }
                assert_eq!(container["volumeMounts"], mounts);
                assert!(container["readinessProbe"].is_null(), "nobody answers it");
            }
        }
    }

    #[test]
    fn nodes_are_clean_when_the_pods_of_now_are_ready() {
        let seen = |observed: u64, updated: u64, ready: u64| {
            progress(&json!({
                "metadata": { "generation": 2 },
                "status": { "observedGeneration": observed, "desiredNumberScheduled": 3, "updatedNumberScheduled": updated, "numberReady": ready },
            }))
        };
        assert_eq!(seen(1, 3, 3), (3, None), "that is of the agents");
        assert_eq!(seen(2, 1, 3), (1, Some(3)));
        assert_eq!(seen(2, 3, 2), (2, Some(3)));
        assert_eq!(seen(2, 3, 3), (3, Some(3)));
        let gateway = |ready: u64| {
            progress(&json!({
                "metadata": { "generation": 2 },
                "spec": { "replicas": 1 },
                "status": { "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "readyReplicas": ready },
            }))
        };
        assert_eq!(gateway(0), (0, Some(1)));
        assert_eq!(gateway(1), (1, Some(1)));
    }

    #[test]
    fn whatever_an_install_makes_an_uninstall_removes_the_last_first() {
        for minor in [20, 30] {
            let served = Served::by(super::super::KubeVersion { minor });
            let mut values = Values::default();
            (values.gateway.enabled, values.dns.enabled) = (true, true);
            let made = manifests(&values, &served).documents;
            let name = |document: &Value| {
                format!("{} {} {}", document["apiVersion"], document["kind"], document["metadata"]["name"])
            };
            let made: Vec<String> = made.iter().rev().map(name).collect();
            let gone = everything(&served).into_iter();
            let gone: Vec<String> = gone
                .map(|(resource, name)| {
                    format!("{} {} {}", json!(resource.api_version()), json!(resource.kind), json!(name))
                })
                .collect();
            assert_eq!(gone, made);
        }
    }
}
