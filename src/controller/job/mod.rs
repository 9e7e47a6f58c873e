//! The controller `job`: what became of a Job. It records that a run is active, settles it when it has ended, says how, and tidies up.
//!
//! `decide` and `tidy` are pure; `settle`, `record`, `judge` and `cleanup` carry their steps out. Why and when a Job starts is `errand`'s.

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
