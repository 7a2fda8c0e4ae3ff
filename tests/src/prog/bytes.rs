//! Maps whatever they hold: keys and values as bytes, by `bpf(2)` itself.

use std::{
    ffi::{c_int, c_long},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr,
};

use aya::{
    maps::{MapData, MapInfo},
    util::nr_cpus,
};

/// Commands of `bpf(2)`.
const LOOKUP: c_int = 1;
const UPDATE: c_int = 2;
const DELETE: c_int = 3;
const NEXT_KEY: c_int = 4;

/// The attribute that these commands have in common. `value` is the next key's place as well.
#[repr(C)]
struct Attr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A hash, a trie or an array, for each CPU or not.
pub struct Entries<'a> {
    map: BorrowedFd<'a>,
    key: usize,
    value: usize,
}

impl<'a> Entries<'a> {
    pub fn of(map: &'a MapData, info: &MapInfo, each_cpu: bool) -> Self {
        let value = info.value_size() as usize;
        let value = if each_cpu {
            value.next_multiple_of(8) * nr_cpus().expect("the kernel says how many CPUs it has")
        } else {
            value
        };
        Self { map: map.fd().as_fd(), key: info.key_size() as usize, value }
    }

    /// The keys, as the kernel goes through them.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.key];
            let last = keys.last().map(Vec::as_slice);
            match self.call(NEXT_KEY, last, Some(&mut next)) {
                Ok(()) => keys.push(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return keys,
                Err(error) => panic!("a map's keys can be listed: {error}"),
            }
        }
    }

    pub fn get(&self, key: &[u8]) -> Vec<u8> {
        let mut value = vec![0; self.value];
        self.call(LOOKUP, Some(key), Some(&mut value)).expect("the entry can be read");
        value
    }

    /// Sets an entry to nothing but this byte.
    pub fn fill(&self, key: &[u8], byte: u8) {
        self.call(UPDATE, Some(key), Some(&mut vec![byte; self.value])).expect("the entry can be written");
    }

    pub fn remove(&self, key: &[u8]) {
        self.call(DELETE, Some(key), None).expect("the entry can be removed");
    }

    /// A key whose bytes are all the same.
    pub fn key(&self, byte: u8) -> Vec<u8> {
        vec![byte; self.key]
    }

    fn call(&self, command: c_int, key: Option<&[u8]>, value: Option<&mut [u8]>) -> io::Result<()> {
        assert!(key.is_none_or(|key| key.len() == self.key), "a key of this map");
        let mut attr = Attr {
            map: self.map.as_raw_fd().cast_unsigned(),
            pad: 0,
            key: key.map_or(ptr::null(), <[u8]>::as_ptr) as u64,
            value: value.map_or(ptr::null_mut(), <[u8]>::as_mut_ptr) as u64,
            flags: 0,
        };
        // SAFETY: the attribute has the layout of these commands; the key is as long as the map's keys and lives, and
        // the buffer for the answer has room for a value of the map (for each CPU), or for a key where a key is asked.
        let result: c_long =
            unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(&mut attr), size_of::<Attr>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
