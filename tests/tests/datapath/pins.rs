//! Pinned maps: adopted with their content, or refused with words.

use std::path::Path;

use aya::maps::{Array, Map, MapData};
use enforcer::datapath::{
    Datapath, Op,
    gateway::GatewayDatapath,
    kernel::{KernelGateway, KernelNode, OpenError},
};
use enforcer_common::{guard::GuardKind, maps::name};

use crate::harness::{Pins, small};

#[test]
fn a_restart_adopts_the_maps_as_they_are() {
    let pins = Pins::new();
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.apply(&Op::SetGuard("198.18.0.0/16".parse().unwrap(), GuardKind::Service)).unwrap();
    let before = node.dump().unwrap();
    drop(node);
    let node = KernelNode::open(&pins.path, &small()).unwrap();
    assert_eq!(node.dump().unwrap(), before);
    assert_eq!(before.guard.len(), 1);
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_by_name_and_left_alone() {
    let pins = Pins::new();
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.apply(&Op::SetGuard("198.18.0.0/16".parse().unwrap(), GuardKind::Service)).unwrap();
    let before = node.dump().unwrap();
    drop(node);
    let mut other = small();
    other.sizes.insert(name::PLACES, 16);
    let error = KernelNode::open(&pins.path, &other).err().expect("another size is refused");
    assert!(matches!(&error, OpenError::Layout { map, .. } if map == name::PLACES), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "pinned map PLACES in {path} is a hash of 8192 entries, key 16 bytes, value 24 bytes, this build needs \
             a hash of 16 entries, key 16 bytes, value 24 bytes: start the build that pinned it, or stop the role \
             and remove {path} (its flows are reset), then start it again",
            path = pins.path.display()
        )
    );
    assert_eq!(KernelNode::open(&pins.path, &small()).unwrap().dump().unwrap(), before);
}

#[test]
fn maps_of_another_layout_version_or_of_none_are_refused() {
    let pins = Pins::new();
    drop(KernelNode::open(&pins.path, &small()).unwrap());
    let layout = pins.path.join("maps/LAYOUT");
    set_version(&layout, 99);
    let error = KernelNode::open(&pins.path, &small()).err().expect("another version is refused");
    assert!(matches!(error, OpenError::Version { found: 99, expected: 1, .. }), "{error}");
    std::fs::remove_file(&layout).unwrap();
    let error = KernelNode::open(&pins.path, &small()).err().expect("no version is refused");
    assert!(matches!(error, OpenError::Version { found: 0, expected: 1, .. }), "{error}");
}

fn set_version(path: &Path, version: u64) {
    let map = Map::Array(MapData::from_pin(path).unwrap());
    Array::<_, u64>::try_from(map).unwrap().set(0, version, 0).unwrap();
}

#[test]
fn node_and_gateway_keep_apart_and_each_pins_only_its_own() {
    let node_pins = Pins::new();
    let gateway_pins = Pins::new();
    let node = KernelNode::open(&node_pins.path, &small()).unwrap();
    let gateway = KernelGateway::open(&gateway_pins.path, &small()).unwrap();
    let pinned = |pins: &Pins, map: &str| pins.path.join("maps").join(map).exists();
    for map in name::NODE {
        assert!(pinned(&node_pins, map) && !pinned(&gateway_pins, map), "{map}");
    }
    for map in name::GATEWAY {
        assert!(!pinned(&node_pins, map) && pinned(&gateway_pins, map), "{map}");
    }
    for map in name::SHARED {
        assert!(pinned(&node_pins, map) && pinned(&gateway_pins, map), "{map}");
    }
    assert_eq!(node.programs().unwrap().len(), 14);
    assert_eq!(gateway.programs().unwrap().len(), 2);
    assert_eq!(gateway.dump().unwrap().config, None);
}
