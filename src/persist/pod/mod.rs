//! The pod: what is heard of it, which of its containers have ended for good, and what to do then.
//!
//! Pure: `expect`, `decide`. Not for what a container wrote: see `input`.

pub mod decide;
pub mod expect;
pub mod watch;
