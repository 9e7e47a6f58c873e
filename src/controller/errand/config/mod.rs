//! The ConfigMaps and Secrets that QuarksJobs reference: whether they exist, and whether their content has changed
//! (`spec.updateOnConfigChange`).
//!
//! Watches see metadata only, and exist only where some QuarksJob needs them. They show *that* a referenced object changed. The
//! QuarksJobs it matters to become due after a second of quiet; a worker then reads the content once and keeps only a digest of it.
//! The digest of a run's content is in the marker, so a change is also seen after a restart.

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
