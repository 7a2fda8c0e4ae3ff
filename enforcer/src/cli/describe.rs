//! `describe`: one object, whole, in the order in which a person asks.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Failure, events, input, out,
    place::{PlaceArgs, Scope, find},
    show::{ready, text},
    table,
};

#[derive(Args, Debug)]
pub struct DescribeArgs {
    /// KIND NAME… or KIND/NAME…; a kind alone for all of it
    #[arg(required = true, value_name = "KIND [NAME]…", add = super::completions::objects())]
    what: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    place: PlaceArgs,
}

pub fn run(args: &DescribeArgs) -> anyhow::Result<ExitCode> {
    let targets = input::targets(&args.what).map_err(Failure::usage)?;
    let place = args.place.choose()?;
    let mut pages = Vec::new();
    let mut missing = false;
    for target in &targets {
        let objects = match &target.name {
            None => place.list(target.kind, args.scope.of(target.kind, &*place))?,
            Some(name) => find(&*place, target.kind, name, &args.scope)?.unwrap_or_else(|absence| {
                out::note(&format!("enforcer: {absence}"));
                missing = true;
                Vec::new()
            }),
        };
        for object in &objects {
            let events = place.events(object).unwrap_or_else(|error| {
                out::note(&format!("note: events are not shown: {error:#}"));
                Vec::new()
            });
            pages.push(describe(object)? + &events::section(&events, Timestamp::now()));
        }
    }
    for note in place.notes(&targets.iter().map(|target| target.kind).collect::<Vec<_>>()) {
        out::note(&format!("note: {note}"));
    }
    out::data(&pages.join("\n"))?;
    Ok(if missing { Failure::NotFound.code() } else { ExitCode::SUCCESS })
}

fn describe(object: &Value) -> anyhow::Result<String> {
    let mut page = String::new();
    let metadata = &object["metadata"];
    writeln!(page, "{} {}", text(&object["kind"]), text(&metadata["name"]))?;
    if !metadata["namespace"].is_null() {
        writeln!(page, "  namespace: {}", text(&metadata["namespace"]))?;
    }
    if let Some(labels) = metadata["labels"].as_object() {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
        writeln!(page, "  labels: {}", labels.join(", "))?;
    }
    let verdict = ready(object);
    if !verdict.is_null() {
        let words = if verdict["status"] == "True" { "works" } else { "does not work" };
        writeln!(page, "  {words}: {}", sentence(verdict))?;
    }
    section(&mut page, "Spec", &object["spec"])?;
    let mut status = object["status"].clone();
    let conditions = status.as_object_mut().and_then(|status| status.remove("conditions"));
    section(&mut page, "Status", &status)?;
    if let Some(conditions) = conditions.as_ref().and_then(Value::as_array) {
        let rows: Vec<Vec<String>> = conditions
            .iter()
            .map(|condition| {
                ["type", "status", "reason", "message"].iter().map(|field| text(&condition[*field])).collect()
            })
            .collect();
        writeln!(page, "Conditions:")?;
        for line in table::render(&["TYPE", "STATUS", "REASON", "MESSAGE"], &rows).lines() {
            writeln!(page, "  {line}")?;
        }
    }
    Ok(page)
}

fn sentence(condition: &Value) -> String {
    match (text(&condition["reason"]), text(&condition["message"])) {
        (reason, message) if message.is_empty() => reason,
        (reason, message) => format!("{message} ({reason})"),
    }
}

fn section(page: &mut String, title: &str, value: &Value) -> anyhow::Result<()> {
    if value.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(());
    }
    writeln!(page, "{title}:")?;
    for line in serde_norway::to_string(value)?.lines() {
        writeln!(page, "  {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_reason_why_it_does_not_work_stands_at_the_top() {
        let object = json!({
            "kind": "ServiceConnection",
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "destination": { "kind": "Postgres", "name": "orders" } },
            "status": { "matchedPods": 0, "conditions": [
                { "type": "Ready", "status": "False", "reason": "NotValid", "message": "" },
                { "type": "Valid", "status": "False", "reason": "NotFound", "message": "no Postgres orders" },
            ]},
        });
        assert_eq!(
            describe(&object).unwrap(),
            "ServiceConnection cart\n  namespace: shop\n  does not work: no Postgres orders (NotFound)\n\
             Spec:\n  destination:\n    kind: Postgres\n    name: orders\n\
             Status:\n  matchedPods: 0\n\
             Conditions:\n  TYPE    STATUS   REASON     MESSAGE\n  Ready   False    NotValid\n  \
             Valid   False    NotFound   no Postgres orders\n"
        );
    }
}
