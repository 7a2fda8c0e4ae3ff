//! Network namespaces: making one that outlives us, and doing something inside one.
//!
//! `setns` changes the calling thread for good, so everything here happens on a thread of its own, never on a tokio
//! worker. Needs CAP_SYS_ADMIN.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::mounts;

/// Folder of named namespaces, as `ip netns` has it.
pub const NETNS_DIR: &str = "/run/netns";

/// Path of a namespace given by name or path.
pub fn path_of(name_or_path: &str) -> PathBuf {
    if name_or_path.contains('/') { name_or_path.into() } else { Path::new(NETNS_DIR).join(name_or_path) }
}

/// Runs `f` on a new thread inside the namespace and waits for it. Sockets that `f` makes stay in the namespace.
pub fn run_in<T: Send>(netns: &Path, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = File::open(netns)?;
    thread::scope(|scope| {
        scope
            .spawn(move || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(f())
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}

/// Like [`run_in`], in the caller's own namespace for `None`.
pub fn run_in_or_here<T: Send>(netns: Option<&Path>, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    match netns {
        Some(netns) => run_in(netns, f),
        None => Ok(f()),
    }
}

/// Makes sure that a namespace is bound at this path; one that is there already is kept. Returns whether it is new.
pub fn ensure(path: &Path) -> io::Result<bool> {
    if run_in(path, || ()).is_ok() {
        return Ok(false);
    }
    mounts::on_host(|| {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        File::create(path)?;
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    let own = Some("/proc/thread-self/ns/net");
                    mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
                    Ok(true)
                })
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
        })
    })
}

/// Takes the namespace's name away; the namespace goes when nothing uses it any more. One that is gone is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    mounts::on_host(|| {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

/// Cookie of the namespace, as `bpf_get_netns_cookie` sees it: only a socket inside can read it.
pub fn cookie(netns: Option<&Path>) -> io::Result<u64> {
    run_in_or_here(netns, read_cookie)?
}

#[expect(unsafe_code, reason = "neither nix nor socket2 knows SO_NETNS_COOKIE")]
fn read_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the whole call, and `cookie` and `length` are a buffer and its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_where_ip_netns_puts_it() {
        assert_eq!(path_of("shop"), Path::new("/run/netns/shop"));
        assert_eq!(path_of("/proc/7/ns/net"), Path::new("/proc/7/ns/net"));
    }
}
