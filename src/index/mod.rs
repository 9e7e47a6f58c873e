//! What the watches show, kept as small extracts: each watch writes its kind, many threads read. Objects that this operator does
//! not serve are never kept (`admit`).
//!
//! The index may be behind the API server. It is good enough to decide that there is nothing to do; before a write the object
//! itself is read, or the write carries the resourceVersion that the decision was based on.

mod admit;
mod passed_over;
mod store;

pub use store::{Change, Changed, ConfigNeed, Index, SharedIndex};
