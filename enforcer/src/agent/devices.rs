//! The host's devices and what is attached to each: nothing leaves or enters the node unseen.
//!
//! Every device but `lo` is a wire until a pod is found behind it. A program of ours takes the place of another one in
//! the same link, so that a device in transition has the one or the other, never none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    datapath::{
        kernel::{AttachError, Device, KernelNode, Target},
        program::Program,
    },
    netlink::{DeviceEvent, Link},
};

/// New devices of one cycle.
const MOST_AT_ONCE: usize = 4;

/// What a device of the host is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Enforcer0,
    Pod,
    Wire,
    /// Without Ethernet headers.
    WireL3,
}

impl Part {
    /// One for each hook.
    const fn programs(self) -> [Program; 2] {
        match self {
            Self::Enforcer0 => [Program::FromHost, Program::ToWorkload],
            Self::Pod => [Program::FromPod, Program::ToPod],
            Self::Wire => [Program::ToWire, Program::FromWire],
            Self::WireL3 => [Program::ToWireL3, Program::FromWireL3],
        }
    }
}

/// A device that has its programs now, and had none of ours before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Guarded {
    pub name: String,
    pub ifindex: u32,
    /// Since the kernel said that it is there; `None`: it was there before somebody looked.
    pub after: Option<Duration>,
}

/// Devices of the host's namespace.
#[derive(Default)]
pub struct Devices {
    pub links: BTreeMap<u32, Link>,
    /// What is attached. Key: index.
    parts: BTreeMap<u32, Part>,
    /// Devices that a dead agent left as pods'; they stay so until the pods are known.
    adopted: BTreeSet<u32>,
    /// Devices that had a program when the agent began.
    kept: BTreeSet<u32>,
    /// When the kernel said that a device is there.
    appeared: BTreeMap<u32, Instant>,
    /// How long that was before it was guarded.
    windows: BTreeMap<u32, Duration>,
    /// Why a device is not guarded.
    problems: BTreeMap<u32, String>,
    /// A device went away: its pins have to be collected.
    litter: bool,
    /// Devices wait for their first program.
    behind: bool,
}

impl Devices {
    /// Takes over what is attached already.
    pub fn adopt(kernel: &KernelNode, host_netns: u64) -> Result<Self, AttachError> {
        let mut devices = Self::default();
        for attachment in kernel.attachments()? {
            if let Target::Device { netns, ifindex, .. } = attachment.target
                && netns == host_netns
            {
                devices.kept.insert(ifindex);
                if attachment.program == Program::FromPod {
                    devices.adopted.insert(ifindex);
                }
            }
        }
        Ok(devices)
    }

    /// Takes over a complete list; devices that are not on it are gone.
    pub fn replace(&mut self, links: Vec<Link>) {
        let links: BTreeMap<u32, Link> = links.into_iter().map(|link| (link.ifindex, link)).collect();
        let gone: Vec<u32> =
            self.links.keys().filter(|ifindex| !links.contains_key(ifindex)).copied().collect();
        for ifindex in gone {
            self.remove(ifindex);
        }
        self.links = links;
    }

    /// Takes one event over and returns the device's index if anything that matters is different.
    pub fn event(&mut self, event: DeviceEvent) -> Option<u32> {
        match event {
            DeviceEvent::Changed(link, when) => {
                let ifindex = link.ifindex;
                let before = self.links.insert(ifindex, link);
                if before.is_none() {
                    self.appeared.insert(ifindex, when);
                }
                (before.as_ref() != self.links.get(&ifindex)).then_some(ifindex)
            }
            DeviceEvent::Removed { ifindex, .. } => {
                self.remove(ifindex);
                Some(ifindex)
            }
        }
    }

    fn remove(&mut self, ifindex: u32) {
        self.litter = true;
        self.links.remove(&ifindex);
        self.parts.remove(&ifindex);
        self.problems.remove(&ifindex);
        self.adopted.remove(&ifindex);
        self.kept.remove(&ifindex);
        self.appeared.remove(&ifindex);
        self.windows.remove(&ifindex);
    }

    /// Attaches what is missing, replaces what is another, and returns what is guarded from now on. `pods` are the
    /// devices that pods were found behind. A device that is new costs two of the kernel's grace periods: of a crowd of
    /// them only some are done, so that nothing else waits, and [`Self::is_behind`] says that there are more. The first
    /// time all are done, before anything is granted.
    pub fn sync(
        &mut self,
        kernel: &mut KernelNode,
        enforcer0: u32,
        pods: &BTreeSet<u32>,
        settled: bool,
    ) -> Vec<Guarded> {
        if settled {
            self.adopted.clear();
        }
        let part = |link: &Link| match link.ifindex {
            ifindex if ifindex == enforcer0 => Part::Enforcer0,
            ifindex if pods.contains(&ifindex) || self.adopted.contains(&ifindex) => Part::Pod,
            _ if link.l3 => Part::WireL3,
            _ => Part::Wire,
        };
        let links = self.links.values().filter(|link| !link.loopback);
        let wanted = links.map(|link| (link, part(link)));
        let wanted = wanted.filter(|(link, part)| self.parts.get(&link.ifindex) != Some(part));
        let device = |link: &Link| Device { netns: None, name: link.name.clone(), ifindex: link.ifindex };
        let wanted = wanted.map(|(link, part)| (device(link), part));
        let (others, mut fresh): (Vec<_>, Vec<_>) =
            wanted.partition(|(device, _)| self.parts.contains_key(&device.ifindex));
        // Behind a pod's device somebody waits.
        fresh.sort_by_key(|(_, part)| *part != Part::Pod);
        let most = if self.parts.is_empty() { usize::MAX } else { MOST_AT_ONCE };
        self.behind = fresh.len() > most;
        let now = others.into_iter().chain(fresh.into_iter().take(most));
        let news = now.filter_map(|(device, part)| self.put(kernel, &device, part)).collect();
        if std::mem::take(&mut self.litter)
            && let Err(error) = kernel.collect_links()
        {
            tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "links are not collected");
            self.litter = true;
        }
        news
    }

    /// Devices wait for their first program.
    pub const fn is_behind(&self) -> bool {
        self.behind
    }

    /// Makes a device what it should be. Returns it where it had no program of ours before.
    fn put(&mut self, kernel: &mut KernelNode, device: &Device, part: Part) -> Option<Guarded> {
        let ifindex = device.ifindex;
        if let Err(error) = part.programs().into_iter().try_for_each(|program| kernel.attach(program, device))
        {
            let text = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(device = device.name, error = text, "device is not guarded");
            self.problems.insert(ifindex, text);
            return None;
        }
        tracing::debug!(device = device.name, ?part, "device is guarded");
        self.problems.remove(&ifindex);
        if self.parts.insert(ifindex, part).is_some() || self.kept.contains(&ifindex) {
            return None;
        }
        let after = self.appeared.get(&ifindex).map(Instant::elapsed);
        self.windows.extend(after.map(|after| (ifindex, after)));
        Some(Guarded { name: device.name.clone(), ifindex, after })
    }

    /// Devices that came while the agent was there: as what they are guarded, and after how many milliseconds.
    pub fn late(&self) -> Value {
        let line = |(ifindex, window): (&u32, &Duration)| {
            let link = self.links.get(ifindex)?;
            let part = format!("{:?}", self.parts.get(ifindex)?);
            // A tenth is what anybody reads.
            let millis = (window.as_secs_f64() * 1e4).round() / 10.0;
            Some(json!({ "device": link.name, "interface": ifindex, "as": part, "guardedAfterMs": millis }))
        };
        self.windows.iter().filter_map(line).collect()
    }

    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.problems.values().map(String::as_str)
    }
}
