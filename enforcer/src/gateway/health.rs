//! Which endpoints take connections. Pure: probes report, this remembers, nothing here connects anywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// So many failures in a row take a healthy endpoint out; one success brings it in.
const FAILURES: u32 = 2;

/// One endpoint as far as it is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Endpoint {
    /// Not probed yet: not used, unless the kernel was using it before this process began.
    Unknown,
    /// With failures since the last success.
    Healthy {
        failures: u32,
    },
    Unhealthy,
}

/// All TCP endpoints that should be probed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Health {
    endpoints: BTreeMap<SocketAddr, Endpoint>,
}

impl Health {
    /// Sets the endpoints. What is kept keeps its state; of the new ones those in `adopted` count as healthy until a
    /// probe says otherwise, because the kernel sends flows there already.
    pub fn set_targets(&mut self, targets: &BTreeSet<SocketAddr>, adopted: &BTreeSet<SocketAddr>) {
        self.endpoints.retain(|target, _| targets.contains(target));
        for target in targets {
            let first =
                if adopted.contains(target) { Endpoint::Healthy { failures: 0 } } else { Endpoint::Unknown };
            self.endpoints.entry(*target).or_insert(first);
        }
    }

    /// Takes the result of a probe; `true` when it changed whether the endpoint is used. A result for what is no
    /// target any more changes nothing.
    pub fn report(&mut self, target: SocketAddr, connected: bool) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(&target) else { return false };
        let before = endpoint.is_used();
        *endpoint = match (*endpoint, connected) {
            (_, true) => Endpoint::Healthy { failures: 0 },
            (Endpoint::Healthy { failures }, false) if failures + 1 < FAILURES => {
                Endpoint::Healthy { failures: failures + 1 }
            }
            (_, false) => Endpoint::Unhealthy,
        };
        endpoint.is_used() != before
    }

    pub fn is_healthy(&self, target: SocketAddr) -> bool {
        self.endpoints.get(&target).is_some_and(|endpoint| endpoint.is_used())
    }

    pub fn targets(&self) -> BTreeSet<SocketAddr> {
        self.endpoints.keys().copied().collect()
    }

    /// `healthy`, `unhealthy` or `unknown`, for status.
    pub fn word(&self, target: SocketAddr) -> &'static str {
        match self.endpoints.get(&target) {
            Some(Endpoint::Healthy { .. }) => "healthy",
            Some(Endpoint::Unhealthy) => "unhealthy",
            Some(Endpoint::Unknown) | None => "unknown",
        }
    }
}

impl Endpoint {
    const fn is_used(self) -> bool {
        matches!(self, Self::Healthy { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 10], port))
    }

    #[test]
    fn one_success_brings_an_endpoint_in_and_two_failures_take_it_out() {
        let mut health = Health::default();
        health.set_targets(&BTreeSet::from([target(1)]), &BTreeSet::new());
        let told = [
            (true, true),
            (false, false),
            (true, false),
            (false, false),
            (false, true),
            (false, false),
            (true, true),
        ];
        for (step, (connected, changed)) in told.into_iter().enumerate() {
            assert_eq!(health.report(target(1), connected), changed, "step {step}");
        }
    }

    #[test]
    fn an_endpoint_is_used_only_once_it_has_answered() {
        let mut health = Health::default();
        health.set_targets(&BTreeSet::from([target(1)]), &BTreeSet::new());
        assert_eq!((health.is_healthy(target(1)), health.word(target(1))), (false, "unknown"));
        assert!(!health.report(target(1), false), "one failure is enough for what never answered");
        assert_eq!(health.word(target(1)), "unhealthy");
    }

    #[test]
    fn what_the_kernel_used_before_stays_in_until_probes_fail() {
        let mut health = Health::default();
        health.set_targets(&BTreeSet::from([target(1), target(2)]), &BTreeSet::from([target(1)]));
        assert!(health.is_healthy(target(1)));
        assert!(!health.is_healthy(target(2)));
        assert!(!health.report(target(1), false));
        assert!(health.report(target(1), false));
    }

    #[test]
    fn a_target_that_stays_keeps_its_state_and_one_that_went_says_nothing() {
        let mut health = Health::default();
        health.set_targets(&BTreeSet::from([target(1), target(2)]), &BTreeSet::new());
        health.report(target(1), true);
        health.set_targets(&BTreeSet::from([target(1), target(3)]), &BTreeSet::new());
        assert!(health.is_healthy(target(1)));
        assert!(!health.report(target(2), true));
        assert_eq!(health.targets(), BTreeSet::from([target(1), target(3)]));
    }
}
