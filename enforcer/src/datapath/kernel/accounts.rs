//! What grants have carried, read through handles of its own: a table full of flows holds nothing else up.

use std::collections::BTreeMap;

use aya::maps::{Map, MapData, PerCpuHashMap, PerCpuValues};
use enforcer_common::{
    flow::{Flow, FlowKey},
    grant::GrantStats,
    maps::name,
};

use super::{
    KernelNode, OpenError,
    table::{Hash, collect, io_error},
};
use crate::datapath::DatapathError;

/// The node's flows and what ended ones have left behind.
pub struct Accounts {
    flows: Hash<FlowKey, Flow>,
    ended: PerCpuHashMap<MapData, u32, GrantStats>,
}

impl KernelNode {
    /// Handles that live and are used apart from this value.
    pub fn accounts(&self) -> Result<Accounts, OpenError> {
        let maps = self.kernel.pins.maps();
        let failed = |error| OpenError::Map { map: name::GRANT_STATS, source: io_error(error) };
        let ended = MapData::from_pin(maps.join(name::GRANT_STATS)).map_err(failed)?;
        Ok(Accounts {
            flows: Hash::open(&maps.join(name::FLOWS), name::FLOWS)?,
            ended: Map::PerCpuHashMap(ended).try_into().map_err(failed)?,
        })
    }
}

impl Accounts {
    /// By the grant's id, every grant that ever had a flow.
    ///
    /// A flow that ends while this reads may be missing in it once, and is never counted twice.
    pub fn read(&self) -> Result<BTreeMap<u32, GrantStats>, DatapathError> {
        let capacity = enforcer_common::maps::size::GRANT_STATS;
        let ended = self.ended.iter().map(|entry| entry.map(|(id, values)| (id, sum(&values))));
        let mut accounts = collect(capacity, ended).map_err(|error| DatapathError::Map {
            map: name::GRANT_STATS,
            action: "read",
            entry: "its entries".to_owned(),
            source: io_error(error),
        })?;
        for flow in self.flows.values() {
            let flow = flow?;
            if let Some(account) = accounts.get_mut(&flow.grant) {
                account.add_flow(&flow);
            }
        }
        Ok(accounts)
    }
}

fn sum(values: &PerCpuValues<GrantStats>) -> GrantStats {
    let mut total = GrantStats::default();
    for value in values.iter() {
        total.add(value);
    }
    total
}
