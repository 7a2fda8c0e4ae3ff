//! The demo: what each pod can do with real clients, what is on the wire, and what happens when YAML is edited.
//!
//! Every statement is a check with an expectation; the demo succeeds only if all of them hold.

mod live;
mod matrix;
mod report;

use anyhow::Result;

use crate::lab::{Lab, Pod, Role, clean, manifests::Service, network};
use report::Report;

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// One JSON object a check instead of text.
    pub json: bool,
    /// Leaves the lab up.
    pub keep: bool,
}

const DIAGRAM: &str = "
  node ef-ID-node                                  gateway ef-ID-gw               ef-ID-svc
 ┌───────────────────────────────────┐           ┌───────────────────┐          ┌────────────┐
 │ cart    app=cart   in shop   ─┐   │           │                   │          │ PostgreSQL │
 │ audit   app=audit  in shop    ├ TC│ WireGuard │ grants, again     │          │ MariaDB    │
 │ stray   app=cart   in other   │   ╞═══════════╡ healthy backends  ├──────────┤ Redis      │
 │ plain   no labels, in shop   ─┘   │ 192.0.2.0 │ 192.0.2.1         │  203.0.  │ 203.0.     │
 │ hostnet app=cart   hostNetwork    │   /24     │ 203.0.113.1       │  113.0   │ 113.10     │
 └───────────────────────────────────┘           └───────────────────┘          └────────────┘
 A ServiceConnection for each service grants pods with app=cart in the namespace shop, and nobody else.
";

/// Runs all of it; whether everything came out as expected.
pub fn run(options: Options) -> Result<bool> {
    let mut report = Report::new(options.json);
    let mut lab = Lab::new(&pods())?;
    report.text(&DIAGRAM.replace("ID", &lab.id.id));
    let outcome = show(&mut lab, &mut report);
    if outcome.is_err() {
        lab.print_logs();
    }
    if options.keep {
        clean::leave(&lab.id)?;
        lab.keep();
        report.text(&how_to_poke(&lab));
    }
    outcome?;
    Ok(report.finish())
}

fn pods() -> [Pod; 5] {
    let cart = [("app", "cart")];
    [
        Pod::new("shop", "cart", &cart),
        Pod::new("shop", "audit", &[("app", "audit")]),
        Pod::new("other", "stray", &cart),
        Pod::new("shop", "plain", &[]),
        Pod::new("shop", "hostnet", &cart).host_network(),
    ]
}

fn show(lab: &mut Lab, report: &mut Report) -> Result<()> {
    report.step("starting PostgreSQL, MariaDB and Redis");
    lab.start_servers()?;
    report.step("starting controller, dns, gateway, agent and a tunnel on either end");
    lab.save_objects()?;
    lab.save_tunnel_ends("")?;
    for service in Service::ALL {
        lab.grant(service)?;
    }
    lab.start_roles()?;
    lab.wait_ready()?;
    lab.start_monitor(Role::Agent)?;
    let capture = lab.capture("underlay")?;
    matrix::show(lab, report)?;
    live::grant_and_revocation(lab, report)?;
    matrix::wire(report, &capture.finish()?);
    matrix::counters(lab, report)
}

fn how_to_poke(lab: &Lab) -> String {
    let id = &lab.id;
    let socket = lab.run_dir(Role::Agent).join("agent.sock");
    format!(
        "The lab stays up:
  in a pod        ip netns exec {pod} psql -h {fqdn} -U app
  as hostNetwork  echo $$ > {hostnet}/cgroup.procs; ip netns exec {node} redis-cli -h …
  verdicts        enforcer monitor --socket {socket}
  state           enforcer status --socket {socket}; enforcer get serviceconnection -A --socket {socket}
  policy          edit the files in {manifests}
  programs        ip netns exec {node} bpftool net show; bpftool map show; ls -R {bpffs}
  underlay        ip netns exec {lan} tcpdump -nni {port}
  tunnel          ip netns exec {tunnel} ip -s link; wg show
  logs            {dir}/log
Remove it with `cargo xtask clean-lab`.
",
        pod = lab.pod("cart").netns,
        fqdn = Service::Postgres.fqdn(),
        hostnet = lab.pod("hostnet").cgroup.display(),
        node = id.netns("node"),
        socket = socket.display(),
        manifests = id.manifests().display(),
        bpffs = id.bpffs().display(),
        lan = id.netns("lan"),
        port = network::NODE_PORT,
        tunnel = lab.tunnel_netns(),
        dir = id.dir.display(),
    )
}
