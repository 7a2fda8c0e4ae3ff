//! Editing YAML while clients run: a grant appears, and is taken back.

use anyhow::Result;

use super::report::Report;
use crate::lab::{
    Lab,
    manifests::Service,
    query::{Answer, Family},
    wait,
};

/// Lets a second label in.
const BOTH_LABELS: &str =
    "      matchExpressions:\n      - {key: app, operator: In, values: [cart, audit]}\n";

pub fn grant_and_revocation(lab: &mut Lab, report: &mut Report) -> Result<()> {
    report.step("granting, then revoking, while clients run");
    report.text("\nEditing connection-orders.yaml\n");
    let audit = lab.place("audit");
    let before = audit.query(Service::Postgres, Family::V4)?;
    report.line("audit before", "not permitted", &before.to_string(), before == Answer::NotPermitted);

    lab.grant_selector(Service::Postgres, BOTH_LABELS)?;
    let granted = wait::until("the new grant works", || match audit.query(Service::Postgres, Family::V4) {
        Ok(Answer::Works) => Some(Answer::Works),
        _ => None,
    });
    let got = granted.map_or_else(|err| format!("{err:#}"), |answer| answer.to_string());
    report.line("audit with its label in the podSelector", "works", &got, got == "works");

    let session = lab.open_session("audit", "session")?;
    lab.grant(Service::Postgres)?;
    let (end, log) = session.end()?;
    let ended = end.as_ref().is_some_and(|status| !status.success()) && !log.trim().is_empty();
    report.line("audit's open session after the edit was undone", "ends with an error", log.trim(), ended);
    let after = audit.query(Service::Postgres, Family::V4)?;
    report.line("audit again", "not permitted", &after.to_string(), after == Answer::NotPermitted);
    let cart = lab.place("cart").query(Service::Postgres, Family::V4)?;
    report.line("cart meanwhile", "works", &cart.to_string(), cart == Answer::Works);
    Ok(())
}
