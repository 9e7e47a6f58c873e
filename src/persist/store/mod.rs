//! Outputs become Secrets: what is still to be done, one attempt, whether this run may write at all, and the calls.
//!
//! `thread` has the thread, `tasks` its work. Not for what a Secret must contain: see `secret`.

pub mod api;
mod permission;
pub mod tasks;
pub mod thread;
mod write;
