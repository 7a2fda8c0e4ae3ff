//! What nodes claim about pods, held against the pods that this gateway can read itself.
//!
//! Pure. Of pods that it cannot read, a node is believed what it says: they are another cluster's.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    announce::Binding,
    model::{ObjectKey, Spec},
    resolve::Node,
    store::Snapshot,
};

/// The pods of a snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pods {
    /// Key: uid; the pod's own, or its namespace and name where it has none.
    by_uid: BTreeMap<String, Pod>,
    /// Key: namespace and name. Value: uid.
    by_name: BTreeMap<(String, String), String>,
    /// Names of a TunnelNode's node, as pods have them. Key: name of the TunnelNode.
    nodes: BTreeMap<String, BTreeSet<String>>,
    /// Clusters that have a node of a name.
    clusters: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Pod {
    key: ObjectKey,
    node: String,
    /// Its uid is its own, so that no pod of another cluster has it.
    unique: bool,
}

impl Pods {
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut pods = Self::default();
        for (key, object) in &snapshot.objects {
            match &object.spec {
                Spec::Pod(spec, _) => {
                    let own = object.metadata.uid.clone();
                    let unique = own.is_some();
                    let uid = own.unwrap_or_else(|| format!("{}/{}", key.namespace, key.name));
                    pods.by_name.insert((key.namespace.clone(), key.name.clone()), uid.clone());
                    pods.by_uid.insert(uid, Pod { key: key.clone(), node: spec.node_name.clone(), unique });
                }
                Spec::TunnelNode(spec) => {
                    let names = BTreeSet::from([key.name.clone(), spec.node.clone()]);
                    for name in &names {
                        pods.clusters.entry(name.clone()).or_default().insert(spec.cluster.clone());
                    }
                    pods.nodes.insert(key.name.clone(), names);
                }
                _ => {}
            }
        }
        pods
    }

    /// What speaks against a node's claim; `None`: nothing that can be read here.
    pub fn contradiction(&self, node: &Node, binding: &Binding) -> Option<String> {
        let Binding { uid, namespace, pod: name, .. } = binding;
        if let Some(pod) = self.by_uid.get(uid).filter(|pod| pod.unique || self.is_of_cluster(pod, node)) {
            if (&pod.key.namespace, &pod.key.name) != (namespace, name) {
                return Some(format!("uid {uid} is that of pod {}/{}", pod.key.namespace, pod.key.name));
            }
            let runs_there = self.nodes.get(&node.name).is_some_and(|names| names.contains(&pod.node));
            return (!runs_there).then(|| {
                format!("pod {namespace}/{name} runs on node \"{}\", not on that of {}", pod.node, node.name)
            });
        }
        let own = self.by_name.get(&(namespace.clone(), name.clone()))?;
        let pod = self.by_uid.get(own)?;
        self.is_of_cluster(pod, node).then(|| format!("pod {namespace}/{name} has the uid {own}"))
    }

    /// Whether a pod is of the node's cluster: one of its name may be in another.
    fn is_of_cluster(&self, pod: &Pod, node: &Node) -> bool {
        self.clusters.get(&pod.node).is_some_and(|clusters| clusters.contains(&node.cluster))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Kind, Metadata, Object, PodSpec, PodStatus, TunnelNodeSpec};

    fn add(snapshot: &mut Snapshot, kind: Kind, name: &str, uid: Option<&str>, spec: Spec) {
        let namespace = if kind == Kind::Pod { "shop" } else { "" };
        let metadata = Metadata { uid: uid.map(str::to_owned), ..Metadata::default() };
        let key = ObjectKey::new(kind, namespace, name);
        snapshot.objects.insert(key, Arc::new(Object { metadata, spec }));
    }

    fn pods() -> Pods {
        let mut snapshot = Snapshot::default();
        for (name, cluster, node) in [("tn-1", "c", "one"), ("tn-2", "c", "two"), ("tn-9", "d", "nine")] {
            let spec =
                TunnelNodeSpec { public_key: String::new(), cluster: cluster.into(), node: node.into() };
            add(&mut snapshot, Kind::TunnelNode, name, None, Spec::TunnelNode(spec));
        }
        for (name, uid, node) in
            [("cart", Some("u1"), "one"), ("audit", Some("u2"), "two"), ("bare", None, "one")]
        {
            let spec = PodSpec { node_name: node.into(), host_network: false };
            add(&mut snapshot, Kind::Pod, name, uid, Spec::Pod(spec, PodStatus::default()));
        }
        Pods::of(&snapshot)
    }

    fn node(name: &str, cluster: &str) -> Node {
        Node {
            name: name.into(),
            number: 1,
            v4: [198, 19, 0, 1].into(),
            v6: "fd00::1".parse().unwrap(),
            blocks: Vec::new(),
            subnet: "fd00::/64".parse().unwrap(),
            public_key: [0; 32],
            cluster: cluster.into(),
        }
    }

    #[test]
    fn a_claim_is_refused_where_the_pod_can_be_read_and_is_another() {
        let pods = pods();
        let (ours, theirs) = (node("tn-1", "c"), node("tn-9", "d"));
        let table = [
            (&ours, "u1", "cart", None),
            (&ours, "shop/bare", "bare", None),
            (&ours, "u2", "audit", Some("pod shop/audit runs on node \"two\", not on that of tn-1")),
            (&ours, "u2", "cart", Some("uid u2 is that of pod shop/audit")),
            (&ours, "u3", "cart", Some("pod shop/cart has the uid u1")),
            // Nothing is known of it: the node may have seen it first.
            (&ours, "u4", "fresh", None),
            // Another cluster has pods of the same names, but none of the same uid.
            (&theirs, "u9", "cart", None),
            (&theirs, "shop/bare", "bare", None),
            (&theirs, "u1", "cart", Some("pod shop/cart runs on node \"one\", not on that of tn-9")),
        ];
        for (node, uid, name, expected) in table {
            let binding =
                Binding { uid: uid.into(), namespace: "shop".into(), pod: name.into(), ..Binding::default() };
            assert_eq!(pods.contradiction(node, &binding).as_deref(), expected, "{} {uid} {name}", node.name);
        }
    }
}
