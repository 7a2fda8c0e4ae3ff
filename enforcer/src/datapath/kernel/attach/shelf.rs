//! What is pinned in a directory, remembered by what it is for: with thousands of devices the directory is not read for
//! each of them.
//!
//! Only this role puts pins there. One that somebody else took away is noticed when it is looked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::Target;

/// Inode of the network namespace and index of the device; `None`: a cgroup's, or one that this build does not know.
type Key = Option<(u64, u32)>;

/// One directory of pins.
pub struct Shelf {
    directory: PathBuf,
    target_of: fn(&str) -> Option<Target>,
    paths: BTreeMap<Key, BTreeSet<PathBuf>>,
}

impl Shelf {
    /// `target_of` says from a pin's name what it is for.
    pub fn read(directory: PathBuf, target_of: fn(&str) -> Option<Target>) -> io::Result<Self> {
        let mut shelf = Self { directory, target_of, paths: BTreeMap::new() };
        for path in shelf.all()? {
            shelf.put(path);
        }
        Ok(shelf)
    }

    /// Every pin that is there now.
    pub fn all(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.path())).collect()
    }

    /// The pins for a device (whatever its name), or those that are for none.
    pub fn of(&self, target: &Target) -> Vec<PathBuf> {
        let paths = self.paths.get(&key(target)).into_iter().flatten();
        paths.filter(|path| path.exists()).cloned().collect()
    }

    /// There is a pin now.
    pub fn put(&mut self, path: PathBuf) {
        self.paths.entry(self.key_of(&path)).or_default().insert(path);
    }

    /// A pin is gone.
    pub fn take(&mut self, path: &Path) {
        let key = self.key_of(path);
        if let Some(paths) = self.paths.get_mut(&key) {
            paths.remove(path);
            if paths.is_empty() {
                self.paths.remove(&key);
            }
        }
    }

    fn key_of(&self, path: &Path) -> Key {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (self.target_of)(&name).as_ref().and_then(key)
    }
}

const fn key(target: &Target) -> Key {
    match target {
        Target::Device { netns, ifindex, .. } => Some((*netns, *ifindex)),
        Target::Cgroup { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target_of(name: &str) -> Option<Target> {
        let (ifindex, name) = name.split_once('@')?;
        Some(Target::Device { netns: 7, ifindex: ifindex.parse().ok()?, name: name.to_owned() })
    }

    #[test]
    fn a_device_finds_its_pins_whatever_it_was_called() {
        let directory = std::env::temp_dir().join(format!("enforcer-shelf-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = |name: &str| directory.join(name);
        for name in ["3@eth0", "30@eth0", "cgroup"] {
            fs::write(path(name), "").unwrap();
        }
        let mut shelf = Shelf::read(directory.clone(), target_of).unwrap();
        let of =
            |shelf: &Shelf, ifindex| shelf.of(&Target::Device { netns: 7, ifindex, name: "eth9".to_owned() });
        assert_eq!(of(&shelf, 3), [path("3@eth0")]);
        assert_eq!(of(&shelf, 4), Vec::<PathBuf>::new());
        assert_eq!(shelf.of(&Target::Cgroup { id: 1 }), [path("cgroup")]);

        fs::rename(path("3@eth0"), path("3@eth1")).unwrap();
        assert_eq!(of(&shelf, 3), Vec::<PathBuf>::new(), "somebody took it away");
        shelf.take(&path("3@eth0"));
        shelf.put(path("3@eth1"));
        assert_eq!(of(&shelf, 3), [path("3@eth1")]);
        fs::remove_dir_all(directory).unwrap();
    }
}
