//! The pod: its observed state, which of its containers have ended permanently, and what to do then.
//!
//! Pure: `expect`, `decide`. Not for what a container wrote: see `input`.

pub mod decide;
pub mod expect;
pub mod watch;
