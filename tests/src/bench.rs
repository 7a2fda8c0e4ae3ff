//! `cargo xtask bench`: what enforcer costs on the machine that runs it.
//!
//! Whatever is compared is measured in turn, in pairs, in one run: a machine whose speed drifts does so for both.
//! Ratios are of the two halves of a pair. Values are medians with the interval that holds the true one.

mod api;
mod behaviour;
mod chart;
mod compiling;
mod empty;
pub mod figure;
mod grants;
mod objects;
mod policy;
mod traffic;
mod tunnels;
mod unguarded;
mod verdict;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use figure::Figure;

/// What to measure and how to say it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// An object a line.
    pub json: bool,
    /// Few rounds and small sizes: whether it works, not what it says.
    pub quick: bool,
    /// Metrics that begin with one of these; all where there is none.
    pub only: Vec<String>,
    /// Where the scaling figures are drawn (SVG).
    pub chart: Option<PathBuf>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    pub quick: bool,
}

impl Scope {
    /// How often, where the answer is worth so many rounds.
    pub const fn rounds(self, full: usize) -> usize {
        if self.quick { 2 } else { full }
    }
}

/// Metrics that are measured together.
struct Group {
    metrics: &'static [&'static str],
    figures: fn(Scope) -> Result<Vec<Figure>>,
}

const GROUPS: &[Group] = &[
    Group { metrics: &["verdict_ns"], figures: verdict::figures },
    Group { metrics: &["unguarded_pps_ratio", "unguarded_rr_ratio"], figures: unguarded::figures },
    Group { metrics: &["tunnel_mbps", "tunnel_rr_us", "connect_us"], figures: tunnels::figures },
    Group { metrics: &["revoke_ms", "announce_rtt_ms", "dead_gateway_ms"], figures: behaviour::figures },
    Group { metrics: &["policy_vs_iptables", "policy_vs_nftables"], figures: policy::figures },
    Group { metrics: &["compile_ms"], figures: compiling::figures },
    Group {
        metrics: &[
            "api_change_to_kernel_ms",
            "controller_rss_mib",
            "api_agent_rss_mib",
            "api_writes_per_pod",
        ],
        figures: api::figures,
    },
    Group { metrics: &["grant_to_kernel_ms", "agent_rss_mib", "kernel_map_mib"], figures: grants::figures },
];

impl Options {
    /// From the words of a command line; `None`: it is wrong.
    pub fn parse(args: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                "--only" => options.only.push((*args.next()?).to_owned()),
                "--chart" => options.chart = Some(args.next()?.into()),
                _ => return None,
            }
        }
        Some(options)
    }

    fn wants(&self, metric: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| metric.starts_with(only.as_str()))
    }
}

/// Measures and prints each figure as soon as it is known.
#[expect(clippy::print_stdout, reason = "the figures are the result")]
pub fn run(options: &Options) -> Result<()> {
    let scope = Scope { quick: options.quick };
    let wanted = |group: &&Group| group.metrics.iter().any(|metric| options.wants(metric));
    let groups: Vec<&Group> = GROUPS.iter().filter(wanted).collect();
    ensure!(!groups.is_empty(), "no metric begins with {}", options.only.join(" or "));
    let mut all = Vec::new();
    for group in groups {
        let figures = (group.figures)(scope).with_context(|| group.metrics.join(", "))?;
        for figure in figures.iter().filter(|figure| options.wants(figure.metric)) {
            if options.json {
                println!("{}", figure.json());
            } else {
                println!("{figure}");
            }
        }
        all.extend(figures);
    }
    if let Some(path) = &options.chart {
        let drawn = chart::svg(&all).context("--chart draws policy_vs_…, none was measured")?;
        fs::write(path, drawn).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
