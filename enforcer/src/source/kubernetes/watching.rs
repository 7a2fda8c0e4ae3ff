//! What a role watches, and the task that puts together what its watches say.

use tokio::sync::{mpsc, watch};

use super::{
    Cluster, MANAGED_BY, Resource, Told, Watched,
    hearing::{Hearings, together},
    view::{Event, View},
};
use crate::model::Kind;

mod one;
mod pulse;
#[cfg(test)]
mod tests;
mod waits;

use waits::{Pace, Waits};

/// Events that wait to be put together.
const BACKLOG: usize = 256;

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
    pub written: Written,
}

/// What of that which a controller has written is watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    Nothing,
    /// What pods use: Services, EndpointSlices, ConfigMaps.
    ForPods,
    /// Connections as well.
    All,
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

    /// Whether it is about an object of ours, wherever those are.
    fn is_ours(&self) -> bool {
        self.resource.group == Resource::of(Kind::ServiceConnection).group
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
    if interest.written != Written::Nothing {
        let for_pods = [Resource::of(Kind::Service), slices, Resource::CONFIG_MAP];
        watches.extend(for_pods.map(Watch::written));
    }
    if interest.written == Written::All {
        watches.push(Watch::written(Resource::of(Kind::ServiceConnection)));
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

/// Follows objects of ours at one server, and everything else at another, which may be the same.
pub(super) fn follow(ours: &Cluster, others: &Cluster, interest: &Interest) -> Watched {
    let servers = Servers {
        ours: ours.without_retries(),
        others: others.without_retries(),
        interest: interest.clone(),
        pace: Pace::default(),
    };
    servers.follow()
}

/// Where to follow what.
struct Servers {
    ours: Cluster,
    others: Cluster,
    interest: Interest,
    pace: Pace,
}

impl Servers {
    fn follow(self) -> Watched {
        let (sender, told) = watch::channel(Told::default());
        let (hearing, heard) = watch::channel(together(&self.hearings()));
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = put_together(&self, &sender, &hearing) => {}
            }
        });
        Watched { told, heard }
    }

    /// The server of ours, and the other one if it is another.
    fn each(&self) -> Vec<&Cluster> {
        let mut servers = vec![&self.ours, &self.others];
        servers.dedup_by(|one, other| one.server == other.server);
        servers
    }

    fn hearings(&self) -> Vec<Hearings> {
        self.each().into_iter().map(|cluster| Hearings::new(&cluster.server)).collect()
    }

    fn of(&self, watch: &Watch) -> &Cluster {
        if watch.is_ours() { &self.ours } else { &self.others }
    }
}

/// What a watch tells, by its number.
enum Word {
    Event(Event),
    /// It cannot be followed, and why; `None`: it can.
    Trouble(Option<String>),
}

type Words = mpsc::Sender<(usize, Word)>;

async fn put_together(
    servers: &Servers,
    sender: &watch::Sender<Told>,
    hearing: &watch::Sender<super::Hearing>,
) {
    let mut hearings = servers.hearings();
    let last = hearings.len() - 1;
    let tell = |hearings: &[Hearings]| {
        let now = together(hearings);
        hearing.send_if_modified(|known| {
            *known != now && {
                *known = now;
                true
            }
        });
    };
    let slices = slices(&servers.others, servers.pace, |trouble| {
        hearings[last].note(usize::MAX, "what it serves", trouble);
        tell(&hearings);
    })
    .await;
    let watches = watches(&servers.interest, slices);
    let mut names: Vec<_> =
        watches.iter().map(|watch| (if watch.is_ours() { 0 } else { last }, watch.resource.plural)).collect();
    let mut view = View::new(watches.len());
    let (say, mut said) = mpsc::channel(BACKLOG);
    let mut tasks = tokio::task::JoinSet::new();
    let mut silences = Vec::new();
    for (at, cluster) in servers.each().into_iter().enumerate() {
        let silence = watch::Sender::new(());
        silences.push(silence.subscribe());
        tasks.spawn(pulse::run(cluster.clone(), names.len(), say.clone(), silence, servers.pace));
        names.push((at, "whether it is there"));
    }
    for (number, watch) in watches.into_iter().enumerate() {
        let (cluster, silences) = (servers.of(&watch).clone(), silences[names[number].0].clone());
        tasks.spawn(one::run(cluster, watch, number, say.clone(), silences, servers.pace));
    }
    while let Some(first) = said.recv().await {
        // One view for everything that is there.
        let mut next = Some(first);
        while let Some((number, word)) = next {
            let (server, name) = names[number];
            match word {
                Word::Event(event) => view.take(number, event),
                Word::Trouble(trouble) => hearings[server].note(number, name, trouble),
            }
            next = said.try_recv().ok();
        }
        if let Some(told) = view.tell() {
            hearings.iter_mut().for_each(Hearings::all_told);
            sender.send_replace(told);
        }
        tell(&hearings);
    }
}

/// The version of EndpointSlices, as soon as the server says which it has.
async fn slices(cluster: &Cluster, pace: Pace, mut note: impl FnMut(Option<String>)) -> Resource {
    let mut waits = Waits::new(pace);
    loop {
        match cluster.endpoint_slices().await {
            Ok(resource) => {
                note(None);
                return resource;
            }
            Err(error) => note(Some(one::chain(&error))),
        }
        tokio::time::sleep(waits.next()).await;
    }
}
