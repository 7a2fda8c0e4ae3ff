//! What every connection has carried on this node, from the kernel's statistics of single grants.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::grant::GrantStats;
use serde_json::{Value, json};

use crate::compile::Compiled;

/// Sums by the connection's number; connections that carried nothing are not there.
pub fn by_connection(compiled: &Compiled, grants: &BTreeMap<u32, GrantStats>) -> BTreeMap<u32, GrantStats> {
    let mut sums: BTreeMap<u32, GrantStats> = BTreeMap::new();
    for grant in compiled.pods.values().flat_map(|pod| pod.grants.values()) {
        let Some(stats) = grants.get(&grant.id) else { continue };
        let sum = sums.entry(grant.connection).or_default();
        sum.packets_out += stats.packets_out;
        sum.bytes_out += stats.bytes_out;
        sum.packets_in += stats.packets_in;
        sum.bytes_in += stats.bytes_in;
        sum.flows += stats.flows;
        sum.last_ns = sum.last_ns.max(stats.last_ns);
    }
    sums
}

/// Grants with statistics that are grants no more: their ids never come back, and the map has an end.
pub fn leftovers(compiled: &Compiled, grants: &BTreeMap<u32, GrantStats>) -> BTreeSet<u32> {
    let live: BTreeSet<u32> =
        compiled.pods.values().flat_map(|pod| pod.grants.values()).map(|grant| grant.id).collect();
    grants.keys().filter(|id| !live.contains(id)).copied().collect()
}

/// As `status` shows it.
pub fn value(stats: &GrantStats) -> Value {
    json!({
        "flows": stats.flows,
        "packetsOut": stats.packets_out,
        "bytesOut": stats.bytes_out,
        "packetsIn": stats.packets_in,
        "bytesIn": stats.bytes_in,
    })
}

#[cfg(test)]
mod tests {
    use enforcer_common::{
        Addr, Port,
        grant::{FOREVER, Grant, GrantKey},
    };

    use super::*;
    use crate::datapath::Tables;

    #[test]
    fn statistics_outlive_no_grant() {
        let key = GrantKey { service: Addr::NONE, workload: 1, port: Port::new(1), protocol: 6, pad: 0 };
        let grant = Grant { valid_until_ns: FOREVER, gateways: 1, id: 7, connection: 1 };
        let compiled = Compiled::adopt(Tables { grants: [(key, grant)].into(), ..Tables::default() });
        let stats = [6, 7, 8].map(|id| (id, GrantStats::default())).into();
        assert_eq!(leftovers(&compiled, &stats), BTreeSet::from([6, 8]));
    }
}
