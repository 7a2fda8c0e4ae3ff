//! What every connection has carried on this node, from the kernel's accounts of single grants.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    thread,
    time::Duration,
};

use enforcer_common::grant::GrantStats;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{compile::Compiled, datapath::kernel::Accounts};

/// How long an account may be out of date.
const EVERY: Duration = Duration::from_secs(1);

/// Accounts by the grant's id.
pub type Ledger = BTreeMap<u32, GrantStats>;

/// Reads the kernel's accounts again and again, in a thread of its own: there may be many flows. It ends with the
/// receiver.
pub fn follow(accounts: Accounts) -> io::Result<watch::Receiver<Arc<Ledger>>> {
    let (sender, receiver) = watch::channel(Arc::default());
    let run = move || {
        while !sender.is_closed() {
            match accounts.read() {
                Ok(read) => {
                    let ledger = Arc::new(onward(&sender.borrow(), read));
                    sender.send_replace(ledger);
                }
                Err(error) => tracing::debug!(%error, "traffic cannot be read"),
            }
            thread::sleep(EVERY);
        }
    };
    thread::Builder::new().name("traffic".to_owned()).spawn(run)?;
    Ok(receiver)
}

/// No account goes back: one of which a flow was missing while it ended keeps what it had.
fn onward(before: &Ledger, mut read: Ledger) -> Ledger {
    for (id, account) in &mut read {
        if let Some(before) = before.get(id) {
            account.packets_out = account.packets_out.max(before.packets_out);
            account.bytes_out = account.bytes_out.max(before.bytes_out);
            account.packets_in = account.packets_in.max(before.packets_in);
            account.bytes_in = account.bytes_in.max(before.bytes_in);
            account.last_ns = account.last_ns.max(before.last_ns);
        }
    }
    read
}

/// Sums by the connection's number; connections that carried nothing are not there.
pub fn by_connection(compiled: &Compiled, grants: &Ledger) -> BTreeMap<u32, GrantStats> {
    let mut sums: BTreeMap<u32, GrantStats> = BTreeMap::new();
    if grants.is_empty() {
        return sums;
    }
    for grant in compiled.pods.values().flat_map(|pod| pod.grants.values()) {
        let Some(stats) = grants.get(&grant.id) else { continue };
        let sum = sums.entry(grant.connection).or_default();
        sum.add(stats);
    }
    sums
}

/// Grants with statistics that are grants no more: their ids never come back, and the map has an end.
pub fn leftovers(compiled: &Compiled, grants: &Ledger) -> BTreeSet<u32> {
    let mut left: BTreeSet<u32> = grants.keys().copied().collect();
    for grant in compiled.pods.values().flat_map(|pod| pod.grants.values()) {
        // A node may have a hundred thousand grants, and most carry nothing.
        if left.is_empty() {
            break;
        }
        left.remove(&grant.id);
    }
    left
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
    fn no_account_goes_back_and_none_outlives_its_grant() {
        let account = |packets_out, flows| GrantStats { packets_out, flows, ..GrantStats::default() };
        let before = Ledger::from([(1, account(9, 1)), (2, account(5, 1)), (3, account(1, 1))]);
        let read = Ledger::from([(1, account(4, 2)), (2, account(7, 1)), (4, account(2, 1))]);
        let expected = Ledger::from([(1, account(9, 2)), (2, account(7, 1)), (4, account(2, 1))]);
        assert_eq!(onward(&before, read), expected);
    }

    #[test]
    fn statistics_outlive_no_grant() {
        let key = GrantKey { service: Addr::NONE, workload: 1, port: Port::new(1), protocol: 6, pad: 0 };
        let grant = Grant { valid_until_ns: FOREVER, gateways: 1, id: 7, connection: 1 };
        let compiled = Compiled::adopt(Tables { grants: [(key, grant)].into(), ..Tables::default() });
        let stats = [6, 7, 8].map(|id| (id, GrantStats::default())).into();
        assert_eq!(leftovers(&compiled, &stats), BTreeSet::from([6, 8]));
    }
}
