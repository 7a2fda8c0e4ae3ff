//! The command line: which role or question it is, and what a person reads.
//!
//! Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 there is no such object; 4 what `--wait` waited for did
//! not come.

mod ask;
mod check;
mod completions;
mod create;
mod delete;
mod describe;
mod events;
mod failure;
mod get;
mod input;
mod kinds;
mod monitor;
mod names;
mod out;
mod place;
mod role;
mod selector;
mod show;
mod status;
mod table;
mod wait;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use failure::Failure;

use crate::{agent, controller, datapath::load, dns, gateway, install, keygen, model::Kind, tunnel};

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
    /// Make an object: a connection, a service, an application, a gateway
    Create(create::CreateArgs),
    /// List objects, or show one, with their status
    Get(get::GetArgs),
    /// Explain one object: what it says, whether it works, and why not
    Describe(describe::DescribeArgs),
    /// Delete objects by name
    Delete(delete::DeleteArgs),
    /// Say why a pod can connect, or why it cannot
    Check(check::CheckArgs),
    /// Follow verdicts as they are made, one line each
    Monitor(monitor::MonitorArgs),
    /// Make a WireGuard key, or reuse one, and print the object with its public half
    Keygen(keygen::Args),
    /// Print everything that a cluster needs, for `kubectl apply -f -`
    Install(install::Args),
    /// Print what a shell runs to complete commands, kinds and names of objects
    Completions(completions::CompletionsArgs),
    /// Clean every node up, and remove all that was installed
    Uninstall(install::uninstall::Args),
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
    let args: Vec<OsString> = std::env::args_os().collect();
    let done = match completions::answer(&args) {
        Ok(None) => dispatch(parse(args).unwrap_or_else(|error| error.exit()).command),
        Ok(Some(code)) => Ok(code),
        Err(error) => Err(error),
    };
    match done {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            out::error(&error);
            Failure::of(&error)
        }
    }
}

/// `KIND` of `create` may be in any case and under any of its names.
fn parse(mut args: Vec<OsString>) -> Result<Cli, clap::Error> {
    if args.get(1).is_some_and(|command| command == "create")
        && let Some(kind) = args.get(2).and_then(|kind| kinds::parse(kind.to_str()?).ok())
    {
        let word = if kind == Kind::TunnelGateway { "gateway".to_owned() } else { kinds::word(kind) };
        args[2] = word.into();
    }
    let name = args.first().cloned().unwrap_or_default();
    let matches = command(&name).try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

/// The grammar, under the name that the binary was called by: kubectl finds `kubectl-enforcer` as `kubectl enforcer`.
fn command(called: &OsStr) -> clap::Command {
    let name = Path::new(called).file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("kubectl") {
        return Cli::command().bin_name("kubectl enforcer");
    }
    Cli::command()
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Controller(args) => role::run(controller::run(args)),
        Command::Dns(args) => role::run(dns::run(args)),
        Command::Agent(args) if args.is_boot_guard() => {
            role::run(async move { Ok(out::data(&agent::prepare(&args).await?)?) })
        }
        Command::Agent(args) if args.is_cleanup() => {
            args.use_host_mounts()?;
            role::run(async move { Ok(out::data(&agent::cleanup(&args).await?)?) })
        }
        Command::Agent(args) => {
            args.use_host_mounts()?;
            role::run(agent::run(args))
        }
        Command::Status(args) => ask::status(&args),
        Command::Create(args) => create::run(args),
        Command::Get(args) => get::run(&args),
        Command::Describe(args) => describe::run(&args),
        Command::Delete(args) => delete::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Monitor(args) => monitor::run(&args),
        Command::Keygen(args) => {
            let text = serde_norway::to_string(&keygen::manifest(&args)?)?;
            Ok(out::data(&text).map(|()| ExitCode::SUCCESS)?)
        }
        Command::Install(args) => install(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Uninstall(args) => {
            runtime()?.block_on(install::uninstall::run(&args, out::note))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Gateway(args) if args.is_cleanup() => {
            role::run(async move { Ok(out::data(&gateway::cleanup(&args).await?)?) })
        }
        Command::Gateway(args) => role::run(gateway::run(args)),
        Command::Load(args) => role::run(load::run(args)),
        Command::Tunnel(args) => role::run(tunnel::process::run(args)),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn install(args: &install::Args) -> anyhow::Result<ExitCode> {
    if let Some((format, folder)) = args.package() {
        install::package::write(format, folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let manifests = runtime()?.block_on(install::run(args))?;
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

    /// The words as a shell parts them, as far as the README needs it.
    fn words(command: &str) -> Vec<OsString> {
        let parts = command.split('\'').enumerate();
        let mut words = vec![String::new()];
        for (at, part) in parts {
            for (index, word) in part.split(if at % 2 == 0 { " " } else { "\0" }).enumerate() {
                if index > 0 {
                    words.push(String::new());
                }
                words.last_mut().unwrap().push_str(word);
            }
        }
        words.into_iter().map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_takes_every_command_of_the_readme() {
        for command in commands() {
            // What it is piped into is another program's.
            let own = command.split(" | ").next().unwrap_or_default();
            if let Err(error) = parse(words(own)) {
                panic!("{command}: {error}");
            }
        }
        assert!(commands().len() >= 10, "the README has its commands where this test looks");
    }

    #[test]
    fn create_knows_a_kind_by_every_name_people_use() {
        for kind in ["postgres", "PG", "Postgreses", "postgres.enforcer.dev"] {
            let line = format!("enforcer create {kind} orders --gateway eu-1 --endpoint 192.0.2.7");
            assert!(parse(words(&line)).is_ok(), "{kind}");
        }
        let error = parse(words("enforcer create postgers orders")).unwrap_err().to_string();
        assert!(error.contains("'postgres'"), "{error}");
    }

    #[test]
    fn whoever_calls_it_as_a_plugin_reads_the_plugins_name() {
        let usage = |called: &str| {
            let error = parse(words(&format!("{called} get"))).unwrap_err().to_string();
            error.lines().find(|line| line.starts_with("Usage")).unwrap_or_default().to_owned()
        };
        assert!(usage("/usr/bin/enforcer").starts_with("Usage: enforcer get "), "{}", usage("enforcer"));
        let plugin = usage("/usr/bin/kubectl-enforcer");
        assert!(plugin.starts_with("Usage: kubectl enforcer get "), "{plugin}");
    }
}
