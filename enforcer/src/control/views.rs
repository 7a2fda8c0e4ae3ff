//! A role's view of itself, made when somebody asks: with thousands of objects it costs more than most changes.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};

use super::View;

/// A role that is busy for longer answers with what it said last.
const PATIENCE: Duration = Duration::from_secs(1);

/// The asking end.
#[derive(Clone, Debug)]
pub struct Views {
    view: watch::Receiver<View>,
    /// `None`: the latest view is always there.
    ask: Option<Arc<Notify>>,
}

/// The role's end.
#[derive(Debug)]
pub struct Asked {
    view: watch::Sender<View>,
    ask: Arc<Notify>,
}

impl Views {
    /// Of a role that makes its view whenever something changes.
    pub const fn told(view: watch::Receiver<View>) -> Self {
        Self { view, ask: None }
    }

    /// Of a role that waits to be asked.
    pub fn asked() -> (Asked, Self) {
        let (sender, view) = watch::channel(View::default());
        let ask = Arc::new(Notify::new());
        (Asked { view: sender, ask: Arc::clone(&ask) }, Self { view, ask: Some(ask) })
    }

    /// A view of this moment.
    pub async fn fresh(&mut self) -> watch::Ref<'_, View> {
        if let Some(ask) = &self.ask {
            self.view.mark_unchanged();
            ask.notify_one();
            let _busy = tokio::time::timeout(PATIENCE, self.view.changed()).await;
        }
        self.view.borrow()
    }
}

impl Asked {
    /// Somebody wants a view.
    pub async fn wanted(&self) {
        self.ask.notified().await;
    }

    pub fn answer(&self, view: View) {
        self.view.send_replace(view);
    }
}
