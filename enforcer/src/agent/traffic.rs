//! What every connection has carried on this node, from the kernel's statistics of single grants.

use std::collections::BTreeMap;

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
