//! Flows of a gateway, ended from user space.

use aya::maps::{HashMap, Map, MapData};
use enforcer::datapath::kernel::KernelGateway;
use enforcer_common::{
    Port,
    flow::{FlowKey, FlowState, SECOND},
    gateway::GwFlow,
    maps::name,
};
use zerocopy::FromZeros as _;

use crate::harness::{Pins, small};

const NOW: u64 = 100_000 * SECOND;

fn key() -> FlowKey {
    let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap().into();
    FlowKey::new(address("198.19.0.5"), Port::new(40_000), address("198.18.0.7"), Port::new(5432), 6)
}

#[test]
fn a_flow_that_is_revoked_after_a_long_silence_lives_to_pass_its_resets() {
    let pins = Pins::new();
    let mut gateway = KernelGateway::open(&pins.path, &small()).unwrap();
    assert_eq!(gateway.revoke_flow(&key(), NOW).unwrap(), None);
    assert_eq!(gateway.flows().unwrap().len(), 0, "a flow that is gone does not come back");

    let map = MapData::from_pin(pins.path.join("maps").join(name::GW_FLOWS)).unwrap();
    let mut flows = HashMap::<_, FlowKey, GwFlow>::try_from(Map::HashMap(map)).unwrap();
    let idle = GwFlow {
        state: FlowState::Established as u8,
        seen_ns: NOW - 3600 * SECOND,
        client_ack: 1,
        backend_ack: 2,
        seen_acks: 3,
        ..GwFlow::new_zeroed()
    };
    flows.insert(key(), idle, 0).unwrap();
    assert_eq!(gateway.revoke_flow(&key(), NOW).unwrap(), Some(idle));
    let revoking = GwFlow { state: FlowState::Revoking as u8, seen_ns: NOW, ..idle };
    assert_eq!(gateway.flow(&key()).unwrap(), Some(revoking));

    assert_eq!(gateway.revoke_flow(&key(), NOW + SECOND).unwrap(), Some(revoking));
    assert_eq!(gateway.flow(&key()).unwrap(), Some(revoking), "once is enough");

    // A packet on another CPU may be younger than this one's clock.
    let young = GwFlow { seen_ns: NOW + SECOND, ..idle };
    flows.insert(key(), young, 0).unwrap();
    gateway.revoke_flow(&key(), NOW).unwrap();
    assert_eq!(gateway.flow(&key()).unwrap().unwrap().seen_ns, NOW + SECOND);
}
