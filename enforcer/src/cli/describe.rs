//! `describe`: one object, whole, in the order in which a person asks.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde_json::Value;

use super::{
    ask::{NOT_FOUND, SocketArgs, ready, text},
    kinds, out, table,
};
use crate::control::Request;

#[derive(Args, Debug)]
pub struct DescribeArgs {
    /// Kind: any case, plural or short
    kind: String,
    name: String,
    /// Only in this project (namespace)
    #[arg(short = 'n', long = "project", alias = "namespace", value_name = "NAME")]
    project: Option<String>,
    #[command(flatten)]
    socket: SocketArgs,
}

pub fn run(args: &DescribeArgs) -> anyhow::Result<ExitCode> {
    let kind = kinds::parse(&args.kind)?;
    let request = Request::Get { kind, namespace: args.project.clone(), name: Some(args.name.clone()) };
    let objects = args.socket.ask(&request)?;
    let objects = objects.as_array().map(Vec::as_slice).unwrap_or_default();
    if objects.is_empty() {
        out::note(&format!("enforcer: there is no {kind} {}", args.name));
        return Ok(ExitCode::from(NOT_FOUND));
    }
    let texts: Vec<_> = objects.iter().map(describe).collect::<Result<_, _>>()?;
    out::data(&texts.join("\n"))?;
    Ok(ExitCode::SUCCESS)
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
