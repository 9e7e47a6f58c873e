//! `batch/v1` Job, only the fields that show a run's progress. The Job that the operator creates is built as a JSON value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{ANNOTATION_RUN, Condition, ObjectMeta, OwnerReference, ResourceVersion, StringMap, Uid, null_as_default};

/// Longest annotation `run` that is kept, in bytes. A longer one is not one of ours.
const RECORD_MAX: usize = 16 * 1024;
/// Longest reason and message of a `Failed` condition that are kept, in bytes.
const REASON_MAX: usize = 256;
const MESSAGE_MAX: usize = 1024;

/// A Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Standard metadata. What is decoded has no labels, and of the annotations `run` alone: others may hold 256 KiB.
    #[serde(default, deserialize_with = "lean_metadata")]
    pub metadata: ObjectMeta,
    /// The part of the spec that we look at again after creation.
    #[serde(default)]
    pub spec: JobSpec,
    /// How it goes.
    #[serde(default)]
    pub status: JobStatus,
}

/// `spec` of a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// Seconds after which a finished Job is removed; we hold it back until the run is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i64>,
    /// The pods carry only the labels of the template, and none that names the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual_selector: Option<bool>,
}

/// `status` of a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// `Complete` and `Failed` are the only ends.
    #[serde(default, deserialize_with = "null_as_default")]
    pub conditions: Vec<Condition>,
    /// RFC 3339.
    #[serde(default)]
    pub start_time: Option<String>,
    /// RFC 3339; set only on success.
    #[serde(default)]
    pub completion_time: Option<String>,
    /// Pods that ended well. Never decides whether the Job has ended.
    #[serde(default)]
    pub succeeded: u32,
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// Condition `Complete`.
    Complete {
        /// RFC 3339.
        time: Option<String>,
    },
    /// Condition `Failed`.
    Failed {
        /// For example `BackoffLimitExceeded`.
        reason: String,
        /// Kubernetes' sentence.
        message: String,
        /// RFC 3339.
        time: Option<String>,
    },
}

impl JobEnd {
    /// When it ended, RFC 3339.
    pub fn time(&self) -> Option<&str> {
        match self {
            Self::Complete { time } | Self::Failed { time, .. } => time.as_deref(),
        }
    }
}

impl JobStatus {
    /// The end, or `None` while the Job is active. `SuccessCriteriaMet` and `FailureTarget` are not an end: pods still run.
    pub fn end(&self) -> Option<JobEnd> {
        self.conditions.iter().filter(|condition| condition.is_true()).find_map(|condition| match condition.kind.as_str() {
            "Complete" => Some(JobEnd::Complete { time: self.completion_time.clone().or_else(|| condition.last_transition_time.clone()) }),
            "Failed" => Some(JobEnd::Failed {
                reason: cut(&condition.reason, REASON_MAX),
                message: cut(&condition.message, MESSAGE_MAX),
                time: condition.last_transition_time.clone(),
            }),
            _ => None,
        })
    }
}

/// At most `limit` bytes of `text`, whole characters.
fn cut(text: &str, limit: usize) -> String {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

/// `metadata` as far as a Job's matters.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeanMeta {
    name: String,
    namespace: String,
    uid: Uid,
    resource_version: ResourceVersion,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "null_as_default")]
    owner_references: Vec<OwnerReference>,
    #[serde(deserialize_with = "run_alone")]
    annotations: StringMap,
}

fn lean_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let LeanMeta { name, namespace, uid, resource_version, creation_timestamp, deletion_timestamp, owner_references, annotations } =
        LeanMeta::deserialize(deserializer)?;
    let (generation, labels) = (0, StringMap::new());
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        labels,
        annotations,
        creation_timestamp,
        deletion_timestamp,
        owner_references,
    })
}

fn run_alone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StringMap, D::Error> {
    deserializer.deserialize_any(RunAlone)
}

/// Keeps annotation `run` and never makes a string of another, nor of one that is too long.
struct RunAlone;

impl<'de> Visitor<'de> for RunAlone {
    type Value = StringMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E>(self) -> Result<StringMap, E> {
        Ok(StringMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMap, A::Error> {
        let mut found = StringMap::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key != ANNOTATION_RUN {
                map.next_value::<IgnoredAny>()?;
            } else if let Some(text) = map.next_value_seed(Short)? {
                found.insert(key.into_owned(), text);
            }
        }
        Ok(found)
    }
}

/// A text that is not longer than a record.
struct Short;

impl<'de> DeserializeSeed<'de> for Short {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Short {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<String>, E> {
        Ok((text.len() <= RECORD_MAX).then(|| text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_metadata_only_what_matters_is_kept() {
        for (annotations, kept) in [
            (json!({"a": "x".repeat(250 * 1024), ANNOTATION_RUN: "r\n", "b": "y"}), Some("r\n".to_owned())),
            (json!({ANNOTATION_RUN: "x".repeat(RECORD_MAX)}), Some("x".repeat(RECORD_MAX))),
            (json!({ANNOTATION_RUN: "x".repeat(RECORD_MAX + 1)}), None),
            (json!({"a": "b"}), None),
            (json!(null), None),
        ] {
            let owners = json!([{"apiVersion": "v", "kind": "k", "name": "o", "uid": "u2", "controller": true}]);
            let object = json!({"metadata": {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
                "creationTimestamp": "c", "deletionTimestamp": "d", "ownerReferences": owners, "annotations": annotations}});
            let text = object.to_string();
            let job: Job = crate::json::from_slice(text.as_bytes()).expect("decodes");
            let meta = &job.metadata;
            assert_eq!((meta.name.as_str(), meta.namespace.as_str(), meta.uid.as_str()), ("n", "ns", "u"));
            assert_eq!((meta.resource_version.as_str(), meta.creation_timestamp.as_deref()), ("7", Some("c")));
            assert_eq!((meta.is_being_deleted(), meta.controller().map(|owner| owner.uid.as_str())), (true, Some("u2")));
            assert_eq!((meta.labels.len(), meta.annotations.get(ANNOTATION_RUN)), (0, kept.as_ref()));
            assert_eq!(meta.annotations.len(), usize::from(kept.is_some()));
            assert_eq!(serde_json::from_value::<Job>(object).expect("decodes"), job);
        }
        assert!(crate::json::from_slice::<Job>(br#"{"metadata": {"annotations": 7}}"#).is_err());
    }

    #[test]
    fn what_a_failed_condition_says_is_cut_at_a_character() {
        let long = format!("x{}", "\u{e9}".repeat(1000));
        let object = json!({"status": {"conditions": [{"type": "Failed", "status": "True", "reason": long, "message": long}]}});
        let end = serde_json::from_value::<Job>(object).expect("decodes").status.end();
        let Some(JobEnd::Failed { reason, message, .. }) = end else { panic!("{end:?}") };
        assert_eq!((reason.len(), message.len()), (255, 1023));
        assert!(long.starts_with(&message));
    }
}
