//! Secrets as requests and answers carry them.
//!
//! Promise: an update keeps labels, annotations and other metadata that others put on a Secret.

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::{OwnerReference, ResourceVersion, StringMap, Uid, null_as_default};

use super::data::Data;

/// The body of a create.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct NewSecret<'a> {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: NewMeta<'a>,
    #[serde(rename = "type")]
    pub secret_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    pub data: &'a Data,
}

/// Metadata of a [`NewSecret`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct NewMeta<'a> {
    pub name: Cow<'a, str>,
    pub labels: Cow<'a, StringMap>,
    pub annotations: Cow<'a, StringMap>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// A Secret as the API server has it, with everything in its metadata, so that an update loses nothing.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveSecret {
    /// Its metadata.
    pub metadata: LiveMeta,
    /// Keys and values.
    #[serde(default, deserialize_with = "null_as_default")]
    pub data: Data,
    /// Never changes.
    #[serde(default, rename = "type")]
    pub secret_type: String,
    /// True if its data can never change.
    #[serde(default)]
    pub immutable: Option<bool>,
}

/// The body of an update: a [`LiveSecret`] with other data.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ChangedSecret<'a> {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: &'a LiveMeta,
    #[serde(rename = "type")]
    pub secret_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    pub data: &'a Data,
}

impl LiveSecret {
    /// This Secret with other data.
    pub fn with_data<'a>(&'a self, data: &'a Data) -> ChangedSecret<'a> {
        let Self { metadata, data: _, secret_type, immutable } = self;
        ChangedSecret { api_version: "v1", kind: "Secret", metadata, secret_type, immutable: *immutable, data }
    }
}

/// Metadata of a [`LiveSecret`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveMeta {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "Uid::is_empty")]
    pub uid: Uid,
    /// Sent back with an update, which fails if someone was faster.
    #[serde(default)]
    pub resource_version: ResourceVersion,
    /// Set while it is being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Labels, of whomever.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: StringMap,
    /// Annotations, of whomever.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: StringMap,
    /// The server's own notes; it keeps them if they are not sent.
    #[serde(default, skip_serializing)]
    managed_fields: IgnoredAny,
    /// Everything else.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl fmt::Debug for LiveSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSecret").field("metadata", &self.metadata).field("keys", &self.data.len()).finish_non_exhaustive()
    }
}
