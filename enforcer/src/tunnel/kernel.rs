//! Tunnel devices in the kernel's WireGuard.
//!
//! A device is made in the own namespace and moved into the tunnel netns: its UDP socket stays where it was made.

mod genl;
mod message;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use netlink_packet_route::link::InfoKind;

use self::genl::Genl;
use super::{DeviceConfig, DeviceStatus, Tunnel, TunnelError, diff, uapi, with_netlink};
use crate::{
    netlink::{Link, Netlink, NetlinkError},
    netns::run_in_or_here,
};

const KIND: &str = "wireguard";

/// Device that is made to see whether one can be made.
const PROBE: &str = "ef-probe";

pub(super) struct Kernel {
    netns: Option<PathBuf>,
}

/// True if the kernel makes WireGuard devices. Tried in `netns`, where nobody watches for new devices.
pub(super) fn is_available(netns: Option<&Path>) -> Result<bool, TunnelError> {
    with_netlink(netns, async |netlink| {
        match netlink.add_device(PROBE, InfoKind::Wireguard).await {
            Ok(()) => {
                if let Some(link) = netlink.link(PROBE).await? {
                    netlink.remove_device(link.ifindex).await?;
                }
                Ok(true)
            }
            // Somebody else is trying at this moment, with success.
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(true),
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    })
    .map_err(TunnelError::link(PROBE))
}

impl Kernel {
    pub fn new(netns: Option<&Path>) -> Self {
        Self { netns: netns.map(Into::into) }
    }

    /// Makes the device here and moves it to its namespace.
    fn create(&self, name: &str) -> Result<(), TunnelError> {
        let target = self.netns.as_deref().map(File::open).transpose();
        let target = target.map_err(TunnelError::device(name, "open the tunnel netns"))?;
        with_netlink(None, async |netlink| {
            // One that is here already was made by a process that ended before it could move it.
            if find(&netlink, name).await?.is_none() {
                netlink.add_device(name, InfoKind::Wireguard).await?;
            }
            match (target, netlink.link(name).await?) {
                (Some(target), Some(link)) => netlink.move_device(link.ifindex, &target).await,
                (None, Some(_)) => Ok(()),
                (_, None) => Err(NetlinkError::NoDevice(name.to_owned())),
            }
        })
        .map_err(TunnelError::link(name))
    }
}

/// The WireGuard device of this name. One of another kind is what another mode left, and is removed.
async fn find(netlink: &Netlink, name: &str) -> Result<Option<Link>, NetlinkError> {
    match netlink.link(name).await? {
        Some(link) if link.kind != KIND => {
            netlink.remove_device(link.ifindex).await?;
            Ok(None)
        }
        link => Ok(link),
    }
}

impl Tunnel for Kernel {
    fn mode(&self) -> &'static str {
        "kernel"
    }

    fn ensure_device(&mut self, name: &str, mtu: u32) -> Result<u32, TunnelError> {
        let netns = self.netns.as_deref();
        let present = with_netlink(netns, async |netlink| Ok(find(&netlink, name).await?.is_some()))
            .map_err(TunnelError::link(name))?;
        if !present {
            self.create(name)?;
        }
        with_netlink(netns, async |netlink| {
            let link = netlink.link(name).await?;
            let link = link.ok_or_else(|| NetlinkError::NoDevice(name.to_owned()))?;
            if !link.up || link.mtu != mtu {
                netlink.set_up(link.ifindex, mtu, false).await?;
            }
            Ok(link.ifindex)
        })
        .map_err(TunnelError::link(name))
    }

    fn configure(&mut self, config: &DeviceConfig) -> Result<DeviceStatus, TunnelError> {
        run_in_or_here(self.netns.as_deref(), || -> io::Result<DeviceStatus> {
            let mut genl = Genl::open()?;
            let mut actual = get(&mut genl, &config.name)?;
            let change = diff::difference(config, &actual);
            if !change.is_empty() {
                for message in message::requests(&config.name, &change) {
                    genl.request(message)?;
                }
                actual = get(&mut genl, &config.name)?;
            }
            Ok(actual.status())
        })
        .flatten()
        .map_err(TunnelError::device(&config.name, "configure the kernel's WireGuard"))
    }

    fn remove_device(&mut self, name: &str) -> Result<(), TunnelError> {
        with_netlink(self.netns.as_deref(), async |netlink| match netlink.link(name).await? {
            Some(link) => netlink.remove_device(link.ifindex).await,
            None => Ok(()),
        })
        .map_err(TunnelError::link(name))
    }
}

fn get(genl: &mut Genl, name: &str) -> io::Result<uapi::Device> {
    Ok(message::device(genl.dump(message::query(name))?))
}
