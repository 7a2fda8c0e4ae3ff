//! Pinned maps as anybody can read them, and as a test may change them.

use std::{collections::BTreeMap, fmt::Debug, hash::Hash};

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData},
};
use enforcer_common::{
    Addr,
    config::{EndpointKey, NodeConfig, Tunnel},
    flow::{Flow, FlowKey},
    gateway::GwFlow,
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
    let map: HashMap<MapData, K, V> =
        Map::HashMap(pinned(lab, "node", map)).try_into().expect("a hash map of this shape");
    map.iter().map(|entry| entry.expect("it reads")).collect()
}

pub fn flows(lab: &Lab) -> BTreeMap<FlowKey, Flow> {
    hash(lab, name::FLOWS)
}

pub fn grants(lab: &Lab) -> BTreeMap<GrantKey, Grant> {
    hash(lab, name::GRANTS)
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
        let offer = DestinationKey { service: key.service, port: key.port, protocol: key.protocol, pad: 0 };
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
    fn end<V: Pod>(lab: &Lab, role: &str, map: &str, over: impl Fn(V) -> V) {
        let map: HashMap<MapData, FlowKey, V> =
            Map::HashMap(pinned(lab, role, map)).try_into().expect("a table of flows");
        let mut map = map;
        let flows: Vec<(FlowKey, V)> = map.iter().map(|entry| entry.expect("it reads")).collect();
        for (key, flow) in flows {
            map.insert(key, over(flow), 0).expect("it is written");
        }
    }
    // A state that nobody knows is over, whatever the clock says.
    end(lab, "gw", name::GW_FLOWS, |flow: GwFlow| GwFlow { state: 0, ..flow });
    end(lab, "node", name::FLOWS, |flow: Flow| Flow { state: 0, ..flow });
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
