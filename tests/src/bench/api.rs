//! `api_change_to_kernel_ms`, `controller_rss_mib`, `api_agent_rss_mib`, `api_writes_per_pod`: a cluster of many pods on
//! a real API server, with the controller, and the agent of one of its nodes.
//!
//! From the server's answer to whoever changes something until the node's kernel has the grant.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use enforcer::{model::Kind, source::kubernetes::Resource};
use enforcer_common::{
    Addr, Port,
    grant::{Grant, GrantKey},
    maps::name,
};
use serde_json::{Value, json};

use super::{
    Scope,
    figure::{Bound, Figure},
    objects,
};
use crate::{
    api_lab::{Crowd, Size, connection, destination},
    lab::{Role, crowd::Member, manifests::PROJECT, wait},
};

const LIMIT: Duration = Duration::from_mins(1);
/// Label that the destinations of the bench are for.
const LABEL: &str = "bench";

pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let size = if scope.quick { Size::SMALL } else { Size::FULL };
    let mut crowd = Crowd::start(size)?;
    // What the way there took is given back when the agent looks after its maps, every 15 seconds.
    thread::sleep(if scope.quick { Duration::ZERO } else { Duration::from_secs(20) });
    let with_size = |figure: Figure| {
        let figure = figure.label("pods", size.pods()).label("connections", size.connections());
        figure.label("nodes", size.nodes)
    };
    let mut figures = Vec::new();
    for (metric, role) in [("controller_rss_mib", Role::Controller), ("api_agent_rss_mib", Role::Agent)] {
        let now = Figure::single(metric, crowd.mib(role, "VmRSS")?, "MiB").reference(Bound::AtMost(60.0));
        let peak = Figure::single(metric, crowd.mib(role, "VmHWM")?, "MiB").label("of", "peak");
        figures.extend([with_size(now), with_size(peak)]);
    }
    let writes = crowd.on.plane.requests()?.iter().filter(|request| request.is_write()).count();
    #[expect(clippy::cast_precision_loss, reason = "there are not that many")]
    let of_each = writes as f64 / size.pods() as f64;
    figures.push(with_size(Figure::single("api_writes_per_pod", of_each, "writes")));
    for (change, times) in changes(&mut crowd, scope.rounds(100))? {
        for quantile in [0.5, 0.99] {
            let figure = Figure::quantile("api_change_to_kernel_ms", times.clone(), quantile, "ms");
            let figure = with_size(figure.label("change", change));
            figures.push(if quantile > 0.9 { figure.reference(Bound::AtMost(100.0)) } else { figure });
        }
    }
    Ok(figures)
}

/// Milliseconds of each kind of change, for pods of the node in turn.
fn changes(crowd: &mut Crowd, rounds: usize) -> Result<[(&'static str, Vec<f64>); 2]> {
    let gateway = crowd.on.lab.id.gateway();
    let api = &crowd.on.api;
    for destined in ["by-label", "by-connection"] {
        api.create(&destination(destined, &gateway))?;
    }
    api.create(&connection("by-label", "by-label", (LABEL, "label")))?;
    let kernel = Kernel::of(crowd)?;
    let label = |member: Member, value: Value| {
        let labels = json!({ LABEL: value });
        json!({ "kind": "Pod", "metadata": { "name": member.name(), "namespace": PROJECT, "labels": labels } })
    };
    let [mut by_label, mut by_connection] = <[Vec<f64>; 2]>::default();
    for round in 0..rounds {
        let member = Member(u16::try_from(round % crowd.size.pods_of_node)?);
        let key = kernel.key(crowd, "by-label", member)?;
        api.change(&label(member, "label".into()))?;
        by_label.push(kernel.until(&key, true)?);
        let key = kernel.key(crowd, "by-connection", member)?;
        api.change(&label(member, "connection".into()))?;
        kernel.until(&kernel.key(crowd, "by-label", member)?, false)?;
        let new = connection("by-connection", "by-connection", (LABEL, "connection"));
        api.create(&new)?;
        by_connection.push(kernel.until(&key, true)?);
        api.delete_all(vec![new])?;
        kernel.until(&key, false)?;
        api.change(&label(member, Value::Null))?;
    }
    Ok([("label", by_label), ("connection", by_connection)])
}

/// The grants in the kernel of the lab's node.
struct Kernel {
    grants: HashMap<MapData, GrantKey, Grant>,
    ledger: PathBuf,
}

impl Kernel {
    fn of(crowd: &Crowd) -> Result<Self> {
        let pin = crowd.on.lab.id.bpffs().join("node/maps").join(name::GRANTS);
        let grants = HashMap::try_from(Map::HashMap(MapData::from_pin(pin)?))?;
        Ok(Self { grants, ledger: crowd.on.lab.run_dir(Role::Agent).join("workloads.json") })
    }

    fn key(&self, crowd: &Crowd, destination: &str, member: Member) -> Result<GrantKey> {
        let resource = Resource::of(Kind::Postgres);
        let address = wait::until("the destination has an address", || {
            let object = crowd.on.api.get(&resource, PROJECT, destination).ok()??;
            object["status"]["addresses"][0].as_str()?.parse::<Ipv4Addr>().ok()
        })?;
        let ledger: Value = serde_json::from_slice(&fs::read(&self.ledger)?)?;
        let id = ledger["workloads"][crowd.uid(member)?]["id"].as_u64().context("the pod has a number")?;
        let (workload, port) = (u32::try_from(id)?, Port::new(objects::PORT));
        Ok(GrantKey { service: Addr::v4(address), workload, port, protocol: 6, pad: 0 })
    }

    /// Milliseconds from now until it is there, or is not.
    fn until(&self, key: &GrantKey, is_there: bool) -> Result<f64> {
        let start = Instant::now();
        while self.grants.get(key, 0).is_ok() != is_there {
            ensure!(start.elapsed() < LIMIT, "nothing happens to {key:?}");
            thread::sleep(Duration::from_micros(200));
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}
