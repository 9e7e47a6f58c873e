//! The `QuarksJob` custom resource as the API server stores it.
//!
//! The spec stays a JSON value here: an object that breaks a rule must still be listed, so that its status can say
//! which rule. [`super::Spec`] is the checked form.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Condition, ObjectMeta, Uid};

/// A QuarksJob, read from the API server.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct QuarksJob {
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user wrote, unchecked.
    #[serde(default)]
    pub spec: Value,
    /// What the operator answered; a status that does not decode counts as empty.
    #[serde(default, deserialize_with = "lenient")]
    pub status: QuarksJobStatus,
}

/// A [`QuarksJob`] without its spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct QuarksJobHead {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What the operator answered; a status that does not decode counts as empty.
    #[serde(default, deserialize_with = "lenient")]
    pub status: QuarksJobStatus,
}

impl QuarksJob {
    /// `spec.trigger.strategy`; `None` if it is not a known strategy.
    pub fn strategy(&self) -> Option<Strategy> {
        self.spec.pointer("/trigger/strategy").and_then(|word| Strategy::parse(word.as_str()?))
    }
}

/// `spec.trigger.strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Waits; never runs on its own.
    Manual,
    /// Runs once per template.
    Once,
    /// Runs now, then goes back to `manual` or `done`.
    Now,
    /// A one-off that has run.
    Done,
}

impl Strategy {
    /// The word in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Once => "once",
            Self::Now => "now",
            Self::Done => "done",
        }
    }

    /// The strategy with this word; words are lowercase.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Manual, Self::Once, Self::Now, Self::Done].into_iter().find(|strategy| strategy.as_str() == word)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What made a run start; `status.lastRun.trigger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Strategy `now`.
    Now,
    /// Strategy `once`.
    Once,
    /// Annotation `run-requested`.
    Request,
    /// A referenced ConfigMap or Secret changed.
    Config,
}

impl Trigger {
    /// The word in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Once => "once",
            Self::Request => "request",
            Self::Config => "config",
        }
    }
}

/// How a run ended; `status.lastRun.outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The Job completed and every mapped output is stored.
    Succeeded,
    /// The Job failed, or its output was not valid.
    Failed,
    /// Someone deleted the Job during its run.
    Cancelled,
    /// The Job completed, but what became of its output cannot be read.
    Unknown,
}

impl Outcome {
    /// The word in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Unknown => "Unknown",
        }
    }
}

/// `status` of a QuarksJob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuarksJobStatus {
    /// Newest generation whose triggers are served or reported on.
    pub observed_generation: i64,
    /// True after the first success.
    pub completed: bool,
    /// Settled runs.
    pub runs: u64,
    /// The active run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveRun>,
    /// The newest run that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// Copy of the annotation `settled`: it survives `kubectl replace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<String>,
    /// `Ready`, `Running`, `Succeeded`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl QuarksJobStatus {
    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// `status.active`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveRun {
    /// Number of the run, from 1.
    pub run: u64,
    /// Its Job.
    pub job_name: String,
    /// What made it start.
    pub trigger: Trigger,
    /// UID of the QuarksJob that it belongs to: a restored object has another one. Older versions did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// What it consumes: if the Job or its annotation is lost, the run is settled from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<RunDetails>,
    /// The same as older versions wrote it: the text of the Job's annotation `run`. Read and not written.
    #[serde(default, skip_serializing)]
    pub record: Option<String>,
    /// RFC 3339; when the Job was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
}

/// `status.active.details`: what the annotation `run` of the Job says besides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetails {
    /// The strategy that the run consumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// The value of annotation `run-requested` that it consumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Digest of the template it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Keyed digest of the referenced configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// That of the template, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Its pods have the sidecar.
    #[serde(default)]
    pub output: bool,
    /// Its pods go with the Job after a success.
    #[serde(default)]
    pub delete_pods: bool,
}

/// `status.lastRun`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Number of the run, from 1.
    pub run: u64,
    /// Its Job.
    pub job_name: String,
    /// What made it start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// CamelCase, for programs.
    #[serde(default)]
    pub reason: String,
    /// Sentence for people; never Secret data.
    #[serde(default)]
    pub message: String,
    /// Secrets that it wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<StoredOutput>,
}

/// One entry of `status.lastRun.outputs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoredOutput {
    /// Name of the Secret.
    pub secret: String,
    /// Container that wrote the file.
    pub container: String,
    /// File below `/mnt/quarks`.
    pub file: String,
    /// Version, for a versioned Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<QuarksJobStatus, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    Ok(crate::json::from_slice(text.get().as_bytes()).unwrap_or_default())
}
