//! What waits to be told to a node: the latest of each binding, so that a slow reader costs no memory.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::announce::Answer;

/// Answers to one session.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Key: uid.
    waiting: Mutex<BTreeMap<String, Answer>>,
    filled: Notify,
}

impl Outbox {
    /// Replaces what waited for this binding.
    pub fn put(&self, uid: &str, answer: Answer) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), answer);
        self.filled.notify_one();
    }

    /// Everything that waits, as soon as there is something. Cancelling it takes nothing.
    pub async fn take(&self) -> Vec<Answer> {
        loop {
            let waiting = mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !waiting.is_empty() {
                return waiting.into_values().collect();
            }
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_latest_answer_of_a_binding_is_told() {
        let outbox = Outbox::default();
        let live = |generation| Answer::Live { uid: "a".into(), generation, grants: [].into() };
        outbox.put("a", live(1));
        outbox.put("b", Answer::Released { uid: "b".into() });
        outbox.put("a", live(2));
        assert_eq!(outbox.take().await, [live(2), Answer::Released { uid: "b".into() }]);
    }
}
