//! Many pods that come and go: what our roles ask of the server for it.

#![expect(clippy::cast_precision_loss, reason = "there are not that many requests")]

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    api_lab::{Crowd, Size},
    lab::wait,
};

/// Lets pods come and go for a while; then nothing but statuses, reports and the lease has been written.
fn churn(size: Size, seconds: u64, pods_of_round: usize) {
    let mut crowd = Crowd::start(size).expect("the crowd is there");
    let at_first = crowd.asked(0).expect("the log is read");
    // What others ask for so that it settles is not of the churn.
    thread::sleep(Duration::from_secs(5));
    let before = crowd.on.plane.requests().expect("the log is read").len();
    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        crowd.churn(pods_of_round).expect("pods come and go");
        rounds += 1;
        thread::sleep(Duration::from_secs(rounds).saturating_sub(began.elapsed()));
    }
    let elapsed = began.elapsed().as_secs_f64();
    let asked = crowd.asked(before).expect("the log is read");
    let writes: usize = at_first.iter().filter(|(what, _)| is_write(what)).map(|(_, count)| count).sum();
    let said = |all: usize| all as f64 / elapsed;
    let of = |account: &str| {
        asked.iter().filter(|(what, _)| what.starts_with(account)).map(|(_, count)| count).sum()
    };
    // Past the capture of the test harness: these are the figures that it is about.
    let _said = writeln!(
        std::io::stderr(),
        "{} pods, {} connections, {} nodes: {writes} writes at first; then {} pods come, go and change a second: controller {:.2} \
         requests/s, agent {:.2} requests/s: {asked:?}",
        size.pods(),
        size.connections(),
        size.nodes,
        (rounds * pods_of_round as u64) as f64 / elapsed,
        said(of("enforcer-controller")),
        said(of("enforcer-agent")),
    );
    let is_allowed = |what: &str| {
        let is_status = what.starts_with("enforcer-controller patch ") && what.ends_with("/status");
        is_status || ["enforcer-agent patch tunnelnodes", "enforcer-controller update leases"].contains(&what)
    };
    assert!(asked.keys().all(|what| !is_write(what) || is_allowed(what)), "{asked:?}");
    // Statuses say how many pods there are: they are written at a pace, not with every pod.
    let most = (seconds as usize + 2) * 32;
    let statuses =
        asked.get("enforcer-controller patch serviceconnections/status").copied().unwrap_or_default();
    assert!(statuses <= most, "{statuses} in {elapsed} s: {asked:?}");
    // Each object is written a few times until it is what it must be.
    let objects = size.connections() + size.apps + size.nodes;
    assert!(writes <= 6 * objects, "{writes} for {objects} objects: {at_first:?}");
    // However many writes that took, in the end nothing is left out, and no count is an old one.
    let mut wrong = Vec::new();
    wait::for_true("every status says what is", || {
        wrong = crowd.wrong().expect("the server answers");
        wrong.is_empty()
    })
    .unwrap_or_else(|err| panic!("{err}: {wrong:#?}"));
}

fn is_write(what: &str) -> bool {
    ["patch", "create", "update", "delete"].iter().any(|verb| what.contains(&format!(" {verb} ")))
}

#[test]
fn pods_that_come_and_go_cost_statuses_and_a_lease_and_nothing_else() {
    churn(Size::SMALL, 8, 5);
}

#[test]
#[ignore = "long: 5000 pods"]
fn five_thousand_pods_that_come_and_go_cost_statuses_and_a_lease_and_nothing_else() {
    churn(Size::FULL, 60, 50);
}
