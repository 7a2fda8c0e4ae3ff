//! A datapath that fails when it is told to, for tests of everything that must live with a kernel that refuses.

use std::{collections::BTreeMap, io};

use super::{
    Datapath, DatapathError, Op, Tables,
    gateway::{GatewayDatapath, GwOp, GwTables},
};

/// How a call fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The map is full; nothing was done.
    Full,
    /// The kernel refused with this error number; nothing was done.
    Refused(i32),
    /// It was done, and an error came back all the same.
    Done,
}

/// Passes calls on to another datapath, except where the schedule has a fault.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faulty<D> {
    pub inner: D,
    /// Faults by the number of the `apply` call, from 0.
    pub schedule: BTreeMap<u64, Fault>,
    /// Calls of `apply` so far.
    pub calls: u64,
}

impl<D> Faulty<D> {
    pub const fn new(inner: D, schedule: BTreeMap<u64, Fault>) -> Self {
        Self { inner, schedule, calls: 0 }
    }

    /// Counts a call and carries it out as the schedule says.
    fn run(
        &mut self,
        entry: impl FnOnce() -> String,
        apply: impl FnOnce(&mut D) -> Result<(), DatapathError>,
    ) -> Result<(), DatapathError> {
        let fault = self.schedule.get(&self.calls).copied();
        self.calls += 1;
        let errno = match fault {
            None => return apply(&mut self.inner),
            Some(Fault::Full) => return Err(DatapathError::Full { map: "injected", capacity: 0 }),
            Some(Fault::Refused(errno)) => errno,
            Some(Fault::Done) => {
                apply(&mut self.inner)?;
                libc::EINTR
            }
        };
        let source = io::Error::from_raw_os_error(errno);
        Err(DatapathError::Map { map: "injected", action: "set", entry: entry(), source })
    }
}

impl<D: Datapath> Datapath for Faulty<D> {
    fn apply(&mut self, op: &Op) -> Result<(), DatapathError> {
        self.run(|| format!("{op:?}"), |inner| inner.apply(op))
    }

    fn dump(&self) -> Result<Tables, DatapathError> {
        self.inner.dump()
    }
}

impl<D: GatewayDatapath> GatewayDatapath for Faulty<D> {
    fn apply(&mut self, op: &GwOp) -> Result<(), DatapathError> {
        self.run(|| format!("{op:?}"), |inner| inner.apply(op))
    }

    fn dump(&self) -> Result<GwTables, DatapathError> {
        self.inner.dump()
    }
}
