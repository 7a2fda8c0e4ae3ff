//! The node's maps as anybody with the pins can read them.

use std::{collections::BTreeMap, hash::Hash};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use enforcer_common::{
    flow::{Flow, FlowKey},
    grant::{Grant, GrantKey},
    maps::name,
};
use enforcer_tests::lab::Lab;

fn hash<K: Pod + Ord + Hash, V: Pod>(lab: &Lab, map: &str) -> BTreeMap<K, V> {
    let pin = lab.id.bpffs().join("node/maps").join(map);
    let data = MapData::from_pin(&pin).unwrap_or_else(|err| panic!("{}: {err}", pin.display()));
    let map: HashMap<MapData, K, V> = Map::HashMap(data).try_into().expect("a hash map of this shape");
    map.iter().map(|entry| entry.expect("it reads")).collect()
}

pub fn flows(lab: &Lab) -> BTreeMap<FlowKey, Flow> {
    hash(lab, name::FLOWS)
}

pub fn grants(lab: &Lab) -> BTreeMap<GrantKey, Grant> {
    hash(lab, name::GRANTS)
}
