//! A cluster of many pods and connections: one node of it is the lab's, the others are objects only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use enforcer::{
    model::{API_VERSION, Kind},
    source::kubernetes::Resource,
};
use serde_json::{Value, json};

use super::{ApiLab, NewPod, pod_object};
use crate::lab::{
    Role,
    crowd::Member,
    manifests::{CLUSTER, PROJECT},
    network::SERVER4,
};

const LIMIT: Duration = Duration::from_mins(10);

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub nodes: usize,
    pub pods_of_node: usize,
    /// Each pod has one of so many labels, and each destination is for one of them at a time.
    pub apps: usize,
    /// Of each pod.
    pub connections_of_app: usize,
}

impl Size {
    pub const FULL: Self = Self { nodes: 100, pods_of_node: 50, apps: 100, connections_of_app: 5 };
    pub const SMALL: Self = Self { nodes: 10, pods_of_node: 10, apps: 12, connections_of_app: 3 };

    pub const fn pods(self) -> usize {
        self.nodes * self.pods_of_node
    }

    pub const fn connections(self) -> usize {
        self.apps * self.connections_of_app
    }
}

pub struct Crowd {
    pub on: ApiLab,
    pub size: Size,
    /// Pods that have been made so far.
    made: usize,
}

fn ours(kind: &str, name: &str, spec: &Value) -> Value {
    let mut object =
        json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec });
    if kind != "TunnelNode" {
        object["metadata"]["namespace"] = PROJECT.into();
    }
    object
}

pub fn destination(name: &str, gateway: &str) -> Value {
    ours("Postgres", name, &json!({ "gateways": [gateway], "endpoints": [{ "address": SERVER4 }] }))
}

pub fn connection(name: &str, destination: &str, label: (&str, &str)) -> Value {
    let labels = json!({ label.0: label.1 });
    let spec = json!({
        "source": {
            "kind": "KubernetesCluster",
            "name": CLUSTER,
            "podSelector": { "matchLabels": labels },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": PROJECT } },
        },
        "destination": { "kind": "Postgres", "name": destination },
    });
    ours("ServiceConnection", name, &spec)
}

impl Crowd {
    /// Everything is there, and every grant of the lab's node is live.
    pub fn start(size: Size) -> Result<Self> {
        let mut crowd = Self { on: ApiLab::start()?, size, made: 0 };
        let gateway = crowd.on.lab.id.gateway();
        let api = &crowd.on.api;
        api.create_all((0..size.apps).map(|app| destination(&format!("pg-{app}"), &gateway)).collect())?;
        let connections = (0..size.connections()).map(|number| {
            let (app, step) = (number % size.apps, number / size.apps);
            let destination = format!("pg-{}", (app + step) % size.apps);
            connection(&format!("sc-{number}"), &destination, ("app", &format!("app-{app}")))
        });
        api.create_all(connections.collect())?;
        let nodes = (1..size.nodes).map(|node| {
            let name = format!("other-{node}");
            let key = enforcer::keygen::encode_key(&std::array::from_fn(|at| {
                (node >> (8 * (at % 2))) as u8 | 1 << 7
            }));
            ours("TunnelNode", &name, &json!({ "publicKey": key, "cluster": CLUSTER, "node": name }))
        });
        api.create_all(nodes.collect())?;
        let others = (0..size.pods() - size.pods_of_node).map(|_| crowd.made()).collect::<Vec<_>>();
        crowd.on.api.create_all(others)?;
        crowd.settle_here()?;
        crowd.on.start_roles()?;
        crowd.wait_live()?;
        Ok(crowd)
    }

    /// A pod of another node that has not been there before.
    fn made(&mut self) -> Value {
        let number = self.made;
        self.made += 1;
        let mut pod =
            pod_object(&format!("other-{number}"), &format!("other-{}", number % (self.size.nodes - 1) + 1));
        pod["metadata"]["labels"] =
            json!({ "app": format!("app-{}", number % self.size.apps), "pod-template-hash": "5d4f8c7b9d" });
        pod
    }

    fn settle_here(&mut self) -> Result<()> {
        let members = (0..self.size.pods_of_node as u16).map(Member);
        self.on.lab.add_crowd(members.clone())?;
        let pod = |member: Member| NewPod {
            name: member.name(),
            labels: json!({ "app": format!("app-{}", usize::from(member.0) % self.size.apps) }),
            netns: self.on.lab.id.netns(&member.name()),
            addresses: vec![member.address().to_string()],
        };
        let pods: Vec<_> = members.map(pod).collect();
        self.on.add_pods(&pods).map(drop)
    }

    /// Waits until every grant of the node is live, every status is written and nothing is left to write.
    fn wait_live(&self) -> Result<()> {
        let (start, wanted) = (Instant::now(), self.size.pods_of_node * self.size.connections_of_app);
        let mut sent = (Value::Null, Instant::now());
        loop {
            let status = self.on.lab.status(Role::Agent).unwrap_or_default();
            let pods = status["pods"].as_array().cloned().unwrap_or_default();
            let live: u64 = pods.iter().filter_map(|pod| pod["live"].as_u64()).sum();
            let now = self.on.lab.status(Role::Controller).unwrap_or_default()["writes"]["sent"].clone();
            if now != sent.0 {
                sent = (now, Instant::now());
            }
            if live == wanted as u64 && sent.1.elapsed() > Duration::from_secs(5) {
                return Ok(());
            }
            ensure!(start.elapsed() < LIMIT, "{live} of {wanted} grants are live, {:?} were sent", sent.0);
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// One round of what always happens: some pods of others go and come, some get another label, also here.
    pub fn churn(&mut self, pods: usize) -> Result<()> {
        let others = self.size.pods() - self.size.pods_of_node;
        let oldest = self.made - others;
        let gone = (oldest..oldest + pods).map(|number| pod_object(&format!("other-{number}"), ""));
        self.on.api.delete_all(gone.collect())?;
        let come = (0..pods).map(|_| self.made()).collect();
        self.on.api.create_all(come)?;
        let round = self.made;
        let touched = (0..pods).map(|pod| {
            let name = format!("p{}", (round + pod) % self.size.pods_of_node);
            json!({
                "kind": "Pod",
                "metadata": { "name": name, "namespace": PROJECT, "labels": { "version": format!("v{round}") } },
            })
        });
        self.on.api.change_all(touched.collect()).map(drop)
    }

    /// What does not stand in a status as it must, of connections, destinations and nodes.
    pub fn wrong(&self) -> Result<Vec<String>> {
        let list = |kind| self.on.api.list(&Resource::of(kind));
        let (mut all, mut here) = <(BTreeMap<String, u64>, BTreeMap<String, u64>)>::default();
        let node = self.on.lab.id.node();
        for pod in list(Kind::Pod)? {
            let app = pod["metadata"]["labels"]["app"].as_str().unwrap_or_default();
            *all.entry(app.to_owned()).or_default() += 1;
            *here.entry(app.to_owned()).or_default() += u64::from(pod["spec"]["nodeName"] == node.as_str());
        }
        let mut wrong = Vec::new();
        let mut compare = |name: &Value, found: Value, wanted: Value| {
            if found != wanted {
                wrong.push(format!("{name} has {found}, expected {wanted}"));
            }
        };
        for connection in list(Kind::ServiceConnection)? {
            let (spec, status) = (&connection["spec"], &connection["status"]);
            let app = spec["source"]["podSelector"]["matchLabels"]["app"].as_str().unwrap_or_default();
            let count = |pods: &BTreeMap<String, u64>| pods.get(app).copied().unwrap_or_default();
            let nodes = if count(&here) > 0 { json!([node]) } else { Value::Null };
            let to = spec["destination"]["name"].as_str().unwrap_or_default();
            let name = format!("postgres-{to}.{PROJECT}.svc.cluster.local");
            let found = ["matchedPods", "activePods", "nodes", "destinationDNS"].map(|field| &status[field]);
            compare(
                &connection["metadata"]["name"],
                json!(found),
                json!([count(&all), count(&here), nodes, name]),
            );
        }
        let mut numbers = BTreeSet::new();
        for kind in [Kind::Postgres, Kind::TunnelNode] {
            for object in list(kind)? {
                let (status, name) = (&object["status"], &object["metadata"]["name"]);
                let is_new = numbers.insert((kind, status["number"].as_u64()));
                let gets =
                    if kind == Kind::Postgres { &status["addresses"] } else { &status["ranges"]["blocks"] };
                let has = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
                compare(
                    name,
                    json!([status["number"].is_u64(), is_new, has(gets)]),
                    json!([true, true, true]),
                );
            }
        }
        Ok(wrong)
    }

    /// MiB that a role has resident, now (`VmRSS`) or at most so far (`VmHWM`).
    pub fn mib(&self, role: Role, field: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.on.lab.process(role).pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib =
            line.and_then(|line| line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.context("a size")? / 1024.0)
    }

    /// uid of a pod of this node.
    pub fn uid(&self, member: Member) -> Result<String> {
        let pod =
            self.on.api.get(&Resource::of(Kind::Pod), PROJECT, &member.name())?.context("it is there")?;
        Ok(pod["metadata"]["uid"].as_str().context("it has a uid")?.to_owned())
    }

    /// How many requests of each kind were answered since so many: `enforcer-agent watch pods`.
    pub fn asked(&self, since: usize) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for request in self.on.plane.requests()?.split_off(since) {
            *counts
                .entry(format!("{} {} {}", request.account, request.verb, request.resource))
                .or_default() += 1;
        }
        Ok(counts)
    }
}
