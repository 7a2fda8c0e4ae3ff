//! The pin directory: a BPF file system, `maps`, `progs`, `links` and `filters` in it, and the proof that what is pinned there
//! has the layout that this build reads.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapError, MapInfo};
use aya_obj::generated::bpf_map_type;
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{OpenError, table};
use crate::mounts;

/// Raise it when the meaning of a key or value changes and its size does not; sizes are compared one by one.
pub const LAYOUT_VERSION: u64 = 3;

/// One-entry array that holds [`LAYOUT_VERSION`].
const LAYOUT: &str = "LAYOUT";

/// Where BPF file systems are by convention.
pub const CONVENTIONAL: &str = "/sys/fs/bpf";

/// Shape of a map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    pub kind: u32,
    pub key: u32,
    pub value: u32,
    pub entries: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match bpf_map_type::try_from(self.kind) {
            Ok(kind) => {
                let name = format!("{kind:?}");
                write!(f, "{}", name.trim_start_matches("BPF_MAP_TYPE_").to_lowercase())?;
            }
            Err(_) => write!(f, "type {}", self.kind)?,
        }
        write!(f, " of {} entries, key {} bytes, value {} bytes", self.entries, self.key, self.value)
    }
}

/// Where a node or a gateway of this name pins, unless it is told another place. In that file system no name may have a
/// dot, as those of many nodes have; none has a `_`.
pub fn pins_of(name: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(format!("enforcer-{}", name.replace('.', "_")))
}

/// The directories of one role.
#[derive(Clone, Debug)]
pub struct Pins {
    pub root: PathBuf,
}

impl Pins {
    /// Makes the directories, on a BPF file system that is mounted for it where there is none.
    pub fn prepare(root: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory { path: root.to_owned(), source };
        ensure_bpffs(root).map_err(failed)?;
        let pins = Self { root: root.to_owned() };
        for directory in [pins.maps(), pins.programs(), pins.links(), pins.filters()] {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        Ok(pins)
    }

    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub fn programs(&self) -> PathBuf {
        self.root.join("progs")
    }

    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Programs that are on devices through filters.
    pub fn filters(&self) -> PathBuf {
        self.root.join("filters")
    }

    /// Compares what is pinned with what this build has; makes the version's pin where nothing is pinned yet.
    pub fn check(&self, ours: &BTreeMap<String, Shape>) -> Result<(), OpenError> {
        let pinned = self.pinned_maps()?;
        let version = match pinned.get(LAYOUT) {
            Some(_) => Some(self.read_version()?),
            None => None,
        };
        if version.is_none() && pinned.is_empty() {
            return self.write_version();
        }
        if version != Some(LAYOUT_VERSION) {
            return Err(OpenError::Version {
                path: self.root.clone(),
                found: version.unwrap_or(0),
                expected: LAYOUT_VERSION,
            });
        }
        for (map, found) in &pinned {
            if let Some(expected) = ours.get(map)
                && expected != found
            {
                return Err(OpenError::Layout {
                    path: self.root.clone(),
                    map: map.clone(),
                    found: *found,
                    expected: *expected,
                });
            }
        }
        Ok(())
    }

    /// Unpins maps that this build does not have any more; the programs that still use them keep them alive.
    pub fn forget_other_maps(&self, ours: &BTreeMap<String, Shape>) -> Result<(), OpenError> {
        for name in self.pinned_maps()?.into_keys() {
            if name != LAYOUT && !ours.contains_key(&name) {
                let path = self.maps().join(name);
                fs::remove_file(&path).map_err(|source| OpenError::Directory { path, source })?;
            }
        }
        Ok(())
    }

    fn pinned_maps(&self) -> Result<BTreeMap<String, Shape>, OpenError> {
        let path = self.maps();
        let failed = |source| OpenError::Directory { path: path.clone(), source };
        let mut pinned = BTreeMap::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            let shape = shape_of_pin(&path.join(&name)).map_err(failed)?;
            pinned.insert(name, shape);
        }
        Ok(pinned)
    }

    fn read_version(&self) -> Result<u64, OpenError> {
        let read = || -> Result<u64, MapError> {
            let data = MapData::from_pin(self.maps().join(LAYOUT))?;
            Array::<MapData, u64>::try_from(Map::Array(data))?.get(&0, 0)
        };
        read().map_err(|error| OpenError::Map { map: LAYOUT, source: table::io_error(error) })
    }

    fn write_version(&self) -> Result<(), OpenError> {
        let write = || -> Result<(), MapError> {
            let mut array = Array::<MapData, u64>::create(1, 0)?;
            array.set(0, LAYOUT_VERSION, 0)?;
            // Filled before it is pinned: whoever sees the pin sees the version.
            array.pin(self.maps().join(LAYOUT)).map_err(|error| MapError::IoError(io::Error::other(error)))
        };
        write().map_err(|error| OpenError::Map { map: LAYOUT, source: table::io_error(error) })
    }
}

fn shape_of_pin(path: &Path) -> io::Result<Shape> {
    let info = MapInfo::from_pin(path).map_err(table::io_error)?;
    let kind = info.map_type().map_err(table::io_error)? as u32;
    Ok(Shape { kind, key: info.key_size(), value: info.value_size(), entries: info.max_entries() })
}

/// Makes sure that `root` is, or can be made, on a BPF file system.
fn ensure_bpffs(root: &Path) -> io::Result<()> {
    if on_bpffs(root)? {
        return fs::create_dir_all(root);
    }
    // Pins go with the last mount of their file system: it has to outlive the container.
    mounts::on_host(|| mount_bpffs(root))?;
    fs::create_dir_all(root)
}

fn mount_bpffs(root: &Path) -> io::Result<()> {
    let mount_point = if root.starts_with(CONVENTIONAL) {
        Path::new(CONVENTIONAL)
    } else {
        fs::create_dir_all(root)?;
        root
    };
    // Two roles that start at once must not mount over each other: the second mount would hide the first one's pins.
    // The lock is on the directory below the mount, which both see until one of them has mounted.
    let below = File::open(mount_point)?;
    let lock = Flock::lock(below, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    if !on_bpffs(root)? {
        mount(Some("bpf"), mount_point, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
    }
    drop(lock);
    Ok(())
}

/// Whether the nearest ancestor that exists is on a BPF file system.
fn on_bpffs(path: &Path) -> io::Result<bool> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    Ok(statfs(existing)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Pins at a path, in place of what was pinned there, without a moment between them.
pub fn pin_over(fd: impl AsFd, path: &Path) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push("-new");
    let fresh = PathBuf::from(fresh);
    if let Err(error) = fs::remove_file(&fresh)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    super::sys::pin(fd.as_fd(), &fresh)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_with_dots_has_a_place_for_pins_without_any() {
        let pins = super::pins_of("ip-10-0-0-1.eu.internal");
        assert_eq!(pins.display().to_string(), "/sys/fs/bpf/enforcer-ip-10-0-0-1_eu_internal");
    }
}
