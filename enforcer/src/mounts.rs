//! The host's mounts, for a role in a container.
//!
//! What outlives the process (the tunnel netns, a BPF file system) has to be mounted where the host sees it, and
//! `/proc/sys` is read-only inside of a container. So those few things are done by a thread that has entered the host's
//! mount namespace. Needs CAP_SYS_ADMIN, CAP_SYS_CHROOT and the host's processes (`hostPID`).

use std::{
    fs::File,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// Said once by the command line; everything below would have to hand it on otherwise.
static HOST: OnceLock<PathBuf> = OnceLock::new();

/// From now on [`on_host`] means the mount namespace at this path, `/proc/1/ns/mnt` for one.
pub fn use_host(path: &Path) -> io::Result<()> {
    File::open(path)?;
    HOST.get_or_init(|| path.to_owned());
    Ok(())
}

/// Runs `f` where the host's mounts are; in the own ones for a role that nobody told of others. `f` is on a thread of
/// its own then.
pub fn on_host<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let Some(path) = HOST.get() else { return f() };
    let namespace = File::open(path)?;
    thread::scope(|scope| {
        scope
            .spawn(move || {
                // Root and working directory are shared with the other threads until then, and could not change.
                unshare(CloneFlags::CLONE_FS)?;
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS)?;
                f()
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread among the host's mounts panicked")))
    })
}
