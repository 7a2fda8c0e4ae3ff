//! Pinned maps as anybody can read them, and as a test may change them.

use std::{collections::BTreeMap, fmt::Debug, hash::Hash, net::SocketAddr};

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData},
};
use enforcer_common::{
    Addr,
    config::{EndpointKey, NodeConfig, Tunnel},
    flow::{Flow, FlowKey},
    gateway::{GwFlow, GwGrant, GwGrantKey},
    grant::{Destination, DestinationKey, Grant, GrantKey, MAX_TUNNELS},
    guard::Guard,
    maps::name,
    workload::{Place, WireKey, Workload},
};
use enforcer_tests::lab::Lab;

fn pinned(lab: &Lab, role: &str, map: &str) -> MapData {
    let pin = lab.id.bpffs().join(role).join("maps").join(map);
    MapData::from_pin(&pin).unwrap_or_else(|err| panic!("{}: {err}", pin.display()))
}

fn hash<K: Pod + Ord + Hash, V: Pod>(lab: &Lab, map: &str) -> BTreeMap<K, V> {
    hash_of(lab, "node", map)
}

fn hash_of<K: Pod + Ord + Hash, V: Pod>(lab: &Lab, role: &str, map: &str) -> BTreeMap<K, V> {
    let map: HashMap<MapData, K, V> =
        Map::HashMap(pinned(lab, role, map)).try_into().expect("a hash map of this shape");
    map.iter().map(|entry| entry.expect("it reads")).collect()
}

pub fn flows(lab: &Lab) -> BTreeMap<FlowKey, Flow> {
    hash(lab, name::FLOWS)
}

pub fn grants(lab: &Lab) -> BTreeMap<GrantKey, Grant> {
    hash(lab, name::GRANTS)
}

pub fn gateway_flows(lab: &Lab) -> BTreeMap<FlowKey, GwFlow> {
    hash_of(lab, "gw", name::GW_FLOWS)
}

pub fn gateway_grants(lab: &Lab) -> BTreeMap<GwGrantKey, GwGrant> {
    hash_of(lab, "gw", name::GW_GRANTS)
}

/// Number of the destination at an address.
pub fn destination(lab: &Lab, service: std::net::IpAddr) -> u32 {
    let destinations = hash::<DestinationKey, Destination>(lab, name::DESTINATIONS);
    let found = destinations.iter().find(|(key, _)| key.service == Addr::from(service));
    found.expect("there is a destination").1.number
}

/// Takes all grants for a destination away, and nothing else, as an agent does that dies right after.
pub fn take_grants(lab: &Lab, number: u32) {
    let mut map: HashMap<MapData, GrantKey, Grant> =
        Map::HashMap(pinned(lab, "node", name::GRANTS)).try_into().expect("a hash map of this shape");
    let destinations = hash::<DestinationKey, Destination>(lab, name::DESTINATIONS);
    let is = |key: &GrantKey| {
        let offer =
            DestinationKey { service: key.service, port: key.port, protocol: key.protocol, pad: [0; 5] };
        destinations.get(&offer).is_some_and(|destination| destination.number == number)
    };
    for key in grants(lab).keys().filter(|key| is(key)) {
        map.remove(key).expect("it is removed");
    }
}

/// All that the agent writes, as text: map, then key, then value. Ids of grants are numbers that never come back, so
/// that two tables that mean the same differ in them.
pub fn tables(lab: &Lab) -> BTreeMap<&'static str, BTreeMap<String, String>> {
    fn text<K: Debug, V: Debug>(map: BTreeMap<K, V>) -> BTreeMap<String, String> {
        map.into_iter().map(|(key, value)| (format!("{key:?}"), format!("{value:?}"))).collect()
    }
    fn array<V: Pod>(lab: &Lab, map: &str, size: u32) -> BTreeMap<u32, V> {
        let array: Array<MapData, V> = Map::Array(pinned(lab, "node", map)).try_into().expect("an array");
        (0..size).map(|index| (index, array.get(&index, 0).expect("it reads"))).collect()
    }
    let guard: LpmTrie<MapData, Addr, Guard> =
        Map::LpmTrie(pinned(lab, "node", name::GUARD)).try_into().expect("a trie");
    let guard = guard.iter().map(|entry| {
        let (key, value) = entry.expect("it reads");
        (format!("{:?}/{}", key.data(), key.prefix_len()), format!("{value:?}"))
    });
    let grants = grants(lab).into_iter().map(|(key, grant)| (key, Grant { id: 0, ..grant })).collect();
    BTreeMap::from([
        (name::GUARD, guard.collect()),
        (name::NODE_CONFIG, text(array::<NodeConfig>(lab, name::NODE_CONFIG, 1))),
        (name::TUNNELS, text(array::<Tunnel>(lab, name::TUNNELS, MAX_TUNNELS))),
        (name::ENDPOINTS, text(hash::<EndpointKey, u32>(lab, name::ENDPOINTS))),
        (name::DESTINATIONS, text(hash::<DestinationKey, Destination>(lab, name::DESTINATIONS))),
        (name::PLACES, text(hash::<Addr, Place>(lab, name::PLACES))),
        (name::WIRE, text(hash::<WireKey, Workload>(lab, name::WIRE))),
        (name::NETNS, text(hash::<u64, Workload>(lab, name::NETNS))),
        (name::CGROUPS, text(hash::<u64, Workload>(lab, name::CGROUPS))),
        (name::GRANTS, text(grants)),
    ])
}

/// Makes every flow of both ends one that is over, as a lifetime without a packet does.
pub fn let_flows_pass_away(lab: &Lab) {
    // A state that nobody knows is over, whatever the clock says.
    change(lab, "gw", name::GW_FLOWS, |_, flow: GwFlow| Some(GwFlow { state: 0, ..flow }));
    change(lab, "node", name::FLOWS, |_, flow: Flow| Some(Flow { state: 0, ..flow }));
}

/// Makes both ends believe that the last acknowledgements of both parties of a service's flows never came by.
pub fn forget_acknowledgements(lab: &Lab, service: SocketAddr) {
    const BYTES: u32 = 3;
    let is =
        |key: &FlowKey| key.service == Addr::from(service.ip()) && key.service_port.get() == service.port();
    change(lab, "gw", name::GW_FLOWS, |key, flow: GwFlow| {
        let (client_ack, backend_ack) =
            (flow.client_ack.wrapping_sub(BYTES), flow.backend_ack.wrapping_sub(BYTES));
        is(key).then_some(GwFlow { client_ack, backend_ack, ..flow })
    });
    change(lab, "node", name::FLOWS, |key, flow: Flow| {
        let (client_ack, server_ack) =
            (flow.client_ack.wrapping_sub(BYTES), flow.server_ack.wrapping_sub(BYTES));
        is(key).then_some(Flow { client_ack, server_ack, ..flow })
    });
}

/// Writes flows that are changed.
fn change<V: Pod>(lab: &Lab, role: &str, map: &str, changed: impl Fn(&FlowKey, V) -> Option<V>) {
    let mut map: HashMap<MapData, FlowKey, V> =
        Map::HashMap(pinned(lab, role, map)).try_into().expect("a table of flows");
    let flows: Vec<(FlowKey, V)> = map.iter().map(|entry| entry.expect("it reads")).collect();
    for (key, flow) in flows {
        if let Some(flow) = changed(&key, flow) {
            map.insert(key, flow, 0).expect("it is written");
        }
    }
}

/// The number in the pin that says which layout the maps have, after it was set to another.
pub fn set_layout(lab: &Lab, version: u64) -> u64 {
    let mut array: Array<MapData, u64> =
        Map::Array(pinned(lab, "node", "LAYOUT")).try_into().expect("an array");
    let before = array.get(&0, 0).expect("it reads");
    array.set(0, version, 0).expect("it is written");
    before
}

/// A map of another shape, pinned in the place of one of the node's.
pub fn pin_other_shape(lab: &Lab, map: &str) {
    let array = Array::<MapData, u64>::create(7, 0).expect("a map is made");
    array.pin(lab.id.bpffs().join("node/maps").join(map)).expect("it is pinned");
}
