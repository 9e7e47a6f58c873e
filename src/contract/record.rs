//! The two records that make a run exactly-once: the marker on the QuarksJob (what is settled) and the run annotation on the Job
//! (which run it is and which triggers it consumes).
//!
//! Each is one JSON value in an annotation, so that one write changes all of it or nothing. Others can write annotations too: a
//! value that does not parse counts as absent.

use serde::{Deserialize, Serialize};

use crate::api::{ANNOTATION_SETTLED, ActiveRun, ObjectMeta, Outcome, QuarksJobStatus, RunDetails, Strategy, Trigger, Uid};
use crate::planted::{Defect, is_planted};

/// Run numbers are exact in every JSON reader.
const RUN_MAX: u64 = 1 << 53;
/// A marker with more runs is ignored: it is forged, and it would leave no numbers for future runs.
const SETTLED_MAX: u64 = RUN_MAX / 2;
/// Longest text of a record in bytes: what we write is far shorter, whatever a request says. Others can write annotations of 256 KiB.
const TEXT_MAX: usize = 16 * 1024;
/// Longest value of annotation `run-requested` in bytes.
pub const REQUEST_MAX: usize = 1024;

/// Annotation `settled` of a QuarksJob, and `status.settled`: the newest run that is over, and what it consumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Settled runs. The marker with more runs is the newer one.
    pub runs: u64,
    /// Template digest of the last one-off run; set means "the one-off has run".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<String>,
    /// Keyed digest of the referenced configuration that the last run used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Last value of annotation `run-requested` that was served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How the last run ended; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Its reason, so that status can be written after a crash even if the Job no longer exists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What made it start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// When its Job started, RFC 3339, for the same purpose.
    #[serde(default, rename = "startTime", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// When it ended.
    #[serde(default, rename = "completionTime", skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<String>,
}

/// The stored form has the UID of its QuarksJob too: a marker in a copied manifest belongs to another object.
#[derive(Deserialize)]
struct StoredUid {
    uid: Uid,
}

impl Marker {
    /// The marker in force: the one with more runs of annotation and status (`kubectl replace` drops annotations).
    /// A tie goes to the annotation.
    ///
    /// A restored object has the marker of another UID. It only shows which request had been served: while the strategy
    /// requests nothing, that value is not a new request.
    pub fn in_force(metadata: &ObjectMeta, status: &QuarksJobStatus, strategy: Option<Strategy>) -> Self {
        let copy = || status.settled.as_ref().filter(|_| !is_planted(Defect::MarkerCopyIgnored));
        let texts = || [metadata.annotations.get(ANNOTATION_SETTLED), copy()].into_iter().flatten();
        let own = texts().filter_map(|text| Self::parse(text, &metadata.uid));
        // The first of several that are equal.
        let own = own.reduce(|best, other| if other.runs > best.runs { other } else { best });
        own.unwrap_or_else(|| {
            let is_waiting = matches!(strategy, Some(Strategy::Manual | Strategy::Done));
            let restored =
                texts().filter(|_| is_waiting && !is_planted(Defect::RestoredRequest)).find_map(|text| Self::parse_any(text)?.1.request);
            Self { request: restored, ..Self::default() }
        })
    }

    /// True if it says nothing that would be lost without it.
    pub fn is_blank(&self) -> bool {
        self.runs == 0 && self.once.is_none() && self.request.is_none()
    }

    /// The UID that a stored marker names.
    pub fn uid_in(text: &str) -> Option<Uid> {
        Self::parse_any(text).map(|(uid, _)| uid)
    }

    /// The copy in status, if it is this object's.
    pub fn in_status(uid: &Uid, status: &QuarksJobStatus) -> Option<Self> {
        Self::parse(status.settled.as_deref()?, uid)
    }

    fn parse(text: &str, uid: &Uid) -> Option<Self> {
        Self::parse_any(text).filter(|(stored, _)| stored == uid).map(|(_, marker)| marker)
    }

    /// With the UID that it was written for.
    fn parse_any(text: &str) -> Option<(Uid, Self)> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let StoredUid { uid } = crate::json::from_slice(text.as_bytes()).ok()?;
        let marker: Self = crate::json::from_slice(text.as_bytes()).ok()?;
        (marker.runs <= SETTLED_MAX && is_request(marker.request.as_ref())).then_some((uid, marker))
    }

    /// The text of the annotation of the QuarksJob with this UID.
    pub fn encode(&self, uid: &Uid) -> String {
        let mut stored = serde_json::to_value(self).expect("strings and numbers always serialize");
        stored["uid"] = uid.as_str().into();
        stored.to_string()
    }

    /// The marker after `run` has ended, without its times.
    pub fn after(&self, run: &RunRecord, outcome: Outcome, reason: &str) -> Self {
        let once = if run.strategy == Some(Strategy::Once) { run.template.clone() } else { self.once.clone() };
        Self {
            runs: run.run.max(self.runs),
            once,
            config: run.config.clone().or_else(|| self.config.clone()),
            request: run.request.clone().or_else(|| self.request.clone()),
            outcome: Some(outcome),
            reason: reason.to_owned(),
            trigger: Some(run.trigger),
            start_time: None,
            completion_time: None,
        }
    }
}

/// Annotation `run` of a Job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Number of the run, from 1.
    pub run: u64,
    /// What made it start.
    pub trigger: Trigger,
    /// The strategy that this run consumes: `now` or `once`. Absent if it ran for another reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Digest of the template it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Keyed digest of the referenced configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The value of annotation `run-requested` that this run consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The template's `ttlSecondsAfterFinished`, held back until the run is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
    /// True if the pods have the sidecar, whose reports decide the outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output: bool,
    /// True if the pods are deleted with the Job after a success (pod label `delete: pod`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_pods: bool,
}

/// True unless the request is longer than one can be.
fn is_request(request: Option<&String>) -> bool {
    request.is_none_or(|value| value.len() <= REQUEST_MAX)
}

impl RunRecord {
    /// What `status.active` says of this run until it is settled: it counts if the Job is deleted before that.
    pub fn active(&self, owner: &Uid, job_name: &str, start_time: Option<String>) -> ActiveRun {
        let Self { run, trigger, strategy, template, config, request, ttl, output, delete_pods } = self.clone();
        let details = RunDetails { strategy, request, template, config, ttl_seconds_after_finished: ttl, output, delete_pods };
        let (job_name, uid) = (job_name.to_owned(), Some(owner.clone()));
        ActiveRun { run, job_name, trigger, uid, details: Some(details), record: None, start_time }
    }

    /// What `status.active` says of its run, if it says more than the trigger.
    pub fn of_active(active: &ActiveRun) -> Option<Self> {
        let Some(details) = active.details.clone() else {
            return Self::parse(active.record.as_deref()?).filter(|record| record.run == active.run);
        };
        let RunDetails { strategy, request, template, config, ttl_seconds_after_finished: ttl, output, delete_pods } = details;
        let ActiveRun { run, trigger, .. } = *active;
        Self { run, trigger, strategy, template, config, request, ttl, output, delete_pods }.checked()
    }

    /// A run that consumes nothing.
    pub fn of_run(run: u64, trigger: Trigger) -> Self {
        Self { run, trigger, strategy: None, template: None, config: None, request: None, ttl: None, output: false, delete_pods: false }
    }

    /// The record in the annotation's text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let record: Self =
            Some(text).filter(|text| text.len() <= TEXT_MAX).and_then(|text| crate::json::from_slice(text.as_bytes()).ok())?;
        record.checked()
    }

    fn checked(self) -> Option<Self> {
        ((1..RUN_MAX).contains(&self.run) && is_request(self.request.as_ref()) && self.encode().len() <= TEXT_MAX).then_some(self)
    }

    /// The text of the annotation.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always serialize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(uid: &str, runs: u64) -> String {
        Marker { runs, ..Marker::default() }.encode(&Uid::from(uid))
    }

    fn in_force(annotation: Option<&str>, status: Option<&str>) -> u64 {
        let mut metadata = ObjectMeta { uid: Uid::from("u1"), ..ObjectMeta::default() };
        if let Some(text) = annotation {
            metadata.annotations.insert(ANNOTATION_SETTLED.to_owned(), text.to_owned());
        }
        let status = QuarksJobStatus { settled: status.map(str::to_owned), ..QuarksJobStatus::default() };
        Marker::in_force(&metadata, &status, None).runs
    }

    #[test]
    fn the_marker_with_more_runs_is_in_force() {
        let (two, three, foreign) = (marker("u1", 2), marker("u1", 3), marker("u2", 9));
        let huge = marker("u1", u64::MAX);
        let cases = [
            (None, None, 0),
            (Some(two.as_str()), None, 2),
            (None, Some(two.as_str()), 2),
            (Some(&two), Some(&three), 3),
            (Some(&three), Some(&two), 3),
            (Some("{"), Some(&two), 2),
            (Some(&foreign), Some(&two), 2),
            (Some(&foreign), None, 0),
            (Some(&huge), None, 0),
            (Some(r#"{"runs":7}"#), None, 0),
        ];
        for (annotation, status, runs) in cases {
            assert_eq!(in_force(annotation, status), runs, "{annotation:?} {status:?}");
        }
    }

    #[test]
    fn of_two_markers_with_the_same_runs_the_annotation_is_in_force() {
        let with = |request: &str| Marker { runs: 2, request: Some(request.into()), ..Marker::default() }.encode(&Uid::from("u1"));
        let mut metadata = ObjectMeta { uid: Uid::from("u1"), ..ObjectMeta::default() };
        metadata.annotations.insert(ANNOTATION_SETTLED.to_owned(), with("r1"));
        let status = QuarksJobStatus { settled: Some(with("r0")), ..QuarksJobStatus::default() };
        assert_eq!(Marker::in_force(&metadata, &status, None).request.as_deref(), Some("r1"));
    }

    #[test]
    fn a_marker_is_blank_while_nothing_was_consumed() {
        assert!(Marker::default().is_blank());
        assert!(Marker { config: Some("c".into()), ..Marker::default() }.is_blank(), "a baseline is taken again");
        let consumed = [
            Marker { runs: 1, ..Marker::default() },
            Marker { once: Some("t".into()), ..Marker::default() },
            Marker { request: Some("r".into()), ..Marker::default() },
        ];
        for marker in consumed {
            assert!(!marker.is_blank(), "{marker:?}");
        }
    }

    #[test]
    fn a_run_clears_only_what_it_consumed() {
        let before = Marker { once: Some("t0".into()), request: Some("r0".into()), runs: 4, ..Marker::default() };
        let run = RunRecord { strategy: Some(Strategy::Now), template: Some("t1".into()), ..RunRecord::of_run(5, Trigger::Now) };
        let after = before.after(&run, Outcome::Failed, "BackoffLimitExceeded");
        assert_eq!((after.runs, after.once.as_deref(), after.request.as_deref()), (5, Some("t0"), Some("r0")));
        let once = RunRecord { strategy: Some(Strategy::Once), request: Some("r1".into()), ..run };
        let after = before.after(&once, Outcome::Succeeded, "");
        assert_eq!((after.once.as_deref(), after.request.as_deref()), (Some("t1"), Some("r1")));
        assert_eq!(RunRecord::parse(&once.encode()), Some(once));
    }

    #[test]
    fn a_request_that_another_uid_has_served_is_none_while_nothing_is_asked_for() {
        let stored =
            |uid: &str, request: &str| Marker { runs: 4, request: Some(request.into()), ..Marker::default() }.encode(&Uid::from(uid));
        let request = |annotation: Option<String>, copy: Option<String>, strategy: Strategy| {
            let mut metadata = ObjectMeta { uid: Uid::from("u1"), ..ObjectMeta::default() };
            metadata.annotations.extend(annotation.map(|text| (ANNOTATION_SETTLED.to_owned(), text)));
            let status = QuarksJobStatus { settled: copy, ..QuarksJobStatus::default() };
            let marker = Marker::in_force(&metadata, &status, Some(strategy));
            (marker.runs, marker.request)
        };
        let served = |value: &str| Some(value.to_owned());
        for strategy in [Strategy::Done, Strategy::Manual] {
            assert_eq!(request(Some(stored("u0", "r1")), None, strategy), (0, served("r1")));
            assert_eq!(request(None, Some(stored("u0", "r1")), strategy), (0, served("r1")));
            assert_eq!(request(Some(stored("u0", "r1")), Some(stored("u1", "r2")), strategy), (4, served("r2")), "its own counts");
        }
        for strategy in [Strategy::Once, Strategy::Now] {
            assert_eq!(request(Some(stored("u0", "r1")), None, strategy), (0, None), "one run serves both");
        }
    }

    #[test]
    fn what_others_write_is_bounded() {
        let request = |length: usize| Some("r".repeat(length));
        for (length, is_good) in [(REQUEST_MAX, true), (REQUEST_MAX + 1, false), (250 * 1024, false)] {
            let record = RunRecord { request: request(length), ..RunRecord::of_run(1, Trigger::Request) };
            assert_eq!(RunRecord::parse(&record.encode()).is_some(), is_good, "{length}");
            let marker = Marker { runs: 1, request: request(length), ..Marker::default() };
            assert_eq!(in_force(Some(&marker.encode(&Uid::from("u1"))), None) == 1, is_good, "{length}");
        }
        for (runs, is_good) in [(SETTLED_MAX, true), (SETTLED_MAX + 1, false)] {
            assert_eq!(in_force(Some(&marker("u1", runs)), None) == runs, is_good, "{runs}");
        }
        for (length, is_good) in [(TEXT_MAX, true), (TEXT_MAX + 1, false)] {
            let text = format!("{:length$}", marker("u1", 1));
            assert_eq!((text.len(), in_force(Some(&text), None) == 1), (length, is_good));
        }
        // Each character of a request may take six in JSON.
        let record = RunRecord { request: Some("\u{1}".repeat(REQUEST_MAX)), ..RunRecord::of_run(1, Trigger::Request) };
        assert_eq!(RunRecord::parse(&record.encode()), Some(record));
        let long = RunRecord { template: request(TEXT_MAX), ..RunRecord::of_run(1, Trigger::Now) };
        assert_eq!(RunRecord::parse(&long.encode()), None);
        assert_eq!(RunRecord::of_active(&long.active(&Uid::from("u1"), "j", None)), None);
    }
}
