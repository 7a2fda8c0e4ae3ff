//! A node that boots again, or that is new: what stands in memory is gone, and so is what ran there.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Cluster, node::FIRST};
use crate::lab::{clean, command::run, wait};

/// Protocol of the routes that agents make: those would be gone.
const ROUTES: &str = "239";

/// What stays of the node's disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disk {
    /// All of it: the node boots again.
    Kept,
    /// Nothing of enforcer's: the node is new.
    New,
}

impl Cluster {
    /// Ends all that runs on the first node and takes from it what a boot would; starts it again, `early` before containerd
    /// and kubelet. Kubelet registers a node that the server does not know with these taints.
    pub fn reboot(&self, disk: Disk, taints: &str, early: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let id = self.id();
        let first = FIRST.first_process(id).context("the node does not run")?;
        // With it go all in its namespace, and with the last of them what is mounted and pinned there.
        kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL)
            .context("cannot end the node's first process")?;
        let events = FIRST.cgroup(id).join("cgroup.events");
        wait::for_true("everything on the node ends", || {
            fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 0"))
        })?;
        let netns = FIRST.netns(id);
        // Of a bridged network; where there is none, there is nothing to remove.
        let _none = run("ip", &["-n", &netns, "link", "delete", "cni0"]);
        wait::for_true("the devices of pods and of the tunnel have gone", || {
            let links = run("ip", &["-n", &netns, "-brief", "link"]).unwrap_or_default();
            links.lines().all(|line| line.starts_with("lo ") || line.starts_with("eth0"))
        })?;
        for family in ["-4", "-6"] {
            run("ip", &["-n", &netns, family, "route", "flush", "table", "all", "proto", ROUTES])?;
        }
        self.remove_cgroups_of_pods()?;
        fs::remove_file(FIRST.ready(id)).context("cannot forget that the node was ready")?;
        empty(&FIRST.below(id, "/run"))?;
        if disk == Disk::New {
            empty(&FIRST.below(id, "/var/lib/enforcer"))?;
        }
        FIRST.start(id, &self.programs)?;
        early(self)?;
        self.start_node(FIRST, taints)
    }

    fn remove_cgroups_of_pods(&self) -> Result<()> {
        for cgroup in FIRST.cgroups(self.id())? {
            clean::remove_cgroups(&cgroup.join("kubepods"))?;
        }
        Ok(())
    }
}

/// Leaves the folder itself. What is not there is empty.
fn empty(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    fs::remove_dir_all(dir)
        .and_then(|()| fs::create_dir(dir))
        .with_context(|| format!("cannot empty {}", dir.display()))
}
