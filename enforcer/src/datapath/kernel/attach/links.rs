//! Programs in links: of tcx for devices, of cgroups.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use super::{AttachError, Attachment, Device, Holder, Target, failed, pin_name, same_target, unreadable};
use crate::{
    datapath::{
        kernel::{
            Kernel,
            sys::{self, LinkInfo},
        },
        program::Program,
    },
    netns,
};

impl Kernel {
    pub(super) fn attach_link(
        &mut self,
        program: Program,
        device: &Device,
        target: &Target,
    ) -> Result<(), AttachError> {
        let failed =
            |action| move |source| failed(program, action, format!("device {}", device.name), source);
        let attach_type = program.attach_type();
        let in_netns = |f: &(dyn Fn() -> io::Result<Vec<u32>> + Sync)| {
            netns::run_in_or_here(device.netns.as_deref(), f).and_then(|result| result)
        };
        let links = in_netns(&|| sys::device_links(device.ifindex, attach_type)).map_err(failed("attach"))?;
        let path = self.pins.links().join(pin_name::of_link(program, target));
        let on_hook = |old: Program, of: &Target| {
            old.role() == self.role && old.attach_type() == attach_type && same_target(of, target)
        };
        let pinned = pinned(self.links.of(target), &on_hook)?.into_iter().map(|held| held.0);
        let (mut here, gone): (Vec<_>, Vec<_>) =
            pinned.partition(|old| matches!(old.holder, Holder::Link(id) if links.contains(&id)));
        // A pin of a device that went away or was moved, and whose index is this one's now.
        for old in gone {
            unpin(&old.path).map_err(failed("detach"))?;
            self.links.take(&old.path);
        }
        here.sort_by_key(|old| old.program != program);
        let mut here = here.into_iter();
        if let Some(old) = here.next() {
            // Another program in the link that is there takes no time; a new link takes as long as the kernel needs to
            // be sure that nobody walks the old list. The name first: an adopted pin gets the program of its name. It
            // may be that only the device's name is another.
            fs::rename(&old.path, &path).map_err(failed("replace"))?;
            self.links.take(&old.path);
            self.links.put(path.clone());
            self.replace(&Attachment { program, path, ..old }).map_err(failed("replace"))?;
            for more in here {
                unpin(&more.path).map_err(failed("detach"))?;
                self.links.take(&more.path);
            }
            return Ok(());
        }
        let fd = self.program_fd(program)?.as_fd();
        let attach = || sys::attach_device(fd, device.ifindex, attach_type);
        let link = netns::run_in_or_here(device.netns.as_deref(), attach)
            .and_then(|result| result)
            .map_err(failed("attach"))?;
        sys::pin(link.as_fd(), &path).map_err(failed("attach"))?;
        self.links.put(path);
        Ok(())
    }
}

/// Detaches what is pinned here and removes the pin.
pub fn unpin(path: &Path) -> io::Result<()> {
    let link = match sys::get(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        link => link?,
    };
    match sys::detach_link(link.as_fd()) {
        // What it was attached to is gone.
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => return Err(error),
        _ => (),
    }
    fs::remove_file(path)
}

/// Those of these links that are wanted, and whether what they were attached to is gone.
pub fn pinned(
    paths: Vec<PathBuf>,
    wanted: &dyn Fn(Program, &Target) -> bool,
) -> Result<Vec<(Attachment, bool)>, AttachError> {
    let mut links = Vec::new();
    for path in paths {
        let failed = |source| unreadable(&path, source);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((program, target)) = pin_name::parse_link(&name) else {
            tracing::warn!(pin = %path.display(), "a pinned link that this build does not know stays");
            continue;
        };
        if !wanted(program, &target) {
            continue;
        }
        let link = sys::get(&path).map_err(failed)?;
        let LinkInfo { id, program: program_id, target: now } =
            sys::link_info(link.as_fd()).map_err(failed)?;
        links.push((
            Attachment { program, target, holder: Holder::Link(id), program_id, path },
            now.is_gone(),
        ));
    }
    Ok(links)
}
