//! Events of an object, the last one at the end, as `kubectl describe` shows them.

use jiff::Timestamp;
use serde_json::Value;

use super::{show::text, table};

/// A section of a page; empty where there are none.
pub fn section(events: &[Value], now: Timestamp) -> String {
    if events.is_empty() {
        return String::new();
    }
    let mut events: Vec<&Value> = events.iter().collect();
    events.sort_by_key(|event| last(event));
    let rows: Vec<Vec<String>> = events.iter().map(|event| row(event, now)).collect();
    let table = table::render(&["TYPE", "REASON", "AGE", "FROM", "MESSAGE"], &rows);
    table.lines().fold("Events:\n".to_owned(), |page, line| page + "  " + line + "\n")
}

fn row(event: &Value, now: Timestamp) -> Vec<String> {
    let from = [&event["source"]["component"], &event["reportingComponent"]];
    let from = from.into_iter().map(text).find(|from| !from.is_empty()).unwrap_or_default();
    let word = |field: &str| text(&event[field]);
    vec![word("type"), word("reason"), age(event, now), from, word("message").trim().replace('\n', " ")]
}

/// `5m`, or `5m (x3 over 20m)` of what was said several times.
fn age(event: &Value, now: Timestamp) -> String {
    let since = |time: Option<Timestamp>| time.map_or_else(|| "?".to_owned(), |time| span(now, time));
    let count = event["series"]["count"].as_i64().or_else(|| event["count"].as_i64()).unwrap_or(1);
    if count > 1 {
        return format!("{} (x{count} over {})", since(last(event)), since(first(event)));
    }
    since(last(event))
}

fn first(event: &Value) -> Option<Timestamp> {
    time(&event["firstTimestamp"]).or_else(|| time(&event["eventTime"]))
}

fn last(event: &Value) -> Option<Timestamp> {
    time(&event["series"]["lastObservedTime"])
        .or_else(|| time(&event["lastTimestamp"]))
        .or_else(|| first(event))
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// The largest unit that is there once, two where the first is small.
fn span(now: Timestamp, time: Timestamp) -> String {
    let seconds = (now.as_second() - time.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0..=1) => format!("{seconds}s"),
        (0, 0, 2..=9) if seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        (0, 0..=2, _) => format!("{minutes}m"),
        (0..=1, ..) => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_shown_as_kubectl_shows_them_old_and_new() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let old = json!({
            "type": "Warning", "reason": "NotFound", "message": "no Postgres orders", "count": 3,
            "firstTimestamp": "2026-11-26T09:00:00Z", "lastTimestamp": "2026-11-26T11:54:30Z",
            "source": { "component": "enforcer-controller" },
        });
        let new = json!({
            "type": "Normal", "reason": "Other", "message": "two\nlines", "firstTimestamp": null, "source": {},
            "eventTime": "2026-11-26T11:15:00.000001Z", "reportingComponent": "somebody",
        });
        assert_eq!(
            section(&[old, new], now),
            "Events:\n  TYPE      REASON     AGE                  FROM                  MESSAGE\n  \
             Normal    Other      45m                  somebody              two lines\n  \
             Warning   NotFound   5m30s (x3 over 3h)   enforcer-controller   no Postgres orders\n"
        );
        assert_eq!(section(&[], now), "");
    }
}
