//! `tunnel_mbps`, `tunnel_rr_us`, `connect_us`: the way through the tunnel beside the same tunnel without us, and beside
//! wireguard-go.
//!
//! Three labs that are alike: enforcer's roles in one; a plain user-space tunnel with routes in the others. Each pod
//! reaches the same kind of server behind the gateway.

use std::{
    fs,
    net::SocketAddr,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    Scope,
    figure::{Bound, Figure},
    traffic,
};
use crate::lab::{
    Lab, Pod, Running,
    command::{finish, inside, run},
    manifests::{GRANTED, PROJECT, Service},
    network::{BACKEND_SIDE4, GATEWAY4, NODE4, SERVER4, TUNNEL_PORT, ip, sysctl},
    roles::enforcer,
    wait,
};

pub const SERVICE: Service = Service::Postgres;
const MTU: u16 = 1420;

/// What carries the traffic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Carrier {
    Enforcer,
    /// The same tunnel process, plain routes.
    Bare,
    WireguardGo,
}

impl Carrier {
    const ALL: [Self; 3] = [Self::Enforcer, Self::Bare, Self::WireguardGo];

    const fn name(self) -> &'static str {
        match self {
            Self::Enforcer => "enforcer",
            Self::Bare => "bare",
            Self::WireguardGo => "wireguard-go",
        }
    }
}

/// A lab with a way from its pod to its server.
pub struct Way {
    pub lab: Lab,
    pub to: SocketAddr,
    /// When connections that the server held were reset.
    pub resets: mpsc::Receiver<Instant>,
}

pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let ways: Vec<Way> = Carrier::ALL.into_iter().map(way).collect::<Result<_>>()?;
    let time = Duration::from_millis(if scope.quick { 100 } else { 400 });
    let mut samples = vec![[const { Vec::new() }; 3]; ways.len()];
    for round in 0..scope.rounds(24) {
        for turn in 0..ways.len() {
            // Another one is first in each round.
            let at = (round + turn) % ways.len();
            let (pod, to) = (ways[at].lab.id.netns("cart"), ways[at].to);
            samples[at][0].push(traffic::stream_mbps(&pod, to, time)?);
            samples[at][1].push(traffic::round_trip_us(&pod, to, time / 2)?);
            samples[at][2].push(traffic::connection_us(&pod, to, 50)?);
        }
    }
    let metrics = [("tunnel_mbps", "Mbit/s", 1.0), ("tunnel_rr_us", "us", -1.0), ("connect_us", "us", -1.0)];
    let mut figures = Vec::new();
    for (index, (metric, unit, direction)) in metrics.into_iter().enumerate() {
        for (carrier, samples) in Carrier::ALL.into_iter().zip(&samples) {
            figures
                .push(Figure::median(metric, samples[index].clone(), unit).label("tunnel", carrier.name()));
        }
        for (carrier, other) in Carrier::ALL.into_iter().zip(&samples).skip(1) {
            // More is better in every ratio.
            let pairs = samples[0][index].iter().zip(&other[index]);
            let ratios = pairs.map(|(own, other): (&f64, &f64)| (own / other).powf(direction)).collect();
            let figure = Figure::median(metric, ratios, "ratio").label("enforcer_vs", carrier.name());
            let held = carrier == Carrier::Bare && metric != "connect_us";
            figures.push(if held { figure.reference(Bound::AtLeast(0.95)) } else { figure });
        }
    }
    Ok(figures)
}

fn way(carrier: Carrier) -> Result<Way> {
    let way = if carrier == Carrier::Enforcer { guarded()? } else { plain(carrier)? };
    let pod = way.lab.id.netns("cart");
    wait::for_true("the tunnel carries traffic", || {
        traffic::round_trip_us(&pod, way.to, Duration::from_millis(1)).is_ok()
    })?;
    Ok(way)
}

fn granted_pod() -> Pod {
    Pod::new(PROJECT, "cart", &[GRANTED])
}

/// enforcer's roles, and one connection.
pub fn guarded() -> Result<Way> {
    let mut lab = Lab::new(&[granted_pod()])?;
    let resets = traffic::serve(&lab.id.netns("svc"), SERVICE.port())?;
    lab.save_objects()?;
    lab.save_tunnel_ends("")?;
    for service in Service::ALL {
        lab.grant(service)?;
    }
    lab.start_roles()?;
    lab.wait_ready()?;
    let to = SocketAddr::new(service_address(&lab, SERVICE)?, SERVICE.port());
    Ok(Way { lab, to, resets })
}

/// The IPv4 address that the controller gave to a service.
pub fn service_address(lab: &Lab, service: Service) -> Result<std::net::IpAddr> {
    let state: serde_json::Value = serde_json::from_slice(&fs::read(lab.state_file())?)?;
    let key = format!("{}/{PROJECT}/{}", service.kind(), service.name());
    let address = state["services"][&key]["v4"].as_str().with_context(|| format!("no address of {key}"))?;
    Ok(address.parse()?)
}

/// A tunnel from node to gateway that everything to the servers is routed into.
fn plain(carrier: Carrier) -> Result<Way> {
    let mut lab = Lab::new(&[granted_pod()])?;
    let resets = traffic::serve(&lab.id.netns("svc"), SERVICE.port())?;
    let keys = [wg_key(&lab, "node")?, wg_key(&lab, "gw")?];
    let ends = [("node", "n", NODE4, GATEWAY4), ("gw", "g", GATEWAY4, NODE4)];
    for (index, (part, letter, _, far)) in ends.into_iter().enumerate() {
        let device = format!("ef-{}{letter}", lab.id.id);
        let netns = lab.id.netns(part);
        ip(&netns, &format!("tuntap add mode tun name {device}\nlink set {device} mtu {MTU} up"))?;
        let process = start_tunnel(&lab, carrier, part, &device)?;
        lab.processes.insert(format!("tunnel-{part}"), process);
        wait::for_true("the tunnel takes its keys", || {
            run("wg", &wg_set(&device, &keys[index].0, &keys[1 - index].1, far)).is_ok()
        })?;
        let to = if part == "node" { "203.0.113.0/24" } else { "10.244.0.0/16" };
        ip(&netns, &format!("route add {to} dev {device} mtu {MTU}"))?;
    }
    sysctl(&lab.id.netns("gw"), &["net.ipv4.ip_forward=1"])?;
    ip(&lab.id.netns("svc"), &format!("route add 10.244.0.0/16 via {BACKEND_SIDE4}"))?;
    let to = SocketAddr::new(SERVER4.parse()?, SERVICE.port());
    Ok(Way { lab, to, resets })
}

fn start_tunnel(lab: &Lab, carrier: Carrier, part: &str, device: &str) -> Result<Running> {
    let log = lab.id.log(&format!("tunnel-{part}"));
    let elsewhere = lab.elsewhere(part);
    if carrier == Carrier::WireguardGo {
        let own = std::env::current_exe()?;
        return elsewhere.start_plain(&own.to_string_lossy(), &["stock-tunnel", device], &log);
    }
    let run_dir = lab.id.dir.join("run").join(part);
    fs::create_dir_all(run_dir.join("tunnels"))?;
    let description = serde_json::json!({ "device": device, "mtu": MTU });
    fs::write(run_dir.join("tunnels").join(format!("{device}.json")), description.to_string())?;
    let args = ["tunnel", "--run-dir", &run_dir.to_string_lossy()];
    let mut command = inside(&elsewhere.netns, &elsewhere.cgroup, &enforcer()?.to_string_lossy());
    Running::start(command.args(args), &log)
}

/// File of a private key, and the public one.
fn wg_key(lab: &Lab, name: &str) -> Result<(String, String)> {
    let path = lab.id.dir.join(format!("{name}.wg")).to_string_lossy().into_owned();
    fs::write(&path, run::<&str>("wg", &["genkey"])?)?;
    let public = finish(std::process::Command::new("sh").args(["-c", "wg pubkey <\"$1\"", "sh", &path]))?;
    Ok((path, public.trim().to_owned()))
}

fn wg_set(device: &str, private_key: &str, peer: &str, far: &str) -> Vec<String> {
    let line = format!(
        "set {device} private-key {private_key} listen-port {TUNNEL_PORT} peer {peer} endpoint {far}:{TUNNEL_PORT} \
         persistent-keepalive 2 allowed-ips 0.0.0.0/0"
    );
    line.split_whitespace().map(str::to_owned).collect()
}
