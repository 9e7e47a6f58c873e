//! Wire types of the Kubernetes API: only the fields that the operator and the sidecar read or write.
//!
//! Not for decisions. Objects that are passed through (a Job's template) stay `serde_json::Value`,
//! so that fields unknown to us survive.

mod event;
mod job;
mod meta;
mod names;
mod namespace;
mod pod;
mod quarks_job;
mod resource;
mod secret;
mod spec;
mod status;

pub use event::*;
pub use job::*;
pub use meta::*;
pub use names::*;
pub use namespace::*;
pub use pod::*;
pub use quarks_job::*;

pub use resource::*;
pub use secret::*;
pub use spec::*;
pub use status::*;
