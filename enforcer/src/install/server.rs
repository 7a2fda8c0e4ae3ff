//! What the server that is to be installed on says of itself.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;

use super::{
    served::{ADMISSION, ADMISSION_BETA, KubeVersion, POLICY, SLICES, Served},
    values::Taken,
};
use crate::{
    model::Kind,
    source::kubernetes::{Cluster, Resource},
};

/// Its version and what it serves.
pub async fn served(cluster: &Cluster) -> anyhow::Result<Served> {
    let version: KubeVersion = cluster.version().await?.parse()?;
    let mut apis = BTreeSet::new();
    for (group, served) in [("policy", POLICY), ("discovery.k8s.io", SLICES)] {
        if cluster.versions(group).await?.iter().any(|version| version == "v1") {
            apis.insert(served.to_owned());
        }
    }
    // Both versions of the group are older than the kind.
    let admission = cluster.versions("admissionregistration.k8s.io").await?;
    for (name, since, served) in [("v1", 30, ADMISSION), ("v1beta1", 28, ADMISSION_BETA)] {
        if version.minor >= since && admission.iter().any(|version| version == name) {
            apis.insert(served.to_owned());
        }
    }
    Ok(Served { version, apis })
}

/// Addresses that the cluster uses, as far as its objects name them.
pub async fn taken(cluster: &Cluster) -> anyhow::Result<Vec<Taken>> {
    let nodes = cluster.list(&Resource::of(Kind::Node), "", "").await?;
    let services = cluster.list(&Resource::of(Kind::Service), "", "").await?;
    Ok(nodes.iter().flat_map(of_node).chain(services.iter().flat_map(of_service)).collect())
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn of_node(node: &Value) -> Vec<Taken> {
    let spec = &node["spec"];
    let pods = spec["podCIDRs"].as_array().into_iter().flatten().chain([&spec["podCIDR"]]);
    let pods = pods.filter_map(|prefix| prefix.as_str()?.parse().ok());
    let mut taken: Vec<Taken> =
        pods.map(|prefix| (format!("the pods of node {},", name(node)), prefix)).collect();
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let addresses = addresses.filter_map(|address| address["address"].as_str()?.parse().ok());
    taken
        .extend(addresses.map(|address: std::net::IpAddr| (format!("node {},", name(node)), address.into())));
    taken
}

fn of_service(service: &Value) -> Vec<Taken> {
    let spec = &service["spec"];
    let addresses = spec["clusterIPs"].as_array().into_iter().flatten().chain([&spec["clusterIP"]]);
    let addresses = addresses.filter_map(|address| address.as_str()?.parse::<std::net::IpAddr>().ok());
    let namespace = service["metadata"]["namespace"].as_str().unwrap_or_default();
    let what = format!("Service {namespace}/{},", name(service));
    addresses.map(|address| (what.clone(), IpNet::from(address))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_nodes_and_services_have_addresses_and_a_headless_service_has_none() {
        let node = json!({
            "metadata": { "name": "a" },
            "spec": { "podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00:244::/64"] },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.7" }, { "type": "Hostname", "address": "a" }] },
        });
        let found: BTreeSet<String> =
            of_node(&node).iter().map(|(what, net)| format!("{what} {net}")).collect();
        let wanted = [
            "node a, 192.0.2.7/32",
            "the pods of node a, 10.244.0.0/24",
            "the pods of node a, fd00:244::/64",
        ];
        assert_eq!(found, wanted.map(str::to_owned).into());
        let service = |spec: Value| {
            of_service(&json!({ "metadata": { "name": "dns", "namespace": "x" }, "spec": spec }))
        };
        assert_eq!(
            service(json!({ "clusterIP": "10.96.0.10" })),
            [("Service x/dns,".to_owned(), "10.96.0.10/32".parse().unwrap())]
        );
        assert_eq!(service(json!({ "clusterIP": "None", "clusterIPs": ["None"] })), []);
    }
}
