//! The sidecar `quarks-job persist-output`: stores what the containers of a pod wrote as Secrets.
//!
//! `contract::plan` and `contract::report` are its interface to the operator. Not for the run's outcome: the operator decides it.

mod environment;
#[cfg(test)]
mod fuzz_tests;
mod input;
mod main;
mod main_loop;
mod messages;
mod pod;
mod progress;
mod retry;
mod secret;
mod start;
mod store;

pub use main::main;
pub(crate) use store::api::each_version;
