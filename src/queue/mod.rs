//! The work queue of a controller: which key is next, without threads, locks or a clock of its own.

mod backoff;
mod core;

pub use backoff::Backoff;
pub use core::Queue;
