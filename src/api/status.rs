//! `meta/v1` Status: how the API server says no.

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// Body of an error answer, and object of an `ERROR` frame in a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `Success` or `Failure`.
    #[serde(default)]
    pub status: String,
    /// Sentence for people. May quote what the client sent: never log it for Secrets.
    #[serde(default)]
    pub message: String,
    /// CamelCase word for programs, for example `AlreadyExists`.
    #[serde(default)]
    pub reason: String,
    /// HTTP status code.
    #[serde(default)]
    pub code: u16,
    /// More about the failure.
    #[serde(default, deserialize_with = "null_as_default")]
    pub details: StatusDetails,
}

/// `details` of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// Name of the object that it is about; empty if it is about none.
    #[serde(default)]
    pub name: String,
    /// Single reasons; with a `field` they speak of the object's content.
    #[serde(default, deserialize_with = "null_as_default")]
    pub causes: Vec<StatusCause>,
    /// Seconds to wait before the next try.
    #[serde(default)]
    pub retry_after_seconds: u64,
}

/// One entry of `details.causes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// CamelCase word for programs.
    #[serde(default)]
    pub reason: String,
    /// Sentence for people.
    #[serde(default)]
    pub message: String,
    /// Path of the field that is wrong; empty if none.
    #[serde(default)]
    pub field: String,
}
