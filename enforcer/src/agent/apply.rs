//! Bringing the kernel to what was compiled, and knowing what it holds.

use std::{sync::Arc, time::Duration};

use enforcer_common::grant::GrantKey;

use super::memory;
use crate::{
    compile::Compiled,
    datapath::{Datapath, DatapathError, Op, Tables},
    reconcile::{carry_out, plan},
};

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Grants on both sides of a plan that takes much memory.
const LARGE: usize = 10_000;

/// What the kernel holds, as far as it is known.
pub struct Applied {
    pub compiled: Arc<Compiled>,
    /// The kernel holds exactly `compiled`. Otherwise it is read before it is changed.
    exact: bool,
    pub failures: Vec<String>,
    attempts: u32,
}

/// What a step has done.
#[derive(Debug, Default, PartialEq)]
pub struct Done {
    /// Grants that were taken away.
    pub revoked: Vec<GrantKey>,
    /// When to try again, if something failed.
    pub retry: Option<Duration>,
}

impl Applied {
    /// The state after a start: what an earlier agent left is in the kernel.
    pub fn adopt(datapath: &impl Datapath) -> Result<Self, DatapathError> {
        let compiled = Arc::new(Compiled::adopt(datapath.dump()?));
        Ok(Self { compiled, exact: false, failures: Vec::new(), attempts: 0 })
    }

    /// Guard and configuration alone: before anything is attached, and before anything is granted.
    pub fn guard_first(datapath: &mut impl Datapath, next: &Compiled) -> Vec<DatapathError> {
        let want = Tables { config: next.node.config, guard: next.node.guard.clone(), ..Tables::default() };
        let ops = plan(&Tables::default(), &want);
        carry_out(datapath, &ops).into_iter().map(|(_, error)| error).collect()
    }

    /// Brings the kernel to `next`. Nothing is taken away before `may_prune`: what is not known yet is not gone.
    pub fn step(&mut self, datapath: &mut impl Datapath, next: Compiled, may_prune: bool) -> Done {
        let (have, want) = if self.exact {
            self.compiled.difference(&next)
        } else {
            match datapath.dump() {
                Ok(have) => (have, next.tables()),
                Err(error) => return self.failed(next, vec![error]),
            }
        };
        let mut ops = plan(&have, &want);
        let large = have.grants.len() + want.grants.len() > LARGE;
        drop((have, want));
        ops.retain(|op| may_prune || !op.is_removal());
        let failures = carry_out(datapath, &ops);
        let revoked = ops.iter().filter_map(|op| match op {
            Op::RemoveGrant(key) => Some(*key),
            _ => None,
        });
        let revoked: Vec<GrantKey> =
            revoked.filter(|key| !failures.iter().any(|(op, _)| *op == Op::RemoveGrant(*key))).collect();
        let errors: Vec<DatapathError> = failures.into_iter().map(|(_, error)| error).collect();
        if large {
            drop(ops);
            memory::give_back();
        }
        if errors.is_empty() {
            self.compiled = Arc::new(next);
            self.exact = may_prune;
            self.failures.clear();
            self.attempts = 0;
            return Done { revoked, retry: None };
        }
        Done { revoked, ..self.failed(next, errors) }
    }

    fn failed(&mut self, next: Compiled, errors: Vec<DatapathError>) -> Done {
        self.compiled = Arc::new(next);
        self.exact = false;
        self.failures = errors.into_iter().map(|error| format!("{:#}", anyhow::Error::from(error))).collect();
        self.failures.sort();
        self.failures.dedup();
        self.attempts = self.attempts.saturating_add(1);
        let wait = FIRST_WAIT * (1 << self.attempts.min(10).saturating_sub(1));
        Done { revoked: Vec::new(), retry: Some(wait.min(LONGEST_WAIT)) }
    }

    /// How many grants the kernel holds; `None`: it has to be asked.
    pub fn grants(&self) -> Option<usize> {
        self.exact.then(|| self.compiled.pods.values().map(|pod| pod.grants.len()).sum())
    }

    /// Whether the kernel holds exactly what should be there. What could not even be tried is a failure as well.
    pub const fn is_exact(&self) -> bool {
        self.exact && self.failures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use enforcer_common::{
        Addr, Port,
        grant::{FOREVER, Grant},
    };

    use super::*;
    use crate::datapath::fake::Fake;

    /// Refuses to set grants while `broken`.
    #[derive(Default)]
    struct Faulty {
        fake: Fake,
        broken: bool,
    }

    impl Datapath for Faulty {
        fn apply(&mut self, op: &Op) -> Result<(), DatapathError> {
            if self.broken && matches!(op, Op::SetGrant(..)) {
                return Err(DatapathError::Full { map: "GRANTS", capacity: 1 });
            }
            self.fake.apply(op)
        }

        fn dump(&self) -> Result<Tables, DatapathError> {
            if self.broken && self.fake.tables.grants.len() > 1 {
                let source = io::Error::other("torn");
                return Err(DatapathError::Map {
                    map: "GRANTS",
                    action: "read",
                    entry: String::new(),
                    source,
                });
            }
            self.fake.dump()
        }
    }

    fn key(workload: u32) -> GrantKey {
        GrantKey { service: Addr::NONE, workload, port: Port::new(1), protocol: 6, pad: 0 }
    }

    fn compiled(workloads: &[u32]) -> Compiled {
        let grant = Grant { valid_until_ns: FOREVER, gateways: 1, id: 1, connection: 1 };
        let grants = workloads.iter().map(|id| (key(*id), grant)).collect();
        Compiled::adopt(Tables { grants, ..Tables::default() })
    }

    #[test]
    fn nothing_is_taken_away_before_everything_is_known() {
        let mut datapath = Faulty::default();
        datapath.fake.tables = compiled(&[1, 2]).tables();
        let mut applied = Applied::adopt(&datapath).unwrap();
        assert_eq!(applied.step(&mut datapath, compiled(&[2, 3]), false), Done::default());
        assert_eq!(datapath.fake.tables, compiled(&[1, 2, 3]).tables());
        let done = applied.step(&mut datapath, compiled(&[2, 3]), true);
        assert_eq!(done, Done { revoked: vec![key(1)], retry: None });
        assert_eq!(datapath.fake.tables, compiled(&[2, 3]).tables());
        assert!(applied.is_exact());
    }

    #[test]
    fn a_failure_is_told_and_made_good_when_it_is_over() {
        let mut datapath = Faulty { broken: true, ..Faulty::default() };
        let mut applied = Applied::adopt(&datapath).unwrap();
        let done = applied.step(&mut datapath, compiled(&[1]), true);
        assert_eq!(done, Done { revoked: Vec::new(), retry: Some(FIRST_WAIT) });
        assert_eq!(applied.failures, ["map GRANTS is full (1 of 1)"]);
        datapath.broken = false;
        assert_eq!(applied.step(&mut datapath, compiled(&[1]), true), Done::default());
        assert_eq!(datapath.fake.tables, compiled(&[1]).tables());
        assert_eq!(applied.failures, Vec::<String>::new());
    }
}
