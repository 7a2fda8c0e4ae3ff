//! `cluster`: real Kubernetes nodes in network namespaces and folders of their own (`tests/src/cluster.rs`), or the
//! cluster that `KUBECONFIG` names.

pub mod existing;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use crate::{build, image, kubernetes, process, setup, test};

/// What a node needs beside Kubernetes' own binaries.
const PACKAGES: &[&str] = &[
    "busybox-static", // the image of the node's own and of test pods
    "conntrack",      // called by kube-proxy
    "containerd",
    "containernetworking-plugins",
    "iproute2",
    "iptables", // called by kube-proxy
    "runc",
    "socat", // called for `kubectl port-forward`
];

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Several may be up at a time, each under its own name
    #[arg(long, global = true, default_value = "cluster")]
    name: String,
}

#[derive(Clone, Copy, Subcommand)]
enum Action {
    /// Start it, unless it is up, and say how to use it; with KUBECONFIG set: say which cluster that is
    Up {
        /// How pods are joined to the node
        #[arg(long, value_enum, default_value = "ptp")]
        cni: Cni,
        /// A second one is for a gateway, which shares none with an agent
        #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=2))]
        nodes: u8,
    },
    /// End every process of it and remove everything; not of a cluster that KUBECONFIG names
    Down,
    /// Say whether it is up and how to use it
    Status,
    /// Run the tests of the tier cluster: in a cluster of their own, from nothing, with the image
    ///
    /// With KUBECONFIG set: install enforcer in that cluster, which must not have it, show that it works, and take all of it
    /// away again. A node must have the label enforcer.dev/gateway. ENFORCER_IMAGE names an image of enforcer that nodes have
    /// or pull, ENFORCER_POSTGRES_IMAGE one of PostgreSQL (postgres:15), ENFORCER_SET more KEY=VALUE for `install`.
    Test,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Cni {
    /// Routed: each pod by a route to its device
    Ptp,
    /// Bridged: all pods by one bridge
    Bridge,
}

pub fn run(args: &Args) -> Result<()> {
    match args.action {
        Action::Up { .. } | Action::Status if existing::is_named() => existing::describe(),
        Action::Down if existing::is_named() => existing::refuse_to_end(),
        Action::Up { cni, nodes } => process::exec(&mut up(&args.name, Shape { cni, nodes }, &[])?),
        Action::Down => process::exec(&mut lab(&["down", &args.name])?),
        Action::Status => process::exec(&mut lab(&["status", &args.name])?),
        Action::Test => test::run(&test::tier_cluster()),
    }
}

/// What is to be started.
#[derive(Clone, Copy)]
pub struct Shape {
    pub cni: Cni,
    pub nodes: u8,
}

/// Builds the lab, which does it all.
fn lab(args: &[&str]) -> Result<Command> {
    build::run(&build::Args::default())?;
    let mut lab = process::command(build::binary("enforcer-lab", false));
    lab.arg("cluster").args(args);
    Ok(lab)
}

fn up(name: &str, shape: Shape, images: &[PathBuf]) -> Result<Command> {
    setup::packages(PACKAGES)?;
    let cni = match shape.cni {
        Cni::Ptp => "ptp",
        Cni::Bridge => "bridge",
    };
    let programs = kubernetes::everything()?;
    let mut lab = lab(&["up", name, cni, &shape.nodes.to_string()])?;
    lab.arg(programs).args([image::busybox()?, image::machine()?]).args(images);
    Ok(lab)
}

/// A new cluster for tests, with the image of enforcer in it. Goes when this does.
#[derive(Debug)]
pub struct Up;

impl Up {
    /// Not that of a developer, who may have one up for other things.
    pub const NAME: &str = "test";

    pub fn with_image(shape: Shape) -> Result<Self> {
        let image = image::for_tests()?;
        process::run(&mut lab(&["down", Self::NAME])?)?;
        process::run(&mut up(Self::NAME, shape, &[image])?)?;
        Ok(Self)
    }

    /// Lets a command of cargo's see the one that is up as any other cluster, with two nodes, one of them for a gateway.
    pub fn as_existing(cargo: &mut Command) -> Result<()> {
        let dir = Path::new("/run/enforcer-lab").join(Self::NAME);
        let kubectl = dir.join("kubectl");
        let node = format!("node2-{}", Self::NAME);
        process::run(process::command(&kubectl).args(["label", "node", &node, "enforcer.dev/gateway="]))?;
        let runner = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", env::consts::ARCH.to_uppercase());
        cargo
            // Tests reach the server from where it is, and know of the lab no more than that.
            .env(runner, format!("nsenter --net=/run/netns/ef-{}-node", Self::NAME))
            .env("KUBECONFIG", dir.join("keys/admin.kubeconfig"))
            .env("ENFORCER_KUBECTL", kubectl)
            .env("ENFORCER_IMAGE", image::NAME)
            .env("ENFORCER_POSTGRES_IMAGE", image::MACHINE)
            .env("ENFORCER_SET", "dns.enabled=true dns.clusterIP=10.96.0.10");
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Err(err) = lab(&["down", Self::NAME]).and_then(|mut lab| process::run(&mut lab)) {
            eprintln!("cluster: {err:#}; `cargo xtask clean-lab` removes the rest");
        }
    }
}
