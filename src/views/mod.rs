//! What is kept of objects, and what follows from that alone: who owns a Job, which triggers are pending. Pure.

mod extract;
pub mod identity;
pub mod triggers;

pub use extract::{JobView, NamespaceView, QuarksJobView, ReadyView};
