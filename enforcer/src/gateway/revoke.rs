//! Flows whose grant is gone: which they are, and ending them at both ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use enforcer_common::{
    flow::{FlowKey, FlowState, expired},
    gateway::{GwFlow, GwGrantKey},
};
use tracing::{debug, warn};

use super::reset::{self, Injector};
use crate::datapath::{gateway::GwTables, kernel::KernelGateway};

/// A reset is sent so often: data that was under way when the first one was made moves the number that is expected.
const ROUNDS: u32 = 3;

/// Ends flows, a round at a time.
#[derive(Debug, Default)]
pub struct Revoker {
    /// Rounds that a flow has had.
    rounds: BTreeMap<FlowKey, u32>,
    /// Grants went away since the last look, or a flow has rounds left.
    due: bool,
}

impl Revoker {
    /// A grant is gone or over: look at the next round.
    pub const fn grants_went(&mut self) {
        self.due = true;
    }

    pub const fn is_due(&self) -> bool {
        self.due
    }

    /// Marks what has no grant as *revoking* and sends resets. Returns how many flows were ended for the first time.
    pub fn round(
        &mut self,
        datapath: &mut KernelGateway,
        tables: &GwTables,
        injector: &Injector,
        now_ns: u64,
    ) -> usize {
        let flows = match datapath.flows() {
            Ok(flows) => flows,
            Err(error) => {
                warn!(%error, "cannot read the flows to end those without a grant");
                return 0;
            }
        };
        let doomed = without_grant(&flows, tables, now_ns);
        self.rounds.retain(|key, _| doomed.contains(key));
        let mut ended = 0;
        for key in &doomed {
            let round = self.rounds.entry(*key).or_insert(0);
            if *round == ROUNDS {
                continue;
            }
            *round += 1;
            // Marked first: from then on nothing passes that would move the numbers.
            match datapath.revoke_flow(key, now_ns) {
                Ok(Some(flow)) => {
                    ended += usize::from(flow.state != FlowState::Revoking as u8);
                    send(key, &flow, injector);
                }
                Ok(None) => {}
                Err(error) => warn!(%error, "cannot mark a flow as revoking"),
            }
        }
        self.due = self.rounds.values().any(|round| *round < ROUNDS);
        ended
    }
}

fn send(key: &FlowKey, flow: &GwFlow, injector: &Injector) {
    for reset in reset::of_flow(key, flow) {
        if let Err(error) = injector.send(&reset) {
            debug!(%error, ?reset, "cannot send a reset");
        }
    }
}

/// Flows that are alive in the kernel while nothing grants them.
fn without_grant(flows: &BTreeMap<FlowKey, GwFlow>, tables: &GwTables, now_ns: u64) -> BTreeSet<FlowKey> {
    let granted = |key: &FlowKey| {
        let grant = GwGrantKey {
            client: key.client,
            service: key.service,
            port: key.service_port,
            protocol: key.protocol,
            pad: [0; 5],
        };
        tables.grants.get(&grant).is_some_and(|grant| grant.valid_until_ns > now_ns)
    };
    let alive = flows.iter().filter(|(_, flow)| !expired(flow.state, flow.seen_ns, now_ns));
    alive.filter(|(key, _)| !granted(key)).map(|(key, _)| *key).collect()
}

/// Workload addresses that have flows which are not over.
pub fn busy(flows: &BTreeMap<FlowKey, GwFlow>, now_ns: u64) -> BTreeSet<IpAddr> {
    let alive = flows.iter().filter(|(_, flow)| !expired(flow.state, flow.seen_ns, now_ns));
    alive.map(|(key, _)| key.client.ip()).collect()
}

#[cfg(test)]
mod tests {
    use enforcer_common::{Addr, Port, flow::SECOND, gateway::GwGrant, grant::FOREVER};

    use super::*;

    const NOW: u64 = 100 * SECOND;

    fn key(last: u8) -> FlowKey {
        let client = Addr::v4([198, 19, 0, last].into());
        FlowKey::new(client, Port::new(4000), Addr::v4([198, 18, 0, 7].into()), Port::new(5432), 6)
    }

    fn flow(state: FlowState) -> GwFlow {
        GwFlow {
            backend: Addr::NONE,
            source: Addr::NONE,
            next_hop: Addr::NONE,
            seen_ns: NOW - 60 * SECOND,
            ifindex: 0,
            mtu: 0,
            node: 0,
            connection: 0,
            client_ack: 0,
            backend_ack: 0,
            backend_port: Port::NONE,
            source_port: Port::NONE,
            state: state as u8,
            seen_acks: 0,
            pad: [0; 2],
        }
    }

    fn grant(last: u8, valid_until_ns: u64) -> (GwGrantKey, GwGrant) {
        let FlowKey { client, service, service_port: port, protocol, .. } = key(last);
        let value = GwGrant { valid_until_ns, id: 1, connection: 1, node: 1, pad: 0 };
        (GwGrantKey { client, service, port, protocol, pad: [0; 5] }, value)
    }

    #[test]
    fn a_flow_without_a_grant_or_with_one_that_is_over_is_ended_unless_it_is_over_itself() {
        let flows = BTreeMap::from([
            (key(1), flow(FlowState::Established)),
            (key(2), flow(FlowState::Established)),
            (key(3), flow(FlowState::Established)),
            (key(4), flow(FlowState::HalfOpen)),
        ]);
        let tables = GwTables { grants: [grant(1, FOREVER), grant(2, NOW)].into(), ..GwTables::default() };
        assert_eq!(without_grant(&flows, &tables, NOW), BTreeSet::from([key(2), key(3)]));
    }

    #[test]
    fn an_address_is_busy_while_a_flow_of_it_lives() {
        let flows = BTreeMap::from([
            (key(1), flow(FlowState::Established)),
            (key(2), flow(FlowState::Revoking)),
            (key(3), flow(FlowState::Closing)),
        ]);
        assert_eq!(busy(&flows, NOW), BTreeSet::from([key(1).client.ip(), key(3).client.ip()]));
    }
}
