//! `test`: the tiers, and one line at the end that counts them together.
//!
//! A test binary belongs to the tier that its name says: `tests/tests/TIER.rs` or `tests/tests/TIER_more.rs`.

mod vm;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    build,
    cluster::{self, Cni, Shape, existing},
    kubernetes, process, setup,
    vm::Version,
};

#[derive(clap::Args)]
pub struct Args {
    /// Only this tier
    tier: Option<Tier>,
    /// Also what takes longer than a developer waits
    #[arg(long)]
    full: bool,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Tier vm: only this kernel
    #[arg(long, value_enum)]
    kernel: Option<Version>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Tier {
    /// Tests beside the code, of every crate; the BPF crate is built for the host
    Unit,
    /// Programs run by the kernel on made-up packets
    Prog,
    /// A real Kubernetes API server, no node
    Control,
    /// Real pods of a real cluster: of one node, or the one that KUBECONFIG names
    Cluster,
    /// Real traffic of real servers in network namespaces
    Netns,
    /// The tier prog, and real traffic through the kernel's WireGuard, on other kernels in QEMU
    Vm,
}

impl Tier {
    const ALL: &[Self] = &[Self::Unit, Self::Prog, Self::Control, Self::Cluster, Self::Netns];
    /// With `--full`: an emulated processor takes its time.
    const FULL: &[Self] = &[Self::Unit, Self::Prog, Self::Control, Self::Cluster, Self::Netns, Self::Vm];

    /// Names of the test binaries start with one of these.
    const fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Unit | Self::Vm => &[],
            Self::Prog => &["datapath", "prog"],
            Self::Control => &["control"],
            Self::Cluster => &["cluster"],
            Self::Netns => &["bench", "netns", "tunnel"],
        }
    }
}

/// What the `test result:` lines add up to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

pub fn run(args: &Args) -> Result<()> {
    if args.tier.is_none() {
        setup::run(setup::Args::default())?;
    }
    let all = if args.full { Tier::FULL } else { Tier::ALL };
    let tiers = args.tier.map_or_else(|| all.to_vec(), |tier| vec![tier]);
    // Whoever runs all tiers has not said that enforcer is to be installed somewhere.
    let existing = args.tier == Some(Tier::Cluster) && existing::is_named();
    let binaries = binaries()?;
    let mut count = Count::default();
    let mut all_succeeded = true;
    for tier in tiers {
        eprintln!("test: tier {tier:?}");
        if tier == Tier::Vm {
            all_succeeded &= vm::run(&binaries, args.kernel, args.filter.as_deref(), &mut count)?;
            continue;
        }
        let mut cargo = selection(tier, &binaries, existing);
        let cluster =
            if existing { existing::prepare(&mut cargo).map(|()| None) } else { prepare(tier, &mut cargo) }?;
        compile(&cargo)?;
        cargo.args(["--no-fail-fast", "--"]).args(&args.filter);
        if tier == Tier::Netns {
            // The tests of a binary share one lab.
            cargo.arg("--test-threads=1");
        }
        if args.full {
            // What needs modules that this kernel may lack is the tier vm's.
            cargo.args(["--include-ignored", "--skip", "modules::"]);
        }
        if args.full && tier == Tier::Control {
            cargo.env("ENFORCER_NEWER_SERVER", kubernetes::newer::server()?);
        }
        if args.full && tier == Tier::Netns {
            // What has to be fast is asked of the binary as it is released.
            build::run(&build::Args { release: true })?;
            cargo.env("ENFORCER_LAB_RELEASE", build::binary("enforcer", true));
        }
        all_succeeded &= count_tests(&mut cargo, &mut count)?;
        drop(cluster);
        if args.filter.is_none() && !existing {
            all_succeeded &= otherwise(tier, args.full, &mut count)?;
        }
    }
    print_count(count);
    if !all_succeeded || count.failed > 0 {
        bail!("not every test passed");
    }
    Ok(())
}

/// A tier's tests that hold under other circumstances as well.
fn otherwise(tier: Tier, full: bool, count: &mut Count) -> Result<bool> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace"]);
    match tier {
        Tier::Cluster => {
            eprintln!("test: pods that a bridge joins");
            cargo.args(["--test=cluster_enforcer", "--"]);
            // All of them hold there; who is granted and who is not is what a network can change.
            if !full {
                cargo.arg("grants::");
            }
            let cluster = in_cluster(Shape { cni: Cni::Bridge, nodes: 1 }, &mut cargo)?;
            let mut all_succeeded = count_tests(&mut cargo, count)?;
            drop(cluster);
            if full {
                eprintln!("test: a cluster that was there, with its gateway on a node");
                let mut cargo = process::cargo();
                cargo.args(["test", "--workspace", "--test", existing::TESTS]);
                let _cluster = in_cluster(Shape { cni: Cni::Ptp, nodes: 2 }, &mut cargo)?;
                cluster::Up::as_existing(&mut cargo)?;
                all_succeeded &= count_tests(&mut cargo, count)?;
            }
            Ok(all_succeeded)
        }
        Tier::Netns => {
            // The hooks of kernels that have no tcx hold as well.
            eprintln!("test: ways out and in, with programs attached by clsact");
            cargo.args(["--test=netns_ways", "--", "--test-threads=1"]);
            count_tests(cargo.env("ENFORCER_LAB_ATTACH", "clsact"), count)
        }
        _ => Ok(true),
    }
}

/// What tests of a tier find when they start: binaries that are no dependency that cargo would know of, and, as long as
/// what is returned lives, a cluster.
fn prepare(tier: Tier, cargo: &mut Command) -> Result<Option<cluster::Up>> {
    match tier {
        Tier::Unit | Tier::Prog | Tier::Vm => {}
        Tier::Control => {
            cargo.env(kubernetes::ASSETS, kubernetes::control_plane()?);
            build::run(&build::Args::default())?;
        }
        Tier::Cluster => return in_cluster(Shape { cni: Cni::Ptp, nodes: 1 }, cargo).map(Some),
        Tier::Netns => {
            // The bench asks an API server as well.
            cargo.env(kubernetes::ASSETS, kubernetes::control_plane()?);
            build::run(&build::Args::default())?;
        }
    }
    Ok(None)
}

/// Starts a cluster for tests, and names it to them.
fn in_cluster(shape: Shape, cargo: &mut Command) -> Result<cluster::Up> {
    let cluster = cluster::Up::with_image(shape)?;
    cargo.env("ENFORCER_CLUSTER", cluster::Up::NAME);
    Ok(cluster)
}

/// Only this tier, for a command of its own.
pub fn tier_cluster() -> Args {
    Args { tier: Some(Tier::Cluster), full: false, filter: None, kernel: None }
}

/// `cargo test` of a tier's binaries.
fn selection(tier: Tier, binaries: &[(String, Tier)], existing: bool) -> Command {
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace"]);
    if tier == Tier::Unit {
        cargo.args(["--lib", "--bins"]);
    } else {
        let of_tier =
            binaries.iter().filter(|(name, of)| *of == tier && (name == existing::TESTS) == existing);
        cargo.args(of_tier.map(|(name, _)| format!("--test={name}")));
    }
    cargo
}

/// Test binaries and their tiers; a file that belongs to none would never run.
fn binaries() -> Result<Vec<(String, Tier)>> {
    let dir = process::workspace().join("tests/tests");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".rs") else { continue };
        let tier =
            Tier::ALL.iter().find(|tier| tier.prefixes().iter().any(|prefix| name.starts_with(prefix)));
        found.push((
            name.to_owned(),
            *tier.with_context(|| format!("tests/tests/{file} belongs to no tier"))?,
        ));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Compiles the same selection first: what does not compile is an error of its own, no failed test.
fn compile(cargo: &Command) -> Result<()> {
    let mut build = process::cargo();
    build.args(cargo.get_args()).args(["--quiet", "--no-run"]);
    process::run(&mut build)
}

/// Runs it, passes its output on, and adds what it counts. Returns whether cargo was content.
fn count_tests(cargo: &mut Command, count: &mut Count) -> Result<bool> {
    if env::var("CI").is_ok_and(|ci| ci == "true") {
        cargo.env("ENFORCER_REQUIRE_ALL", "1");
    }
    // Tests announce a skip on standard error, past the capture of the test harness, so both go through one pipe.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    cargo.stderr(Stdio::from(writer.try_clone()?)).stdout(Stdio::from(writer));
    let mut child = cargo.spawn().context("cannot start cargo")?;
    // The command holds the writing end; without this the pipe would never end.
    cargo.stdout(Stdio::null()).stderr(Stdio::null());
    let mut out = std::io::stderr().lock();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read the output of cargo")?;
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        count.add(&String::from_utf8_lossy(&line));
    }
    Ok(child.wait()?.success())
}

impl Count {
    fn add(&mut self, line: &str) {
        if line.starts_with("SKIP: ") {
            // The test itself returns and is counted as passed below.
            self.skipped += 1;
            self.passed = self.passed.wrapping_sub(1);
            return;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |what: &str| -> u32 {
            let words = result.split([';', '.']).map(str::trim);
            words.filter_map(|part| part.strip_suffix(what)?.trim().parse::<u32>().ok()).sum()
        };
        self.passed = self.passed.wrapping_add(number("passed"));
        self.failed += number("failed");
        self.skipped += number("ignored");
    }
}

#[expect(clippy::print_stdout, reason = "this line is the result")]
fn print_count(count: Count) {
    let Count { passed, failed, skipped } = count;
    if skipped > 0 {
        println!("{passed} passed, {failed} failed, {skipped} skipped");
    } else {
        println!("{passed} passed, {failed} failed");
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn results_of_all_binaries_add_up_and_a_skip_is_no_pass() {
        let mut count = Count::default();
        for line in [
            "running 3 tests",
            "SKIP: needs the WireGuard module",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.25s",
        ] {
            count.add(line);
        }
        assert_eq!(count, Count { passed: 6, failed: 2, skipped: 2 });
    }
}
