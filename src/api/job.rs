//! `batch/v1` Job, as far as a run's progress goes. The Job that we create is built as a JSON value.

use serde::{Deserialize, Serialize};

use super::{Condition, ObjectMeta, null_as_default};

/// A Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Standard metadata.
    #[serde(default)]
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
    /// The end, or `None` while the Job goes on. `SuccessCriteriaMet` and `FailureTarget` are no ends: pods still run.
    pub fn end(&self) -> Option<JobEnd> {
        self.conditions.iter().filter(|condition| condition.is_true()).find_map(|condition| match condition.kind.as_str() {
            "Complete" => Some(JobEnd::Complete { time: self.completion_time.clone().or_else(|| condition.last_transition_time.clone()) }),
            "Failed" => Some(JobEnd::Failed {
                reason: condition.reason.clone(),
                message: condition.message.clone(),
                time: condition.last_transition_time.clone(),
            }),
            _ => None,
        })
    }
}
