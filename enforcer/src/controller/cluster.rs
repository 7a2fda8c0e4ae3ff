//! The controller of a cluster: it reads allocations from statuses, and writes statuses, names and what Applications
//! need.
//!
//! ```text
//! watches ─▶ Told ─▶ turn (pure) ─▶ statuses, documents (pure) ─▶ plan (pure) ─▶ requests
//!                                       └─▶ refusals (pure) ─▶ Events
//! ```
//!
//! One controller leads; the others, and one that could not renew its Lease in time, wait for the Lease and know
//! nothing. What is written is compared with what the server has, so that whatever somebody else changed is put right.

use std::{collections::BTreeSet, fs, sync::Arc, time::Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::sync::watch;

use super::{Args, Turns, condition, install, now};
use crate::{
    control::{self, View, Views},
    signals,
    source::{
        informed,
        kubernetes::{
            Cluster, DocumentKey, Hearing, Interest, Pods, Resource, Told, Watched, Written, allocations,
        },
    },
    state::State,
};

mod documents;
mod events;
mod lease;
mod member;
mod plan;
mod refusals;
mod statuses;
mod writer;

use events::Events;
use lease::{Lease, Waiting};
use refusals::Refusals;
use writer::Writer;

/// Owner of the fields that the controller writes.
const MANAGER: &str = "enforcer-controller";

/// Runs until it is told to end.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let cluster = args.source.server().await?;
    fs::create_dir_all(&args.run_dir)
        .with_context(|| format!("cannot make --run-dir {}", args.run_dir.display()))?;
    let (views, view) = watch::channel(waiting_view(&Waiting::Begun));
    let mut serving =
        tokio::spawn(control::serve(args.run_dir.join("controller.sock"), Views::told(view), None));
    let stop = signals::told_to_end()?;
    tokio::pin!(stop);
    let identity = format!("{}-{}", nix::unistd::gethostname()?.display(), std::process::id());
    loop {
        let wait = |waiting: &Waiting| drop(views.send_replace(waiting_view(waiting)));
        let mut lease = tokio::select! {
            lease = Lease::acquire(&cluster, &args.lease_namespace, &identity, wait) => lease,
            ended = &mut serving => return ended.context("the control socket has crashed")?,
            () = &mut stop => return Ok(()),
        };
        let result = tokio::select! {
            result = member::lead(&args, &cluster, &views, lease.held()), if args.project.is_elsewhere() => result,
            result = lead(&args, &cluster, &views, lease.held(), identity.clone()), if !args.project.is_elsewhere() => result,
            () = lease.lost() => {
                tracing::warn!("the lease was lost: another controller may lead now");
                continue;
            }
            ended = &mut serving => ended.context("the control socket has crashed")?,
            () = &mut stop => Ok(()),
        };
        lease.release().await;
        return result;
    }
}

/// What is told while this one does not lead.
fn waiting_view(waiting: &Waiting) -> View {
    let (reason, why) = match waiting {
        Waiting::Begun => ("NotYet", "the lease has not been asked for yet".to_owned()),
        Waiting::Another(holder) => ("AnotherLeads", format!("{holder} leads")),
        Waiting::Failed(error) => ("NoAnswer", format!("the lease cannot be had: {error}")),
    };
    let conditions = [condition("Leading", "Leading", reason, &[why])];
    View { role: json!({ "role": "controller", "name": "", "conditions": conditions }), ..View::default() }
}

/// Leads: every list is asked for anew, so that nothing of a predecessor is missed.
async fn lead(
    args: &Args,
    cluster: &Cluster,
    views: &watch::Sender<View>,
    held: lease::Held,
    identity: String,
) -> anyhow::Result<()> {
    let slices = cluster.endpoint_slices().await?;
    let Watched { mut told, mut heard } =
        cluster.follow(&Interest { pods: Pods::All, only_services: false, written: Written::All });
    told.changed().await.context("the API server is not followed any more")?;
    let first = told.borrow_and_update().clone();
    let mut leader = Leader {
        turns: Turns::from(Arc::new(adopt(args, &first)?)),
        writer: Writer::new(cluster.clone(), slices, held),
        refusals: Refusals::default(),
        events: Events::write(cluster.clone(), identity),
        taken: None,
        slices,
        heard: heard.clone(),
        cluster_name: args.cluster_name.clone(),
    };
    let mut now_told = first;
    loop {
        let view = leader.turn(&now_told);
        views.send_replace(view);
        tokio::select! {
            changed = told.changed() => changed.context("the API server is not followed any more")?,
            // Only what is said of it is new then; the sender lives as long as the other one.
            _ = heard.changed() => {}
            () = leader.writer.wait() => {}
        }
        leader.taken.get_or_insert_default().extend(leader.writer.finished());
        now_told = told.borrow_and_update().clone();
    }
}

/// Allocations as the statuses have them.
fn adopt(args: &Args, told: &Told) -> anyhow::Result<State> {
    let Some(state) = &told.state else {
        return Ok(allocations::onto(install(args)?, &told.facts));
    };
    let pairs = [
        ("--service-range", args.service_range, state.service_range),
        ("--workload-range", args.workload_range, state.workload_range),
    ];
    for (flag, given, kept) in pairs {
        if let Some(given) = given.filter(|given| *given != kept) {
            bail!("{flag} {given}: the objects' status has {kept}, expected the same");
        }
    }
    Ok(State::clone(state))
}

struct Leader {
    turns: Turns,
    writer: Writer,
    refusals: Refusals,
    events: Events,
    /// Names that somebody else has; none before the first turn.
    taken: Option<BTreeSet<DocumentKey>>,
    slices: Resource,
    heard: watch::Receiver<Hearing>,
    /// Of nodes in this cluster, if there are others.
    cluster_name: Option<String>,
}

impl Leader {
    /// One turn: what follows from what is told, and what has to be written for it.
    fn turn(&mut self, told: &Told) -> View {
        let (resolved, problems) = self.turns.turn(&told.snapshot);
        let wanted = documents::wanted(told, &resolved, self.slices);
        let taken = self.taken.get_or_insert_with(|| statuses::taken(told, &wanted));
        taken.retain(|key| wanted.contains_key(key) && !told.documents.contains_key(key));
        let now = now();
        let world = statuses::World {
            told,
            resolved: &resolved,
            wanted: &wanted,
            taken,
            reports: statuses::reports(told),
            now: &now,
        };
        let statuses = statuses::all(&self.turns.state.status, &world);
        self.refusals.take(told, &statuses, Instant::now(), |notice| self.events.tell(notice));
        let mut writes = plan::statuses(told, statuses);
        writes.extend(plan::documents(told, &wanted));
        writes.extend(plan::untaint(told, self.cluster_name.as_deref()));
        self.writer.take(told, writes);
        let failures = self.writer.failures();
        let conditions = [
            condition("Leading", "Leading", "AnotherLeads", &[]),
            informed(&self.heard.borrow()),
            condition("Written", "Written", "WriteFailed", &failures),
            condition("ObjectsAccepted", "Accepted", "Refused", &problems),
        ];
        View {
            snapshot: Arc::clone(&told.snapshot),
            resolved,
            state: Some(Arc::clone(&self.turns.state)),
            role: json!({"role": "controller", "name": "leader", "conditions": conditions, "writes": self.writer.counts() }),
            ..View::default()
        }
    }
}
