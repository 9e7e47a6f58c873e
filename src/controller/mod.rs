//! The operator's own logic: from what the API server shows to what the operator writes. Two controllers: `errand` starts runs,
//! `job` ends them; `claims` decides which of them owns a QuarksJob, so that only one at a time writes it.
//!
//! Pure: `claims`. `run` wires the threads, `dispatch` gives keys to workers, `shared/events` and `credential` have their own
//! threads.

pub(crate) mod claims;
mod credential;
mod dispatch;
mod errand;
mod health;
mod job;
#[cfg(test)]
mod model_tests;
mod run;
mod shared;

pub use health::Health;
pub use run::{Operator, OperatorConfig, run};
