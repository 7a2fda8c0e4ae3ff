//! From the kernel's events to lines for a person: names instead of numbers, and why.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use enforcer_common::{
    Addr,
    event::{Event, EventKind, Hook},
    verdict::DropReason,
};
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use super::devices::Guarded;
use crate::{
    compile::{Compiled, Location, Pod},
    control::MonitorEvent,
    datapath::kernel::Events,
    model::Protocol,
    resolve::{Connection, Destination, FailedTerm, Resolved, match_pod},
};

/// What events are read with.
#[derive(Clone, Default)]
pub struct Names {
    pub compiled: Arc<Compiled>,
    pub resolved: Arc<Resolved>,
    pub cluster: String,
    /// Unix time minus `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_unix_ns: i128,
}

/// Hands events on until the ring buffer fails.
pub async fn run(mut events: Events, names: watch::Receiver<Names>, out: broadcast::Sender<MonitorEvent>) {
    loop {
        match events.next().await {
            // Without a listener the work is not done.
            Ok(event) if out.receiver_count() > 0 => {
                let line = names.borrow().translate(&event);
                // The last listener may have gone in between.
                let _nobody = out.send(line);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the kernel's events cannot be read any more");
                return;
            }
        }
    }
}

/// This moment, as [`MonitorEvent::time`].
pub fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

/// A device that is guarded since `time`; `sent` packets had left it by then, guarded ones perhaps among them.
pub fn device_guarded(time: &str, device: &Guarded, sent: Option<u64>) -> MonitorEvent {
    let since = match device.after {
        Some(after) => format!("{:.3} ms after it appeared", after.as_secs_f64() * 1e3),
        None => "nobody saw when it appeared".to_owned(),
    };
    let sent = sent.map_or_else(|| "an unknown number of".to_owned(), |sent| sent.to_string());
    MonitorEvent {
        time: time.to_owned(),
        kind: "device-guarded".to_owned(),
        explanation: format!("{}: {since}, {sent} packets had left it", device.name),
        interface: device.ifindex,
        ..MonitorEvent::default()
    }
}

/// Events that nobody will hear of: the kernel limits how many there are in a moment, and its buffer has an end.
pub fn missed(time: &str, count: u64) -> MonitorEvent {
    MonitorEvent {
        time: time.to_owned(),
        kind: "missed".to_owned(),
        explanation: format!(
            "{count} events were left out, there were too many at once; the counters have them"
        ),
        ..MonitorEvent::default()
    }
}

impl Names {
    pub fn translate(&self, event: &Event) -> MonitorEvent {
        let reason = DropReason::from_raw(event.reason);
        let pod = self.pod(event);
        let destination = self.destination(&event.destination);
        let (connection, explanation) = match reason {
            Some(reason) => self.explain(event, reason, pod, destination),
            None => (self.charged(event.connection), String::new()),
        };
        MonitorEvent {
            time: self.time(event.time_ns),
            kind: EventKind::from_raw(event.kind).map_or("unknown", EventKind::name).to_owned(),
            hook: Hook::from_raw(event.hook).map_or("unknown", Hook::name).to_owned(),
            reason: reason.map_or("", DropReason::name).to_owned(),
            protocol: protocol_name(event.protocol),
            source: address(&event.source),
            source_port: event.source_port.get(),
            destination: address(&event.destination),
            destination_port: event.destination_port.get(),
            pod: pod.map(Pod::title).unwrap_or_default(),
            destination_name: destination.map(|destination| destination.key.to_string()).unwrap_or_default(),
            connection,
            explanation,
            pid: event.pid,
            process: process(&event.comm),
            interface: event.ifindex,
        }
    }

    fn time(&self, boot_ns: u64) -> String {
        let time = Timestamp::from_nanosecond(i128::from(boot_ns) + self.boot_unix_ns);
        time.map(|time| format!("{time:.3}")).unwrap_or_default()
    }

    /// By the workload's id, else by its namespace, else by the device it is behind.
    fn pod(&self, event: &Event) -> Option<&Pod> {
        let node = &self.compiled.node;
        let behind = || node.wire.iter().find(|(key, _)| key.ifindex == event.ifindex).map(|(_, pod)| pod.id);
        let id = match event.workload {
            0 => node.netns.get(&event.netns).map(|pod| pod.id).or_else(behind)?,
            id => id,
        };
        self.compiled.pods.get(&id)?.pod.as_deref()
    }

    fn destination(&self, address: &Addr) -> Option<&Destination> {
        let of = |destination: &&Destination| match address.ip() {
            IpAddr::V4(address) => destination.v4 == Some(address),
            IpAddr::V6(address) => destination.v6 == Some(address),
        };
        self.resolved.destinations.values().map(|destination| &**destination).find(of)
    }

    fn charged(&self, number: u32) -> String {
        self.compiled
            .connections
            .get(&number)
            .map(|key| format!("{}/{}", key.namespace, key.name))
            .unwrap_or_default()
    }

    /// The connection that it is about, and why in words.
    fn explain(
        &self,
        event: &Event,
        reason: DropReason,
        pod: Option<&Pod>,
        destination: Option<&Destination>,
    ) -> (String, String) {
        let charged = self.charged(event.connection);
        let text = match (reason, pod, destination) {
            (DropReason::NoGrant, Some(pod), Some(destination)) => {
                return self.nearest(event, pod, destination);
            }
            (
                DropReason::NotGuardable,
                Some(Pod { location: Location::Netns { not_guardable, .. }, .. }),
                _,
            ) => not_guardable.clone().unwrap_or_default(),
            (DropReason::PortNotOffered, _, Some(destination)) => offered(destination),
            (DropReason::NoDestination, ..) => "no destination has this address".to_owned(),
            (DropReason::UnknownWorkload, ..) => "no pod of this node is known to send from here".to_owned(),
            (DropReason::Spoofed, ..) => "the interface belongs to a pod with other addresses".to_owned(),
            (DropReason::Expired, ..) => format!("validUntil of {charged} is over"),
            (DropReason::Pending, ..) => "granted, but no gateway has acknowledged it yet".to_owned(),
            (DropReason::TunnelDown, _, Some(destination)) => {
                format!("none of its gateways is answering: {}", destination.gateways.join(", "))
            }
            (DropReason::Revoked, ..) => "the flow's grant was taken away".to_owned(),
            _ => String::new(),
        };
        (charged, text)
    }

    /// Of the connections to the destination the one that came nearest, and its first term that failed.
    fn nearest(&self, event: &Event, pod: &Pod, destination: &Destination) -> (String, String) {
        let to_it =
            self.resolved.connections.iter().filter(|connection| connection.destination == destination.key);
        let mut nearest: Option<(&Connection, Option<FailedTerm>)> = None;
        for connection in to_it {
            let failed =
                match_pod(connection, &self.cluster, &pod.namespace, &pod.labels, &pod.namespace_labels)
                    .err();
            let nearer = match (&nearest, &failed) {
                (Some((_, None)), _) => false,
                (None, _) | (Some((_, Some(_))), None) => true,
                (Some((_, Some(best))), Some(failed)) => depth(failed) > depth(best),
            };
            if nearer {
                nearest = Some((connection, failed));
            }
        }
        let Some((connection, failed)) = nearest else {
            return (String::new(), format!("no ServiceConnection leads to {}", destination.key));
        };
        let name = format!("{}/{}", connection.key.namespace, connection.key.name);
        let text = match failed {
            Some(term) => term.to_string(),
            None => format!("it does not grant {} {}", protocol_name(event.protocol), event.destination_port),
        };
        (name, text)
    }
}

/// How far a match came: only which term failed counts, not its text.
const fn depth(term: &FailedTerm) -> u8 {
    match term {
        FailedTerm::Cluster { .. } => 0,
        FailedTerm::Namespace { .. } => 1,
        FailedTerm::NamespaceLabel(_) => 2,
        FailedTerm::PodLabel(_) => 3,
    }
}

fn offered(destination: &Destination) -> String {
    let mut by_protocol: BTreeMap<Protocol, Vec<String>> = BTreeMap::new();
    for port in &destination.ports {
        by_protocol.entry(port.protocol).or_default().push(port.port.to_string());
    }
    let ports: Vec<String> = by_protocol
        .iter()
        .map(|(protocol, ports)| format!("{} {}", protocol_name(protocol.number()), ports.join(", ")))
        .collect();
    format!("it offers {}", ports.join(" and "))
}

fn protocol_name(number: u8) -> String {
    match number {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        1 | 58 => "ICMP".to_owned(),
        0 => String::new(),
        other => other.to_string(),
    }
}

fn address(address: &Addr) -> String {
    if address.is_none() { String::new() } else { address.to_string() }
}

fn process(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}

#[cfg(test)]
mod tests;
