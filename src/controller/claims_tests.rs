//! What the two controllers decide, each for what `claims` gives it. Tables: one question a test.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::api::{ActiveRun, Job, JobEnd, ObjectKey, QuarksJob, ResourceVersion, Strategy, Trigger, Uid};
use crate::contract::record::{Marker, RunRecord};
use crate::controller::errand::decide::{self as errand, ReferencesSeen, Step as E};
use crate::controller::job::decide::{self as job_controller, JOB_UNSEEN_LIMIT, Step as J};
use crate::controller::job::tidy::{self, Step as T};
use crate::controller::shared::decision::Decision as Decided;
use crate::controller::shared::memory::Hold;
use crate::controller::shared::ready::Readiness;
use crate::digest;
use crate::rules::names::job_name;
use crate::views::JobView;
use crate::views::identity::own_jobs;
use crate::views::triggers::Pending;

use super::*;

const UID: &str = "u1";

/// A QuarksJob that has nothing to do, with `change` merged over it.
fn view(change: serde_json::Value) -> QuarksJobView {
    let mut object = json!({
        "metadata": {"name": "q", "namespace": "ns", "uid": UID, "resourceVersion": "7", "generation": 3},
        "spec": {
            "trigger": {"strategy": "manual"},
            "template": {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}
        },
        "status": {"observedGeneration": 3, "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]}
    });
    merge(&mut object, change);
    let object: QuarksJob = serde_json::from_value(object).expect("the test's object decodes");
    QuarksJobView::from(&object)
}

fn merge(into: &mut serde_json::Value, change: serde_json::Value) {
    match change {
        serde_json::Value::Object(fields) if into.is_object() => {
            for (name, value) in fields {
                merge(&mut into[name], value);
            }
        }
        other => *into = other,
    }
}

/// A marker with this many runs, in annotation and status.
fn settled(runs: u64, once: Option<&str>, request: Option<&str>) -> serde_json::Value {
    let marker = Marker { runs, once: once.map(str::to_owned), request: request.map(str::to_owned), ..Marker::default() };
    let text = marker.encode(&UID.into());
    json!({
        "metadata": {"annotations": {"quarks.cloudfoundry.org/settled": text}},
        "status": {"settled": text, "lastRun": {"run": runs, "jobName": "j", "outcome": "Succeeded"}}
    })
}

fn job(run: u64, owner: &str, ended: Option<&str>) -> Arc<JobView> {
    let record = RunRecord { strategy: Some(Strategy::Now), delete_pods: true, ..RunRecord::of_run(run, Trigger::Now) };
    let conditions = ended.map(|kind| json!([{"type": kind, "status": "True"}])).unwrap_or(json!([]));
    let job: Job = serde_json::from_value(json!({
        "metadata": {
            "name": format!("q-{run}"), "namespace": "ns", "uid": format!("job-{run}"),
            "annotations": {"quarks.cloudfoundry.org/run": record.encode()},
            "ownerReferences": [{"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q", "uid": owner, "controller": true}]
        },
        "status": {"conditions": conditions}
    }))
    .expect("the test's Job decodes");
    Arc::new(JobView::from(job))
}

/// A Job with its annotation.
fn own(job: &Arc<JobView>) -> OwnJob {
    OwnJob { view: Arc::clone(job), record: job.record.as_deref().expect("has a record").clone() }
}

fn namespace() -> NamespaceView {
    NamespaceView { name: "ns".into(), monitored: Some("default".into()), ..NamespaceView::default() }
}

/// All that decisions of both rest on.
struct Snapshot<'a> {
    view: &'a QuarksJobView,
    jobs: &'a [Arc<JobView>],
    namespace: Option<&'a NamespaceView>,
    started: Option<&'a StartedRun>,
    hold: Option<&'a Hold>,
    references: ReferencesSeen<'a>,
    pauses: Pauses<'a>,
}

/// What is left alone for now by either.
#[derive(Clone, Copy, Default)]
struct Pauses<'a> {
    settle: Option<Instant>,
    burst: Option<Duration>,
    clean_up: Option<Instant>,
    refused: &'a [Uid],
    prune: Option<Instant>,
    config_paused_until: Option<Instant>,
    kept: &'a [Uid],
    is_clean_up_denied: bool,
}

/// What is done first, and by whom.
#[derive(Clone, Debug, PartialEq)]
enum Decision {
    Nothing,
    Wait(Duration),
    Errand(E),
    Job(J),
    Tidy(T),
}

impl Decision {
    fn of<Step>(decided: Decided<Step>, step: fn(Step) -> Self) -> Self {
        match decided {
            Decided::Nothing => Self::Nothing,
            Decided::Wait(duration) => Self::Wait(duration),
            Decided::Do(decided) => step(decided),
        }
    }
}

/// The controller that the QuarksJob belongs to decides first; `job` cleans up in either case.
fn decide(all: &Snapshot<'_>, now: Instant) -> Decision {
    let Snapshot { view, jobs, namespace, started, hold, references, pauses } = *all;
    let Pauses { settle, burst, clean_up, refused, prune, config_paused_until, kept, is_clean_up_denied } = pauses;
    let jobs = own_jobs(view, jobs, started);
    let snapshot = super::Snapshot { view, jobs: &jobs, namespace, started };
    let stage = Stage::of(&snapshot);
    let first = match stage.controller() {
        _ if snapshot.served().is_none() => Decision::Nothing,
        Controller::Errand => {
            let known = errand::Known { hold, references, config_paused_until, is_clean_up_denied };
            Decision::of(errand::decide(&snapshot, &known, now), Decision::Errand)
        }
        Controller::Job => Decision::of(job_controller::decide(view, stage, settle, burst, now), Decision::Job),
    };
    let wait = match first {
        Decision::Nothing => None,
        Decision::Wait(duration) => Some(duration),
        step => return step,
    };
    match (wait, Decision::of(tidy::decide(&snapshot, &tidy::Pauses { clean_up, refused, prune, kept }, now), Decision::Tidy)) {
        (Some(wait), Decision::Nothing) => Decision::Wait(wait),
        (Some(wait), Decision::Wait(other)) => Decision::Wait(wait.min(other)),
        (_, decision) => decision,
    }
}

/// Nothing but the QuarksJob and its namespace.
fn snapshot<'a>(view: &'a QuarksJobView, namespace: &'a NamespaceView) -> Snapshot<'a> {
    let (references, pauses) = (ReferencesSeen::default(), Pauses::default());
    Snapshot { view, jobs: &[], namespace: Some(namespace), started: None, hold: None, references, pauses }
}

fn next(view: &QuarksJobView, jobs: &[Arc<JobView>]) -> Decision {
    decide(&Snapshot { jobs, ..snapshot(view, &namespace()) }, Instant::now())
}

fn starts(view: &QuarksJobView) -> Option<(Trigger, Option<Strategy>, Option<String>)> {
    match next(view, &[]) {
        Decision::Errand(E::Start(pending)) => Some((pending.trigger, pending.strategy, pending.request)),
        _ => None,
    }
}

#[test]
fn triggers() {
    let digest = view(json!({})).template_digest.to_string();
    let strategy = |word: &str| json!({"spec": {"trigger": {"strategy": word}}});
    let request = |value: &str| json!({"metadata": {"annotations": {"quarks.cloudfoundry.org/run-requested": value}}});
    let now = Some((Trigger::Now, Some(Strategy::Now), None));
    let once = Some((Trigger::Once, Some(Strategy::Once), None));
    let asked = |value: &str| Some((Trigger::Request, None, Some(value.to_owned())));
    let cases: [(&str, Vec<serde_json::Value>, Option<_>); 12] = [
        ("manual waits", vec![strategy("manual")], None),
        ("now runs", vec![strategy("now")], now.clone()),
        ("now runs again after other runs", vec![strategy("now"), settled(5, None, None)], now),
        ("once runs when it has not", vec![strategy("once")], once.clone()),
        ("once does not run twice", vec![strategy("once"), settled(1, Some(&digest), None)], None),
        ("once runs for another template", vec![strategy("once"), settled(1, Some("sha256-canonical:other"), None)], once),
        ("another digest algorithm is no change", vec![strategy("once"), settled(1, Some("sha256:x"), None)], None),
        ("done does not run", vec![strategy("done"), settled(1, Some(&digest), None)], None),
        ("a request runs", vec![request("r1")], asked("r1")),
        ("a served request does not", vec![request("r1"), settled(1, None, Some("r1"))], None),
        ("another value does", vec![request("r2"), settled(1, None, Some("r1"))], asked("r2")),
        ("an empty value is no request", vec![request("")], None),
    ];
    for (name, changes, expected) in cases {
        let mut all = json!({});
        for change in changes {
            merge(&mut all, change);
        }
        assert_eq!(starts(&view(all)), expected, "{name}");
    }
}

#[test]
fn one_run_consumes_all_triggers_that_wait() {
    let both = view(json!({
        "metadata": {"annotations": {"quarks.cloudfoundry.org/run-requested": "r"}},
        "spec": {"trigger": {"strategy": "now"}}
    }));
    assert_eq!(starts(&both), Some((Trigger::Now, Some(Strategy::Now), Some("r".into()))));
}

#[test]
fn nothing_is_done_for_what_must_be_left_alone() {
    let now = json!({"spec": {"trigger": {"strategy": "now"}}});
    let deleted = view(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"trigger": {"strategy": "now"}}}));
    assert_eq!(next(&deleted, &[job(1, UID, None)]), Decision::Nothing);
    let unmonitored = view(now);
    assert_eq!(decide(&Snapshot { namespace: None, ..snapshot(&unmonitored, &namespace()) }, Instant::now()), Decision::Nothing);
    assert_eq!(next(&view(json!({})), &[]), Decision::Nothing);
}

#[test]
fn a_job_whose_run_is_settled_is_a_stray_only_while_it_runs() {
    let mut merged = settled(2, None, None);
    merged["spec"] = json!({"trigger": {"strategy": "now"}});
    let view = view(merged);
    let stray = job(2, UID, None);
    assert_eq!(next(&view, std::slice::from_ref(&stray)), Decision::Job(J::DeleteStray(own(&stray))));
    assert!(!matches!(next(&view, &[job(2, UID, Some("Failed"))]), Decision::Job(J::DeleteStray(_))));
    // Jobs of an earlier QuarksJob of the same name are not ours.
    assert!(matches!(next(&view, &[job(2, "u0", None)]), Decision::Errand(E::Start(_))));
}

#[test]
fn an_active_job_is_waited_for_whatever_triggers_wait() {
    let now =
        json!({"spec": {"trigger": {"strategy": "now"}}, "status": {"active": {"run": 1, "jobName": "q-1", "trigger": "now", "uid": UID}}});
    assert_eq!(next(&view(now.clone()), &[job(1, UID, None)]), Decision::Nothing);
    let ended = job(1, UID, Some("Complete"));
    assert_eq!(next(&view(now), std::slice::from_ref(&ended)), Decision::Job(J::Settle(own(&ended))));
    let unrecorded = job(1, UID, None);
    assert_eq!(next(&view(json!({})), std::slice::from_ref(&unrecorded)), Decision::Job(J::RecordStart(own(&unrecorded))));
    for half_way in ["SuccessCriteriaMet", "FailureTarget", "Suspended"] {
        assert!(matches!(next(&view(json!({})), &[job(1, UID, Some(half_way))]), Decision::Job(J::RecordStart(_))), "{half_way}");
    }
}

#[test]
fn in_a_burst_of_starts_their_records_wait_and_nothing_else_does() {
    let (view, now) = (view(json!({})), Instant::now());
    let ask = |jobs: &[Arc<JobView>]| {
        let pauses = Pauses { burst: Some(Duration::from_secs(1)), ..Pauses::default() };
        decide(&Snapshot { pauses, jobs, ..snapshot(&view, &namespace()) }, now)
    };
    assert_eq!(ask(&[job(1, UID, None)]), Decision::Wait(Duration::from_secs(1)));
    let ended = job(1, UID, Some("Complete"));
    assert_eq!(ask(std::slice::from_ref(&ended)), Decision::Job(J::Settle(own(&ended))));
    // Then only memory would know what it consumes.
    let mut silent = JobView::clone(&job(1, UID, None));
    silent.key.name = job_name(&view.key.name, &view.uid, 1).into();
    silent.record = None;
    assert!(matches!(ask(&[Arc::new(silent)]), Decision::Job(J::RecordStart(_))), "its annotation is lost");
}

#[test]
fn a_vanished_job_is_settled_and_not_run_again() {
    let active = view(json!({
        "spec": {"trigger": {"strategy": "now"}},
        "status": {"active": {"run": 1, "jobName": "q-1", "trigger": "now", "uid": UID}}
    }));
    assert_eq!(active.active.as_deref().map(|active: &ActiveRun| active.run), Some(1));
    let expected = |record| Decision::Job(J::SettleVanished { job_name: "q-1".into(), record });
    let template = Some(active.template_digest.to_string());
    let record = RunRecord { strategy: Some(Strategy::Now), template, ..RunRecord::of_run(1, Trigger::Now) };
    assert_eq!(next(&active, &[]), expected(record));
    // Status says how it ended, and the run could not be settled before its Job went.
    let mut unsettled = settled(1, None, None);
    unsettled["status"]["lastRun"]["run"] = json!(2);
    assert!(matches!(next(&view(unsettled), &[]), Decision::Job(J::SettleVanished { record, .. }) if record.run == 2));
}

#[test]
fn a_job_that_the_watch_has_not_shown_yet_is_waited_for() {
    let view = view(json!({"spec": {"trigger": {"strategy": "now"}}}));
    let record = job(1, UID, None).record.clone().expect("has a record");
    let at = Instant::now();
    let mut started = StartedRun { job_name: "q-1".into(), record: *record, unseen_since: Some(at) };
    let ask = |started: &StartedRun, now| decide(&Snapshot { started: Some(started), ..snapshot(&view, &namespace()) }, now);
    assert_eq!(ask(&started, at), Decision::Wait(JOB_UNSEEN_LIMIT));
    assert_eq!(ask(&started, at + Duration::from_secs(1)), Decision::Wait(JOB_UNSEEN_LIMIT - Duration::from_secs(1)));
    assert!(matches!(ask(&started, at + JOB_UNSEEN_LIMIT), Decision::Job(J::SettleVanished { .. })));
    started.unseen_since = None;
    assert!(matches!(ask(&started, at), Decision::Job(J::SettleVanished { .. })));
}

#[test]
fn a_settled_run_is_recorded_before_anything_new_starts() {
    let mut behind = settled(2, None, None);
    behind["spec"] = json!({"trigger": {"strategy": "now"}});
    behind["status"]["lastRun"]["run"] = json!(1);
    let job2 = job(2, UID, Some("Complete"));
    assert_eq!(next(&view(behind.clone()), std::slice::from_ref(&job2)), Decision::Job(J::RecordEnd(Some(own(&job2)))));
    assert_eq!(next(&view(behind), &[]), Decision::Job(J::RecordEnd(None)));
}

#[test]
fn what_is_left_of_a_settled_run_neither_counts_as_a_run_nor_stays() {
    let mut recorded = settled(2, None, None);
    recorded["spec"] = json!({"trigger": {"strategy": "now"}});
    let recorded = view(recorded);
    let starts = |decision: &Decision| matches!(decision, Decision::Errand(E::Start(_)));
    assert!(starts(&next(&recorded, &[])));
    for (run, is_settled) in [(1, true), (2, true), (3, false)] {
        let record = RunRecord::of_run(run, Trigger::Once);
        let started = StartedRun { job_name: "j".into(), record: record.clone(), unseen_since: None };
        let decision = decide(&Snapshot { started: Some(&started), ..snapshot(&recorded, &namespace()) }, Instant::now());
        assert_eq!(starts(&decision), is_settled, "started {run}");
        let active = Some(Box::new(record.active(&UID.into(), "j", None)));
        let decision = next(&QuarksJobView { active, ..recorded.clone() }, &[]);
        let vanished = Decision::Job(J::SettleVanished { job_name: "j".into(), record });
        assert_eq!(decision, if is_settled { Decision::Job(J::RecordEnd(None)) } else { vanished }, "active {run}");
    }
    let uncopied = QuarksJobView { is_marker_copied: false, ..recorded };
    assert_eq!(next(&uncopied, &[]), Decision::Job(J::RecordEnd(None)), "status has no copy of the marker");
}

#[test]
fn cleaning_up() {
    let recorded = |outcome: &str, limit: u32| {
        let mut value = settled(3, None, None);
        value["status"]["lastRun"]["outcome"] = json!(outcome);
        value["spec"] = json!({"failedJobsHistoryLimit": limit});
        view(value)
    };
    let (old, older) = (job(2, UID, Some("Failed")), job(1, UID, Some("Failed")));
    let last = job(3, UID, Some("Complete"));
    assert_eq!(next(&recorded("Succeeded", 10), &[old.clone(), last.clone()]), Decision::Tidy(T::CleanUp(own(&last))));
    assert_eq!(next(&recorded("Failed", 10), &[old.clone(), last.clone()]), Decision::Nothing);
    assert_eq!(next(&recorded("Unknown", 2), &[last.clone(), old.clone(), older.clone()]), Decision::Tidy(T::DeleteOldest(own(&older))));
    assert_eq!(next(&recorded("Failed", 0), std::slice::from_ref(&last)), Decision::Tidy(T::DeleteOldest(own(&last))));

    let mut held = (*last).clone();
    held.record.as_mut().expect("has a record").ttl = Some(60);
    let held = Arc::new(held);
    assert_eq!(next(&recorded("Failed", 10), std::slice::from_ref(&held)), Decision::Tidy(T::ReleaseTtl(own(&held))));
    let released = Arc::new(JobView { has_ttl: true, ..(*held).clone() });
    assert_eq!(next(&recorded("Failed", 10), &[Arc::clone(&released)]), Decision::Nothing);
    // The next run ended before it could be released.
    let mut held = (*old).clone();
    held.record.as_mut().expect("has a record").ttl = Some(60);
    let held = Arc::new(held);
    for outcome in ["Failed", "Succeeded"] {
        assert_eq!(next(&recorded(outcome, 10), &[Arc::clone(&held)]), Decision::Tidy(T::ReleaseTtl(own(&held))), "{outcome}");
    }
}

#[test]
fn only_jobs_that_have_ended_and_stay_count_as_failed_ones() {
    let mut value = settled(3, None, None);
    value["status"]["lastRun"]["outcome"] = json!("Failed");
    value["status"]["active"] = json!({"run": 4, "jobName": "q-4", "trigger": "now", "uid": UID});
    value["spec"] = json!({"failedJobsHistoryLimit": 1});
    let (view, running, last) = (view(value), job(4, UID, None), job(3, UID, Some("Failed")));
    let goes = |job: Arc<JobView>| Arc::new(JobView { is_being_deleted: true, ..(*job).clone() });
    let older = job(2, UID, Some("Failed"));
    let delete = Decision::Tidy(T::DeleteOldest(own(&older)));
    for (name, others, expected) in [
        ("too many", vec![Arc::clone(&older)], delete),
        ("the one that runs is none", vec![], Decision::Nothing),
        ("it goes already", vec![goes(older)], Decision::Nothing),
        ("a stray that goes", vec![goes(job(1, UID, None))], Decision::Nothing),
    ] {
        assert_eq!(next(&view, &[vec![Arc::clone(&running), Arc::clone(&last)], others].concat()), expected, "{name}");
    }
}

#[test]
fn a_copy_of_a_job_is_no_other_run() {
    let named = |run: u64, ended: Option<&str>| {
        let mut job = (*job(run, UID, ended)).clone();
        job.key = ObjectKey::new("ns", job_name("q", &UID.into(), run));
        Arc::new(job)
    };
    let mut copy = (*job(1, UID, Some("Complete"))).clone();
    copy.uid = "copy".into();
    let copy = Arc::new(copy);
    let active = view(json!({"status": {"active": {"run": 1, "jobName": job_name("q", &UID.into(), 1), "trigger": "now", "uid": UID}}}));
    let real = named(1, None);
    for jobs in [[Arc::clone(&copy), Arc::clone(&real)], [real, Arc::clone(&copy)]] {
        assert_eq!(next(&active, &jobs), Decision::Nothing, "the run goes on");
    }
    let ended = named(1, Some("Failed"));
    for jobs in [[Arc::clone(&copy), Arc::clone(&ended)], [Arc::clone(&ended), Arc::clone(&copy)]] {
        assert_eq!(next(&active, &jobs), Decision::Job(J::Settle(own(&ended))));
    }
}

#[test]
fn a_job_that_may_not_be_cleaned_up_holds_up_no_other() {
    let now = Instant::now();
    let mut value = settled(6, None, None);
    value["status"]["lastRun"]["outcome"] = json!("Failed");
    value["spec"] = json!({"failedJobsHistoryLimit": 1});
    let (view, namespace) = (view(value), namespace());
    let jobs: Vec<_> = (2..=6).map(|run| job(run, UID, Some("Failed"))).collect();
    let ask = |jobs: &[Arc<JobView>], refused: &[Uid], until: Instant| {
        let pauses = Pauses { clean_up: Some(until), refused, ..Pauses::default() };
        decide(&Snapshot { pauses, jobs, ..snapshot(&view, &namespace) }, now)
    };
    let (wait, uids) = (Duration::from_secs(5), jobs.iter().map(|job| job.uid.clone()).collect::<Vec<_>>());
    assert_eq!(ask(&jobs, &uids[..1], now + wait), Decision::Tidy(T::DeleteOldest(own(&jobs[1]))));
    assert_eq!(ask(&jobs, &uids[..2], now + wait), Decision::Tidy(T::DeleteOldest(own(&jobs[2]))));
    assert_eq!(ask(&jobs, &uids[..3], now + wait), Decision::Wait(wait), "perhaps it is refused for all");
    assert_eq!(ask(&[Arc::clone(&jobs[0]), Arc::clone(&jobs[4])], &uids[..1], now + wait), Decision::Wait(wait), "the newest stays");
    assert_eq!(ask(&jobs, &uids[..3], now), Decision::Tidy(T::DeleteOldest(own(&jobs[0]))), "tried again");
}

#[test]
fn first_seen_as_done_takes_a_baseline() {
    assert_eq!(next(&view(json!({"spec": {"trigger": {"strategy": "done"}}})), &[]), Decision::Errand(E::TakeBaseline));
}

#[test]
fn what_cannot_run_is_reported_once() {
    let digest = view(json!({})).template_digest.to_string();
    let cases = [
        (json!({"spec": {"trigger": {"strategy": "never"}}}), Readiness::InvalidSpec),
        (json!({"spec": {"suspend": true, "trigger": {"strategy": "now"}}}), Readiness::Suspended),
        (
            json!({"spec": {"trigger": {"strategy": "now"}, "output": {"outputMap": {"c": {"f": {"name": "s"}}}}}}),
            Readiness::NamespaceNotReady,
        ),
    ];
    for (change, readiness) in cases {
        let mut said = change.clone();
        assert_eq!(next(&view(change), &[]), Decision::Errand(E::Report(readiness)));
        let (is_true, reason) = readiness.condition();
        merge(
            &mut said,
            json!({"status": {"conditions": [{"type": "Ready", "status": if is_true { "True" } else { "False" }, "reason": reason.as_str()}]}}),
        );
        assert_eq!(next(&view(said), &[]), Decision::Nothing, "{readiness:?}");
    }
    let mut again = settled(1, Some(&digest), None);
    merge(&mut again, json!({"spec": {"trigger": {"strategy": "once"}}, "status": {"observedGeneration": 2}}));
    assert_eq!(next(&view(again), &[]), Decision::Errand(E::Report(Readiness::AlreadyRan)));
}

#[test]
fn that_a_right_is_missing_for_the_clean_up_is_said_until_it_is_back() {
    for (is_true, reason, is_denied, is_left) in [
        ("False", "NamespaceNotReady", true, true),
        ("False", "NamespaceNotReady", false, false),
        ("False", "InvalidTemplate", true, false),
        ("True", "Ready", true, true),
    ] {
        let view = view(json!({"status": {"conditions": [{"type": "Ready", "status": is_true, "reason": reason}]}}));
        let pauses = Pauses { is_clean_up_denied: is_denied, ..Pauses::default() };
        let decision = decide(&Snapshot { pauses, ..snapshot(&view, &namespace()) }, Instant::now());
        let expected = if is_left { Decision::Nothing } else { Decision::Errand(E::Report(Readiness::Ready)) };
        assert_eq!(decision, expected, "{reason} {is_denied}");
    }
}

#[test]
fn a_refused_start_is_left_alone_for_its_generation() {
    let view = view(json!({"spec": {"trigger": {"strategy": "now"}}}));
    let now = Instant::now();
    let ask = |generation, until| {
        let hold = Hold { generation, namespace: namespace(), until };
        decide(&Snapshot { hold: Some(&hold), ..snapshot(&view, &namespace()) }, now)
    };
    let relabelled = NamespaceView { service_account: Some("a".into()), ..namespace() };
    let hold = Hold { generation: 3, namespace: namespace(), until: now + Duration::from_secs(5) };
    let snapshot = Snapshot { hold: Some(&hold), ..snapshot(&view, &relabelled) };
    assert!(matches!(decide(&snapshot, now), Decision::Errand(E::Start(_))), "other labels may mend it");
    let later = now + Duration::from_secs(5);
    assert_eq!(ask(3, later), Decision::Wait(Duration::from_secs(5)));
    assert!(matches!(ask(2, later), Decision::Errand(E::Start(_))));
    assert!(matches!(ask(3, now), Decision::Errand(E::Start(_))));
}

#[test]
fn steps_say_their_names_and_of_which_kind_they_are() {
    let ended = job(1, UID, Some("Complete"));
    let (one, record) = (|| own(&ended), RunRecord::of_run(1, Trigger::Now));
    let is_called = |said: String, name: &str| {
        assert_eq!(said.split(|letter: char| !letter.is_alphanumeric()).next(), Some(name));
    };
    let pending = Pending { trigger: Trigger::Now, strategy: None, request: None };
    // Does it only write the QuarksJob?
    for (step, is_record) in
        [(E::Start(pending), false), (E::LookAtReferences, false), (E::TakeBaseline, true), (E::Report(Readiness::Ready), true)]
    {
        is_called(format!("{step:?}"), step.name());
        assert_eq!(step.is_record(), is_record, "{step:?}");
    }
    for (step, is_record) in [
        (J::DeleteStray(one()), false),
        (J::RecordStart(one()), true),
        (J::Settle(one()), false),
        (J::SettleVanished { job_name: "q-1".into(), record }, false),
        (J::RecordEnd(Some(one())), true),
    ] {
        is_called(format!("{step:?}"), step.name());
        assert_eq!(step.is_record(), is_record, "{step:?}");
    }
    // Is it about a Job?
    for (step, has_job) in [
        (T::CleanUp(one()), true),
        (T::JudgeOld(one()), true),
        (T::ReleaseTtl(one()), true),
        (T::Prune, false),
        (T::DeleteOldest(one()), true),
    ] {
        is_called(format!("{step:?}"), step.name());
        assert_eq!(step.job(), has_job.then_some(&*ended), "{step:?}");
    }
}

#[test]
fn ends_and_versions_of_test_objects_are_as_expected() {
    assert_eq!(job(1, UID, Some("Complete")).end, Some(JobEnd::Complete { time: None }));
    assert_eq!(view(json!({})).resource_version, ResourceVersion::from("7"));
}

#[test]
fn pruning_again_waits_for_its_time_and_for_everything_else() {
    let now = Instant::now();
    let later = now + Duration::from_secs(7);
    let namespace_here = namespace();
    let ask = |view: &QuarksJobView, at: Instant, namespace: Option<&NamespaceView>, hold: Option<&Hold>| {
        decide(
            &Snapshot { namespace, hold, pauses: Pauses { prune: Some(at), ..Pauses::default() }, ..snapshot(view, &namespace_here) },
            now,
        )
    };
    let (idle, triggered) = (view(json!({})), view(json!({"spec": {"trigger": {"strategy": "now"}}})));
    let here = namespace();
    assert_eq!(ask(&idle, now, Some(&here), None), Decision::Tidy(T::Prune));
    assert_eq!(ask(&idle, later, Some(&here), None), Decision::Wait(Duration::from_secs(7)));
    assert_eq!(ask(&idle, now, None, None), Decision::Nothing);
    assert_eq!(ask(&view(json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}})), now, Some(&here), None), Decision::Nothing);
    assert!(matches!(ask(&triggered, now, Some(&here), None), Decision::Errand(E::Start(_))));
    for (until, at, expected) in [(3, later, 3), (9, later, 7)] {
        let hold = Hold { generation: 3, namespace: namespace(), until: now + Duration::from_secs(until) };
        assert_eq!(ask(&triggered, at, Some(&here), Some(&hold)), Decision::Wait(Duration::from_secs(expected)));
    }
}

#[test]
fn a_run_waits_for_what_is_missing_and_looks_as_soon_as_it_may_be_there() {
    let now = Instant::now();
    let later = Some(now + Duration::from_secs(1));
    let ask = |view: &QuarksJobView, due| {
        let references = ReferencesSeen { is_missing: true, is_missing_said: true, config: None, due };
        decide(&Snapshot { references, ..snapshot(view, &namespace()) }, now)
    };
    let said = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "MissingReference"}]}});
    let waits = |strategy: &str| {
        let mut change = said.clone();
        change["spec"] = json!({"trigger": {"strategy": strategy}});
        view(change)
    };
    let report = Decision::Errand(E::Report(Readiness::MissingReference));
    assert_eq!(ask(&view(json!({"spec": {"trigger": {"strategy": "now"}}})), None), report);
    assert_eq!(ask(&view(json!({})), None), report);
    assert_eq!(ask(&waits("now"), None), Decision::Nothing);
    assert_eq!(ask(&waits("manual"), None), Decision::Nothing);
    let another = ReferencesSeen { is_missing: true, ..ReferencesSeen::default() };
    assert_eq!(
        decide(&Snapshot { references: another, ..snapshot(&waits("now"), &namespace()) }, now),
        report,
        "something else is missing"
    );
    assert!(matches!(ask(&waits("now"), later), Decision::Errand(E::Start(_))));
    assert_eq!(ask(&waits("manual"), later), Decision::Errand(E::LookAtReferences));
    assert_eq!(ask(&waits("done"), None), Decision::Errand(E::TakeBaseline), "the one-off counts as having run all the same");
    assert_eq!(
        next(&waits("manual"), &[]),
        Decision::Errand(E::Report(Readiness::Ready)),
        "after a restart the references are looked at again"
    );
}

#[test]
fn a_digest_of_templates_as_they_were_written_is_replaced_and_runs_nothing() {
    for strategy in ["once", "done"] {
        let mut upgraded = settled(1, Some("sha256:x"), None);
        upgraded["spec"] = json!({"trigger": {"strategy": strategy}});
        assert_eq!(next(&view(upgraded), &[]), Decision::Errand(E::TakeBaseline), "{strategy}");
    }
}

#[test]
fn a_refused_settle_holds_up_its_own_run_and_no_longer_than_it_has_to() {
    let now = Instant::now();
    let view = view(json!({"spec": {"trigger": {"strategy": "now"}}}));
    let ended = job(1, UID, Some("Complete"));
    let ask = |until: Instant, jobs: &[Arc<JobView>], view: &QuarksJobView| {
        let pauses = Pauses { settle: Some(until), ..Pauses::default() };
        decide(&Snapshot { pauses, jobs, ..snapshot(view, &namespace()) }, now)
    };
    let later = now + Duration::from_secs(9);
    assert_eq!(ask(later, std::slice::from_ref(&ended), &view), Decision::Wait(Duration::from_secs(9)), "no second Job, no clean-up");
    assert_eq!(ask(now, std::slice::from_ref(&ended), &view), Decision::Job(J::Settle(own(&ended))));
    assert!(matches!(ask(later, &[job(1, UID, None)], &view), Decision::Job(J::RecordStart(_))), "it runs again");
    let mut unsettled = settled(1, None, None);
    unsettled["status"]["lastRun"]["run"] = json!(2);
    let unsettled = self::view(unsettled);
    assert_eq!(ask(later, &[], &unsettled), Decision::Wait(Duration::from_secs(9)), "its Job is gone");
    assert!(matches!(ask(now, &[], &unsettled), Decision::Job(J::SettleVanished { .. })));
}

#[test]
fn clean_up_holds_up_nothing() {
    let now = Instant::now();
    let recorded = |strategy: &str| {
        let mut value = settled(3, None, None);
        value["spec"] = json!({"trigger": {"strategy": strategy}});
        view(value)
    };
    let (last, namespace) = (job(3, UID, Some("Complete")), namespace());
    let ask = |view: &QuarksJobView, jobs: &[Arc<JobView>], pauses: Pauses<'_>| {
        decide(&Snapshot { pauses, jobs, ..snapshot(view, &namespace) }, now)
    };
    let clean_up = Decision::Tidy(T::CleanUp(own(&last)));
    let jobs = [Arc::clone(&last)];
    assert!(matches!(ask(&recorded("now"), &jobs, Pauses::default()), Decision::Errand(E::Start(_))), "what starts goes first");
    assert_eq!(ask(&recorded("manual"), &jobs, Pauses::default()), clean_up);
    let refused = [last.uid.clone()];
    let paused = Pauses { clean_up: Some(now + Duration::from_secs(5)), refused: &refused, ..Pauses::default() };
    assert!(matches!(ask(&recorded("now"), &jobs, paused), Decision::Errand(E::Start(_))));
    assert_eq!(ask(&recorded("manual"), &jobs, paused), Decision::Wait(Duration::from_secs(5)));
    assert_eq!(ask(&recorded("manual"), &[], paused), Decision::Nothing, "there is nothing to clean up");

    // The next run is under way.
    let mut running = recorded("manual");
    running.active = Some(Box::new(RunRecord::of_run(4, Trigger::Now).active(&UID.into(), "q-4", None)));
    assert_eq!(ask(&running, &[job(4, UID, None), Arc::clone(&last)], Pauses::default()), clean_up);
    assert_eq!(ask(&running, &[job(4, UID, None), Arc::clone(&last)], paused), Decision::Wait(Duration::from_secs(5)));
}

#[test]
fn a_clean_up_that_was_overtaken_is_made_up_for() {
    let mut value = settled(3, None, None);
    value["status"]["lastRun"]["outcome"] = json!("Failed");
    let (view, namespace, now) = (view(value), namespace(), Instant::now());
    let ask = |jobs: &[Arc<JobView>], kept: &[Uid]| {
        let pauses = Pauses { kept, ..Pauses::default() };
        decide(&Snapshot { pauses, jobs, ..snapshot(&view, &namespace) }, now)
    };
    let old = job(1, UID, Some("Complete"));
    assert_eq!(ask(std::slice::from_ref(&old), &[]), Decision::Tidy(T::CleanUp(own(&old))));
    let mut with_output = (*old).clone();
    with_output.record.as_mut().expect("has a record").output = true;
    let with_output = Arc::new(with_output);
    assert_eq!(
        ask(std::slice::from_ref(&with_output), &[]),
        Decision::Tidy(T::JudgeOld(own(&with_output))),
        "perhaps its output is invalid"
    );
    assert_eq!(ask(std::slice::from_ref(&with_output), std::slice::from_ref(&with_output.uid)), Decision::Nothing, "it is");
    assert_eq!(ask(&[job(1, UID, Some("Failed"))], &[]), Decision::Nothing);
}

#[test]
fn a_request_that_is_too_long_is_said_and_holds_up_nothing_else() {
    let request = |length: usize| json!({"metadata": {"annotations": {"quarks.cloudfoundry.org/run-requested": "r".repeat(length)}}});
    assert!(matches!(next(&view(request(1_024)), &[]), Decision::Errand(E::Start(Pending { trigger: Trigger::Request, .. }))));
    let mut long = request(1_025);
    assert_eq!(next(&view(long.clone()), &[]), Decision::Errand(E::Report(Readiness::InvalidRequest)));
    long["spec"] = json!({"trigger": {"strategy": "now"}});
    let Decision::Errand(E::Start(Pending { trigger, request, .. })) = next(&view(long), &[]) else { panic!("now works on") };
    assert_eq!((trigger, request), (Trigger::Now, None));
}

#[test]
fn what_was_in_the_way_is_not_said_for_as_long_as_a_run_takes() {
    let active = json!({"run": 1, "jobName": "q-1", "trigger": "now", "uid": UID});
    for (reason, is_rewritten) in [("APIUnavailable", true), ("Ready", false)] {
        let ready = json!([{"type": "Ready", "status": "False", "reason": reason}]);
        let running = job(1, UID, None);
        let decision = next(&view(json!({"status": {"active": active, "conditions": ready}})), std::slice::from_ref(&running));
        let expected = if is_rewritten { Decision::Job(J::RecordStart(own(&running))) } else { Decision::Nothing };
        assert_eq!(decision, expected, "{reason}");
    }
}

#[cfg(test)]
#[path = "claims_config_tests.rs"]
mod config;
