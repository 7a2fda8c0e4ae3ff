//! The pods of this node: which there are, and where each was found.
//!
//! A pod's namespace is visited as soon as its object is known, again when a device on the host changes that may be
//! its own, with back-off until it looks complete, and now and then for what no event tells (a route inside the pod).

mod kubelet;
mod place;
mod sight;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};

use self::{
    kubelet::{Held, Kubelet},
    sight::{Home, Seen, Sight, SightError, visit},
};
use super::revoke::Sockets;
use crate::{
    compile::{Location, Pod},
    model::{CGROUP_ANNOTATION, Kind, Labels, NETNS_ANNOTATION, Object, ObjectKey, Spec},
    netlink::Link,
    netns,
    store::Snapshot,
};

/// First and longest time until the next look at a pod that is not complete.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Until the next look at one that is.
const REGULAR: Duration = Duration::from_secs(10);
/// After so many failures a visit counts as having given its answer.
const ENOUGH: u32 = 3;

/// The outcome of one look.
#[derive(Debug)]
pub struct Found {
    uid: String,
    round: u64,
    result: Result<Seen, SightError>,
}

struct Entry {
    pod: Arc<Pod>,
    /// What `pod` was made of.
    object: Arc<Object>,
    home: Home,
    /// Addresses that the object promises.
    promised: Vec<IpAddr>,
    sight: Option<Sight>,
    /// Its namespace, where no name leads to it.
    held: Option<Arc<Held>>,
    problem: Option<String>,
    attempts: u32,
    /// Looks of earlier rounds are not listened to.
    round: u64,
    look: JoinHandle<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.look.abort();
    }
}

/// All pods of the node.
pub struct Pods {
    /// Key: uid.
    entries: BTreeMap<String, Entry>,
    /// Where pods were that are gone: their processes may not be. Key: uid.
    departed: BTreeMap<String, (Home, Option<Arc<Held>>)>,
    /// `None`: the objects say where pods are.
    kubelet: Option<Arc<Kubelet>>,
    /// Addresses whose way out is asked for in every pod.
    targets: Arc<[IpAddr]>,
    rounds: u64,
    found: mpsc::UnboundedSender<Found>,
}

impl Pods {
    /// Of pods that kubelet has put somewhere, or of those whose objects say where they are.
    pub fn new(of_kubelet: bool) -> (Self, mpsc::UnboundedReceiver<Found>) {
        let (found, results) = mpsc::unbounded_channel();
        let pods = Self {
            entries: BTreeMap::new(),
            departed: BTreeMap::new(),
            kubelet: of_kubelet.then(Arc::default),
            targets: Arc::from([]),
            rounds: 0,
            found,
        };
        (pods, results)
    }

    /// Takes over what the objects say. `names` are the node's names as pods have them.
    pub fn update(&mut self, snapshot: &Snapshot, names: &BTreeSet<String>, targets: Vec<IpAddr>) {
        if *self.targets != *targets {
            self.targets = targets.into();
            let uids: Vec<String> = self.entries.keys().cloned().collect();
            self.look_at_once(&uids);
        }
        let mut gone: BTreeSet<String> = self.entries.keys().cloned().collect();
        // Pods of one namespace stand beside each other.
        let mut namespace = ("", namespace_labels(snapshot, ""));
        for (key, object) in &snapshot.objects {
            let Spec::Pod(spec, status) = &object.spec else { continue };
            if !names.contains(&spec.node_name) || matches!(status.phase.as_str(), "Succeeded" | "Failed") {
                continue;
            }
            let uid = uid_of(key, object);
            gone.remove(&uid);
            if namespace.0 != key.namespace {
                namespace = (&key.namespace, namespace_labels(snapshot, &key.namespace));
            }
            let known = self.entries.get(&uid).is_some_and(|entry| {
                Arc::ptr_eq(&entry.object, object) && entry.pod.namespace_labels == namespace.1
            });
            if !known {
                let promised = status.pod_ips.iter().map(|ip| ip.ip.to_canonical()).collect();
                self.take_over(&uid, key, object, namespace.1.clone(), promised);
            }
        }
        for uid in gone {
            if let Some(entry) = self.entries.remove(&uid) {
                self.departed.insert(uid, (entry.home.clone(), entry.held.clone()));
            }
        }
    }

    /// Nothing of the pods that are gone is in the kernel any more.
    pub fn forget_departed(&mut self) {
        self.departed.clear();
    }

    fn take_over(
        &mut self,
        uid: &str,
        key: &ObjectKey,
        object: &Arc<Object>,
        namespace_labels: Labels,
        promised: Vec<IpAddr>,
    ) {
        let home = self.home_of(uid, object);
        let old = self.entries.get(uid);
        let same_home = old.is_some_and(|old| old.home == home);
        let new_promise = old.is_some_and(|old| old.promised != promised);
        let location = old.filter(|_| same_home).map_or(Location::Unknown, |old| old.pod.location.clone());
        let pod = Pod {
            uid: uid.to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            labels: object.metadata.labels.clone(),
            namespace_labels,
            location,
        };
        if let Some(entry) = self.entries.get_mut(uid).filter(|_| same_home) {
            if *entry.pod != pod {
                entry.pod = Arc::new(pod);
            }
            entry.object = Arc::clone(object);
            entry.promised = promised;
            if !new_promise {
                return;
            }
        } else {
            let entry = Entry {
                pod: Arc::new(pod),
                object: Arc::clone(object),
                home,
                promised,
                sight: None,
                held: None,
                problem: None,
                attempts: 0,
                round: 0,
                look: tokio::spawn(std::future::ready(())),
            };
            self.entries.insert(uid.to_owned(), entry);
        }
        self.look(uid, Duration::ZERO);
    }

    fn look_at_once(&mut self, uids: &[String]) {
        for uid in uids {
            self.look(uid, Duration::ZERO);
        }
    }

    /// Looks at a pod again after a while, in place of the look that was planned.
    fn look(&mut self, uid: &str, wait: Duration) {
        self.rounds += 1;
        let round = self.rounds;
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.round = round;
        entry.look.abort();
        let (uid, home) = (uid.to_owned(), entry.home.clone());
        let (targets, found) = (Arc::clone(&self.targets), self.found.clone());
        let (kubelet, held) = (self.kubelet.clone(), entry.held.clone());
        entry.look = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let result = visit(home, kubelet, held, &targets).await;
            // Nobody listens any more only when the agent ends.
            let _ended = found.send(Found { uid, round, result });
        });
    }

    /// Takes over what a look has found, and plans the next. Returns whether it is something new.
    pub fn found(&mut self, found: Found) -> bool {
        let Found { uid, round, result } = found;
        let Some(entry) = self.entries.get_mut(&uid).filter(|entry| entry.round == round) else {
            return false;
        };
        let before = (entry.sight.clone(), entry.problem.clone(), entry.attempts);
        let complete = match result {
            Ok((sight, held)) => {
                entry.held = held;
                let complete = place::is_complete(&sight, &entry.promised);
                entry.sight = Some(sight);
                entry.problem = None;
                complete
            }
            Err(error) => {
                // A namespace that is gone may come back as another one; any other failure says nothing about it.
                if error.is_gone() {
                    entry.sight = None;
                }
                entry.problem = Some(format!("{:#}", anyhow::Error::from(error)));
                false
            }
        };
        entry.attempts = if complete { ENOUGH } else { entry.attempts.saturating_add(1) };
        let doublings = entry.attempts.min(10).saturating_sub(1);
        let wait = if complete { REGULAR } else { (FIRST_WAIT * (1 << doublings)).min(LONGEST_WAIT) };
        let now = (&entry.sight, &entry.problem, entry.attempts);
        let news = now != (&before.0, &before.1, before.2);
        self.look(&uid, wait);
        news
    }

    /// A device of the host has come, changed or gone: looks again at pods that are not found, or found behind it.
    pub fn device_changed(&mut self, ifindex: u32) {
        let concerned = |entry: &Entry| match &entry.pod.location {
            Location::Netns { ifindex: own, .. } => *own == ifindex || *own == 0,
            Location::Unknown => true,
            Location::Host { .. } => false,
        };
        let uids: Vec<String> =
            self.entries.iter().filter(|(_, entry)| concerned(entry)).map(|(uid, _)| uid.clone()).collect();
        self.look_at_once(&uids);
    }

    /// Brings sights and the host's devices together. Returns whether a pod is somewhere else now.
    pub fn locate(&mut self, links: &BTreeMap<u32, Link>) -> bool {
        let mut moved = false;
        for entry in self.entries.values_mut() {
            let location = match &entry.sight {
                None => Location::Unknown,
                Some(Sight::Cgroup(id)) => Location::Host { cgroups: vec![*id] },
                Some(Sight::Netns(visit)) => {
                    place::locate(visit, links, &entry.promised, entry.attempts >= ENOUGH)
                }
            };
            if location != entry.pod.location {
                entry.pod = Arc::new(Pod { location, ..Pod::clone(&entry.pod) });
                moved = true;
            }
        }
        moved
    }

    pub fn all(&self) -> BTreeMap<String, Arc<Pod>> {
        self.entries.iter().map(|(uid, entry)| (uid.clone(), Arc::clone(&entry.pod))).collect()
    }

    /// Whether every pod has been looked at.
    pub fn settled(&self) -> bool {
        self.entries.values().all(|entry| entry.sight.is_some() || entry.attempts >= ENOUGH)
    }

    /// Where a pod's sockets are; `None` where that is not known.
    pub fn sockets(&self, uid: &str) -> Option<Sockets> {
        let here = self.entries.get(uid).map(|entry| (&entry.home, &entry.held));
        match here.or_else(|| self.departed.get(uid).map(|(home, held)| (home, held)))? {
            (Home::Netns(path), _) => Some(Sockets::Netns(path.clone())),
            (Home::Cgroup(_) | Home::Kubelet { host_network: true, .. }, _) => Some(Sockets::Host),
            (Home::Kubelet { .. }, held) => held.as_ref().map(|held| Sockets::Netns(held.path())),
            (Home::Nowhere, _) => None,
        }
    }

    fn home_of(&self, uid: &str, object: &Object) -> Home {
        let host_network = matches!(&object.spec, Spec::Pod(spec, _) if spec.host_network);
        if self.kubelet.is_some() {
            return Home::Kubelet { uid: uid.to_owned(), host_network };
        }
        let annotation = |name: &str| object.metadata.annotations.get(name);
        match (host_network, annotation(NETNS_ANNOTATION), annotation(CGROUP_ANNOTATION)) {
            (true, _, Some(path)) => Home::Cgroup(path.into()),
            (false, Some(name), _) => Home::Netns(netns::path_of(name)),
            _ => Home::Nowhere,
        }
    }

    /// Why a pod is not found.
    pub fn problem(&self, uid: &str) -> Option<&str> {
        self.entries.get(uid)?.problem.as_deref()
    }
}

/// The object's uid, its name where it has none (standalone).
pub fn uid_of(key: &ObjectKey, object: &Object) -> String {
    object.metadata.uid.clone().unwrap_or_else(|| format!("{}/{}", key.namespace, key.name))
}

/// Labels of a namespace; those that Kubernetes always gives it where there is no object.
fn namespace_labels(snapshot: &Snapshot, name: &str) -> Labels {
    let key = ObjectKey::new(Kind::Namespace, "", name);
    let mut labels =
        snapshot.objects.get(&key).map(|object| object.metadata.labels.clone()).unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    labels
}
