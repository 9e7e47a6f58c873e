//! The sidecar `quarks-job persist-output`: stores what the containers of a pod wrote as Secrets.
//!
//! `plan` and `report` are the two ends of the contract with the operator. Not for the run's outcome: the operator decides it.

mod api;
mod bodies;
mod data;
mod decide;
mod desired;
mod document;
mod environment;
mod existing;
mod expect;
mod fault;
mod files;
#[cfg(test)]
mod fuzz_tests;
mod inotify;
mod leave;
mod main;
mod messages;
mod names;
mod pod_watch;
mod progress;
mod read;
mod retry;
mod rules;
mod run;
mod start;
mod store;
mod storer;
mod unseen;
mod versions;
mod write;

pub(crate) use api::each_version;
pub use main::main;
