//! `grant_to_kernel_ms`, `agent_rss_mib`, `kernel_map_mib`: a full node, every pod of which every connection selects.
//!
//! From the rename of a file to the last entry in `GRANTS`, with real roles and a gateway that has acknowledged all.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, Map, MapData};
use enforcer_common::{
    Addr, Port,
    grant::{Grant, GrantKey},
    maps::name,
};
use serde_json::Value;

use super::{
    Scope,
    figure::{Bound, Figure},
    objects, traffic,
};
use crate::lab::{
    Lab, Role,
    crowd::Member,
    manifests::{GRANTED, PROJECT},
    network::SERVER4,
};

const LIMIT: Duration = Duration::from_mins(5);

pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let (pods, connections) = if scope.quick { (5, 10) } else { (250, 1_000) };
    let node = FullNode::start(pods, connections)?;
    let mut figures = node.sizes()?;
    let live = pods * connections;
    for (destination, label, touched, rounds) in
        [("one", ("member", "p0"), 1, scope.rounds(100)), ("every", GRANTED, pods, scope.rounds(20))]
    {
        let mut times: [Vec<f64>; 2] = Default::default();
        for _ in 0..rounds {
            let [kernel, alive] = node.grant(destination, label, touched)?;
            times[0].push(kernel);
            times[1].push(alive);
        }
        for (quantile, until) in [(0.5, "kernel"), (0.99, "kernel"), (0.5, "live"), (0.99, "live")] {
            let samples = times[usize::from(until == "live")].clone();
            let figure = Figure::quantile("grant_to_kernel_ms", samples, quantile, "ms");
            let figure = figure.label("until", until).label("grants", touched).label("live", live);
            let held = touched == 1 && until == "kernel" && quantile > 0.9;
            figures.push(if held { figure.reference(Bound::AtMost(50.0)) } else { figure });
        }
    }
    Ok(figures)
}

struct FullNode {
    lab: Lab,
    pods: usize,
    connections: usize,
}

impl FullNode {
    fn start(pods: usize, connections: usize) -> Result<Self> {
        let mut lab = Lab::new(&[])?;
        let _resets = traffic::serve(&lab.id.netns("svc"), objects::PORT)?;
        lab.add_crowd(members(pods))?;
        let gateway = lab.id.gateway();
        lab.save_objects()?;
        lab.save_tunnel_ends("")?;
        let more = ["one", "every"].map(|name| objects::destination(name, &gateway, SERVER4)).concat();
        lab.save("destinations.yaml", &(objects::destinations(connections, &gateway, SERVER4) + &more))?;
        lab.save("connections.yaml", &objects::connections(connections))?;
        members(pods).try_for_each(|member| lab.save_member(member))?;
        lab.start_roles()?;
        let node = Self { lab, pods, connections };
        node.wait_live()?;
        // What the way there took is given back when the agent looks after its maps, every 15 seconds.
        thread::sleep(if pods > 100 { Duration::from_secs(20) } else { Duration::ZERO });
        Ok(node)
    }

    /// Waits until the kernel has every grant, and the gateway has acknowledged it.
    fn wait_live(&self) -> Result<()> {
        let (start, wanted) = (Instant::now(), self.pods * self.connections);
        loop {
            let status = self.lab.status(Role::Agent).unwrap_or(Value::Null);
            let pods = status["pods"].as_array().cloned().unwrap_or_default();
            let live: u64 = pods.iter().filter_map(|pod| pod["live"].as_u64()).sum();
            if live == wanted as u64 {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                bail!("{live} of {wanted} grants are live after {} s", LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn sizes(&self) -> Result<Vec<Figure>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.lab.process(Role::Agent).pid()))?;
        let mib = |field: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kib: f64 =
                line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).context("a size")?;
            Ok(kib / 1024.0)
        };
        let with_size =
            |figure: Figure| figure.label("pods", self.pods).label("connections", self.connections);
        Ok(vec![
            with_size(Figure::single("agent_rss_mib", mib("VmRSS")?, "MiB")).reference(Bound::AtMost(60.0)),
            with_size(Figure::single("agent_rss_mib", mib("VmHWM")?, "MiB")).label("of", "peak"),
            with_size(Figure::single("kernel_map_mib", self.maps_mib()?, "MiB")),
        ])
    }

    /// What the kernel charges for the node's maps.
    fn maps_mib(&self) -> Result<f64> {
        let mut bytes = 0.0;
        for entry in fs::read_dir(self.lab.id.bpffs().join("node/maps"))? {
            let map = MapData::from_pin(entry?.path())?;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(map.fd()));
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
            let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
            bytes += line.and_then(|line| line.trim().parse::<f64>().ok()).context("no memlock of a map")?;
        }
        Ok(bytes / f64::from(1 << 20))
    }

    /// Milliseconds from the rename of a connection until the kernel has its grants, and until they are live. The
    /// connection is taken back afterwards.
    fn grant(&self, destination: &str, label: (&str, &str), touched: usize) -> Result<[f64; 2]> {
        let pin = self.lab.id.bpffs().join("node/maps").join(name::GRANTS);
        let map = HashMap::<_, GrantKey, Grant>::try_from(Map::HashMap(MapData::from_pin(pin)?))?;
        let keys = self.keys(destination, touched)?;
        let file = format!("connection-{destination}.yaml");
        let yaml = objects::connection(destination, label);
        let start = Instant::now();
        self.lab.save(&file, &yaml)?;
        let until = |done: &dyn Fn(Option<Grant>) -> bool| -> Result<f64> {
            for key in &keys {
                while !done(map.get(key, 0).ok()) {
                    anyhow::ensure!(start.elapsed() < LIMIT, "nothing happens to {key:?}");
                    thread::sleep(Duration::from_micros(200));
                }
            }
            Ok(start.elapsed().as_secs_f64() * 1e3)
        };
        let kernel = until(&|grant| grant.is_some())?;
        let live = until(&|grant| grant.is_some_and(|grant| grant.gateways != 0))?;
        self.lab.delete(&file)?;
        until(&|grant| grant.is_none())?;
        Ok([kernel, live])
    }

    /// Keys of the grants of a destination, for so many pods.
    fn keys(&self, destination: &str, touched: usize) -> Result<Vec<GrantKey>> {
        let read =
            |path: &std::path::Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
        let state = read(&self.lab.state_file())?;
        let service = state["services"][format!("Postgres/{PROJECT}/{destination}")]["v4"].as_str();
        let service: std::net::Ipv4Addr = service.context("the destination has an address")?.parse()?;
        let ledger = read(&self.lab.run_dir(Role::Agent).join("workloads.json"))?;
        let key = |member: Member| {
            let id = ledger["workloads"][member.uid()]["id"].as_u64().context("the pod has a number")?;
            let (workload, port) = (u32::try_from(id)?, Port::new(objects::PORT));
            Ok(GrantKey { service: Addr::v4(service), workload, port, protocol: 6, pad: 0 })
        };
        members(touched).map(key).collect()
    }
}

fn members(count: usize) -> impl Iterator<Item = Member> + Clone {
    (0..count as u16).map(Member)
}
