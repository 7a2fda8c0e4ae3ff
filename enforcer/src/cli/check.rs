//! `check`: why a pod can connect, or why it cannot.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{
    ask::{Format, SocketArgs},
    out,
};
use crate::control::{
    Request,
    explain::{self, Question, Verdict},
};

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The pod, as `pod/NAME`
    #[arg(long, value_name = "pod/NAME", value_parser = pod)]
    from: String,
    /// Where to: `KIND/NAME`, a name in DNS or an address, each with `:PORT` or without
    #[arg(long, value_name = "DESTINATION", value_parser = destination)]
    to: (String, Option<u16>),
    /// Project (namespace) of the pod
    #[arg(
        short = 'n',
        long = "project",
        alias = "namespace",
        value_name = "NAME",
        default_value = "default"
    )]
    project: String,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    socket: SocketArgs,
}

fn pod(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some(("pod" | "po" | "pods", name)) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("expected pod/NAME".to_owned()),
    }
}

/// An IPv6 address with a port stands in brackets.
fn destination(text: &str) -> Result<(String, Option<u16>), String> {
    let plain = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_owned();
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok((text.to_owned(), None));
    }
    match text.rsplit_once(':') {
        None => Ok((plain(text), None)),
        Some((to, port)) => {
            let port = port.parse().map_err(|_| format!("\"{port}\" is not a port, expected 1 to 65535"))?;
            Ok((plain(to), Some(port)))
        }
    }
}

/// Exit code 0 where nothing stands in the way, 1 where something does.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (to, port) = args.to.clone();
    let question = Question { namespace: args.project.clone(), pod: args.from.clone(), to, port };
    let answer = args.socket.ask(&Request::Explain(question))?;
    let steps = explain::steps(answer.clone()).context("the role gave no answer to this")?;
    out::data(&match args.output {
        Format::Json => serde_json::to_string_pretty(&answer)? + "\n",
        Format::Yaml => serde_norway::to_string(&answer)?,
        Format::Table | Format::Wide => steps.iter().map(|step| line(step.verdict, &step.text)).collect(),
    })?;
    Ok(if explain::works(&steps) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(verdict: Verdict, text: &str) -> String {
    let mark = match verdict {
        Verdict::Yes => "yes ",
        Verdict::No => "NO  ",
        Verdict::Note => "    ",
    };
    format!("{mark} {text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_written_as_people_write_it() {
        for (text, expected) in [
            ("postgres/orders", ("postgres/orders", None)),
            ("postgres/orders:5432", ("postgres/orders", Some(5432))),
            ("198.18.0.7:5432", ("198.18.0.7", Some(5432))),
            ("fd00::7", ("fd00::7", None)),
            ("[fd00::7]:5432", ("fd00::7", Some(5432))),
        ] {
            assert_eq!(destination(text), Ok((expected.0.to_owned(), expected.1)), "{text}");
        }
        assert_eq!(
            destination("postgres/orders:x"),
            Err("\"x\" is not a port, expected 1 to 65535".to_owned())
        );
    }
}
