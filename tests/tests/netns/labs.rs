//! The lab itself: nothing of it stays, however it ends.

use std::{fs, path::Path, process::Command};

use enforcer_tests::lab::{clean, wait};

#[test]
fn a_lab_whose_process_is_killed_is_removed_by_the_next() {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_enforcer-lab")).arg("hold").spawn().expect("it starts");
    // Its name begins with the number of the process that holds it; that file is the last thing it makes.
    let id = format!("{:x}0", holder.id());
    let held = Path::new("/run/enforcer-lab").join(&id).join("held");
    wait::for_true("the lab stands", || held.exists()).expect("the lab stands");
    assert_eq!(traces(&id), 4, "namespaces of the lab");
    holder.kill().expect("it is killed");
    holder.wait().expect("it is gone");
    // Another lab of this machine may begin at the same time and be the one that cleans up.
    clean::dead_labs().expect("dead labs are removed");
    wait::for_true("the lab is gone", || !held.exists()).expect("the lab is removed");
    assert_eq!(traces(&id), 0, "namespaces of the lab");
    assert!(!Path::new("/sys/fs/cgroup/unified").join(format!("enforcer-{id}")).exists(), "its cgroup");
}

/// Network namespaces of a lab without pods.
fn traces(id: &str) -> usize {
    let Ok(entries) = fs::read_dir("/run/netns") else { return 0 };
    let prefix = format!("ef-{id}-");
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .count()
}
