//! One kind: a list, and a watch from where it ended, for as long as the server goes on from there.

use std::{convert::Infallible, error::Error, future::Future, io, pin::pin, time::Duration};

use futures::{Stream, StreamExt as _};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::{sync::watch, time::Instant};

use super::{Pace, Waits, Watch, Word, Words, waits::Went};
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

/// Follows it until nobody listens any more; anew whenever the server was silent.
pub(super) async fn run(
    cluster: Cluster,
    watch: Watch,
    number: usize,
    say: Words,
    silences: watch::Receiver<()>,
    pace: Pace,
) {
    let api: Api<Raw> = if watch.namespace.is_empty() {
        Api::all_with(cluster.client, &watch.resource.api())
    } else {
        Api::namespaced_with(cluster.client, watch.namespace, &watch.resource.api())
    };
    let waits = Waits::new(pace);
    let mut one = One { api, watch, number, say, silences, pace, waits, troubled: false, unproven: false };
    let Err(Over) = one.follow().await;
}

/// Nobody listens any more.
struct Over;

/// Why there is no answer, or not the one that was asked for.
pub(super) enum Failure {
    Silent,
    /// A watch went on when the server should have ended it.
    Endless,
    Refused(kube::Error),
}

impl Failure {
    /// The server has forgotten where the watch, or the list, was.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Refused(kube::Error::Api(status)) if status.code == 410)
    }

    /// Nobody has answered at all, not even with a refusal.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Silent | Self::Refused(kube::Error::HyperError(_) | kube::Error::Service(_)))
    }

    pub fn text(&self) -> String {
        match self {
            Self::Silent => "it does not answer".to_owned(),
            Self::Endless => {
                "it does not end a watch that should be over, and may not have told everything".to_owned()
            }
            Self::Refused(error) => chain(error),
        }
    }
}

pub(super) async fn answer<T>(
    within: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    let answer = tokio::time::timeout(within, request).await.map_err(|_| Failure::Silent)?;
    answer.map_err(|error| if is_late(&error) { Failure::Silent } else { Failure::Refused(error) })
}

/// Whether a connection took too long to come about, to a server that takes it and says nothing.
fn is_late(error: &(dyn Error + 'static)) -> bool {
    let is_late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
    error.downcast_ref().is_some_and(is_late) || error.source().is_some_and(self::is_late)
}

struct One {
    api: Api<Raw>,
    watch: Watch,
    number: usize,
    say: Words,
    silences: watch::Receiver<()>,
    pace: Pace,
    waits: Waits,
    troubled: bool,
    /// The last watch was answered and went wrong; no other has told anything since.
    unproven: bool,
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
            let page = match answer(self.pace.answer, self.api.list(&params)).await {
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
        let seconds = u32::try_from(self.pace.watch.as_secs()).unwrap_or(u32::MAX);
        let mut params = WatchParams::default().timeout(seconds);
        params.field_selector = Some(self.watch.fields.clone()).filter(|fields| !fields.is_empty());
        params.label_selector = Some(self.watch.labels.clone()).filter(|labels| !labels.is_empty());
        loop {
            self.silences.mark_unchanged();
            let stream = match answer(self.pace.answer, self.api.watch(&params, &version)).await {
                Ok(stream) => stream,
                Err(failure) if failure.is_gone() => return self.forgotten().await,
                Err(failure) => {
                    self.failed(failure).await?;
                    continue;
                }
            };
            if !self.unproven {
                self.succeeded().await?;
            }
            let Some(went) = self.hear(stream, &mut version).await? else { return self.forgotten().await };
            tokio::time::sleep(self.waits.after(&went)).await;
        }
    }

    /// Tells what one watch tells, to its end. `None`: the server has forgotten where it was to begin.
    async fn hear(
        &mut self,
        stream: impl Stream<Item = kube::Result<WatchEvent<Raw>>>,
        version: &mut String,
    ) -> Result<Option<Went>, Over> {
        let began = Instant::now();
        let until = began + self.pace.watch + self.pace.late;
        let (mut stream, mut went) =
            (pin!(stream), Went { failed: false, told: false, lasted: Duration::ZERO });
        // One that is cut off goes on where it was.
        loop {
            let event = tokio::select! {
                event = tokio::time::timeout_at(until, stream.next()) => event,
                // What the server says after that, it may say to nobody.
                _ = self.silences.changed() => break,
            };
            let next = match event {
                Ok(Some(Ok(WatchEvent::Added(raw) | WatchEvent::Modified(raw)))) => {
                    let next = raw.resource_version();
                    self.put(raw).await?;
                    next
                }
                Ok(Some(Ok(WatchEvent::Deleted(raw)))) => {
                    let next = raw.resource_version();
                    self.remove(raw).await?;
                    next
                }
                Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => Some(bookmark.metadata.resource_version),
                Ok(Some(Ok(WatchEvent::Error(status)))) if status.code == 410 => return Ok(None),
                Ok(Some(Ok(WatchEvent::Error(status)))) => {
                    went.failed = true;
                    self.doubt(&Failure::Refused(kube::Error::Api(status))).await?;
                    break;
                }
                Ok(Some(Err(error @ kube::Error::SerdeError(_)))) => {
                    went.failed = true;
                    self.doubt(&Failure::Refused(error)).await?;
                    break;
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!(kind = self.watch.resource.plural, "cut off: {}", chain(&error));
                    break;
                }
                Ok(None) => {
                    self.proven().await?;
                    break;
                }
                Err(_elapsed) => {
                    self.doubt(&Failure::Endless).await?;
                    break;
                }
            };
            if let Some(next) = next.filter(|next| next != version) {
                (*version, went.told) = (next, true);
            }
            self.proven().await?;
        }
        went.lasted = began.elapsed();
        Ok(Some(went))
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
        self.trouble(&failure).await?;
        self.pause().await;
        Ok(())
    }

    /// A watch that was answered is no better for it: that the next one is answered is no sign that it works.
    async fn doubt(&mut self, failure: &Failure) -> Result<(), Over> {
        self.unproven = true;
        self.trouble(failure).await
    }

    /// A watch has told something, or ended when it should.
    async fn proven(&mut self) -> Result<(), Over> {
        self.unproven = false;
        self.succeeded().await
    }

    async fn trouble(&mut self, failure: &Failure) -> Result<(), Over> {
        let message = message(&self.watch, failure);
        if !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!(kind = self.watch.resource.plural, "{message}");
        }
        self.say(Word::Trouble(Some(message))).await
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
    let Failure::Refused(error) = failure else { return failure.text() };
    let plural = watch.resource.plural;
    match error {
        kube::Error::Api(status) if status.code == 404 && watch.kind.is_some_and(Kind::is_ours) => {
            format!("it has no {plural}, expected the definitions that `enforcer install` prints")
        }
        kube::Error::Api(status) if status.code == 403 => format!("not allowed: {}", status.message),
        _ => failure.text(),
    }
}

/// The error and what caused it, each once.
pub(super) fn chain(error: &dyn Error) -> String {
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
