//! Programs that end when this process does, however that ends.

use std::{
    ffi::OsString,
    path::Path,
    process::Command,
    sync::{
        OnceLock,
        mpsc::{self, Sender},
    },
    thread,
};

use anyhow::{Context, Result};

use crate::lab::Running;

type Work = Box<dyn FnOnce() + Send>;

/// Starts the command in the cgroup, with a log.
pub fn start(cgroup: &Path, command: &Command, log: &Path) -> Result<Running> {
    let mut bound = Command::new("sh");
    let script = "echo 0 >\"$1/cgroup.procs\" && shift && exec setpriv --pdeathsig KILL -- \"$@\"";
    bound.args(["-c", script, "sh"]).arg(cgroup).arg(command.get_program()).args(command.get_args());
    bound.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some::<(OsString, OsString)>((name.to_owned(), value?.to_owned()))),
    );
    let log = log.to_owned();
    lasting(move || Running::start(&mut bound, &log))?
}

/// Runs it on a thread that lasts as long as the process: the kernel calls the *thread* that started a program its
/// parent, and the thread of a test ends with the test.
fn lasting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    static THREAD: OnceLock<Sender<Work>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Work>();
        thread::spawn(move || receiver.into_iter().for_each(|work| work()));
        sender
    });
    let (sender, receiver) = mpsc::sync_channel(1);
    let work = move || {
        // The caller waits for it.
        let _ = sender.send(work());
    };
    thread.send(Box::new(work)).ok().context("the thread that starts programs is gone")?;
    receiver.recv().context("the thread that starts programs is gone")
}
