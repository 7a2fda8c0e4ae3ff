//! What a process that begins anew takes a broken folder for.

use super::*;

/// A watcher that is there for so long as to read the folder once.
async fn read(dir: &Path) -> Arc<Snapshot> {
    let receiver = watch(dir, own(dir)).expect("the folder is there");
    let snapshot = receiver.borrow().clone();
    drop(receiver);
    tokio::task::yield_now().await;
    snapshot
}

#[tokio::test]
async fn a_file_that_is_broken_at_the_start_means_what_it_meant_before() {
    let dir = folder("restart");
    write(&dir, "a.yaml", &format!("{}---\n{}", database("orders", "one"), database("users", "two")));
    write(&dir, "b.yaml", SHOP);
    let good = read(&dir).await;
    assert_eq!((good.objects.len(), good.kept.len()), (3, 0));

    write(&dir, "a.yaml", "a: [");
    for start in 0..2 {
        let broken = read(&dir).await;
        assert_eq!(broken.objects, good.objects, "start {start}");
        let problem = "a.yaml: document 1: does not parse: did not find expected node content at line 2 column 1, \
                       while parsing a flow node";
        let kept: Vec<String> = broken.kept.iter().map(|(key, why)| format!("{key}: {why}")).collect();
        assert_eq!(
            kept,
            [
                format!("PostgresDatabase shop/orders: {problem}"),
                format!("PostgresDatabase shop/users: {problem}"),
            ]
        );
        assert!(broken.incomplete);
    }

    // What a file does not have any more is revoked, and so is what a deleted file had, whoever was there to see it.
    write(&dir, "a.yaml", &database("orders", "one"));
    assert_eq!(names(&*read(&dir).await), ["Namespace shop", "PostgresDatabase shop/orders"]);
    fs::remove_file(dir.join("a.yaml")).expect("the file to be removable");
    assert_eq!(names(&*read(&dir).await), ["Namespace shop"]);
    write(&dir, "a.yaml", "a: [");
    assert_eq!(names(&*read(&dir).await), ["Namespace shop"]);
}

#[tokio::test]
async fn an_object_stays_with_the_file_that_had_it_first() {
    let dir = folder("owner");
    write(&dir, "b.yaml", &database("orders", "first"));
    let mut receiver = watch(&*dir, own(&dir)).expect("the folder is there");
    let first = receiver.borrow_and_update().clone();
    write(&dir, "a.yaml", &database("orders", "stolen"));
    let complaint = "a.yaml: PostgresDatabase shop/orders: stands in b.yaml already, which is used";
    let both = until(&mut receiver, |snapshot| problems(snapshot) == [complaint]).await;
    assert_eq!(both.objects, first.objects);
    drop(receiver);
    let again = read(&dir).await;
    assert_eq!((&again.objects, problems(&again)), (&first.objects, vec![complaint.to_owned()]));
    fs::remove_file(dir.join("b.yaml")).expect("the file to be removable");
    assert_eq!(problems(&*read(&dir).await), Vec::<String>::new());
}

#[tokio::test]
async fn copies_that_are_damaged_or_cannot_be_made_hold_nothing_up() {
    let dir = folder("copies");
    write(&dir, "a.yaml", SHOP);
    read(&dir).await;
    let copies = dir.with_extension("accepted");
    fs::write(copies.join("a.yaml.json"), "{").expect("the copy to be writable");
    write(&dir, "a.yaml", "a: [");
    assert_eq!(names(&*read(&dir).await), Vec::<String>::new());
    fs::remove_dir_all(&copies).expect("the folder to be removable");
    fs::write(&copies, "in the way").expect("a file in its place");
    write(&dir, "a.yaml", BLOG);
    assert_eq!(names(&*read(&dir).await), ["Namespace blog"]);
    fs::remove_file(&copies).expect("the file to be removable");
}

#[test]
fn a_copy_that_could_not_be_written_is_written_with_the_next() {
    let dir = folder("retried");
    let copies = dir.with_extension("accepted");
    let _absent = fs::remove_dir_all(&copies);
    fs::write(&copies, "in the way").expect("a file in the place of the copies");
    write(&dir, "a.yaml", SHOP);
    write(&dir, "b.yaml", BLOG);
    let mut folder = Folder::new(&dir).remembering(Accepted::open(copies.clone(), true));
    folder.read_all();
    folder.snapshot();
    folder.keep();
    fs::remove_file(&copies).expect("the file to be removable");
    write(&dir, "c.yaml", "# nothing\n");
    folder.look(Instant::now(), &whole(&[]));
    folder.look(Instant::now() + SETTLE, &whole(&[]));
    folder.snapshot();
    folder.keep();
    let kept = Accepted::open(copies, false);
    let kept: Vec<_> = kept.all().map(|(name, objects)| (&**name, objects.len())).collect();
    assert_eq!(kept, [("a.yaml", 1), ("b.yaml", 1), ("c.yaml", 0)]);
}
