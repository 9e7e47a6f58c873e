//! The operator's own logic: from what the API server says to what we write. Two controllers: `errand` starts runs, `job` ends them; `claims`
//! says whose a QuarksJob is, so that one at a time writes it.
//!
//! Pure: `claims`. `run` puts the threads together, `dispatch` gives keys to workers, `shared/events` and `credential` have threads of their own.

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
