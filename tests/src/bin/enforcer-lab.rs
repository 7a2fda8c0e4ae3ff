//! `enforcer-lab`: what `cargo xtask demo` and `cargo xtask clean-lab` run, and the probes that tests run in pods.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use enforcer_tests::{
    bench,
    cluster::{Cluster, Cni, Shape, node},
    demo, first, hold,
    lab::{Lab, clean},
    probe::{self, bulk},
    stock, ways,
};

const USAGE: &str = "usage: enforcer-lab cluster up NAME ptp|bridge 1|2 PROGRAMS [IMAGE...] | cluster down|status NAME | clean | demo [--json] [--keep] | bench [--json] [--quick] [--only METRIC]... [--chart FILE] | hold | udp-echo PORT | udp-ask ADDRESS:PORT TEXT \
                     | tcp-connect ADDRESS:PORT | stock-tunnel DEVICE [NETNS] \
                     | udp-hear PORT | hold-serve PORT | hold ADDRESS:PORT idle|stream|poke TAG \
                     | hold-udp ADDRESS:PORT | first SERVICE CONTROL TEXT | flood ADDRESS:PORT… \
                     | hear PORT | bulk-serve PORT | bulk-tcp ADDRESS:PORT BYTES \
                     | bulk-udp ADDRESS:PORT BYTES COUNT DISCOVERY | learn-mtu ADDRESS:PORT BYTES | calls TAG MILLISECONDS ADDRESS:PORT... \
                     | inject DEVICE HEX... | inject-bypass DEVICE HEX... | send-bare ADDRESS HEX | ways PLAN (see ways.rs)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("enforcer-lab: {err:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the probes' answers")]
fn run(args: &[&str]) -> Result<bool> {
    match args {
        ["clean"] => {
            let labs = clean::all_labs()?;
            eprintln!("removed {} labs {}", labs.len(), labs.join(" "));
        }
        ["demo", flags @ ..] if flags.iter().all(|flag| ["--json", "--keep"].contains(flag)) => {
            return demo::run(demo::Options {
                json: flags.contains(&"--json"),
                keep: flags.contains(&"--keep"),
            });
        }
        ["bench", options @ ..] => bench::run(&bench::Options::parse(options).context(USAGE)?)?,
        ["node-init", id, part, programs] => node::init(id, part, Path::new(programs))?,
        ["cluster", rest @ ..] => return cluster(rest),
        ["hold"] => {
            let lab = Lab::new(&[])?;
            lab.elsewhere("node").start_plain("sleep", &["3600"], &lab.id.log("sleep"))?.leave();
            std::fs::write(lab.id.dir.join("held"), "")?;
            std::thread::sleep(Duration::from_hours(1));
        }
        ["udp-echo", port] => probe::udp_echo(port.parse().context(USAGE)?)?,
        ["udp-ask", to, text] => println!("{}", probe::udp_ask(to.parse().context(USAGE)?, text)?),
        ["tcp-connect", to] => println!("{}", probe::tcp_connect(to.parse().context(USAGE)?)?),
        ["first", service, control, text] => {
            let parse = |address: &str| address.parse().context(USAGE);
            println!("{}", first::instant(parse(service)?, parse(control)?, text)?);
        }
        ["hold-serve", port] => hold::serve(port.parse().context(USAGE)?)?,
        ["hold", to, mode, tag] => println!("{}", hold::hold(to.parse().context(USAGE)?, mode, tag)?),
        ["hold-udp", to] => println!("{}", hold::hold_udp(to.parse().context(USAGE)?)?),
        ["flood", targets @ ..] => {
            let targets: Vec<_> = targets.iter().filter_map(|target| target.parse().ok()).collect();
            hold::flood(&targets)?;
        }
        ["udp-hear", port] => probe::udp_hear(port.parse().context(USAGE)?)?,
        ["hear", port] => probe::hear(port.parse().context(USAGE)?)?,
        ["calls", tag, patience, targets @ ..] => calls(tag, patience, targets)?,
        [what @ ("bulk-serve" | "bulk-tcp" | "bulk-udp" | "learn-mtu"), rest @ ..] => sizes(what, rest)?,
        [how @ ("inject" | "inject-bypass"), device, frames @ ..] => {
            for hex in frames {
                ways::inject(device, &bytes(hex)?, *how == "inject-bypass")?;
            }
        }
        ["send-bare", to, hex] => ways::send_bare(&bytes(hex)?, to.parse().context(USAGE)?)?,
        ["ways", plan @ ..] => {
            let said = ways::Plan::parse(plan).context(USAGE)?.run();
            if !said.is_empty() {
                bail!("not sent: {said}");
            }
        }
        ["stock-tunnel", device] => stock::exec(device, None)?,
        ["stock-tunnel", device, netns] => stock::exec(device, Some(Path::new(netns)))?,
        _ => bail!(USAGE),
    }
    Ok(true)
}

/// The Kubernetes cluster of this name.
#[expect(clippy::print_stdout, reason = "how to use it is the answer")]
fn cluster(args: &[&str]) -> Result<bool> {
    match args {
        ["up", name, cni, nodes, programs, images @ ..] => {
            let cni = match *cni {
                "ptp" => Cni::Ptp,
                "bridge" => Cni::Bridge,
                _ => bail!(USAGE),
            };
            let two_nodes = match *nodes {
                "1" => false,
                "2" => true,
                _ => bail!(USAGE),
            };
            let cluster = Cluster::up(name, Path::new(programs), Shape { cni, two_nodes })?;
            images.iter().try_for_each(|image| cluster.import(Path::new(image)))?;
            println!("{}", cluster.usage());
        }
        ["down", name] => Cluster::down(name)?,
        ["status", name] => {
            let cluster = Cluster::find(name)?;
            println!("{}", cluster.as_ref().map_or_else(|| "down".into(), Cluster::usage));
            return Ok(cluster.is_some());
        }
        _ => bail!(USAGE),
    }
    Ok(true)
}

/// Every system call that reaches for an address.
#[expect(clippy::print_stdout, reason = "the probe's answers")]
fn calls(tag: &str, patience: &str, targets: &[&str]) -> Result<()> {
    let targets = targets.iter().map(|to| to.parse().context(USAGE)).collect::<Result<Vec<_>>>()?;
    let patience = Duration::from_millis(patience.parse().context(USAGE)?);
    print!("{}", probe::calls::all(tag, patience, &targets));
    Ok(())
}

/// Probes of large writes and large datagrams.
#[expect(clippy::print_stdout, reason = "the probes' answers")]
fn sizes(what: &str, args: &[&str]) -> Result<()> {
    match (what, args) {
        ("bulk-serve", [port]) => bulk::serve(port.parse().context(USAGE)?)?,
        ("bulk-tcp", [to, length]) => {
            let [there, back] = bulk::tcp(to.parse().context(USAGE)?, length.parse().context(USAGE)?)?;
            println!("{there} {back}");
        }
        ("bulk-udp", [to, length, count, discovery]) => {
            let datagrams = bulk::Datagrams {
                length: length.parse().context(USAGE)?,
                count: count.parse().context(USAGE)?,
                discovery: discovery.parse().context(USAGE)?,
            };
            let (attempts, mtu) = bulk::udp(to.parse().context(USAGE)?, datagrams)?;
            println!("{attempts} {mtu}");
        }
        ("learn-mtu", [to, length]) => {
            println!("{}", bulk::learn_mtu(to.parse().context(USAGE)?, length.parse().context(USAGE)?)?);
        }
        _ => bail!(USAGE),
    }
    Ok(())
}

/// Bytes from pairs of hexadecimal digits.
fn bytes(hex: &str) -> Result<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?));
    pairs.collect::<Result<_>>().context(USAGE)
}
