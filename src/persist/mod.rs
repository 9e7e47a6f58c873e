//! The sidecar `quarks-job persist-output`: stores what the containers of a pod wrote as Secrets.
//!
//! `plan` and `report` are the two ends of the contract with the operator. Not for the run's outcome: the operator decides it.

pub mod decide;
pub mod document;
pub mod expect;
pub mod files;
mod plan;
mod report;
pub mod rules;
pub mod secrets;
pub mod versions;

pub use plan::*;
pub use report::*;
