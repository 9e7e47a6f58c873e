//! The operator's own logic: from what the API server says to what we write.
//!
//! Pure: `decide`, `identity`, `names`, `outbox`, `pace`, `record`, `references`, `sidecar`, `status`, `stick`, `template`, `verdict`, `versions`. `action`
//! lists every write. `reconcile`, `start`, `settle`, `report` and `cleanup` carry decisions out, with the reads in `lookup`; `trouble` says
//! what did not work; `run` gives keys to workers.

mod action;
mod choices;
mod cleanup;
mod config;
mod credential;
mod decide;
mod events;
mod health;
pub(crate) mod identity;
mod lookup;
mod memory;
#[cfg(test)]
mod model_tests;
pub mod names;
mod outbox;
mod pace;
pub(crate) mod planted;
mod reconcile;
pub mod record;
pub mod references;
mod report;
mod run;
mod settle;
pub mod sidecar;
mod start;
mod status;
mod stick;
pub mod template;
mod trouble;
pub(crate) mod verdict;
pub(crate) mod versions;

pub use health::Health;
pub use run::{Operator, OperatorConfig, run};
