//! What each connected node has been told, so that only what is new is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::warn;

use enforcer_common::gateway::GwGrantKey;

use super::{
    compile::{Compiled, Granted},
    registry::Registry,
};
use crate::{
    announce::{Answer, server::Outbox},
    datapath::gateway::GwTables,
};

/// Connected nodes.
#[derive(Debug, Default)]
pub struct Sessions {
    nodes: BTreeMap<String, Session>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    outbox: Arc<Outbox>,
    /// Its snapshot has come: what is known of it is true now.
    ready: bool,
    /// Key: uid.
    told: BTreeMap<String, Told>,
}

#[derive(Clone, Debug)]
enum Told {
    /// All grants but those that the kernel does not hold.
    Live {
        granted: Arc<Granted>,
        missing: BTreeSet<GwGrantKey>,
    },
    Refused {
        generation: u64,
        message: String,
    },
}

impl Sessions {
    pub fn joined(&mut self, node: String, number: u64, outbox: Arc<Outbox>) {
        self.nodes.insert(node, Session { number, outbox, ready: false, told: BTreeMap::new() });
    }

    /// Whether this is the node's latest session.
    pub fn is_current(&self, node: &str, number: u64) -> bool {
        self.nodes.get(node).is_some_and(|session| session.number == number)
    }

    pub fn ready(&mut self, node: &str) {
        if let Some(session) = self.nodes.get_mut(node) {
            session.ready = true;
        }
    }

    pub fn is_ready(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|session| session.ready)
    }

    pub fn left(&mut self, node: &str, number: u64) {
        if self.is_current(node, number) {
            self.nodes.remove(node);
        }
    }

    /// Tells every node what the kernel holds for its bindings, where it was not told before. `actual` is what it
    /// holds; `None`: everything that was compiled.
    pub fn acknowledge(&mut self, registry: &Registry, compiled: &Compiled, actual: Option<&GwTables>) {
        for (node, session) in self.nodes.iter_mut().filter(|(_, session)| session.ready) {
            let Some(announced) = registry.nodes.get(node) else { continue };
            session.told.retain(|uid, _| announced.bindings.contains_key(uid));
            for (uid, binding) in &announced.bindings {
                let id = (node.clone(), uid.clone());
                let told = if let Some(granted) = compiled.grants.get(&id) {
                    let missing = actual.map(|actual| granted.missing(actual)).unwrap_or_default();
                    Told::Live { granted: Arc::clone(granted), missing }
                } else {
                    let message = compiled.refused.get(&id).cloned();
                    let message = message.unwrap_or_else(|| format!("TunnelNode {node} is not valid"));
                    Told::Refused { generation: binding.generation, message }
                };
                let before = session.told.insert(uid.clone(), told.clone());
                if !before.is_some_and(|before| before.says_the_same_as(&told)) {
                    if let Told::Refused { message, .. } = &told {
                        warn!(node, uid, reason = message, "binding refused");
                    }
                    session.outbox.put(uid, told.answer(uid));
                }
            }
        }
    }

    pub fn released(&self, node: &str, uid: &str) {
        if let Some(session) = self.nodes.get(node) {
            session.outbox.put(uid, Answer::Released { uid: uid.to_owned() });
        }
    }
}

impl Told {
    fn answer(&self, uid: &str) -> Answer {
        let uid = uid.to_owned();
        match self {
            Self::Live { granted, missing } => {
                Answer::Live { uid, generation: granted.binding.generation, grants: granted.without(missing) }
            }
            Self::Refused { generation, message } => {
                Answer::Refused { uid, generation: *generation, message: message.clone() }
            }
        }
    }

    fn says_the_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Live { granted, missing },
                Self::Live { granted: other_granted, missing: other_missing },
            ) => {
                let same = || {
                    granted.binding.generation == other_granted.binding.generation
                        && granted.same_keys(other_granted)
                };
                missing == other_missing && (Arc::ptr_eq(granted, other_granted) || same())
            }
            (
                Self::Refused { generation, message },
                Self::Refused { generation: other_generation, message: other_message },
            ) => (generation, message) == (other_generation, other_message),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announce::Binding, gateway::compile::Granted};

    fn binding(generation: u64) -> Binding {
        Binding { uid: "a".into(), generation, ..Binding::default() }
    }

    fn compiled(generation: u64) -> Compiled {
        let granted = Arc::new(Granted { binding: binding(generation), ..Granted::default() });
        Compiled { grants: BTreeMap::from([(("n".into(), "a".into()), granted)]), ..Compiled::default() }
    }

    fn live(generation: u64) -> Answer {
        Answer::Live { uid: "a".into(), generation, grants: BTreeSet::new() }
    }

    #[tokio::test]
    async fn a_node_is_told_after_its_snapshot_and_once() {
        let outbox = Arc::new(Outbox::default());
        let mut sessions = Sessions::default();
        let mut registry = Registry::default();
        registry.upsert("n", binding(1));
        sessions.joined("n".into(), 1, Arc::clone(&outbox));
        sessions.acknowledge(&registry, &compiled(1), None);
        sessions.released("n", "z");
        assert_eq!(
            outbox.take().await,
            [Answer::Released { uid: "z".into() }],
            "nothing before the snapshot"
        );

        sessions.ready("n");
        sessions.acknowledge(&registry, &compiled(1), None);
        assert_eq!(outbox.take().await, [live(1)]);

        sessions.acknowledge(&registry, &compiled(1), None);
        registry.upsert("n", binding(2));
        sessions.acknowledge(&registry, &compiled(2), None);
        assert_eq!(outbox.take().await, [live(2)]);

        sessions.acknowledge(&registry, &Compiled::default(), None);
        let message = "TunnelNode n is not valid".to_owned();
        assert_eq!(outbox.take().await, [Answer::Refused { uid: "a".into(), generation: 2, message }]);
    }

    #[test]
    fn an_older_session_that_ends_does_not_end_the_newer() {
        let mut sessions = Sessions::default();
        sessions.joined("n".into(), 1, Arc::default());
        sessions.joined("n".into(), 2, Arc::default());
        sessions.left("n", 1);
        assert!(sessions.is_current("n", 2));
        sessions.left("n", 2);
        assert!(!sessions.is_current("n", 2));
    }
}
