//! The folder as a source: what stays, what goes, and when.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch::Receiver;

mod hints;
mod restart;
mod unrest;

use super::{LONGEST_UNREST, Memory, SETTLE, accepted::Accepted, folder::Folder, load, watch};
use crate::{
    changes::Hints,
    model::{Kind, ObjectKey},
    store::Snapshot,
};

const SHOP: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
const BLOG: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: blog}\n";

/// A folder that is gone when the test is.
struct Dir(PathBuf);

impl std::ops::Deref for Dir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _absent = fs::remove_dir_all(&self.0);
        let _absent = fs::remove_dir_all(self.0.with_extension("accepted"));
    }
}

fn folder(name: &str) -> Dir {
    let dir = std::env::temp_dir().join(format!("enforcer-manifests-{}-{name}", std::process::id()));
    let _absent = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder to work in");
    Dir(dir)
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("a file in the folder");
}

/// A folder that was read once, and the moment after.
fn started(dir: &Path) -> (Folder, Instant) {
    let mut folder = Folder::new(dir);
    folder.read_all();
    (folder, Instant::now())
}

fn database(name: &str, database: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: PostgresDatabase\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{instance: pg, database: {database}}}\n"
    )
}

fn own(dir: &Path) -> Memory {
    Memory::Own(dir.with_extension("accepted"))
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.objects.keys().map(ToString::to_string).collect()
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    snapshot.problems.iter().map(ToString::to_string).collect()
}

/// Anything may have changed, and files were renamed to these names.
fn whole(renamed: &[&str]) -> Hints {
    let names = renamed.iter().map(|name| ((*name).to_owned(), true));
    Hints { all: true, names: names.collect() }
}

async fn until(receiver: &mut Receiver<Arc<Snapshot>>, what: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let found = tokio::time::timeout(Duration::from_secs(20), receiver.wait_for(|snapshot| what(snapshot)));
    found.await.expect("the folder's change is seen").expect("the watcher lives").clone()
}

#[test]
fn only_manifests_are_read() {
    let dir = folder("only");
    write(&dir, "a.yaml", SHOP);
    for name in [".a.yaml.swp", ".b.yaml", "a.yaml~", "#a.yaml#", "a.yaml.bak", "README.md", "4913"] {
        write(&dir, name, BLOG);
    }
    fs::create_dir(dir.join("sub.yaml")).expect("a folder with a misleading name");
    let snapshot = load(&dir);
    assert_eq!(names(&snapshot), ["Namespace shop"]);
    assert_eq!(problems(&snapshot), Vec::<String>::new());
}

#[test]
fn documents_lists_and_json_are_read() {
    let dir = folder("documents");
    write(&dir, "a.yaml", &format!("---\n{SHOP}---\n---\n{BLOG}"));
    write(
        &dir,
        "b.yml",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: c}}\n",
    );
    write(
        &dir,
        "c.json",
        r#"{"apiVersion":	"v1", "kind": "Namespace", "metadata": {"name": "d", "uid": "7"}}"#,
    );
    let snapshot = load(&dir);
    assert_eq!(names(&snapshot), ["Namespace blog", "Namespace c", "Namespace d", "Namespace shop"]);
    assert_eq!(problems(&snapshot), Vec::<String>::new());
}

#[test]
fn the_first_file_wins_a_name() {
    let dir = folder("first");
    write(&dir, "b.yaml", &database("orders", "second"));
    write(&dir, "a.yaml", &database("orders", "first"));
    let snapshot = load(&dir);
    let key = ObjectKey::new(Kind::PostgresDatabase, "shop", "orders");
    assert_eq!(&*snapshot.origins[&key], "a.yaml");
    assert_eq!(
        problems(&snapshot),
        ["b.yaml: PostgresDatabase shop/orders: stands in a.yaml already, which is used"]
    );
}

#[tokio::test]
async fn a_slip_of_the_pen_removes_nothing() {
    let dir = folder("slip");
    write(&dir, "a.yaml", &format!("{}---\n{}", database("orders", "one"), database("users", "two")));
    let mut receiver = watch(&*dir, own(&dir)).expect("the folder is there");
    let good = receiver.borrow_and_update().clone();
    assert_eq!(names(&good), ["PostgresDatabase shop/orders", "PostgresDatabase shop/users"]);

    let slips = [
        ("a: [", "does not parse"),
        ("just words", "expected apiVersion"),
        ("apiVersion: enforcer.dev/v1alpha1\nkind: PostgresDatabse\n", "did you mean"),
    ];
    for (text, message) in slips {
        write(&dir, "a.yaml", text);
        let snapshot = until(&mut receiver, |s| problems(s).iter().any(|p| p.contains(message))).await;
        assert_eq!(snapshot.objects, good.objects, "{text}");
    }

    // One document is refused, and the other one is gone on purpose.
    write(&dir, "a.yaml", &database("orders", "''"));
    let snapshot = until(&mut receiver, |snapshot| snapshot.objects.len() == 1).await;
    let key = ObjectKey::new(Kind::PostgresDatabase, "shop", "orders");
    assert_eq!(snapshot.objects[&key], good.objects[&key]);
    assert_eq!(
        problems(&snapshot),
        [
            "a.yaml: PostgresDatabase shop/orders: spec.database: empty, expected the name of a database on the instance"
        ]
    );
}

#[tokio::test]
async fn saves_by_renaming_and_removals_are_seen() {
    let dir = folder("rename");
    write(&dir, "a.yaml", SHOP);
    let mut receiver = watch(&*dir, own(&dir)).expect("the folder is there");
    receiver.mark_unchanged();

    write(&dir, ".a.yaml.new", &format!("{SHOP}---\n{BLOG}"));
    fs::rename(dir.join(".a.yaml.new"), dir.join("a.yaml")).expect("a save by renaming");
    until(&mut receiver, |snapshot| names(snapshot) == ["Namespace blog", "Namespace shop"]).await;

    fs::remove_file(dir.join("a.yaml")).expect("the file to be removable");
    until(&mut receiver, |snapshot| snapshot.objects.is_empty()).await;

    write(&dir, "b.yaml", BLOG);
    until(&mut receiver, |snapshot| names(snapshot) == ["Namespace blog"]).await;
}

#[tokio::test]
async fn a_folder_that_vanishes_removes_nothing() {
    let dir = folder("vanish");
    write(&dir, "a.yaml", SHOP);
    let mut receiver = watch(&*dir, own(&dir)).expect("the folder is there");
    fs::rename(&*dir, dir.with_extension("away")).expect("the folder to be movable");
    let snapshot = until(&mut receiver, |snapshot| !snapshot.problems.is_empty()).await;
    assert_eq!(names(&snapshot), ["Namespace shop"]);
    fs::rename(dir.with_extension("away"), &*dir).expect("the folder to be movable");
    until(&mut receiver, |snapshot| snapshot.problems.is_empty()).await;
}

#[test]
fn a_renamed_file_is_taken_over_at_once_and_one_in_writing_when_it_rests() {
    let dir = folder("whole");
    write(&dir, "a.yaml", SHOP);
    let (mut folder, start) = started(&dir);
    write(&dir, "b.yaml", BLOG);
    write(&dir, "c.yaml", &database("orders", "one"));
    assert!(folder.look(start, &whole(&["c.yaml"])));
    assert_eq!(names(&folder.snapshot()), ["Namespace shop", "PostgresDatabase shop/orders"]);
    assert!(!folder.look(start + SETTLE / 2, &whole(&[])), "b.yaml may still be in writing");
    write(&dir, "b.yaml", &format!("{BLOG}---\n{}", database("users", "two")));
    assert!(!folder.look(start + SETTLE, &whole(&[])), "it was");
    assert!(!folder.rests());
    assert!(folder.look(start + SETTLE * 2, &whole(&[])));
    assert_eq!(folder.snapshot().objects.len(), 4);
    assert!(folder.rests());
}

#[test]
fn what_moves_to_another_file_is_never_gone_and_what_is_in_none_goes_when_all_rests() {
    let dir = folder("moves");
    write(&dir, "a.yaml", &format!("{SHOP}---\n{BLOG}"));
    let mut folder = Folder::new(&dir);
    folder.read_all();
    let all = ["Namespace blog", "Namespace shop"];
    let start = Instant::now();
    write(&dir, "a.yaml", SHOP);
    folder.look(start, &whole(&["a.yaml"]));
    assert_eq!(names(&folder.snapshot()), all, "it may come back");
    write(&dir, "b.yaml", BLOG);
    folder.look(start + SETTLE / 2, &whole(&["b.yaml"]));
    assert_eq!(names(&folder.snapshot()), all);
    assert!(!folder.look(start + SETTLE, &whole(&[])), "b.yaml came half a moment ago");
    folder.look(start + SETTLE * 2, &whole(&[]));
    assert_eq!(names(&folder.snapshot()), all, "it has moved");
    assert_eq!(problems(&folder.snapshot()), Vec::<String>::new());

    fs::remove_file(dir.join("b.yaml")).expect("the file to be removable");
    folder.look(start + SETTLE * 3, &whole(&[]));
    assert_eq!(names(&folder.snapshot()), all, "an editor may be saving it");
    folder.look(start + SETTLE * 4, &whole(&[]));
    assert_eq!(names(&folder.snapshot()), ["Namespace shop"]);
    assert!(folder.rests());
}

#[test]
fn a_file_that_never_rests_is_taken_over_in_the_end() {
    let dir = folder("unrest");
    let (mut folder, start) = started(&dir);
    let mut text = SHOP.to_owned();
    let looks = (0_u32..100).take_while(|look| {
        text += "# more\n";
        write(&dir, "a.yaml", &text);
        !folder.look(start + SETTLE / 2 * *look, &whole(&[]))
    });
    assert_eq!(SETTLE / 2 * looks.count() as u32, LONGEST_UNREST);
    assert_eq!(names(&folder.snapshot()), ["Namespace shop"]);
}
