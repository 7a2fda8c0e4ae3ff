//! The real thing: objects compiled, planned and applied to the maps, packets given to the pinned programs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use enforcer::{
    compile::{self, Compiled, Input, Ledger, Location, Pair, TunnelDevice, TunnelEnd},
    datapath::{
        Datapath as _, Tables,
        kernel::{KernelNode, Options},
    },
    model::{Kind, LabelSelector, ObjectKey, Protocol, SourceMode},
    reconcile,
    resolve::{Connection, Destination, DestinationPort, Gateway, Resolved},
};
use enforcer_common::{
    Addr, Port,
    config::{Tunnel, TunnelSeen},
    flow::{Flow, FlowKey},
    grant::DestinationKey,
    maps::{counter, name},
    verdict::{DropReason, Verdict},
};
use enforcer_tests::{
    packet::{TCP, UDP},
    prog::kernel::{DROP, NEXT, REDIRECT, boot_ns},
};

use crate::{
    model::Program,
    scene::{self, Probe, Scene, Validity},
};

const SLOT: u32 = 0;
const HOUR: u64 = 3_600_000_000_000;

pub struct Node {
    datapath: KernelNode,
    programs: BTreeMap<Program, SchedClassifier>,
    counters: PerCpuArray<MapData, u64>,
    seen: Array<MapData, TunnelSeen>,
    flows: HashMap<MapData, FlowKey, Flow>,
    counts: HashMap<MapData, u32, u32>,
    answering: bool,
    path: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Node {
    pub fn open() -> Self {
        let path = Path::new("/run").join(format!("ef-differential-{}", std::process::id()));
        let sizes =
            BTreeMap::from([(name::GRANTS, 4096), (name::GRANT_STATS, 4096), (name::DESTINATIONS, 1024)]);
        let node =
            KernelNode::open(&path, &Options { sizes, flows: Some(4096), ..Options::default() }).unwrap();
        let program = |name: &str| SchedClassifier::from_pin(path.join("progs").join(name)).unwrap();
        let map = |name: &str| MapData::from_pin(path.join("maps").join(name)).unwrap();
        let programs = [Program::FromPod, Program::ToWire, Program::FromWire].into_iter();
        Self {
            programs: programs.zip(["from_pod", "to_wire", "from_wire"].map(program)).collect(),
            counters: PerCpuArray::try_from(Map::PerCpuArray(map(name::COUNTERS))).unwrap(),
            seen: Array::try_from(Map::Array(map(name::TUNNEL_SEEN))).unwrap(),
            flows: HashMap::try_from(Map::HashMap(map(name::FLOWS))).unwrap(),
            counts: HashMap::try_from(Map::HashMap(map(name::FLOW_COUNTS))).unwrap(),
            answering: true,
            datapath: node,
            path,
        }
    }

    /// Brings the maps from whatever they hold to what these objects say, as the agent does.
    pub fn enter(&mut self, scene: &Scene) {
        let have = self.datapath.dump().unwrap();
        let want = compiled(scene);
        let ops = reconcile::plan(&have, &want);
        for op in &ops {
            self.datapath.apply(op).unwrap();
        }
        assert_eq!(self.datapath.dump().unwrap(), want, "the maps hold what was compiled");
        // A flow of the scene before is revoked in this one, which the model does not know of.
        let flows: Vec<_> = self.flows.keys().map(Result::unwrap).collect();
        for key in &flows {
            self.flows.remove(key).unwrap();
        }
        let owners: Vec<_> = self.counts.keys().map(Result::unwrap).collect();
        for key in &owners {
            self.counts.remove(key).unwrap();
        }
        self.answering = scene.answering;
        self.hear();
    }

    /// Keeps the tunnel as it is meant to be: a silent one has no probe left.
    fn hear(&mut self) {
        let now = boot_ns();
        let seen = if self.answering {
            TunnelSeen { seen_ns: now, probe_ns: now }
        } else {
            TunnelSeen { seen_ns: now.saturating_sub(HOUR), probe_ns: now + HOUR }
        };
        self.seen.set(SLOT, seen, 0).unwrap();
    }

    fn count(&self, index: u32) -> u64 {
        self.counters.get(&index, 0).unwrap().iter().sum()
    }

    /// Whether a program judges as wanted; else what it did.
    pub fn run(&mut self, program: Program, probe: &Probe, wanted: Verdict) -> Result<(), String> {
        let witness = match wanted {
            Verdict::Pass => None,
            Verdict::Allow => Some(counter::ALLOWED),
            Verdict::Deny(reason) => Some(reason as u32),
        };
        if program == Program::FromPod {
            self.hear();
        }
        let before = witness.map(|index| self.count(index));
        let mut out = vec![0; probe.frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(&probe.frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let result = self.programs[&program].test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        let action = result.return_value.cast_signed();
        let counted = witness.map(|index| self.count(index)) == before.map(|before| before + 1);
        let untouched = out == probe.frame;
        let right = match wanted {
            Verdict::Pass => action == NEXT && untouched,
            Verdict::Allow => action == REDIRECT && untouched,
            Verdict::Deny(_) if action == DROP => untouched,
            Verdict::Deny(reason) => action == REDIRECT && answers(program, probe, reason),
        };
        if counted && right { Ok(()) } else { Err(format!("returned {action}, as wanted: {counted}")) }
    }
}

/// Whether a refusal has an answer, which is redirected to the pod.
fn answers(program: Program, probe: &Probe, reason: DropReason) -> bool {
    let ungranted = matches!(
        reason,
        DropReason::NoDestination | DropReason::PortNotOffered | DropReason::NoGrant | DropReason::Expired
    );
    let carried = [TCP, UDP].contains(&probe.protocol);
    program == Program::FromPod
        && (reason == DropReason::TunnelDown && carried || ungranted && probe.is_mid_flow())
}

fn compiled(scene: &Scene) -> Tables {
    let resolved = Arc::new(resolved(scene));
    let pods = scene.pods.iter().map(|pod| (uid(pod), Arc::new(compile_pod(pod)))).collect();
    let acknowledged = scene.pods.iter().map(|pod| {
        let mine = scene.destinations.iter().filter(|it| pod.acknowledged.contains(&it.number));
        let keys = mine.flat_map(|destination| {
            let ports = destination.ports.clone();
            destination.addresses().into_iter().flat_map(move |address| {
                ports.clone().into_iter().map(move |(protocol, port)| DestinationKey {
                    service: Addr::from(address),
                    port: Port::new(port),
                    protocol,
                    pad: [0; 5],
                })
            })
        });
        (uid(pod), BTreeMap::from([(SLOT, Arc::new(keys.collect()))]))
    });
    let device = TunnelDevice {
        tunnel: Tunnel {
            gateway4: ip("198.19.255.1").into(),
            gateway6: ip("fd00:1:2:1fff::1").into(),
            ifindex: 1,
            mtu: 1420,
        },
        endpoints: Vec::new(),
        local_port: 4000,
    };
    let tunnels = BTreeMap::from([("eu-1".to_owned(), TunnelEnd { slot: SLOT, device: Some(device) })]);
    let input = Input {
        resolved: &resolved,
        cluster: "c1",
        node: &node(),
        pair: Pair { enforcer0: 1, tunnel0: 1 },
        flow_quota: 4096,
        pods: &pods,
        tunnels: &tunnels,
        acknowledged: &acknowledged.collect(),
        boot_unix_ns: 0,
    };
    compile::compile(&input, &mut Ledger::default(), &Compiled::default()).tables()
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn uid(pod: &scene::Pod) -> String {
    format!("uid-{}", pod.number)
}

fn node() -> enforcer::resolve::Node {
    enforcer::resolve::Node {
        name: "n1".to_owned(),
        number: 1,
        v4: "198.19.0.1".parse().unwrap(),
        v6: "fd00:1:2:1000::1".parse().unwrap(),
        blocks: vec!["198.19.0.0/26".parse().unwrap()],
        subnet: "fd00:1:2:1000::/64".parse().unwrap(),
        public_key: [0; 32],
        cluster: "c1".to_owned(),
    }
}

fn compile_pod(pod: &scene::Pod) -> compile::Pod {
    let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    compile::Pod {
        uid: uid(pod),
        namespace: pod.namespace.to_owned(),
        name: format!("pod-{}", pod.number),
        labels: label("app", pod.app),
        namespace_labels: label("env", pod.env),
        location: Location::Netns {
            cookie: 1000 + u64::from(pod.number),
            ifindex: pod.ifindex,
            addresses: pod.addresses(),
            not_guardable: (!pod.guardable).then(|| "macvlan".to_owned()),
        },
    }
}

fn key_of(destination: u8) -> ObjectKey {
    ObjectKey::new(Kind::Postgres, "shop", format!("pg-{destination}"))
}

fn ports(ports: &[(u8, u16)]) -> Vec<DestinationPort> {
    let protocol = |number| if number == TCP { Protocol::Tcp } else { Protocol::Udp };
    let port = |(number, port): &(u8, u16)| DestinationPort {
        protocol: protocol(*number),
        port: *port,
        target_port: *port,
    };
    ports.iter().map(port).collect()
}

fn selector(key: &str, value: Option<&str>) -> LabelSelector {
    let labels = value.map(|value| (key.to_owned(), value.to_owned()));
    LabelSelector { match_labels: labels.into_iter().collect(), match_expressions: Vec::new() }
}

fn resolved(scene: &Scene) -> Resolved {
    let destinations = scene.destinations.iter().map(|it| {
        let [v4, v6] = scene::service_addresses(it.number);
        let (std::net::IpAddr::V4(v4), std::net::IpAddr::V6(v6)) = (v4, v6) else { unreachable!() };
        let destination = Destination {
            key: key_of(it.number),
            number: it.number.into(),
            v4: it.families.0.then_some(v4),
            v6: it.families.1.then_some(v6),
            ports: ports(&it.ports),
            gateways: vec!["eu-1".to_owned()],
            endpoints: vec![ip("192.0.2.10"), ip("2001:db8::10")],
            fqdn: format!("postgres-pg-{}.shop.svc.cluster.local", it.number),
        };
        (key_of(it.number), Arc::new(destination))
    });
    let connections = scene.connections.iter().map(|it| Connection {
        created_unix_ns: u64::MAX,
        key: ObjectKey::new(Kind::ServiceConnection, "shop", format!("sc-{}", it.number)),
        destination: key_of(it.destination),
        cluster: Some("c1".to_owned()),
        pod_selector: selector("app", it.app),
        namespace_selector: it.env.map(|env| selector("env", Some(env))),
        only_namespace: it.only_namespace.map(str::to_owned),
        ports: ports(&it.ports),
        valid_until_unix_ns: match it.validity {
            Validity::Forever => None,
            Validity::Over => Some(boot_ns() - 1),
            Validity::Later => Some(boot_ns() + 24 * HOUR),
        },
    });
    let gateway = Gateway {
        name: "eu-1".to_owned(),
        number: 1,
        v4: "198.19.255.1".parse().unwrap(),
        v6: "fd00:1:2:1fff::1".parse().unwrap(),
        public_key: [0; 32],
        endpoints: vec!["203.0.113.1:51820".parse().unwrap()],
        mtu: 1420,
        source_mode: SourceMode::Masquerade,
        allowed_backends: Vec::new(),
    };
    Resolved {
        destinations: destinations.collect(),
        connections: connections.map(Arc::new).collect(),
        gateways: BTreeMap::from([("eu-1".to_owned(), gateway)]),
        service_ranges: vec!["198.18.0.0/16".parse().unwrap(), "fd00:1:2:2::/64".parse().unwrap()],
        workload_ranges: vec!["198.19.0.0/16".parse().unwrap(), "fd00:1:2::/48".parse().unwrap()],
        listed_ranges: vec!["10.99.0.0/24".parse().unwrap(), "fd00:9:9::/48".parse().unwrap()],
        ..Resolved::default()
    }
}
