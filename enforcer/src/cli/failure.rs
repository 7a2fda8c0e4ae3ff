//! Exit codes, and the errors that have one of their own.

use std::process::ExitCode;

use super::out;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The command line is wrong.
    Usage = 2,
    /// There is no such object.
    NotFound = 3,
    /// It is there (or still there), but not as `--wait` wants it.
    NotReady = 4,
}

/// The command line is wrong in a way that its grammar does not know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl Failure {
    pub fn code(self) -> ExitCode {
        ExitCode::from(self as u8)
    }

    pub fn usage(message: String) -> UsageError {
        UsageError(message)
    }

    /// Says why a wait was in vain.
    pub fn gave_up(message: &str) -> ExitCode {
        out::note(&format!("enforcer: {message}"));
        Self::NotReady.code()
    }

    /// The code of an error.
    pub fn of(error: &anyhow::Error) -> ExitCode {
        if error.is::<UsageError>() { Self::Usage.code() } else { ExitCode::FAILURE }
    }
}
