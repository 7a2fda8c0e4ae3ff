//! Which of several controllers leads: a Lease, as Kubernetes' own components have one.
//!
//! Nobody's clock but the own one is believed: a lease is free when nobody has renewed it for as long as it lasts,
//! counted from when that was seen here. Whoever cannot renew in time stops to lead before another one may begin.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::source::kubernetes::{ApiError, Cluster, Resource};

const NAME: &str = "enforcer-controller";
/// A lease that nobody renews for so long is free.
const DURATION: Duration = Duration::from_secs(15);
/// Who could not renew for so long leads no more.
const DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(2);

/// A lease that is held; it is renewed by a task of its own.
pub struct Lease {
    cluster: Cluster,
    namespace: String,
    identity: String,
    /// Until when it is held for sure.
    until: watch::Receiver<Instant>,
    renewing: tokio::task::JoinHandle<()>,
}

/// Why it is not ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Waiting {
    Begun,
    /// Somebody of this identity has it.
    Another(String),
    Failed(String),
}

impl Lease {
    /// Waits until it is ours, and tells what for whenever that is another thing.
    pub async fn acquire(
        cluster: &Cluster,
        namespace: &str,
        identity: &str,
        tell: impl Fn(&Waiting),
    ) -> Self {
        let mut seen = Seen::default();
        let mut told = Waiting::Begun;
        let until = loop {
            let waiting = match ask(cluster, namespace, identity, &mut seen).await {
                Ok(since) => break since + DEADLINE,
                Err(waiting) => waiting,
            };
            if waiting != told {
                match &waiting {
                    Waiting::Begun => {}
                    Waiting::Another(holder) => tracing::info!(holder, "another controller leads"),
                    Waiting::Failed(error) => tracing::warn!(error, "the lease cannot be had"),
                }
                tell(&waiting);
                told = waiting;
            }
            tokio::time::sleep(PAUSE).await;
        };
        tracing::info!(identity, "this controller leads");
        let (sender, receiver) = watch::channel(until);
        let renewing =
            tokio::spawn(renew(cluster.clone(), namespace.to_owned(), identity.to_owned(), sender));
        Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            until: receiver,
            renewing,
        }
    }

    /// To ask whether it is held, wherever that matters.
    pub fn held(&self) -> Held {
        Held(self.until.clone())
    }

    /// Returns when it is lost.
    pub async fn lost(&mut self) {
        loop {
            let until = *self.until.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => if !self.held().is_held() { return },
                changed = self.until.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Gives it back, so that the next one need not wait.
    pub async fn release(self) {
        self.renewing.abort();
        let found = self.cluster.get(&Resource::LEASE, &self.namespace, NAME).await;
        let Ok(Some(mut lease)) = found else { return };
        if holder(&lease) == self.identity {
            lease["spec"]["holderIdentity"] = "".into();
            if let Err(error) = self.cluster.replace(&Resource::LEASE, &lease).await {
                tracing::warn!(
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "the lease stays until it ends"
                );
            }
        }
    }
}

/// Tells whether the lease is held.
#[derive(Clone)]
pub struct Held(watch::Receiver<Instant>);

impl Held {
    /// Whether nobody else can lead now.
    pub fn is_held(&self) -> bool {
        Instant::now() < *self.0.borrow()
    }
}

/// Until the server has answered about a lease.
const ANSWER: Duration = Duration::from_secs(5);

/// Since when it is ours.
async fn ask(
    cluster: &Cluster,
    namespace: &str,
    identity: &str,
    seen: &mut Seen,
) -> Result<Instant, Waiting> {
    match tokio::time::timeout(ANSWER, take(cluster, namespace, identity, seen)).await {
        Ok(Ok(Ok(since))) => Ok(since),
        Ok(Ok(Err(holder))) => Err(Waiting::Another(holder)),
        Ok(Err(error)) => Err(Waiting::Failed(format!("{:#}", anyhow::Error::new(error)))),
        Err(_) => Err(Waiting::Failed("no answer".to_owned())),
    }
}

async fn renew(cluster: Cluster, namespace: String, identity: String, until: watch::Sender<Instant>) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(PAUSE).await;
        match ask(&cluster, &namespace, &identity, &mut seen).await {
            Ok(since) => drop(until.send_replace(since + DEADLINE)),
            Err(Waiting::Another(holder)) => {
                tracing::error!(holder, "another controller has taken the lease");
                until.send_replace(Instant::now());
                return;
            }
            Err(waiting) => tracing::warn!(?waiting, "the lease is not renewed"),
        }
        if until.is_closed() {
            return;
        }
    }
}

fn holder(lease: &Value) -> String {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// The lease as it was seen last, and since when it is that.
#[derive(Default)]
struct Seen(Option<(String, Instant)>);

impl Seen {
    fn is_free(&mut self, lease: &Value, now: Instant) -> bool {
        if holder(lease).is_empty() {
            return true;
        }
        let version = lease["metadata"]["resourceVersion"].to_string();
        match &self.0 {
            Some((known, since)) if *known == version => now.duration_since(*since) > DURATION,
            _ => {
                self.0 = Some((version, now));
                false
            }
        }
    }
}

/// Takes or renews it: since when it is held, or who else has it.
async fn take(
    cluster: &Cluster,
    namespace: &str,
    identity: &str,
    seen: &mut Seen,
) -> Result<Result<Instant, String>, ApiError> {
    let asked = Instant::now();
    let found = cluster.get(&Resource::LEASE, namespace, NAME).await?;
    let now = jiff::Timestamp::now();
    let spec = |transitions: u64, acquired: &Value| {
        json!({
            "holderIdentity": identity,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": acquired,
            "renewTime": format!("{now:.6}"),
            "leaseTransitions": transitions,
        })
    };
    let Some(mut lease) = found else {
        let new = json!({
            "apiVersion": Resource::LEASE.api_version(),
            "kind": "Lease",
            "metadata": { "namespace": namespace, "name": NAME },
            "spec": spec(0, &format!("{now:.6}").into()),
        });
        return won(cluster.create(&Resource::LEASE, &new).await, asked);
    };
    let transitions = lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default();
    let holder = holder(&lease);
    if holder == identity {
        lease["spec"] = spec(transitions, &lease["spec"]["acquireTime"].clone());
    } else if seen.is_free(&lease, asked) {
        lease["spec"] = spec(transitions + 1, &format!("{now:.6}").into());
    } else {
        return Ok(Err(holder));
    }
    won(cluster.replace(&Resource::LEASE, &lease).await, asked)
}

/// Whoever came first has it.
fn won(written: Result<Value, ApiError>, asked: Instant) -> Result<Result<Instant, String>, ApiError> {
    match written {
        Ok(_) => Ok(Ok(asked)),
        Err(ApiError::Conflict { .. }) => Ok(Err("whoever was faster".to_owned())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Value {
        json!({ "metadata": { "resourceVersion": version }, "spec": { "holderIdentity": holder } })
    }

    #[test]
    fn a_lease_is_free_when_it_was_not_renewed_for_as_long_as_it_lasts_here() {
        let mut seen = Seen::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(seen.is_free(&lease("", "1"), start), "given back");
        assert!(!seen.is_free(&lease("other", "2"), start), "how old it is, is not known yet");
        assert!(!seen.is_free(&lease("other", "2"), after(15)));
        assert!(!seen.is_free(&lease("other", "3"), after(16)), "renewed");
        assert!(!seen.is_free(&lease("other", "3"), after(31)));
        assert!(seen.is_free(&lease("other", "3"), after(32)));
    }
}
