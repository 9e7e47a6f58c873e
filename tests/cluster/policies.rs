//! A policy refuses the operator one kind of write: it is said, nothing is done twice, and all goes on when the policy goes.
//! Namespaces are called `denied-...`: the refusals of these cases are wanted (see `report`).

use serde_json::{Value, json};

use crate::admission::{Policy, Requests, SENTENCE};
use crate::case::{Case, quarks_job, text, until};

/// Until a write of the operator with this code is in the audit log; a few of them.
fn wait_refused(case: &Case, resource: &str, code: u64, times: usize) {
    until(&format!("{times} refusals"), || {
        let entries = case.audit();
        let refused = entries.iter().filter(|entry| entry.is_operator() && entry.resource == resource && entry.code == code);
        (refused.count() >= times).then_some(())
    });
}

fn job_deletions(case: &Case) -> usize {
    case.audit().iter().filter(|entry| entry.is_operator() && entry.verb == "delete" && entry.resource == "jobs").count()
}

#[test]
fn a_refused_job_is_said_with_the_policys_sentence_and_starts_when_it_may() {
    for (reason, code) in [("Forbidden", 403), ("Invalid", 422)] {
        let case = Case::new("denied-job");
        let policy = Policy::start(&case, Requests::JOB_CREATE, reason);
        case.apply(&quarks_job("q", "once", "true"));
        let message = case.wait_condition("q", "Ready", "False", "JobRefused");
        assert!(message.contains(SENTENCE), "{message}");
        assert!(case.wait_event("q", "JobRefused").contains(SENTENCE), "{reason}: Event JobRefused without the policy's sentence");
        wait_refused(&case, "jobs", code, 2);
        assert_eq!(case.qjob("q")["spec"]["trigger"]["strategy"], "once");
        drop(policy);
        assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
        case.wait("q", "condition=Ready");
        assert_eq!(case.jobs_created(), 1, "{reason}");
    }
}

mod a_refused_settle_is_said_the_run_has_ended_and_nothing_starts_until_it_is_settled {
    use super::refused_settle;

    #[test]
    fn of_a_run_that_succeeded_invalid() {
        refused_settle("Invalid", 422, "true", "Succeeded");
    }

    #[test]
    fn of_a_run_that_succeeded_forbidden() {
        refused_settle("Forbidden", 403, "true", "Succeeded");
    }

    #[test]
    fn of_a_run_that_failed_invalid() {
        refused_settle("Invalid", 422, "false", "Failed");
    }
}

fn refused_settle(reason: &str, code: u64, script: &str, outcome: &str) {
    let case = Case::new("denied-settle");
    let policy = Policy::start(&case, Requests::SETTLE, reason);
    case.apply(&quarks_job("q", "once", script));
    let message = case.wait_condition("q", "Ready", "False", "SettleRefused");
    assert!(message.contains(SENTENCE), "{message}");
    // Status says that it has ended and how; kubectl wait sees an end of either kind.
    case.wait("q", "condition=Running=false");
    case.wait("q", if outcome == "Succeeded" { "condition=Succeeded" } else { "condition=Succeeded=false" });
    let last = case.qjob("q")["status"]["lastRun"].clone();
    assert_eq!((&last["run"], &last["outcome"]), (&json!(1), &json!(outcome)), "{last}");
    // A new trigger waits, the Job stays, there is no second one.
    case.set_now("q");
    wait_refused(&case, "quarksjobs", code, 3);
    let jobs = case.jobs();
    assert_eq!((jobs.len(), job_deletions(&case), case.jobs_created()), (1, 0, 1));
    case.wait_condition("q", "Ready", "False", "SettleRefused");
    drop(policy);
    let run = case.wait_runs("q", 2);
    assert_eq!(run["outcome"], outcome);
    let qjob = case.wait_qjob("q", "it to be done", |qjob| qjob["spec"]["trigger"]["strategy"] == "done");
    assert_eq!(qjob["status"]["runs"], 2);
    case.wait("q", "condition=Ready");
    assert_eq!(case.jobs_created(), 2);
    let told = if outcome == "Succeeded" { "RunSucceeded" } else { "RunFailed" };
    let of_first = |case: &Case| {
        case.events("q").into_iter().filter(|event| event.0 == told && event.1.contains(&text(&jobs[0]["metadata"]["name"]))).count()
    };
    assert_eq!(of_first(&case), 1, "{:?}", case.events("q"));
    if outcome == "Succeeded" {
        case.wait_no_jobs();
    }
}

fn keeps_pods(name: &str) -> Value {
    let mut qjob = quarks_job(name, "now", "true");
    qjob["spec"]["template"]["spec"]["template"]["metadata"] = Value::Null;
    qjob
}

/// Four of a minute each, so each is a test of its own: they wait at the same time.
mod a_refused_clean_up_holds_up_no_run_and_is_done_when_it_may_be {
    use super::{Requests, refused_clean_up};

    #[test]
    fn of_pods_forbidden() {
        refused_clean_up(Requests::POD_PATCH, "pods", "Forbidden", 403);
    }

    #[test]
    fn of_pods_invalid() {
        refused_clean_up(Requests::POD_PATCH, "pods", "Invalid", 422);
    }

    #[test]
    fn of_jobs_forbidden() {
        refused_clean_up(Requests::JOB_DELETE, "jobs", "Forbidden", 403);
    }

    #[test]
    fn of_jobs_invalid() {
        refused_clean_up(Requests::JOB_DELETE, "jobs", "Invalid", 422);
    }
}

fn refused_clean_up(what: Requests, resource: &str, reason: &str, code: u64) {
    let case = Case::new(&format!("denied-clean-{resource}"));
    let policy = Policy::start(&case, what, reason);
    until("the probe to be gone", || case.list("pods", "").is_empty().then_some(()));
    until("the probe to be gone", || case.jobs().is_empty().then_some(()));
    case.apply(&keeps_pods("q"));
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    wait_refused(&case, resource, code, 1);
    case.set_now("q");
    assert_eq!(case.wait_runs("q", 2)["outcome"], "Succeeded");
    case.set_now("q");
    assert_eq!(case.wait_runs("q", 3)["outcome"], "Succeeded");
    assert_eq!(case.jobs_created(), 3, "{reason}");
    drop(policy);
    case.wait_no_jobs();
    // None of the pods has escaped: they go with the QuarksJob, and count for its limit.
    until("all pods to be kept", || {
        let pods = case.list("pods", "quarks.cloudfoundry.org/qjob-name=q");
        let is_kept = |pod: &Value| {
            let owners = pod["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            !owners.is_empty() && owners.iter().all(|owner| owner["kind"] == "QuarksJob")
        };
        (pods.len() == 3 && pods.iter().all(is_kept)).then_some(())
    });
}
