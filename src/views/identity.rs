//! Ownership. A name is not an identity: what is believed about a QuarksJob was written for its UID. Pure.
//!
//! Promises: a status that was restored with another UID counts as empty; a Job belongs to a QuarksJob only with its owner UID and
//! its namespace; an owned Job that lost its annotation is still its run.

use std::sync::Arc;
use std::time::Instant;

use crate::api::{ActiveRun, ObjectKey, Strategy, Trigger};
use crate::contract::record::RunRecord;
use crate::planted::{Defect, is_planted};
use crate::rules::names::{job_name, run_of_job_name};
use crate::rules::own_status::RUNS_AHEAD;

use super::triggers::pending;
use super::{JobView, QuarksJobView};

/// A run that this process created a Job for.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedRun {
    /// Its Job.
    pub job_name: String,
    /// The Job's annotation.
    pub record: RunRecord,
    /// When the create was acknowledged, until the watch has shown the Job.
    pub unseen_since: Option<Instant>,
}

/// A Job of a QuarksJob, and the run that it is.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnJob {
    /// The Job.
    pub view: Arc<JobView>,
    /// Which run it is, and what that consumes.
    pub record: RunRecord,
}

/// The run that the Job is of `owner`; `None` for a Job of another owner. `started` is what this process remembers of its own create.
pub fn run_of(job: &JobView, owner: &QuarksJobView, started: Option<&StartedRun>) -> Option<RunRecord> {
    let is_there = job.key.namespace == owner.key.namespace || is_planted(Defect::NamespaceNotAsked);
    let is_owned = job.owner.as_ref().is_some_and(|(_, uid)| *uid == owner.uid) && is_there;
    if !is_owned {
        return None;
    }
    let named = run_of_job_name(&job.key.name).filter(|run| *job.key.name == job_name(&owner.key.name, &owner.uid, *run));
    let record = match (job.record.as_deref(), named) {
        (Some(record), None) => record.clone(),
        (Some(record), Some(_)) if is_planted(Defect::RecordOfAnotherRun) => record.clone(),
        (None, Some(_)) if is_planted(Defect::RunAnnotationLost) => return None,
        // The annotation may be gone, or changed: what we wrote down ourselves counts first.
        (annotation, Some(run)) => written_record(owner, started, run)
            .or_else(|| annotation.filter(|record| record.run == run).cloned())
            .unwrap_or_else(|| remembered_record(owner, started, run)),
        (None, None) => return None,
    };
    // Anyone who can create Jobs can forge a number. A huge one would leave no valid number for the next run.
    (record.run <= owner.marker.runs.saturating_add(RUNS_AHEAD)).then_some(record)
}

/// The Jobs of the QuarksJob. First those that have the name of their run: of two that claim one run the other one is a copy.
pub fn own_jobs(view: &QuarksJobView, jobs: &[Arc<JobView>], started: Option<&StartedRun>) -> Vec<OwnJob> {
    let QuarksJobView { key: ObjectKey { name, .. }, uid, .. } = view;
    let own = |job: &Arc<JobView>| run_of(job, view, started).map(|record| OwnJob { view: Arc::clone(job), record });
    let is_named = |job: &OwnJob| *job.view.key.name == job_name(name, uid, job.record.run);
    let (mut named, others): (Vec<_>, Vec<_>) = jobs.iter().filter_map(own).partition(is_named);
    named.extend(others);
    named
}

/// What this process or status has written down of a run, in full.
fn written_record(owner: &QuarksJobView, started: Option<&StartedRun>, run: u64) -> Option<RunRecord> {
    let in_status = || {
        let active = owner.active.as_ref().filter(|active| active.run == run)?;
        RunRecord::of_active(active)
    };
    started.map(|started| &started.record).filter(|record| record.run == run).cloned().or_else(in_status)
}

/// What run `run` consumes, if its Job does not say so, or no longer does.
pub fn remembered_record(owner: &QuarksJobView, started: Option<&StartedRun>, run: u64) -> RunRecord {
    let named = || owner.active.as_ref().filter(|active| active.run == run).map(|active| named_record(owner, active));
    written_record(owner, started, run).or_else(named).unwrap_or_else(|| guessed_record(owner, run))
}

/// A run of which status names only the trigger.
fn named_record(owner: &QuarksJobView, active: &ActiveRun) -> RunRecord {
    let ActiveRun { run, trigger, .. } = active;
    let (strategy, request) = match trigger {
        Trigger::Now => (Some(Strategy::Now), None),
        Trigger::Once => (Some(Strategy::Once), None),
        Trigger::Request => (None, owner.request.clone()),
        Trigger::Config => (None, None),
    };
    let template = Some(owner.template_digest.to_string());
    RunRecord { strategy, request, template, output: owner.has_output, ..RunRecord::of_run(*run, *trigger) }
}

/// A run without a record consumes what is pending now: that is why its Job exists.
fn guessed_record(owner: &QuarksJobView, run: u64) -> RunRecord {
    let mut record = RunRecord::of_run(run, Trigger::Now);
    record.template = Some(owner.template_digest.to_string());
    record.output = owner.has_output;
    // A run that is settled has consumed what it consumed.
    if let Some(pending) = pending(owner).filter(|_| run > owner.marker.runs) {
        record.trigger = pending.trigger;
        record.strategy = pending.strategy;
        record.request = pending.request;
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{QuarksJob, Uid};
    use crate::rules::own_status::tests::{marker, name, object};
    use serde_json::{Value, json};

    fn job(change: impl FnOnce(&mut Value)) -> JobView {
        let mut job = json!({"metadata": {"name": name("u1", 3), "namespace": "ns", "uid": "j", "ownerReferences": [{
            "apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q", "uid": "u1", "controller": true}]}});
        change(&mut job);
        JobView::from(serde_json::from_value::<crate::api::Job>(job).expect("decodes"))
    }

    fn annotate(run: u64) -> impl FnOnce(&mut Value) {
        move |job| job["metadata"]["annotations"] = json!({crate::api::ANNOTATION_RUN: RunRecord::of_run(run, Trigger::Once).encode()})
    }

    #[test]
    fn a_job_is_ours_by_owner_uid_and_namespace_and_its_run_by_annotation_or_name() {
        let owner = QuarksJobView::from(&object(|_| {}));
        let of = |change: &dyn Fn(&mut Value)| run_of(&job(|job| change(job)), &owner, None).map(|record| (record.run, record.trigger));
        let named = |run: u64| move |job: &mut Value| job["metadata"]["name"] = json!(name("u1", run));
        assert_eq!(of(&|job| annotate(3)(job)), Some((3, Trigger::Once)));
        assert_eq!(of(&|_| {}), Some((3, Trigger::Now)), "without the annotation");
        assert_eq!(of(&|job| annotate(9)(job)), Some((3, Trigger::Now)), "with a wrong one");
        for forged in [RUNS_AHEAD + 1, (1 << 53) - 1, u64::MAX] {
            assert_eq!(of(&|job| named(forged)(job)), None, "{forged} by its name");
            assert_eq!(
                of(&|job| (job["metadata"]["name"] = json!("by-hand"), annotate(forged)(job)).1),
                None,
                "{forged} by its annotation"
            );
        }
        assert_eq!(of(&|job| named(RUNS_AHEAD)(job)).map(|(run, _)| run), Some(RUNS_AHEAD));
        assert_eq!(of(&|job| (named(7)(job), annotate(7)(job)).0), Some((7, Trigger::Once)));
        let other_name = |job: &mut Value| job["metadata"]["name"] = json!("by-hand");
        assert_eq!(of(&|job| (other_name(job), annotate(4)(job)).0), Some((4, Trigger::Once)), "owner and annotation make it a run");
        assert_eq!(of(&other_name), None, "the original's Jobs have other names and no annotation");
        for (pointer, value) in [
            ("/metadata/namespace", json!("elsewhere")),
            ("/metadata/ownerReferences/0/uid", json!("u0")),
            ("/metadata/ownerReferences/0/controller", json!(false)),
            ("/metadata/ownerReferences/0/kind", json!("Other")),
            ("/metadata/ownerReferences/0/apiVersion", json!("quarks.cloudfoundry.org.example.com/v1")),
        ] {
            let foreign = |job: &mut Value| {
                annotate(3)(job);
                *job.pointer_mut(pointer).expect("is there") = value.clone();
            };
            assert_eq!(of(&foreign), None, "{pointer}");
        }
    }

    #[test]
    fn what_a_run_consumes_is_remembered_without_its_annotation() {
        let now = Some(Strategy::Now);
        let of = |object: &QuarksJob, started: Option<&StartedRun>| {
            let record = run_of(&job(|_| {}), &QuarksJobView::from(object), started).expect("ours");
            (record.trigger, record.strategy, record.request)
        };
        let record = RunRecord { request: Some("r1".into()), ..RunRecord::of_run(3, Trigger::Request) };
        let in_status = |active: Value| object(|object| object["status"] = json!({"active": active}));
        let as_older =
            |record: &str| in_status(json!({"run": 3, "jobName": name("u1", 3), "trigger": "config", "uid": "u1", "record": record}));
        let requested = (Trigger::Request, None, Some("r1".into()));
        let active = serde_json::to_value(record.active(&Uid::from("u1"), &name("u1", 3), None)).expect("serializes");
        assert_eq!(of(&in_status(active), None), requested);
        assert_eq!(of(&as_older(&record.encode()), None), requested, "written by an older version");
        assert_eq!(of(&as_older("{"), None), (Trigger::Config, None, None), "its trigger");
        let started = |run| StartedRun {
            job_name: name("u1", run),
            record: RunRecord { strategy: Some(Strategy::Once), ..RunRecord::of_run(run, Trigger::Once) },
            unseen_since: None,
        };
        assert_eq!(of(&object(|_| {}), Some(&started(3))), (Trigger::Once, Some(Strategy::Once), None));
        assert_eq!(of(&object(|_| {}), Some(&started(2))), (Trigger::Now, now, None), "of another run");
        let settled = object(|object| object["metadata"]["annotations"] = json!({crate::api::ANNOTATION_SETTLED: marker("u1", 3)}));
        assert_eq!(of(&settled, None), (Trigger::Now, None, None), "a settled run consumes nothing more");
    }

    #[test]
    fn what_a_run_consumes_whose_status_names_only_its_trigger() {
        let (now, once) = (Some(Strategy::Now), Some(Strategy::Once));
        for (trigger, has_output, strategy, request) in [
            (Trigger::Now, false, now, None),
            (Trigger::Once, false, once, None),
            (Trigger::Config, false, None, None),
            (Trigger::Request, false, None, Some("r1".to_owned())),
            (Trigger::Request, true, None, Some("r1".to_owned())),
            (Trigger::Now, true, now, None),
        ] {
            let owner = QuarksJobView::from(&object(|object| {
                object["metadata"]["annotations"] = json!({crate::api::ANNOTATION_RUN_REQUESTED: "r1"});
                object["spec"]["output"] = if has_output { json!({"outputMap": {"c": {"f": {"name": "s"}}}}) } else { Value::Null };
                object["status"] = json!({"active": {"run": 3, "jobName": name("u1", 3), "trigger": trigger, "uid": "u1"}});
            }));
            let template = Some(owner.template_digest.to_string());
            let expected = RunRecord { strategy, request, template, output: has_output, ..RunRecord::of_run(3, trigger) };
            assert_eq!(run_of(&job(|_| {}), &owner, None), Some(expected), "{trigger:?} {has_output}");
        }
    }

    #[test]
    fn an_annotation_that_somebody_changed_is_not_believed_over_what_we_wrote_down() {
        let ours = RunRecord { strategy: Some(Strategy::Now), output: true, ttl: Some(9), ..RunRecord::of_run(3, Trigger::Now) };
        let text = ours.encode();
        let active = json!({"run": 3, "jobName": name("u1", 3), "trigger": "now", "uid": "u1", "record": text});
        let owner = QuarksJobView::from(&object(|object| object["status"] = json!({"active": active})));
        let changed = |job: &mut Value| annotate(3)(job);
        assert_eq!(run_of(&job(changed), &owner, None), Some(ours.clone()), "status");
        let started = StartedRun { job_name: name("u1", 3), record: ours.clone(), unseen_since: None };
        let blank = QuarksJobView::from(&object(|_| {}));
        assert_eq!(run_of(&job(changed), &blank, Some(&started)), Some(ours), "this process");
        assert_eq!(run_of(&job(changed), &blank, None).map(|record| record.trigger), Some(Trigger::Once), "else the annotation says it");
    }
}
