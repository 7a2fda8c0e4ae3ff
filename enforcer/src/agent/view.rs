//! What the agent says about itself and about the objects of its node.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Agent, traffic};
use crate::{
    compile::{Compiled, Location},
    control::View,
    model::{Kind, ObjectKey},
    state::{Condition, ObjectStatus},
    tunnel::DeviceStatus,
};

/// Conditions keep their time of change while they say the same.
#[derive(Default)]
pub struct Conditions {
    /// Status and time of its change, as of the last view and of this one.
    before: BTreeMap<String, (String, String)>,
    now: BTreeMap<String, (String, String)>,
}

impl Conditions {
    fn set(&mut self, id: &str, kind: &str, good: bool, reason: &str, message: String) -> Condition {
        let status = if good { "True" } else { "False" }.to_owned();
        let id = format!("{id} {kind}");
        let known = self.before.remove(&id).filter(|(known, _)| *known == status);
        let entry = known.unwrap_or_else(|| (status.clone(), format!("{:.0}", Timestamp::now())));
        let since = entry.1.clone();
        self.now.insert(id, entry);
        Condition {
            kind: kind.to_owned(),
            reason: if good { kind.to_owned() } else { reason.to_owned() },
            message: if good { String::new() } else { message },
            last_transition_time: Some(since),
            status,
        }
    }
}

/// Builds the view anew.
pub fn view(agent: &mut Agent) -> View {
    agent.conditions.before = std::mem::take(&mut agent.conditions.now);
    let conditions = role_conditions(agent);
    let pods = pods(agent);
    let mut object_status = object_status(agent);
    object_status.extend(pod_status(&pods));
    let role = json!({
        "role": "agent",
        "name": agent.args.node,
        "cluster": agent.args.cluster_name,
        "conditions": conditions,
        "tunnels": tunnels(agent),
        "pods": pods,
        "devices": agent.devices.late(),
        "counters": counters(agent),
        "maps": agent.pressure,
        "problems": problems(agent),
    });
    View {
        snapshot: agent.snapshot.clone(),
        resolved: agent.resolved.clone(),
        state: agent.state.clone(),
        object_status,
        role,
    }
}

fn role_conditions(agent: &mut Agent) -> Vec<Condition> {
    let unguarded: Vec<&str> = agent.devices.problems().collect();
    let guarded = (agent.guarded && unguarded.is_empty(), unguarded.join("; "));
    let waiting = if agent.node.is_none() {
        format!("the state file has no addresses for TunnelNode {} yet", agent.args.node)
    } else {
        agent.applied.failures.first().cloned().unwrap_or_default()
    };
    let programmed = (agent.applied.is_exact(), waiting);
    let dead: Vec<String> = agent
        .tunnels
        .all
        .iter()
        .filter(|(name, _)| !agent.announced.is_connected(name))
        .map(|(name, tunnel)| format!("{name}: {}", tunnel.problem.as_deref().unwrap_or("does not answer")))
        .collect();
    let pending = pending(&agent.applied.compiled);
    let set = &mut agent.conditions;
    vec![
        set.set("", "Guarded", guarded.0, "NotAttached", guarded.1),
        set.set("", "Programmed", programmed.0, "NotApplied", programmed.1),
        set.set("", "Connected", dead.is_empty(), "NoAnswer", dead.join("; ")),
        set.set("", "Acknowledged", pending == 0, "Pending", format!("{pending} grants wait for a gateway")),
    ]
}

fn pending(compiled: &Compiled) -> usize {
    compiled.pods.values().map(|pod| pod.grants.len() - pod.live).sum()
}

fn tunnels(agent: &Agent) -> Value {
    let seen = agent.datapath.tunnels_seen().unwrap_or_default();
    let now = super::boot_ns();
    let tunnel = |(name, tunnel): (&String, &super::tunnels::TunnelState)| {
        let seconds = seen
            .get(&tunnel.slot)
            .filter(|seen| seen.seen_ns != 0)
            .map(|seen| now.saturating_sub(seen.seen_ns) / 1_000_000_000);
        let peer = tunnel.status.as_ref().and_then(|status: &DeviceStatus| status.peers.first());
        json!({
            "gateway": name,
            "device": tunnel.device,
            "mode": tunnel.mode,
            "slot": tunnel.slot,
            "mtu": tunnel.mtu,
            "endpoint": peer.and_then(|peer| peer.endpoint).map(|endpoint| endpoint.to_string()),
            "lastSeenSeconds": seconds,
            "lastHandshake": peer.map(|peer| peer.last_handshake).filter(|time| *time != 0),
            "receivedBytes": peer.map(|peer| peer.received_bytes),
            "sentBytes": peer.map(|peer| peer.sent_bytes),
            "announced": agent.announced.is_connected(name),
            "problem": tunnel.problem,
        })
    };
    agent.tunnels.all.iter().map(tunnel).collect()
}

fn pods(agent: &Agent) -> Value {
    let pod = |id: &u32, grants: &crate::compile::PodGrants| {
        let pod = grants.pod.as_ref()?;
        let (location, why) = match &pod.location {
            Location::Unknown => ("Unknown", agent.pods.problem(&pod.uid).map(str::to_owned)),
            Location::Host { .. } => ("HostNetwork", None),
            Location::Netns { not_guardable: Some(why), .. } => ("NotGuardable", Some(why.clone())),
            Location::Netns { .. } => ("Guarded", None),
        };
        Some(json!({
            "pod": pod.title(),
            "uid": pod.uid,
            "workload": id,
            "addresses": grants.addresses.map(|own| vec![own.v4.to_string(), own.v6.to_string()]),
            "state": location,
            "message": why,
            "grants": grants.grants.len(),
            "live": grants.live,
        }))
    };
    agent.applied.compiled.pods.iter().filter_map(|(id, grants)| pod(id, grants)).collect()
}

/// The same for the objects themselves.
fn pod_status(pods: &Value) -> impl Iterator<Item = (ObjectKey, ObjectStatus)> + use<'_> {
    pods.as_array().into_iter().flatten().filter_map(|pod| {
        let (namespace, name) = pod["pod"].as_str()?.split_once('/')?;
        let mut fields = BTreeMap::from([("guarded".to_owned(), pod["state"].clone())]);
        for (field, of) in [("workloadAddresses", "addresses"), ("message", "message")] {
            if !pod[of].is_null() {
                fields.insert(field.to_owned(), pod[of].clone());
            }
        }
        Some((ObjectKey::new(Kind::Pod, namespace, name), ObjectStatus { conditions: Vec::new(), fields }))
    })
}

fn counters(agent: &Agent) -> Value {
    let counters = match agent.datapath.counters() {
        Ok(counters) => counters,
        Err(error) => return json!({ "error": format!("{:#}", anyhow::Error::from(error)) }),
    };
    let drops: BTreeMap<&str, u64> =
        counters.drops.iter().map(|(reason, count)| (reason.name(), *count)).collect();
    json!({
        "allowed": counters.allowed,
        "drops": drops,
        "eventsLimited": counters.events_limited,
        "eventsLost": counters.events_lost,
    })
}

fn problems(agent: &Agent) -> Vec<String> {
    let sources = agent.snapshot.problems.iter().map(ToString::to_string);
    let refused = agent.resolved.problems(&agent.snapshot).into_iter().map(|problem| problem.to_string());
    let compiled = agent.applied.compiled.problems.iter().map(ToString::to_string);
    let slots = agent.tunnels.refused.iter().map(|name| {
        format!("TunnelGateway {name}: the node has {} tunnels already", enforcer_common::grant::MAX_TUNNELS)
    });
    let setup = agent.setup_problem.iter().cloned();
    sources
        .chain(refused)
        .chain(compiled)
        .chain(slots)
        .chain(setup)
        .chain(agent.applied.failures.iter().cloned())
        .collect()
}

/// Of every connection how many pods of this node it selects, and how many of them can use it now.
fn object_status(agent: &mut Agent) -> BTreeMap<ObjectKey, ObjectStatus> {
    let counts = active_pods(&agent.applied.compiled);
    let exact = agent.applied.is_exact();
    let failures = match agent.applied.failures.as_slice() {
        [] => "not every change has reached the kernel".to_owned(),
        failures => format!("not every change has reached the kernel: {}", failures.join("; ")),
    };
    let mut status = BTreeMap::new();
    for (number, (matched, active)) in counts {
        let Some(key) = agent.applied.compiled.connections.get(&number) else { continue };
        let id = key.to_string();
        let set = &mut agent.conditions;
        let conditions = vec![
            set.set(&id, "Programmed", exact, "NotApplied", failures.clone()),
            set.set(
                &id,
                "Ready",
                exact && active == matched,
                "Pending",
                format!("{active} of {matched} pods of this node have a live grant"),
            ),
        ];
        let traffic = agent.traffic.get(&number).copied().unwrap_or_default();
        let fields = BTreeMap::from([
            ("traffic".to_owned(), traffic::value(&traffic)),
            ("matchedPods".to_owned(), json!(matched)),
            ("activePods".to_owned(), json!(active)),
            ("nodes".to_owned(), json!([agent.args.node])),
        ]);
        status.insert(key.clone(), ObjectStatus { conditions, fields });
    }
    status.extend(instances(agent));
    status
}

/// Of every connection, by its number, how many pods it selects and how many of them can use it.
fn active_pods(compiled: &Compiled) -> BTreeMap<u32, (u64, u64)> {
    // Pods that are selected alike share their set: it is gone through once for all of them.
    let mut alike: BTreeMap<&BTreeSet<u32>, (u64, u64)> = BTreeMap::new();
    let mut late: BTreeMap<u32, u64> = BTreeMap::new();
    for pod in compiled.pods.values() {
        let count = alike.entry(&pod.connections).or_default();
        count.0 += 1;
        if pod.live == 0 {
            continue;
        }
        count.1 += 1;
        // What overlaps is charged to another connection, so that one may have no grant of its own to wait for.
        for number in pod.waiting.intersection(&pod.connections) {
            *late.entry(*number).or_default() += 1;
        }
    }
    let mut counts: BTreeMap<u32, (u64, u64)> =
        compiled.connections.keys().map(|number| (*number, (0, 0))).collect();
    for (numbers, (matched, active)) in alike {
        for number in numbers {
            let count = counts.entry(*number).or_default();
            *count = (count.0 + matched, count.1 + active);
        }
    }
    for (number, late) in late {
        counts.entry(number).or_default().1 -= late;
    }
    counts
}

/// Of every instance whether a gateway that leads to it answers this node.
fn instances(agent: &mut Agent) -> Vec<(ObjectKey, ObjectStatus)> {
    let resolved = agent.resolved.clone();
    let mut all = Vec::new();
    for (key, destination) in &resolved.destinations {
        let answering = destination.gateways.iter().any(|gateway| agent.announced.is_connected(gateway));
        let message =
            format!("no gateway answers node {}: {}", agent.args.node, destination.gateways.join(", "));
        let reachable = agent.conditions.set(&key.to_string(), "Reachable", answering, "NoAnswer", message);
        all.push((key.clone(), ObjectStatus { conditions: vec![reachable], fields: BTreeMap::new() }));
    }
    all
}
