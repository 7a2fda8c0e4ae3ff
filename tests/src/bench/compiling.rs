//! `compile_ms`: from objects to what the maps should hold, at the size of a full node and at ten times that.
//!
//! The functions that the agent calls, on values: no kernel, no files.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use enforcer::{
    compile::{Compiled, Input, Ledger, Location, Pair, Pod, TunnelEnd, compile},
    model::{Kind, ObjectKey},
    reconcile::plan,
    resolve::{Resolved, resolve},
    source::manifests::read_text,
    state::{Allocation, NodeAllocation, State, node_subnet},
    store::Snapshot,
};
use enforcer_common::{Addr, Port, grant::DestinationKey};

use super::{Scope, figure::Figure, objects};
use crate::lab::manifests::{CLUSTER, GRANTED, PROJECT};

const GATEWAY: &str = "eu-1";
const NODE: &str = "node-1";
const SLOT: u32 = 0;

/// Milliseconds of each stage.
#[derive(Default)]
struct Times {
    resolve: Vec<f64>,
    compile: Vec<f64>,
    plan: Vec<f64>,
}

pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let sizes = if scope.quick { [(10, 20), (10, 200)] } else { [(250, 1_000), (250, 10_000)] };
    let mut figures = Vec::new();
    for (pods, connections) in sizes {
        let rounds = scope.rounds(if connections > 1_000 { 3 } else { 9 });
        let world = World::new(pods, connections)?;
        for (change, times) in [("all", world.all(rounds)?), ("one", world.one(rounds)?)] {
            for (stage, samples) in
                [("resolve", times.resolve), ("compile", times.compile), ("plan", times.plan)]
            {
                let figure = Figure::median("compile_ms", samples, "ms");
                let figure = figure.label("stage", stage).label("change", change);
                figures.push(figure.label("pods", pods).label("connections", connections));
            }
        }
    }
    Ok(figures)
}

/// A node with many pods, each selected by every connection but the last, which selects one pod.
struct World {
    snapshot: Snapshot,
    /// Without the last connection.
    before: Snapshot,
    state: State,
    pods: BTreeMap<String, Arc<Pod>>,
}

impl World {
    fn new(pods: usize, connections: usize) -> Result<Self> {
        let gateway = format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: TunnelGateway\nmetadata: {{name: {GATEWAY}}}\nspec:\n  publicKey: \
             {}\n  endpoints: [\"192.0.2.1:51820\"]\n  allowedNamespaces: [{PROJECT}]\n  allowedBackends: [{{cidr: \
             203.0.113.0/24, ports: [{{port: 1, endPort: 65535, protocol: TCP}}]}}]\n",
            key('A')
        );
        let node = format!(
            "---\napiVersion: enforcer.dev/v1alpha1\nkind: TunnelNode\nmetadata: {{name: {NODE}}}\nspec: {{publicKey: \
             {}, cluster: {CLUSTER}, node: {NODE}}}\n",
            key('B')
        );
        let common = gateway
            + &node
            + &objects::destinations(connections, GATEWAY, "203.0.113.10")
            + &objects::connections(connections - 1);
        let last = objects::names(connections).last().context("at least one connection")?;
        let whole = common.clone() + &objects::connection(&last, ("member", "p0"));
        Ok(Self {
            snapshot: read_text("world.yaml", &whole),
            before: read_text("world.yaml", &common),
            state: state(connections)?,
            pods: (0..pods).map(pod).collect(),
        })
    }

    /// Nothing is known before.
    fn all(&self, rounds: usize) -> Result<Times> {
        let mut times = Times::default();
        for _ in 0..rounds {
            let resolved = Arc::new(timed(&mut times.resolve, || resolve(&self.snapshot, &self.state)));
            let mut ledger = Ledger::default();
            let none = Compiled::default();
            let compiled = self.compile(&resolved, &mut ledger, &none, Some(&mut times.compile))?;
            let ops = timed(&mut times.plan, || {
                let (have, want) = none.difference(&compiled);
                plan(&have, &want).len()
            });
            anyhow::ensure!(ops > self.pods.len() * (resolved.connections.len() - 1), "{ops} operations");
        }
        Ok(times)
    }

    /// One connection that selects one pod comes to all that is there.
    fn one(&self, rounds: usize) -> Result<Times> {
        let mut times = Times::default();
        let before = Arc::new(resolve(&self.before, &self.state));
        let mut ledger = Ledger::default();
        let first = self.compile(&before, &mut ledger, &Compiled::default(), None)?;
        for _ in 0..rounds {
            let resolved = Arc::new(timed(&mut times.resolve, || resolve(&self.snapshot, &self.state)));
            let compiled = self.compile(&resolved, &mut ledger.clone(), &first, Some(&mut times.compile))?;
            let ops = timed(&mut times.plan, || {
                let (have, want) = first.difference(&compiled);
                plan(&have, &want).len()
            });
            anyhow::ensure!(ops == 1, "{ops} operations for one grant");
        }
        Ok(times)
    }

    fn compile(
        &self,
        resolved: &Arc<Resolved>,
        ledger: &mut Ledger,
        previous: &Compiled,
        samples: Option<&mut Vec<f64>>,
    ) -> Result<Compiled> {
        let destinations = resolved.destinations.values();
        let offers: Arc<BTreeSet<DestinationKey>> = Arc::new(
            destinations
                .filter_map(|destination| destination.v4)
                .map(|service| DestinationKey {
                    service: Addr::v4(service),
                    port: Port::new(objects::PORT),
                    protocol: 6,
                    pad: [0; 5],
                })
                .collect(),
        );
        let acknowledged = self
            .pods
            .keys()
            .map(|uid| (uid.clone(), BTreeMap::from([(SLOT, Arc::clone(&offers))])))
            .collect();
        let input = Input {
            resolved,
            cluster: CLUSTER,
            node: resolved.nodes.get(NODE).context("the node has its addresses")?,
            pair: Pair { enforcer0: 2, tunnel0: 3 },
            flow_quota: 1000,
            pods: &self.pods,
            tunnels: &BTreeMap::from([(GATEWAY.to_owned(), TunnelEnd { slot: SLOT, device: None })]),
            acknowledged: &acknowledged,
            boot_unix_ns: 0,
        };
        Ok(timed(samples.unwrap_or(&mut Vec::new()), || compile(&input, ledger, previous)))
    }
}

fn timed<T>(samples: &mut Vec<f64>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    samples.push(start.elapsed().as_secs_f64() * 1e3);
    done
}

/// A WireGuard key in text form.
fn key(letter: char) -> String {
    let mut key = letter.to_string().repeat(42);
    key.push_str("A=");
    key
}

fn pod(number: usize) -> (String, Arc<Pod>) {
    let (uid, name) = (format!("uid-{number}"), format!("p{number}"));
    let (key, value) = GRANTED;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let pod = Pod {
        uid: uid.clone(),
        namespace: PROJECT.to_owned(),
        labels: [label(key, value), label("member", &name)].into(),
        name,
        namespace_labels: [label("kubernetes.io/metadata.name", PROJECT)].into(),
        location: Location::Netns {
            cookie: number as u64 + 1,
            ifindex: number as u32 + 10,
            addresses: vec![std::net::Ipv4Addr::from(0x0af5_0000 + number as u32).into()],
            not_guardable: None,
        },
    };
    (uid, Arc::new(pod))
}

/// What a controller would have given out.
fn state(connections: usize) -> Result<State> {
    let ula = "fd12:3456:789a::/48".parse()?;
    let mut state = State::new(ula, "198.18.0.0/16".parse()?, "198.19.0.0/16".parse()?);
    let allocation = |number: u32, v4: u32| Allocation {
        number,
        v4: (v4 + number).into(),
        v6: (u128::from(ula.network()) | 2 << 64 | u128::from(number)).into(),
    };
    let numbered = objects::names(connections).zip(1..);
    state.services = numbered
        .map(|(name, number)| {
            (ObjectKey::new(Kind::Postgres, PROJECT, name), allocation(number, 0xc612_0000))
        })
        .collect();
    state.gateways.insert(GATEWAY.to_owned(), allocation(1, 0xc613_ff00));
    let subnet = node_subnet(ula, 1).context("a subnet of the first node")?;
    let node = NodeAllocation {
        number: 1,
        v4: "198.19.0.1".parse()?,
        v6: (u128::from(subnet.network()) | 1).into(),
        blocks: (0..8)
            .map(|block| format!("198.19.{}.{}/26", block / 4, block % 4 * 64).parse())
            .collect::<Result<_, _>>()?,
        subnet,
    };
    state.nodes.insert(NODE.to_owned(), node);
    Ok(state)
}
