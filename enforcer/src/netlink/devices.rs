//! Devices as they come and go.

use std::{path::Path, time::Instant};

use futures::StreamExt as _;
use netlink_packet_core::NetlinkPayload;
use rtnetlink::{
    MulticastGroup,
    packet_route::{AddressFamily, RouteNetlinkMessage},
};
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
            let event = match &message.payload {
                NetlinkPayload::InnerMessage(message) => event_of(message),
                NetlinkPayload::Overrun(_) => return,
                _ => None,
            };
            if event.is_some_and(|event| sender.send(event).is_err()) {
                return;
            }
        }
    });
    Ok(receiver)
}

/// `None`: nothing happened to a device.
fn event_of(message: &RouteNetlinkMessage) -> Option<DeviceEvent> {
    let (RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) = message else {
        return None;
    };
    // What a bridge says of its ports: which kind of device they are is not in it, and one that leaves is still there.
    if link.header.interface_family == AddressFamily::Bridge {
        return None;
    }
    let link = link_of(link);
    Some(match message {
        RouteNetlinkMessage::NewLink(_) => DeviceEvent::Changed(link, Instant::now()),
        _ => DeviceEvent::Removed { ifindex: link.ifindex, name: link.name },
    })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

    use super::*;

    fn veth(family: AddressFamily, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.interface_family = family;
        link.header.index = 7;
        link.attributes = [vec![LinkAttribute::IfName("veth7".into())], attributes].concat();
        link
    }

    #[test]
    fn a_veth_that_joins_or_leaves_a_bridge_stays_the_veth_that_it_is() {
        let own =
            veth(AddressFamily::Unspec, vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])]);
        let Some(DeviceEvent::Changed(link, _)) = event_of(&RouteNetlinkMessage::NewLink(own.clone())) else {
            panic!("a new device is told");
        };
        assert_eq!((link.ifindex, link.name.as_str(), link.kind.as_str()), (7, "veth7", "veth"));
        let port = veth(AddressFamily::Bridge, Vec::new());
        assert_eq!(event_of(&RouteNetlinkMessage::NewLink(port.clone())), None);
        assert_eq!(event_of(&RouteNetlinkMessage::DelLink(port)), None);
        let gone = DeviceEvent::Removed { ifindex: 7, name: "veth7".into() };
        assert_eq!(event_of(&RouteNetlinkMessage::DelLink(own)), Some(gone));
    }
}
