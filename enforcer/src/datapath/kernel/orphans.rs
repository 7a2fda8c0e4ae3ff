//! Flows whose grant is gone, for whoever ends them: read and marked through handles of their own, so that a table
//! full of flows holds nothing else up.

use std::collections::BTreeMap;

use enforcer_common::{
    flow::{Flow, FlowKey, FlowState, expired},
    grant::{Grant, GrantKey},
    maps::name,
};

use super::{KernelNode, OpenError, table::Hash};
use crate::datapath::DatapathError;

/// The node's flows and grants.
pub struct Orphans {
    flows: Hash<FlowKey, Flow>,
    grants: Hash<GrantKey, Grant>,
}

impl KernelNode {
    /// Handles that live and are used apart from this value.
    pub fn orphans(&self) -> Result<Orphans, OpenError> {
        let maps = self.kernel.pins.maps();
        Ok(Orphans {
            flows: Hash::open(&maps.join(name::FLOWS), name::FLOWS)?,
            grants: Hash::open(&maps.join(name::GRANTS), name::GRANTS)?,
        })
    }
}

impl Orphans {
    /// Flows that are alive while the kernel has no grant for them any more. `now_ns` is `CLOCK_BOOTTIME`.
    pub fn find(&self, now_ns: u64) -> Result<BTreeMap<FlowKey, Flow>, DatapathError> {
        let mut flows = self.flows.dump()?;
        let mut grants: BTreeMap<GrantKey, bool> = BTreeMap::new();
        let mut failure = None;
        flows.retain(|key, flow| {
            if expired(flow.state, flow.seen_ns, now_ns) {
                return false;
            }
            let FlowKey { service, service_port: port, protocol, .. } = *key;
            let grant = GrantKey { service, workload: flow.workload, port, protocol, pad: 0 };
            !*grants.entry(grant).or_insert_with(|| match self.grants.get(&grant) {
                Ok(grant) => grant.is_some_and(|grant| grant.valid_until_ns > now_ns),
                Err(error) => {
                    failure = Some(error);
                    // What is not known is not ended.
                    true
                }
            })
        });
        failure.map_or(Ok(flows), Err)
    }

    /// Turns a flow *revoking*: from then on it passes resets only. Returns it as it is now; `None`: it is gone.
    pub fn revoke(&mut self, key: &FlowKey, now_ns: u64) -> Result<Option<Flow>, DatapathError> {
        let Some(flow) = self.flows.get(key)? else { return Ok(None) };
        if flow.state == FlowState::Revoking as u8 {
            return Ok(Some(flow));
        }
        let flow = Flow { state: FlowState::Revoking as u8, seen_ns: now_ns, ..flow };
        self.flows.replace(*key, flow)?;
        Ok(Some(flow))
    }
}
