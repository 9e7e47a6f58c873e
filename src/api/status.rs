//! `meta/v1` Status: how the API server reports an error.

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// Body of an error answer, and object of an `ERROR` frame in a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `v1`; empty if it is made up.
    #[serde(default, rename = "apiVersion")]
    pub api_version: String,
    /// `Status`; empty if it is made up.
    #[serde(default)]
    pub kind: String,
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

impl Status {
    /// True if the API server wrote it, and not something on the way to it.
    pub fn is_genuine(&self) -> bool {
        self.kind == "Status" && self.api_version == "v1"
    }

    /// As the API server writes them.
    #[cfg(test)]
    pub(crate) fn genuine(code: u16, reason: &str, message: &str) -> Self {
        let [api_version, kind, status] = ["v1", "Status", "Failure"].map(str::to_owned);
        Self { api_version, kind, status, message: message.to_owned(), reason: reason.to_owned(), code, ..Self::default() }
    }
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
    /// CamelCase, for programs.
    #[serde(default)]
    pub reason: String,
    /// Sentence for people.
    #[serde(default)]
    pub message: String,
    /// Path of the field that is wrong; empty if none.
    #[serde(default)]
    pub field: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_of_the_api_is_genuine() {
        for (json, is_genuine) in [
            (r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NotFound","code":404}"#, true),
            (r#"{"kind":"Status","apiVersion":"v2","status":"Failure","reason":"NotFound","code":404}"#, false),
            (r#"{"kind":"Error","apiVersion":"v1","reason":"NotFound","code":404}"#, false),
            (r#"{"status":"Failure","reason":"NotFound","code":404}"#, false),
            ("{}", false),
        ] {
            assert_eq!(serde_json::from_str::<Status>(json).unwrap().is_genuine(), is_genuine, "{json}");
        }
    }
}
