//! The operator's own logic: from what the API server says to what we write.
//!
//! Pure: `decide`, `names`, `record`, `status`, `template`, `verdict`. `action` lists every write.
//! `reconcile` carries decisions out, `run` gives keys to workers.

mod action;
mod credential;
mod decide;
mod events;
mod memory;
pub mod names;
mod reconcile;
pub mod record;
mod run;
mod status;
pub mod template;
pub(crate) mod verdict;

pub use run::{Health, Operator, OperatorConfig, run};
