//! The command line: one file a sub-command; flags and environment become a typed configuration.
//!
//! Exit codes: 0 done, 1 failed, 2 used wrongly. Errors are one line on standard error.

mod crd;
mod flags;
mod operator;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

/// A run that ended badly.
#[derive(Debug, PartialEq, Eq)]
pub enum CliError {
    /// The command line or the environment is wrong; exit code 2.
    Usage(String),
    /// It did not work; exit code 1.
    Failed(String),
    /// It did not work, and the log says why; exit code 1.
    Logged,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => write!(f, "{message} (see quarks-job --help)"),
            Self::Failed(message) => f.write_str(message),
            Self::Logged => f.write_str("see the log"),
        }
    }
}

/// Runs the program with the arguments after its name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let command = arguments.first().and_then(|first| first.to_str()).unwrap_or_default();
    let result = match command {
        "persist-output" => return crate::persist::main(),
        "version" | "--version" | "-V" => print(&format!("quarks-job {}\n", env!("CARGO_PKG_VERSION"))),
        "help" | "--help" | "-h" => print(operator::HELP),
        "crd" => print(crd::MANIFEST),
        "" => operator::main(arguments),
        word if word.starts_with('-') => operator::main(arguments),
        word => {
            Err(CliError::Usage(format!("{word:?} is not a command; commands are persist-output, crd, version, and none for the operator")))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Logged) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quarks-job: {error}");
            ExitCode::from(if matches!(error, CliError::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough (`quarks-job crd | head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| CliError::Failed(format!("standard output: {error}"))),
    }
}
