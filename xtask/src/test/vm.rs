//! The tier `vm`: the tests of this machine's kernel on other kernels.

use std::{fmt::Write as _, io::Write as _, path::PathBuf, thread};

use anyhow::{Context, Result, bail};

use super::{Count, Tier};
use crate::{
    build, process,
    vm::{self, Version},
};

/// Tests of the tier `netns` that show the main path; with the kernel's WireGuard on both ends.
const MAIN_PATH: &str = "paths::a_granted_pod_reaches_every_service_over_both_families";

/// Runs the tests on every kernel. Returns whether all of them passed.
pub fn run(binaries: &[(String, Tier)], filter: Option<&str>, count: &mut Count) -> Result<bool> {
    build::run(&build::Args::default())?;
    let prog: Vec<_> =
        binaries.iter().filter(|(_, tier)| *tier == Tier::Prog).map(|(name, _)| name.as_str()).collect();
    let prog = executables(&prog)?;
    let netns = executables(&["netns"])?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut all_passed = true;
    for version in Version::ALL {
        let mut script = "cd tests\nexport ENFORCER_REQUIRE_ALL=1\nfailed=0\n".to_owned();
        for executable in &prog {
            let filter = filter.unwrap_or_default();
            // Links of tcx are what 6.1 does not have; `filters` tests what it has instead.
            let skip = if *version == Version::V6_1 { "--skip links::" } else { "" };
            let executable = executable.display();
            writeln!(script, "{executable} --test-threads={threads} {skip} {filter} || failed=1")?;
        }
        if filter.is_none() {
            for executable in &netns {
                writeln!(
                    script,
                    "ENFORCER_LAB_TUNNEL=kernel {} --test-threads=1 {MAIN_PATH} || failed=1",
                    executable.display()
                )?;
            }
        }
        script.push_str("exit $failed\n");
        let status = vm::run_on(*version, &script, |line| {
            count.add(&String::from_utf8_lossy(line));
            let mut out = std::io::stderr().lock();
            out.write_all(line)?;
            out.write_all(b"\n")
        })?;
        all_passed &= status == 0;
    }
    Ok(all_passed)
}

/// Builds test binaries and says where they are.
fn executables(tests: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json"]);
    cargo.args(tests.iter().map(|test| format!("--test={test}")));
    let messages =
        process::output(cargo.stderr(std::process::Stdio::inherit())).context("the tests do not compile")?;
    let mut found = Vec::new();
    for message in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(message).with_context(|| format!("cargo printed no JSON: {message}"))?;
        let is_test = message["target"]["kind"][0] == "test" && message["profile"]["test"] == true;
        if let (true, Some(path)) = (is_test, message["executable"].as_str()) {
            found.push(PathBuf::from(path));
        }
    }
    if found.len() != tests.len() {
        bail!("cargo built {} test binaries instead of {}", found.len(), tests.len());
    }
    Ok(found)
}
