//! Taking everything of a role off, without loading anything: for a node that is to be as it was before.

use std::{fs, io, path::Path};

use nix::{
    mount::{MntFlags, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{AttachError, Shelf, filters, links, pin_name, unreadable};
use crate::{
    datapath::kernel::pins::{CONVENTIONAL, Pins},
    mounts,
};

/// Takes every program off that is pinned below `root`, removes the pins and the directory, and returns a line for each.
/// What others have attached stays; so do pins that no role of ours has made. Doing it twice is fine.
pub fn remove_everything(root: &Path) -> Result<Vec<String>, AttachError> {
    let pins = Pins { root: root.to_owned() };
    let mut removed = Vec::new();
    if !root.exists() {
        return Ok(removed);
    }
    for (attachment, _) in filters::pinned(all(&pins.filters(), pin_name::target_of_filter)?, &|_, _| true)? {
        let super::Holder::Filter(netns) = &attachment.holder else { continue };
        filters::unpin(&attachment, netns.as_deref())
            .map_err(|source| unreadable(&attachment.path, source))?;
        removed.push(format!("program {} of {}", attachment.program.name(), attachment.target));
    }
    for path in all(&pins.links(), pin_name::target_of_link)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((program, target)) = pin_name::parse_link(&name) else { continue };
        links::unpin(&path).map_err(|source| unreadable(&path, source))?;
        removed.push(format!("program {} of {target}", program.name()));
    }
    for directory in [pins.maps(), pins.programs()] {
        for path in all(&directory, |_| None)? {
            fs::remove_file(&path).map_err(|source| unreadable(&path, source))?;
        }
    }
    for directory in [pins.maps(), pins.programs(), pins.links(), pins.filters()] {
        gone(fs::remove_dir(&directory)).map_err(|source| unreadable(&directory, source))?;
    }
    // A file system that was mounted for us goes with what was in it.
    unmount(root).map_err(|source| unreadable(root, source))?;
    gone(fs::remove_dir(root)).map_err(|source| unreadable(root, source))?;
    removed.push(format!("pins in {}", root.display()));
    Ok(removed)
}

fn all(
    directory: &Path,
    target_of: fn(&str) -> Option<super::Target>,
) -> Result<Vec<std::path::PathBuf>, AttachError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let read = Shelf::read(directory.to_owned(), target_of).and_then(|shelf| shelf.all());
    read.map_err(|source| unreadable(directory, source))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn unmount(root: &Path) -> io::Result<()> {
    let is_bpf = statfs(root)?.filesystem_type() == BPF_FS_MAGIC;
    let Some(parent) = root.parent().filter(|_| is_bpf && !root.starts_with(CONVENTIONAL)) else {
        return Ok(());
    };
    // Within a file system of somebody else it is only a directory.
    if statfs(parent)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mounts::on_host(|| Ok(umount2(root, MntFlags::MNT_DETACH)?))
}
