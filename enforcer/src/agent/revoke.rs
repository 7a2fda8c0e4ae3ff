//! Sockets whose grant is over: the kernel refuses their next packet, destroying them ends those that wait in silence.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
};

use enforcer_common::grant::{Grant, GrantKey};

use crate::{
    compile::{Compiled, Location},
    sockdiag,
};

/// A protocol and a service's address and port.
type Service = (u8, SocketAddr);

/// Where sockets are.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Sockets {
    Host,
    Netns(PathBuf),
}

/// What to end.
pub type Doomed = BTreeMap<Sockets, BTreeSet<Service>>;

fn service(key: &GrantKey) -> Service {
    (key.protocol, SocketAddr::new(key.service.ip(), key.port.get()))
}

/// Sorts grants that were taken away by where their sockets are. `place` knows where a pod is.
pub fn doomed(
    revoked: &[GrantKey],
    now: &Compiled,
    uids: &BTreeMap<u32, &str>,
    place: impl Fn(&str) -> Option<Sockets>,
) -> Doomed {
    let mut doomed = Doomed::new();
    for key in revoked {
        let Some(place) = uids.get(&key.workload).and_then(|uid| place(uid)) else { continue };
        // Sockets on the host tell the namespace, not the pod: one that another pod may have is left to the
        // kernel, which ends it at its next packet.
        if place == Sockets::Host && host_pod_grants(now, key) {
            continue;
        }
        doomed.entry(place).or_default().insert(service(key));
    }
    doomed
}

fn host_pod_grants(now: &Compiled, key: &GrantKey) -> bool {
    now.pods.iter().any(|(id, pod)| {
        let on_host = pod.pod.as_ref().is_some_and(|pod| matches!(pod.location, Location::Host { .. }));
        on_host && pod.grants.contains_key(&GrantKey { workload: *id, ..*key })
    })
}

/// Grants whose time ran out between two moments (nanoseconds of `CLOCK_BOOTTIME`).
pub fn expired(now: &Compiled, after: u64, until: u64) -> Vec<GrantKey> {
    let over =
        |(_, grant): &(&GrantKey, &Grant)| grant.valid_until_ns > after && grant.valid_until_ns <= until;
    now.pods.values().flat_map(|pod| pod.grants.iter().filter(over).map(|(key, _)| *key)).collect()
}

/// Ends the sockets. Blocks; not for a tokio worker.
pub fn destroy(doomed: &Doomed) {
    for (place, services) in doomed {
        let netns = match place {
            Sockets::Host => None,
            Sockets::Netns(path) => Some(path.as_path()),
        };
        let result = sockdiag::destroy(netns, |socket| services.contains(&(socket.protocol, socket.remote)));
        match result {
            Ok(sockets) if !sockets.is_empty() => {
                tracing::info!(sockets = sockets.len(), "sessions ended: their grant is over");
            }
            Ok(_) => {}
            // The namespace went with its pod.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "sessions whose grant is over are left to the kernel"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::world::{World, grant_key};

    #[test]
    fn only_sockets_that_nobody_else_may_have_are_ended() {
        let mut world = World::new();
        let key = grant_key(1, "198.18.0.7", 5432);
        let uids = BTreeMap::from([(1, "u-shop")]);
        let service = BTreeSet::from([(6, "198.18.0.7:5432".parse().unwrap())]);
        let compiled = world.compile();
        let netns = Sockets::Netns("/run/netns/p".into());
        assert_eq!(
            doomed(&[key], &compiled, &uids, |_| Some(netns.clone())),
            Doomed::from([(netns, service.clone())])
        );
        assert_eq!(doomed(&[key], &compiled, &uids, |_| None), Doomed::new());
        assert_eq!(
            doomed(&[key], &compiled, &uids, |_| Some(Sockets::Host)),
            Doomed::from([(Sockets::Host, service)])
        );

        let location = Location::Host { cgroups: vec![9] };
        world.pod("u-host", "shop", "host", &[("app", "web")], &[("env", "prod")], location);
        let shared = world.compile();
        assert_eq!(doomed(&[key], &shared, &uids, |_| Some(Sockets::Host)), Doomed::new());
    }

    #[test]
    fn a_grant_expires_once() {
        let mut world = World::new();
        world.first().valid_until_unix_ns = Some(5_000);
        let compiled = world.compile();
        let key = grant_key(1, "198.18.0.7", 5432);
        assert_eq!(expired(&compiled, 0, 4_999), []);
        assert_eq!(expired(&compiled, 4_999, 5_000), [key]);
        assert_eq!(expired(&compiled, 5_000, 9_000), []);
    }
}
