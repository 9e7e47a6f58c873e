//! quarks-job runs Kubernetes Jobs on triggers and stores their output as Secrets.
//!
//! The modules in reading order; `ARCHITECTURE.md` has the data flow and the invariants.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod kube;
pub mod contract;
pub mod rules;
pub mod views;
pub mod watch;
pub mod index;
pub mod queue;
pub mod controller;
pub mod election;
pub mod persist;
pub mod cli;
pub mod http;
pub mod metrics;
pub mod canonical;
pub mod clock;
pub mod digest;
pub mod json;
pub mod log;
pub mod moment;
mod planted;
pub mod shutdown;
pub(crate) mod text;
pub mod threads;
pub mod until;
pub mod yaml;
