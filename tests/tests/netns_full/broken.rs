//! A broken manifest, and everybody begins anew.

use enforcer_tests::lab::{
    Lab, Role,
    manifests::Service,
    query::{Answer, Family},
    wait,
};
use serde_json::Value;

use crate::shared::{address, lab, probe};

const FILE: &str = "connection-orders.yaml";

fn answer(lab: &Lab, family: Family) -> Answer {
    lab.place("cart").query(Service::Postgres, family).expect("the client starts")
}

/// What the controller says of the connection: type and reason of every condition that is false.
fn complaints(lab: &Lab) -> Option<Vec<String>> {
    let text =
        lab.ask(Role::Controller, &["get", "serviceconnection", "cart-orders", "-n", "shop", "-o", "json"]);
    let status: Value = serde_json::from_str(&text.ok()?).ok()?;
    let conditions = status["status"]["conditions"].as_array()?.clone();
    let bad = conditions.iter().filter(|condition| condition["status"] == "False");
    Some(bad.map(|bad| format!("{} {} {}", bad["type"], bad["reason"], bad["message"])).collect())
}

fn restart(lab: &mut Lab) {
    for role in [Role::Controller, Role::Gateway, Role::Agent, Role::Dns] {
        lab.kill(role).expect("the role is killed");
    }
    for role in [Role::Agent, Role::Gateway, Role::Controller, Role::Dns] {
        lab.start(role).expect("the role starts");
    }
    // Not until then is anything taken away.
    let served = || {
        let status = lab.status(Role::Agent).ok()?;
        let all = status["conditions"].as_array()?.iter().all(|condition| condition["status"] == "True");
        let connection = lab.get("serviceconnection", "cart-orders").ok()?;
        (all && connection["status"]["activePods"] == 2).then_some(())
    };
    wait::until("the agent has done what it can", served).expect("every grant is live again");
}

#[test]
fn a_file_that_is_broken_over_a_restart_revokes_nothing_and_deleting_it_does() {
    let mut lab = lab();
    let sessions: Vec<_> = Family::ALL
        .into_iter()
        .map(|family| lab.open_session_over("cart", &format!("broken-{}", family.name()), family))
        .collect::<Result<_, _>>()
        .expect("the sessions open");
    lab.save(FILE, "apiVersion: enforcer.dev/v1alpha1\nkind: ServiceConnection\nmetadata: [\n")
        .expect("saved");
    wait::for_true("the controller complains", || {
        complaints(&lab).is_some_and(|all| all.iter().any(|one| one.contains("LastGoodState")))
    })
    .expect("the controller complains");
    restart(&mut lab);
    let said = complaints(&lab).expect("the controller answers");
    assert_eq!(said.len(), 1, "{said:?}");
    for part in [
        "Accepted",
        "LastGoodState",
        "connection-orders.yaml: document 1: does not parse: ",
        "until it is repaired or deleted",
    ] {
        assert!(said[0].contains(part), "{said:?}");
    }
    for family in Family::ALL {
        assert_eq!(answer(&lab, family), Answer::Works, "over {family:?}");
    }

    // Deleted while nobody is there to see it.
    for role in [Role::Controller, Role::Gateway, Role::Agent] {
        lab.kill(role).expect("the role is killed");
    }
    lab.delete(FILE).expect("the file goes");
    for role in [Role::Controller, Role::Gateway, Role::Agent] {
        lab.start(role).expect("the role starts");
    }
    for session in sessions {
        let (end, said) = session.end().expect("psql is waited for");
        assert!(end.is_some_and(|status| !status.success()), "the session ends with an error: {said}");
    }
    for family in Family::ALL {
        let service = address(&lab, "cart", Service::Postgres, family).expect("it has an address");
        // A connect that was under way is ended; the next is refused.
        let refused = || probe(&lab, "cart", &["tcp-connect", &service.to_string()]).was_not_permitted();
        wait::for_true("connects are refused", refused).unwrap_or_else(|err| panic!("{family:?}: {err:#}"));
    }
}
