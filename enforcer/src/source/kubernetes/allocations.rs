//! From what the controller has written into `status` to the allocations. Pure.
//!
//! Numbers and blocks are what is read; addresses follow from them and from the ranges of the install, which stand in
//! the status of every gateway and node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::Facts;
use crate::{
    model::{Kind, ObjectKey},
    state::{self, Next, State},
};

pub type All = BTreeMap<ObjectKey, Arc<Facts>>;

#[derive(Deserialize)]
struct Ranges {
    ula: Ipv6Net,
    service: Ipv4Net,
    workload: Ipv4Net,
    #[serde(default)]
    next: Option<Next>,
    #[serde(default)]
    blocks: Vec<Ipv4Net>,
}

fn ranges(facts: &Facts) -> Option<Ranges> {
    let ranges: Ranges = serde_json::from_value(facts.status.fields.get("ranges")?.clone()).ok()?;
    (ranges.ula.prefix_len() == 48).then_some(ranges)
}

/// The allocations; `None` while no status names the ranges of the install.
pub fn state(all: &All) -> Option<State> {
    let known = |(key, facts): (&ObjectKey, &Arc<Facts>)| {
        matches!(key.kind, Kind::TunnelGateway | Kind::TunnelNode).then(|| ranges(facts))?
    };
    let first = all.iter().find_map(known)?;
    Some(onto(State::new(first.ula, first.service, first.workload), all))
}

/// What the statuses say on top of an install without allocations. Of two that have the same number the first keeps
/// it, by kind, namespace and name.
pub fn onto(mut state: State, all: &All) -> State {
    let mut taken = BTreeSet::new();
    let mut next = Next::default();
    for (key, facts) in all.iter().filter(|(key, _)| key.kind.is_ours()) {
        state.status.insert(key.clone(), Arc::clone(&facts.status));
        let Some(number) = facts.number() else { continue };
        let class = if key.kind.is_instance() { Kind::Postgres } else { key.kind };
        if !taken.insert((class, number)) {
            continue;
        }
        match key.kind {
            kind if kind.is_instance() => {
                state.services.extend(state::service_at(&state, number).map(|place| (key.clone(), place)));
            }
            Kind::TunnelGateway => {
                state
                    .gateways
                    .extend(state::gateway_at(&state, number).map(|place| (key.name.clone(), place)));
                let known = ranges(facts).and_then(|ranges| ranges.next).unwrap_or_default();
                next = later(next, known);
            }
            Kind::TunnelNode => {
                let blocks = ranges(facts).map(|ranges| ranges.blocks).unwrap_or_default();
                state
                    .nodes
                    .extend(state::node_at(&state, number, blocks).map(|place| (key.name.clone(), place)));
            }
            _ => {}
        }
    }
    state.next = next;
    state
}

/// A gateway may have an older one than the others for a moment.
fn later(one: Next, other: Next) -> Next {
    Next {
        service: one.service.max(other.service),
        node: one.node.max(other.node),
        gateway: one.gateway.max(other.gateway),
        block: one.block.max(other.block),
    }
}
