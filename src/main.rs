//! Argv in, exit code out.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    quarks_job::cli::main(std::env::args_os())
}
