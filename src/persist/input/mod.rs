//! What containers wrote, by people whom we do not trust: files and logs, and what is in them.
//!
//! Pure: `document`, `fault`. Not for whose a Secret is, nor for writing it: see `secret` and `store`.

pub mod document;
pub mod fault;
pub mod files;
mod inotify;
pub mod read;
pub mod unseen;
