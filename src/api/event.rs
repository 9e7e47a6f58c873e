//! `events.k8s.io/v1` Event.

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, Uid};

/// An Event on a QuarksJob. Notes never hold Secret data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// First time, RFC 3339 with microseconds.
    pub event_time: String,
    /// What the operator did, CamelCase.
    pub action: String,
    /// Why, CamelCase, at most 128 bytes.
    pub reason: String,
    /// Sentence for people, at most 1,024 bytes.
    pub note: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the controller.
    pub reporting_controller: String,
    /// Which instance of it.
    pub reporting_instance: String,
    /// The object that the Event is about.
    pub regarding: ObjectReference,
}

/// `v1` ObjectReference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// For example `quarks.cloudfoundry.org/v1alpha1`.
    pub api_version: String,
    /// For example `QuarksJob`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uid,
}
