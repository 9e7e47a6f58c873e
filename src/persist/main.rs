//! The sidecar's command: environment in, report and exit code out.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use log::LevelFilter;

use crate::log::Format;

use super::environment::{Environment, termination_log};
use super::main_loop::{ExitReason, Finish, refuse};
use super::start::run_all;

/// Exit code after SIGTERM with output that is not stored: 128 + 15.
const STOPPED: u8 = 143;
/// Exit code after a panic, as the standard library has it.
const PANICKED: u8 = 101;

/// `quarks-job persist-output`. Only SIGTERM and crashes end non-zero: a non-zero end would make Kubernetes run the user's container
/// again.
pub fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    crate::log::start(log_level(&variable), log_format(&variable));
    let finish = match Environment::read(&variable) {
        Ok(environment) => run_all(&environment),
        Err(text) => refuse(text),
    };
    let Finish { report, limit, ending } = finish;
    if ending == ExitReason::Crashed {
        return ExitCode::from(PANICKED);
    }
    let text = report.encode_within(limit);
    let (secrets, errors) = (report.secrets.len(), report.errors.len());
    log::info!(stored:% = report.stored, secrets:%, errors:%, ending:?; "output-persist exiting");
    if let Err(error) = write_report(&termination_log(&variable), &text) {
        log::error!(error:%; "report not written");
    }
    if ending == ExitReason::Stopped && !report.is_success() { ExitCode::from(STOPPED) } else { ExitCode::SUCCESS }
}

/// The operator passes its own level on.
fn log_level(variable: &dyn Fn(&str) -> Option<String>) -> LevelFilter {
    variable("LOG_LEVEL").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::Info)
}

/// This too; an unknown word is not a reason to fail a run.
fn log_format(variable: &dyn Fn(&str) -> Option<String>) -> Format {
    variable("LOG_FORMAT").and_then(|word| Format::parse(&word)).unwrap_or_default()
}

fn write_report(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())
}
