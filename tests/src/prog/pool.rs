//! Objects that are loaded once and go from test to test, empty.
//!
//! The verifier takes a hundred times as long as a test, on an emulated processor a thousand times. So an object whose
//! user is done is kept, programs and all, for the next one that wants maps of the same sizes. What the last user left is
//! removed before the next begins, in every map, by its kind and not by its name; then all are read again.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
};
use enforcer_common::maps::name;

use super::bytes::Entries;

/// Entries of maps that have another size than the object's own.
pub type Sizes = BTreeMap<&'static str, u32>;

/// Flows that a test has room for.
pub const FLOWS: u32 = 256;

/// No test fills these, and the fewer slots they have the sooner they are empty.
const SMALL: &[(&str, u32)] = &[
    (name::WIRE, 256),
    (name::NETNS, 64),
    (name::CGROUPS, 64),
    (name::PLACES, 256),
    (name::GRANTS, 1024),
    (name::GRANT_STATS, 1024),
    (name::DESTINATIONS, 256),
    (name::FLOWS, FLOWS),
    (name::FLOW_RING, FLOWS),
    (name::FLOW_COUNTS, 256),
    (name::ENDPOINTS, 64),
    (name::EVENTS, 1 << 18),
    (name::GW_NODES, 64),
    (name::GW_GRANTS, 1024),
    (name::GW_SERVICES, 256),
    (name::GW_BACKENDS, 1024),
    (name::GW_FLOWS, FLOWS),
    // All ports that a gateway has towards one backend, in use.
    (name::GW_NAT, 8192),
];

/// What nobody uses at the moment.
static IDLE: Mutex<BTreeMap<Sizes, Vec<Ebpf>>> = Mutex::new(BTreeMap::new());

/// An object for as long as this lives.
pub struct Lease {
    /// Gone only while this is dropped.
    ebpf: Option<Ebpf>,
    /// Who may have it next; `None`: nobody.
    next: Option<Sizes>,
}

impl Lease {
    /// An object with empty, small maps, which others had before. Where a test needs room for so many entries, it says so.
    pub fn shared(sizes: &[(&'static str, u32)]) -> Self {
        let sizes: Sizes = SMALL.iter().chain(sizes).copied().collect();
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&sizes).and_then(Vec::pop);
        let ebpf = idle.unwrap_or_else(|| load(&sizes));
        for (name, map) in ebpf.maps() {
            clear(name, map);
        }
        assert_eq!(occupied(&ebpf), [""; 0], "nothing is left of the last test");
        Self { ebpf: Some(ebpf), next: Some(sizes) }
    }

    /// An object that nobody had before and nobody has after: with memory that is not used, as a node has it.
    pub fn own(sizes: &[(&'static str, u32)]) -> Self {
        Self { ebpf: Some(load(&sizes.iter().copied().collect())), next: None }
    }

    /// Nobody has it next.
    pub fn keep(&mut self) {
        self.next = None;
    }
}

impl Deref for Lease {
    type Target = Ebpf;

    fn deref(&self) -> &Ebpf {
        self.ebpf.as_ref().expect("an object")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Ebpf {
        self.ebpf.as_mut().expect("an object")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A test that failed may have failed because of its object.
        if let (Some(ebpf), Some(sizes), false) = (self.ebpf.take(), self.next.take(), thread::panicking()) {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).entry(sizes).or_default().push(ebpf);
        }
    }
}

fn load(sizes: &Sizes) -> Ebpf {
    let mut loader = EbpfLoader::new();
    for (map, entries) in sizes {
        loader.map_max_entries(map, *entries);
    }
    if let Some(flows) = sizes.get(name::FLOW_RING) {
        loader.override_global("FLOW_CAPACITY", flows, true);
    }
    loader.load(enforcer::BPF_OBJECT).expect("the object loads")
}

/// A map by what can be in it.
enum Content<'a> {
    /// Entries come and go.
    Table(Entries<'a>),
    /// Every slot is always there.
    Slots(Entries<'a>),
    Ring(RingBuf<&'a MapData>),
    /// The kernel lets nobody write to it.
    Constants,
}

impl<'a> Content<'a> {
    fn of(name: &str, map: &'a Map) -> Self {
        let info = |data: &MapData| data.info().expect("the kernel describes its maps");
        match map {
            Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data) => {
                Self::Table(Entries::of(data, &info(data), false))
            }
            Map::PerCpuHashMap(data) => Self::Table(Entries::of(data, &info(data), true)),
            Map::Array(_) if name == ".rodata" => Self::Constants,
            // Zeros are not what a section of variables begins with.
            Map::Array(data) if !name.starts_with(".data") => {
                Self::Slots(Entries::of(data, &info(data), false))
            }
            Map::PerCpuArray(data) => Self::Slots(Entries::of(data, &info(data), true)),
            Map::RingBuf(_) => Self::Ring(RingBuf::try_from(map).expect("a ring buffer")),
            _ => panic!("{name} is of a kind that this does not know how to empty"),
        }
    }
}

fn clear(name: &str, map: &Map) {
    match Content::of(name, map) {
        Content::Table(entries) => entries.keys().iter().for_each(|key| entries.remove(key)),
        Content::Slots(slots) => written(&slots).iter().for_each(|slot| slots.fill(slot, 0)),
        Content::Ring(mut ring) => while ring.next().is_some() {},
        Content::Constants => {}
    }
}

/// Slots with something other than zeros.
fn written(slots: &Entries<'_>) -> Vec<Vec<u8>> {
    let mut keys = slots.keys();
    keys.retain(|key| slots.get(key).iter().any(|byte| *byte != 0));
    keys
}

/// Names of the maps that hold something. Takes an item out of each ring that has one.
pub fn occupied(ebpf: &Ebpf) -> Vec<&str> {
    let holds = |(name, map): &(&str, &Map)| match Content::of(name, map) {
        Content::Table(entries) => !entries.keys().is_empty(),
        Content::Slots(slots) => !written(&slots).is_empty(),
        Content::Ring(mut ring) => ring.next().is_some(),
        Content::Constants => false,
    };
    let mut names: Vec<_> = ebpf.maps().filter(holds).map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

/// Puts something into every map that user space can write to. Returns their names.
pub fn litter(ebpf: &Ebpf) -> Vec<&str> {
    let litters = |(name, map): &(&str, &Map)| match Content::of(name, map) {
        Content::Table(entries) => {
            // The first word of a trie's key is a number of bits, which may not be too large.
            let mut key = entries.key(1);
            key[..4].copy_from_slice(&1_u32.to_ne_bytes());
            entries.fill(&key, 1);
            true
        }
        Content::Slots(slots) => {
            slots.keys().iter().for_each(|slot| slots.fill(slot, 1));
            true
        }
        Content::Ring(_) | Content::Constants => false,
    };
    let mut names: Vec<_> = ebpf.maps().filter(litters).map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}
