//! The operator's own logic: from what the API server says to what we write. Two controllers: `errand` starts runs, `job` ends them; `claims`
//! says whose a QuarksJob is, so that one at a time writes it.
//!
//! Pure: `claims`, `identity`, `names`, `outbox`, `record`, `references`, `sidecar`, `template`, `triggers`, `verdict`, `versions`. `run` puts the
//! threads together, `dispatch` gives keys to workers, `events` and `credential` have threads of their own.

pub(crate) mod claims;
mod credential;
mod dispatch;
mod errand;
mod events;
mod health;
pub(crate) mod identity;
mod job;
#[cfg(test)]
mod model_tests;

pub mod names;
mod outbox;
pub(crate) mod planted;
pub mod record;
pub mod references;
mod run;
mod shared;
pub mod sidecar;
pub mod template;
mod triggers;
pub(crate) mod verdict;
pub(crate) mod versions;

pub use health::Health;
pub use run::{Operator, OperatorConfig, run};
