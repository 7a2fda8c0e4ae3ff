//! Events of the gateway's programs with names instead of numbers.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use enforcer_common::{
    event::{Event, EventKind, Hook},
    verdict::DropReason,
};
use tokio::sync::{broadcast, watch};
use tracing::warn;

use super::{numbers::Numbers, registry::Registry};
use crate::{control::MonitorEvent, datapath::kernel::Events, resolve::Resolved};

/// What the addresses and numbers in events mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    /// Workload address → `namespace/name`.
    pods: BTreeMap<IpAddr, String>,
    /// What the addresses of services follow from.
    of: Arc<Resolved>,
    /// Service address → `Kind namespace/name`.
    destinations: Arc<BTreeMap<IpAddr, String>>,
    /// Number → `namespace/name`.
    connections: BTreeMap<u32, String>,
    /// `CLOCK_REALTIME` − `CLOCK_BOOTTIME` in nanoseconds.
    boot_time_unix_ns: u64,
}

impl Names {
    /// `before` is only a store of work already done.
    pub fn new(
        resolved: &Arc<Resolved>,
        registry: &Registry,
        numbers: &Numbers,
        boot_time_unix_ns: u64,
        before: &Self,
    ) -> Self {
        let announced =
            registry.nodes.values().flat_map(|node| node.leaving.values().chain(node.bindings.values()));
        let pods = announced.flat_map(|binding| {
            let name = format!("{}/{}", binding.namespace, binding.pod);
            binding.addresses().map(move |address| (address, name.clone()))
        });
        let destinations = if before.of.destinations == resolved.destinations {
            Arc::clone(&before.destinations)
        } else {
            Arc::new(destinations(resolved))
        };
        Self {
            pods: pods.collect(),
            of: Arc::clone(resolved),
            destinations,
            connections: numbers.connection_names(),
            boot_time_unix_ns,
        }
    }

    fn event(&self, event: &Event) -> MonitorEvent {
        let (source, destination) = (event.source.ip(), event.destination.ip());
        let reason = DropReason::from_raw(event.reason);
        MonitorEvent {
            time: self.time(event.time_ns),
            kind: EventKind::from_raw(event.kind).map_or("", EventKind::name).to_owned(),
            hook: Hook::from_raw(event.hook).map_or("", Hook::name).to_owned(),
            reason: reason.map_or("", DropReason::name).to_owned(),
            protocol: protocol_name(event.protocol),
            source: source.to_string(),
            source_port: event.source_port.get(),
            destination: destination.to_string(),
            destination_port: event.destination_port.get(),
            pod: self.pods.get(&source).cloned().unwrap_or_default(),
            destination_name: self.destinations.get(&destination).cloned().unwrap_or_default(),
            connection: self.connections.get(&event.connection).cloned().unwrap_or_default(),
            explanation: reason.map_or("", explanation).to_owned(),
            interface: event.ifindex,
            ..MonitorEvent::default()
        }
    }

    /// RFC 3339.
    fn time(&self, boot_ns: u64) -> String {
        let unix_ns = i128::from(boot_ns) + i128::from(self.boot_time_unix_ns);
        jiff::Timestamp::from_nanosecond(unix_ns).map(|time| time.to_string()).unwrap_or_default()
    }
}

fn destinations(resolved: &Resolved) -> BTreeMap<IpAddr, String> {
    let named = resolved.destinations.values().flat_map(|destination| {
        let addresses = [destination.v4.map(IpAddr::V4), destination.v6.map(IpAddr::V6)];
        addresses.into_iter().flatten().map(|address| (address, destination.key.to_string()))
    });
    named.collect()
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => other.to_string(),
    }
}

/// What a reason means here, at the far end, where it does not say it all.
const fn explanation(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NoGrant => {
            "no ServiceConnection that the gateway knows grants it to what the node announced"
        }
        DropReason::Revoked => "its grant is gone",
        DropReason::NoBackend => "no endpoint of the destination is healthy, allowed and has a route",
        DropReason::BackendNotAllowed => "the endpoint is not in allowedBackends of the TunnelGateway",
        DropReason::PortsExhausted => "all ports 61000-65535 towards the endpoint are taken",
        DropReason::QuotaExceeded => "the node has all the flows that one node may have",
        DropReason::UnknownNode => "the source address is in no node's blocks",
        _ => "",
    }
}

/// Reads events for as long as there are any; who listens too slowly loses the oldest.
pub async fn run(
    mut events: Events,
    names: watch::Receiver<Arc<Names>>,
    listeners: broadcast::Sender<MonitorEvent>,
) {
    loop {
        match events.next().await {
            Ok(event) => {
                if listeners.receiver_count() > 0 {
                    // Nobody listening any more is no failure.
                    _ = listeners.send(names.borrow().event(&event));
                }
            }
            Err(error) => {
                warn!(%error, "events of the kernel cannot be read any more");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{Addr, Port};

    use super::*;
    use crate::announce::Binding;

    #[test]
    fn an_event_has_the_names_of_its_addresses() {
        let mut registry = Registry::default();
        let v4 = Some([198, 19, 0, 2].into());
        let binding = Binding {
            uid: "a".into(),
            v4,
            namespace: "shop".into(),
            pod: "cart".into(),
            ..Binding::default()
        };
        registry.upsert("n", binding);
        let names = Names::new(
            &Arc::default(),
            &registry,
            &Numbers::default(),
            1_000_000_000_000_000_000,
            &Names::default(),
        );
        let event = Event {
            time_ns: 1_500_000_000,
            netns: 0,
            cgroup: 0,
            source: Addr::v4([198, 19, 0, 2].into()),
            destination: Addr::v4([198, 18, 0, 7].into()),
            ifindex: 3,
            pid: 0,
            workload: 0,
            connection: 0,
            source_port: Port::new(40_000),
            destination_port: Port::new(5432),
            protocol: 6,
            kind: EventKind::Denied as u8,
            hook: Hook::GwFromTunnel as u8,
            reason: DropReason::NoBackend as u8,
            comm: [0; 16],
        };
        let expected = MonitorEvent {
            time: "2001-09-09T01:46:41.5Z".into(),
            kind: "denied".into(),
            hook: "gw_from_tunnel".into(),
            reason: "NoBackend".into(),
            protocol: "TCP".into(),
            source: "198.19.0.2".into(),
            source_port: 40_000,
            destination: "198.18.0.7".into(),
            destination_port: 5432,
            pod: "shop/cart".into(),
            explanation: "no endpoint of the destination is healthy, allowed and has a route".into(),
            interface: 3,
            ..MonitorEvent::default()
        };
        assert_eq!(names.event(&event), expected);
    }
}
