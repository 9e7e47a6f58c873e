//! The two records that make a run exactly-once: the marker on the QuarksJob (what is settled) and the run annotation
//! on the Job (which run it is and which triggers it consumes).
//!
//! Both are one JSON value in an annotation, so that one write changes all of it or nothing. Others can write
//! annotations too: whatever does not parse counts as absent.

use serde::{Deserialize, Serialize};

use crate::api::{ANNOTATION_SETTLED, ObjectMeta, Outcome, QuarksJobStatus, Strategy, Trigger, Uid};

/// Runs numbers are exact in every JSON reader, and `runs + 1` never overflows.
const RUN_MAX: u64 = 1 << 53;

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
    /// Its reason, so that status can be written after a crash even if the Job is gone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What made it start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
}

/// The stored form has the UID of its QuarksJob too: a marker in a copied manifest speaks of another object.
#[derive(Deserialize)]
struct StoredUid {
    uid: Uid,
}

impl Marker {
    /// The marker in force: the one with more runs of annotation and status (`kubectl replace` drops annotations).
    /// A tie goes to the annotation.
    pub fn in_force(metadata: &ObjectMeta, status: &QuarksJobStatus) -> Self {
        let annotation = metadata.annotations.get(ANNOTATION_SETTLED).and_then(|text| Self::parse(text, &metadata.uid));
        let copy = Self::in_status(metadata, status);
        match (annotation, copy) {
            (Some(annotation), Some(copy)) if copy.runs > annotation.runs => copy,
            (Some(annotation), _) => annotation,
            (None, Some(copy)) => copy,
            (None, None) => Self::default(),
        }
    }

    /// The copy in status, if it is this object's.
    pub fn in_status(metadata: &ObjectMeta, status: &QuarksJobStatus) -> Option<Self> {
        Self::parse(status.settled.as_deref()?, &metadata.uid)
    }

    fn parse(text: &str, uid: &Uid) -> Option<Self> {
        let stored: StoredUid = crate::json::from_slice(text.as_bytes()).ok()?;
        let marker: Self = crate::json::from_slice(text.as_bytes()).ok()?;
        (stored.uid == *uid && marker.runs < RUN_MAX).then_some(marker)
    }

    /// The text of the annotation of the QuarksJob with this UID.
    pub fn encode(&self, uid: &Uid) -> String {
        let mut stored = serde_json::to_value(self).expect("strings and numbers always serialize");
        stored["uid"] = uid.as_str().into();
        stored.to_string()
    }

    /// The marker after `run` has ended.
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
    /// True if the pods go with the Job after a success (pod label `delete: pod`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_pods: bool,
}

impl RunRecord {
    /// The record in the annotation's text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        crate::json::from_slice(text.as_bytes()).ok().filter(|record: &Self| record.run >= 1 && record.run < RUN_MAX)
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
        Marker::in_force(&metadata, &status).runs
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
    fn a_run_clears_only_what_it_consumed() {
        let before = Marker { once: Some("t0".into()), request: Some("r0".into()), runs: 4, ..Marker::default() };
        let run = RunRecord {
            run: 5,
            trigger: Trigger::Now,
            strategy: Some(Strategy::Now),
            template: Some("t1".into()),
            config: None,
            request: None,
            ttl: None,
            output: false,
            delete_pods: false,
        };
        let after = before.after(&run, Outcome::Failed, "BackoffLimitExceeded");
        assert_eq!((after.runs, after.once.as_deref(), after.request.as_deref()), (5, Some("t0"), Some("r0")));
        let once = RunRecord { strategy: Some(Strategy::Once), request: Some("r1".into()), ..run };
        let after = before.after(&once, Outcome::Succeeded, "");
        assert_eq!((after.once.as_deref(), after.request.as_deref()), (Some("t1"), Some("r1")));
        assert_eq!(RunRecord::parse(&once.encode()), Some(once));
    }
}
