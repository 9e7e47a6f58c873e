//! The ConfigMaps and Secrets that QuarksJobs refer to: whether they are there, and whether their content has changed
//! (`spec.updateOnConfigChange`).
//!
//! Watches see metadata only, and only where some QuarksJob needs them. They say *that* a referenced object changed; a QuarksJob
//! that this matters to becomes due, after a second of quiet, and a worker then reads the content once, keeps a digest of it and
//! nothing else. The digest of a run's content is in the marker, so a change is seen after a restart, too.

mod digest;
mod error;
mod key;
mod look;
mod store;
mod watches;

pub use digest::{Compared, compare, is_of_template};
pub use error::LookError;
pub use store::ConfigStore;
pub use watches::ConfigWatches;
