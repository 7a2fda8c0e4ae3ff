//! Programs on devices and cgroups: one per device and hook, pinned, so that there is never a moment without a program.
//!
//! On kernels with tcx a pin is of a link, elsewhere of a program that a filter of `clsact` holds; a pin's name says what
//! it is for. What is attached now, only the kernel knows (devices are renamed, moved and replaced under the same index),
//! so it is asked every time. What others attached is never touched.

mod filters;
mod links;
mod pin_name;
mod removal;
mod shelf;

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, linux::fs::MetadataExt},
    path::{Path, PathBuf},
};

pub use removal::remove_everything;
pub(super) use shelf::Shelf;

use super::{Kernel, OpenError, pins::Pins, sys};
use crate::datapath::program::{Place, Program};

/// How programs come to devices.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Hooks {
    /// Links of their own; Linux 6.6.
    Tcx,
    /// Filters of a queueing discipline that is shared with others.
    Clsact,
}

impl Hooks {
    /// What this kernel has.
    pub fn of_this_kernel() -> Self {
        // Every network namespace has a loopback, and it comes first.
        const LOOPBACK: u32 = 1;
        match sys::device_links(LOOPBACK, Program::FromPod.attach_type()) {
            Ok(_) => Self::Tcx,
            Err(_) => Self::Clsact,
        }
    }
}

/// A network device.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Device {
    /// Its network namespace; `None`: the caller's own.
    pub netns: Option<PathBuf>,
    pub name: String,
    pub ifindex: u32,
}

/// What a pin is for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Target {
    Device {
        /// Inode of the network namespace.
        netns: u64,
        ifindex: u32,
        /// As it was called when the program was attached.
        name: String,
    },
    Cgroup {
        id: u64,
    },
}

/// What holds a program on its hook.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Holder {
    /// A link, by its id.
    Link(u32),
    /// A filter on a device in this network namespace; `None`: the role's own.
    Filter(Option<PathBuf>),
}

/// One program on one hook.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Attachment {
    pub program: Program,
    pub target: Target,
    pub holder: Holder,
    pub program_id: u32,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("program {program}: cannot {action} on {target}")]
    Target {
        program: &'static str,
        /// `attach`, `replace` or `detach`
        action: &'static str,
        target: String,
        #[source]
        source: io::Error,
    },
    #[error("pin directory {path}: cannot read it")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("program {program} belongs on a {expected}")]
    Place { program: &'static str, expected: &'static str },
    #[error(transparent)]
    Program(#[from] super::OpenError),
}

impl Kernel {
    /// Attaches a program to a device, in front of everyone else's, or puts it in the place of ours that is on the
    /// same hook: a device has one program of ours on each. Idempotent.
    pub fn attach(&mut self, program: Program, device: &Device) -> Result<(), AttachError> {
        if program.place() == Place::Cgroup {
            return Err(AttachError::Place { program: program.name(), expected: "cgroup" });
        }
        let netns = namespace_inode(device.netns.as_deref())
            .map_err(|source| failed(program, "attach", format!("device {}", device.name), source))?;
        let target = Target::Device { netns, ifindex: device.ifindex, name: device.name.clone() };
        match self.hooks {
            Hooks::Tcx => self.attach_link(program, device, &target)?,
            Hooks::Clsact => self.attach_filter(program, device, &target)?,
        }
        // Left by a role that was told to attach the other way.
        let on_hook = |old: Program, of: &Target| {
            old.attach_type() == program.attach_type() && same_target(of, &target)
        };
        let other_way =
            |held: &Attachment| matches!(held.holder, Holder::Link(_)) != (self.hooks == Hooks::Tcx);
        let others = self.pinned(Some(&target), on_hook)?;
        let others: Vec<_> = others.into_iter().map(|held| held.0).filter(other_way).collect();
        others.iter().try_for_each(|other| self.detach_attachment(other))
    }

    /// Takes a program off a device. One that is not there is fine.
    pub fn detach(&mut self, program: Program, device: &Device) -> Result<(), AttachError> {
        let netns = match namespace_inode(device.netns.as_deref()) {
            Ok(netns) => netns,
            // With its namespace the device is gone, and what was attached to it is collected.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.collect_links(),
            Err(error) => return Err(failed(program, "detach", format!("device {}", device.name), error)),
        };
        let target = Target::Device { netns, ifindex: device.ifindex, name: device.name.clone() };
        let on_device = |old: Program, of: &Target| old == program && same_target(of, &target);
        for (old, gone) in self.pinned(Some(&target), on_device)? {
            if !gone {
                self.detach_attachment(&old)?;
            }
        }
        Ok(())
    }

    /// Takes one program off, whatever it is attached to now.
    pub fn detach_attachment(&mut self, attachment: &Attachment) -> Result<(), AttachError> {
        let result = match &attachment.holder {
            Holder::Link(_) => links::unpin(&attachment.path),
            Holder::Filter(netns) => filters::unpin(attachment, netns.as_deref()),
        };
        result
            .map_err(|source| failed(attachment.program, "detach", attachment.target.to_string(), source))?;
        self.shelf_of(&attachment.holder).take(&attachment.path);
        Ok(())
    }

    const fn shelf_of(&mut self, holder: &Holder) -> &mut Shelf {
        match holder {
            Holder::Link(_) => &mut self.links,
            Holder::Filter(_) => &mut self.filters,
        }
    }

    /// Attaches the socket programs to a cgroup, and takes them off any other they were attached to.
    pub fn attach_cgroup(&mut self, root: &Path) -> Result<(), AttachError> {
        let on_cgroup = Program::ALL.iter().copied().filter(|program| program.place() == Place::Cgroup);
        for program in on_cgroup {
            self.attach_one_cgroup(program, root)?;
        }
        Ok(())
    }

    fn attach_one_cgroup(&mut self, program: Program, root: &Path) -> Result<(), AttachError> {
        let failed =
            |action| move |source| failed(program, action, format!("cgroup {}", root.display()), source);
        let cgroup = File::open(root).map_err(failed("attach"))?;
        let target = Target::Cgroup { id: cgroup.metadata().map_err(failed("attach"))?.st_ino() };
        let before = self.attachments()?;
        if let Some(old) = before.iter().find(|old| old.is_for(program, &target)) {
            self.replace(old).map_err(failed("replace"))?;
        } else {
            let fd = self.program_fd(program)?.as_fd();
            let link =
                sys::attach_cgroup(fd, cgroup.as_fd(), program.attach_type()).map_err(failed("attach"))?;
            let path = self.pins.links().join(pin_name::of_link(program, &target));
            sys::pin(link.as_fd(), &path).map_err(failed("attach"))?;
            self.links.put(path);
        }
        for old in before.iter().filter(|old| old.program == program && old.target != target) {
            self.detach_attachment(old)?;
        }
        Ok(())
    }

    /// What is pinned and still attached to something.
    pub fn attachments(&self) -> Result<Vec<Attachment>, AttachError> {
        let mut attachments: Vec<_> =
            self.pinned(None, |_, _| true)?.into_iter().filter(|held| !held.1).map(|held| held.0).collect();
        attachments.sort();
        Ok(attachments)
    }

    /// Removes the pins of what was attached to a device or cgroup that is gone.
    pub fn collect_links(&mut self) -> Result<(), AttachError> {
        for (attachment, gone) in self.pinned(None, |_, _| true)? {
            if gone {
                self.detach_attachment(&attachment)?;
            }
        }
        Ok(())
    }

    /// After a restart: collects what is gone and puts this build's programs into the rest.
    pub(super) fn adopt_links(&mut self) -> Result<(), AttachError> {
        for (attachment, gone) in self.pinned(None, |_, _| true)? {
            if gone {
                self.detach_attachment(&attachment)?;
                continue;
            }
            match self.replace(&attachment) {
                // It went away between the two questions.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV)) => {
                    self.detach_attachment(&attachment)?;
                }
                result => result.map_err(|source| {
                    failed(attachment.program, "replace", attachment.target.to_string(), source)
                })?,
            }
        }
        Ok(())
    }

    /// Puts the loaded program where the attachment's is.
    fn replace(&self, attachment: &Attachment) -> io::Result<()> {
        let program = self.program_fd(attachment.program).map_err(io::Error::other)?.as_fd();
        match (&attachment.holder, &attachment.target) {
            (Holder::Filter(netns), Target::Device { ifindex, .. }) => {
                filters::put(attachment.program, netns.as_deref(), *ifindex, program, &attachment.path)
            }
            _ => sys::update_link(sys::get(&attachment.path)?.as_fd(), program),
        }
    }

    /// Pins of this role that are `wanted`, and whether what they were attached to is gone; those for one device where
    /// there is a `target`, because there are thousands.
    fn pinned(
        &self,
        target: Option<&Target>,
        wanted: impl Fn(Program, &Target) -> bool,
    ) -> Result<Vec<(Attachment, bool)>, AttachError> {
        let own = |program: Program, target: &Target| program.role() == self.role && wanted(program, target);
        let mut pinned = links::pinned(on(&self.links, &self.pins.links(), target)?, &own)?;
        pinned.extend(filters::pinned(on(&self.filters, &self.pins.filters(), target)?, &own)?);
        Ok(pinned)
    }
}

/// What earlier processes have left in both directories.
pub(super) fn shelves(pins: &Pins) -> Result<(Shelf, Shelf), OpenError> {
    let read = |directory: PathBuf, target_of| {
        Shelf::read(directory.clone(), target_of)
            .map_err(|source| OpenError::Directory { path: directory, source })
    };
    Ok((read(pins.links(), pin_name::target_of_link)?, read(pins.filters(), pin_name::target_of_filter)?))
}

/// The pins on a shelf, for one device where there is a `target`.
fn on(shelf: &Shelf, directory: &Path, target: Option<&Target>) -> Result<Vec<PathBuf>, AttachError> {
    match target {
        Some(target) => Ok(shelf.of(target)),
        None => shelf.all().map_err(|source| unreadable(directory, source)),
    }
}

fn unreadable(path: &Path, source: io::Error) -> AttachError {
    AttachError::Directory { path: path.to_owned(), source }
}

impl Attachment {
    fn is_for(&self, program: Program, target: &Target) -> bool {
        self.program == program && same_target(&self.target, target)
    }
}

/// The same device (its name may have changed) or cgroup.
fn same_target(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (
            Target::Device { netns, ifindex, .. },
            Target::Device { netns: other_netns, ifindex: other_ifindex, .. },
        ) => netns == other_netns && ifindex == other_ifindex,
        (Target::Cgroup { id }, Target::Cgroup { id: other }) => id == other,
        _ => false,
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device { netns, ifindex, name } => write!(f, "device {name} ({ifindex} in netns {netns})"),
            Self::Cgroup { id } => write!(f, "cgroup {id}"),
        }
    }
}

fn failed(program: Program, action: &'static str, target: String, source: io::Error) -> AttachError {
    AttachError::Target { program: program.name(), action, target, source }
}

/// Inode of a network namespace, as pins and `ip netns` know it.
pub fn namespace_inode(netns: Option<&Path>) -> io::Result<u64> {
    Ok(fs::metadata(netns.unwrap_or(Path::new("/proc/thread-self/ns/net")))?.st_ino())
}
