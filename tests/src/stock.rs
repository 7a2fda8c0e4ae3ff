//! wireguard-go on a TUN that lies in another network namespace than its UDP socket.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Error, Result},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::Command,
};

use enforcer::netns::run_in_or_here;

/// Becomes wireguard-go. The device exists already and stays when it ends; `netns` is where it lies, `None` for here.
pub fn exec(device: &str, netns: Option<&Path>) -> Result<()> {
    let tun = run_in_or_here(netns, || open(device))??;
    // wireguard-go takes the descriptor by its number, so it must outlive the exec.
    nix::fcntl::fcntl(&tun, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    let number = OsString::from(tun.as_raw_fd().to_string());
    Err(Command::new("wireguard-go").args(["--foreground", device]).env("WG_TUN_FD", number).exec())
}

fn open(device: &str) -> Result<File> {
    // Opening a name that is not there would make a device of that name.
    nix::net::if_::if_nametoindex(device)?;
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq consists of numbers and arrays of them; all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *slot = byte.cast_signed();
    }
    // Debian 12's wireguard-go puts a packet information header before each packet; newer ones do not.
    request.ifr_ifru.ifru_flags = libc::IFF_TUN as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes an ifreq, which `request` is.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(Error::last_os_error());
    }
    Ok(file)
}
