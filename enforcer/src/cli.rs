//! The command line: which role or question it is, and what a person reads.
//!
//! Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 there is no such object.

mod ask;
mod check;
mod describe;
mod kinds;
mod monitor;
mod out;
mod role;
mod status;
mod table;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::{agent, controller, datapath::load, dns, gateway, install, keygen, tunnel};

/// Lets chosen workloads, and nobody else, reach services outside the cluster.
#[derive(Debug, Parser)]
#[command(name = "enforcer", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give out addresses, and say of every object whether it works
    Controller(controller::Args),
    /// Answer the names of services, and forward nothing
    Dns(dns::Args),
    /// Keep this node's kernel at what the objects say
    Agent(agent::Args),
    /// Show how a role is doing
    Status(ask::StatusArgs),
    /// List objects, or show one, with their status
    Get(ask::GetArgs),
    /// Explain one object: what it says, whether it works, and why not
    Describe(describe::DescribeArgs),
    /// Say why a pod can connect, or why it cannot
    Check(check::CheckArgs),
    /// Follow verdicts as they are made, one line each
    Monitor(monitor::MonitorArgs),
    /// Make a WireGuard key, or reuse one, and print the object with its public half
    Keygen(keygen::Args),
    /// Print everything that a cluster needs, for `kubectl apply -f -`
    Install(install::Args),
    /// Run the far end of the tunnel, beside the services
    Gateway(gateway::Args),
    /// Load programs on an interface and show what they cost: the kernel developer's loop
    #[command(hide = true)]
    Load(load::Args),
    /// Serve tunnel devices with WireGuard in user space
    Tunnel(tunnel::process::Args),
}

/// Runs the command line and returns the exit code; errors go to standard error.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            out::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Controller(args) => role::run(controller::run(args)),
        Command::Dns(args) => role::run(dns::run(args)),
        Command::Agent(args) if args.is_boot_guard() => {
            role::run(async move { Ok(out::data(&agent::prepare(&args).await?)?) })
        }
        Command::Agent(args) => {
            args.use_host_mounts()?;
            role::run(agent::run(args))
        }
        Command::Status(args) => ask::status(&args),
        Command::Get(args) => ask::get(&args),
        Command::Describe(args) => describe::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Monitor(args) => monitor::run(&args),
        Command::Keygen(args) => Ok(out::data(&keygen::manifest(&args)?).map(|()| ExitCode::SUCCESS)?),
        Command::Install(args) => install(&args),
        Command::Gateway(args) => role::run(gateway::run(args)),
        Command::Load(args) => role::run(load::run(args)),
        Command::Tunnel(args) => role::run(tunnel::process::run(args)),
    }
}

fn install(args: &install::Args) -> anyhow::Result<ExitCode> {
    if let Some((format, folder)) = args.package() {
        install::package::write(format, folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let manifests = runtime.context("cannot start the runtime")?.block_on(install::run(args))?;
    manifests.notes.iter().for_each(|note| out::note(&format!("enforcer: {note}")));
    out::data(&manifests.yaml()?)?;
    Ok(ExitCode::SUCCESS)
}

/// `enforcer get … | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of the README's shell blocks that call this binary.
    fn commands() -> Vec<&'static str> {
        let readme = include_str!("../../README.md");
        let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        blocks.flat_map(str::lines).filter(|line| line.starts_with("enforcer ")).collect()
    }

    #[test]
    fn the_command_line_takes_every_command_of_the_readme() {
        for command in commands() {
            // What it is piped into is another program's.
            let own = command.split(" | ").next().unwrap_or_default();
            if let Err(error) = Cli::try_parse_from(own.split(' ')) {
                panic!("{command}: {error}");
            }
        }
        assert!(commands().len() >= 10, "the README has its commands where this test looks");
    }
}
