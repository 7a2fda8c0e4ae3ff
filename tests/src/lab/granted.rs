//! When the grants of pods open in the node's kernel.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use enforcer_common::{
    Port,
    grant::{Grant, GrantKey},
    maps::name,
};
use serde_json::Value;

use super::{Lab, Role};

/// Between two looks at those that are missing.
const PAUSE: Duration = Duration::from_millis(2);
/// Ids are given one after another: after so many that are not there no other is.
const GAP: u32 = 64;

/// Watches from a thread of its own.
pub struct Granted {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<u32, Instant>>,
}

impl Granted {
    /// Watches for the TCP grants of pods to a service.
    pub fn watch(lab: &Lab, service: SocketAddr) -> Result<Self> {
        let pin = lab.id.bpffs().join("node/maps").join(name::GRANTS);
        let map = MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
        let map = HashMap::<_, GrantKey, Grant>::try_from(Map::HashMap(map))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let key = move |workload| GrantKey {
            service: service.ip().into(),
            workload,
            port: Port::new(service.port()),
            protocol: 6,
            pad: 0,
        };
        let is_open = move |workload| map.get(&key(workload), 0).is_ok_and(|grant| grant.gateways != 0);
        let thread = thread::spawn(move || {
            let mut open = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                let end = open.last_key_value().map_or(0, |(id, _)| *id) + GAP;
                let missing: Vec<u32> = (0..end).filter(|id| !open.contains_key(id)).collect();
                open.extend(missing.into_iter().filter(|id| is_open(*id)).map(|id| (id, Instant::now())));
                thread::sleep(PAUSE);
            }
            open
        });
        Ok(Self { stop, thread })
    }

    /// When each pod's grant was seen open first. Key: uid.
    pub fn finish(self, lab: &Lab) -> Result<BTreeMap<String, Instant>> {
        self.stop.store(true, Ordering::Relaxed);
        let open = self.thread.join().expect("the watcher does not panic");
        let ledger = fs::read(lab.run_dir(Role::Agent).join("workloads.json"))?;
        let ledger: Value = serde_json::from_slice(&ledger)?;
        let workloads = ledger["workloads"].as_object().context("the ledger has no workloads")?;
        let when = |(uid, entry): (&String, &Value)| {
            let id = u32::try_from(entry["id"].as_u64()?).ok()?;
            Some((uid.clone(), *open.get(&id)?))
        };
        Ok(workloads.iter().filter_map(when).collect())
    }
}
