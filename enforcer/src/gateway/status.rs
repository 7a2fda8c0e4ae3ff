//! What the gateway says about itself and about the objects it serves.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Value, json};

use super::{compile::Compiled, far_end, registry::Registry, sessions::Sessions};
use crate::{
    datapath::{
        gateway::GwTables,
        kernel::{Counters, MapPressure},
    },
    keygen,
    model::{ObjectKey, Protocol},
    resolve::{Gateway, Resolved},
    state::{Condition, ObjectStatus},
};

/// Everything that status is made of.
pub struct Facts<'a> {
    pub name: &'a str,
    /// What is wrong, by the type of the condition that it makes false: reason and message.
    pub problems: &'a BTreeMap<&'static str, (&'static str, String)>,
    pub gateway: Option<&'a Gateway>,
    pub device: &'a str,
    pub tunnel_mode: &'static str,
    pub tunnel: &'a far_end::Health,
    pub resolved: &'a Resolved,
    pub registry: &'a Registry,
    pub sessions: &'a Sessions,
    pub compiled: &'a Compiled,
    pub actual: &'a GwTables,
    pub pressure: &'a [MapPressure],
    pub counters: Option<&'a Counters>,
    /// Settings of this host that were changed at start.
    pub changed_settings: &'a [String],
}

/// Types of the conditions that the role always shows.
const CONDITIONS: [&str; 6] =
    ["Valid", "Programmed", "TunnelUp", "Listening", "BindingsKept", "AllowedBackends"];

/// `status -o json` of the role.
pub fn role(facts: &Facts<'_>) -> Value {
    let ready = facts.problems.is_empty() && facts.gateway.is_some();
    let mut conditions: Vec<Condition> = CONDITIONS
        .iter()
        .map(|kind| match facts.problems.get(kind) {
            Some((reason, message)) => condition(kind, false, reason, message.clone()),
            None => condition(kind, true, "Ok", String::new()),
        })
        .collect();
    conditions.push(room(facts.pressure));
    conditions.push(condition("Ready", ready, if ready { "Ok" } else { "NotReady" }, String::new()));
    let addresses = facts.gateway.map(|gateway| [gateway.v4.to_string(), gateway.v6.to_string()]);
    json!({
        "role": "gateway",
        "name": facts.name,
        "conditions": conditions,
        "addresses": addresses,
        "tunnel": { "device": facts.device, "mode": facts.tunnel_mode, "listenPort": facts.tunnel.status.listen_port },
        "peers": peers(facts),
        "endpoints": facts.compiled.endpoints.iter().map(|(key, endpoints)| (key.to_string(), endpoints_of(endpoints)))
            .collect::<BTreeMap<_, _>>(),
        "grants": facts.actual.grants.len(),
        "refused": facts.compiled.refused.iter().map(|((node, uid), message)| json!({
            "node": node, "uid": uid, "message": message,
        })).collect::<Vec<_>>(),
        "maps": facts.pressure.iter().map(|map| (map.map, json!({
            "entries": map.entries,
            "capacity": map.capacity,
        }))).collect::<BTreeMap<_, _>>(),
        "masqueradePorts": "61000-65535",
        "changedSettings": facts.changed_settings,
        "counters": facts.counters.map(|counters| json!({
            "allowed": counters.allowed,
            "drops": counters.drops.iter().map(|(reason, count)| (reason.name(), *count)).collect::<BTreeMap<_, _>>(),
            "eventsLost": counters.events_lost,
            "eventsLimited": counters.events_limited,
        })),
    })
}

/// A map that is nearly full: new flows or grants will be refused, what is there stays.
fn room(pressure: &[MapPressure]) -> Condition {
    let full: Vec<String> = pressure
        .iter()
        .filter(|map| u64::from(map.entries) * 10 >= u64::from(map.capacity) * 9)
        .map(|map| format!("{} has {} of {} entries", map.map, map.entries, map.capacity))
        .collect();
    let reason = if full.is_empty() { "Ok" } else { "NearlyFull" };
    condition("RoomLeft", full.is_empty(), reason, full.join("; "))
}

fn peers(facts: &Facts<'_>) -> Vec<Value> {
    let nodes = facts.resolved.nodes.values();
    nodes
        .map(|node| {
            let peer = facts.tunnel.status.peers.iter().find(|peer| peer.public_key == node.public_key);
            let announced = facts.registry.nodes.get(&node.name);
            json!({
                "node": node.name,
                "address": node.v4.to_string(),
                "publicKey": keygen::encode_key(&node.public_key),
                "announcing": facts.sessions.is_ready(&node.name),
                "bindings": announced.map_or(0, |announced| announced.bindings.len()),
                "leaving": announced.map_or(0, |announced| announced.leaving.len()),
                "endpoint": peer.and_then(|peer| peer.endpoint).map(|endpoint| endpoint.to_string()),
                "lastHandshake": peer.map_or(0, |peer| peer.last_handshake),
                "receivedBytes": peer.map_or(0, |peer| peer.received_bytes),
                "sentBytes": peer.map_or(0, |peer| peer.sent_bytes),
            })
        })
        .collect()
}

fn endpoints_of(endpoints: &[super::compile::EndpointView]) -> Vec<Value> {
    endpoints
        .iter()
        .map(|endpoint| {
            json!({
                "address": endpoint.address.to_string(),
                "protocol": endpoint.protocol,
                "used": endpoint.used,
                "state": endpoint.state,
            })
        })
        .collect()
}

/// `BackendsHealthy` of every destination that goes through this gateway.
pub fn objects(compiled: &Compiled) -> BTreeMap<ObjectKey, ObjectStatus> {
    let statuses = compiled.endpoints.iter().map(|(key, endpoints)| {
        let unused: Vec<String> = endpoints
            .iter()
            .filter(|endpoint| !endpoint.used)
            .map(|endpoint| {
                format!("{} {}: {}", protocol(endpoint.protocol), text(endpoint.address), endpoint.state)
            })
            .collect();
        let used = endpoints.iter().any(|endpoint| endpoint.used);
        let reason = match (used, unused.is_empty()) {
            (true, true) => "AllHealthy",
            (true, false) => "SomeHealthy",
            (false, _) => "NoneHealthy",
        };
        let condition = condition("BackendsHealthy", used, reason, unused.join("; "));
        (key.clone(), ObjectStatus { conditions: vec![condition], fields: BTreeMap::new() })
    });
    statuses.collect()
}

fn text(address: SocketAddr) -> String {
    address.to_string()
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn condition(kind: &str, holds: bool, reason: &str, message: String) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::compile::EndpointView, model::Kind};

    #[test]
    fn a_map_that_is_nearly_full_is_said() {
        let map = |map, entries| MapPressure { map, entries, capacity: 100 };
        assert_eq!(room(&[map("GW_FLOWS", 89)]), condition("RoomLeft", true, "Ok", String::new()));
        let message = "GW_FLOWS has 90 of 100 entries".to_owned();
        assert_eq!(
            room(&[map("GW_GRANTS", 1), map("GW_FLOWS", 90)]),
            condition("RoomLeft", false, "NearlyFull", message)
        );
    }

    #[test]
    fn a_destination_says_which_of_its_endpoints_are_left_out() {
        let key = ObjectKey::new(Kind::Postgres, "shop", "orders");
        let endpoint = |last: u8, used, state| EndpointView {
            address: SocketAddr::from(([192, 0, 2, last], 5432)),
            protocol: Protocol::Tcp,
            used,
            state,
        };
        let compiled = Compiled {
            endpoints: BTreeMap::from([(
                key.clone(),
                vec![endpoint(1, true, "healthy"), endpoint(2, false, "no route")],
            )]),
            ..Compiled::default()
        };
        let expected =
            condition("BackendsHealthy", true, "SomeHealthy", "TCP 192.0.2.2:5432: no route".into());
        assert_eq!(
            objects(&compiled),
            BTreeMap::from([(key, ObjectStatus { conditions: vec![expected], fields: BTreeMap::new() })])
        );
    }
}
