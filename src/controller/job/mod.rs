//! The controller `job`: what became of a Job. It records that a run is active, settles the run when it has ended, reports how it
//! ended, and cleans up.
//!
//! `decide` and `tidy` are pure; `settle`, `record`, `judge` and `cleanup` carry out their steps. Why and when a Job starts is up
//! to `errand`.

mod cleanup;
pub mod decide;
mod judge;
pub mod leftovers;
mod reconcile;
pub mod record;
pub mod settle;
pub mod tidy;

use std::sync::Arc;

use super::shared::turn::Tools;
use leftovers::AllLeftovers;

/// Everything its workers need.
pub struct JobController {
    /// What both controllers work with.
    pub tools: Arc<Tools>,
    /// What is left of runs that are over.
    pub leftovers: AllLeftovers,
}
