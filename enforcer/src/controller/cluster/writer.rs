//! Sends what was planned, in order, a few at a time and not too many a second.
//!
//! A plan is made anew all the time; of the one before only what is under way is kept. What was written is not
//! written again before the watch has shown it, or has had the time to.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
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

mod last;

use last::{Last, Wish};

/// Requests that are under way at one time.
const AT_ONCE: usize = 8;
/// Requests a second, and how many may be saved up.
const RATE: f64 = 30.0;
const BURST: f64 = 60.0;
/// How long nothing may happen.
const IDLE: Duration = Duration::from_secs(30);

/// What became of a write.
struct Done {
    target: Target,
    wish: Wish,
    was_create: bool,
    /// Version that the watch had shown.
    shown: u64,
    /// The version of the object after it.
    result: Result<u64, ApiError>,
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
        self.last
            .retain(|target, last| planned.contains(target) || last.problem().is_none() && last.matters(now));
        for write in writes {
            let target = write.target();
            if self.busy.contains(&target) {
                continue;
            }
            let (wish, shown) = (wish(&write), shown(told, &target));
            let last = self.last.get(&target);
            if let Some(at) = last.and_then(|last| last.not_before(wish, shown, now)) {
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
            let is_again = self.last.get(&write.target()).is_some_and(|last| last.is_again(wish));
            let sender = Sender { cluster: self.cluster.clone(), slices: self.slices, is_again };
            self.running.spawn(sender.send(write, wish, shown));
        }
    }

    fn later(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
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
        let Ok(Done { target, wish, was_create, shown, result }) = done else {
            // A panic of the client: what it was about is not known, so that everything may be sent again.
            self.busy.clear();
            return;
        };
        self.busy.remove(&target);
        let now = Instant::now();
        let last = self.last.entry(target.clone()).or_default();
        match result {
            Ok(version) => last.succeeded(wish, version, now),
            Err(error) => {
                self.failed += 1;
                let is_conflict = matches!(error, ApiError::Conflict { .. });
                if let (true, true, Target::Document(key)) = (was_create, is_conflict, target) {
                    self.taken.push(key);
                }
                let problem = format!("{:#}", anyhow::Error::new(error));
                let conflict = (is_conflict && !was_create).then_some(shown);
                let wait = last.failed(problem.clone(), conflict, now);
                tracing::warn!(problem, "not written, tried again in {wait:?}");
            }
        }
    }

    /// Names that were found to be somebody else's since the last call.
    pub fn finished(&mut self) -> Vec<DocumentKey> {
        std::mem::take(&mut self.taken)
    }

    /// What could not be written, each with the reason.
    pub fn failures(&self) -> Vec<String> {
        self.last.values().filter_map(Last::problem).map(str::to_owned).collect()
    }

    pub fn counts(&self) -> Value {
        json!({ "sent": self.sent, "failed": self.failed })
    }
}

fn wish(write: &Write) -> Wish {
    let mut content = DefaultHasher::new();
    match write {
        Write::Status { status, .. } => json!(status).to_string().hash(&mut content),
        Write::Create(document) | Write::Change(document) => document.to_string().hash(&mut content),
        Write::Delete(_) => {}
        Write::Untaint { taints, .. } => json!(taints).to_string().hash(&mut content),
    }
    let (is_status, tells) = match write {
        Write::Status { tells, .. } => (true, *tells),
        _ => (false, true),
    };
    Wish { is_status, tells, content: content.finish() }
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

/// Sends one write.
struct Sender {
    cluster: Cluster,
    slices: Resource,
    /// It was written like this before.
    is_again: bool,
}

impl Sender {
    async fn send(self, write: Write, wish: Wish, shown: u64) -> Done {
        let target = write.target();
        let was_create = matches!(write, Write::Create(_));
        let result = self.request(write).await;
        Done { target, wish, was_create, shown, result }
    }

    async fn request(&self, write: Write) -> Result<u64, ApiError> {
        let (cluster, slices) = (&self.cluster, self.slices);
        let kind_of = |document: &Value| resource(document["kind"].as_str().unwrap_or_default(), slices);
        let written = match write {
            Write::Status { key, status, version, .. } => {
                let (resource, document) =
                    (Resource::of(key.kind), Write::status_document(&key, &status, version));
                if self.is_again && version.is_none() {
                    // What somebody else has put into it and we leave empty would stay for ever.
                    cluster.replace_status(&resource, &document).await?
                } else {
                    cluster.apply(&resource, MANAGER, Some("status"), &document).await?
                }
            }
            Write::Create(document) => create(cluster, &kind_of(&document), &document).await?,
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
        Ok(written["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default())
    }
}

/// What is there already is ours where it says so of its owner, whatever else somebody has made of it: our label may be
/// gone, by which it is watched.
async fn create(cluster: &Cluster, resource: &Resource, document: &Value) -> Result<Value, ApiError> {
    let refused = match cluster.create(resource, document).await {
        Err(refused @ ApiError::Conflict { .. }) => refused,
        answered => return answered,
    };
    let key = DocumentKey::of(document);
    let owner = |document: &Value| document["metadata"]["ownerReferences"][0]["uid"].clone();
    match cluster.get(resource, &key.namespace, &key.name).await? {
        Some(there) if owner(&there).is_string() && owner(&there) == owner(document) => {
            cluster.merge(resource, (&key.namespace, &key.name), document).await
        }
        _ => Err(refused),
    }
}
