//! Running programs: to their end, or in the background with a log and a cgroup.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Runs a program that must succeed, and returns what it prints.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    finish(Command::new(program).args(args))
}

/// The same for a command with more than arguments.
pub fn finish(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", text(command)))?;
    judge(command, &output)
}

/// The same for a command that reads a short text.
pub fn finish_with(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", text(command)))?;
    let mut stdin = child.stdin.take().context("the standard input is piped")?;
    // A program that ends before it has read everything says why itself.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {}", text(command)))?;
    judge(command, &output)
}

fn judge(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            text(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program in a network namespace and a cgroup. `nsenter` keeps the mount namespace, and every step becomes the
/// next, so that the process id is the program's own.
pub fn inside(netns: &str, cgroup: &Path, program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo 0 >\"$1/cgroup.procs\" && shift && exec \"$@\"", "sh"]).arg(cgroup).args([
        "nsenter",
        &format!("--net=/run/netns/{netns}"),
        program,
    ]);
    command
}

/// A program in the background.
pub struct Running {
    child: Child,
}

impl Running {
    /// Appends its output to the log, so that a restart keeps what was there.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", text(command)))?;
        Ok(Self { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {pid}"))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("cannot kill")?;
        self.child.wait().context("cannot wait")?;
        Ok(())
    }

    /// Tells it to end, and waits until it has.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        super::wait::until("the process ends", || self.ended())
    }

    /// `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Lets it run on after this process has gone.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

/// Ends the process: a lab that forgets one must not leave it behind.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
