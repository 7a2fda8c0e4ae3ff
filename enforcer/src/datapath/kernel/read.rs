//! Counters, statistics of grants, and what status says about programs and maps.

use std::{collections::BTreeMap, time::SystemTime};

use aya::maps::{MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf};
use enforcer_common::{
    grant::GrantStats,
    maps::{counter, name},
    verdict::DropReason,
};

use super::{Kernel, OpenError, object::program_info, table::io_error};
use crate::datapath::{DatapathError, program::Program};

/// Maps that only the kernel writes.
pub(super) struct Readers {
    counters: PerCpuArray<MapData, u64>,
    grant_stats: PerCpuHashMap<MapData, u32, GrantStats>,
    pub events: Option<RingBuf<MapData>>,
}

impl Readers {
    pub fn take(ebpf: &mut aya::Ebpf) -> Result<Self, OpenError> {
        let mut take = |map| ebpf.take_map(map).ok_or(OpenError::MissingMap { map });
        let failed = |map| move |error| OpenError::Map { map, source: io_error(error) };
        Ok(Self {
            counters: take(name::COUNTERS)?.try_into().map_err(failed(name::COUNTERS))?,
            grant_stats: take(name::GRANT_STATS)?.try_into().map_err(failed(name::GRANT_STATS))?,
            events: Some(take(name::EVENTS)?.try_into().map_err(failed(name::EVENTS))?),
        })
    }
}

/// What the programs have counted since their maps were made, all CPUs together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Reasons that have occurred.
    pub drops: BTreeMap<DropReason, u64>,
    /// Packets to guarded addresses that went into the tunnel.
    pub allowed: u64,
    /// Events that were not sent because their CPU had sent enough.
    pub events_limited: u64,
    /// Events that found the ring buffer full.
    pub events_lost: u64,
}

/// One loaded program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProgramStatus {
    pub program: Program,
    pub id: u32,
    pub loaded_at: Option<SystemTime>,
    /// Instructions that the verifier walked through.
    pub verified_instructions: Option<u32>,
    /// Bytes.
    pub translated_size: Option<u32>,
    /// Bytes.
    pub jited_size: u32,
    /// Where it is attached.
    pub attached: Vec<String>,
}

/// How full a map is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MapPressure {
    pub map: &'static str,
    pub entries: u32,
    pub capacity: u32,
}

impl Kernel {
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        let read = |index| {
            let values: PerCpuValues<u64> =
                self.readers.counters.get(&index, 0).map_err(|error| DatapathError::Map {
                    map: name::COUNTERS,
                    action: "read",
                    entry: index.to_string(),
                    source: io_error(error),
                })?;
            Ok(values.iter().sum::<u64>())
        };
        let mut drops = BTreeMap::new();
        for reason in DropReason::ALL {
            let count = read(*reason as u32)?;
            if count > 0 {
                drops.insert(*reason, count);
            }
        }
        Ok(Counters {
            drops,
            allowed: read(counter::ALLOWED)?,
            events_limited: read(counter::EVENTS_LIMITED)?,
            events_lost: read(counter::EVENTS_LOST)?,
        })
    }

    /// Drops the statistics of a grant that is no more; its last values have been read.
    pub fn forget_grant_stats(&mut self, id: u32) -> Result<(), DatapathError> {
        match self.readers.grant_stats.remove(&id).map_err(io_error) {
            Err(source) if source.raw_os_error() != Some(libc::ENOENT) => Err(DatapathError::Map {
                map: name::GRANT_STATS,
                action: "remove",
                entry: id.to_string(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// The loaded programs and where they are attached.
    pub fn programs(&self) -> Result<Vec<ProgramStatus>, super::AttachError> {
        let attachments = self.attachments()?;
        let own = Program::ALL.iter().copied().filter(|program| program.role() == self.role);
        own.map(|program| {
            let attached = attachments.iter().filter(|attachment| attachment.program == program);
            let info = program_info(&self.ebpf, program)?;
            Ok(ProgramStatus {
                program,
                id: info.id(),
                loaded_at: info.loaded_at(),
                verified_instructions: info.verified_instruction_count(),
                translated_size: info.size_translated(),
                jited_size: info.size_jitted(),
                attached: attached.map(|attachment| attachment.target.to_string()).collect(),
            })
        })
        .collect()
    }
}
