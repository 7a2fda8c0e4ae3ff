//! What a person must see: a refusal becomes an Event of its object, when it begins and when it says something else.
//! Pure.
//!
//! What the server's status says already was told by whoever wrote it, so that a controller that starts, or leads from
//! now on, repeats nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    model::ObjectKey,
    source::kubernetes::Told,
    state::{Condition, ObjectStatus},
};

/// Conditions that are told when they do not hold, and of which reason; none: whatever it is.
const REFUSALS: &[(&str, Option<&str>)] = &[
    // The object says something that cannot be, or that an administrator does not allow.
    ("Valid", None),
    // Somebody else has the name of what would have to be made.
    ("Programmed", Some("NameTaken")),
    // A node asks for another key, cluster or name than its first.
    ("IdentityAccepted", None),
    // Pods of a connection have another way out, so that they are denied.
    ("Guardable", None),
];
/// Events of one object: so many at once, and one more in each of these times.
const AT_ONCE: u32 = 5;
const EACH: Duration = Duration::from_mins(2);

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub key: ObjectKey,
    pub uid: String,
    pub reason: String,
    pub message: String,
}

/// What was told of the objects so far.
#[derive(Debug, Default)]
pub struct Refusals {
    /// By object and type of the condition.
    known: BTreeMap<(ObjectKey, String), Known>,
    budgets: BTreeMap<ObjectKey, Budget>,
}

#[derive(Debug)]
struct Known {
    notice: Notice,
    is_told: bool,
}

#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < AT_ONCE && now.duration_since(self.since) >= EACH {
            self.left += 1;
            self.since += EACH;
        }
        if self.left == AT_ONCE {
            self.since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

impl Refusals {
    /// Takes over what is to be said of the objects; `tell` is asked to tell what is new, and says whether it does.
    /// What it does not, and what is too much of one object, is tried again the next time.
    pub fn take(
        &mut self,
        told: &Told,
        statuses: &BTreeMap<ObjectKey, ObjectStatus>,
        now: Instant,
        mut tell: impl FnMut(&Notice) -> bool,
    ) {
        let mut known = BTreeMap::new();
        for (key, status) in statuses {
            let Some(facts) = told.facts.get(key) else { continue };
            for condition in status.conditions.iter().filter(|condition| is_refusal(condition)) {
                let notice = notice(key, &facts.uid, condition);
                let place = (key.clone(), condition.kind.clone());
                let before = self.known.remove(&place).filter(|before| before.notice == notice);
                let mut now_known = before.unwrap_or_else(|| Known {
                    is_told: facts.status.conditions.iter().any(|there| says_the_same(there, condition)),
                    notice,
                });
                if !now_known.is_told {
                    let budget = self.budgets.entry(key.clone());
                    let budget = budget.or_insert(Budget { left: AT_ONCE, since: now });
                    now_known.is_told = budget.take(now) && tell(&now_known.notice);
                }
                known.insert(place, now_known);
            }
        }
        self.known = known;
        self.budgets.retain(|key, _| statuses.contains_key(key));
    }
}

fn is_refusal(condition: &Condition) -> bool {
    let is_of = |(kind, reason): &(&str, Option<&str>)| {
        condition.kind == *kind && reason.is_none_or(|reason| condition.reason == reason)
    };
    condition.status == "False" && REFUSALS.iter().any(is_of)
}

fn says_the_same(one: &Condition, other: &Condition) -> bool {
    (&one.kind, &one.status, &one.reason, &one.message)
        == (&other.kind, &other.status, &other.reason, &other.message)
}

fn notice(key: &ObjectKey, uid: &str, condition: &Condition) -> Notice {
    let Condition { reason, message, .. } = condition;
    Notice {
        key: key.clone(),
        uid: uid.to_owned(),
        reason: reason.clone(),
        message: if message.is_empty() { reason.clone() } else { message.clone() },
    }
}

#[cfg(test)]
mod tests;
