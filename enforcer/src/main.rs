//! The `enforcer` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    enforcer::cli::run()
}
