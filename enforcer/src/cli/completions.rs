//! Completions for shells: commands and flags from the grammar, kinds, and names of objects from wherever they are.
//!
//! A shell runs what `completions` prints; at every Tab it calls the binary with [`VARIABLE`] set and the words so far,
//! and `clap_complete` answers. kubectl calls a plugin's `kubectl_complete-enforcer` instead, with the words as
//! arguments, and reads candidates line by line.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, FromArgMatches as _, ValueEnum};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate},
    env::Shells,
};

use super::{
    command, input, kinds, out,
    place::{PlaceArgs, Scope},
    show::text,
};
use crate::model::Kind;

/// Not `COMPLETE`, which others may have set for themselves.
const VARIABLE: &str = "ENFORCER_COMPLETE";
/// The name under which kubectl calls for completions of a plugin.
const KUBECTL: &str = "kubectl_complete-enforcer";
/// Nobody waits longer for a Tab.
const PATIENCE: Duration = Duration::from_secs(2);
/// What ends kubectl's list: no names of files.
const NO_FILES: &str = ":4\n";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// `source <(enforcer completions bash)` in ~/.bashrc, zsh alike; fish: `enforcer completions fish | source`
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let shell = Shells::builtins();
    let shell = shell.completer(name).with_context(|| format!("cannot complete for {name}"))?;
    // One that was called by its path is not on the shell's.
    let called = std::env::args_os().next().unwrap_or_default();
    let completer = if Path::new(&called).components().count() > 1 {
        std::env::current_exe().context("cannot find the own binary")?.display().to_string()
    } else {
        "enforcer".to_owned()
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "enforcer", "enforcer", &completer, &mut script)?;
    out::data(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell that asks for candidates; `None`: it is a command that is to be run.
pub fn answer(args: &[OsString]) -> anyhow::Result<Option<ExitCode>> {
    let called = args.first().map(OsString::as_os_str).unwrap_or_default();
    let shell = std::env::var_os(VARIABLE).filter(|shell| !shell.is_empty());
    match shell {
        _ if is_kubectl(called) => out::data(&for_kubectl()?)?,
        None => return Ok(None),
        Some(shell) if shell == "bash" => out::data(&for_bash()?)?,
        Some(_) => {
            let directory = std::env::current_dir().ok();
            let env = CompleteEnv::with_factory(grammar).var(VARIABLE);
            env.try_complete(args.iter().cloned(), directory.as_deref())?;
        }
    }
    Ok(Some(ExitCode::SUCCESS))
}

/// A line each, what it means behind a tab.
fn for_kubectl() -> anyhow::Result<String> {
    let mut page = String::new();
    let words = words();
    for candidate in candidates(words.len() - 1, words)? {
        let value = candidate.get_value().to_string_lossy();
        match candidate.get_help() {
            Some(help) => writeln!(page, "{value}\t{help}")?,
            None => writeln!(page, "{value}")?,
        }
    }
    Ok(page + NO_FILES)
}

/// bash parts words at `=` as well, and puts in what comes behind it alone: the library would give it the flag again.
fn for_bash() -> anyhow::Result<String> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let cursor: usize = variable("_CLAP_COMPLETE_INDEX").parse().unwrap_or_default();
    let before = joined(given().take(cursor + 1)).len();
    let found = candidates(before.saturating_sub(1), words())?;
    let found = found.iter().map(|candidate| candidate.get_value().to_string_lossy());
    Ok(found.collect::<Vec<_>>().join(&variable("_CLAP_IFS")))
}

fn candidates(cursor: usize, words: Vec<OsString>) -> std::io::Result<Vec<CompletionCandidate>> {
    let directory = std::env::current_dir().ok();
    clap_complete::engine::complete(&mut grammar(), words, cursor, directory.as_deref())
}

/// The words of the line that is being typed, as far as the shell has them.
fn given() -> impl Iterator<Item = OsString> {
    let mut args = std::env::args_os().peekable();
    // kubectl gives them as they are, shells behind `--`.
    if args.peek().is_none_or(|called| !is_kubectl(called)) {
        args.by_ref().find(|word| word == "--");
    }
    args
}

fn words() -> Vec<OsString> {
    joined(given())
}

/// Without the `=` between a flag and its value.
fn joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        let is_behind_flag = joined.last().is_some_and(|last| last.as_encoded_bytes().starts_with(b"--"));
        if word != "=" || !is_behind_flag {
            joined.push(word);
        }
    }
    joined
}

/// The grammar for candidates: flags are there where nothing else is, or where one is begun.
fn grammar() -> clap::Command {
    fn flags_last(command: clap::Command) -> clap::Command {
        let command =
            command.disable_help_flag(true).disable_help_subcommand(true).disable_version_flag(true);
        let command = command.mut_args(|arg| if arg.is_positional() { arg } else { arg.hide(true) });
        command.mut_subcommands(flags_last)
    }
    flags_last(command(OsStr::new("enforcer")))
}

fn is_kubectl(called: &OsStr) -> bool {
    Path::new(called).file_name().is_some_and(|name| name == KUBECTL)
}

/// Kinds, then names of that kind; or `KIND/NAME`.
pub fn objects() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let typed = typed.to_string_lossy();
        if let Some((kind, _)) = typed.split_once('/') {
            return with_kinds(&typed, kinds::parse(kind).ok().as_slice());
        }
        match Line::read().kind {
            Some(kind) => starting(&typed, Line::read().names(kind)),
            None => starting(&typed, Kind::ALL.iter().map(|kind| kinds::word(*kind))),
        }
    })
}

/// Names of objects of this kind.
pub fn names_of(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| starting(&typed.to_string_lossy(), Line::read().names(kind)))
}

/// Names of instances that have databases.
pub fn instances() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let line = Line::read();
        let names = [Kind::MySQL, Kind::Postgres].map(|kind| line.names(kind));
        starting(&typed.to_string_lossy(), names.into_iter().flatten())
    })
}

/// `KIND/NAME` of what a connection may lead to.
pub fn destinations() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.is_destination()).collect();
        with_kinds(&typed.to_string_lossy(), &kinds)
    })
}

/// `KIND/NAME` of what a connection may come from.
pub fn sources() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        with_kinds(&typed.to_string_lossy(), &[Kind::KubernetesCluster, Kind::Application])
    })
}

/// Kinds with a slash behind, until there is one; then names behind it as well.
fn with_kinds(typed: &str, kinds: &[Kind]) -> Vec<CompletionCandidate> {
    let Some((kind, _)) = typed.split_once('/') else {
        return starting(typed, kinds.iter().map(|kind| kinds::word(*kind) + "/"));
    };
    match kinds::parse(kind) {
        Ok(known) if kinds.contains(&known) => {
            starting(typed, Line::read().names(known).into_iter().map(|name| format!("{kind}/{name}")))
        }
        _ => Vec::new(),
    }
}

fn starting(typed: &str, names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let names: BTreeSet<String> = names.into_iter().filter(|name| name.starts_with(typed)).collect();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// What the words so far say.
struct Line {
    kind: Option<Kind>,
    scope: Scope,
    place: PlaceArgs,
}

impl Line {
    fn read() -> Self {
        Self::of(words())
    }

    fn of(words: Vec<OsString>) -> Self {
        let matches = command(OsStr::new("enforcer")).ignore_errors(true).try_get_matches_from(words);
        let mut line = Self { kind: None, scope: Scope::default(), place: PlaceArgs::default() };
        let Ok(matches) = matches else { return line };
        let Some((name, mut matches)) = matches.subcommand() else { return line };
        if let ("create", Some((_, below))) = (name, matches.subcommand()) {
            matches = below;
        }
        line.place = PlaceArgs::from_arg_matches(matches).unwrap_or_default();
        let project = matches.try_get_one::<String>("project").ok().flatten().cloned();
        line.scope = Scope { project, all: false };
        let words = matches.try_get_many::<String>("what").ok().flatten().into_iter().flatten().cloned();
        // The word that is being typed is one of them.
        let words: Vec<String> = words.collect();
        line.kind = words
            .split_last()
            .and_then(|(_, before)| input::targets(before).ok()?.first().map(|target| target.kind));
        line
    }

    /// Nothing where nobody can be asked: a Tab has no room for words.
    fn names(&self, kind: Kind) -> Vec<String> {
        let listed = self
            .place
            .choose_within(PATIENCE)
            .and_then(|place| place.list(kind, self.scope.of(kind, &*place)));
        listed.unwrap_or_default().iter().map(|object| text(&object["metadata"]["name"])).collect()
    }
}
