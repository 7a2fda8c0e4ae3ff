//! `enforcer load`: the kernel developer's loop. Gives every program to the verifier and says what it costs, attaches
//! some to an interface, shows their log until Ctrl-C, and leaves nothing behind.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

use super::{
    kernel::{Loan, ProgramCost, load_unpinned},
    program::{Place, Program},
};

/// Programs that pass every packet while no address is guarded.
const HARMLESS: [Program; 4] = [Program::FromPod, Program::ToPod, Program::FromWire, Program::ToWire];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interface to attach to, in the caller's network namespace
    #[arg(long)]
    iface: String,
    /// Programs to load and attach; without: all are loaded, and those of pods and wires attached
    #[arg(long)]
    hook: Vec<String>,
}

/// Loads, attaches, prints and waits.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { iface, hook } = args;
    let (programs, attach) = chosen(&hook)?;
    let ifindex = nix::net::if_::if_nametoindex(iface.as_str())
        .with_context(|| format!("there is no interface {iface}"))?;
    let mut loaded = load_unpinned(&programs)?;
    let mut links = Vec::new();
    for program in attach {
        let link = loaded
            .attach(program, ifindex)
            .with_context(|| format!("cannot attach {} to {iface}", program.name()))?;
        links.push((program, link));
    }
    print(&table(&loaded.costs(), &links, &iface))?;
    let Some(mut log) = log(&mut loaded.ebpf)? else {
        print("\nthe programs write no log; Ctrl-C unloads them\n")?;
        return Ok(tokio::signal::ctrl_c().await?);
    };
    print("\nlog, until Ctrl-C:\n")?;
    loop {
        tokio::select! {
            stop = tokio::signal::ctrl_c() => return Ok(stop?),
            ready = log.readable_mut() => {
                let mut ready = ready?;
                ready.clear_ready();
                ready.get_inner_mut().flush();
            }
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Which to load, and which of them to attach.
fn chosen(hooks: &[String]) -> anyhow::Result<(Vec<Program>, Vec<Program>)> {
    if hooks.is_empty() {
        return Ok((Program::ALL.to_vec(), HARMLESS.to_vec()));
    }
    let mut programs = Vec::new();
    for hook in hooks {
        let Some(program) = Program::from_name(hook) else {
            let names: Vec<_> = Program::ALL.iter().map(|program| program.name()).collect();
            bail!("there is no program {hook}; there are {}", names.join(", "));
        };
        programs.push(program);
    }
    programs.sort();
    programs.dedup();
    // A socket program has no place on an interface: it is verified only.
    let attach = programs.iter().copied().filter(|program| program.place() != Place::Cgroup).collect();
    Ok((programs, attach))
}

fn table(costs: &BTreeMap<Program, ProgramCost>, links: &[(Program, Loan)], iface: &str) -> String {
    let number = |value: Option<u32>| value.map_or("-".to_owned(), |value| value.to_string());
    let micros =
        |value: Option<Duration>| value.map_or("-".to_owned(), |value| value.as_micros().to_string());
    let head = ["PROGRAM", "INSNS", "STACK", "VERIFY µs", "LOAD µs", "XLATED B", "JIT B", "ATTACHED"];
    let mut rows = vec![head.map(str::to_owned)];
    for (program, cost) in costs {
        let attached = links.iter().any(|(attached, _)| attached == program);
        rows.push([
            program.name().to_owned(),
            number(cost.verified.instructions),
            cost.verified.stack.clone(),
            micros(cost.verified.verification),
            micros(Some(cost.verified.load)),
            number(cost.translated_size),
            cost.jited_size.to_string(),
            if attached { format!("{iface} {:?}", program.place()).to_lowercase() } else { "-".to_owned() },
        ]);
    }
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The programs' log; `None` if the object has no line of it.
fn log(ebpf: &mut Ebpf) -> anyhow::Result<Option<AsyncFd<EbpfLogger<Printer>>>> {
    match EbpfLogger::init_with_logger(ebpf, Printer) {
        Ok(logger) => {
            // SAFETY: the logger owns the descriptor of its ring buffer for as long as it lives, and always gives
            // out this one.
            let logger = unsafe { AsyncFd::register(logger) }.context("cannot wait for the log")?;
            Ok(Some(logger))
        }
        Err(aya_log::Error::MapNotFound) => Ok(None),
        Err(error) => Err(error).context("cannot read the programs' log"),
    }
}

/// Writes the programs' log to standard output.
struct Printer;

impl log::Log for Printer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{:5} {} {}\n", record.level(), record.target(), record.args());
        // Whoever reads this has gone: nobody is left to be told.
        let _ = io::stdout().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
