//! The boot guard on a node of a cluster: this program, and a unit of systemd that runs it before kubelet does anything.
//!
//! The agent puts both on the host, keeps them right, and takes them away. They need no container, no API server and
//! no network: what is guarded is in the agent's file.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::sync::watch;

use crate::mounts;

const UNIT: &str = "enforcer-boot-guard.service";
/// Paths of the host.
const UNITS: &str = "etc/systemd/system";
const WANTED: &str = "etc/systemd/system/multi-user.target.wants";
/// What systemd makes at a boot, for others to know.
const BOOTED: &str = "run/systemd/system";
/// The program, beside the file that says what is guarded.
const PROGRAM: &str = "boot-guard";
/// What starts pods, under the names that it has in distributions; what is not there is waited for by nobody.
const KUBELETS: &str = "kubelet.service k3s.service k3s-agent.service rke2-server.service rke2-agent.service \
                        k0scontroller.service k0sworker.service snap.microk8s.daemon-kubelite.service";
/// Between two looks, if nothing was wrong, and if something was.
const LOOK: Duration = Duration::from_mins(10);
const LOOK_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    #[error(
        "the host was not booted by systemd, there is no /{BOOTED}: what kubelet starts at a boot before the agent is not guarded"
    )]
    NoSystemd,
    #[error(
        "--guarded {0}: cannot stand in a unit of systemd, expected letters, digits, `/`, `.`, `-` and `_`"
    )]
    Path(PathBuf),
    #[error("{path} cannot be executed: its file system is mounted noexec")]
    NoExec { path: PathBuf },
    #[error("{path}: cannot be {action}")]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

impl UnitError {
    const fn reason(&self) -> &'static str {
        match self {
            Self::NoSystemd => "NoSystemd",
            _ => "NotInstalled",
        }
    }
}

/// What is wrong with it: reason and message.
pub type Wrong = Option<(&'static str, String)>;

/// Keeps it on the host, or away from it, from a task of its own; tells what is wrong.
pub fn keep(wanted: bool, guarded: PathBuf) -> watch::Receiver<Wrong> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let guarded = guarded.clone();
            let look = move || if wanted { install(&guarded) } else { remove(&guarded).map(drop) };
            let done = tokio::task::spawn_blocking(look).await;
            let wrong = match done {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((error.reason(), format!("{:#}", anyhow::Error::from(error)))),
                Err(panicked) => Some(("NotInstalled", panicked.to_string())),
            };
            if let Some((_, message)) = wrong.as_ref().filter(|_| *sender.borrow() != wrong) {
                tracing::warn!(problem = message, "no boot guard");
            }
            let pause = if wrong.is_none() { LOOK } else { LOOK_AGAIN };
            sender.send_replace(wrong);
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
    receiver
}

fn install(guarded: &Path) -> Result<(), UnitError> {
    let own = Path::new("/proc/self/exe");
    let program = File::open(own).map_err(failed(own, "read"))?;
    among_the_hosts_files(|| install_below(Path::new("/"), guarded, &program))
}

/// Takes it off the host; returns the files that were there.
pub fn remove(guarded: &Path) -> Result<Vec<PathBuf>, UnitError> {
    among_the_hosts_files(|| remove_below(Path::new("/"), guarded))
}

fn among_the_hosts_files<T: Send>(f: impl FnOnce() -> Result<T, UnitError> + Send) -> Result<T, UnitError> {
    let host = mounts::on_host(|| Ok(f()));
    host.map_err(failed(Path::new("the host's mounts"), "entered"))?
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> UnitError {
    move |source| UnitError::Io { path: path.to_owned(), action, source }
}

/// Where its files are, on the host.
struct Places {
    program: PathBuf,
    unit: PathBuf,
    wanted: PathBuf,
}

impl Places {
    fn new(root: &Path, guarded: &Path) -> Result<Self, UnitError> {
        if !root.join(BOOTED).is_dir() {
            return Err(UnitError::NoSystemd);
        }
        let text = guarded.to_str().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte);
        let (true, Some(folder)) = (text.starts_with('/') && text.bytes().all(plain), guarded.parent())
        else {
            return Err(UnitError::Path(guarded.to_owned()));
        };
        Ok(Self {
            program: below(root, folder).join(PROGRAM),
            unit: root.join(UNITS).join(UNIT),
            wanted: root.join(WANTED).join(UNIT),
        })
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn install_below(root: &Path, guarded: &Path, program: &File) -> Result<(), UnitError> {
    let places = Places::new(root, guarded)?;
    let folder = places.program.parent().unwrap_or(root);
    fs::create_dir_all(folder).map_err(failed(folder, "made"))?;
    refuse_noexec(folder, &places.program)?;
    put(&places.program, program, 0o700)?;
    let text = unit(guarded);
    if fs::read(&places.unit).ok().as_deref() != Some(text.as_bytes()) {
        write(&places.unit, &mut text.as_bytes(), 0o644)?;
    }
    let to = Path::new("..").join(UNIT);
    if fs::read_link(&places.wanted).ok().as_deref() != Some(&to) {
        let _none_before = fs::remove_file(&places.wanted);
        let wants = root.join(WANTED);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&wants).map_err(failed(&wants, "made"))?;
        symlink(&to, &places.wanted).map_err(failed(&places.wanted, "written"))?;
    }
    Ok(())
}

/// Where systemd was never, nothing is ours.
fn remove_below(root: &Path, guarded: &Path) -> Result<Vec<PathBuf>, UnitError> {
    let places = match Places::new(root, guarded) {
        Ok(places) => places,
        Err(UnitError::NoSystemd) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut removed = Vec::new();
    for path in [places.wanted, places.unit, places.program] {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(&path, "removed")(source)),
        }
    }
    Ok(removed)
}

/// The network is configured first: what configures it may take away routes that it does not know.
fn unit(guarded: &Path) -> String {
    let (file, folder) = (guarded.display(), guarded.parent().unwrap_or(guarded).display());
    format!(
        "# Written by enforcer's agent, which keeps it like this; `enforcer uninstall` removes it.
[Unit]
Description=enforcer boot guard: what is guarded leads nowhere until the agent runs
After=network-online.target
Before={KUBELETS}
RequiresMountsFor={folder}

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=30
ExecStart={folder}/{PROGRAM} agent --prepare --guarded={file}

[Install]
WantedBy=multi-user.target
"
    )
}

fn refuse_noexec(folder: &Path, program: &Path) -> Result<(), UnitError> {
    let found = statvfs(folder).map_err(|error| failed(folder, "looked at")(error.into()))?;
    if found.flags().contains(FsFlags::ST_NOEXEC) {
        return Err(UnitError::NoExec { path: program.to_owned() });
    }
    Ok(())
}

/// The program as a file of its own, unless it is there already.
fn put(path: &Path, program: &File, mode: u32) -> Result<(), UnitError> {
    let open = || {
        let mut program = program.try_clone()?;
        io::Seek::rewind(&mut program)?;
        io::Result::Ok(BufReader::new(program))
    };
    let mut new = open().map_err(failed(path, "copied"))?;
    if File::open(path).is_ok_and(|old| is_same(&mut BufReader::new(old), &mut new)) {
        return Ok(());
    }
    write(path, &mut open().map_err(failed(path, "copied"))?, mode)
}

fn is_same(one: &mut BufReader<File>, other: &mut BufReader<File>) -> bool {
    loop {
        let (Ok(left), Ok(right)) = (one.fill_buf(), other.fill_buf()) else { return false };
        let length = left.len().min(right.len());
        if left[..length] != right[..length] || left.is_empty() != right.is_empty() {
            return false;
        }
        if length == 0 {
            return true;
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Replaces it by rename: what runs goes on running, and after a crash it is the old one or the new one.
fn write(path: &Path, from: &mut impl io::Read, mode: u32) -> Result<(), UnitError> {
    let beside = path.with_extension("new");
    let mut write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        io::copy(from, &mut file)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside))).map_err(failed(path, "written"))
}

#[cfg(test)]
mod tests;
