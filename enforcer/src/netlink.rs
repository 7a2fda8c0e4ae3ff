//! rtnetlink in any namespace: devices, addresses, routes. The only place that names `rtnetlink`.

mod devices;
pub mod filters;
mod routes;
mod visit;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, packet_route::address::AddressAttribute};

pub use devices::{DeviceEvent, watch_devices};
pub use routes::{Route, RouteInfo, RouteKind};
pub use visit::{Interface, Visit, visit};

use crate::netns::run_in_or_here;

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open netlink in {}", display(netns.as_ref()))]
    Open {
        netns: Option<PathBuf>,
        #[source]
        source: io::Error,
    },
    #[error("cannot {action}")]
    Request {
        action: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no device {0}")]
    NoDevice(String),
}

fn display(netns: Option<&PathBuf>) -> String {
    netns.map_or_else(|| "the own namespace".to_owned(), |path| path.display().to_string())
}

/// Turns rtnetlink's error into the kernel's number where there is one.
fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    let action = action.into();
    move |error| NetlinkError::Request {
        action,
        source: match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        },
    }
}

impl NetlinkError {
    /// Number of the kernel's error.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open { source, .. } | Self::Request { source, .. } => source.raw_os_error(),
            Self::NoDevice(_) => None,
        }
    }
}

/// A network device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    /// `veth`, `bridge`, `wireguard`, `tun`, …; empty for physical devices.
    pub kind: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub up: bool,
    pub loopback: bool,
    /// No Ethernet header: tunnel devices.
    pub l3: bool,
    /// `iflink`: index of the far end of a veth, in the far end's namespace.
    pub peer: Option<u32>,
}

/// A connection to the kernel, bound to one namespace. Needs a tokio runtime.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket inside `netns`, or in the own namespace.
    pub fn open(netns: Option<&Path>) -> Result<Self, NetlinkError> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _) = run_in_or_here(netns, || {
            let _inside = runtime.enter();
            rtnetlink::new_connection()
        })
        .flatten()
        .map_err(|source| NetlinkError::Open { netns: netns.map(Into::into), source })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        self.handle
            .link()
            .get()
            .execute()
            .map_ok(|message| link_of(&message))
            .try_collect()
            .await
            .map_err(failed("list devices"))
    }

    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links().await?.into_iter().find(|link| link.name == name))
    }

    /// Packets that have left through a device since it was made; `None`: it is gone.
    pub async fn sent_packets(&self, ifindex: u32) -> Result<Option<u64>, NetlinkError> {
        let mut links = self.handle.link().get().match_index(ifindex).execute();
        let message =
            match links.try_next().await.map_err(failed(format!("read the counts of device {ifindex}"))) {
                Err(error) if error.errno() == Some(libc::ENODEV) => None,
                result => result?,
            };
        Ok(message.into_iter().flat_map(|message| message.attributes).find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(stats.tx_packets),
            _ => None,
        }))
    }

    /// Makes a veth pair: `name` here, `peer` in `peer_netns`.
    pub async fn add_veth(
        &self,
        (name, mac): (&str, [u8; 6]),
        (peer, peer_mac): (&str, [u8; 6]),
        peer_netns: &std::fs::File,
    ) -> Result<(), NetlinkError> {
        use std::os::fd::AsRawFd as _;
        let peer_message = rtnetlink::LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer.to_owned())
            .address(peer_mac.to_vec())
            .setns_by_fd(peer_netns.as_raw_fd())
            .build();
        let message = rtnetlink::LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name.to_owned())
            .address(mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer_message)))
            .build();
        let action = format!("make the veth pair {name} and {peer}");
        self.handle.link().add(message).execute().await.map_err(failed(action))
    }

    /// Makes a device of a kind that needs no further data, `wireguard` for one.
    pub async fn add_device(&self, name: &str, kind: InfoKind) -> Result<(), NetlinkError> {
        let action = format!("make the {kind} device {name}");
        let message = rtnetlink::LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind)
            .name(name.to_owned())
            .build();
        self.handle.link().add(message).execute().await.map_err(failed(action))
    }

    pub async fn move_device(&self, ifindex: u32, netns: &std::fs::File) -> Result<(), NetlinkError> {
        use std::os::fd::AsRawFd as _;
        let message = LinkUnspec::new_with_index(ifindex).setns_by_fd(netns.as_raw_fd()).build();
        self.set(message, format!("move device {ifindex} to another namespace")).await
    }

    /// Sets MTU and ARP, and brings the device up.
    pub async fn set_up(&self, ifindex: u32, mtu: u32, arp: bool) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).mtu(mtu).arp(arp).up().build();
        self.set(message, format!("bring device {ifindex} up with MTU {mtu}")).await
    }

    /// Brings a device up as it is.
    pub async fn up(&self, ifindex: u32) -> Result<(), NetlinkError> {
        self.set(LinkUnspec::new_with_index(ifindex).up().build(), format!("bring device {ifindex} up")).await
    }

    async fn set(&self, message: LinkMessage, action: String) -> Result<(), NetlinkError> {
        self.handle.link().set(message).execute().await.map_err(failed(action))
    }

    /// A device that is gone is fine.
    pub async fn remove_device(&self, ifindex: u32) -> Result<(), NetlinkError> {
        match self
            .handle
            .link()
            .del(ifindex)
            .execute()
            .await
            .map_err(failed(format!("remove device {ifindex}")))
        {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Addresses of one device, or of all.
    pub async fn addresses(&self, ifindex: Option<u32>) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let messages: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("list addresses"))?;
        let wanted =
            messages.iter().filter(|message| ifindex.is_none_or(|index| index == message.header.index));
        Ok(wanted
            .filter_map(|message| {
                // A point-to-point address has its own half in `Local` and the far half in `Address`.
                let local = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                });
                let address = local.or_else(|| {
                    message.attributes.iter().find_map(|attribute| match attribute {
                        AddressAttribute::Address(address) => Some(*address),
                        _ => None,
                    })
                })?;
                Some((message.header.index, IpNet::new(address, message.header.prefix_len).ok()?))
            })
            .collect())
    }

    /// Adds an address without duplicate address detection; one that is there already is fine.
    pub async fn add_address(&self, ifindex: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(ifindex, address.addr(), address.prefix_len()).replace();
        if matches!(address.addr(), IpAddr::V6(_)) {
            request
                .message_mut()
                .attributes
                .push(AddressAttribute::Flags(rtnetlink::packet_route::address::AddressFlags::Nodad));
        }
        request.execute().await.map_err(failed(format!("add {address} to device {ifindex}")))
    }
}

fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        kind: String::new(),
        mac: Vec::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        l3: !matches!(message.header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback),
        peer: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(peer) => link.peer = Some(*peer),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    link
}
