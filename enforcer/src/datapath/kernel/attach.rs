//! Links: one per device and program, pinned, so that there is never a moment without a program.
//!
//! A pin's name says what it is for: `from_pod@NETNS-INODE@IFINDEX@NAME`, `connect4@cgroup@ID`. What a link is
//! attached to now, only the kernel knows (devices are renamed, moved and replaced under the same index), so it is
//! asked every time. Links that others made are never looked at.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        linux::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use super::{
    Kernel,
    sys::{self, LinkInfo},
};
use crate::{
    datapath::program::{Place, Program},
    netns,
};

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

/// One pinned link.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Attachment {
    pub program: Program,
    pub target: Target,
    pub link_id: u32,
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
    #[error("link directory {path}: cannot read it")]
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
        let failed =
            |action| move |source| failed(program, action, format!("device {}", device.name), source);
        let namespace = namespace_inode(device.netns.as_deref()).map_err(failed("attach"))?;
        let attach_type = program.attach_type();
        let in_netns = |f: &(dyn Fn() -> io::Result<Vec<u32>> + Sync)| {
            netns::run_in_or_here(device.netns.as_deref(), f).and_then(|result| result)
        };
        let links = in_netns(&|| sys::device_links(device.ifindex, attach_type)).map_err(failed("attach"))?;
        let target = Target::Device { netns: namespace, ifindex: device.ifindex, name: device.name.clone() };
        let path = self.pins.links().join(pin_name(program, &target));
        let on_hook =
            |old: Program, of: &Target| old.attach_type() == attach_type && same_target(of, &target);
        let pinned = self.pinned_links(on_hook)?.into_iter().map(|link| link.0);
        let (mut here, gone): (Vec<_>, Vec<_>) = pinned.partition(|old| links.contains(&old.link_id));
        // A pin of a device that went away or was moved, and whose index is this one's now.
        for old in gone {
            unpin(&old.path).map_err(failed("detach"))?;
        }
        here.sort_by_key(|old| old.program != program);
        let mut here = here.into_iter();
        if let Some(old) = here.next() {
            // Another program in the link that is there takes no time; a new link takes as long as the kernel needs to
            // be sure that nobody walks the old list. The name first: an adopted pin gets the program of its name. It
            // may be that only the device's name is another.
            fs::rename(&old.path, &path).map_err(failed("replace"))?;
            self.replace(&Attachment { program, path, ..old }).map_err(failed("replace"))?;
            return here.try_for_each(|more| unpin(&more.path)).map_err(failed("detach"));
        }
        let fd = self.program_fd(program)?.as_fd();
        let attach = || sys::attach_device(fd, device.ifindex, attach_type);
        let link = netns::run_in_or_here(device.netns.as_deref(), attach)
            .and_then(|result| result)
            .map_err(failed("attach"))?;
        sys::pin(link.as_fd(), &path).map_err(failed("attach"))
    }

    /// Takes a program off a device. One that is not there is fine.
    pub fn detach(&mut self, program: Program, device: &Device) -> Result<(), AttachError> {
        let failed = |source| failed(program, "detach", format!("device {}", device.name), source);
        let netns = match namespace_inode(device.netns.as_deref()) {
            Ok(netns) => netns,
            // With its namespace the device is gone, and its links are collected.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.collect_links(),
            Err(error) => return Err(failed(error)),
        };
        let target = Target::Device { netns, ifindex: device.ifindex, name: device.name.clone() };
        for (old, _, gone) in self.pinned_links(|old, of| old == program && same_target(of, &target))? {
            if !gone {
                unpin(&old.path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Takes one program off, whatever it is attached to now.
    pub fn detach_attachment(&mut self, attachment: &Attachment) -> Result<(), AttachError> {
        unpin(&attachment.path)
            .map_err(|source| failed(attachment.program, "detach", attachment.target.to_string(), source))
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
            let path = self.pins.links().join(pin_name(program, &target));
            sys::pin(link.as_fd(), &path).map_err(failed("attach"))?;
        }
        for old in before.iter().filter(|old| old.program == program && old.target != target) {
            unpin(&old.path).map_err(failed("detach"))?;
        }
        Ok(())
    }

    /// What is pinned and still attached to something.
    pub fn attachments(&self) -> Result<Vec<Attachment>, AttachError> {
        let mut attachments: Vec<_> =
            self.pinned_links(|_, _| true)?.into_iter().filter(|link| !link.2).map(|link| link.0).collect();
        attachments.sort();
        Ok(attachments)
    }

    /// Unpins links whose device or cgroup is gone.
    pub fn collect_links(&mut self) -> Result<(), AttachError> {
        for (attachment, _, gone) in self.pinned_links(|_, _| true)? {
            if gone {
                self.detach_attachment(&attachment)?;
            }
        }
        Ok(())
    }

    /// After a restart: collects what is gone and puts this build's programs into the rest.
    pub(super) fn adopt_links(&mut self) -> Result<(), AttachError> {
        for (attachment, _, gone) in self.pinned_links(|_, _| true)? {
            if gone {
                self.detach_attachment(&attachment)?;
                continue;
            }
            match self.replace(&attachment) {
                // It went away between the two questions.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
                    self.detach_attachment(&attachment)?;
                }
                result => result.map_err(|source| {
                    failed(attachment.program, "replace", attachment.target.to_string(), source)
                })?,
            }
        }
        Ok(())
    }

    /// Puts the loaded program into a link.
    fn replace(&self, attachment: &Attachment) -> io::Result<()> {
        let link = sys::get(&attachment.path)?;
        let program = self.program_fd(attachment.program).map_err(io::Error::other)?;
        sys::update_link(link.as_fd(), program.as_fd())
    }

    /// Pins of this role whose names are `wanted`, their links, and whether what they were attached to is gone. The
    /// others are not opened: there are hundreds.
    fn pinned_links(
        &self,
        wanted: impl Fn(Program, &Target) -> bool,
    ) -> Result<Vec<(Attachment, OwnedFd, bool)>, AttachError> {
        let path = self.pins.links();
        let failed = |source| AttachError::Directory { path: path.clone(), source };
        let mut links = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some((program, target)) = parse_pin_name(&name) else {
                tracing::warn!(pin = %path.display(), "a pinned link that this build does not know stays");
                continue;
            };
            if program.role() != self.role || !wanted(program, &target) {
                continue;
            }
            let link = sys::get(&path).map_err(failed)?;
            let LinkInfo { id, program: program_id, target: now } =
                sys::link_info(link.as_fd()).map_err(failed)?;
            links.push((Attachment { program, target, link_id: id, program_id, path }, link, now.is_gone()));
        }
        Ok(links)
    }
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

/// Detaches what is pinned here and removes the pin.
fn unpin(path: &Path) -> io::Result<()> {
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

/// Inode of a network namespace, as pins and `ip netns` know it.
pub fn namespace_inode(netns: Option<&Path>) -> io::Result<u64> {
    Ok(fs::metadata(netns.unwrap_or(Path::new("/proc/thread-self/ns/net")))?.st_ino())
}

fn pin_name(program: Program, target: &Target) -> String {
    match target {
        Target::Device { netns, ifindex, name } => {
            format!("{}@{netns}@{ifindex}@{}", program.name(), escape(name))
        }
        Target::Cgroup { id } => format!("{}@cgroup@{id}", program.name()),
    }
}

fn parse_pin_name(name: &str) -> Option<(Program, Target)> {
    let mut parts = name.splitn(4, '@');
    let program = Program::from_name(parts.next()?)?;
    let target = match (parts.next()?, parts.next()?, parts.next()) {
        ("cgroup", id, None) => Target::Cgroup { id: id.parse().ok()? },
        (netns, ifindex, Some(name)) => Target::Device {
            netns: netns.parse().ok()?,
            ifindex: ifindex.parse().ok()?,
            name: unescape(name)?,
        },
        _ => return None,
    };
    Some((program, target))
}

/// A BPF file system refuses names with a dot, VLAN devices have one.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            escaped.push(char::from(byte));
        } else {
            escaped.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    escaped
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0')
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_says_what_it_is_for() {
        for (program, target, name) in [
            (
                Program::ToWire,
                Target::Device { netns: 4_026_531_840, ifindex: 3, name: "eth0.100@x%".into() },
                "to_wire@4026531840@3@eth0%2e100%40x%25",
            ),
            (Program::Connect4, Target::Cgroup { id: 77 }, "connect4@cgroup@77"),
        ] {
            assert_eq!(pin_name(program, &target), name);
            assert_eq!(parse_pin_name(name), Some((program, target)));
        }
        for name in ["", "from_pod", "from_pod@1", "nobody@1@2@eth0", "from_pod@x@2@eth0", "from_pod@1@2@%f"]
        {
            assert_eq!(parse_pin_name(name), None, "{name}");
        }
    }
}
