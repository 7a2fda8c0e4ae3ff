//! What tells that a file is another than before.

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use super::is_manifest;

/// A save by renaming changes the inode, one in place the times; the second time nobody can set back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fingerprint {
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: (u64, u64),
}

/// `None`: the file is not there.
pub(super) type Print = Option<Fingerprint>;

/// Prints of manifests. Key: name of the file.
#[derive(Default)]
pub(super) struct Prints {
    pub of: BTreeMap<Arc<str>, Print>,
    /// A link is among them, symbolic or not: its file may change without an event of its name.
    pub linked: bool,
}

impl Prints {
    /// All that the folder has.
    pub fn all(dir: &Path) -> io::Result<Self> {
        let mut prints = Self::default();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !is_manifest(&name) {
                continue;
            }
            let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            prints.linked |= linked;
            // A file that vanishes between the calls is a file that is not there. What is no link is found from the
            // folder, which is quicker than from the root.
            let metadata = if linked { fs::metadata(dir.join(&name)) } else { entry.metadata() };
            if let Some(print) = prints.print(metadata) {
                prints.of.insert(name.into(), Some(print));
            }
        }
        Ok(prints)
    }

    /// Looks at one file of the folder.
    pub fn add(&mut self, dir: &Path, name: Arc<str>) {
        let path = dir.join(&*name);
        let mut metadata = fs::symlink_metadata(&path);
        if metadata.as_ref().is_ok_and(fs::Metadata::is_symlink) {
            self.linked = true;
            metadata = fs::metadata(&path);
        }
        let print = self.print(metadata);
        self.of.insert(name, print);
    }

    fn print(&mut self, metadata: io::Result<fs::Metadata>) -> Print {
        let metadata = metadata.ok().filter(fs::Metadata::is_file)?;
        self.linked |= metadata.nlink() > 1;
        Some(Fingerprint {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        })
    }
}

/// A rename puts a whole file in place. One that is empty is about to be written.
pub(super) fn is_whole(print: Print, renamed: bool) -> bool {
    renamed && print.is_some() && !is_empty(print)
}

pub(super) fn is_empty(print: Print) -> bool {
    print.is_some_and(|print| print.length == 0)
}
