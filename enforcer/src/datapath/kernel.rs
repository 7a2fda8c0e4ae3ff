//! The real maps and programs: loaded, adopted from their pins, attached, filled and read.
//!
//! Everything is pinned below one directory (`maps`, `progs`, `links`), so that it outlives the process: a restart
//! adopts the maps as they are and puts its own programs into the links that are there.

mod accounts;
mod attach;
mod events;
mod gateway;
mod node;
mod object;
mod orphans;
mod pins;
mod read;
mod sys;
mod table;
mod verifier;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use aya::Ebpf;
use enforcer_common::{
    config::TunnelSeen,
    flow::{Flow, FlowKey, FlowState},
    gateway::GwFlow,
    maps::name,
};

pub use self::{
    accounts::Accounts,
    attach::{AttachError, Attachment, Device, Holder, Hooks, Target, namespace_inode, remove_everything},
    events::Events,
    object::{Loan, ProgramCost, Unpinned, load_unpinned},
    orphans::Orphans,
    pins::{Shape, pins_of},
    read::{Counters, MapPressure, ProgramStatus},
    verifier::{Verified, VerifierError},
};
use super::{
    Datapath, DatapathError, Op, Tables,
    gateway::{GatewayDatapath, GwOp, GwTables},
    program::Role,
};

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Sizes other than those of `enforcer_common::maps::size`, by the map's name.
    pub sizes: BTreeMap<&'static str, u32>,
    /// Size of the flow table and what goes with it; `None`: `enforcer_common::maps::size::FLOWS`.
    pub flows: Option<u32>,
    /// Programs write a log (aya-log): one line a packet.
    pub log: bool,
    /// How programs come to devices; `None`: as this kernel does it best.
    pub hooks: Option<Hooks>,
}

impl Options {
    fn all_sizes(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let with_flows = [name::FLOWS, name::FLOW_RING, name::GW_FLOWS, name::GW_NAT];
        let flows = self.flows.into_iter().flat_map(move |flows| with_flows.map(|map| (map, flows)));
        self.sizes.iter().map(|(map, entries)| (*map, *entries)).chain(flows)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path}: cannot be made a BPF file system, which programs are pinned in; mount -t bpf bpf {path}, or run this with CAP_SYS_ADMIN"
    )]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "pinned maps in {path} have layout version {found}, this build reads version {expected}: stop the role and \
         remove {path} (its flows are reset), then start it again"
    )]
    Version { path: PathBuf, found: u64, expected: u64 },
    #[error(
        "pinned map {map} in {path} is a {found}, this build needs a {expected}: start the build that pinned it, or \
         stop the role and remove {path} (its flows are reset), then start it again"
    )]
    Layout { path: PathBuf, map: String, found: Shape, expected: Shape },
    #[error("the BPF object cannot be read")]
    Object(#[from] aya_obj::ParseError),
    #[error("the BPF object cannot be loaded")]
    Load(#[from] aya::EbpfError),
    #[error("the BPF object has no map {map}")]
    MissingMap { map: &'static str },
    #[error("the BPF object has no program {program} of the expected type")]
    MissingProgram { program: &'static str },
    #[error("map {map} cannot be opened")]
    Map {
        map: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("program {program} cannot be loaded")]
    Program {
        program: &'static str,
        #[source]
        source: aya::programs::ProgramError,
    },
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    #[error("{path} cannot be pinned")]
    Pin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("links cannot be adopted")]
    Adopt(#[source] Box<AttachError>),
}

/// What node and gateway have in common: programs, links, events and counters.
pub struct Kernel {
    pins: pins::Pins,
    links: attach::Shelf,
    filters: attach::Shelf,
    role: Role,
    hooks: Hooks,
    ebpf: Ebpf,
    readers: read::Readers,
}

/// A node's programs and maps.
pub struct KernelNode {
    kernel: Kernel,
    maps: node::NodeMaps,
}

impl KernelNode {
    /// Loads the programs, adopts or makes the maps, and puts the programs into links that are already there.
    pub fn open(bpffs: &Path, options: &Options) -> Result<Self, OpenError> {
        let mut kernel = Kernel::open(bpffs, Role::Node, options)?;
        let maps = node::NodeMaps::take(&mut kernel.ebpf)?;
        kernel.adopt_links().map_err(|error| OpenError::Adopt(Box::new(error)))?;
        Ok(Self { kernel, maps })
    }

    /// All flows, also those that are over and not yet reclaimed.
    pub fn flows(&self) -> Result<BTreeMap<FlowKey, Flow>, DatapathError> {
        self.maps.flows.dump()
    }

    pub fn flow(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        self.maps.flows.get(key)
    }

    /// Drops the flow counts of workloads that are gone: their ids never come back, and once the map is full no new
    /// workload gets a flow. What is left of their flows ends without being counted.
    pub fn forget_workloads(&mut self, keep: impl Fn(u32) -> bool) -> Result<(), DatapathError> {
        let counts = self.maps.flow_counts.dump()?;
        counts.keys().filter(|id| !keep(**id)).try_for_each(|id| self.maps.flow_counts.remove(id))
    }

    /// How full the maps are. Counts their keys one by one: for status, not for every second. `grants`: how many there
    /// are, where that is known; a quarter million keys take a quarter of a second.
    pub fn pressure(&self, grants: Option<usize>) -> Result<Vec<MapPressure>, DatapathError> {
        self.maps.pressure(grants)
    }

    /// When each tunnel slot was last heard.
    pub fn tunnels_seen(&self) -> Result<BTreeMap<u32, TunnelSeen>, DatapathError> {
        self.maps.seen.dump()
    }
}

impl Datapath for KernelNode {
    fn apply(&mut self, op: &Op) -> Result<(), DatapathError> {
        self.maps.apply(op)
    }

    fn dump(&self) -> Result<Tables, DatapathError> {
        self.maps.dump()
    }
}

/// A gateway's programs and maps.
pub struct KernelGateway {
    kernel: Kernel,
    maps: gateway::GatewayMaps,
}

impl KernelGateway {
    /// Loads the programs, adopts or makes the maps, and puts the programs into links that are already there.
    pub fn open(bpffs: &Path, options: &Options) -> Result<Self, OpenError> {
        let mut kernel = Kernel::open(bpffs, Role::Gateway, options)?;
        let maps = gateway::GatewayMaps::take(&mut kernel.ebpf)?;
        kernel.adopt_links().map_err(|error| OpenError::Adopt(Box::new(error)))?;
        Ok(Self { kernel, maps })
    }

    /// All flows, also those that are over and not yet reclaimed.
    pub fn flows(&self) -> Result<BTreeMap<FlowKey, GwFlow>, DatapathError> {
        self.maps.flows.dump()
    }

    pub fn flow(&self, key: &FlowKey) -> Result<Option<GwFlow>, DatapathError> {
        self.maps.flows.get(key)
    }

    /// Turns a flow *revoking*: from then on it passes resets only. Returns it as it was; `None`: it is gone.
    ///
    /// As in the kernel it counts as seen now (`now_ns` of `CLOCK_BOOTTIME`), or one that was idle would be over at once
    /// and have no resets.
    pub fn revoke_flow(&mut self, key: &FlowKey, now_ns: u64) -> Result<Option<GwFlow>, DatapathError> {
        let Some(flow) = self.flow(key)? else { return Ok(None) };
        if flow.state == FlowState::Revoking as u8 {
            return Ok(Some(flow));
        }
        let revoking = GwFlow { state: FlowState::Revoking as u8, seen_ns: now_ns.max(flow.seen_ns), ..flow };
        // The kernel may have ended it meanwhile: its port may be another flow's by now.
        Ok(self.maps.flows.replace(*key, revoking)?.then_some(flow))
    }

    /// How full the maps are, as [`KernelNode::pressure`].
    pub fn pressure(&self, grants: Option<usize>) -> Result<Vec<MapPressure>, DatapathError> {
        self.maps.pressure(grants)
    }
}

impl GatewayDatapath for KernelGateway {
    fn apply(&mut self, op: &GwOp) -> Result<(), DatapathError> {
        self.maps.apply(op)
    }

    fn dump(&self) -> Result<GwTables, DatapathError> {
        self.maps.dump()
    }
}

// Node and gateway are kernels with maps of their own: attaching, events and counters read the same on both.
impl std::ops::Deref for KernelNode {
    type Target = Kernel;
    fn deref(&self) -> &Kernel {
        &self.kernel
    }
}
impl std::ops::DerefMut for KernelNode {
    fn deref_mut(&mut self) -> &mut Kernel {
        &mut self.kernel
    }
}
impl std::ops::Deref for KernelGateway {
    type Target = Kernel;
    fn deref(&self) -> &Kernel {
        &self.kernel
    }
}
impl std::ops::DerefMut for KernelGateway {
    fn deref_mut(&mut self) -> &mut Kernel {
        &mut self.kernel
    }
}
