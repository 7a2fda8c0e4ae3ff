//! The zone as objects and allocations change.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Zone, book::Book};
use crate::{
    resolve::{Before, Resolved, without_connections},
    source::Followed,
    state::State,
    store::Snapshot,
};

/// What tells that everything is known that there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ready {
    /// Names of destinations are made of allocations: there are some.
    WithState,
    /// The names of all of them are those of Services: the lists of those are complete.
    WithObjects,
}

pub(super) fn follow(followed: Followed, domain: &str) -> watch::Receiver<Arc<Zone>> {
    let ready = if followed.server.is_some() { Ready::WithObjects } else { Ready::WithState };
    let mut names = Names::new(domain, ready);
    let Followed { mut snapshots, mut states, server } = followed;
    let zone = names.zone(&snapshots.borrow_and_update().clone(), states.borrow_and_update().as_ref());
    let (sender, receiver) = watch::channel(zone);
    tokio::spawn(async move {
        // Its watches end with it.
        let _server = server;
        loop {
            let changed = tokio::select! {
                changed = snapshots.changed() => changed,
                changed = states.changed() => changed,
                () = sender.closed() => return,
            };
            if let Err(error) = changed {
                tracing::error!(%error, "names are not followed any more");
                return;
            }
            let snapshot = snapshots.borrow_and_update().clone();
            let state = states.borrow_and_update().clone();
            let next = names.zone(&snapshot, state.as_ref());
            sender.send_if_modified(|zone| {
                let (was, is) = (zone.is_ready(), next.is_ready());
                if is && !was {
                    tracing::info!(objects = snapshot.objects.len(), "every name is known, answering");
                }
                *zone = next;
                is
            });
        }
    });
    receiver
}

pub(super) struct Names {
    book: Book,
    ready: Ready,
    resolved: Option<(Arc<Snapshot>, Arc<State>, Resolved)>,
}

impl Names {
    pub fn new(domain: &str, ready: Ready) -> Self {
        Self { book: Book::new(domain), ready, resolved: None }
    }

    pub fn zone(&mut self, snapshot: &Arc<Snapshot>, state: Option<&Arc<State>>) -> Arc<Zone> {
        let ready = match self.ready {
            Ready::WithState => state.is_some(),
            Ready::WithObjects => snapshot.revision > 0,
        };
        if !ready {
            return self.book.zone();
        }
        let is_new = state.is_some_and(|state| self.resolve(snapshot, state));
        let destinations = self.resolved.as_ref().map(|(.., resolved)| resolved).filter(|_| is_new);
        self.book.update(snapshot, destinations);
        self.book.zone()
    }

    /// Whether the destinations may be others than before. Connections, of which most changes are, have no names.
    fn resolve(&mut self, snapshot: &Arc<Snapshot>, state: &Arc<State>) -> bool {
        let before = self.resolved.take();
        let holds = before.as_ref().is_some_and(|(before, old, resolved)| {
            Before { snapshot: before, state: old, resolved }.holds(snapshot, state)
        });
        let resolved = before.filter(|_| holds).map(|(.., resolved)| resolved);
        let is_new = resolved.is_none();
        let resolved = resolved.unwrap_or_else(|| without_connections(snapshot, state));
        self.resolved = Some((Arc::clone(snapshot), Arc::clone(state), resolved));
        is_new
    }
}
