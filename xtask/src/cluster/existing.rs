//! The cluster that `KUBECONFIG` names: used as it is, from where this runs, and neither started nor ended.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    build, image, kubernetes,
    process::{self, command, output},
};

const KUBECONFIG: &str = "KUBECONFIG";
/// `REPOSITORY:TAG` of enforcer that the nodes have or pull.
const IMAGE: &str = "ENFORCER_IMAGE";

/// The only test binary for it.
pub const TESTS: &str = "cluster_existing";

/// Somebody has said which cluster it is.
pub fn is_named() -> bool {
    env::var_os(KUBECONFIG).is_some_and(|files| !files.is_empty())
}

/// Says which cluster it is, and how its nodes are.
pub fn describe() -> Result<()> {
    let kubectl = kubernetes::kubectl()?;
    let server = server(&kubectl)?;
    let said = output(command(&kubectl).args(["version", "--output=json", "--request-timeout=10s"]))
        .with_context(|| format!("{KUBECONFIG}: {server} does not answer"))?;
    let said: Value = serde_json::from_str(&said).context("kubectl prints JSON")?;
    let version = said["serverVersion"]["gitVersion"].as_str().unwrap_or("of no version");
    eprintln!("{KUBECONFIG} is set: Kubernetes {version} at {server} is used as it is\n");
    process::run(command(&kubectl).args(["get", "nodes", "--output=wide"]))
}

/// It is somebody else's.
pub fn refuse_to_end() -> Result<()> {
    let server = server(&kubernetes::kubectl()?)?;
    bail!(
        "{KUBECONFIG} is set: the cluster at {server} is not ours to end; nothing was ended. Unset it to end the lab's"
    )
}

fn server(kubectl: &Path) -> Result<String> {
    let path = "--output=jsonpath={.clusters[0].cluster.server}";
    let server = output(command(kubectl).args(["config", "view", "--minify", path])).unwrap_or_default();
    if server.is_empty() {
        bail!(
            "{KUBECONFIG} is {}, which names no server",
            env::var_os(KUBECONFIG).unwrap_or_default().display()
        );
    }
    Ok(server)
}

/// Tells tests how to reach it, and which image its nodes are to run.
pub fn prepare(cargo: &mut Command) -> Result<()> {
    build::run(&build::Args::default())?;
    let kubectl = kubernetes::kubectl()?;
    eprintln!("test: in the cluster at {}, with {}", server(&kubectl)?, kubectl.display());
    if env::var_os(IMAGE).is_none() {
        let archive = image::for_tests()?;
        eprintln!(
            "test: {IMAGE} names no image: the nodes must have {}, of {}",
            image::NAME,
            archive.display()
        );
        eprintln!("test: on each node: ctr --namespace k8s.io images import {}", name_of(&archive));
        cargo.env(IMAGE, image::NAME);
    }
    cargo.env("ENFORCER_KUBECTL", kubectl);
    Ok(())
}

fn name_of(archive: &Path) -> String {
    PathBuf::from(archive.file_name().unwrap_or_default()).display().to_string()
}
