//! What is kept of objects, and what follows from that alone: whose a Job is, what waits. Pure.

mod extract;
pub mod identity;
pub mod triggers;

pub use extract::{JobView, NamespaceView, QuarksJobView, ReadyView};
