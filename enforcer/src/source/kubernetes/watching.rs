//! One watch per kind, and the task that puts together what they say.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, watcher},
    },
};
use tokio::sync::{mpsc, watch};

use super::{
    Cluster, DocumentKey, MANAGED_BY, Resource, Told,
    raw::Raw,
    view::{Event, Taken, View},
};
use crate::model::Kind;

/// Objects of one page of a list.
const PAGE: u32 = 250;
/// Seconds until the server ends a watch, which is then resumed: a connection that died in silence is noticed a
/// little later than that.
const WATCH_SECONDS: u32 = 60;
/// Events that wait to be put together.
const BACKLOG: usize = 256;
/// First and longest time until the server is asked again.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Which pods a role wants to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pods {
    None,
    All,
    /// Those of the node that Kubernetes calls so.
    OfNode(String),
}

/// What a role watches, on top of all kinds of ours, Namespaces and Nodes.
#[derive(Clone, Debug)]
pub struct Interest {
    pub pods: Pods,
    /// Services and EndpointSlices, all of them, and nothing else: what names are made of, with or without us.
    pub only_services: bool,
    /// What a controller of ours has written, see [`super::MANAGED_BY`].
    pub written: bool,
}

/// One list and watch.
struct Watch {
    /// `None`: documents that a controller wrote, whatever they mean.
    kind: Option<Kind>,
    resource: Resource,
    namespace: &'static str,
    fields: String,
    labels: String,
}

impl Watch {
    fn of(kind: Kind) -> Self {
        let resource = Resource::of(kind);
        Self { kind: Some(kind), resource, namespace: "", fields: String::new(), labels: String::new() }
    }

    fn written(resource: Resource) -> Self {
        let labels = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
        Self { kind: None, resource, namespace: "", fields: String::new(), labels }
    }
}

/// Watches that the interest needs.
fn watches(interest: &Interest, slices: Resource) -> Vec<Watch> {
    if interest.only_services {
        return vec![Watch::of(Kind::Service), Watch { resource: slices, ..Watch::of(Kind::EndpointSlice) }];
    }
    let ours = Kind::ALL.iter().copied().filter(|kind| kind.is_ours());
    let mut watches: Vec<Watch> = ours.chain([Kind::Namespace, Kind::Node]).map(Watch::of).collect();
    match &interest.pods {
        Pods::None => {}
        Pods::All => watches.push(Watch::of(Kind::Pod)),
        Pods::OfNode(node) => {
            watches.push(Watch { fields: format!("spec.nodeName={node}"), ..Watch::of(Kind::Pod) });
        }
    }
    if interest.written {
        let kinds = [Kind::Service, Kind::ServiceConnection].map(Resource::of);
        watches.extend(kinds.into_iter().chain([slices, Resource::CONFIG_MAP]).map(Watch::written));
    }
    let slices = Watch { resource: slices, ..Watch::of(Kind::EndpointSlice) };
    // Where the API server and the DNS are, see `resolve::infrastructure`.
    let (server, dns) = ("default", "kube-system");
    watches.push(Watch {
        namespace: server,
        fields: "metadata.name=kubernetes".to_owned(),
        ..Watch::of(Kind::Service)
    });
    watches.push(Watch {
        namespace: server,
        labels: "kubernetes.io/service-name=kubernetes".to_owned(),
        resource: slices.resource,
        ..Watch::of(Kind::EndpointSlice)
    });
    watches.push(Watch { namespace: dns, ..Watch::of(Kind::Service) });
    watches.push(Watch { namespace: dns, ..slices });
    watches
}

pub(super) fn follow(cluster: &Cluster, interest: &Interest) -> watch::Receiver<Told> {
    let (sender, receiver) = watch::channel(Told::default());
    let (cluster, interest) = (cluster.clone(), interest.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = put_together(&cluster, &interest, &sender) => {}
        }
    });
    receiver
}

async fn put_together(cluster: &Cluster, interest: &Interest, sender: &watch::Sender<Told>) {
    let slices = slices(cluster).await;
    let watches = watches(interest, slices);
    let mut view = View::new(watches.len());
    let (say, mut said) = mpsc::channel(BACKLOG);
    let mut tasks = tokio::task::JoinSet::new();
    for (number, watch) in watches.into_iter().enumerate() {
        tasks.spawn(run(cluster.clone(), watch, number, say.clone()));
    }
    while let Some((number, event)) = said.recv().await {
        view.take(number, event);
        // One view for everything that is there.
        while let Ok((number, event)) = said.try_recv() {
            view.take(number, event);
        }
        if let Some(told) = view.tell() {
            sender.send_replace(told);
        }
    }
}

/// The version of EndpointSlices, as soon as the server says which it has.
async fn slices(cluster: &Cluster) -> Resource {
    let mut waits = Waits::default();
    loop {
        match cluster.endpoint_slices().await {
            Ok(resource) => return resource,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, "the API server does not say what it serves");
            }
        }
        tokio::time::sleep(waits.next().unwrap_or(LONGEST_WAIT)).await;
    }
}

type Said = mpsc::Sender<(usize, Event)>;

async fn run(cluster: Cluster, watch: Watch, number: usize, say: Said) {
    let api: Api<Raw> = if watch.namespace.is_empty() {
        Api::all_with(cluster.client.clone(), &watch.resource.api())
    } else {
        Api::namespaced_with(cluster.client.clone(), watch.namespace, &watch.resource.api())
    };
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    if !watch.fields.is_empty() {
        config = config.fields(&watch.fields);
    }
    if !watch.labels.is_empty() {
        config = config.labels(&watch.labels);
    }
    let mut events = watcher(api, config).backoff(Waits::default()).into_stream().boxed();
    let mut troubled = false;
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => {
                // A list that begins may fail all the same.
                if troubled && !matches!(event, watcher::Event::Init) {
                    troubled = false;
                    tracing::info!(kind = watch.resource.plural, "the API server answers again");
                    // Whoever does not listen any more has ended this task as well.
                    let _over = say.send((number, Event::Trouble(None))).await;
                }
                taken(&watch, event)
            }
            Ok(None) => return,
            Err(error) => trouble(&watch, &error, &mut troubled),
        };
        if let Some(event) = event
            && say.send((number, event)).await.is_err()
        {
            return;
        }
    }
}

fn taken(watch: &Watch, event: watcher::Event<Raw>) -> Option<Event> {
    let put = |mut raw: Raw| {
        if let Some(kind) = watch.kind {
            return Some(Event::Put(Box::new(Taken::of(kind, raw.document)?)));
        }
        // Items of a list do not say what they are.
        raw.document["kind"] = watch.resource.kind.into();
        raw.document["apiVersion"] = watch.resource.api_version().into();
        Some(Event::Document(DocumentKey::of(&raw.document), Box::new(raw.document)))
    };
    match event {
        watcher::Event::Init => Some(Event::Begin),
        watcher::Event::InitApply(raw) | watcher::Event::Apply(raw) => put(raw),
        watcher::Event::InitDone => Some(Event::Complete),
        watcher::Event::Delete(raw) => Some(match put(raw)? {
            Event::Put(taken) => Event::Gone(taken.key),
            Event::Document(key, _) => Event::NoDocument(key),
            other => other,
        }),
    }
}

/// What to say of an error. That a version is too old to go on from is no trouble: a new list follows.
fn trouble(watch: &Watch, error: &watcher::Error, troubled: &mut bool) -> Option<Event> {
    let status = match error {
        watcher::Error::WatchError(status)
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(&**status),
        _ => None,
    };
    let plural = watch.resource.plural;
    let message = match status.map(|status| (status.code, status.message.as_str())) {
        Some((410, _)) => {
            tracing::info!(kind = plural, "the API server has forgotten where the watch was, listing again");
            return None;
        }
        Some((404, _)) if watch.kind.is_some_and(Kind::is_ours) => {
            format!("it has no {plural}, expected the definitions that `enforcer install` prints")
        }
        Some((403, message)) => format!("{plural} may not be read: {message}"),
        _ => format!("{plural} cannot be followed, what was said last is in force: {}", chain(error)),
    };
    if !std::mem::replace(troubled, true) {
        tracing::warn!(kind = plural, "{message}");
    }
    Some(Event::Trouble(Some(message)))
}

/// The error and what caused it, each once.
fn chain(error: &dyn std::error::Error) -> String {
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

/// Doubles, with a quarter more or less by chance: what lost its server together does not come back together.
#[derive(Debug)]
struct Waits {
    next: Duration,
    chance: RandomState,
    drawn: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self { next: FIRST_WAIT, chance: RandomState::new(), drawn: 0 }
    }
}

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let base = self.next;
        self.next = (base * 2).min(LONGEST_WAIT);
        self.drawn += 1;
        let percent = 75 + self.chance.hash_one(self.drawn) % 50;
        Some(base * u32::try_from(percent).unwrap_or(100) / 100)
    }
}

impl Backoff for Waits {
    fn reset(&mut self) {
        self.next = FIRST_WAIT;
    }
}
