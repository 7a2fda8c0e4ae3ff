//! `cluster`: a real Kubernetes node in network namespaces and folders of its own (`tests/src/cluster.rs`).

use std::{path::PathBuf, process::Command};

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
    /// Start it, unless it is up, and say how to use it
    Up {
        /// How pods are joined to the node
        #[arg(long, value_enum, default_value = "ptp")]
        cni: Cni,
    },
    /// End every process of it and remove everything
    Down,
    /// Say whether it is up and how to use it
    Status,
    /// Run the tests of the tier cluster: in a cluster of their own, from nothing, with the image
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
        Action::Up { cni } => process::exec(&mut up(&args.name, cni, &[])?),
        Action::Down => process::exec(&mut lab(&["down", &args.name])?),
        Action::Status => process::exec(&mut lab(&["status", &args.name])?),
        Action::Test => test::run(&test::tier_cluster()),
    }
}

/// Builds the lab, which does it all.
fn lab(args: &[&str]) -> Result<Command> {
    build::run(&build::Args::default())?;
    let mut lab = process::command(build::binary("enforcer-lab", false));
    lab.arg("cluster").args(args);
    Ok(lab)
}

fn up(name: &str, cni: Cni, images: &[PathBuf]) -> Result<Command> {
    setup::packages(PACKAGES)?;
    let cni = match cni {
        Cni::Ptp => "ptp",
        Cni::Bridge => "bridge",
    };
    let programs = kubernetes::everything()?;
    let mut lab = lab(&["up", name, cni])?;
    lab.arg(programs).args([image::busybox()?, image::machine()?]).args(images);
    Ok(lab)
}

/// A new cluster for tests, with the image of enforcer in it. Goes when this does.
#[derive(Debug)]
pub struct Up;

impl Up {
    /// Not that of a developer, who may have one up for other things.
    pub const NAME: &str = "test";

    pub fn with_image(cni: Cni) -> Result<Self> {
        let image = image::for_tests()?;
        process::run(&mut lab(&["down", Self::NAME])?)?;
        process::run(&mut up(Self::NAME, cni, &[image])?)?;
        Ok(Self)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Err(err) = lab(&["down", Self::NAME]).and_then(|mut lab| process::run(&mut lab)) {
            eprintln!("cluster: {err:#}; `cargo xtask clean-lab` removes the rest");
        }
    }
}
