//! The announce connections: every gateway is told the bindings that concern it, and what they acknowledge is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use enforcer_common::{Addr, Port, grant::DestinationKey};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    announce::{
        Binding,
        client::{self, AckUpdate, Bindings, ClientConfig},
    },
    compile::{Acknowledged, Compiled},
    resolve::Node,
};

struct Client {
    addresses: (IpAddr, IpAddr),
    bindings: watch::Sender<Bindings>,
    /// What was compiled when `bindings` was filled. Key: uid. The same one again says the same.
    compiled: BTreeMap<String, Arc<Binding>>,
    connected: bool,
    task: Task,
}

/// The first snapshot takes away what it lacks, so nobody connects before there is one.
enum Task {
    Waiting(ClientConfig),
    Running(JoinHandle<()>),
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Task::Running(task) = &self.task {
            task.abort();
        }
    }
}

/// All announce connections of the node.
pub struct Announced {
    netns: PathBuf,
    /// Key: name of the gateway.
    clients: BTreeMap<String, Client>,
    /// Key: uid of the pod.
    acknowledged: BTreeMap<String, Acknowledged>,
    /// What each gateway acknowledged last. Key: its slot.
    last: Acknowledged,
    /// Gateways that may have flows of a pod. Key: its uid.
    told: BTreeMap<String, BTreeSet<String>>,
    /// Grows over restarts as well: it began with the time.
    generation: u64,
    updates: mpsc::Sender<AckUpdate>,
}

impl Announced {
    pub fn new(netns: PathBuf) -> (Self, mpsc::Receiver<AckUpdate>) {
        let (updates, receiver) = mpsc::channel(1024);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let generation = u64::try_from(now.as_micros()).unwrap_or_default();
        let announced = Self {
            netns,
            clients: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            last: Acknowledged::new(),
            told: BTreeMap::new(),
            generation,
            updates,
        };
        (announced, receiver)
    }

    /// Prepares connections to new gateways, which [`Self::announce`] opens, and closes those to gateways that are
    /// gone. `gateways`: name and address.
    pub fn connect(&mut self, node: &Node, gateways: &BTreeMap<String, IpAddr>) {
        self.clients.retain(|name, client| gateways.get(name) == Some(&client.addresses.1));
        for (name, address) in gateways {
            let own = if address.is_ipv4() { IpAddr::V4(node.v4) } else { IpAddr::V6(node.v6) };
            if self.clients.contains_key(name) {
                continue;
            }
            let (bindings, _) = watch::channel(Bindings::default());
            let config =
                ClientConfig::new(Some(self.netns.clone()), own, *address, name.clone(), node.name.clone());
            let task = Task::Waiting(config);
            let client = Client {
                addresses: (own, *address),
                bindings,
                compiled: BTreeMap::new(),
                connected: false,
                task,
            };
            self.clients.insert(name.clone(), client);
        }
    }

    /// Tells every gateway what concerns it. `slot` is a gateway's.
    pub fn announce(&mut self, compiled: &Compiled, slot: impl Fn(&str) -> Option<u32>) {
        let none = BTreeMap::new();
        for (name, client) in &mut self.clients {
            let wanted = compiled.bindings.get(name).unwrap_or(&none);
            if !same_bindings(wanted, &client.compiled) {
                let current = Arc::clone(&client.bindings.borrow());
                let mut next = BTreeMap::new();
                // What was acknowledged of a binding that is taken back says nothing about the next one.
                for uid in current.keys().filter(|uid| !wanted.contains_key(*uid)) {
                    if let (Some(known), Some(slot)) = (self.acknowledged.get_mut(uid), slot(name)) {
                        known.remove(&slot);
                    }
                }
                for (uid, binding) in wanted {
                    if !self.told.get(uid).is_some_and(|gateways| gateways.contains(name)) {
                        self.told.entry(uid.clone()).or_default().insert(name.clone());
                    }
                    let kept = current.get(uid).filter(|current| {
                        let before = client.compiled.get(uid);
                        before.is_some_and(|before| Arc::ptr_eq(before, binding))
                            || same_content(current, binding)
                    });
                    let binding = kept.cloned().unwrap_or_else(|| {
                        self.generation += 1;
                        Arc::new(Binding { generation: self.generation, ..Binding::clone(binding) })
                    });
                    next.insert(uid.clone(), binding);
                }
                client.compiled.clone_from(wanted);
                client.bindings.send_replace(Arc::new(next));
            }
            if let Task::Waiting(config) = &client.task {
                let receiver = client.bindings.subscribe();
                client.task = Task::Running(client::spawn(config.clone(), receiver, self.updates.clone()));
            }
        }
    }

    /// Takes over what a gateway said. `slot` is the gateway's. Returns whether something is different now.
    pub fn update(&mut self, update: AckUpdate, slot: impl Fn(&str) -> Option<u32>) -> bool {
        match update {
            AckUpdate::Connected { gateway } => self.set_connected(&gateway, true),
            // The gateway keeps what it has, and so do we.
            AckUpdate::Lost { gateway } => self.set_connected(&gateway, false),
            AckUpdate::Released { gateway, uid } => {
                if let Some(gateways) = self.told.get_mut(&uid) {
                    gateways.remove(&gateway);
                }
                false
            }
            AckUpdate::Live { gateway, uid, generation, grants } => {
                let (Some(slot), Some(client)) = (slot(&gateway), self.clients.get(&gateway)) else {
                    return false;
                };
                let current = client.bindings.borrow().get(&uid).map(|binding| binding.generation);
                if current != Some(generation) {
                    return false;
                }
                let offers: BTreeSet<DestinationKey> = grants
                    .iter()
                    .map(|grant| DestinationKey {
                        service: Addr::from(grant.service),
                        port: Port::new(grant.port),
                        protocol: grant.protocol.number(),
                        pad: [0; 5],
                    })
                    .collect();
                let known = self.acknowledged.entry(uid).or_default();
                let different = known.get(&slot).is_none_or(|known| **known != offers);
                if different {
                    // Pods that are selected alike are answered alike, and share the answer.
                    let last = self.last.get(&slot).filter(|last| ***last == offers).cloned();
                    let offers = last.unwrap_or_else(|| Arc::new(offers));
                    self.last.insert(slot, Arc::clone(&offers));
                    known.insert(slot, offers);
                }
                different
            }
        }
    }

    fn set_connected(&mut self, gateway: &str, connected: bool) -> bool {
        let Some(client) = self.clients.get_mut(gateway) else { return false };
        std::mem::replace(&mut client.connected, connected) != connected
    }

    pub fn is_connected(&self, gateway: &str) -> bool {
        self.clients.get(gateway).is_some_and(|client| client.connected)
    }

    pub const fn acknowledged(&self) -> &BTreeMap<String, Acknowledged> {
        &self.acknowledged
    }

    /// Gateways that may have flows of a pod; `None`: nobody knows which.
    pub fn told(&self, uid: &str) -> Option<BTreeSet<String>> {
        self.told.get(uid).cloned()
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.acknowledged.retain(|uid, _| keep(uid));
        self.told.retain(|uid, _| keep(uid));
    }
}

/// Whether nothing was compiled anew.
fn same_bindings(one: &BTreeMap<String, Arc<Binding>>, other: &BTreeMap<String, Arc<Binding>>) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1))
}

fn same_content(one: &Binding, other: &Binding) -> bool {
    let Binding { uid, generation: _, v4, v6, cluster, namespace, namespace_labels, pod, labels } = one;
    let same_names =
        (uid, cluster, namespace, pod) == (&other.uid, &other.cluster, &other.namespace, &other.pod);
    same_names
        && (v4, v6) == (&other.v4, &other.v6)
        && (namespace_labels, labels) == (&other.namespace_labels, &other.labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        announce::LiveGrant,
        compile::tests::world::{World, addr},
        model::Protocol,
    };

    const SLOT: u32 = 4;

    fn live(announced: &Announced, age: u64) -> AckUpdate {
        let service = "198.18.0.7".parse().unwrap();
        AckUpdate::Live {
            gateway: "eu-1".to_owned(),
            uid: "u-shop".to_owned(),
            generation: announced.generation - age,
            grants: BTreeSet::from([LiveGrant { service, protocol: Protocol::Tcp, port: 5432 }]),
        }
    }

    #[tokio::test]
    async fn an_acknowledgement_counts_for_the_binding_that_it_answers_and_no_longer() {
        let mut world = World::new();
        let compiled = world.compile();
        let slot = |_: &str| Some(SLOT);
        let (mut announced, _updates) = Announced::new("/nonexistent/netns".into());
        announced
            .connect(&world.node, &BTreeMap::from([("eu-1".to_owned(), "198.19.255.1".parse().unwrap())]));
        announced.announce(&compiled, slot);
        assert!(!announced.update(live(&announced, 1), slot), "an older binding was answered");
        assert_eq!(announced.acknowledged(), &BTreeMap::new());

        assert!(announced.update(live(&announced, 0), slot));
        assert!(!announced.update(live(&announced, 0), slot), "nothing new");
        let offer =
            DestinationKey { service: addr("198.18.0.7"), port: Port::new(5432), protocol: 6, pad: [0; 5] };
        let acknowledged = BTreeMap::from([(SLOT, Arc::new(BTreeSet::from([offer])))]);
        assert_eq!(announced.acknowledged(), &BTreeMap::from([("u-shop".to_owned(), acknowledged)]));

        announced.announce(&Compiled::default(), slot);
        let nothing = BTreeMap::from([("u-shop".to_owned(), BTreeMap::new())]);
        assert_eq!(announced.acknowledged(), &nothing, "the binding was taken back");
        assert_eq!(announced.told("u-shop"), Some(BTreeSet::from(["eu-1".to_owned()])));
        let released = AckUpdate::Released { gateway: "eu-1".to_owned(), uid: "u-shop".to_owned() };
        announced.update(released, slot);
        assert_eq!(announced.told("u-shop"), Some(BTreeSet::new()));
    }
}
