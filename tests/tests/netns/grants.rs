//! Grants that come and go while clients run.

use std::process::Command;

use enforcer_tests::lab::{
    Lab, Pod, Role,
    manifests::Service,
    query::{Answer, Family},
    wait,
};
use nix::sys::signal::Signal;

use super::shared::{address, lab, probe};

/// Waits until a query in a pod gets this answer.
fn comes_to(lab: &Lab, pod: &str, wanted: &Answer) {
    let place = lab.place(pod);
    let mut last = None;
    let reached = wait::for_true("the answer changes", || {
        last = place.query(Service::Postgres, Family::V4).ok();
        last.as_ref() == Some(wanted)
    });
    assert!(reached.is_ok(), "{pod} should come to {wanted}, last: {last:?}");
}

fn relabelled(lab: &Lab, pod: &str, label: &str) -> Pod {
    Pod { labels: vec![("app".into(), label.into())], ..lab.pod(pod).clone() }
}

#[test]
fn a_label_that_changes_takes_the_grant_along() {
    let lab = lab();
    lab.save_pod(&relabelled(&lab, "audit", "cart")).expect("the pod is saved");
    comes_to(&lab, "audit", &Answer::Works);
    let session = lab.open_session("audit", "labels").expect("the session opens");
    lab.save_pod(&relabelled(&lab, "audit", "audit")).expect("the pod is saved");
    let (end, said) = session.end().expect("psql is waited for");
    assert!(end.is_some_and(|status| !status.success()), "the session ends with an error: {said}");
    comes_to(&lab, "audit", &Answer::NotPermitted);
    assert_eq!(
        lab.place("cart").query(Service::Postgres, Family::V4).expect("the client starts"),
        Answer::Works,
        "another pod's grant is not touched"
    );
}

#[test]
fn revocation_ends_open_sessions_with_an_error() {
    let lab = lab();
    for pod in ["cart", "hostnet"] {
        for family in Family::ALL {
            let name = format!("revoked-{pod}-{}", family.name());
            lab.grant(Service::Postgres).expect("the grant is saved");
            comes_to(&lab, pod, &Answer::Works);
            let session = lab.open_session_over(pod, &name, family).expect("the session opens");
            lab.revoke(Service::Postgres).expect("the grant is removed");
            let (end, said) = session.end().expect("psql is waited for");
            assert!(end.is_some_and(|status| !status.success()), "{name} ends with an error: {said}");
            comes_to(&lab, pod, &Answer::NotPermitted);
        }
    }
}

#[test]
fn a_grant_that_the_gateway_has_not_acknowledged_costs_one_retransmission_and_no_error() {
    let lab = lab();
    lab.revoke(Service::Postgres).expect("the grant is removed");
    comes_to(&lab, "cart", &Answer::NotPermitted);
    let service =
        address(&lab, "cart", Service::Postgres, Family::V4).expect("the service has an address").to_string();
    lab.process(Role::Gateway).signal(Signal::SIGSTOP).expect("the gateway is paused");
    lab.grant(Service::Postgres).expect("the grant is saved");
    // Until the agent has read the file there is no grant, and a refusal is right.
    let waiting = wait::until("the agent knows the grant", || {
        let log = lab.id.log("delayed");
        let probe = env!("CARGO_BIN_EXE_enforcer-lab");
        let mut client = lab.place("cart").start(probe, &["tcp-connect", &service], &log).ok()?;
        let syn_sent = wait::until("the client decides", || match client.ended() {
            Some(_) => Some(false),
            None => has_syn_sent(&lab).then_some(true),
        });
        (syn_sent.ok()? && client.ended().is_none()).then_some(client)
    });
    lab.process(Role::Gateway).signal(Signal::SIGCONT).expect("the gateway goes on");
    let mut client = waiting.expect("a client waits for the gateway");
    let status = wait::until("the client ends", || client.ended()).expect("the client does not hang");
    let log = lab.log("delayed");
    let retransmissions: Option<u32> = log.lines().last().and_then(|line| line.parse().ok());
    assert!(status.success() && retransmissions.is_some_and(|count| count <= 1), "it connects: {log}");
}

fn has_syn_sent(lab: &Lab) -> bool {
    let netns = &lab.pod("cart").netns;
    let sockets =
        Command::new("ip").args(["netns", "exec", netns, "ss", "-Htn", "state", "syn-sent"]).output();
    sockets.is_ok_and(|output| !output.stdout.is_empty())
}

#[test]
fn a_grant_ends_at_its_time_also_with_the_agent_dead() {
    let mut lab = lab();
    lab.revoke(Service::Postgres).expect("the grant is removed");
    comes_to(&lab, "cart", &Answer::NotPermitted);
    let until = Command::new("date").args(["-u", "-d", "+8 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    let until = String::from_utf8(until.expect("date starts").stdout).expect("date prints text");
    lab.grant_with(Service::Postgres, &format!("  validUntil: {}\n", until.trim()))
        .expect("the grant is saved");
    comes_to(&lab, "cart", &Answer::Works);
    let session = lab.open_session("cart", "expiry").expect("the session opens");
    lab.kill(Role::Agent).expect("the agent is killed");
    let (end, said) = session.end().expect("psql is waited for");
    assert!(end.is_some_and(|status| !status.success()), "the session ends with an error: {said}");
    comes_to(&lab, "cart", &Answer::NotPermitted);
    let answer = lab.place("cart").query(Service::KeyValueStore, Family::V4).expect("the client starts");
    assert_eq!(answer, Answer::Works, "a grant without an end goes on");
}

#[test]
fn a_pod_is_served_from_its_first_instant() {
    let mut lab = lab();
    let id = lab.id.clone();
    lab.network.add_pod(&id, Pod::new("shop", "fresh", &[("app", "cart")])).expect("the pod is joined");
    let service = address(&lab, "cart", Service::Postgres, Family::V6).expect("the service has an address");
    lab.save_pod(lab.pod("fresh")).expect("the pod is saved");
    let outcome = probe(&lab, "fresh", &["tcp-connect", &service.to_string()]);
    assert!(outcome.success, "no error, at most a retransmission: {}", outcome.said());
}

#[test]
fn a_file_that_says_nothing_valid_revokes_nothing() {
    let lab = lab();
    lab.save(
        "connection-orders.yaml",
        "apiVersion: enforcer.dev/v1alpha1\nkind: ServiceConnection\nmetadata: [",
    )
    .expect("the file is saved");
    let status = wait::until("the agent complains", || {
        let status = lab.status(Role::Agent).ok()?;
        status["problems"].as_array().is_some_and(|problems| !problems.is_empty()).then_some(status)
    })
    .expect("the agent complains");
    let problem = status["problems"][0].as_str().unwrap_or_default().to_owned();
    assert!(problem.starts_with("connection-orders.yaml: "), "the file is named: {problem}");
    let answer = lab.place("cart").query(Service::Postgres, Family::V4).expect("the client starts");
    assert_eq!(answer, Answer::Works, "the last good state stays");
}
