//! The controller `errand`: why and when a Job starts. It checks triggers and references, creates Jobs, takes baselines, and says
//! in condition `Ready` why nothing starts.
//!
//! `decide` is pure; `start`, `report` and `config` carry out its steps. What becomes of a Job is up to `job`.

mod config;
pub mod decide;
mod reconcile;
mod report;
mod start;

use std::sync::Arc;

pub use config::{ConfigStore, ConfigWatches};
#[cfg(test)]
pub use reconcile::known;

use crate::rules::template::SidecarSettings;

use super::credential::Credentials;
use super::shared::turn::Tools;

/// Everything its workers need.
pub struct ErrandController {
    /// What both controllers work with.
    pub tools: Arc<Tools>,
    /// Tokens for sidecars.
    pub credentials: Arc<Credentials>,
    /// How pods get the sidecar.
    pub sidecar: SidecarSettings,
    /// What referenced ConfigMaps and Secrets say, as digests.
    pub config: Arc<ConfigStore>,
}
