//! The operator's own logic: from what the API server says to what we write.
//!
//! Pure: `decide`, `names`, `outbox`, `record`, `references`, `status`, `template`, `verdict`, `versions`. `action` lists every write.
//! `reconcile`, `start`, `settle` and `cleanup` carry decisions out, with the reads in `lookup`; `run` gives keys to workers.

mod action;
mod blocked;
mod choices;
mod cleanup;
mod config;
mod credential;
mod decide;
mod events;
mod health;
mod lookup;
mod memory;
pub mod names;
mod outbox;
mod reconcile;
pub mod record;
pub mod references;
mod run;
mod settle;
mod start;
mod status;
pub mod template;
pub(crate) mod verdict;
pub(crate) mod versions;

pub use health::Health;
pub use run::{Operator, OperatorConfig, run};
