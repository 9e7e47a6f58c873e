//! The Secrets that outputs become, without any request (pure): names, content, labels and annotations, versions, and what may be
//! changed.

pub mod bodies;
pub mod data;
pub mod desired;
pub mod existing;
pub mod names;
pub mod rules;
pub mod versions;
