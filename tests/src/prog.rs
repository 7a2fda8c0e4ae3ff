//! Harness of the tier *prog*: programs run on packets that never see a device.
//!
//! The kernel's limits are the tier's: linear packets without unfinished checksums, and a redirect shows as its action,
//! not as its target.

mod bytes;
pub mod kernel;
pub mod node;
pub mod pool;
pub mod wire;

use aya::{
    Pod,
    maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuHashMap, RingBuf, lpm_trie::Key},
    programs::{
        SchedClassifier, TcAttachType, TestRun as _, TestRunOptions, cgroup_sock_addr::CgroupSockAddrLink, tc,
    },
};
use enforcer_common::{
    event::Event,
    flow::{Flow, FlowKey},
    grant::GrantStats,
    maps::{counter, name},
    verdict::DropReason,
};
use ipnet::IpNet;
use zerocopy::FromBytes as _;

use self::pool::Lease;

/// What a program can make of a packet, as the kernel numbers it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    Next,
    Drop,
    Redirect,
    Other(i32),
}

impl From<u32> for Action {
    fn from(raw: u32) -> Self {
        match raw.cast_signed() {
            -1 => Self::Next,
            2 => Self::Drop,
            7 => Self::Redirect,
            other => Self::Other(other),
        }
    }
}

/// What a program left.
#[derive(Clone, Debug)]
pub struct Ran {
    pub action: Action,
    pub bytes: Vec<u8>,
}

/// The BPF object with its maps, and the programs that a test asked for.
pub struct Programs {
    /// Ended before the object goes to the next test.
    links: Vec<CgroupSockAddrLink>,
    object: Lease,
}

impl Programs {
    /// Loads `programs`, unless a test before has, over empty maps in the sizes given here; small ones elsewhere.
    pub fn load(programs: &[&str], sizes: &[(&'static str, u32)]) -> Self {
        let mut all = Self::new(Lease::shared(sizes));
        for program in programs {
            all.classifier(program);
        }
        all
    }

    fn new(object: Lease) -> Self {
        Self { links: Vec::new(), object }
    }

    /// A program, loaded.
    fn classifier(&mut self, program: &str) -> &mut SchedClassifier {
        let loaded = self.object.program_mut(program).expect("the program exists");
        let loaded: &mut SchedClassifier = loaded.try_into().expect("a TC program");
        if loaded.fd().is_err() {
            loaded.load().unwrap_or_else(|error| panic!("the verifier admits {program}: {error:?}"));
        }
        loaded
    }

    /// Runs a program once. The kernel takes the first 14 bytes for an Ethernet header, whatever they are.
    pub fn run(&self, program: &str, bytes: &[u8]) -> Ran {
        let loaded: &SchedClassifier =
            self.object.program(program).expect("the program exists").try_into().expect("a TC program");
        let mut out = vec![0; bytes.len() + 256];
        let options =
            TestRunOptions { data_in: Some(bytes), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = loaded.test_run(options).expect("the program runs");
        out.truncate(result.data_size_out as usize);
        Ran { action: result.return_value.into(), bytes: out }
    }

    /// Attaches a program to what comes in on a device of the caller's network namespace.
    pub fn attach(&mut self, program: &str, device: &str) {
        // Kernels without tcx take filters. Those stay until the namespace is gone, and go on to see packets.
        tc::qdisc_add_clsact(device).expect("the device can have filters");
        self.object.keep();
        let loaded = self.classifier(program);
        loaded.attach(device, TcAttachType::Ingress).expect("the device takes it");
    }

    pub fn hash<K: Pod, V: Pod>(&mut self, map: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.object.map_mut(map).expect("the map exists")).expect("a hash")
    }

    pub fn array<V: Pod>(&mut self, map: &str) -> Array<&mut MapData, V> {
        Array::try_from(self.object.map_mut(map).expect("the map exists")).expect("an array")
    }

    /// Sets a prefix; the map's keys count the bits of mapped IPv4 addresses.
    pub fn set_prefix<V: Pod>(&mut self, map: &str, prefix: &str, value: V) {
        let mut trie: LpmTrie<_, enforcer_common::Addr, V> =
            LpmTrie::try_from(self.object.map_mut(map).expect("the map exists")).expect("a trie");
        trie.insert(&key(prefix), value, 0).expect("room");
    }

    pub fn remove_prefix<V: Pod>(&mut self, map: &str, prefix: &str) {
        let mut trie: LpmTrie<_, enforcer_common::Addr, V> =
            LpmTrie::try_from(self.object.map_mut(map).expect("the map exists")).expect("a trie");
        trie.remove(&key(prefix)).expect("an entry");
    }

    /// How often packets were refused for this reason.
    pub fn refused(&self, reason: DropReason) -> u64 {
        self.counter(reason as u32)
    }

    /// Every reason that packets were refused for, and how often.
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        let counted = DropReason::ALL.iter().map(|reason| (reason.name(), self.refused(*reason)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// A counter over all CPUs.
    pub fn counter(&self, index: u32) -> u64 {
        assert!(index < counter::COUNT);
        let counters: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.object.map(name::COUNTERS).expect("the map exists"))
                .expect("an array");
        counters.get(&index, 0).expect("a counter").iter().sum()
    }

    /// Counters of a grant, over all CPUs; the time is the latest.
    pub fn stats(&self, grant: u32) -> GrantStats {
        let stats: PerCpuHashMap<_, u32, GrantStats> =
            PerCpuHashMap::try_from(self.object.map(name::GRANT_STATS).expect("the map exists"))
                .expect("a hash");
        let mut total = GrantStats::default();
        for cpu in stats.get(&grant, 0).iter().flat_map(|values| values.iter()) {
            total.add(cpu);
        }
        let flows: HashMap<_, FlowKey, Flow> =
            HashMap::try_from(self.object.map(name::FLOWS).expect("the map exists")).expect("a hash");
        for (_, flow) in flows.iter().map(Result::unwrap).filter(|(_, flow)| flow.grant == grant) {
            total.add_flow(&flow);
        }
        total
    }

    /// Events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut ring = RingBuf::try_from(self.object.map_mut(name::EVENTS).expect("the map exists"))
            .expect("a ring buffer");
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(Event::read_from_bytes(&item).expect("an event"));
        }
        events
    }
}

fn key(prefix: &str) -> Key<enforcer_common::Addr> {
    let prefix: IpNet = prefix.parse().expect("a prefix");
    let bits = u32::from(prefix.prefix_len()) + if prefix.addr().is_ipv4() { 96 } else { 0 };
    Key::new(bits, prefix.addr().into())
}
