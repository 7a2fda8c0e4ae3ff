//! Tells that something in a folder may have changed. Only a hint: who listens looks for himself, and looks now and
//! then without a hint as well, because inotify has limits and does not see every file system.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::sync::mpsc;

/// Changes in one folder, files in its subfolders not included.
pub struct Changes {
    /// Events end when it is dropped; `None` where the kernel refused one.
    watcher: Option<RecommendedWatcher>,
    hints: mpsc::Receiver<()>,
    renamed: Names,
}

/// Names of files that were renamed into the folder and not touched since.
type Names = Arc<Mutex<BTreeSet<String>>>;

impl Changes {
    pub fn of(dir: &Path) -> Self {
        // One place is enough: a hint that waits says as much as many.
        let (sender, hints) = mpsc::channel(1);
        let renamed = Names::default();
        let names = Arc::clone(&renamed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = &event {
                note(event, &names);
            }
            // Reading the folder makes events too, and must not lead to reading it again.
            if event.map_or(true, |event| changes_content(event.kind)) {
                let _full_already = sender.try_send(());
            }
        })
        .and_then(|mut watcher| watcher.watch(dir, RecursiveMode::NonRecursive).map(|()| watcher));
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "no events of the folder, it is polled");
                None
            }
        };
        Self { watcher, hints, renamed }
    }

    /// Names of files that were renamed into the folder since the last call, as far as inotify tells: such a file is
    /// whole, nobody writes it in place.
    pub fn renamed_in(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.renamed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns at the next hint, or after `longest` without one.
    pub async fn next(&mut self, longest: Duration) {
        if self.watcher.is_none() {
            tokio::time::sleep(longest).await;
        } else {
            let _timeout = tokio::time::timeout(longest, self.hints.recv()).await;
        }
    }
}

fn note(event: &Event, names: &Names) {
    let into = match event.kind {
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => true,
        EventKind::Modify(ModifyKind::Data(_)) | EventKind::Create(_) => false,
        _ => return,
    };
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    for path in &event.paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if into {
            names.insert(name.to_owned());
        } else {
            names.remove(name);
        }
    }
}

const fn changes_content(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
