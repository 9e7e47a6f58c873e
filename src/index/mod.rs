//! What the watches say, kept as small extracts: each watch writes its kind, many read. What is not ours is never kept (`admit`).
//!
//! The index may be behind the API server. It is enough to decide that there is nothing to do; before a write the
//! object itself is read, or the write carries the resourceVersion it was decided on.

mod admit;
mod passed_over;
mod store;

pub use store::{Change, Changed, ConfigNeed, Index, SharedIndex};
