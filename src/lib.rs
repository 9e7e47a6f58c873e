//! quarks-job: runs a Kubernetes Job when something happens and stores what it wrote as Secrets.
//!
//! The modules in reading order; `ARCHITECTURE.md` has the data flow and the invariants.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod digest;
pub mod kube;
pub mod persist;
pub mod watch;
pub mod index;
pub mod queue;
pub mod controller;
