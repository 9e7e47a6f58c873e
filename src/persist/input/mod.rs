//! What untrusted containers wrote: files and logs, and their content.
//!
//! Pure: `document`, `fault`. Not for who owns a Secret, nor for writing it: see `secret` and `store`.

pub mod document;
pub mod fault;
pub mod files;
mod inotify;
pub mod read;
pub mod unseen;
