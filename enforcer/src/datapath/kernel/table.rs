//! One map as an ordered table: set, remove, read everything, with errors that name map, entry and capacity.

use std::{collections::BTreeMap, fmt::Debug, io, path::Path};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, lpm_trie},
};
use enforcer_common::{Addr, guard::V4_BITS};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zerocopy::IntoBytes;

use super::{super::DatapathError, MapPressure, OpenError};

/// Only what is there already is changed.
const BPF_EXIST: u64 = 2;

/// What every table knows of itself.
#[derive(Debug)]
struct Info {
    map: &'static str,
    capacity: u32,
}

impl Info {
    /// Takes a map out of the loaded object.
    fn take<T>(ebpf: &mut Ebpf, map: &'static str) -> Result<(Self, T), OpenError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let missing = || OpenError::MissingMap { map };
        let taken = ebpf.take_map(map).ok_or_else(missing)?;
        let typed = |source| OpenError::Map { map, source: io_error(source) };
        let capacity = data_of(&taken).ok_or_else(missing)?.info().map_err(typed)?.max_entries();
        Ok((Self { map, capacity }, T::try_from(taken).map_err(typed)?))
    }

    fn error(&self, action: &'static str, entry: impl FnOnce() -> String, error: MapError) -> DatapathError {
        let source = io_error(error);
        match source.raw_os_error() {
            // A trie says ENOSPC where the other maps say E2BIG.
            Some(libc::E2BIG | libc::ENOSPC) => {
                DatapathError::Full { map: self.map, capacity: self.capacity }
            }
            _ => DatapathError::Map { map: self.map, action, entry: entry(), source },
        }
    }

    fn unreadable(&self, error: MapError) -> DatapathError {
        self.error("read", || "its entries".to_owned(), error)
    }

    fn pressure<K>(
        &self,
        keys: impl Iterator<Item = Result<K, MapError>>,
    ) -> Result<MapPressure, DatapathError> {
        let mut entries = 0;
        for key in keys.take(self.capacity as usize) {
            key.map_err(|error| self.unreadable(error))?;
            entries += 1;
        }
        Ok(MapPressure { map: self.map, entries, capacity: self.capacity })
    }

    /// Removing what is not there is fine.
    fn removed<K: Debug>(&self, key: &K, result: Result<(), MapError>) -> Result<(), DatapathError> {
        match result {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            result => result.map_err(|error| self.error("remove", || format!("{key:?}"), error)),
        }
    }
}

/// The handle inside the kinds of map that the object has.
pub(super) fn data_of(map: &Map) -> Option<&MapData> {
    if let Map::Array(data)
    | Map::HashMap(data)
    | Map::LpmTrie(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::PerCpuHashMap(data)
    | Map::PerCpuLruHashMap(data)
    | Map::RingBuf(data) = map
    {
        Some(data)
    } else {
        None
    }
}

pub(super) fn io_error(error: MapError) -> io::Error {
    if let MapError::SyscallError(error) = error { error.io_error } else { io::Error::other(error) }
}

/// Reads entries until the map has no more, or until so many have gone by that the kernel must be changing the map
/// faster than it is read: deleting the entry of a running iteration makes it begin anew.
pub(super) fn collect<K: Ord, V>(
    capacity: u32,
    entries: impl Iterator<Item = Result<(K, V), MapError>>,
) -> Result<BTreeMap<K, V>, MapError> {
    entries.take(2 * capacity as usize).collect()
}

/// A hash map.
pub(super) struct Hash<K: Pod, V: Pod> {
    info: Info,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod + Ord + Debug, V: Pod + Debug> Hash<K, V> {
    pub fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<Self, OpenError> {
        let (info, map) = Info::take(ebpf, map)?;
        Ok(Self { info, map })
    }

    /// A handle of its own of a map that is pinned.
    pub fn open(pin: &Path, map: &'static str) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Map { map, source: io_error(error) };
        let data = MapData::from_pin(pin).map_err(failed)?;
        let capacity = data.info().map_err(failed)?.max_entries();
        let map_of_kind = HashMap::try_from(Map::HashMap(data)).map_err(failed)?;
        Ok(Self { info: Info { map, capacity }, map: map_of_kind })
    }

    pub fn set(&mut self, key: K, value: V) -> Result<(), DatapathError> {
        self.insert(key, value, 0)
    }

    /// Changes an entry; one that is gone stays gone (`false`).
    pub fn replace(&mut self, key: K, value: V) -> Result<bool, DatapathError> {
        match self.insert(key, value, BPF_EXIST) {
            Err(DatapathError::Map { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                Ok(false)
            }
            result => result.map(|()| true),
        }
    }

    fn insert(&mut self, key: K, value: V, flags: u64) -> Result<(), DatapathError> {
        self.map
            .insert(key, value, flags)
            .map_err(|error| self.info.error("set", || format!("{key:?}: {value:?}"), error))
    }

    pub fn remove(&mut self, key: &K) -> Result<(), DatapathError> {
        let result = self.map.remove(key);
        self.info.removed(key, result)
    }

    pub fn get(&self, key: &K) -> Result<Option<V>, DatapathError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(self.info.error("read", || format!("{key:?}"), error)),
        }
    }

    pub fn dump(&self) -> Result<BTreeMap<K, V>, DatapathError> {
        collect(self.info.capacity, self.map.iter()).map_err(|error| self.info.unreadable(error))
    }

    /// Values as they come, as many as [`collect`] would take.
    pub fn values(&self) -> impl Iterator<Item = Result<V, DatapathError>> {
        let entries = self.map.iter().take(2 * self.info.capacity as usize);
        entries.map(|entry| entry.map(|(_, value)| value).map_err(|error| self.info.unreadable(error)))
    }

    pub fn pressure_of(&self, entries: usize) -> MapPressure {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        MapPressure { map: self.info.map, entries, capacity: self.info.capacity }
    }

    pub fn pressure(&self) -> Result<MapPressure, DatapathError> {
        self.info.pressure(self.map.keys())
    }
}

/// A trie over addresses.
pub(super) struct Trie<V: Pod> {
    info: Info,
    map: LpmTrie<MapData, Addr, V>,
}

impl<V: Pod + Debug> Trie<V> {
    pub fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<Self, OpenError> {
        let (info, map) = Info::take(ebpf, map)?;
        Ok(Self { info, map })
    }

    pub fn set(&mut self, prefix: IpNet, value: V) -> Result<(), DatapathError> {
        self.map
            .insert(&trie_key(prefix), value, 0)
            .map_err(|error| self.info.error("set", || format!("{prefix}: {value:?}"), error))
    }

    pub fn remove(&mut self, prefix: &IpNet) -> Result<(), DatapathError> {
        let result = self.map.remove(&trie_key(*prefix));
        self.info.removed(prefix, result)
    }

    pub fn dump(&self) -> Result<BTreeMap<IpNet, V>, DatapathError> {
        let entries = self.map.iter().map(|entry| entry.map(|(key, value)| (prefix_of(&key), value)));
        collect(self.info.capacity, entries).map_err(|error| self.info.unreadable(error))
    }

    pub fn pressure(&self) -> Result<MapPressure, DatapathError> {
        self.info.pressure(self.map.keys())
    }
}

/// Host bits are cleared: the kernel would match without them, but a key reads back as it was written.
pub(super) fn trie_key(prefix: IpNet) -> lpm_trie::Key<Addr> {
    let bits = u32::from(prefix.prefix_len());
    match prefix.trunc() {
        IpNet::V4(net) => lpm_trie::Key::new(V4_BITS + bits, Addr::v4(net.addr())),
        IpNet::V6(net) => lpm_trie::Key::new(bits, Addr::v6(net.addr())),
    }
}

/// Every prefix of 96 bits and more within `::ffff:0:0/96` is an IPv4 prefix.
fn prefix_of(key: &lpm_trie::Key<Addr>) -> IpNet {
    let (bits, address) = (key.prefix_len(), key.data());
    match address.ip() {
        std::net::IpAddr::V4(address) if bits >= V4_BITS => {
            IpNet::V4(Ipv4Net::new_assert(address, (bits - V4_BITS) as u8))
        }
        std::net::IpAddr::V4(address) => IpNet::V6(Ipv6Net::new_assert(address.to_ipv6_mapped(), bits as u8)),
        std::net::IpAddr::V6(address) => IpNet::V6(Ipv6Net::new_assert(address, bits as u8)),
    }
}

/// An array, of which an entry of zeros is one that is not there.
pub(super) struct Slots<V: Pod> {
    info: Info,
    map: Array<MapData, V>,
}

impl<V: Pod + Debug + IntoBytes + zerocopy::FromZeros + zerocopy::Immutable> Slots<V> {
    pub fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<Self, OpenError> {
        let (info, map) = Info::take(ebpf, map)?;
        Ok(Self { info, map })
    }

    pub fn set(&mut self, slot: u32, value: V) -> Result<(), DatapathError> {
        if slot >= self.info.capacity {
            return Err(DatapathError::Full { map: self.info.map, capacity: self.info.capacity });
        }
        self.map
            .set(slot, value, 0)
            .map_err(|error| self.info.error("set", || format!("{slot}: {value:?}"), error))
    }

    pub fn remove(&mut self, slot: u32) -> Result<(), DatapathError> {
        if slot >= self.info.capacity {
            return Ok(());
        }
        self.map
            .set(slot, V::new_zeroed(), 0)
            .map_err(|error| self.info.error("remove", || slot.to_string(), error))
    }

    pub fn dump(&self) -> Result<BTreeMap<u32, V>, DatapathError> {
        let entries = (0..self.info.capacity).map(|slot| self.map.get(&slot, 0).map(|value| (slot, value)));
        let filled = entries.filter(|entry| {
            entry.as_ref().map_or(true, |(_, value)| value.as_bytes().iter().any(|byte| *byte != 0))
        });
        collect(self.info.capacity, filled).map_err(|error| self.info.unreadable(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_reads_back_as_it_was_written() {
        for text in [
            "0.0.0.0/0",
            "198.18.0.0/16",
            "192.0.2.7/32",
            "::/0",
            "fd00::/48",
            "::ffff:0:0/64",
            "fd00::1/128",
        ] {
            let prefix: IpNet = text.parse().unwrap();
            assert_eq!(prefix_of(&trie_key(prefix)), prefix.trunc(), "{text}");
        }
    }
}
