//! What a folder tells after many changes, against the same made from nothing; and what it finds by hints, against
//! what it finds by looking at everything.

use std::{fs, process};

use super::*;
use crate::store::Snapshot;

/// Names of objects, so few that files fight over them.
const OBJECTS: [&str; 4] = ["a", "b", "c", "d"];
const FILES: [&str; 5] = ["1.yaml", "2.yaml", "3.json", "4.yml", "5.yaml"];

/// xorshift: the same sequence for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// What a file may say: documents that are good, refused, of no known object, twice in the file; or no YAML.
    fn text(&mut self) -> Vec<u8> {
        if self.below(12) == 0 {
            return self.one(&["", "a: [", "just words", "\u{fffd}: {"]).as_bytes().to_vec();
        }
        if self.below(15) == 0 {
            return vec![0xff, 0xfe];
        }
        let documents: Vec<String> = (0..self.below(4))
            .map(|_| {
                let (name, database) = (self.one(&OBJECTS), self.one(&["x", "y", "y", "y", ""]));
                let kind = if self.below(15) == 0 { "PostgresDatabse" } else { "PostgresDatabase" };
                format!(
                    "{{\"apiVersion\": \"enforcer.dev/v1alpha1\", \"kind\": \"{kind}\", \"metadata\": {{\"name\": \
                     \"{name}\", \"namespace\": \"shop\"}}, \"spec\": {{\"instance\": \"pg\", \"database\": \
                     \"{database}\"}}}}"
                )
            })
            .collect();
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{}]}}", documents.join(", "))
            .into_bytes()
    }
}

/// A folder that is looked at by somebody with hints and by somebody without.
struct Twins {
    dir: PathBuf,
    hinted: Folder,
    thorough: Folder,
    /// Who owned what when everything was told last, for the view that is made from nothing.
    owners: BTreeMap<ObjectKey, Arc<str>>,
    now: Instant,
    hints: Hints,
}

impl Twins {
    fn start(dir: PathBuf, now: Instant) -> Self {
        let begin = |copies: &str| {
            let accepted = Accepted::open(dir.join(copies), true);
            let mut folder = Folder::new(&dir.join("files")).remembering(accepted);
            folder.read_all();
            folder.looked = Some(now);
            folder
        };
        let (hinted, thorough) = (begin("hinted"), begin("thorough"));
        let remembered = Accepted::open(dir.join("hinted"), false);
        let owners = remembered.all().flat_map(|(name, objects)| {
            objects.keys().map(|key| (key.clone(), Arc::clone(name))).collect::<Vec<_>>()
        });
        Self { hinted, thorough, owners: owners.collect(), dir, now, hints: Hints::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join("files").join(name)
    }

    fn hint(&mut self, name: &str, renamed: bool) {
        self.hints.names.insert(name.to_owned(), renamed);
    }

    /// Something happens to a file. The hints say it, now and then only that there was something.
    fn change(&mut self, dice: &mut Dice) {
        let name = dice.one(&FILES);
        match dice.below(10) {
            0..=3 => self.hint(name, true),
            4..=6 => self.hint(name, false),
            7 | 8 => {
                self.hint(name, false);
                let _absent = fs::remove_file(self.path(name));
                return;
            }
            _ => {
                let other = dice.one(&FILES);
                if fs::rename(self.path(name), self.path(other)).is_ok() {
                    self.hint(name, false);
                    self.hint(other, true);
                }
                return;
            }
        }
        self.hints.all |= dice.below(20) == 0;
        // Beside it and then there, so that no two versions have one inode, length and time.
        fs::write(self.dir.join("new"), dice.text()).unwrap();
        fs::rename(self.dir.join("new"), self.path(name)).unwrap();
    }

    /// Both look, and both say what can be made from nothing; what they keep is the same, too.
    fn look(&mut self, context: &str) {
        let hints = std::mem::take(&mut self.hints);
        let found = [
            self.hinted.look(self.now, &hints),
            self.thorough.look(self.now, &Hints { all: true, ..hints.clone() }),
        ];
        let before = self.hinted.told.clone();
        let told = self.hinted.snapshot();
        let thorough = self.thorough.snapshot();
        assert_eq!(*told, *thorough, "{context}: hints say less than a look at everything: {hints:?}");
        assert_eq!(self.hinted.rests(), self.thorough.rests(), "{context}");
        assert!(found[0] || before.is_none_or(|before| Arc::ptr_eq(&before, &told)), "{context}");
        let nothing = from_nothing(&self.hinted, &mut self.owners, told.revision);
        assert_eq!(*told, nothing, "{context}: another view than one made from nothing");
        for (folder, copies) in [(&mut self.hinted, "hinted"), (&mut self.thorough, "thorough")] {
            folder.keep();
            let kept = folder.accepted.as_ref().map(copies_of);
            assert_eq!(kept, Some(accepted_from_nothing(folder)), "{context}: {copies} keeps something else");
        }
    }

    /// What is kept is on the disk.
    fn end(self, context: &str) -> Instant {
        for (folder, copies) in [(self.hinted, "hinted"), (self.thorough, "thorough")] {
            let kept = copies_of(&Accepted::open(self.dir.join(copies), false));
            assert_eq!(folder.accepted.as_ref().map(copies_of), Some(kept), "{context}: {copies}");
        }
        self.now
    }
}

fn copies_of(accepted: &Accepted) -> BTreeMap<Arc<str>, Objects> {
    accepted.all().map(|(name, objects)| (Arc::clone(name), objects.clone())).collect()
}

/// A view that shares nothing with one before it.
fn from_nothing(folder: &Folder, owners: &mut BTreeMap<ObjectKey, Arc<str>>, revision: u64) -> Snapshot {
    let files = &folder.files;
    owners.retain(|key, name| files.get(name).is_some_and(|file| file.objects.contains_key(key)));
    let mut snapshot = Snapshot { revision, ..Snapshot::default() };
    snapshot.problems.extend(folder.problem.clone());
    snapshot.incomplete = folder.problem.is_some() || files.values().any(|file| file.incomplete);
    for (name, file) in files {
        snapshot.problems.extend(file.problems.iter().cloned());
        for (key, object) in &file.objects {
            let owner = owners.entry(key.clone()).or_insert_with(|| name.clone());
            if owner != name {
                snapshot.problems.push(Problem {
                    origin: name.to_string(),
                    object: key.to_string(),
                    field: String::new(),
                    message: format!("stands in {owner} already, which is used"),
                });
                continue;
            }
            snapshot.origins.insert(key.clone(), name.clone());
            snapshot.objects.insert(key.clone(), object.clone());
        }
        let why = file.problems.first().map(ToString::to_string).unwrap_or_default();
        let kept = file.kept.iter().filter(|key| owners.get(*key) == Some(name));
        snapshot.kept.extend(kept.map(|key| (key.clone(), why.clone())));
    }
    for (key, Leaving { object, origin, .. }) in &folder.leaving {
        if !snapshot.objects.contains_key(key) {
            snapshot.origins.insert(key.clone(), origin.clone());
            snapshot.objects.insert(key.clone(), object.clone());
        }
    }
    snapshot
}

fn accepted_from_nothing(folder: &Folder) -> BTreeMap<Arc<str>, Objects> {
    let own = |(name, file): (&Arc<str>, &File)| {
        let own = file.objects.iter().filter(|(key, _)| folder.owners.owns(key, name));
        (Arc::clone(name), own.map(|(key, object)| (key.clone(), Arc::clone(object))).collect())
    };
    folder.files.iter().map(own).collect()
}

#[test]
fn a_view_is_the_same_whatever_it_was_made_of() {
    let dir = std::env::temp_dir().join(format!("enforcer-folder-{}-views", process::id()));
    for seed in 1..=20 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let _absent = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("files")).unwrap();
        let mut now = Instant::now();
        for start in 0..2 {
            let mut twins = Twins::start(dir.clone(), now);
            for step in 0..60 {
                for _ in 0..dice.below(4) {
                    twins.change(&mut dice);
                }
                twins.now += SETTLE * dice.below(5) as u32 / 2;
                twins.look(&format!("seed {seed}, start {start}, step {step}"));
            }
            now = twins.end(&format!("seed {seed}, start {start}"));
        }
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_tried_at_every_look() {
    let dir = std::env::temp_dir().join(format!("enforcer-folder-{}-tried", process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("a.yaml"), [0xff]).unwrap();
    let mut folder = Folder::new(&dir);
    folder.read_all();
    assert_eq!(folder.snapshot().problems.len(), 1);
    fs::write(dir.join("a.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n").unwrap();
    // Nothing that can be seen from outside tells that it can be read now.
    folder.files.get_mut("a.yaml").unwrap().read = Prints::all(&dir).unwrap().of["a.yaml"];
    assert!(folder.look(Instant::now(), &Hints::default()));
    let told = folder.snapshot();
    assert_eq!((told.objects.len(), &told.problems), (1, &vec![]));
    fs::remove_dir_all(&dir).unwrap();
}
