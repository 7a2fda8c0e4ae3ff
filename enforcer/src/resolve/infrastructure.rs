//! Where the cluster itself lives: addresses that no tenant may have as a backend and no administrator may guard.
//!
//! Told by Kubernetes' own objects: the addresses of Nodes and of pods that share their node's network, the Service
//! and EndpointSlices of the API server (`default/kubernetes`) and of the DNS (label `k8s-app: kube-dns` or that name,
//! in `kube-system`). Services of other namespaces count for nothing: tenants write those.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::of_kinds;
use crate::{
    model::{Kind, Object, ObjectKey, Spec},
    store::{Change, Snapshot},
};

/// Label of an EndpointSlice: the Service that it is of.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// As in [`super::Resolved::infrastructure`].
pub(super) fn resolve(snapshot: &Snapshot) -> BTreeMap<IpAddr, String> {
    let mut addresses = BTreeMap::new();
    let found = &mut addresses;
    for (key, object) in of_kinds(snapshot, &[Kind::Node, Kind::Pod, Kind::Service, Kind::EndpointSlice]) {
        match &object.spec {
            Spec::Node(status) => {
                let texts = status.addresses.iter().map(|address| address.address.as_str());
                add(found, &format!("of Node {}", key.name), texts.filter_map(|text| text.parse().ok()));
            }
            Spec::Pod(spec, status) if spec.host_network && !spec.node_name.is_empty() => {
                let ips = status.pod_ips.iter().map(|ip| ip.ip);
                add(found, &format!("of node {}", spec.node_name), ips);
            }
            Spec::Service(spec) => {
                let Some(what) = role(&key.namespace, &key.name, object) else { continue };
                let texts = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
                add(found, &format!("of {what} ({key})"), texts.filter_map(|text| text.parse().ok()));
            }
            Spec::EndpointSlice(slice) => {
                let Some(service) = object.metadata.labels.get(SERVICE_NAME) else { continue };
                let of = snapshot.objects.get(&ObjectKey::new(Kind::Service, &key.namespace, service));
                let Some(what) = role(&key.namespace, service, of.map_or(object, |of| of)) else { continue };
                let texts = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
                add(found, &format!("of {what} ({key})"), texts.filter_map(|text| text.parse().ok()));
            }
            _ => {}
        }
    }
    addresses
}

/// Whether a Service or EndpointSlice that changed may say where the cluster lives.
pub(super) fn concerns(change: &Change) -> bool {
    let says = |object: &Arc<Object>| match change.key.kind {
        Kind::Service => role(&change.key.namespace, &change.key.name, object).is_some(),
        // Whether it is one of the DNS, its Service says.
        Kind::EndpointSlice => {
            let service = object.metadata.labels.get(SERVICE_NAME);
            change.key.namespace == "kube-system"
                || service.is_some_and(|name| role(&change.key.namespace, name, object).is_some())
        }
        _ => true,
    };
    change.was.is_some_and(says) || change.is.is_some_and(says)
}

/// What a Service is to the cluster.
fn role(namespace: &str, name: &str, object: &Object) -> Option<&'static str> {
    let labelled = object.metadata.labels.get("k8s-app").is_some_and(|app| app == "kube-dns");
    match (namespace, name) {
        ("default", "kubernetes") => Some("the API server"),
        ("kube-system", name) if name == "kube-dns" || labelled => Some("the DNS"),
        _ => None,
    }
}

fn add(found: &mut BTreeMap<IpAddr, String>, what: &str, addresses: impl Iterator<Item = IpAddr>) {
    for address in addresses {
        found.entry(address.to_canonical()).or_insert_with(|| what.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifests;

    const CLUSTER: &str = "
apiVersion: v1
kind: Node
metadata: {name: host-1}
spec: {podCIDR: 10.244.0.0/24}
status:
  addresses: [{type: InternalIP, address: 192.0.2.11}, {type: Hostname, address: host-1}]
---
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00:10:96::1'], ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.5], conditions: {ready: true}}]
ports: [{port: 6443}]
---
apiVersion: v1
kind: Service
metadata: {name: rke2-coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {clusterIP: 10.96.0.10}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: rke2-coredns-x7, namespace: kube-system, labels: {kubernetes.io/service-name: rke2-coredns}}
endpoints: [{addresses: [10.244.0.3]}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: shop, labels: {k8s-app: kube-dns}}
spec: {clusterIP: 10.96.0.77}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: kube-system}
spec: {clusterIP: None}
---
apiVersion: v1
kind: Pod
metadata: {name: proxy, namespace: shop}
spec: {nodeName: host-2, hostNetwork: true}
status: {podIPs: [{ip: '::ffff:192.0.2.12'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: host-2}
status: {podIPs: [{ip: 10.244.1.9}]}
";

    #[test]
    fn the_clusters_own_objects_say_where_it_lives_and_a_tenants_do_not() {
        let snapshot = manifests::read_text("cluster.yaml", CLUSTER);
        assert_eq!(snapshot.problems, []);
        let found: Vec<String> = resolve(&snapshot).iter().map(|(ip, what)| format!("{ip} {what}")).collect();
        assert_eq!(
            found,
            [
                "10.96.0.1 of the API server (Service default/kubernetes)",
                "10.96.0.10 of the DNS (Service kube-system/rke2-coredns)",
                "10.244.0.3 of the DNS (EndpointSlice kube-system/rke2-coredns-x7)",
                "192.0.2.5 of the API server (EndpointSlice default/kubernetes)",
                "192.0.2.11 of Node host-1",
                "192.0.2.12 of node host-2",
                "fd00:10:96::1 of the API server (Service default/kubernetes)",
            ]
        );
    }
}
