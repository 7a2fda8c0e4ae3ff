//! What is looked at when events say what changed, and when they do not.

use super::*;
use crate::source::manifests::RESCAN;

/// Events of these names, none of which a file was renamed to.
fn hints(names: &[&str]) -> Hints {
    Hints { all: false, names: names.iter().map(|name| ((*name).to_owned(), false)).collect() }
}

#[test]
fn a_change_that_no_event_tells_is_found_when_all_is_looked_at() {
    let dir = folder("untold");
    write(&dir, "a.yaml", SHOP);
    let (mut folder, start) = started(&dir);
    write(&dir, "b.yaml", BLOG);
    for part in 0..4 {
        assert!(!folder.look(start + RESCAN / 4 * part, &hints(&["a.yaml", ".c.yaml.new"])), "part {part}");
        assert!(folder.rests(), "part {part}");
    }
    // Hints that never stop do not put it off, and it is waited for no longer than until then.
    assert!(folder.wait(start + RESCAN / 4 * 3) <= RESCAN / 4);
    assert!(!folder.look(start + RESCAN, &hints(&["a.yaml"])));
    assert_eq!(folder.wait(start + RESCAN), SETTLE);
    assert!(folder.look(start + RESCAN + SETTLE, &hints(&[])));
    assert_eq!(names(&folder.snapshot()), ["Namespace blog", "Namespace shop"]);
    assert_eq!(folder.wait(start + RESCAN + SETTLE) + SETTLE, RESCAN);
}

#[test]
fn a_file_that_vanishes_before_it_is_read_holds_nothing_up() {
    for by_hints in [true, false] {
        let dir = folder("unread");
        write(&dir, "a.yaml", SHOP);
        let (mut folder, start) = started(&dir);
        let told = |names: &[&str]| Hints { all: !by_hints, ..hints(names) };
        write(&dir, "b.yaml", BLOG);
        assert!(!folder.look(start, &told(&["b.yaml"])), "it may be in writing");
        for name in ["a.yaml", "b.yaml"] {
            fs::remove_file(dir.join(name)).expect("the file to be removable");
        }
        assert!(!folder.look(start + SETTLE, &told(&["a.yaml", "b.yaml"])), "a.yaml may come back");
        assert!(folder.look(start + SETTLE * 2, &told(&[])));
        assert_eq!(names(&folder.snapshot()), Vec::<String>::new());
        assert!(folder.rests());
    }
}

#[test]
fn nothing_is_taken_away_by_hints_alone() {
    let dir = folder("moved");
    write(&dir, "a.yaml", &format!("{SHOP}---\n{BLOG}"));
    let (mut folder, start) = started(&dir);
    let both = ["Namespace blog", "Namespace shop"];
    // It moves to a file that no event tells of, from one that is replaced, and from one that is deleted.
    write(&dir, "a.yaml", SHOP);
    write(&dir, "b.yaml", BLOG);
    folder.look(start, &Hints { all: false, ..whole(&["a.yaml"]) });
    folder.look(start + SETTLE, &hints(&[]));
    assert_eq!(names(&folder.snapshot()), both);
    folder.look(start + SETTLE * 2, &hints(&[]));
    assert_eq!(
        folder.snapshot().origins.values().map(|name| &**name).collect::<Vec<_>>(),
        ["b.yaml", "a.yaml"]
    );

    fs::rename(dir.join("b.yaml"), dir.join("c.yaml")).expect("the file to be movable");
    for looks in 3..6 {
        folder.look(start + SETTLE * looks, &hints(&["b.yaml"]));
        assert_eq!(names(&folder.snapshot()), both);
    }
    assert!(folder.rests());

    // With the folder, its files are not gone.
    fs::rename(&*dir, dir.with_extension("away")).expect("the folder to be movable");
    for looks in 6..8 {
        folder.look(start + SETTLE * looks, &hints(&["a.yaml", "c.yaml"]));
        assert_eq!(names(&folder.snapshot()), both);
    }
    assert_eq!(folder.snapshot().problems.len(), 1);
    fs::rename(dir.with_extension("away"), &*dir).expect("the folder to be movable");
    assert!(folder.look(start + SETTLE * 8, &hints(&[])));
    assert_eq!(problems(&folder.snapshot()), Vec::<String>::new());
    assert!(folder.rests(), "the files are those that were read");
}

/// How a `ConfigMap` is mounted: its files lead through one link, which is replaced.
#[test]
fn what_a_link_leads_to_is_looked_at_when_anything_beside_it_changes() {
    use std::os::unix::fs::symlink;
    let dir = folder("links");
    let (mut folder, start) = started(&dir);
    for (version, text) in [("..1", SHOP), ("..2", BLOG)] {
        fs::create_dir(dir.join(version)).expect("a version of the files");
        write(&dir.join(version), "a.yaml", text);
    }
    symlink("..1", dir.join("..data")).expect("a link");
    symlink("..data/a.yaml", dir.join("a.yaml")).expect("a link");
    folder.look(start, &hints(&["..data", "a.yaml"]));
    assert!(folder.look(start + SETTLE, &hints(&[])));
    assert_eq!(names(&folder.snapshot()), ["Namespace shop"]);

    symlink("..2", dir.join("..next")).expect("a link");
    fs::rename(dir.join("..next"), dir.join("..data")).expect("the link to be replaced");
    folder.look(start + SETTLE * 2, &Hints { all: false, ..whole(&["..data"]) });
    assert!(folder.look(start + SETTLE * 3, &hints(&[])));
    assert_eq!(names(&folder.snapshot()), ["Namespace blog"]);
}

#[test]
fn a_file_with_two_names_changes_under_both() {
    let dir = folder("names");
    write(&dir, "a.yaml", SHOP);
    fs::hard_link(dir.join("a.yaml"), dir.join("b.yaml")).expect("a second name");
    let (mut folder, start) = started(&dir);
    let first = ["b.yaml: Namespace shop: stands in a.yaml already, which is used"];
    assert_eq!(problems(&folder.snapshot()), first);
    write(&dir, "a.yaml", BLOG);
    folder.look(start, &hints(&["a.yaml"]));
    folder.look(start + SETTLE, &hints(&[]));
    assert_eq!(
        problems(&folder.snapshot()),
        ["b.yaml: Namespace blog: stands in a.yaml already, which is used"]
    );
}

#[test]
fn a_view_that_says_nothing_new_is_the_same_one() {
    let dir = folder("same");
    write(&dir, "a.yaml", &format!("{SHOP}---\n{BLOG}"));
    let (mut folder, start) = started(&dir);
    let first = folder.snapshot();
    write(&dir, "a.yaml", &format!("{BLOG}---\n{SHOP}"));
    assert!(folder.look(start, &Hints { all: false, ..whole(&["a.yaml"]) }));
    assert!(Arc::ptr_eq(&folder.snapshot(), &first));
    write(&dir, "b.yaml", &database("orders", "one"));
    assert!(folder.look(start, &Hints { all: false, ..whole(&["b.yaml"]) }));
    let second = folder.snapshot();
    assert_eq!((first.revision, second.revision), (1, 2));
    for (key, object) in &first.objects {
        assert!(Arc::ptr_eq(object, &second.objects[key]), "{key} is another object");
    }
}
