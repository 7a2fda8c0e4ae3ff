//! `cargo xtask`: everything a developer and CI run, one file a task.

mod bench;
mod build;
mod clean_lab;
mod cluster;
mod demo;
mod deploy;
mod image;
mod kubernetes;
mod load;
mod process;
mod setup;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything a developer of enforcer runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what build, demo and tests need (Debian, as root); does nothing when all is there
    Setup(setup::Args),
    /// Build the BPF object and the binaries
    Build(build::Args),
    /// Build, then load the programs on an interface and print the verifier's statistics
    Load(load::Args),
    /// Run the whole thing with real servers in network namespaces and show what happens
    Demo(demo::Args),
    /// Run the tests; without a tier: setup and every tier that fits this machine
    Test(test::Args),
    /// Start and end a real Kubernetes cluster of one node, in namespaces of its own
    Cluster(cluster::Args),
    /// Build a container image of the static binary
    Image(image::Args),
    /// Measure what a verdict costs
    Bench(bench::Args),
    /// Run a command on another kernel, in QEMU, with this machine's files
    Vm(vm::Args),
    /// Make the kustomize base and the Helm chart anew, from what `enforcer install` prints
    Deploy,
    /// Check the rules of the code base that no compiler checks
    Tidy,
    /// Remove what labs of killed processes left behind
    CleanLab,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup(args) => setup::run(args),
        Task::Build(args) => build::run(&args),
        Task::Load(args) => load::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Cluster(args) => cluster::run(&args),
        Task::Image(args) => image::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Deploy => deploy::run(),
        Task::Tidy => tidy::run(),
        Task::CleanLab => clean_lab::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("xtask: {err:#}");
            ExitCode::FAILURE
        }
    }
}
