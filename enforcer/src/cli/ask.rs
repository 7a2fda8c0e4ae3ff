//! `status`, and how a role is found: one question to its control socket.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{out, status};
use crate::control::{self, Request};

#[derive(Args, Clone, Debug)]
pub struct SocketArgs {
    /// Control socket of the role to ask [default: $ENFORCER_SOCKET, else the one that is found]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where to look for control sockets
    #[arg(long, value_name = "DIR", default_value = "/run/enforcer")]
    pub run_dir: PathBuf,
}

impl SocketArgs {
    pub fn find(&self) -> Result<PathBuf, control::ClientError> {
        // What is run inside of a role's pod asks that role.
        let own = std::env::var_os("ENFORCER_SOCKET").map(PathBuf::from);
        control::find_socket(self.socket.as_ref().or(own.as_ref()).map(PathBuf::as_path), &self.run_dir)
    }

    pub fn ask(&self, request: &Request) -> anyhow::Result<Value> {
        Ok(control::ask(&self.find()?, request)?)
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Yaml,
    Json,
}

#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Print nothing: whether the role answers is the exit code
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    /// Fail unless this condition of the role is true; may be given several times
    #[arg(long, value_name = "CONDITION")]
    require: Vec<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = args.socket.ask(&Request::Status)?;
    if !args.quiet {
        out::data(&shown(args.output, &status)?)?;
    }
    match args.require.iter().find_map(|wanted| status::unmet(&status, wanted)) {
        Some(why) => bail!(why),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn shown(format: Format, status: &Value) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(status)? + "\n",
        Format::Yaml => serde_norway::to_string(status)?,
        Format::Table | Format::Wide => status::page(status)?,
    })
}
