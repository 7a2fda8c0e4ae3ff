//! Writes Events, a few a second, from a task of its own: no status waits for one.
//!
//! An Event's name follows from what it says of which object. Said again, it is the same Event with a higher count, also
//! when another controller says it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::refusals::Notice;
use crate::source::kubernetes::{ApiError, Cluster, Resource};

/// What Events call the controller.
const COMPONENT: &str = "enforcer-controller";
/// Events that wait to be written.
const BACKLOG: usize = 256;
/// Between two of them.
const PACE: Duration = Duration::from_millis(200);
/// Until the next try to write one that the server has not taken, doubled each time; how often.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const TRIES: u32 = 6;
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the server takes.
const LONGEST_MESSAGE: usize = 1024;
const LONGEST_NAME: usize = 253;

/// Where notices go. The task ends with it.
pub struct Events {
    sender: mpsc::Sender<Notice>,
}

impl Events {
    /// `instance` is this controller among all of them. Call it from within a tokio runtime.
    pub fn write(cluster: Cluster, instance: String) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Notice>(BACKLOG);
        tokio::spawn(async move {
            while let Some(notice) = receiver.recv().await {
                persist(&cluster, &instance, &notice).await;
                tokio::time::sleep(PACE).await;
            }
        });
        Self { sender }
    }

    /// Whether it will be written, if the server takes it.
    pub fn tell(&self, notice: &Notice) -> bool {
        self.sender.try_send(notice.clone()).is_ok()
    }
}

async fn persist(cluster: &Cluster, instance: &str, notice: &Notice) {
    let mut wait = FIRST_WAIT;
    for _ in 0..TRIES {
        let written = tokio::time::timeout(TIMEOUT, write(cluster, instance, notice)).await;
        let error = match written {
            Ok(Ok(())) => return,
            Ok(Err(
                error @ (ApiError::Server { .. } | ApiError::Silent { .. } | ApiError::Conflict { .. }),
            )) => error,
            Err(_) => ApiError::Silent { what: "Event".to_owned() },
            // A namespace that is going, an object without a place: it will not be taken later either.
            Ok(Err(error)) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(error, object = %notice.key, "an event is not written");
                return;
            }
        };
        tracing::debug!(error = format!("{:#}", anyhow::Error::from(error)), "an event is tried again");
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    tracing::warn!(object = %notice.key, "an event is given up");
}

async fn write(cluster: &Cluster, instance: &str, notice: &Notice) -> Result<(), ApiError> {
    let now = now();
    let event = event(instance, notice, &now);
    match cluster.create(&Resource::EVENT, &event).await {
        Err(ApiError::Conflict { .. }) => {}
        created => return created.map(drop),
    }
    let place = |field: &str| event["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (place("namespace"), place("name"));
    // Gone in between: the next try makes it.
    let Some(there) = cluster.get(&Resource::EVENT, namespace, name).await? else {
        return Err(ApiError::Conflict { what: name.to_owned(), message: "it has expired".to_owned() });
    };
    let count = there["count"].as_i64().unwrap_or(1).max(1) + 1;
    let change = json!({
        "metadata": { "resourceVersion": there["metadata"]["resourceVersion"] },
        "count": count,
        "lastTimestamp": now,
    });
    cluster.merge(&Resource::EVENT, (namespace, name), &change).await.map(drop)
}

/// RFC 3339, to the second.
fn now() -> String {
    super::now()
}

fn event(instance: &str, notice: &Notice, now: &str) -> Value {
    let key = &notice.key;
    // Events of what is in no namespace are there.
    let namespace = if key.namespace.is_empty() { "default" } else { &key.namespace };
    let mut regarding = json!({
        "apiVersion": key.kind.api_version(),
        "kind": key.kind.name(),
        "name": key.name,
        "uid": notice.uid,
    });
    if !key.namespace.is_empty() {
        regarding["namespace"] = key.namespace.as_str().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "namespace": namespace, "name": name(notice) },
        "involvedObject": regarding,
        "type": "Warning",
        "reason": notice.reason,
        "message": cut(&notice.message, LONGEST_MESSAGE),
        "source": { "component": COMPONENT },
        "reportingComponent": COMPONENT,
        "reportingInstance": instance,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

/// The object's name and a hash (FNV-1a) of what is said of it.
fn name(notice: &Notice) -> String {
    let Notice { uid, reason, message, .. } = notice;
    let text = [uid.as_str(), reason, message].join("\0");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let object = cut(&notice.key.name, LONGEST_NAME - 17).trim_end_matches(['.', '-']);
    format!("{object}.{hash:016x}")
}

/// At most so many bytes of it, in whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, ObjectKey};

    fn notice(name: &str, message: &str) -> Notice {
        Notice {
            key: ObjectKey::new(Kind::Postgres, "shop", name),
            uid: "u1".to_owned(),
            reason: "Invalid".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn an_event_is_called_by_what_it_says_of_whom() {
        let name =
            |notice: &Notice| event("me", notice, "now")["metadata"]["name"].as_str().unwrap().to_owned();
        let first = name(&notice("pg", "no endpoint"));
        assert_eq!(first, name(&notice("pg", "no endpoint")));
        assert_ne!(first, name(&notice("pg", "no gateway")));
        let mut next = notice("pg", "no endpoint");
        next.uid = "u2".to_owned();
        assert_ne!(first, name(&next), "another object of the name");
        assert!(first.starts_with("pg.") && first.len() == 19, "{first}");
        assert_eq!(name(&notice(&"p".repeat(253), "")).len(), 253);
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_between_two_characters() {
        let event = event("me", &notice("pg", &"ä".repeat(1000)), "now");
        assert_eq!(event["message"].as_str().unwrap(), "ä".repeat(512));
        assert_eq!(event["involvedObject"]["namespace"], "shop");
    }

    #[test]
    fn an_object_of_no_namespace_has_its_events_in_default() {
        let mut notice = notice("eu-1", "no key");
        notice.key = ObjectKey::new(Kind::TunnelGateway, "", "eu-1");
        let event = event("me", &notice, "now");
        assert_eq!(event["metadata"]["namespace"], "default");
        assert!(event["involvedObject"]["namespace"].is_null());
    }
}
