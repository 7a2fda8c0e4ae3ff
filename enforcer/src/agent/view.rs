//! What the agent says about itself and about the objects of its node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Agent, traffic};
use crate::{
    compile::{Compiled, Location},
    control::View,
    model::{Kind, ObjectKey},
    resolve::Destination,
    source::informed,
    state::{Condition, ObjectStatus},
    tunnel::DeviceStatus,
};

const PROGRAMMED: &str = "Programmed";
const READY: &str = "Ready";
const REACHABLE: &str = "Reachable";

/// Pods of a node that are named for one reason.
const NAMED: usize = 5;

/// Since when what is said of something holds: conditions keep their time of change while they say the same.
#[derive(Default)]
pub struct Conditions {
    /// Key: the object, none for the role itself; and the type of the condition.
    known: BTreeMap<(Option<ObjectKey>, &'static str), Known>,
    round: u64,
}

struct Known {
    good: bool,
    since: Timestamp,
    /// The last round in which it was said.
    round: u64,
}

/// What is wrong, if it is: reason and message.
type Wrong<'a> = (&'a str, &'a dyn Fn() -> String);

impl Conditions {
    /// Notes what holds now.
    fn note(&mut self, of: Option<&ObjectKey>, kind: &'static str, good: bool) -> Timestamp {
        let now = Known { good, since: Timestamp::now(), round: self.round };
        let known = self.known.entry((of.cloned(), kind)).or_insert(now);
        if known.good != good {
            (known.good, known.since) = (good, Timestamp::now());
        }
        known.round = self.round;
        known.since
    }

    fn set(
        &mut self,
        of: Option<&ObjectKey>,
        kind: &'static str,
        good: bool,
        (reason, message): Wrong,
    ) -> Condition {
        let since = self.note(of, kind, good);
        Condition {
            kind: kind.to_owned(),
            status: if good { "True" } else { "False" }.to_owned(),
            reason: if good { kind } else { reason }.to_owned(),
            message: if good { String::new() } else { message() },
            last_transition_time: Some(format!("{since:.0}")),
        }
    }

    /// Forgets what was not said in this round, and begins another.
    fn next_round(&mut self) {
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
        self.round += 1;
    }
}

/// Notes what holds of the objects, for the times in later views: nobody has to ask for that.
pub fn note(agent: &mut Agent) {
    let compiled = Arc::clone(&agent.applied.compiled);
    let exact = agent.applied.is_exact();
    role_conditions(agent);
    for (number, count) in active_pods(&compiled) {
        if let Some(key) = compiled.connections.get(&number) {
            agent.conditions.note(Some(key), PROGRAMMED, exact);
            agent.conditions.note(Some(key), READY, count.is_ready(exact));
        }
    }
    let resolved = Arc::clone(&agent.resolved);
    for (key, destination) in &resolved.destinations {
        let answering = is_answered(agent, destination);
        agent.conditions.note(Some(key), REACHABLE, answering);
    }
    agent.conditions.next_round();
}

/// Builds the view anew.
pub fn view(agent: &mut Agent) -> View {
    let mut conditions = role_conditions(agent);
    conditions.extend(agent.server.as_ref().map(|server| informed(&server.heard.borrow())));
    let pods = pods(agent);
    let mut object_status = object_status(agent);
    object_status.extend(pod_status(&pods));
    agent.conditions.next_round();
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

pub(super) fn role_conditions(agent: &mut Agent) -> Vec<Condition> {
    let unguarded: Vec<&str> = agent.devices.problems().collect();
    let guarded = (agent.guarded && unguarded.is_empty(), unguarded.join("; "));
    let waiting = if agent.node.is_none() {
        format!("the controller has given TunnelNode {} no addresses yet", agent.args.tunnel_node())
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
    let boot_guard = agent.boot_guard.as_ref().map(|wrong| wrong.borrow().clone());
    let set = &mut agent.conditions;
    let wait = || format!("{pending} grants wait for a gateway");
    let mut all = vec![
        set.set(None, "Guarded", guarded.0, ("NotAttached", &|| guarded.1.clone())),
        set.set(None, PROGRAMMED, programmed.0, ("NotApplied", &|| programmed.1.clone())),
        set.set(None, "Connected", dead.is_empty(), ("NoAnswer", &|| dead.join("; "))),
        set.set(None, "Acknowledged", pending == 0, ("Pending", &wait)),
    ];
    if let Some(wrong) = boot_guard {
        let (reason, message) = wrong.clone().unwrap_or_default();
        all.push(set.set(None, "BootGuard", wrong.is_none(), (reason, &|| message.clone())));
    }
    all
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
    let setup = agent.setup_problem.iter().cloned().chain(agent.kept.problem().map(str::to_owned));
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
    let unprogrammed = || failures.clone();
    let mut status = BTreeMap::new();
    for (number, count) in counts {
        let Some(key) = agent.applied.compiled.connections.get(&number) else { continue };
        let Count { matched, active } = count;
        let set = &mut agent.conditions;
        let pending = || format!("{active} of {matched} pods of this node have a live grant");
        let conditions = vec![
            set.set(Some(key), PROGRAMMED, exact, ("NotApplied", &unprogrammed)),
            set.set(Some(key), READY, count.is_ready(exact), ("Pending", &pending)),
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

/// Pods of this node that a connection selects.
#[derive(Clone, Copy, Default)]
pub(super) struct Count {
    pub matched: u64,
    /// Those of them that can use it.
    pub active: u64,
}

impl Count {
    const fn is_ready(self, exact: bool) -> bool {
        exact && self.active == self.matched
    }
}

/// Of every connection, by its number.
pub(super) fn active_pods(compiled: &Compiled) -> BTreeMap<u32, Count> {
    // Pods that are selected alike share their set: it is gone through once for all of them.
    let mut alike: BTreeMap<&BTreeSet<u32>, Count> = BTreeMap::new();
    let mut late: BTreeMap<u32, u64> = BTreeMap::new();
    for pod in compiled.pods.values() {
        let count = alike.entry(&pod.connections).or_default();
        count.matched += 1;
        if pod.live == 0 {
            continue;
        }
        count.active += 1;
        // What overlaps is charged to another connection, so that one may have no grant of its own to wait for.
        for number in pod.waiting.intersection(&pod.connections) {
            *late.entry(*number).or_default() += 1;
        }
    }
    let mut counts: BTreeMap<u32, Count> =
        compiled.connections.keys().map(|number| (*number, Count::default())).collect();
    for (numbers, Count { matched, active }) in alike {
        for number in numbers {
            let count = counts.entry(*number).or_default();
            *count = Count { matched: count.matched + matched, active: count.active + active };
        }
    }
    for (number, late) in late {
        counts.entry(number).or_default().active -= late;
    }
    counts
}

/// Pods of each connection, by its number, that are denied because they have another way out; some of them.
pub(super) fn not_guardable(compiled: &Compiled) -> BTreeMap<u32, Vec<String>> {
    let mut all: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for grants in compiled.pods.values() {
        let Some(pod) = &grants.pod else { continue };
        let Location::Netns { not_guardable: Some(why), .. } = &pod.location else { continue };
        for number in &*grants.connections {
            let pods = all.entry(*number).or_default();
            if pods.len() < NAMED {
                pods.push(format!("{}: {why}", pod.title()));
            }
        }
    }
    all
}

fn is_answered(agent: &Agent, destination: &Destination) -> bool {
    destination.gateways.iter().any(|gateway| agent.announced.is_connected(gateway))
}

/// Of every instance whether a gateway that leads to it answers this node.
fn instances(agent: &mut Agent) -> Vec<(ObjectKey, ObjectStatus)> {
    let resolved = agent.resolved.clone();
    let mut all = Vec::new();
    for (key, destination) in &resolved.destinations {
        let answering = is_answered(agent, destination);
        let node = agent.args.node.as_str();
        let silent = || format!("no gateway answers node {node}: {}", destination.gateways.join(", "));
        let reachable = agent.conditions.set(Some(key), REACHABLE, answering, ("NoAnswer", &silent));
        all.push((key.clone(), ObjectStatus { conditions: vec![reachable], fields: BTreeMap::new() }));
    }
    all
}
