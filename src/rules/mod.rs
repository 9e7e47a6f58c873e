//! Pure rules: from the spec and what was observed to names, Jobs, references, versions and outcomes. No clock, no I/O.

pub mod names;
mod objects;
pub mod outputs;
pub mod own_status;
pub mod references;
pub mod sidecar;
pub mod template;
pub mod verdict;
pub mod versions;
