//! The extracts: what decisions need to know about an object, and no more. 10,000 QuarksJobs must fit into a few MB.

use serde::{Deserialize, Deserializer};

use crate::api::{
    ANNOTATION_RUN, ANNOTATION_RUN_REQUESTED, ANNOTATION_UID_RANGE, ActiveRun, Job, JobEnd, KIND, LABEL_MONITORED, LABEL_SERVICE_ACCOUNT,
    Namespace, ObjectKey, Outcome, Output, QuarksJob, ResourceVersion, Spec, SpecError, Strategy, Uid, is_our_group,
};
use crate::contract::reason::Reason;
use crate::contract::record::{Marker, REQUEST_MAX, RunRecord};
use crate::digest::Digest;
use crate::rules::own_status::own_status;
use crate::rules::references::{self, Reference, ReferenceKind};

/// A QuarksJob as of one resourceVersion.
#[derive(Clone, Debug, PartialEq)]
pub struct QuarksJobView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Distinguishes it from a later object of the same name.
    pub uid: Uid,
    /// The version that all other fields reflect.
    pub resource_version: ResourceVersion,
    /// `metadata.generation`.
    pub generation: i64,
    /// It has a deletionTimestamp.
    pub is_being_deleted: bool,
    /// `None` for a word that is not a strategy; then `spec_error` says so.
    pub strategy: Option<Strategy>,
    /// `spec.suspend`.
    pub is_suspended: bool,
    /// `spec.output` is set.
    pub has_output: bool,
    /// `spec.failedJobsHistoryLimit`.
    pub failed_jobs_history_limit: u32,
    /// `spec.podHistoryLimit`.
    pub pod_history_limit: u32,
    /// Some output is versioned and `spec.output.keepVersions` is set.
    pub prunes_versions: bool,
    /// `spec.updateOnConfigChange`.
    pub updates_on_config_change: bool,
    /// What the template references; empty unless changes of it matter.
    pub references: Box<[Reference]>,
    /// The first rule that the spec breaks.
    pub spec_error: Option<Box<SpecError>>,
    /// Digest of `spec.template`.
    pub template_digest: Digest,
    /// Annotation `run-requested`, if not empty and not too long.
    pub request: Option<String>,
    /// Annotation `run-requested` is longer than a request can be.
    pub is_request_too_long: bool,
    /// The marker in force.
    pub marker: Marker,
    /// `status.settled` says the same as the marker in force.
    pub is_marker_copied: bool,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// `status.active`.
    pub active: Option<Box<ActiveRun>>,
    /// Number and outcome of `status.lastRun`.
    pub last_run: Option<(u64, Outcome)>,
    /// Condition `Ready`.
    pub ready: Option<ReadyView>,
}

/// Condition `Ready` without its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyView {
    /// `status` is `True`.
    pub is_true: bool,
    /// Its reason. Nearly all objects share one.
    pub reason: Option<Reason>,
}

impl From<&QuarksJob> for QuarksJobView {
    fn from(object: &QuarksJob) -> Self {
        Self::with_spec(object).0
    }
}

impl QuarksJobView {
    /// The view, and the checked spec; `None` if it breaks a rule.
    pub fn with_spec(object: &QuarksJob) -> (Self, Option<Spec>) {
        let QuarksJob { metadata, spec, status } = object;
        let parsed = Spec::parse(spec);
        let strategy = object.strategy();
        let marker = Marker::in_force(metadata, status, strategy);
        let status = &*own_status(metadata, status);
        let request = metadata.annotations.get(ANNOTATION_RUN_REQUESTED).filter(|value| !value.is_empty());
        let ready = status.condition("Ready").map(|ready| ReadyView { is_true: ready.is_true(), reason: Reason::parse(&ready.reason) });
        let is_waiting = ready.as_ref().is_some_and(|ready| ready.reason == Some(Reason::MissingReference));
        let updates_on_config_change = parsed.as_ref().is_ok_and(|spec| spec.update_on_config_change);
        let references = match &parsed {
            Ok(spec) if is_waiting || updates_on_config_change => references::of_spec(spec),
            _ => Vec::new(),
        };
        let view = Self {
            key: metadata.key(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            generation: metadata.generation,
            is_being_deleted: metadata.is_being_deleted(),
            strategy,
            is_suspended: spec.get("suspend").and_then(|value| value.as_bool()).unwrap_or(false),
            has_output: spec.get("output").is_some_and(|output| !output.is_null()),
            failed_jobs_history_limit: parsed.as_ref().map_or(u32::MAX, |spec| spec.failed_jobs_history_limit),
            pod_history_limit: parsed.as_ref().map_or(u32::MAX, |spec| spec.pod_history_limit),
            prunes_versions: parsed.as_ref().is_ok_and(|spec| spec.output.as_ref().is_some_and(Output::prunes_versions)),
            updates_on_config_change,
            references: references.into_boxed_slice(),
            spec_error: parsed.as_ref().err().cloned().map(Box::new),
            template_digest: Digest::of_template(spec.get("template").unwrap_or(&serde_json::Value::Null)),
            request: request.filter(|value| value.len() <= REQUEST_MAX).cloned(),
            is_request_too_long: request.is_some_and(|value| value.len() > REQUEST_MAX),
            is_marker_copied: Marker::in_status(&metadata.uid, status).as_ref() == Some(&marker)
                || (marker.is_blank() && status.settled.is_none()),
            marker,
            observed_generation: status.observed_generation,
            active: status.active.clone().map(Box::new),
            last_run: status.last_run.as_ref().map(|run| (run.run, run.outcome)),
            ready,
        };
        (view, parsed.ok())
    }

    /// True if a change of what it refers to makes it run: for one-offs that have run or will, and never for errands.
    pub fn acts_on_config(&self) -> bool {
        let is_one_off = match self.strategy {
            Some(Strategy::Once | Strategy::Done) => true,
            // It goes back to `done`.
            Some(Strategy::Now) => self.marker.once.is_some(),
            Some(Strategy::Manual) | None => false,
        };
        self.updates_on_config_change && is_one_off && !self.references.is_empty()
    }

    /// True if it must be notified when objects of this kind are created, changed or deleted.
    pub fn needs_watch_of(&self, kind: ReferenceKind) -> bool {
        let is_waiting = self.ready.as_ref().is_some_and(|ready| ready.reason == Some(Reason::MissingReference));
        (is_waiting || self.acts_on_config()) && self.references.iter().any(|reference| reference.kind == kind)
    }
}

impl<'de> Deserialize<'de> for QuarksJobView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        QuarksJob::deserialize(deserializer).map(|object| Self::from(&object))
    }
}

/// A Job as of one resourceVersion.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Distinguishes it from a later object of the same name.
    pub uid: Uid,
    /// The version that all other fields reflect.
    pub resource_version: ResourceVersion,
    /// Its controller, if that is a QuarksJob: name and UID.
    pub owner: Option<(String, Uid)>,
    /// Our annotation. What it means, and what applies if it is missing, is in `views::identity`.
    pub record: Option<Box<RunRecord>>,
    /// How it ended.
    pub end: Option<JobEnd>,
    /// Pods that ended well.
    pub succeeded: u32,
    /// `metadata.creationTimestamp`, RFC 3339.
    pub created: Option<String>,
    /// `status.startTime`, RFC 3339.
    pub started: Option<String>,
    /// It has a deletionTimestamp.
    pub is_being_deleted: bool,
    /// `ttlSecondsAfterFinished` is set.
    pub has_ttl: bool,
    /// `manualSelector` is set: its pods have no label that names it.
    pub has_manual_selector: bool,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        let owner = job.metadata.controller().filter(|owner| owner.kind == KIND && is_our_group(&owner.api_version));
        let record = job.metadata.annotations.get(ANNOTATION_RUN);
        Self {
            key: job.metadata.key(),
            owner: owner.map(|owner| (owner.name.clone(), owner.uid.clone())),
            record: record.and_then(|text| RunRecord::parse(text)).map(Box::new),
            end: job.status.end(),
            succeeded: job.status.succeeded,
            created: job.metadata.creation_timestamp.clone(),
            started: job.status.start_time,
            is_being_deleted: job.metadata.is_being_deleted(),
            has_ttl: job.spec.ttl_seconds_after_finished.is_some(),
            has_manual_selector: job.spec.manual_selector == Some(true),
            uid: job.metadata.uid,
            resource_version: job.metadata.resource_version,
        }
    }
}

impl<'de> Deserialize<'de> for JobView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Job::deserialize(deserializer).map(Self::from)
    }
}

/// A Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceView {
    /// Its name.
    pub name: String,
    /// Value of the label `monitored`.
    pub monitored: Option<String>,
    /// The service account of the sidecar.
    pub service_account: Option<String>,
    /// It has a deletionTimestamp.
    pub is_being_deleted: bool,
    /// Pods get their users there, and may have no others.
    pub assigns_users: bool,
}

impl From<Namespace> for NamespaceView {
    fn from(namespace: Namespace) -> Self {
        let metadata = namespace.metadata;
        Self {
            is_being_deleted: metadata.is_being_deleted(),
            assigns_users: metadata.annotations.contains_key(ANNOTATION_UID_RANGE),
            monitored: metadata.labels.get(LABEL_MONITORED).cloned(),
            service_account: metadata.labels.get(LABEL_SERVICE_ACCOUNT).filter(|name| !name.is_empty()).cloned(),
            name: metadata.name,
        }
    }
}

impl<'de> Deserialize<'de> for NamespaceView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Namespace::deserialize(deserializer).map(Self::from)
    }
}
