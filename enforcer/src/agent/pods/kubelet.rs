//! Where kubelet has put a pod: found by the pod's cgroup, which carries its uid, and a process in it.
//!
//! Both of kubelet's cgroup drivers and both versions of cgroups are known, wherever below their roots kubelet has its
//! own. What a pod's object says of itself is no help: whoever may write one could name another's.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The folders are gone through again no sooner than this: many pods are looked for at once.
const FRESH: Duration = Duration::from_millis(50);
/// kubelet's own cgroup may be some levels down, as in clusters inside of containers.
const DEEPEST: usize = 8;
/// A hierarchy of v1 that has every pod.
const V1: &str = "memory";

/// A pod's network namespace, kept open: no path leads to it for as long.
#[derive(Debug)]
pub struct Held {
    file: File,
    /// Device and inode: what tells one namespace from another.
    identity: (u64, u64),
}

impl Held {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { identity: (metadata.dev(), metadata.ino()), file })
    }

    /// A path that is good for as long as this value lives, in this process.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// Where a pod is.
#[derive(Debug)]
pub enum Found {
    Netns(Arc<Held>),
    /// Folder of cgroup v2.
    Cgroup(PathBuf),
}

/// Where a node's pods are, as of a moment ago.
#[derive(Debug, Default)]
pub struct Kubelet {
    /// Where cgroups are mounted; `None`: as this process sees it.
    roots: Option<Vec<(Version, PathBuf)>>,
    known: Mutex<Option<(Instant, Folders)>>,
}

/// Folders of each pod, those of cgroup v2 first. Key: uid.
type Folders = BTreeMap<String, Vec<(Version, PathBuf)>>;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Version {
    V2,
    V1,
}

impl Kubelet {
    /// Finds a pod; blocks. `held` is its namespace at the last time.
    pub fn find(&self, uid: &str, host_network: bool, held: Option<&Arc<Held>>) -> io::Result<Found> {
        let folders = self.folders(uid)?;
        let folders = folders.as_slice();
        if host_network {
            let v2 = folders.iter().find(|(version, _)| *version == Version::V2);
            // What it connects from its tunnel netns is the announce connection; as a workload it could not.
            if v2.is_some_and(|(_, path)| processes(path).contains(&std::process::id())) {
                return Err(not_found("it is this agent, which is no workload"));
            }
            let no_v2 = "it has a cgroup of version 1 only, which tells no hostNetwork pods apart";
            return match (v2, folders) {
                (Some((_, path)), _) => Ok(Found::Cgroup(path.clone())),
                (None, []) => Err(not_found("it has no cgroup on this node yet")),
                (None, _) => Err(not_found(no_v2)),
            };
        }
        let own = Held::open(Path::new("/proc/self/ns/net"))?;
        for (_, folder) in folders {
            for pid in processes(folder) {
                let Ok(found) = Held::open(&PathBuf::from(format!("/proc/{pid}/ns/net"))) else { continue };
                // The process may have ended, and another one have its number.
                let is_host = found.identity == own.identity;
                if is_host || !processes(folder).contains(&pid) {
                    continue;
                }
                let same = held.filter(|held| held.identity == found.identity);
                return Ok(Found::Netns(same.map_or_else(|| Arc::new(found), Arc::clone)));
            }
        }
        Err(not_found("it has no process on this node yet"))
    }

    fn folders(&self, uid: &str) -> io::Result<Vec<(Version, PathBuf)>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |folders: &Folders| {
            // Those of one hierarchy are made before those of the other.
            let folders = folders.get(uid).filter(|folders| folders.first().is_some_and(is_v2))?;
            folders.iter().all(|(_, folder)| folder.is_dir()).then(|| folders.clone())
        };
        if let Some((since, folders)) = &*known {
            if let Some(found) = there(folders) {
                return Ok(found);
            }
            if since.elapsed() < FRESH {
                return Ok(folders.get(uid).cloned().unwrap_or_default());
            }
        }
        let mut folders = Folders::new();
        let roots = match &self.roots {
            Some(roots) => roots.clone(),
            None => roots(&fs::read_to_string("/proc/self/mounts")?),
        };
        for (version, root) in roots {
            collect(version, &root, DEEPEST, &mut folders);
        }
        let found = folders.get(uid).cloned().unwrap_or_default();
        *known = Some((Instant::now(), folders));
        Ok(found)
    }
}

fn is_v2((version, _): &(Version, PathBuf)) -> bool {
    *version == Version::V2
}

fn not_found(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// Where cgroups are mounted: version 2, and one hierarchy of version 1.
fn roots(mounts: &str) -> Vec<(Version, PathBuf)> {
    let mut roots = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (_device, Some(path), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let has = |option: &str| fields.clone().any(|options| options.split(',').any(|one| one == option));
        match kind {
            "cgroup2" => roots.push((Version::V2, PathBuf::from(path))),
            "cgroup" if has(V1) => roots.push((Version::V1, PathBuf::from(path))),
            _ => {}
        }
    }
    roots.sort_unstable();
    roots
}

fn collect(version: Version, folder: &Path, depth: usize, folders: &mut Folders) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        match uid_of(&entry.file_name().to_string_lossy()) {
            Some(uid) => folders.entry(uid).or_default().push((version, path)),
            None if depth > 0 => collect(version, &path, depth - 1, folders),
            None => {}
        }
    }
}

/// The uid in a pod's folder: `podUID` of the driver cgroupfs, `kubepods-burstable-podUID.slice` of the driver systemd,
/// where dashes are underscores.
fn uid_of(name: &str) -> Option<String> {
    let text = match name.strip_suffix(".slice") {
        Some(name) => name.rsplit_once("-pod")?.1.replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let is_uid = text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    is_uid.then_some(text)
}

/// Processes of a pod, those of its containers included.
fn processes(folder: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "3f0a6a0e-94f7-4b3c-8c0e-6c1f5f0f9f11";

    #[test]
    fn a_folder_says_its_pod_with_either_driver() {
        let slice = format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_"));
        let nested = format!("kubelet-kubepods-pod{}.slice", UID.replace('-', "_"));
        for name in [format!("pod{UID}"), slice, nested] {
            assert_eq!(uid_of(&name), Some(UID.to_owned()), "{name}");
        }
        // Static pods have no uid of the API here, and other folders none at all.
        for name in
            ["pod0123456789abcdef0123456789abcdef", "kubepods.slice", "kubepods", "podman", &UID[..35]]
        {
            assert_eq!(uid_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_pod_is_looked_for_until_its_second_folder_is_there_and_the_agent_is_no_workload() {
        let dir = std::env::temp_dir().join(format!("enforcer-kubelet-{}", std::process::id()));
        let (v1, v2) = (dir.join("v1"), dir.join("v2"));
        let folder = |root: &Path| root.join("kubepods/besteffort").join(format!("pod{UID}"));
        fs::create_dir_all(folder(&v1)).unwrap();
        fs::create_dir_all(&v2).unwrap();
        let kubelet = Kubelet {
            roots: Some(vec![(Version::V2, v2.clone()), (Version::V1, v1)]),
            known: Mutex::default(),
        };
        let find = || {
            // Past the time for which a look is good.
            std::thread::sleep(FRESH);
            match kubelet.find(UID, true, None) {
                Ok(Found::Cgroup(path)) => path.display().to_string(),
                Ok(found) => format!("{found:?}"),
                Err(error) => error.to_string(),
            }
        };
        let v1_only = "it has a cgroup of version 1 only, which tells no hostNetwork pods apart";
        assert_eq!(find(), v1_only);
        fs::create_dir_all(folder(&v2)).unwrap();
        assert_eq!(find(), folder(&v2).display().to_string());
        fs::write(folder(&v2).join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(find(), "it is this agent, which is no workload");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn version_two_comes_first_and_one_hierarchy_of_version_one_is_enough() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let paths: Vec<_> = roots(mounts).into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, [Path::new("/sys/fs/cgroup/unified"), Path::new("/sys/fs/cgroup/memory")]);
    }
}
