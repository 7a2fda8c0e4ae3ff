//! From meaning to maps: what a node's kernel should hold, and what its gateways should know.
//!
//! ```text
//! Resolved + pods + ledger ──▶ matching ──▶ grants of each pod ──▶ Compiled ──▶ (plan)
//!                                  └──────▶ bindings for each gateway ─▶ (announce)
//! ```
//!
//! Pure: no I/O, no clock. The previous result is only a store of work already done: with or without it the outcome
//! is the same, but a change costs what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use enforcer_common::{
    Addr,
    config::Tunnel,
    grant::{DestinationKey, Grant, GrantKey},
};

use crate::{
    announce::Binding,
    datapath::Tables,
    model::{Labels, ObjectKey},
    resolve::{Node, Resolved},
};

pub mod ledger;
pub mod matching;
pub mod offers;
pub mod table;

mod grants;
mod node;

pub use ledger::Ledger;
pub use table::GrantTable;

/// Everything that the outcome depends on, next to the [`Ledger`].
#[derive(Clone, Debug)]
pub struct Input<'a> {
    pub resolved: &'a Arc<Resolved>,
    /// Name of the cluster that the node belongs to.
    pub cluster: &'a str,
    pub node: &'a Node,
    pub pair: Pair,
    /// Most flows of one workload.
    pub flow_quota: u32,
    /// Pods of this node that are not over. Key: uid.
    pub pods: &'a BTreeMap<String, Arc<Pod>>,
    /// Key: name of the gateway.
    pub tunnels: &'a BTreeMap<String, TunnelEnd>,
    /// Key: uid of the pod.
    pub acknowledged: &'a BTreeMap<String, Acknowledged>,
    /// Unix time minus `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_unix_ns: i128,
}

/// Interface indices of the pair that joins the host and the tunnel netns.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pair {
    /// In the host's namespace.
    pub enforcer0: u32,
    /// In the tunnel netns.
    pub tunnel0: u32,
}

/// A pod of this node: what its object says, and where it was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
    pub namespace_labels: Labels,
    pub location: Location,
}

/// Where a pod is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Location {
    /// Not found yet: its packets are those of a stranger.
    Unknown,
    Netns {
        cookie: u64,
        /// Host side of its veth; 0 where it has none.
        ifindex: u32,
        addresses: Vec<IpAddr>,
        /// Why no wire hook sees all that it can send; `None`: it can be guarded.
        not_guardable: Option<String>,
    },
    /// In the host's namespace: known by its cgroups.
    Host { cgroups: Vec<u64> },
}

/// This node's end of the tunnel to a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelEnd {
    pub slot: u32,
    /// `None` while the device was not looked at: what the kernel holds of the slot stays.
    pub device: Option<TunnelDevice>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TunnelDevice {
    pub tunnel: Tunnel,
    /// Where the gateway's datagrams come from.
    pub endpoints: Vec<SocketAddr>,
    /// UDP port on this node.
    pub local_port: u16,
}

/// What gateways have said about one pod. Key: tunnel slot. A slot that is missing has said nothing since the agent
/// started, so what the kernel holds of it stays.
pub type Acknowledged = BTreeMap<u32, Arc<BTreeSet<DestinationKey>>>;

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// Everything but the grants.
    pub node: Arc<Tables>,
    /// Key: workload id.
    pub pods: BTreeMap<u32, Arc<PodGrants>>,
    /// What each gateway is told; the sender fills the generation in. Key: name of the gateway, then uid of the pod.
    pub bindings: BTreeMap<String, BTreeMap<String, Arc<Binding>>>,
    /// Name of the connection behind each number in grants and events.
    pub connections: Arc<BTreeMap<u32, ObjectKey>>,
    pub problems: Vec<CompileProblem>,
    memo: matching::Memo<Terms>,
}

/// What one pod may reach.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodGrants {
    pub grants: GrantTable,
    /// How many of them a gateway has acknowledged.
    pub live: usize,
    /// Connections that are charged with one that no gateway has acknowledged.
    pub waiting: BTreeSet<u32>,
    /// Numbers of the connections that match it.
    pub connections: Arc<BTreeSet<u32>>,
    /// Names of the gateways that lead to what they give.
    pub gateways: BTreeSet<String>,
    pub addresses: Option<ledger::Addresses>,
    /// What its gateways are told.
    pub binding: Option<Arc<Binding>>,
    /// `None`: read back from the kernel after a restart.
    pub pod: Option<Arc<Pod>>,
    acknowledged: Acknowledged,
}

/// What could not be done, for status.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CompileProblem {
    #[error("pod {pod}: the node has no workload address left, expected another block from the controller")]
    NoWorkloadAddress { pod: String },
    #[error("pod {pod}: is in the network namespace of pod {holder}, expected one of its own")]
    SharedNamespace { pod: String, holder: String },
}

/// What every pod's grants depend on besides the objects.
#[derive(Clone, Debug, Default, PartialEq)]
struct Terms {
    /// Tunnel slot by gateway.
    slots: BTreeMap<String, u32>,
    cluster: String,
    boot_unix_ns: i128,
}

impl Compiled {
    /// What the kernel holds, as the starting point after a restart.
    pub fn adopt(mut dump: Tables) -> Self {
        let mut pods: BTreeMap<u32, Vec<(GrantKey, Grant)>> = BTreeMap::new();
        for (key, grant) in std::mem::take(&mut dump.grants) {
            pods.entry(key.workload).or_default().push((key, grant));
        }
        let adopted = |grants| {
            let grants = GrantTable::from_sorted(grants);
            let (live, waiting) = (grants.live(), grants.waiting());
            Arc::new(PodGrants { grants, live, waiting, ..PodGrants::default() })
        };
        let pods = pods.into_iter().map(|(id, grants)| (id, adopted(grants))).collect();
        Self { node: Arc::new(dump), pods, ..Self::default() }
    }

    /// Everything in one.
    pub fn tables(&self) -> Tables {
        let mut tables = Tables::clone(&self.node);
        for pod in self.pods.values() {
            tables.grants.extend(pod.grants.entries().iter().copied());
        }
        tables
    }

    /// The part of both that differs, as two tables for `plan`: grants that are the same are in neither.
    pub fn difference(&self, then: &Self) -> (Tables, Tables) {
        let (mut have, mut want) = if Arc::ptr_eq(&self.node, &then.node) {
            (Tables::default(), Tables::default())
        } else {
            self.node.difference(&then.node)
        };
        for (id, pod) in &self.pods {
            let other = then.pods.get(id);
            if !other.is_some_and(|other| Arc::ptr_eq(pod, other)) {
                let other = other.map_or(&[][..], |other| other.grants.entries());
                table::differ(pod.grants.entries(), other, &mut have.grants, &mut want.grants);
            }
        }
        for pod in then.pods.iter().filter(|(id, _)| !self.pods.contains_key(id)).map(|(_, pod)| pod) {
            table::differ(&[], pod.grants.entries(), &mut have.grants, &mut want.grants);
        }
        (have, want)
    }
}

/// The function that this module is about. `previous` is the last outcome, or [`Compiled::adopt`].
pub fn compile(input: &Input, ledger: &mut Ledger, previous: &Compiled) -> Compiled {
    let mut compiled = Compiled::default();
    let terms = Terms {
        slots: input.tunnels.iter().map(|(name, end)| (name.clone(), end.slot)).collect(),
        cluster: input.cluster.to_owned(),
        boot_unix_ns: input.boot_unix_ns,
    };
    let index = matching::Index::new(input.resolved, |key| ledger.connection(key), terms, &previous.memo);
    let mut shared = offers::Shared::default();
    for pod in input.pods.values() {
        let id = ledger.workload(&pod.uid).id;
        let old = previous.pods.get(&id);
        let known = old.and_then(|old| Some((old.pod.as_ref()?.subject(input.cluster), &old.connections)));
        let connections = index.matches(pod.subject(input.cluster), known);
        let pod = grants::compile(input, ledger, (&index, &mut shared), pod, old, connections);
        if let (None, Some(object), false) = (pod.addresses, &pod.pod, pod.connections.is_empty()) {
            compiled.problems.push(CompileProblem::NoWorkloadAddress { pod: object.title() });
        }
        compiled.pods.insert(id, pod);
    }
    compiled.bindings = bindings(&compiled.pods);
    let known = index.same().then_some(&previous.node.destinations);
    let before = (&*previous.node, known);
    compiled.node = Arc::new(node::compile(input, before, &compiled.pods, &mut compiled.problems));
    compiled.connections =
        if index.same() { Arc::clone(&previous.connections) } else { Arc::new(index.names()) };
    compiled.memo = index.into_memo();
    compiled
}

impl Pod {
    /// `namespace/name`
    pub fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn subject<'a>(&'a self, cluster: &'a str) -> matching::Subject<'a> {
        matching::Subject {
            cluster,
            namespace: &self.namespace,
            labels: &self.labels,
            namespace_labels: &self.namespace_labels,
        }
    }
}

fn bindings(pods: &BTreeMap<u32, Arc<PodGrants>>) -> BTreeMap<String, BTreeMap<String, Arc<Binding>>> {
    let mut bindings: BTreeMap<String, BTreeMap<String, Arc<Binding>>> = BTreeMap::new();
    for pod in pods.values() {
        for (gateway, binding) in pod.gateways.iter().zip(pod.binding.iter().cycle()) {
            bindings.entry(gateway.clone()).or_default().insert(binding.uid.clone(), Arc::clone(binding));
        }
    }
    bindings
}

/// Both addresses as maps hold them, [`Addr::NONE`] where there is none.
fn workload_addresses(addresses: Option<ledger::Addresses>) -> [Addr; 2] {
    addresses.map_or([Addr::NONE; 2], |addresses| [Addr::v4(addresses.v4), Addr::v6(addresses.v6)])
}

#[cfg(test)]
pub(crate) mod tests;
