//! cgroups: the only thing that tells hostNetwork pods apart.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Id of a cgroup (v2), as `bpf_get_current_cgroup_id` and `bpf_skb_cgroup_id` see it: the inode of its folder.
pub fn id(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

/// The cgroup below which connects are judged: the one that was asked for, or where cgroup v2 is mounted (alone, or beside
/// v1 on hybrid systems).
pub fn root(asked: Option<&Path>) -> io::Result<PathBuf> {
    let Some(asked) = asked else {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        return root_of(&mounts).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, NOT_MOUNTED));
    };
    let named = |why: &dyn std::fmt::Display| format!("--cgroup-root {}: {why}", asked.display());
    let found = statfs(asked).map_err(|error| io::Error::other(named(&error)))?;
    if found.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(io::Error::other(named(&"is not of cgroup v2, expected a folder where that is mounted")));
    }
    Ok(asked.to_owned())
}

const NOT_MOUNTED: &str = "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified, or say where it is with --cgroup-root";

fn root_of(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_device, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_hierarchy_is_found_on_hybrid_systems() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(root_of(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(root_of("proc /proc proc rw 0 0\n"), None);
    }
}
