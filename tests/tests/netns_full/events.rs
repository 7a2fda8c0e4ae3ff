//! More events than anybody can hear of.

use enforcer_tests::lab::{
    Role,
    manifests::Service,
    query::{Answer, Family},
    wait,
};

use crate::shared::{address, lab};

#[test]
fn who_floods_events_is_counted_the_monitor_says_how_many_are_missing_and_nobody_waits() {
    let lab = lab();
    let services: Vec<String> = Family::ALL
        .into_iter()
        .map(|family| {
            address(&lab, "cart", Service::Postgres, family).expect("it has an address").to_string()
        })
        .collect();
    let words: Vec<&str> = ["flood"].into_iter().chain(services.iter().map(String::as_str)).collect();
    let probe = env!("CARGO_BIN_EXE_enforcer-lab");
    let floods: Vec<_> = (0..4)
        .map(|number| lab.place("audit").start(probe, &words, &lab.id.log(&format!("flood{number}"))))
        .collect::<Result<_, _>>()
        .expect("the floods start");
    let event = wait::until("the monitor says how many are missing", || {
        lab.events().into_iter().find(|event| event.kind == "missed")
    })
    .expect("the monitor says how many are missing");
    let (count, words) = event.explanation.split_once(' ').expect("a number and words");
    assert!(count.parse::<u64>().is_ok_and(|count| count > 0), "{event:?}");
    assert_eq!(words, "events were left out, there were too many at once; the counters have them");
    // Meanwhile the agent answers, knows all of them, and takes changes over.
    let status = lab.status(Role::Agent).expect("the agent answers");
    assert!(status["counters"]["eventsLimited"].as_u64() > Some(0), "{}", status["counters"]);
    lab.revoke(Service::KeyValueStore).expect("the grant is removed");
    let answer = || lab.place("cart").query(Service::KeyValueStore, Family::V4).expect("the client starts");
    wait::for_true("a revocation is carried out", || answer() == Answer::NotPermitted).expect("it is");
    lab.grant(Service::KeyValueStore).expect("the grant is saved");
    wait::for_true("a grant is carried out", || answer() == Answer::Works).expect("it is");
    drop(floods);
}
