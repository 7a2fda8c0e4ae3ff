//! Running clients where pods run, and what became of them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Lab, Pod, Running, command::inside};

/// Somewhere on the node where a program can run.
#[derive(Clone, Debug)]
pub struct Place {
    pub netns: String,
    pub cgroup: PathBuf,
}

impl From<&Pod> for Place {
    fn from(pod: &Pod) -> Self {
        Self { netns: pod.netns.clone(), cgroup: pod.cgroup.clone() }
    }
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Outcome {
    /// Runs it to its end.
    pub fn of(command: &mut Command) -> Result<Self> {
        let start = Instant::now();
        let output = command.stdin(Stdio::null()).output();
        let output =
            output.with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        })
    }

    /// Everything it said, in one line.
    pub fn said(&self) -> String {
        let both = format!("{} {}", self.stdout.trim(), self.stderr.trim());
        both.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether it was refused by `EPERM`, as clients word it.
    pub fn was_not_permitted(&self) -> bool {
        // MariaDB prints the number of the error.
        !self.success && (self.said().contains("Operation not permitted") || self.said().contains("' (1)"))
    }
}

impl Lab {
    pub fn place(&self, pod: &str) -> Place {
        Place::from(self.pod(pod))
    }

    /// The node itself: a process of no pod.
    pub fn system(&self) -> Place {
        Place { netns: self.id.netns("node"), cgroup: self.id.kube().join("system") }
    }

    /// One of the lab's other namespaces, outside of the hooks.
    pub fn elsewhere(&self, part: &str) -> Place {
        Place { netns: self.id.netns(part), cgroup: self.id.tools() }
    }
}

impl Place {
    /// A program here that resolves names as the pod does.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo 0 >\"$1/cgroup.procs\" && shift && exec \"$@\"", "sh"])
            .arg(&self.cgroup)
            .args(["ip", "netns", "exec", &self.netns, program])
            // Nothing of the caller's own database settings.
            .env("HOME", "/nonexistent")
            .env("PGCONNECT_TIMEOUT", "4");
        command
    }

    /// Runs to the end.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Outcome> {
        Outcome::of(self.command(program).args(args)).with_context(|| format!("cannot run {program}"))
    }

    /// In the background, with its output in a log.
    pub fn start(&self, program: &str, args: &[&str], log: &Path) -> Result<Running> {
        Running::start(self.command(program).args(args), log)
    }

    /// In the background, without name resolution of its own.
    pub fn start_plain(&self, program: &str, args: &[&str], log: &Path) -> Result<Running> {
        Running::start(inside(&self.netns, &self.cgroup, program).args(args), log)
    }
}
