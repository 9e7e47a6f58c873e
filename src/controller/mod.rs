//! The operator's own logic: from what the API server says to what we write.
//!
//! `decide` and everything it uses is pure; `action` is the only place that writes.

pub mod decide;
pub mod names;
pub mod status;
pub mod template;
pub mod verdict;
pub mod record;
