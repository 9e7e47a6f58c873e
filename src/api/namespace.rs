//! `v1` Namespace.

use serde::{Deserialize, Serialize};

use super::ObjectMeta;

/// A Namespace; its labels say who serves it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
}
