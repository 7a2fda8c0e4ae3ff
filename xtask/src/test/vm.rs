//! The tier `vm`: the tests of this machine's kernel on other kernels, and tests of what this one's may lack.
//!
//! Its pieces run one after another in one machine for each kernel, each with a bound: an emulated processor makes
//! everything slow, and a test that hangs must not take the others with it.

use std::{fmt::Write as _, io::Write as _, path::PathBuf, thread};

use anyhow::{Context, Result, bail};

use super::{Count, Tier};
use crate::{
    build, process,
    vm::{self, Version},
};

/// Some tests of one binary.
struct Piece {
    binary: String,
    /// Words of the test harness: filters, and what is left out.
    words: String,
    /// Variables of the environment.
    variables: &'static str,
    /// Seconds that it may take.
    bound: u32,
}

/// Modules that the kernels load neither by themselves nor with what the tests do.
const MODULES: &str = "8021q sctp dccp_ipv4 dccp_ipv6";

/// Runs the tests on every kernel, or on one. Returns whether all of them passed.
pub fn run(
    binaries: &[(String, Tier)],
    kernel: Option<Version>,
    filter: Option<&str>,
    count: &mut Count,
) -> Result<bool> {
    build::run(&build::Args::default())?;
    let mut all_passed = true;
    for version in Version::ALL.iter().filter(|version| kernel.is_none_or(|kernel| kernel == **version)) {
        let pieces = pieces(binaries, *version, filter);
        let names: Vec<_> = pieces.iter().map(|piece| piece.binary.as_str()).collect();
        let script = script(&pieces, &executables(&names)?)?;
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

/// What runs on a kernel, the short ones first; with a filter only tests of the tier `prog`.
fn pieces(binaries: &[(String, Tier)], version: Version, filter: Option<&str>) -> Vec<Piece> {
    let piece = |binary: &str, words: &str, variables, bound| Piece {
        binary: binary.to_owned(),
        // The console looks like somebody's terminal. Long tests are no emulated processor's.
        words: format!("--color=never --skip a_million_times {words} {}", filter.unwrap_or_default()),
        variables,
        bound,
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    // Programs come to devices by links of tcx, or on 6.1 by filters. Pins are files, which no kernel makes otherwise; what
    // is left out would have the verifier busy for longer than all the rest.
    let skip = match version {
        Version::V6_1 => "--skip links:: --skip pins::",
        Version::V6_12 => "--skip filters:: --skip pins::",
    };
    let prog = binaries.iter().filter(|(_, tier)| *tier == Tier::Prog);
    let mut pieces: Vec<_> = prog
        .map(|(binary, _)| {
            let skip = if binary == "datapath" { skip } else { "" };
            piece(binary, &format!("--test-threads={threads} {skip}"), "", bound(binary))
        })
        .collect();
    pieces.sort_by_key(|piece| piece.bound);
    if filter.is_none() {
        // The main path, with the kernel's WireGuard on both ends; and ways out that need modules of the kernel.
        let main = "--test-threads=1 paths::a_granted_pod_reaches_every_service_over_both_families";
        pieces.push(piece("netns", main, "ENFORCER_LAB_TUNNEL=kernel", 900));
        pieces.push(piece("netns_ways", "--test-threads=1 --ignored modules::", "", 1200));
    }
    pieces
}

/// Seconds for a binary of the tier `prog`: several times what it takes.
fn bound(binary: &str) -> u32 {
    // Its tests start a node anew again and again, with all programs for the verifier each time.
    if binary == "datapath" { 1800 } else { 600 }
}

/// The pieces as lines of a shell; its exit status is whether all of them passed.
fn script(pieces: &[Piece], executables: &[PathBuf]) -> Result<String> {
    let mut script = format!(
        "cd tests\nexport ENFORCER_REQUIRE_ALL=1\nfailed=0\nup() {{ cut -d. -f1 /proc/uptime; }}\n\
         modprobe --all {MODULES} || failed=1\n"
    );
    for (number, (piece, executable)) in (1..).zip(pieces.iter().zip(executables)) {
        let Piece { binary, words, variables, bound } = piece;
        let (executable, all) = (executable.display(), pieces.len());
        writeln!(script, "echo \"vm: $(up) s: {number} of {all}: {binary} {words}, at most {bound} s\"")?;
        writeln!(script, "env {variables} timeout --kill-after=10 {bound} {executable} {words}")?;
        writeln!(
            script,
            "status=$?; [ $status = 0 ] || {{ failed=1; echo 'vm: {binary}: exit status' $status; }}"
        )?;
    }
    script.push_str("echo \"vm: $(up) s: the end\"\nexit $failed\n");
    Ok(script)
}

/// Builds test binaries and says where they are, in the order of their names here.
fn executables(tests: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json"]);
    cargo.args(tests.iter().map(|test| format!("--test={test}")));
    let messages =
        process::output(cargo.stderr(std::process::Stdio::inherit())).context("the tests do not compile")?;
    let mut found = vec![None; tests.len()];
    for message in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(message).with_context(|| format!("cargo printed no JSON: {message}"))?;
        let is_test = message["target"]["kind"][0] == "test" && message["profile"]["test"] == true;
        let index = tests.iter().position(|test| message["target"]["name"] == *test);
        if let (true, Some(path), Some(index)) = (is_test, message["executable"].as_str(), index) {
            found[index] = Some(PathBuf::from(path));
        }
    }
    let found: Option<Vec<_>> = found.into_iter().collect();
    let Some(found) = found else { bail!("cargo did not build all of {}", tests.join(", ")) };
    Ok(found)
}
