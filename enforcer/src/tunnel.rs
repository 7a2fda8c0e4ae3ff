//! Encrypted tunnels: the kernel's WireGuard, or a user-space process spoken to over the standard UAPI socket.
//!
//! One device per peer gateway on a node, one device with all nodes as peers at a gateway. Peers are diffed, never
//! rebuilt.

mod diff;
mod kernel;
pub mod process;
mod tun;
mod uapi;
mod userspace;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use uapi::ParseError;

use crate::netlink::{Netlink, NetlinkError};

/// Seconds between keepalives, on both ends: tunnel liveness counts on them.
pub const KEEPALIVE: u16 = 2;

/// A device as it should be.
#[derive(Clone, PartialEq)]
pub struct DeviceConfig {
    /// At most 15 bytes.
    pub name: String,
    pub private_key: [u8; 32],
    /// UDP port; 0: any.
    pub listen_port: u16,
    pub peers: Vec<PeerConfig>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    pub public_key: [u8; 32],
    pub endpoint: Option<SocketAddr>,
    pub allowed_ips: Vec<IpNet>,
    pub keepalive: u16,
}

/// A device as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceStatus {
    pub listen_port: u16,
    pub peers: Vec<PeerStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    pub public_key: [u8; 32],
    pub endpoint: Option<SocketAddr>,
    pub allowed_ips: Vec<IpNet>,
    /// Seconds since the Unix epoch; 0: never.
    pub last_handshake: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// One way to have tunnel devices.
pub trait Tunnel: Send {
    /// `kernel` or `userspace`, for status.
    fn mode(&self) -> &'static str;

    /// Makes sure that the device exists in the tunnel netns, is up with this MTU, and returns its index there.
    fn ensure_device(&mut self, name: &str, mtu: u32) -> Result<u32, TunnelError>;

    /// Brings key, port and peers to this configuration by the smallest change.
    fn configure(&mut self, config: &DeviceConfig) -> Result<DeviceStatus, TunnelError>;

    fn remove_device(&mut self, name: &str) -> Result<(), TunnelError>;
}

/// Which kind of tunnel to use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Mode {
    /// The kernel's WireGuard if it has it, else the user-space process.
    #[default]
    Auto,
    Kernel,
    Userspace,
}

/// Opens the tunnel devices of one tunnel netns (`None`: the own one).
///
/// `run_dir` is the folder that the tunnel process serves. Every method of the result blocks for at most a few
/// seconds, and may be called from inside or outside of a tokio runtime.
pub fn open(mode: Mode, run_dir: &Path, netns: Option<&Path>) -> Result<Box<dyn Tunnel>, TunnelError> {
    let kernel = match mode {
        Mode::Auto => kernel::is_available(netns)?,
        Mode::Kernel => true,
        Mode::Userspace => false,
    };
    Ok(if kernel {
        Box::new(kernel::Kernel::new(netns))
    } else {
        Box::new(userspace::Userspace::new(run_dir, netns))
    })
}

/// Runs work that blocks, as every method of a [`Tunnel`] does, where blocking is allowed.
///
/// # Errors
/// Those of the work; that it panicked is one of the device.
pub async fn blocking<T: Send + 'static>(
    device: &str,
    work: impl FnOnce() -> Result<T, TunnelError> + Send + 'static,
) -> Result<T, TunnelError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(TunnelError::device(device, "finish the work on it")(io::Error::other(error)))
    })
}

/// `ef-` and six digits of a hash (FNV-1a) of what the device belongs to.
pub fn device_name(owner: &str) -> String {
    let hash =
        owner.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("ef-{:06x}", hash & 0x00ff_ffff)
}

/// What the tunnel process needs to know to serve a device: `RUN_DIR/tunnels/DEVICE.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Description {
    /// Also the name of the file.
    pub device: String,
    /// Where the TUN is; absent: the process's own namespace.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// Bytes.
    pub mtu: u16,
}

/// Folder below the run directory with the descriptions, and the saved configurations beside them.
pub fn descriptions(run_dir: &Path) -> PathBuf {
    run_dir.join("tunnels")
}

/// Where every WireGuard tool looks for the UAPI socket of a user-space device.
pub fn socket_path(device: &str) -> PathBuf {
    Path::new(SOCKET_DIR).join(format!("{device}.sock"))
}

const SOCKET_DIR: &str = "/var/run/wireguard";

#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("tunnel device {name}: cannot {action}")]
    Device {
        name: String,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("tunnel device {name}: its link cannot be changed")]
    Link {
        name: String,
        #[source]
        source: NetlinkError,
    },
    #[error("tunnel device {name}: nothing answers at {}, is `enforcer tunnel` running?", path.display())]
    NotServed {
        name: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("tunnel device {name}: configuration was not understood or refused")]
    Configuration {
        name: String,
        #[source]
        source: ParseError,
    },
}

impl TunnelError {
    /// True if nothing is wrong with the configuration and trying again later is the cure.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotServed { .. })
    }

    fn device(name: &str, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Device { name: name.to_owned(), action, source }
    }

    fn link(name: &str) -> impl FnOnce(NetlinkError) -> Self {
        move |source| Self::Link { name: name.to_owned(), source }
    }
}

/// Runs requests to rtnetlink in `netns` to their end.
///
/// They get a runtime and a thread of their own, because this module is called from tokio workers, which must not
/// wait for a runtime.
fn with_netlink<T: Send>(
    netns: Option<&Path>,
    requests: impl AsyncFnOnce(Netlink) -> Result<T, NetlinkError> + Send,
) -> Result<T, NetlinkError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| NetlinkError::Open { netns: netns.map(Into::into), source })?;
        runtime.block_on(async { requests(Netlink::open(netns)?).await })
    };
    thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|_| {
            Err(NetlinkError::Open {
                netns: netns.map(Into::into),
                source: io::Error::other("the thread of the requests panicked"),
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::device_name;

    #[test]
    fn a_device_name_fits_the_kernel_and_differs_by_owner() {
        assert_eq!(device_name("eu-1").len(), 9);
        assert_ne!(device_name("eu-1"), device_name("eu-2"));
    }
}
