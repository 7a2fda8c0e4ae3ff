//! Devices as they come and go.

use std::{path::Path, time::Instant};

use futures::StreamExt as _;
use netlink_packet_core::NetlinkPayload;
use rtnetlink::{MulticastGroup, packet_route::RouteNetlinkMessage};
use tokio::sync::mpsc;

use super::{Link, NetlinkError, link_of};
use crate::netns::run_in_or_here;

/// What happened to a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeviceEvent {
    /// New, renamed, moved in, up or down; and when the kernel's word of it was read.
    Changed(Link, Instant),
    /// Gone or moved away.
    Removed { ifindex: u32, name: String },
}

/// Tells of every device that comes, changes or goes in the namespace. Subscribe first, list then: nothing is missed.
/// The channel closes when the socket fails (an overrun for one): subscribe and list again.
pub fn watch_devices(netns: Option<&Path>) -> Result<mpsc::UnboundedReceiver<DeviceEvent>, NetlinkError> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, mut messages) = run_in_or_here(netns, || {
        let _inside = runtime.enter();
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
    })
    .flatten()
    .map_err(|source| NetlinkError::Open { netns: netns.map(Into::into), source })?;
    tokio::spawn(connection);
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // The handle keeps the connection alive for as long as somebody listens.
        let _handle = handle;
        while let Some((message, _)) = messages.next().await {
            let event = match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    DeviceEvent::Changed(link_of(&link), Instant::now())
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                    let link = link_of(&link);
                    DeviceEvent::Removed { ifindex: link.ifindex, name: link.name }
                }
                NetlinkPayload::Overrun(_) => return,
                _ => continue,
            };
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
