//! Programs in filters of `clsact`, for kernels that have no tcx.
//!
//! A filter outlives the process by itself. The pin is of its program, and says by its name which device to look at: a
//! filter, other than a link, is found only through its device.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use super::{
    AttachError, Attachment, Device, Holder, Target, failed, namespace_inode, pin_name, same_target,
    unreadable,
};
use crate::{
    datapath::{
        kernel::{Kernel, pins::pin_over},
        program::Program,
    },
    netlink::filters::{self, Filter},
    netns,
};

/// Name of our filter on a hook: there is one on each, whichever program it has.
const NAME: &str = "enforcer";

impl Kernel {
    pub(super) fn attach_filter(
        &mut self,
        program: Program,
        device: &Device,
        target: &Target,
    ) -> Result<(), AttachError> {
        let failed =
            |action| move |source| failed(program, action, format!("device {}", device.name), source);
        let netns = device.netns.as_deref();
        let fd = self.program_fd(program)?.as_fd();
        let path = self.pins.filters().join(pin_name::of_filter(program, target, netns));
        put(program, netns, device.ifindex, fd, &path).map_err(failed("attach"))?;
        self.filters.put(path.clone());
        // The pins of what was on the hook before, or on a device that had this index before.
        let on_hook = |old: Program, of: &Target| old.hook() == program.hook() && same_target(of, target);
        for (old, _) in pinned(self.filters.of(target), &on_hook)? {
            if old.path != path {
                fs::remove_file(&old.path).map_err(failed("replace"))?;
                self.filters.take(&old.path);
            }
        }
        Ok(())
    }
}

/// Puts a program into our filter on its hook, and pins it.
pub fn put(
    program: Program,
    netns: Option<&Path>,
    ifindex: u32,
    fd: BorrowedFd<'_>,
    pin: &Path,
) -> io::Result<()> {
    netns::run_in_or_here(netns, || filters::put(ifindex, program.hook(), NAME, fd)).flatten()?;
    pin_over(fd, pin)
}

/// Takes our filter off and removes the pin. A device that is gone is fine.
pub fn unpin(attachment: &Attachment, netns: Option<&Path>) -> io::Result<()> {
    if let Some(filter) = filter_now(attachment, netns)?
        && filter.program_id == attachment.program_id
        && let Target::Device { ifindex, .. } = attachment.target
    {
        netns::run_in_or_here(netns, || filters::remove(ifindex, attachment.program.hook(), NAME))
            .flatten()?;
    }
    fs::remove_file(&attachment.path)
}

/// Our filter on the hook, if the namespace is still the one of the pin.
fn filter_now(attachment: &Attachment, path: Option<&Path>) -> io::Result<Option<Filter>> {
    let Target::Device { netns, ifindex, .. } = attachment.target else { return Ok(None) };
    match namespace_inode(path) {
        Ok(inode) if inode == netns => (),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => return Ok(None),
    }
    let filters =
        netns::run_in_or_here(path, || filters::filters(ifindex, attachment.program.hook())).flatten()?;
    Ok(filters.into_iter().find(|filter| filter.name == NAME))
}

/// Those of these pinned programs that are wanted, and whether their filters are gone.
pub fn pinned(
    paths: Vec<PathBuf>,
    wanted: &dyn Fn(Program, &Target) -> bool,
) -> Result<Vec<(Attachment, bool)>, AttachError> {
    let mut found = Vec::new();
    for path in paths {
        let failed = |source| unreadable(&path, source);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((program, target, netns)) = pin_name::parse_filter(&name) else {
            tracing::warn!(pin = %path.display(), "a pinned program that this build does not know stays");
            continue;
        };
        if !wanted(program, &target) {
            continue;
        }
        let program_id = program_id(&path).map_err(failed)?;
        let holder = Holder::Filter(netns.clone());
        let attachment = Attachment { program, target, holder, program_id, path };
        let now = filter_now(&attachment, netns.as_deref())
            .map_err(|source| unreadable(&attachment.path, source))?;
        found.push((attachment, now.is_none_or(|filter| filter.program_id != program_id)));
    }
    Ok(found)
}

fn program_id(pin: &Path) -> io::Result<u32> {
    let info = aya::programs::ProgramInfo::from_pin(pin).map_err(io::Error::other)?;
    Ok(info.id())
}
