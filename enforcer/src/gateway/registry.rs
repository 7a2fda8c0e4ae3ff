//! What the nodes have announced: their bindings, and those that are gone while flows of theirs may be left.
//!
//! Pure, and kept in a file: a gateway that was killed knows everything that its kernel goes on forwarding.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::{announce::Binding, resolve};

/// Bindings of all nodes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Registry {
    /// Key: name of the TunnelNode.
    pub nodes: BTreeMap<String, Announced>,
}

/// Bindings of one node. Key: uid.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Announced {
    pub bindings: BTreeMap<String, Binding>,
    /// Removed, but not released yet.
    pub leaving: BTreeMap<String, Binding>,
}

impl Registry {
    /// Takes a whole list; what is not on it leaves.
    pub fn snapshot(&mut self, node: &str, bindings: Vec<Binding>) {
        let announced = self.nodes.entry(node.to_owned()).or_default();
        let bindings: BTreeMap<_, _> =
            bindings.into_iter().map(|binding| (binding.uid.clone(), binding)).collect();
        let gone = std::mem::take(&mut announced.bindings);
        announced.leaving.extend(gone);
        announced.leaving.retain(|uid, _| !bindings.contains_key(uid));
        announced.bindings = bindings;
    }

    pub fn upsert(&mut self, node: &str, binding: Binding) {
        let announced = self.nodes.entry(node.to_owned()).or_default();
        announced.leaving.remove(&binding.uid);
        announced.bindings.insert(binding.uid.clone(), binding);
    }

    /// A binding that was never announced leaves as well: the node waits for its release.
    pub fn remove(&mut self, node: &str, uid: &str) {
        let announced = self.nodes.entry(node.to_owned()).or_default();
        let gone = announced
            .bindings
            .remove(uid)
            .or_else(|| announced.leaving.remove(uid))
            .unwrap_or_else(|| Binding { uid: uid.to_owned(), ..Binding::default() });
        announced.leaving.insert(uid.to_owned(), gone);
    }

    /// Takes out what left and has no flow any more: `busy` are the workload addresses with live flows. An address
    /// that a later binding has been given does not hold the earlier one back.
    pub fn release(&mut self, busy: &BTreeSet<IpAddr>) -> Vec<(String, String)> {
        let mut released = Vec::new();
        for (node, announced) in &mut self.nodes {
            let given: BTreeSet<IpAddr> = announced.bindings.values().flat_map(Binding::addresses).collect();
            announced.leaving.retain(|uid, binding| {
                let held =
                    binding.addresses().any(|address| busy.contains(&address) && !given.contains(&address));
                if !held {
                    released.push((node.clone(), uid.clone()));
                }
                held
            });
        }
        released
    }

    /// What a node that is no more has announced leaves.
    pub fn retain_nodes(&mut self, exists: impl Fn(&str) -> bool) {
        for (_, announced) in self.nodes.iter_mut().filter(|(node, _)| !exists(node)) {
            let gone = std::mem::take(&mut announced.bindings);
            announced.leaving.extend(gone);
        }
        self.nodes.retain(|node, announced| exists(node) || !announced.leaving.is_empty());
    }

    pub fn is_leaving(&self) -> bool {
        self.nodes.values().any(|announced| !announced.leaving.is_empty())
    }
}

/// Why a node cannot announce this binding; `None`: it can. `others`: the node's bindings that came before.
pub fn refusal(node: &resolve::Node, binding: &Binding, taken: &BTreeMap<IpAddr, String>) -> Option<String> {
    for address in binding.addresses() {
        let owned = match address {
            IpAddr::V4(v4) => v4 != node.v4 && node.blocks.iter().any(|block| block.contains(&v4)),
            IpAddr::V6(v6) => v6 != node.v6 && node.subnet.contains(&v6),
        };
        if !owned {
            return Some(format!("{address} is no workload address of node {}", node.name));
        }
        if let Some(other) = taken.get(&address) {
            return Some(format!("{address} is announced for {other} already"));
        }
    }
    // Where the TunnelNode names its cluster the node's key proves it, and a binding cannot claim another one.
    (!node.cluster.is_empty() && binding.cluster != node.cluster).then(|| {
        format!(
            "cluster \"{}\", expected \"{}\" as in TunnelNode {}",
            binding.cluster, node.cluster, node.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(uid: &str, last: u8) -> Binding {
        Binding {
            uid: uid.into(),
            v4: Some([198, 19, 0, last].into()),
            cluster: "c".into(),
            ..Binding::default()
        }
    }

    fn busy(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|last| IpAddr::from([198, 19, 0, *last])).collect()
    }

    fn released(uid: &str) -> (String, String) {
        ("n".into(), uid.into())
    }

    #[test]
    fn what_a_snapshot_lacks_leaves_and_is_released_without_flows() {
        let mut registry = Registry::default();
        registry.snapshot("n", vec![binding("a", 2), binding("b", 3)]);
        registry.snapshot("n", vec![binding("b", 3)]);
        assert_eq!(registry.release(&busy(&[2])), []);
        assert!(registry.is_leaving());
        assert_eq!(registry.release(&busy(&[3])), [released("a")]);
        assert!(!registry.is_leaving());
    }

    #[test]
    fn removing_the_unknown_is_answered_with_a_release() {
        let mut registry = Registry::default();
        registry.remove("n", "x");
        assert_eq!(registry.release(&busy(&[])), [released("x")]);
    }

    #[test]
    fn a_binding_that_comes_back_does_not_leave() {
        let mut registry = Registry::default();
        registry.upsert("n", binding("a", 2));
        registry.remove("n", "a");
        registry.upsert("n", binding("a", 2));
        assert_eq!(registry.release(&busy(&[])), []);
    }

    #[test]
    fn the_bindings_of_a_node_that_is_gone_leave_with_it() {
        let mut registry = Registry::default();
        registry.upsert("n", binding("a", 2));
        registry.retain_nodes(|_| false);
        assert_eq!(registry.release(&busy(&[2])), []);
        assert_eq!(registry.release(&busy(&[])), [released("a")]);
        registry.retain_nodes(|_| false);
        assert_eq!(registry, Registry::default());
    }

    #[test]
    fn a_node_speaks_only_for_its_own_addresses_and_cluster() {
        let node = resolve::Node {
            name: "n".into(),
            number: 1,
            v4: [198, 19, 0, 1].into(),
            v6: "fd00:0:0:1000::1".parse().unwrap(),
            blocks: vec!["198.19.0.0/26".parse().unwrap()],
            subnet: "fd00:0:0:1000::/64".parse().unwrap(),
            public_key: [0; 32],
            cluster: "c".into(),
        };
        let taken = BTreeMap::from([("198.19.0.9".parse().unwrap(), "other".to_owned())]);
        let table = [
            (binding("a", 2), None),
            (binding("a", 1), Some("198.19.0.1 is no workload address of node n")),
            (binding("a", 64), Some("198.19.0.64 is no workload address of node n")),
            (binding("a", 9), Some("198.19.0.9 is announced for other already")),
            (
                Binding { v6: Some("fd00:0:0:1001::2".parse().unwrap()), ..binding("a", 2) },
                Some("fd00:0:0:1001::2 is no workload address of node n"),
            ),
            (
                Binding { cluster: "d".into(), ..binding("a", 2) },
                Some("cluster \"d\", expected \"c\" as in TunnelNode n"),
            ),
        ];
        for (binding, expected) in table {
            assert_eq!(refusal(&node, &binding, &taken).as_deref(), expected, "{binding:?}");
        }
    }
}
