//! The role `enforcer tunnel`: WireGuard in user space for every device that is described in the run directory.
//!
//! ```text
//! RUN_DIR/tunnels/DEVICE.json ─▶ this supervisor ─▶ one task per device: TUN (its netns) ⇄ gotatun ⇄ UDP (own netns)
//! /var/run/wireguard/DEVICE.sock ◀─▶ the task ─▶ RUN_DIR/tunnels/DEVICE.conf, read again at the next start
//! ```
//!
//! Decides nothing: peers and keys come over the socket. A device that fails is tried again and disturbs no other.

mod device;
mod packets;
mod peers;
mod socket;
mod udp;

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use notify::Watcher as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use super::{Description, descriptions, tun};

/// A lost file event, and a device that failed, are made good after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the agent or gateway whose devices to serve.
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
}

/// Role main: serves devices until SIGTERM or SIGINT. The TUN devices stay.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let folder = descriptions(&args.run_dir);
    fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let (_watcher, mut changes) = watch_folder(&folder)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut again = tokio::time::interval(LOOK_AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut supervisor = Supervisor { folder, devices: BTreeMap::new() };
    loop {
        tokio::select! {
            _ = again.tick() => {}
            _ = changes.recv() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        supervisor.reconcile().await;
    }
    supervisor.stop().await;
    Ok(())
}

/// Says that something changed; what, is read from the folder.
fn watch_folder(folder: &Path) -> anyhow::Result<(notify::RecommendedWatcher, mpsc::Receiver<()>)> {
    let (sender, receiver) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the folder is itself an event. A full channel has the news already.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = sender.try_send(());
        }
    })?;
    watcher
        .watch(folder, notify::RecursiveMode::NonRecursive)
        .with_context(|| format!("watch the folder {}", folder.display()))?;
    Ok((watcher, receiver))
}

struct Supervisor {
    folder: PathBuf,
    devices: BTreeMap<String, Running>,
}

/// A task that serves one device.
struct Running {
    netns: Option<PathBuf>,
    /// Inode of the namespace that the TUN was opened in: another one may be bound at the same path later.
    namespace: Option<u64>,
    mtu: watch::Sender<u16>,
    task: JoinHandle<()>,
}

impl Supervisor {
    async fn reconcile(&mut self) {
        let described = match read_descriptions(&self.folder) {
            Ok(described) => described,
            Err(error) => {
                tracing::error!(folder = %self.folder.display(), %error, "descriptions cannot be listed");
                return;
            }
        };
        let gone: Vec<String> =
            self.devices.keys().filter(|name| !described.contains_key(*name)).cloned().collect();
        for name in gone {
            self.end(&name).await;
            // Its key must not outlive the device.
            let _ = fs::remove_file(self.configuration(&name));
            tracing::info!(device = name, "device is no longer described");
        }
        for (name, description) in described {
            let moved = self
                .devices
                .get(&name)
                .is_some_and(|running| running.is_elsewhere(&description) || running.task.is_finished());
            if moved {
                self.end(&name).await;
            }
            let configuration = self.configuration(&name);
            self.devices
                .entry(name)
                .and_modify(|running| {
                    running.mtu.send_if_modified(|mtu| {
                        let old = std::mem::replace(mtu, description.mtu);
                        old != description.mtu
                    });
                })
                .or_insert_with(|| Running::start(description, configuration));
        }
    }

    fn configuration(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.conf"))
    }

    async fn end(&mut self, name: &str) {
        if let Some(running) = self.devices.remove(name) {
            running.end().await;
        }
    }

    async fn stop(self) {
        for (_, running) in self.devices {
            running.end().await;
        }
    }
}

impl Running {
    fn start(description: Description, configuration: PathBuf) -> Self {
        let (mtu, changes) = watch::channel(description.mtu);
        let netns = description.netns.clone();
        let namespace = netns.as_deref().and_then(inode);
        let task = tokio::spawn(async move {
            let name = description.device.clone();
            if let Err(error) = device::serve(&description, &configuration, changes).await {
                let error = anyhow::Error::from(error);
                tracing::warn!(device = name, error = format!("{error:#}"), "device is not served");
            }
        });
        Self { netns, namespace, mtu, task }
    }

    /// Whether the device is to be served in another namespace. An open TUN keeps its own alive, also one that has
    /// lost its name and that nobody will ever send anything to again.
    fn is_elsewhere(&self, description: &Description) -> bool {
        let now = description.netns.as_deref().and_then(inode);
        self.netns != description.netns || now.is_some_and(|now| self.namespace != Some(now))
    }

    /// The task sees that the sender of its MTU is gone, and ends.
    async fn end(self) {
        drop(self.mtu);
        let _ = self.task.await;
    }
}

fn inode(path: &Path) -> Option<u64> {
    Some(fs::metadata(path).ok()?.ino())
}

/// Reads every `DEVICE.json`. One that cannot be used is reported and left out, the others are served.
fn read_descriptions(folder: &Path) -> io::Result<BTreeMap<String, Description>> {
    let mut described = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_description(&path) {
            Ok(description) => {
                described.insert(description.device.clone(), description);
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), error = format!("{error:#}"), "description is not used");
            }
        }
    }
    Ok(described)
}

fn read_description(path: &Path) -> anyhow::Result<Description> {
    let description: Description = serde_json::from_slice(&fs::read(path)?)?;
    anyhow::ensure!(
        tun::is_valid_name(&description.device)
            && path.file_stem().is_some_and(|stem| stem == description.device.as_str()),
        "its device {:?} is not the name of the file",
        description.device
    );
    Ok(description)
}

/// Replaces a file as a whole; nobody but its owner may read it.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    // A rest of an earlier attempt may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests;
