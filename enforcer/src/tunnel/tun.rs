//! TUN devices: making a persistent one, and opening one by name inside its namespace.
//!
//! The one place of the tunnel that talks to `/dev/net/tun`.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use crate::netns::run_in_or_here;

/// Longest name of a device, in bytes.
const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// True for what may be the name of a device and of a file.
pub(super) fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_=+.-".contains(&byte))
}

/// Makes a TUN that stays when every process is gone.
pub(super) fn create_persistent(name: &str, netns: Option<&Path>) -> io::Result<()> {
    run_in_or_here(netns, || {
        let file = attach(name)?;
        control(&file, libc::TUNSETPERSIST, 1)
    })?
}

/// Opens a TUN that exists; its reads and writes do not block.
pub(super) fn open(name: &str, netns: Option<&Path>) -> io::Result<OwnedFd> {
    run_in_or_here(netns, || {
        // Attaching to a name that does not exist would make a device, one that dies with this process.
        nix::net::if_::if_nametoindex(name)?;
        attach(name).map(OwnedFd::from)
    })?
}

/// The namespace is that of the thread, at the time of the open.
fn attach(name: &str) -> io::Result<File> {
    if !is_valid_name(name) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name of a device"));
    }
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    control(&file, libc::TUNSETIFF, &raw const request as libc::c_ulong)?;
    Ok(file)
}

#[expect(unsafe_code, reason = "ifreq holds a union, which has no safe way to begin")]
fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: every field of ifreq is an integer, an array of them or a union of such: all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request
}

/// `argument` is a number or the address of an ifreq, as the request wants it.
#[expect(unsafe_code, reason = "nix has no TUN requests")]
fn control(file: &File, request: libc::Ioctl, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the descriptor is open; of the requests made here only TUNSETIFF follows the argument, which then
    // points to an ifreq that the caller keeps for the time of the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_the_folder_is_no_device() {
        for name in ["", ".", "..", "../x", "a/b", "sixteen-bytes-lo", "a b"] {
            assert!(!is_valid_name(name), "{name:?} was taken");
        }
        for name in ["ef-0a1b2c", "wg0", "fifteen-bytes-l"] {
            assert!(is_valid_name(name), "{name:?} was refused");
        }
    }
}
