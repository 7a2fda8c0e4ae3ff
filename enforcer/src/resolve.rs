//! From objects to meaning: which destinations, gateways, nodes and connections are valid, and why the others are not.
//!
//! Pure: objects and allocations in, values out. Controller (status), agent (grants) and gateway (its own check) all
//! take their truth from here, so that the two ends cannot disagree about what an object says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    model::{AllowedBackend, Kind, LabelSelector, Object, ObjectKey, Protocol, SourceMode},
    state::{self, Condition, State},
    store::{Problem, Snapshot},
    validate::{Mistake, value},
};

mod before;
mod connections;
mod destinations;
mod gateways;
mod infrastructure;
mod references;
mod selector;
#[cfg(test)]
mod tests;

pub use before::Before;
pub(crate) use destinations::host_name;
pub(crate) use infrastructure::SERVICE_NAME;
pub use references::{is_alike, references};
pub use selector::{FailedLabel, FailedTerm, match_pod};

/// Domain of [`Destination::fqdn`]; `enforcer dns --cluster-domain` may serve another one.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Takes everything that is valid, and says of everything of ours whether it is.
///
/// What the state has no addresses for is left out until it has, and valid nevertheless. Precedence where two objects
/// want the same thing: a gateway before a node, then the lower number (who was there first: the controller numbers
/// what is new by its age), then the name. The other one is not valid, and nothing of it is taken over.
pub fn resolve(snapshot: &Snapshot, state: &State) -> Resolved {
    let mut resolved = without_connections(snapshot, state);
    connections::resolve(snapshot, state, &mut resolved);
    resolved
}

/// The same, saving the work that is done already.
pub fn resolve_after(snapshot: &Snapshot, state: &State, before: Option<Before>) -> Resolved {
    let Some(before) = before.filter(|before| before.holds(snapshot, state)) else {
        return resolve(snapshot, state);
    };
    connections::resolve_after(snapshot, state, &before)
}

/// The same but for the connections.
pub fn without_connections(snapshot: &Snapshot, state: &State) -> Resolved {
    let mut resolved = Resolved {
        service_ranges: vec![state.service_range.into(), state::service_subnet(state.ula).into()],
        workload_ranges: vec![
            state.workload_range.into(),
            state::node_subnets(state.ula).into(),
            state::gateway_subnet(state.ula).into(),
        ],
        ..Resolved::default()
    };
    resolved.infrastructure = infrastructure::resolve(snapshot);
    gateways::resolve(snapshot, state, &mut resolved);
    destinations::resolve(snapshot, state, &mut resolved);
    resolved
}

impl Resolved {
    /// Everything that is not valid, for a person.
    pub fn problems(&self, snapshot: &Snapshot) -> Vec<Problem> {
        let refused = self.conditions.iter().filter_map(|(key, conditions)| {
            let condition = conditions.iter().find(|condition| condition.status == "False")?;
            Some(Problem {
                origin: snapshot.origins.get(key).map(ToString::to_string).unwrap_or_default(),
                object: key.to_string(),
                field: String::new(),
                message: condition.message.clone(),
            })
        });
        refused.collect()
    }

    fn conclude(&mut self, key: &ObjectKey, verdict: Verdict) {
        let (status, reason, message) = match verdict {
            Ok(Note { reason, message }) => ("True", reason, message),
            Err(Refusal { reason, message }) => ("False", reason, message),
        };
        let condition = Condition {
            kind: "Valid".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: None,
        };
        self.conditions.insert(key.clone(), Arc::new(vec![condition]));
    }

    /// Everything that is guarded: of services, of workloads, and what is listed.
    pub fn ranges(&self) -> [&[IpNet]; 3] {
        [&self.service_ranges, &self.workload_ranges, &self.listed_ranges]
    }

    /// The same as one set of networks, without bits beyond their length.
    pub fn guarded(&self) -> BTreeSet<IpNet> {
        self.ranges().into_iter().flatten().map(IpNet::trunc).collect()
    }

    /// The range of ours that holds this address.
    fn own_range(&self, address: IpAddr) -> Option<IpNet> {
        self.service_ranges
            .iter()
            .chain(&self.workload_ranges)
            .copied()
            .find(|range| range.contains(&address))
    }
}

type Verdict = Result<Note, Refusal>;

/// Valid, and what there is to say about it.
struct Note {
    reason: &'static str,
    message: String,
}

impl Note {
    fn valid() -> Self {
        Self { reason: "Valid", message: String::new() }
    }

    fn waiting(key: &ObjectKey) -> Self {
        Self { reason: "WaitingForAddress", message: format!("the controller has no address for {key} yet") }
    }
}

/// Not valid, and why.
#[derive(Debug, PartialEq)]
struct Refusal {
    reason: &'static str,
    /// Field first: `spec.gateways[0]: "eu-2", expected the name of a TunnelGateway`.
    message: String,
}

impl Refusal {
    fn new(reason: &'static str, field: &str, message: impl std::fmt::Display) -> Self {
        Self { reason, message: format!("{field}: {message}") }
    }
}

impl From<Mistake> for Refusal {
    fn from(Mistake { field, message }: Mistake) -> Self {
        Self::new("Invalid", &field, message)
    }
}

/// Time of creation; objects without one count as younger than all that have one.
pub(crate) fn age(object: &Object) -> u64 {
    let created = object.metadata.creation_timestamp.as_deref();
    created.and_then(|time| value::unix_ns(time).ok()).unwrap_or(u64::MAX)
}

/// Objects of some kinds, in the order of their keys.
fn of_kinds<'a>(
    snapshot: &'a Snapshot,
    kinds: &'a [Kind],
) -> impl Iterator<Item = (&'a ObjectKey, &'a Object)> {
    snapshot.objects.iter().filter(|(key, _)| kinds.contains(&key.kind)).map(|(key, object)| (key, &**object))
}

/// All that is valid, and the conditions of everything. What did not change is shared with the outcome before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// Instances that have their addresses. Key: the instance (databases resolve to theirs).
    pub destinations: BTreeMap<ObjectKey, Arc<Destination>>,
    /// Valid connections in the order of [`Connection::rank`].
    pub connections: Vec<Arc<Connection>>,
    pub gateways: BTreeMap<String, Gateway>,
    pub nodes: BTreeMap<String, Node>,
    /// `Valid` of every object of ours.
    pub conditions: BTreeMap<ObjectKey, Arc<Vec<Condition>>>,
    /// Ranges that are guarded: services, workloads, `guardedCIDRs`.
    pub service_ranges: Vec<IpNet>,
    pub workload_ranges: Vec<IpNet>,
    pub listed_ranges: Vec<IpNet>,
    /// Addresses of nodes, API server and DNS, each with words that go on after it: `of Node host-1`. Never a backend.
    pub infrastructure: BTreeMap<IpAddr, String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destination {
    pub key: ObjectKey,
    pub number: u32,
    /// A family is published only if an endpoint has it.
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub ports: Vec<DestinationPort>,
    /// Names of valid gateways, as written.
    pub gateways: Vec<String>,
    pub endpoints: Vec<IpAddr>,
    /// `keyvaluestore-my-kvs.my-project.svc.cluster.local`
    pub fqdn: String,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DestinationPort {
    pub protocol: Protocol,
    pub port: u16,
    pub target_port: u16,
}

impl DestinationPort {
    /// Its name in DNS and in the Service of the destination: `tcp-5432`.
    pub fn name(&self) -> String {
        format!("{}-{}", value::protocol_name(self.protocol).to_ascii_lowercase(), self.port)
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Connection {
    pub key: ObjectKey,
    /// Nanoseconds since the Unix epoch; `u64::MAX` where its object does not say.
    pub created_unix_ns: u64,
    /// The instance.
    pub destination: ObjectKey,
    /// `source.name` where the source is a KubernetesCluster; `None` for an Application: any cluster.
    pub cluster: Option<String>,
    pub pod_selector: LabelSelector,
    /// `None`: every namespace. An Application's is its own namespace.
    pub namespace_selector: Option<LabelSelector>,
    /// Pods of this namespace only: an Application, or the administrator does not allow to reach further.
    pub only_namespace: Option<String>,
    pub ports: Vec<DestinationPort>,
    /// Nanoseconds since the Unix epoch.
    pub valid_until_unix_ns: Option<u64>,
}

impl Connection {
    /// Of the connections that give one grant, the first in this order is charged: the oldest, then by its name.
    pub fn rank(&self) -> (u64, &ObjectKey) {
        (self.created_unix_ns, &self.key)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    pub name: String,
    pub number: u32,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub public_key: [u8; 32],
    pub endpoints: Vec<SocketAddr>,
    pub mtu: u32,
    pub source_mode: SourceMode,
    pub allowed_backends: Vec<AllowedBackend>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    pub number: u32,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub blocks: Vec<Ipv4Net>,
    pub subnet: Ipv6Net,
    pub public_key: [u8; 32],
    pub cluster: String,
}
