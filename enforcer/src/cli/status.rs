//! `status`: how a role is doing, worst first, on one screen.

use std::fmt::Write as _;

use serde_json::Value;

use super::{show::text, table};

/// The page that a tired person reads; `-o yaml` and `-o json` have everything.
pub fn page(status: &Value) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    write!(page, "{} {}", text(&status["role"]), text(&status["name"]))?;
    match text(&status["cluster"]) {
        cluster if cluster.is_empty() => writeln!(page)?,
        cluster => writeln!(page, " of cluster {cluster}")?,
    }
    for condition in items(&status["conditions"]) {
        let good = condition["status"] == "True";
        write!(page, "  {:<5} {}", if good { "ok" } else { "FAIL" }, text(&condition["type"]))?;
        match text(&condition["message"]) {
            message if message.is_empty() => {}
            message => write!(page, ": {message}")?,
        }
        match text(&condition["lastTransitionTime"]) {
            since if since.is_empty() => writeln!(page)?,
            since => writeln!(page, " (since {since})")?,
        }
    }
    for problem in items(&status["problems"]) {
        writeln!(page, "  !     {}", text(problem))?;
    }
    section(
        &mut page,
        "tunnels",
        status,
        &["gateway", "device", "mode", "mtu", "endpoint", "lastSeenSeconds"],
    )?;
    section(&mut page, "peers", status, &["node", "lastHandshake", "receivedBytes", "sentBytes"])?;
    section(&mut page, "pods", status, &["pod", "state", "grants", "live", "addresses", "message"])?;
    section(&mut page, "devices", status, &["device", "interface", "as", "guardedAfterMs"])?;
    let counters = &status["counters"];
    if !counters.is_null() {
        let drops: Vec<String> = (counters["drops"].as_object().into_iter().flatten())
            .map(|(reason, count)| format!("{reason} {}", text(count)))
            .collect();
        let drops = if drops.is_empty() { "none".to_owned() } else { drops.join(", ") };
        writeln!(page, "packets allowed: {}; refused: {drops}", text(&counters["allowed"]))?;
    }
    Ok(page)
}

/// Why this condition of the role does not hold; `None`: it does.
pub fn unmet(status: &Value, wanted: &str) -> Option<String> {
    let conditions = items(&status["conditions"]);
    let Some(condition) = conditions.iter().find(|condition| condition["type"] == wanted) else {
        let known: Vec<String> = conditions.iter().map(|condition| text(&condition["type"])).collect();
        return Some(format!("there is no condition {wanted}: expected one of {}", known.join(", ")));
    };
    (condition["status"] != "True").then(|| {
        let why = [&condition["reason"], &condition["message"]].map(text);
        format!("{wanted} is {}: {}", text(&condition["status"]), why.join(": "))
    })
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A table of the list in this field; nothing where there is none.
fn section(page: &mut String, field: &str, status: &Value, columns: &[&str]) -> std::fmt::Result {
    let list = items(&status[field]);
    if list.is_empty() {
        return Ok(());
    }
    let cell = |value: &Value| match value {
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => text(other),
    };
    let known: Vec<&str> =
        columns.iter().copied().filter(|column| list.iter().any(|item| !item[*column].is_null())).collect();
    let header: Vec<String> = known.iter().map(|column| column.to_uppercase()).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> =
        list.iter().map(|item| known.iter().map(|column| cell(&item[*column])).collect()).collect();
    writeln!(page, "{field}:")?;
    for line in table::render(&header, &rows).lines() {
        writeln!(page, "  {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{page, unmet};

    #[test]
    fn what_fails_says_why_and_empty_columns_are_left_out() {
        let status = json!({
            "role": "agent", "name": "node-1", "cluster": "lab",
            "conditions": [
                { "type": "Guarded", "status": "True", "message": "", "lastTransitionTime": "T1" },
                { "type": "Connected", "status": "False", "message": "eu-1: does not answer", "lastTransitionTime": "T2" },
            ],
            "problems": ["a.yaml: document 1: does not parse"],
            "pods": [{ "pod": "shop/cart", "state": "Guarded", "grants": 2, "live": 0, "addresses": ["198.19.0.2"], "message": null }],
            "counters": { "allowed": 3, "drops": { "NoGrant": 2 } },
        });
        assert_eq!(
            page(&status).unwrap(),
            "agent node-1 of cluster lab\n  ok    Guarded (since T1)\n  \
             FAIL  Connected: eu-1: does not answer (since T2)\n  !     a.yaml: document 1: does not parse\n\
             pods:\n  POD         STATE     GRANTS   LIVE   ADDRESSES\n  \
             shop/cart   Guarded   2        0      198.19.0.2\n\
             packets allowed: 3; refused: NoGrant 2\n"
        );
    }

    #[test]
    fn a_condition_that_is_required_and_does_not_hold_says_why() {
        let status = json!({ "conditions": [
            { "type": "Guarded", "status": "True", "reason": "Guarded", "message": "" },
            { "type": "Connected", "status": "False", "reason": "NoAnswer", "message": "eu-1: does not answer" },
        ] });
        for (wanted, why) in [
            ("Guarded", None),
            ("Connected", Some("Connected is False: NoAnswer: eu-1: does not answer")),
            ("Garded", Some("there is no condition Garded: expected one of Guarded, Connected")),
        ] {
            assert_eq!(unmet(&status, wanted).as_deref(), why);
        }
    }
}
