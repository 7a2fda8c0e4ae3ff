//! Programs and maps for one test at a time, a program loaded when its first packet comes.
//!
//! Limits of `BPF_PROG_TEST_RUN`: every packet arrives on the loopback device (interface 1) with a socket of the
//! calling process; whole IP headers; less than a page; where a redirect leads cannot be seen.

use std::{borrow::Borrow, fs::File, net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use aya::{
    Pod,
    maps::{HashMap, PerCpuHashMap, PerCpuValues},
    programs::{CgroupAttachMode, CgroupSockAddr, Program, TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use enforcer_common::{
    Addr,
    event::Event,
    grant::GrantStats,
    guard::{Guard, GuardFilter, GuardKind, V4_BITS},
    maps::name,
    verdict::DropReason,
};
use nix::time::{ClockId, clock_gettime};

use super::{Programs, pool::Lease};

/// On to the next program.
pub const NEXT: i32 = -1;
pub const DROP: i32 = 2;
pub const REDIRECT: i32 = 7;

/// The interface that every packet comes from.
pub const LOOPBACK: u32 = 1;

/// The object and its maps.
pub struct Kernel {
    programs: Programs,
    filter: GuardFilter,
}

/// What a program made of a packet.
#[derive(Debug, Eq, PartialEq)]
pub struct Outcome {
    pub action: i32,
    pub bytes: Vec<u8>,
}

/// `struct __sk_buff`, of which a test may set a few fields.
const CONTEXT: usize = 192;
const GSO_SEGS_AT: usize = 164;
const GSO_SIZE_AT: usize = 176;

/// Sizes of what holds a flow, and others.
fn sizes(flows: u32, others: &[(&'static str, u32)]) -> Vec<(&'static str, u32)> {
    let flows = [name::FLOWS, name::FLOW_RING, name::GW_FLOWS, name::GW_NAT].map(|map| (map, flows));
    flows.iter().chain(others).copied().collect()
}

impl Kernel {
    /// With room for `flows` flows, and maps of other sizes than tests have them.
    pub fn with_flows(flows: u32, others: &[(&'static str, u32)]) -> Self {
        Self::new(Lease::shared(&sizes(flows, others)))
    }

    /// One that no test had before, with maps as large as a node's: what is measured is measured on such.
    pub fn own(flows: u32) -> Self {
        Self::new(Lease::own(&sizes(flows, &[])))
    }

    fn new(object: Lease) -> Self {
        Self { programs: Programs::new(object), filter: GuardFilter::EMPTY }
    }

    /// Loads one program, unless a test before has.
    pub fn load(&mut self, program: &str) -> Result<()> {
        match self.programs.object.program_mut(program).with_context(|| format!("no program {program}"))? {
            Program::SchedClassifier(program) if program.fd().is_err() => program.load()?,
            Program::CgroupSockAddr(program) if program.fd().is_err() => program.load()?,
            Program::SchedClassifier(_) | Program::CgroupSockAddr(_) => {}
            _ => bail!("{program} is of no kind that enforcer has"),
        }
        Ok(())
    }

    /// Loads a connect or sendmsg program and attaches it to a cgroup, for as long as this lives.
    pub fn attach(&mut self, program: &str, cgroup: &File) -> Result<()> {
        self.load(program)?;
        let program =
            self.programs.object.program_mut(program).with_context(|| format!("no program {program}"))?;
        let program: &mut CgroupSockAddr = program.try_into()?;
        let link = program.attach(cgroup, CgroupAttachMode::Single)?;
        self.programs.links.push(program.take_link(link)?);
        Ok(())
    }

    /// Names of all programs.
    pub fn names(&self) -> Vec<String> {
        self.programs.object.programs().map(|(name, _)| name.to_owned()).collect()
    }

    /// Sends a packet through a program.
    pub fn run(&mut self, program: &str, packet: &[u8]) -> Outcome {
        self.run_gso(program, packet, 0)
    }

    /// The same for a packet that will become segments with this much payload each.
    pub fn run_gso(&mut self, program: &str, packet: &[u8], payload: u32) -> Outcome {
        let mut context = [0_u8; CONTEXT];
        context[GSO_SIZE_AT..GSO_SIZE_AT + 4].copy_from_slice(&payload.to_ne_bytes());
        context[GSO_SEGS_AT..GSO_SEGS_AT + 4].copy_from_slice(&u32::from(payload != 0).to_ne_bytes());
        let mut out = vec![0; packet.len() + 256];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = self.programs.classifier(program).test_run(options).expect("the packet runs");
        out.truncate(result.data_size_out as usize);
        Outcome { action: result.return_value.cast_signed(), bytes: out }
    }

    /// Mean time of one run, in nanoseconds.
    pub fn time(&mut self, program: &str, packet: &[u8], repeat: u32) -> u128 {
        let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::default() };
        self.programs.classifier(program).test_run(options).expect("the packet runs").duration.as_nanos()
    }

    /// Sets an entry of a hash map.
    pub fn set<K: Pod, V: Pod>(&mut self, map: &str, key: impl Borrow<K>, value: impl Borrow<V>) {
        let mut hash: HashMap<_, K, V> = self.programs.hash(map);
        hash.insert(key, value, 0).expect("room for an entry");
    }

    pub fn get<K: Pod, V: Pod>(&mut self, map: &str, key: &K) -> Option<V> {
        self.programs.hash::<K, V>(map).get(key, 0).ok()
    }

    /// Entries of a hash map.
    pub fn count<K: Pod, V: Pod>(&mut self, map: &str) -> usize {
        self.programs.hash::<K, V>(map).keys().count()
    }

    pub fn remove<K: Pod, V: Pod>(&mut self, map: &str, key: &K) {
        self.programs.hash::<K, V>(map).remove(key).expect("the entry exists");
    }

    /// Sets a slot of an array.
    pub fn put<V: Pod>(&mut self, map: &str, slot: u32, value: impl Borrow<V>) {
        self.programs.array::<V>(map).set(slot, value, 0).expect("the slot exists");
    }

    pub fn at<V: Pod>(&mut self, map: &str, slot: u32) -> V {
        self.programs.array::<V>(map).get(&slot, 0).expect("the slot exists")
    }

    /// Guards a prefix, as the agent does: the filter before the trie.
    pub fn guard(&mut self, address: IpAddr, length: u32, kind: GuardKind) {
        let bits = length + if address.is_ipv4() { V4_BITS } else { 0 };
        self.filter.admit(&Addr::from(address), bits);
        self.put(name::GUARD_FILTER, 0, self.filter);
        self.programs.set_prefix(name::GUARD, &format!("{address}/{length}"), Guard { kind: kind as u32 });
    }

    /// Sum of a counter over all CPUs.
    pub fn counter(&mut self, index: u32) -> u64 {
        self.programs.counter(index)
    }

    pub fn dropped(&mut self, reason: DropReason) -> u64 {
        self.programs.refused(reason)
    }

    /// Counters of a grant, summed over all CPUs, without the time.
    pub fn stats(&mut self, grant: u32) -> GrantStats {
        GrantStats { last_ns: 0, ..self.programs.stats(grant) }
    }

    /// Makes counters for a grant.
    pub fn begin_stats(&mut self, grant: u32) {
        let mut stats: PerCpuHashMap<_, u32, GrantStats> = self
            .programs
            .object
            .map_mut(name::GRANT_STATS)
            .expect("the map exists")
            .try_into()
            .expect("a hash for each CPU");
        let cpus = nr_cpus().expect("the kernel says how many CPUs it has");
        let values = PerCpuValues::try_from(vec![GrantStats::default(); cpus]).expect("one for each CPU");
        stats.insert(grant, values, 0).expect("room for an entry");
    }

    /// Events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        self.programs.events()
    }
}

/// The clock that the programs read, nanoseconds.
pub fn boot_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the clock runs");
    time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
}

/// The moment that long ago. A machine that has not been up for so long is waited for: nothing on it is that old.
pub fn ago_ns(age_ns: u64) -> u64 {
    loop {
        if let Some(then) = boot_ns().checked_sub(age_ns) {
            return then;
        }
        thread::sleep(Duration::from_millis(100));
    }
}
