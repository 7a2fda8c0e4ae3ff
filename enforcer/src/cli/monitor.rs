//! `monitor`: verdicts as they are made.

use std::process::ExitCode;

use clap::Args;

use super::{
    ask::{Format, SocketArgs},
    out,
};
use crate::control::{self, MonitorEvent};

#[derive(Args, Debug)]
pub struct MonitorArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// `table` is one line for a person, `json` one object a line
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Only this kind of event
    #[arg(long, value_parser = ["denied", "opened", "reset", "device-guarded", "missed"])]
    kind: Option<String>,
    /// Only events of this pod: `namespace/name` or a part of it
    #[arg(long)]
    pod: Option<String>,
}

pub fn run(args: &MonitorArgs) -> anyhow::Result<ExitCode> {
    let socket = args.socket.find()?;
    for line in control::events(&socket)? {
        let line = line?;
        let Ok(event) = serde_json::from_str::<MonitorEvent>(&line) else {
            out::note(&format!("enforcer: events were missed, this terminal is too slow: {line}"));
            continue;
        };
        if event.kind == "missed" && args.output == Format::Table {
            out::note(&sentence(&event));
            continue;
        }
        if args.kind.as_ref().is_some_and(|kind| *kind != event.kind)
            || args.pod.as_ref().is_some_and(|pod| !event.pod.contains(pod.as_str()))
        {
            continue;
        }
        out::data(&if args.output == Format::Json { line + "\n" } else { sentence(&event) + "\n" })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `12:03:04.123 denied  connect  shop/web psql[812] -> 198.18.0.7:5432 TCP Postgres shop/orders: NoGrant (…)`
fn sentence(event: &MonitorEvent) -> String {
    let time = event.time.get(11..23).unwrap_or(&event.time);
    if matches!(event.kind.as_str(), "device-guarded" | "missed") {
        return format!("{time} {} {}", event.kind, event.explanation);
    }
    let who = match (event.pod.as_str(), event.pid) {
        ("", 0) => format!("{} on interface {}", endpoint(&event.source, event.source_port), event.interface),
        ("", pid) => format!("{}[{pid}]", event.process),
        (pod, 0) => pod.to_owned(),
        (pod, pid) => format!("{pod} {}[{pid}]", event.process),
    };
    let mut line = format!(
        "{time} {:<6} {:<13} {who} -> {} {}",
        event.kind,
        event.hook,
        endpoint(&event.destination, event.destination_port),
        event.protocol
    );
    if !event.destination_name.is_empty() {
        line = format!("{line} {}", event.destination_name);
    }
    if !event.reason.is_empty() {
        line = format!("{line}: {}", event.reason);
    }
    if !event.connection.is_empty() {
        line = format!("{line} [{}]", event.connection);
    }
    if !event.explanation.is_empty() {
        line = format!("{line} ({})", event.explanation);
    }
    line
}

fn endpoint(address: &str, port: u16) -> String {
    match (address.contains(':'), port) {
        (_, 0) => address.to_owned(),
        (true, port) => format!("[{address}]:{port}"),
        (false, port) => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_pod_process_destination_reason_and_the_term_that_failed() {
        let event = MonitorEvent {
            time: "2026-11-25T12:03:04.123456Z".into(),
            kind: "denied".into(),
            hook: "connect".into(),
            reason: "NoGrant".into(),
            protocol: "TCP".into(),
            destination: "fd00::7".into(),
            destination_port: 5432,
            pod: "shop/web".into(),
            destination_name: "Postgres shop/orders".into(),
            connection: "shop/cart".into(),
            explanation: "pod label app: \"web\", expected \"cart\"".into(),
            pid: 812,
            process: "psql".into(),
            ..MonitorEvent::default()
        };
        assert_eq!(
            sentence(&event),
            "12:03:04.123 denied connect       shop/web psql[812] -> [fd00::7]:5432 TCP Postgres shop/orders: \
             NoGrant [shop/cart] (pod label app: \"web\", expected \"cart\")"
        );
    }
}
