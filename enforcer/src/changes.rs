//! Tells that something in a folder may have changed, and what. Only hints: who listens looks for himself, and looks
//! now and then without a hint as well, because inotify has limits and does not see every file system.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::sync::mpsc;

/// So many names are remembered. More of them say no more than that anything may have changed.
const MOST_NAMES: usize = 1000;

/// What may have changed in a folder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hints {
    /// Anything may have, whatever `names` has.
    pub all: bool,
    /// Names in the folder, each with whether a file was renamed to it and not touched since: such a file is whole,
    /// nobody writes it in place.
    pub names: BTreeMap<String, bool>,
}

impl Hints {
    /// Whether a file was renamed to this name and not touched since.
    pub fn renamed(&self, name: &str) -> bool {
        self.names.get(name).copied().unwrap_or_default()
    }
}

/// Changes in one folder, files in its subfolders not included.
pub struct Changes {
    /// Events end when it is dropped; `None` where the kernel refused one.
    watcher: Option<RecommendedWatcher>,
    hints: mpsc::Receiver<()>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    hints: Hints,
    /// The watched folder was moved or deleted: what is at its path now is another one, without events.
    lost: bool,
}

impl Changes {
    pub fn of(dir: &Path) -> Self {
        // One place is enough: a hint that waits says as much as many.
        let (sender, hints) = mpsc::channel(1);
        let seen = Arc::<Mutex<Seen>>::default();
        let noted = Arc::clone(&seen);
        // Events have absolute paths. Where there is none, no event is of this folder, and all say everything.
        let root = std::path::absolute(dir).unwrap_or_default();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if lock(&noted).note(event.as_ref().ok(), &root) {
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
        Self { watcher, hints, seen }
    }

    /// What may have changed since the last call.
    pub fn hints(&self) -> Hints {
        let mut seen = lock(&self.seen);
        let mut hints = std::mem::take(&mut seen.hints);
        hints.all |= seen.lost || self.watcher.is_none();
        hints
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

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Returns whether the event is worth a look. One that cannot be told could have been any.
    fn note(&mut self, event: Option<&Event>, root: &Path) -> bool {
        let Some(event) = event.filter(|event| !event.need_rescan() && !event.paths.is_empty()) else {
            self.hints.all = true;
            return true;
        };
        if !changes_content(event.kind) {
            return false;
        }
        for path in &event.paths {
            let name = path.file_name().and_then(|name| name.to_str());
            match name.filter(|_| path.parent() == Some(root)) {
                Some(name) => self.name(name, event.kind),
                None => self.hints.all = true,
            }
            if path.parent() != Some(root) {
                self.lost |=
                    matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
            }
        }
        true
    }

    fn name(&mut self, name: &str, kind: EventKind) {
        if self.hints.names.len() >= MOST_NAMES {
            self.hints = Hints { all: true, names: BTreeMap::new() };
        }
        let renamed = self.hints.names.entry(name.to_owned()).or_default();
        match kind {
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => *renamed = true,
            EventKind::Modify(ModifyKind::Data(_)) | EventKind::Create(_) => *renamed = false,
            _ => {}
        }
    }
}

const fn changes_content(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        // Reading the folder makes events too, and must not lead to reading it again; a rename within it was told
        // as two events before.
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use notify::event::{CreateKind, DataChange, Flag, MetadataKind, RemoveKind};

    use super::*;

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(path.into())
    }

    #[test]
    fn events_name_what_changed_and_doubt_means_everything() {
        let (to, from) = (RenameMode::To, RenameMode::From);
        let renamed = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let created = EventKind::Create(CreateKind::File);
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let removed = EventKind::Remove(RemoveKind::File);
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let mode = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        let (nothing, everything) = (Hints::default(), Hints { all: true, names: BTreeMap::new() });
        let only = |renamed| Hints { all: false, names: BTreeMap::from([("a".to_owned(), renamed)]) };
        // Events, what they say, and whether the folder is lost from then on.
        let table = [
            (vec![event(opened, "/d/a"), event(opened, "/d")], nothing.clone(), false),
            (vec![event(renamed(to), "/d/a")], only(true), false),
            (vec![event(renamed(to), "/d/a"), event(mode, "/d/a")], only(true), false),
            (vec![event(renamed(to), "/d/a"), event(data, "/d/a")], only(false), false),
            (vec![event(renamed(to), "/d/a"), event(created, "/d/a")], only(false), false),
            (vec![event(created, "/d/a"), event(renamed(to), "/d/a")], only(true), false),
            (vec![event(closed, "/d/a")], only(false), false),
            (vec![event(removed, "/d/a")], only(false), false),
            (vec![event(renamed(from), "/d/a")], only(false), false),
            (vec![event(renamed(RenameMode::Both), "/d/a")], nothing, false),
            (vec![event(mode, "/d")], everything.clone(), false),
            (vec![event(renamed(from), "/d")], everything.clone(), true),
            (vec![event(removed, "/d")], everything.clone(), true),
            (vec![Event::new(EventKind::Other).set_flag(Flag::Rescan)], everything.clone(), false),
            (vec![Event::new(EventKind::Any)], everything.clone(), false),
        ];
        for (events, hints, lost) in table {
            let mut seen = Seen::default();
            let worth: Vec<bool> =
                events.iter().map(|event| seen.note(Some(event), Path::new("/d"))).collect();
            assert_eq!((&seen.hints, seen.lost), (&hints, lost), "{events:?}");
            assert_eq!(worth.contains(&true), hints != Hints::default(), "{events:?}");
        }
        let mut seen = Seen::default();
        assert!(seen.note(None, Path::new("/d")), "an error");
        assert_eq!((seen.hints, seen.lost), (everything, false));
    }

    #[test]
    fn names_that_nobody_asks_for_take_no_more_room_at_some_point() {
        let mut seen = Seen::default();
        for index in 0..MOST_NAMES * 3 {
            let created = event(EventKind::Create(CreateKind::File), &format!("/d/{index}"));
            seen.note(Some(&created), Path::new("/d"));
        }
        assert!(seen.hints.all && seen.hints.names.len() <= MOST_NAMES);
    }

    /// What the kernel says of real files, until it has said what is waited for.
    async fn told(changes: &mut Changes, wanted: &Hints) {
        let mut seen = Hints::default();
        let all_of_it = async {
            while seen != *wanted {
                changes.next(Duration::from_millis(20)).await;
                let more = changes.hints();
                seen.all |= more.all;
                seen.names.extend(more.names);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all_of_it).await.expect("the hints come");
    }

    #[tokio::test]
    async fn files_of_a_folder_are_named_until_the_folder_is_another() {
        let dir: PathBuf = std::env::temp_dir().join(format!("enforcer-changes-{}", std::process::id()));
        let away = dir.with_extension("away");
        for dir in [&dir, &away] {
            let _absent = fs::remove_dir_all(dir);
        }
        fs::create_dir_all(&dir).unwrap();
        let mut changes = Changes::of(&dir);
        let names = |names: &[(&str, bool)]| Hints {
            all: false,
            names: names.iter().map(|(name, renamed)| ((*name).to_owned(), *renamed)).collect(),
        };
        fs::write(dir.join("a"), "one").unwrap();
        told(&mut changes, &names(&[("a", false)])).await;
        fs::rename(dir.join("a"), dir.join("b")).unwrap();
        told(&mut changes, &names(&[("a", false), ("b", true)])).await;
        fs::remove_file(dir.join("b")).unwrap();
        told(&mut changes, &names(&[("b", false)])).await;
        assert_eq!(changes.hints(), Hints::default());

        fs::rename(&dir, &away).unwrap();
        fs::create_dir(&dir).unwrap();
        told(&mut changes, &Hints { all: true, names: BTreeMap::new() }).await;
        assert!(changes.hints().all, "what is there now has no events");
        for dir in [&dir, &away] {
            fs::remove_dir_all(dir).unwrap();
        }
    }
}
