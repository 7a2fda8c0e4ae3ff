//! Files that never rest, that are emptied, taken away while others move, or whose copies cannot be written.

use super::*;

fn hinted(names: &[(&str, bool)]) -> Hints {
    Hints { all: false, names: names.iter().map(|(name, renamed)| ((*name).to_owned(), *renamed)).collect() }
}

#[test]
fn what_is_in_no_file_is_gone_in_time_though_other_files_keep_coming() {
    for renamed in [true, false] {
        let dir = folder("busy");
        write(&dir, "a.yaml", SHOP);
        let (mut folder, start) = started(&dir);
        fs::remove_file(dir.join("a.yaml")).expect("the file to be removable");
        folder.look(start, &hinted(&[("a.yaml", false)]));
        let step = SETTLE / 2;
        let most = (LONGEST_UNREST + SETTLE * 2).div_duration_f64(step).ceil() as u32;
        let mut gone = None;
        for turn in 1..=most {
            let name = format!("n{turn}.yaml");
            write(&dir, &name, &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: n{turn}}}\n"));
            folder.look(start + step * turn, &hinted(&[(&name, renamed)]));
            let there = names(&folder.snapshot()).contains(&"Namespace shop".to_owned());
            gone = gone.or((!there).then_some(turn));
        }
        let gone = gone.expect("it goes");
        assert!(step * gone >= LONGEST_UNREST, "not before others had their time: {gone}");
    }
}

#[test]
fn a_file_that_is_emptied_takes_nothing_away_while_it_may_be_about_to_be_written() {
    let dir = folder("emptied");
    write(&dir, "a.yaml", SHOP);
    let (mut folder, start) = started(&dir);
    let both = ["Namespace blog", "Namespace shop"];
    write(&dir, "a.yaml", "");
    folder.look(start, &hinted(&[("a.yaml", false)]));
    folder.look(start + SETTLE * 2, &Hints::default());
    assert_eq!(names(&folder.snapshot()), both[1..]);
    write(&dir, "a.yaml", &format!("{SHOP}---\n{BLOG}"));
    folder.look(start + SETTLE * 3, &hinted(&[("a.yaml", false)]));
    folder.look(start + SETTLE * 4, &Hints::default());
    assert_eq!(names(&folder.snapshot()), both);

    // One that stays empty says that there is nothing.
    let start = start + SETTLE * 5;
    write(&dir, "a.yaml", "");
    folder.look(start, &hinted(&[("a.yaml", false)]));
    folder.look(start + LONGEST_UNREST, &Hints::default());
    assert_eq!(names(&folder.snapshot()), Vec::<String>::new());
}

#[test]
fn a_file_that_comes_and_goes_is_not_gone() {
    let dir = folder("flickering");
    write(&dir, "a.yaml", SHOP);
    let (mut folder, start) = started(&dir);
    let step = SETTLE / 2;
    for turn in 0..=(LONGEST_UNREST * 2).div_duration_f64(step) as u32 {
        if turn % 2 == 0 {
            fs::remove_file(dir.join("a.yaml")).expect("the file to be removable");
        } else {
            write(&dir, "a.yaml", SHOP);
        }
        folder.look(start + step * turn, &hinted(&[("a.yaml", false)]));
        assert_eq!(names(&folder.snapshot()), ["Namespace shop"], "turn {turn}");
    }
}

#[test]
fn what_was_refused_in_one_file_is_not_in_force_when_both_are_gone() {
    let dir = folder("refused");
    write(&dir, "a.yaml", &database("orders", "x"));
    write(&dir, "c.yaml", &database("orders", "y"));
    let (mut folder, start) = started(&dir);
    let before = folder.snapshot();
    for name in ["a.yaml", "c.yaml"] {
        fs::remove_file(dir.join(name)).expect("the file to be removable");
    }
    let both = [("a.yaml", false), ("c.yaml", false)];
    folder.look(start, &hinted(&both));
    // Something else moves, so that neither is let go.
    write(&dir, "z.yaml", BLOG);
    folder.look(start + SETTLE, &hinted(&[both[0], both[1], ("z.yaml", false)]));
    let leaving = folder.snapshot();
    let key = ObjectKey::new(Kind::PostgresDatabase, "shop", "orders");
    assert_eq!(leaving.objects.get(&key), before.objects.get(&key));
    assert_eq!(leaving.origins.get(&key), before.origins.get(&key));
}

#[test]
fn a_file_of_the_same_length_and_time_is_another_all_the_same() {
    let dir = folder("restored");
    write(&dir, "a.yaml", SHOP);
    let file = fs::File::open(dir.join("a.yaml")).expect("the file");
    let time = file.metadata().and_then(|metadata| metadata.modified()).expect("its time");
    let (mut folder, start) = started(&dir);
    write(&dir, "a.yaml", BLOG);
    let file = fs::File::options().write(true).open(dir.join("a.yaml")).expect("the file");
    file.set_modified(time).expect("its time to be set");
    folder.look(start, &hinted(&[("a.yaml", false)]));
    folder.look(start + SETTLE, &Hints::default());
    folder.look(start + SETTLE * 2, &Hints::default());
    assert_eq!(names(&folder.snapshot()), ["Namespace blog"]);
}

#[test]
fn a_copy_that_cannot_be_written_holds_up_no_other() {
    for writes in [true, false] {
        let dir = folder("stuck");
        let copies = dir.with_extension("accepted");
        write(&dir, "a.yaml", SHOP);
        write(&dir, "z.yaml", BLOG);
        let start_of = |writes| Folder::new(&dir).remembering(Accepted::open(copies.clone(), writes));
        let mut first = start_of(true);
        first.read_all();
        first.snapshot();
        first.keep();
        let mut folder = start_of(writes);
        folder.read_all();
        folder.snapshot();
        // Where the copy of `a.yaml` would be written first.
        fs::create_dir(copies.join("a.yaml.json.new")).expect("a folder in its place");
        write(&dir, "a.yaml", &format!("{SHOP}---\n{}", database("orders", "x")));
        fs::remove_file(dir.join("z.yaml")).expect("the file to be removable");
        let start = Instant::now();
        for turn in 0..3 {
            folder.look(start + SETTLE * turn, &hinted(&[("a.yaml", false), ("z.yaml", false)]));
        }
        folder.snapshot();
        folder.keep();
        // What was deleted does not come back with a file that says nothing.
        write(&dir, "z.yaml", "kind: [");
        for turn in 3..6 {
            folder.look(start + SETTLE * turn, &hinted(&[("z.yaml", false)]));
        }
        let wanted = ["Namespace shop", "PostgresDatabase shop/orders"];
        assert_eq!(names(&folder.snapshot()), wanted, "writes: {writes}");
    }
}
