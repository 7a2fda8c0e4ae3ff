//! Standard output and standard error: data here, words there.

use std::io::{self, Write as _};

/// Writes data to standard output.
pub fn data(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Says why the command failed.
#[expect(clippy::print_stderr, reason = "this is the one place that talks to the person")]
pub fn error(error: &anyhow::Error) {
    eprintln!("enforcer: {error:#}");
}

/// Says something beside the data.
#[expect(clippy::print_stderr, reason = "this is the one place that talks to the person")]
pub fn note(text: &str) {
    eprintln!("{text}");
}
