//! Formats that outlive a process: what one version of the program writes, another one reads.
//!
//! Only data and their text forms: no decisions.

pub mod plan;
pub mod reason;
pub mod record;
pub mod report;
pub mod version;
