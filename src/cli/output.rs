//! What a command writes, and how it ends. Standard output has the result; everything else goes to standard error, one line each.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write as _};

use crate::text::one_line;

/// Longest line about a wrong command line, and longest remark, in bytes.
const LINE_MAX: usize = 1_000;

/// A run that ended badly.
#[derive(Debug, PartialEq, Eq)]
pub enum CliError {
    /// The command line or the environment is wrong; exit code 2.
    Usage(String),
    /// It did not work; exit code 1.
    Failed(String),
    /// What was waited for did not come in time; exit code 3.
    TimedOut(String),
    /// All is said already; exit code 1.
    Said,
}

impl CliError {
    /// The program's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Said => 1,
            Self::Usage(_) => 2,
            Self::TimedOut(_) => 3,
        }
    }

    /// What is left to be said, on one line.
    pub fn message(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Usage(message) => Some(one_line(message, LINE_MAX).into()),
            Self::Failed(message) | Self::TimedOut(message) => Some(message.into()),
            Self::Said => None,
        }
    }
}

/// A remark beside the output.
pub fn remark(text: &str) {
    eprintln!("{}", one_line(text, LINE_MAX));
}

/// Writes the requested output.
pub fn print(text: &str) -> Result<(), CliError> {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough (`quarks-job crd | head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| CliError::Failed(format!("standard output: {error}"))),
    }
}
