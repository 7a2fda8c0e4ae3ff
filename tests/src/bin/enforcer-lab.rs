//! `enforcer-lab`: what `cargo xtask demo` and `cargo xtask clean-lab` run.

use std::process::ExitCode;

use enforcer_tests::{demo, lab::clean};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["clean"] => clean::all_labs().map(|labs| {
            eprintln!("removed {} labs {}", labs.len(), labs.join(" "));
            true
        }),
        ["demo", flags @ ..] if flags.iter().all(|flag| ["--json", "--keep"].contains(flag)) => {
            demo::run(demo::Options { json: flags.contains(&"--json"), keep: flags.contains(&"--keep") })
        }
        _ => Err(anyhow::anyhow!("usage: enforcer-lab clean | demo [--json] [--keep]")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("enforcer-lab: {err:#}");
            ExitCode::FAILURE
        }
    }
}
