//! The few `bpf(2)` commands that aya does not offer: links by index, their replacement and what they are attached to.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya_obj::generated::{BPF_F_BEFORE, bpf_cmd, bpf_link_type};

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LinkInfo {
    pub id: u32,
    pub program: u32,
    pub target: LinkTarget,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkTarget {
    /// Interface index, in the namespace where the device is now; 0: it is gone.
    Device(u32),
    /// cgroup id; 0: it is gone.
    Cgroup(u64),
    Other,
}

impl LinkTarget {
    pub const fn is_gone(self) -> bool {
        matches!(self, Self::Device(0) | Self::Cgroup(0))
    }
}

/// Attribute of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Attribute of `BPF_LINK_CREATE`; the second half is that of tcx.
#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_link_info`: the head and the first words of the union behind it.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    words: [u32; 16],
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Programs that one hook of a device can have in the kernel (`BPF_MPROG_MAX`).
const MPROG_MAX: usize = 64;

fn bpf<A>(command: bpf_cmd, attr: &mut A) -> io::Result<RawFd> {
    // SAFETY: the attribute is a live, initialised `repr(C)` value of the size that is passed, with the layout of
    // the command's part of `union bpf_attr`; pointers in it are to buffers that their owners keep for the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(attr), size_of::<A>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Opens what is pinned at a path.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    bpf(bpf_cmd::BPF_OBJ_GET, &mut attr).map(owned)
}

/// Pins a program, map or link.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjAttr { path: path.as_ptr() as u64, fd: number(fd), flags: 0 };
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Attaches a program to a device of the caller's network namespace, in front of those that are there.
pub fn attach_device(program: BorrowedFd<'_>, ifindex: u32, attach_type: u32) -> io::Result<OwnedFd> {
    create_link(number(program), ifindex, attach_type, BPF_F_BEFORE)
}

/// Attaches a program to a cgroup, beside those that are there.
pub fn attach_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    create_link(number(program), number(cgroup), attach_type, 0)
}

fn create_link(program: u32, target: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr =
        LinkCreateAttr { program, target, attach_type, flags, relative: 0, pad: 0, expected_revision: 0 };
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr).map(owned)
}

/// Puts another program into a link, without a moment between them.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr =
        LinkUpdateAttr { link: number(link), new_program: number(program), flags: 0, old_program: 0 };
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Takes a link's program off, at once: the last close of a link does so only some time later.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = number(link);
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attr = InfoAttr {
        fd: number(link),
        length: size_of::<RawLinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let target = if info.kind == bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        LinkTarget::Device(info.words[0])
    } else if info.kind == bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        LinkTarget::Cgroup(u64::from(info.words[0]) | u64::from(info.words[1]) << 32)
    } else {
        LinkTarget::Other
    };
    Ok(LinkInfo { id: info.id, program: info.program, target })
}

/// Ids of the links on one hook of a device of the caller's network namespace.
pub fn device_links(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut links = [0_u32; MPROG_MAX];
    let mut programs = [0_u32; MPROG_MAX];
    let mut attr = QueryAttr {
        target: ifindex,
        attach_type,
        programs: programs.as_mut_ptr() as u64,
        count: MPROG_MAX as u32,
        links: links.as_mut_ptr() as u64,
        ..QueryAttr::default()
    };
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    Ok(links.into_iter().take(attr.count as usize).filter(|id| *id != 0).collect())
}

/// Attribute of `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
pub struct ProgramAttr {
    pub kind: u32,
    pub instruction_count: u32,
    pub instructions: u64,
    pub license: u64,
    pub log_level: u32,
    pub log_size: u32,
    pub log: u64,
    pub kernel_version: u32,
    pub flags: u32,
    pub name: [u8; 16],
    pub ifindex: u32,
    pub attach_type: u32,
    pub btf: u32,
    pub function_size: u32,
    pub functions: u64,
    pub function_count: u32,
    pub line_size: u32,
    pub lines: u64,
    pub line_count: u32,
    pub pad: u32,
}

#[repr(C)]
struct BtfAttr {
    btf: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    pad: u32,
}

/// Verifier log levels: statistics only, and with the path that was refused.
pub const LOG_STATS: u32 = 4;
pub const LOG_PATH: u32 = 5;

/// Loads a program; what the verifier says is in `log`. Pointers in `attr` must be valid.
pub fn load_program(attr: &mut ProgramAttr, log_level: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
    attr.log_level = log_level;
    attr.log_size = log.len() as u32;
    attr.log = log.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_PROG_LOAD, attr).map(owned)
}

pub fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = BtfAttr {
        btf: btf.as_ptr() as u64,
        log: 0,
        size: btf.len() as u32,
        log_size: 0,
        log_level: 0,
        pad: 0,
    };
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr).map(owned)
}
