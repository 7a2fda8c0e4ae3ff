//! When something is told, and when not again.

use std::sync::Arc;

use super::*;
use crate::{model::Kind, source::kubernetes::Facts};

fn pg(number: usize) -> ObjectKey {
    ObjectKey::new(Kind::Postgres, "shop", format!("pg-{number}"))
}

fn status(kind: &str, holds: bool, reason: &str, message: &str) -> ObjectStatus {
    let status = if holds { "True" } else { "False" };
    let condition = Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: None,
    };
    ObjectStatus { conditions: vec![condition], fields: BTreeMap::new() }
}

fn invalid(message: &str) -> ObjectStatus {
    status("Valid", false, "Invalid", message)
}

/// A server that says this of the first object.
fn server(status: ObjectStatus) -> Told {
    let facts = Facts { uid: "u".to_owned(), status: Arc::new(status), ..Facts::default() };
    Told {
        facts: Arc::new((0..9).map(|number| (pg(number), Arc::new(facts.clone()))).collect()),
        ..Told::default()
    }
}

struct Desk {
    refusals: Refusals,
    now: Instant,
    takes: bool,
}

impl Desk {
    fn new() -> Self {
        Self { refusals: Refusals::default(), now: Instant::now(), takes: true }
    }

    /// What is told when the first object is to say this, and the server says that.
    fn told(&mut self, wanted: ObjectStatus, server_has: ObjectStatus) -> Vec<String> {
        let mut told = Vec::new();
        let takes = self.takes;
        self.refusals.take(&server(server_has), &BTreeMap::from([(pg(0), wanted)]), self.now, |notice| {
            told.extend(takes.then(|| notice.message.clone()));
            takes
        });
        told
    }
}

#[test]
fn a_refusal_is_told_once_and_again_when_it_says_something_else_or_returns() {
    let (mut desk, none) = (Desk::new(), ObjectStatus::default());
    assert_eq!(desk.told(invalid("one"), none.clone()), ["one"]);
    assert_eq!(desk.told(invalid("one"), none.clone()), [""; 0], "the server may be slow");
    assert_eq!(desk.told(invalid("one"), invalid("one")), [""; 0]);
    assert_eq!(desk.told(invalid("two"), invalid("one")), ["two"]);
    let good = status("Valid", true, "Valid", "");
    assert_eq!(desk.told(good.clone(), invalid("two")), [""; 0]);
    assert_eq!(desk.told(invalid("two"), good), ["two"]);
}

#[test]
fn a_controller_that_begins_repeats_nothing_that_stands_in_a_status() {
    assert_eq!(Desk::new().told(invalid("one"), invalid("one")), [""; 0]);
    assert_eq!(Desk::new().told(invalid("two"), invalid("one")), ["two"]);
}

#[test]
fn only_what_a_person_must_see_is_told() {
    let told = |kind, holds, reason| {
        Desk::new().told(status(kind, holds, reason, "x"), ObjectStatus::default()).len()
    };
    for (kind, reason) in [
        ("Valid", "Conflict"),
        ("Programmed", "NameTaken"),
        ("IdentityAccepted", "IdentityChanged"),
        ("Guardable", "NotGuardable"),
    ] {
        assert_eq!([told(kind, false, reason), told(kind, true, reason)], [1, 0], "{kind} {reason}");
    }
    for (kind, reason) in
        [("Programmed", "WaitingForNodes"), ("Ready", "NotValid"), ("Connected", "NoAnswer")]
    {
        assert_eq!(told(kind, false, reason), 0, "{kind} {reason} passes by itself");
    }
}

#[test]
fn of_one_object_so_many_are_told_and_the_last_word_later() {
    let mut desk = Desk::new();
    let all: Vec<String> =
        (0..20).flat_map(|word| desk.told(invalid(&word.to_string()), ObjectStatus::default())).collect();
    assert_eq!(all, ["0", "1", "2", "3", "4"]);
    assert_eq!(desk.told(invalid("19"), invalid("19")), [""; 0]);
    desk.now += EACH;
    assert_eq!(desk.told(invalid("19"), invalid("19")), ["19"], "it holds still, and nobody was told");
    assert_eq!(desk.told(invalid("20"), invalid("19")), [""; 0]);
}

#[test]
fn what_could_not_be_told_is_told_later() {
    let mut desk = Desk::new();
    desk.takes = false;
    assert_eq!(desk.told(invalid("one"), ObjectStatus::default()), [""; 0]);
    desk.takes = true;
    assert_eq!(desk.told(invalid("one"), invalid("one")), ["one"]);
}
