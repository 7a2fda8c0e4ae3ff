//! Pinned maps: adopted with their content, or refused with words.

use std::path::Path;

use aya::maps::{Array, Map, MapData};
use enforcer::datapath::{
    Datapath, Op,
    gateway::GatewayDatapath,
    kernel::{KernelGateway, KernelNode, OpenError},
};
use enforcer_common::{
    guard::{GuardFilter, GuardKind},
    maps::name,
};

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
fn the_filter_never_says_less_than_the_guard() {
    let pins = Pins::new();
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    let addresses = ["198.18.0.1", "203.0.113.9", "fd00:1:2::1"].map(|text| text.parse().unwrap());
    let missed = || {
        let map = MapData::from_pin(pins.path.join("maps").join(name::GUARD_FILTER)).unwrap();
        let filter: Array<_, GuardFilter> = Array::try_from(Map::Array(map)).unwrap();
        let filter = filter.get(&0, 0).unwrap();
        addresses.map(|address: std::net::IpAddr| filter.misses(&address.into()))
    };
    assert_eq!(missed(), [true; 3], "nothing is guarded");
    let [service, listed, v6] =
        ["198.18.0.0/16", "203.0.113.0/24", "fd00:1:2::/48"].map(|text| text.parse().unwrap());
    for (prefix, kind) in
        [(service, GuardKind::Service), (listed, GuardKind::Listed), (v6, GuardKind::Service)]
    {
        node.apply(&Op::SetGuard(prefix, kind)).unwrap();
    }
    assert_eq!(missed(), [false; 3]);
    node.apply(&Op::RemoveGuard(listed)).unwrap();
    assert_eq!(missed(), [false, true, false]);
    drop(node);
    // What an agent that was killed between two writes may leave behind.
    let map = MapData::from_pin(pins.path.join("maps").join(name::GUARD_FILTER)).unwrap();
    Array::try_from(Map::Array(map)).unwrap().set(0, GuardFilter::EMPTY, 0).unwrap();
    let _node = KernelNode::open(&pins.path, &small()).unwrap();
    assert_eq!(missed(), [false, true, false]);
}

/// Without CAP_SYS_ADMIN and CAP_PERFMON the verifier refuses what it admits from others.
#[test]
fn a_program_that_the_verifier_refuses_is_named_with_the_verifiers_last_words() {
    let pins = Pins::new();
    drop(KernelNode::open(&pins.path, &small()).unwrap());
    let path = pins.path.join("other");
    std::fs::create_dir(&path).unwrap();
    let refusal = std::thread::spawn(move || {
        privileges::drop_from_thread();
        KernelNode::open(&path, &small()).err().expect("a refusal").to_string()
    });
    let refusal = refusal.join().unwrap();
    let first = refusal.lines().next().unwrap();
    assert!(first.starts_with("the verifier refuses program ") && first.ends_with(':'), "{refusal}");
    assert!(refusal.lines().count() > 2, "{refusal}");
}

#[expect(unsafe_code, reason = "no library of the workspace knows capabilities")]
mod privileges {
    const VERSION_3: u32 = 0x2008_0522;
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;

    /// Gives up the two capabilities, for the calling thread.
    pub fn drop_from_thread() {
        let mut header = [VERSION_3, 0];
        // Effective, permitted, inheritable, for capabilities below and above 32.
        let mut sets = [0_u32; 6];
        // SAFETY: the kernel fills the sets of the calling thread, of the size that the version says.
        let got = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
        assert_eq!(got, 0);
        sets[0] &= !(1 << SYS_ADMIN);
        sets[3] &= !(1 << (PERFMON - 32));
        // SAFETY: reads both.
        let set = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
        assert_eq!(set, 0);
    }
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
    assert!(matches!(error, OpenError::Version { found: 99, expected: 3, .. }), "{error}");
    std::fs::remove_file(&layout).unwrap();
    let error = KernelNode::open(&pins.path, &small()).err().expect("no version is refused");
    assert!(matches!(error, OpenError::Version { found: 0, expected: 3, .. }), "{error}");
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
