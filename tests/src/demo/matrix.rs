//! Every pod, every service, both families; what was on the wire meanwhile; and what was counted.

use anyhow::Result;
use serde_json::Value;

use super::report::Report;
use crate::lab::{
    Lab, Place, Role,
    capture::Judged,
    manifests::{PROJECT, Service},
    query::{Answer, Family},
    wait,
};

/// Rows: where the client runs, what it is, and what it should get.
fn rows(lab: &Lab) -> Vec<(&'static str, &'static str, Place, Answer)> {
    let row = |name: &'static str, what, answer| (name, what, lab.place(name), answer);
    vec![
        row("cart", "granted", Answer::Works),
        row("audit", "another label", Answer::NotPermitted),
        row("stray", "another namespace", Answer::NotPermitted),
        row("plain", "no labels", Answer::NotPermitted),
        row("hostnet", "granted, hostNetwork", Answer::Works),
        // No pod at all: nobody knows it, so the wire stays silent.
        ("host", "process of no pod", lab.system(), Answer::Silence),
    ]
}

pub fn show(lab: &Lab, report: &mut Report) -> Result<()> {
    report.step("asking every service from every pod");
    let clients = Service::ALL.iter().flat_map(|service| [service.client(), ""]).map(str::to_owned);
    let families = Service::ALL.iter().flat_map(|_| Family::ALL).map(|family| family.name().to_owned());
    report.text(&format!("\n{}{}", line("", "", clients), line("", "", families)));
    for (name, what, place, expected) in rows(lab) {
        let mut cells = Vec::new();
        for service in Service::ALL {
            // One silence is enough to wait for.
            if expected == Answer::Silence && service != Service::Postgres {
                continue;
            }
            for family in Family::ALL {
                let got = place.query(service, family)?.to_string();
                let check = format!("{name} ({what}) to {} over {}", service.kind(), family.name());
                let ok = report.check(&check, &expected.to_string(), &got);
                cells.push(if ok { got } else { format!("!! {got}") });
            }
        }
        report.text(&line(name, what, cells));
    }
    denials(lab, report);
    Ok(())
}

/// One line of the table; cells are padded to the same width.
fn line(name: &str, what: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|cell| format!("{cell:14}")).collect();
    format!("{}\n", format!("  {name:8} {what:21} {}", cells.join(" ")).trim_end())
}

/// Each denied pod stands in `enforcer monitor`, with the reason.
fn denials(lab: &Lab, report: &mut Report) {
    report.text("\nenforcer monitor said\n");
    for pod in ["shop/audit", "other/stray", "shop/plain"] {
        let denial =
            |lab: &Lab| lab.events().into_iter().find(|event| event.kind == "denied" && event.pod == pod);
        let seen = wait::until(&format!("monitor shows the denial of {pod}"), || denial(lab));
        let got = seen.map_or_else(
            |err| format!("{err:#}"),
            |event| {
                format!(
                    "{} {} {} ({})",
                    event.process, event.reason, event.destination_name, event.explanation
                )
            },
        );
        let ok = got.contains("NoGrant");
        report.line(&format!("denial of {pod}"), "NoGrant with an explanation", &got, ok);
    }
}

/// What was captured on the underlay.
pub fn wire(report: &mut Report, judged: &Judged) {
    let kinds: Vec<String> = judged.allowed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    report.text("\nOn the wire between node and gateway\n");
    let tunnel = judged.allowed.get("tunnel").copied().unwrap_or_default();
    report.line(
        "frames of the tunnel",
        "some",
        &format!("{} ({} bytes in all)", kinds.join(", "), judged.bytes),
        tunnel > 0,
    );
    let foreign = match judged.foreign.as_slice() {
        [] => "none".to_owned(),
        [first, ..] => format!("{}, the first: {first}", judged.foreign.len()),
    };
    report.line("foreign frames", "none", &foreign, judged.foreign.is_empty());
}

/// What the kernel counted: every connection's traffic, and every reason of a drop.
pub fn counters(lab: &Lab, report: &mut Report) -> Result<()> {
    report.text(
        "\nCounted in the kernel (enforcer get serviceconnection -A -o json, enforcer status -o json)\n",
    );
    for service in Service::ALL {
        let name = format!("cart-{}", service.name());
        let traffic = wait::until("the agent has read the counters", || {
            let object = lab.get("serviceconnection", &name).ok()?;
            let traffic = object["status"]["traffic"].clone();
            (traffic["flows"].as_u64()? > 0).then_some(traffic)
        });
        let number = |traffic: &Value, field: &str| traffic[field].as_u64().unwrap_or_default();
        let got = traffic.as_ref().map_or_else(
            |err| format!("{err:#}"),
            |traffic| {
                format!(
                    "{} flows, {} packets ({} bytes) out, {} packets ({} bytes) in",
                    number(traffic, "flows"),
                    number(traffic, "packetsOut"),
                    number(traffic, "bytesOut"),
                    number(traffic, "packetsIn"),
                    number(traffic, "bytesIn")
                )
            },
        );
        report.line(&format!("traffic of {PROJECT}/{name}"), "flows", &got, traffic.is_ok());
    }
    let status = lab.status(Role::Agent)?;
    let drops = &status["counters"]["drops"];
    let words: Vec<String> =
        drops.as_object().into_iter().flatten().map(|(reason, count)| format!("{count} {reason}")).collect();
    let counted = drops["NoGrant"].as_u64().unwrap_or_default();
    // Three pods, three services, two families.
    report.line("drops by reason", "18 NoGrant or more", &words.join(", "), counted >= 18);
    Ok(())
}
