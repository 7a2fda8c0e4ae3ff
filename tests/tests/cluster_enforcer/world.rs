//! The cluster with enforcer on it, and objects that tests share.

use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::{Context as _, Result};
use enforcer_tests::{
    cluster::{
        Cluster,
        enforcer::{Installed, NAME},
        pods::{Pod, machine},
    },
    lab::{network::SERVER4, query::Answer, wait},
    objects,
};
use serde_json::{Value, json};

/// Where every connection of these tests leads.
pub const HOST: &str = "postgres-pg.shop.svc.cluster.local";

/// A project, a namespace that is none, and a database that pods labelled `app: web` may use.
fn objects(gateway: &str) -> String {
    let project = objects::postgres("shop", gateway, SERVER4) + &objects::connection("shop", NAME, "web");
    objects::namespaces(&["shop", "other"]) + &project
}

static WORLD: LazyLock<Option<Installed>> = LazyLock::new(|| {
    let cluster = Cluster::of_tests().expect("the cluster is up")?;
    let installed = Installed::on(cluster).expect("enforcer is installed");
    installed.apply(&objects(&installed.cluster.id().gateway())).expect("the objects are taken");
    installed.wait_for("postgres", "pg", "Ready", "True Ready: ").expect("it has an address and a name");
    installed.wait_for("serviceconnection", "web", "Ready", "True Ready: ").expect("it is in force");
    Some(installed)
});
/// Some tests take the agent away, or the node.
static TURN: RwLock<()> = RwLock::new(());

/// Beside others who change nothing but their own pods and connections.
pub fn shared() -> Option<(&'static Installed, RwLockReadGuard<'static, ()>)> {
    let world = WORLD.as_ref()?;
    Some((world, TURN.read().unwrap_or_else(PoisonError::into_inner)))
}

/// With nobody beside.
pub fn alone() -> Option<(&'static Installed, RwLockWriteGuard<'static, ()>)> {
    let world = WORLD.as_ref()?;
    Some((world, TURN.write().unwrap_or_else(PoisonError::into_inner)))
}

/// Lets pods of `shop` with this label `app` reach the database, with the command that people use.
pub fn grant(world: &Installed, app: &str) -> Result<()> {
    world.cluster.enforcer(&[
        "create",
        "serviceconnection",
        app,
        "--namespace=shop",
        "--source=KubernetesCluster/lab",
        &format!("--source-pod-selector=app={app}"),
        "--destination=Postgres/pg",
        "--wait",
    ])?;
    Ok(())
}

/// Takes the connection away.
pub fn revoke(world: &Installed, app: &str) -> Result<()> {
    world.cluster.kubectl(&["delete", "serviceconnection", app, "--namespace", "shop"])?;
    Ok(())
}

/// Runs until it is told to end.
pub const WAIT: &[&str] = &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"];

/// How a pod is to differ from one of `shop` in a network of its own.
#[derive(Clone, Copy, Default)]
pub struct Like {
    pub namespace: Option<&'static str>,
    pub host_network: bool,
}

/// A running pod that waits to be told to end.
pub fn pod(world: &'static Installed, name: &str, app: &str, like: Like) -> Result<Pod<'static>> {
    let mut spec = machine(WAIT)?;
    if like.host_network {
        spec["hostNetwork"] = json!(true);
        spec["dnsPolicy"] = json!("ClusterFirstWithHostNet");
    }
    let namespace = like.namespace.unwrap_or("shop");
    let pod = start(world, name, namespace, app, spec)?;
    pod.wait("Running")?;
    Ok(pod)
}

/// A pod that is only made.
pub fn start(
    world: &'static Installed,
    name: &str,
    namespace: &str,
    app: &str,
    spec: Value,
) -> Result<Pod<'static>> {
    let metadata = json!({ "name": name, "namespace": namespace, "labels": { "app": app } });
    Pod::start(&world.cluster, &metadata, spec)
}

/// Asks the database from the pod until this is the answer.
pub fn wait_for(pod: &Pod, wanted: &Answer) -> Result<()> {
    let mut last = String::new();
    let got = wait::until(&format!("the pod's answer is \"{wanted}\""), || match pod.query(HOST) {
        Ok(answer) if answer == *wanted => Some(()),
        Ok(answer) => {
            last = answer.to_string();
            None
        }
        Err(err) => {
            last = format!("{err:#}");
            None
        }
    });
    got.with_context(|| format!("it is \"{last}\""))
}
