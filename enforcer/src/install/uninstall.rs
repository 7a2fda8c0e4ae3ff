//! `enforcer uninstall`: every node as it was, then everything that `enforcer install` has made gone, the objects too.
//!
//! The agents' DaemonSet becomes one that cleans its node up: the same pods with the same rights. When all are done,
//! the rest is deleted, in the reverse of the order in which it was made.

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
        "Deployment" => resource("apps", "v1", "Deployment", "deployments", true),
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
        clean_nodes(&cluster, Duration::from_secs(args.timeout), &say).await?;
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

/// Turns agents into cleaners, and waits for all of them.
async fn clean_nodes(cluster: &Cluster, timeout: Duration, say: &impl Fn(&str)) -> anyhow::Result<()> {
    let name = name("agent");
    let Some(found) = cluster.get(&DAEMON_SETS, NAMESPACE, &name).await? else {
        say("there are no agents: what is in the nodes' kernels stays");
        return Ok(());
    };
    let cleaner = cleaner(&found).with_context(|| format!("DaemonSet {name} has no agent"))?;
    if cleaner != found {
        cluster.replace(&DAEMON_SETS, &cleaner).await?;
    }
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        let found = cluster.get(&DAEMON_SETS, NAMESPACE, &name).await?.unwrap_or_default();
        let (clean, all) = progress(&found);
        let line =
            format!("{clean} of {} nodes are clean", all.map_or("?".to_owned(), |all| all.to_string()));
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

/// The DaemonSet with pods that clean up, then do nothing; they are ready when they have. `None`: it has no agent.
fn cleaner(daemon_set: &Value) -> Option<Value> {
    let mut cleaner = daemon_set.clone();
    cleaner["spec"]["updateStrategy"] =
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%" } });
    let pod = &mut cleaner["spec"]["template"]["spec"];
    let agent = pod["containers"].as_array()?.iter().find(|container| container["name"] == "agent")?.clone();
    let role = |more: &[&str]| {
        let mut container = agent.clone();
        for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
            container.as_object_mut()?.remove(probe);
        }
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
    let annotations = &mut cleaner["spec"]["template"]["metadata"]["annotations"];
    if annotations.is_object() {
        annotations["container.apparmor.security.beta.kubernetes.io/cleanup"] = json!("unconfined");
    }
    Some(cleaner)
}

/// How many nodes are clean, and of how many; `None`: nobody has looked at the DaemonSet as it is now.
fn progress(daemon_set: &Value) -> (u64, Option<u64>) {
    let status = &daemon_set["status"];
    let number = |field: &str| status[field].as_u64().unwrap_or_default();
    let is_seen = status["observedGeneration"] == daemon_set["metadata"]["generation"];
    // A pod of before may be ready as well.
    let clean = number("updatedNumberScheduled").min(number("numberReady"));
    (clean, is_seen.then(|| number("desiredNumberScheduled")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_become_cleaners_with_the_same_rights_and_twice_changes_nothing() {
        let served = Served::newest();
        let documents = manifests(&Values::default(), &served).documents;
        let agent = documents.into_iter().find(|document| {
            document["metadata"]["name"] == "enforcer-agent" && document["kind"] == "DaemonSet"
        });
        let agent = agent.unwrap();
        let once = cleaner(&agent).unwrap();
        assert_eq!(cleaner(&once).unwrap(), once);
        let (old, new) = (&agent["spec"]["template"]["spec"], &once["spec"]["template"]["spec"]);
        for (container, last) in [(&new["initContainers"][0], "--cleanup"), (&new["containers"][0], "--stay")]
        {
            assert_eq!(container["args"].as_array().unwrap().last().unwrap(), last);
            for same in ["image", "env", "securityContext", "volumeMounts"] {
                assert_eq!(container[same], old["containers"][0][same], "{same}");
            }
            assert!(container["readinessProbe"].is_null(), "nobody answers it");
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
