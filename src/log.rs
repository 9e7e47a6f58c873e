//! Log lines: time, level, where, a constant message and `key=value` pairs. Never Secret data, never whole objects.

use std::io::Write as _;

use env_logger::{Builder, Target};
use log::LevelFilter;

use crate::clock;

/// Levels, as `--log-level` takes them.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Starts logging to standard error. Call once.
pub fn start(level: LevelFilter) {
    let mut builder = Builder::new();
    // ureq logs requests at debug level, headers included: nothing of other crates below warn.
    builder.filter_level(LevelFilter::Warn.min(level)).filter_module("quarks_job", level).target(Target::Stderr);
    builder.format(|out, record| {
        writeln!(
            out,
            "{} {:5} {} {}",
            clock::now_micros(),
            record.level(),
            record.target().trim_start_matches("quarks_job::"),
            record.args()
        )
    });
    if builder.try_init().is_err() {
        // Only a test starts logging twice.
        log::debug!("logging runs already");
    }
}
