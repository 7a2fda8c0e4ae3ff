//! The bench works: every metric is measured, small, and says what it should in the form that it should.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

const METRICS: [&str; 19] = [
    "agent_rss_mib",
    "announce_rtt_ms",
    "api_agent_rss_mib",
    "api_change_to_kernel_ms",
    "api_writes_per_pod",
    "compile_ms",
    "connect_us",
    "controller_rss_mib",
    "dead_gateway_ms",
    "grant_to_kernel_ms",
    "kernel_map_mib",
    "policy_vs_iptables",
    "policy_vs_nftables",
    "revoke_ms",
    "tunnel_mbps",
    "tunnel_rr_us",
    "unguarded_pps_ratio",
    "unguarded_rr_ratio",
    "verdict_ns",
];

#[test]
fn the_bench_measures_everything_that_it_should() {
    let chart = std::env::temp_dir().join(format!("enforcer-bench-{}.svg", std::process::id()));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_enforcer-lab"));
    let output = bench.args(["bench", "--quick", "--json", "--chart"]).arg(&chart).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let figures: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let metrics: BTreeSet<&str> = figures.iter().map(|figure| figure["metric"].as_str().unwrap()).collect();
    assert_eq!(metrics, BTreeSet::from(METRICS));
    for figure in &figures {
        assert!(figure["labels"].is_object() && figure["value"].is_number(), "{figure}");
        assert!(figure["unit"].is_string() && figure.get("reference").is_some(), "{figure}");
    }
    assert!(std::fs::read_to_string(&chart).unwrap().starts_with("<svg"));
    std::fs::remove_file(chart).unwrap();
}
