//! Who owns a lab, and how all of it is removed: by its names, so that it also works for a process that was killed.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{Id, LABS, command::run, wait};
use crate::cluster::hierarchies;

/// Notes that this process owns the lab.
pub fn own(id: &Id) -> Result<()> {
    let _lock = lock()?;
    fs::create_dir_all(&id.dir)
        .with_context(|| format!("cannot make {} (labs need root)", id.dir.display()))?;
    let path = id.dir.join("owner");
    fs::write(&path, owner(std::process::id())).with_context(|| format!("cannot write {}", path.display()))
}

/// Nobody else looks for dead labs meanwhile: not one that is about to say whose it is, nor one twice.
fn lock() -> Result<fs::File> {
    let path = format!("{LABS}.lock");
    let lock = fs::File::create(&path).with_context(|| format!("cannot make {path} (labs need root)"))?;
    lock.lock().with_context(|| format!("cannot lock {path}"))?;
    Ok(lock)
}

/// A process as it cannot come again: its number and when it started.
fn owner(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; start time is the twentieth field after it.
    let start =
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)).unwrap_or("gone").to_owned();
    format!("{pid} {start}")
}

/// Removes every lab whose owner is gone and that was not left on purpose; returns their names.
pub fn dead_labs() -> Result<Vec<String>> {
    let _lock = lock()?;
    let mut removed = Vec::new();
    for id in labs()? {
        let noted = fs::read_to_string(id.dir.join("owner")).unwrap_or_default();
        let alive = noted == "kept"
            || noted.split(' ').next().and_then(|pid| pid.parse().ok()).map(owner) == Some(noted);
        if !alive {
            remove(&id)?;
            removed.push(id.id);
        }
    }
    Ok(removed)
}

/// Also those that `--keep` left. Not those of a living process.
pub fn all_labs() -> Result<Vec<String>> {
    for id in labs()? {
        let path = id.dir.join("owner");
        if fs::read_to_string(&path).is_ok_and(|noted| noted == "kept") {
            fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    dead_labs()
}

/// Notes that the lab stays after its process has gone.
pub fn leave(id: &Id) -> Result<()> {
    let path = id.dir.join("owner");
    fs::write(&path, "kept").with_context(|| format!("cannot write {}", path.display()))
}

/// Whether [`leave`] was called.
pub fn is_kept(id: &Id) -> bool {
    fs::read_to_string(id.dir.join("owner")).is_ok_and(|noted| noted == "kept")
}

fn labs() -> Result<Vec<Id>> {
    let entries = match fs::read_dir(LABS) {
        Ok(entries) => entries,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err).with_context(|| format!("cannot read {LABS}")),
    };
    entries.map(|entry| Id::of(&entry?.file_name().to_string_lossy())).collect()
}

/// Removes processes, namespaces, mounts, cgroups and files of a lab, in this order. What is not there is fine.
pub fn remove(id: &Id) -> Result<()> {
    end_processes(&id.cgroup)?;
    let prefix = id.netns("");
    for name in names_in("/run/netns", &prefix)? {
        remove_sockets(&name);
        run("ip", &["netns", "delete", &name])?;
    }
    for name in names_in("/etc/netns", &prefix)? {
        remove_tree(&Path::new("/etc/netns").join(name))?;
    }
    // Unpins everything: the programs of this lab detach with their last reference.
    while mounted(&id.bpffs())? {
        run("umount", &[id.bpffs()])?;
    }
    remove_cgroups(&id.cgroup)?;
    for hierarchy in hierarchies()? {
        remove_cgroups(&hierarchy.cgroup(id))?;
    }
    remove_tree(&id.dir)
}

/// `cgroup.kill` reaches also what the lab's processes have started.
fn end_processes(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let kill = cgroup.join("cgroup.kill");
    fs::write(&kill, "1").with_context(|| format!("cannot write {}", kill.display()))?;
    let events = cgroup.join("cgroup.events");
    wait::for_true("the processes of the lab end", || {
        fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 0"))
    })
}

/// Sockets of user-space tunnels: their names are those of the devices in the namespace.
fn remove_sockets(netns: &str) {
    let links = run("ip", &["-n", netns, "-brief", "link"]).unwrap_or_default();
    for device in
        links.lines().filter_map(|line| line.split([' ', '@']).next()).filter(|name| name.starts_with("ef-"))
    {
        let _ = fs::remove_file(format!("/var/run/wireguard/{device}.sock"));
    }
}

fn names_in(dir: &str, prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err).with_context(|| format!("cannot read {dir}")),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    Ok(names)
}

fn mounted(path: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == path)))
}

/// Cgroups are removed from the innermost outwards.
pub fn remove_cgroups(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    let inner: Vec<PathBuf> = fs::read_dir(cgroup)
        .with_context(|| format!("cannot read {}", cgroup.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.is_dir()))
        .collect();
    for inner in inner {
        remove_cgroups(&inner)?;
    }
    let removed = || match fs::remove_dir(cgroup) {
        // A process that was about to enter it when the others were ended is there now.
        Err(err) if err.kind() != ErrorKind::NotFound => {
            let _gone = fs::write(cgroup.join("cgroup.kill"), "1");
            false
        }
        _ => true,
    };
    wait::for_true("the cgroup is empty", removed)
        .with_context(|| format!("cannot remove {}", cgroup.display()))
}

fn remove_tree(path: &Path) -> Result<()> {
    if !path.starts_with(LABS) && !path.starts_with("/etc/netns") {
        bail!("{} is no lab's", path.display());
    }
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
