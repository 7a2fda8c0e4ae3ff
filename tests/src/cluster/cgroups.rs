//! The hierarchies of version 1 that a machine may have beside cgroup v2: container runtimes want a place in each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::lab::Id;

/// One of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hierarchy {
    /// As in the options of its mount: controllers, or `name=…` of one without.
    pub controllers: String,
    /// Where it is mounted.
    pub root: PathBuf,
}

/// None on a machine with cgroup v2 alone.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    Ok(text.lines().filter_map(parse).filter(|hierarchy| hierarchy.root.is_dir()).collect())
}

/// `8:pids:/path`; version 2 is `0::/path`.
fn parse(line: &str) -> Option<Hierarchy> {
    let controllers = line.split(':').nth(1).filter(|controllers| !controllers.is_empty())?;
    let name = controllers.strip_prefix("name=").unwrap_or(controllers);
    Some(Hierarchy { controllers: controllers.into(), root: Path::new("/sys/fs/cgroup").join(name) })
}

impl Hierarchy {
    /// The lab's part of it.
    pub fn cgroup(&self, id: &Id) -> PathBuf {
        self.root.join(id.cgroup.file_name().unwrap_or_default())
    }

    /// A node's part of that.
    pub fn of_node(&self, id: &Id, part: &str) -> PathBuf {
        self.cgroup(id).join(part)
    }

    /// Makes both, ready to take processes.
    pub fn make(&self, id: &Id, part: &str) -> Result<()> {
        for cgroup in &[self.cgroup(id), self.of_node(id, part)] {
            fs::create_dir_all(cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
            // A set of processors starts out empty, and takes nobody then.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = fs::read_to_string(self.root.join(file)) {
                    fs::write(cgroup.join(file), all)
                        .with_context(|| format!("cannot write {file} in {}", cgroup.display()))?;
                }
            }
        }
        Ok(())
    }

    /// What a mount of it takes, for the kernel.
    pub fn options(&self) -> String {
        let none = if self.controllers.starts_with("name=") { "none," } else { "" };
        format!("{none}{}", self.controllers)
    }
}

#[cfg(test)]
mod tests {
    use super::{Hierarchy, parse};

    #[test]
    fn hierarchies_of_version_1_are_told_from_version_2() {
        let of = |controllers: &str, root: &str| {
            Some(Hierarchy { controllers: controllers.into(), root: root.into() })
        };
        assert_eq!(parse("4:memory:/a:b"), of("memory", "/sys/fs/cgroup/memory"));
        assert_eq!(parse("9:name=systemd:/"), of("name=systemd", "/sys/fs/cgroup/systemd"));
        assert_eq!(parse("2:cpu,cpuacct:/"), of("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(parse("0::/user.slice"), None);
    }
}
