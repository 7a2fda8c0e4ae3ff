//! One kind: a list, and a watch from where it ended, for as long as the server goes on from there.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};

use super::{Waits, Watch, Word, Words};
use crate::{
    model::Kind,
    source::kubernetes::{
        Cluster, DocumentKey,
        raw::Raw,
        view::{Event, Taken},
    },
};

/// Objects of one page of a list.
const PAGE: u32 = 250;
/// Seconds until the server ends a watch, which is then resumed.
const WATCH_SECONDS: u32 = 60;
/// A watch that says nothing for so long, not even that it ends, has no server any more.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// Until an answer begins.
const ANSWER: Duration = Duration::from_secs(15);
/// A watch that ends so soon and has told nothing is not asked for again at once.
const BRIEF: Duration = Duration::from_secs(1);
const SILENT: &str = "it does not answer";

/// Follows it until nobody listens any more.
pub(super) async fn run(cluster: Cluster, watch: Watch, number: usize, say: Words) {
    let api: Api<Raw> = if watch.namespace.is_empty() {
        Api::all_with(cluster.client, &watch.resource.api())
    } else {
        Api::namespaced_with(cluster.client, watch.namespace, &watch.resource.api())
    };
    let mut one = One { api, watch, number, say, waits: Waits::default(), troubled: false };
    let Err(Over) = one.follow().await;
}

/// Nobody listens any more.
struct Over;

/// Why there is no answer, or not the one that was asked for.
enum Failure {
    Silent,
    Refused(kube::Error),
}

impl Failure {
    /// The server has forgotten where the watch, or the list, was.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Refused(kube::Error::Api(status)) if status.code == 410)
    }
}

async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    let answer = tokio::time::timeout(ANSWER, request).await;
    answer.map_err(|_| Failure::Silent)?.map_err(Failure::Refused)
}

struct One {
    api: Api<Raw>,
    watch: Watch,
    number: usize,
    say: Words,
    waits: Waits,
    troubled: bool,
}

impl One {
    async fn follow(&mut self) -> Result<Infallible, Over> {
        loop {
            if let Some(version) = self.list().await? {
                self.watch(version).await?;
            }
        }
    }

    async fn say(&self, word: Word) -> Result<(), Over> {
        self.say.send((self.number, word)).await.map_err(|_| Over)
    }

    async fn tell(&self, event: Event) -> Result<(), Over> {
        self.say(Word::Event(event)).await
    }

    /// Tells a list. Returns the version to go on from; `None`: it is to be asked for once more, from its beginning.
    async fn list(&mut self) -> Result<Option<String>, Over> {
        self.tell(Event::Begin).await?;
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector = Some(self.watch.fields.clone()).filter(|fields| !fields.is_empty());
        params.label_selector = Some(self.watch.labels.clone()).filter(|labels| !labels.is_empty());
        loop {
            let page = match answer(self.api.list(&params)).await {
                Ok(page) => page,
                Err(failure) => {
                    self.failed(failure).await?;
                    return Ok(None);
                }
            };
            for raw in page.items {
                self.put(raw).await?;
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                self.tell(Event::Complete).await?;
                self.succeeded().await?;
                return Ok(page.metadata.resource_version);
            }
        }
    }

    /// Tells what changes, from watch to watch. Returns when the server has forgotten what there was.
    async fn watch(&mut self, mut version: String) -> Result<(), Over> {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.field_selector = Some(self.watch.fields.clone()).filter(|fields| !fields.is_empty());
        params.label_selector = Some(self.watch.labels.clone()).filter(|labels| !labels.is_empty());
        loop {
            let began = Instant::now();
            let stream = match answer(self.api.watch(&params, &version)).await {
                Ok(stream) => stream,
                Err(failure) if failure.is_gone() => return self.forgotten().await,
                Err(failure) => {
                    self.failed(failure).await?;
                    continue;
                }
            };
            self.succeeded().await?;
            let (mut stream, mut has_told) = (pin!(stream), false);
            // One that is cut off goes on where it was.
            while let Ok(Some(event)) = tokio::time::timeout(SILENCE, stream.next()).await {
                match event {
                    Ok(WatchEvent::Added(raw) | WatchEvent::Modified(raw)) => {
                        version = raw.resource_version().unwrap_or(version);
                        self.put(raw).await?;
                    }
                    Ok(WatchEvent::Deleted(raw)) => {
                        version = raw.resource_version().unwrap_or(version);
                        self.remove(raw).await?;
                    }
                    Ok(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
                    Ok(WatchEvent::Error(status)) if status.code == 410 => return self.forgotten().await,
                    Ok(WatchEvent::Error(status)) => {
                        self.failed(Failure::Refused(kube::Error::Api(status))).await?;
                        break;
                    }
                    Err(error @ kube::Error::SerdeError(_)) => {
                        self.failed(Failure::Refused(error)).await?;
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(kind = self.watch.resource.plural, "cut off: {}", chain(&error));
                        break;
                    }
                }
                has_told = true;
            }
            if has_told || began.elapsed() > BRIEF {
                self.waits.reset();
            } else {
                self.pause().await;
            }
        }
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.waits.next()).await;
    }

    /// That a version is too old to go on from is no trouble: a new list follows.
    async fn forgotten(&mut self) -> Result<(), Over> {
        let kind = self.watch.resource.plural;
        tracing::info!(kind, "the API server has forgotten where the watch was, listing again");
        self.pause().await;
        Ok(())
    }

    async fn succeeded(&mut self) -> Result<(), Over> {
        if std::mem::take(&mut self.troubled) {
            tracing::info!(kind = self.watch.resource.plural, "the API server answers again");
            self.say(Word::Trouble(None)).await?;
        }
        Ok(())
    }

    /// Says what is wrong, and waits.
    async fn failed(&mut self, failure: Failure) -> Result<(), Over> {
        let message = message(&self.watch, &failure);
        if !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!(kind = self.watch.resource.plural, "{message}");
        }
        self.say(Word::Trouble(Some(message))).await?;
        self.pause().await;
        Ok(())
    }

    async fn put(&self, mut raw: Raw) -> Result<(), Over> {
        let event = if let Some(kind) = self.watch.kind {
            let Some(taken) = Taken::of(kind, raw.document) else { return Ok(()) };
            Event::Put(Box::new(taken))
        } else {
            self.name(&mut raw);
            Event::Document(DocumentKey::of(&raw.document), Box::new(raw.document))
        };
        self.tell(event).await
    }

    async fn remove(&self, mut raw: Raw) -> Result<(), Over> {
        let event = if let Some(kind) = self.watch.kind {
            let Some(taken) = Taken::of(kind, raw.document) else { return Ok(()) };
            Event::Gone(taken.key)
        } else {
            self.name(&mut raw);
            Event::NoDocument(DocumentKey::of(&raw.document))
        };
        self.tell(event).await
    }

    /// Items of a list do not say what they are.
    fn name(&self, raw: &mut Raw) {
        raw.document["kind"] = self.watch.resource.kind.into();
        raw.document["apiVersion"] = self.watch.resource.api_version().into();
    }
}

fn message(watch: &Watch, failure: &Failure) -> String {
    let error = match failure {
        Failure::Silent => return SILENT.to_owned(),
        Failure::Refused(error) => error,
    };
    let plural = watch.resource.plural;
    match error {
        kube::Error::Api(status) if status.code == 404 && watch.kind.is_some_and(Kind::is_ours) => {
            format!("it has no {plural}, expected the definitions that `enforcer install` prints")
        }
        kube::Error::Api(status) if status.code == 403 => format!("not allowed: {}", status.message),
        error => chain(error),
    }
}

/// The error and what caused it, each once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
