//! Sends what was planned, in order, a few at a time and not too many a second.
//!
//! A plan is made anew all the time; of the one before only what is under way is kept. What was written is not
//! written again before the watch has shown it, or has had the time to.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    MANAGER, lease,
    plan::{Target, Write, resource},
};
use crate::{
    model::Kind,
    source::kubernetes::{ApiError, Cluster, DocumentKey, Resource, Told},
};

/// Requests that are under way at one time.
const AT_ONCE: usize = 8;
/// Requests a second, and how many may be saved up.
const RATE: f64 = 30.0;
const BURST: f64 = 60.0;
/// Between two writes of one status.
const STATUS_PACE: Duration = Duration::from_secs(1);
/// A watch that does not show what was written for so long has lost it.
const ECHO: Duration = Duration::from_secs(15);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How long nothing may happen.
const IDLE: Duration = Duration::from_secs(30);

/// What became of a write.
struct Done {
    target: Target,
    was_create: bool,
    /// The version of the object after it.
    result: Result<u64, ApiError>,
}

/// The last write of a target.
struct Last {
    /// Nothing more of it before.
    not_before: Instant,
    /// Nothing more of it before the watch has shown this version.
    version: Option<(u64, Instant)>,
    failures: u32,
    problem: Option<String>,
}

pub struct Writer {
    cluster: Cluster,
    slices: Resource,
    held: lease::Held,
    running: JoinSet<Done>,
    busy: BTreeSet<Target>,
    last: BTreeMap<Target, Last>,
    /// The first time at which something of the last plan may be sent that could not be yet.
    next: Option<Instant>,
    tokens: f64,
    filled: Instant,
    taken: Vec<DocumentKey>,
    sent: u64,
    failed: u64,
}

impl Writer {
    pub fn new(cluster: Cluster, slices: Resource, held: lease::Held) -> Self {
        Self {
            cluster,
            slices,
            held,
            running: JoinSet::new(),
            busy: BTreeSet::new(),
            last: BTreeMap::new(),
            next: None,
            tokens: BURST,
            filled: Instant::now(),
            taken: Vec::new(),
            sent: 0,
            failed: 0,
        }
    }

    /// Sends what of the plan can be sent now.
    pub fn take(&mut self, told: &Told, writes: Vec<Write>) {
        let now = Instant::now();
        self.tokens = (self.tokens + now.duration_since(self.filled).as_secs_f64() * RATE).min(BURST);
        self.filled = now;
        self.next = None;
        let planned: BTreeSet<Target> = writes.iter().map(Write::target).collect();
        self.last.retain(|target, last| planned.contains(target) || last.not_before > now);
        for write in writes {
            let target = write.target();
            if self.busy.contains(&target) {
                continue;
            }
            if let Some(at) = self.not_before(told, &target, now) {
                self.later(at);
                continue;
            }
            if self.tokens < 1.0 || self.busy.len() >= AT_ONCE {
                self.later(now + Duration::from_secs_f64(1.0 / RATE));
                continue;
            }
            if !self.held.is_held() {
                self.later(now + Duration::from_secs(1));
                return;
            }
            self.tokens -= 1.0;
            self.sent += 1;
            self.busy.insert(target);
            self.running.spawn(send(self.cluster.clone(), self.slices, write));
        }
    }

    fn later(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// When the target may be written, if not now.
    fn not_before(&self, told: &Told, target: &Target, now: Instant) -> Option<Instant> {
        let last = self.last.get(target)?;
        if let Some((version, until)) = last.version
            && shown(told, target) < version
            && now < until
        {
            return Some(until);
        }
        (now < last.not_before).then_some(last.not_before)
    }

    /// Returns when something was written, or may be.
    pub async fn wait(&mut self) {
        let until = self.next.unwrap_or_else(|| Instant::now() + IDLE);
        let done = tokio::select! {
            Some(done) = self.running.join_next() => done,
            () = tokio::time::sleep_until(until.into()) => return,
        };
        self.done(done);
        while let Some(done) = self.running.try_join_next() {
            self.done(done);
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let Ok(Done { target, was_create, result }) = done else {
            // A panic of the client: what it was about is not known, so that everything may be sent again.
            self.busy.clear();
            return;
        };
        self.busy.remove(&target);
        let now = Instant::now();
        let failures = self.last.get(&target).map_or(0, |last| last.failures);
        let last = match result {
            Ok(version) => {
                let pace = if matches!(target, Target::Status(_)) { STATUS_PACE } else { Duration::ZERO };
                Last {
                    not_before: now + pace,
                    version: Some((version, now + ECHO)),
                    failures: 0,
                    problem: None,
                }
            }
            Err(error) => {
                self.failed += 1;
                if let (true, ApiError::Conflict { .. }, Target::Document(key)) =
                    (was_create, &error, &target)
                {
                    self.taken.push(key.clone());
                }
                let wait = (FIRST_WAIT * 2_u32.saturating_pow(failures)).min(LONGEST_WAIT);
                let problem = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(problem, "not written, tried again in {wait:?}");
                Last { not_before: now + wait, version: None, failures: failures + 1, problem: Some(problem) }
            }
        };
        self.last.insert(target, last);
    }

    /// Names that were found to be somebody else's since the last call.
    pub fn finished(&mut self) -> Vec<DocumentKey> {
        std::mem::take(&mut self.taken)
    }

    /// What could not be written, each with the reason.
    pub fn failures(&self) -> Vec<String> {
        self.last.values().filter_map(|last| last.problem.clone()).collect()
    }

    pub fn counts(&self) -> Value {
        json!({ "sent": self.sent, "failed": self.failed })
    }
}

/// The version that the watch has shown.
fn shown(told: &Told, target: &Target) -> u64 {
    match target {
        Target::Status(key) => told.facts.get(key).map_or(0, |facts| facts.version),
        Target::Document(key) => {
            let version = |document: &Value| document["metadata"]["resourceVersion"].as_str()?.parse().ok();
            told.documents.get(key).and_then(|document| version(document)).unwrap_or_default()
        }
    }
}

async fn send(cluster: Cluster, slices: Resource, write: Write) -> Done {
    let target = write.target();
    let was_create = matches!(write, Write::Create(_));
    let result = request(&cluster, slices, write).await;
    Done { target, was_create, result }
}

async fn request(cluster: &Cluster, slices: Resource, write: Write) -> Result<u64, ApiError> {
    let kind_of = |document: &Value| resource(document["kind"].as_str().unwrap_or_default(), slices);
    let written = match write {
        Write::Status { key, status, version } => {
            let document = Write::status_document(&key, &status, version);
            cluster.apply(&Resource::of(key.kind), MANAGER, Some("status"), &document).await?
        }
        Write::Create(document) => cluster.create(&kind_of(&document), &document).await?,
        Write::Change(change) => {
            let key = DocumentKey::of(&change);
            cluster.merge(&kind_of(&change), (&key.namespace, &key.name), &change).await?
        }
        Write::Delete(key) => {
            return match cluster.delete(&resource(&key.kind, slices), &key.namespace, &key.name).await {
                Ok(()) | Err(ApiError::NotFound { .. }) => Ok(u64::MAX),
                Err(error) => Err(error),
            };
        }
        Write::Untaint { node, taints, version } => {
            let change = json!({
                "metadata": { "resourceVersion": version.to_string() },
                "spec": { "taints": taints },
            });
            cluster.merge(&Resource::of(Kind::Node), ("", &node), &change).await?
        }
    };
    Ok(written["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default())
}
