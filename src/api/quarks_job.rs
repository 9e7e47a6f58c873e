//! The `QuarksJob` custom resource: what users write and what we answer in status.
