//! What makes a QuarksJob run, and that it runs once.

use serde_json::json;

use crate::case::{Case, quarks_job, text, until};

const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";

#[test]
fn each_new_value_of_run_requested_is_one_run_and_leaves_the_spec_alone() {
    let case = Case::new("requested");
    case.apply(&quarks_job("q", "manual", "true"));
    case.wait("q", "condition=Ready");
    let spec = case.qjob("q")["spec"].clone();
    for run in 1..=2 {
        let annotation = format!("{REQUESTED}=value-{run}");
        case.kubectl(&["annotate", "qjob", "q", "--overwrite", &annotation]);
        assert_eq!(case.wait_runs("q", run)["outcome"], "Succeeded");
        // The same value again asks for nothing.
        case.kubectl(&["annotate", "qjob", "q", "--overwrite", &annotation]);
    }
    case.kubectl(&["label", "qjob", "q", "touched=yes"]);
    case.wait_no_jobs();
    assert_eq!(case.jobs_created(), 2);
    assert_eq!(case.qjob("q")["spec"], spec);
}

#[test]
fn a_job_that_somebody_deletes_is_cancelled_and_not_run_again() {
    let case = Case::new("cancelled");
    case.apply(&quarks_job("q", "once", "sleep 300"));
    let qjob = case.wait_qjob("q", "a run", |qjob| qjob["status"]["active"]["jobName"].is_string());
    case.kubectl(&["delete", "job", &text(&qjob["status"]["active"]["jobName"])]);
    let run = case.wait_runs("q", 1);
    assert_eq!(run["outcome"], "Cancelled");
    case.wait_event("q", "RunCancelled");
    case.wait("q", "condition=Running=false");
    assert_eq!(case.qjob("q")["spec"]["trigger"]["strategy"], "done");
    // A later run of the same QuarksJob is the second: between them was none.
    case.set_now("q");
    let qjob = case.wait_qjob("q", "the second run", |qjob| qjob["status"]["active"]["run"] == 2);
    assert_eq!(case.jobs_created(), 2);
    case.kubectl(&["delete", "job", &text(&qjob["status"]["active"]["jobName"])]);
    assert_eq!(case.wait_runs("q", 2)["outcome"], "Cancelled");
}

#[test]
fn a_name_of_253_characters_runs() {
    let case = Case::new("long-name");
    let name = format!("{}.{}", "a".repeat(126), "b".repeat(126));
    let mut qjob = quarks_job(&name, "once", r#"echo '{"a": "b"}' >> /mnt/quarks/output.json"#);
    qjob["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": "s"}}}});
    case.apply(&qjob);
    case.wait(&name, "condition=Succeeded");
    assert_eq!(case.secret("s")["a"], "b");
    case.wait_event(&name, "RunSucceeded");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn now_during_a_run_of_another_cause_is_one_trailing_run() {
    let case = Case::new("trailing");
    case.apply(&quarks_job("q", "once", "sleep 3"));
    case.wait_qjob("q", "a run", |qjob| qjob["status"]["active"]["run"] == 1);
    case.set_now("q");
    assert_eq!(case.wait_runs("q", 2)["outcome"], "Succeeded");
    case.wait("q", "condition=Running=false");
    assert_eq!((case.jobs_created(), text(&case.qjob("q")["spec"]["trigger"]["strategy"])), (2, "done".to_owned()));
}

/// Whoever sets `now` waits so, as the original's users did: the end of the run before is not the end of theirs.
#[test]
fn a_wait_after_now_ends_with_the_run_that_now_asked_for() {
    let case = Case::new("waits");
    case.apply(&quarks_job("q", "manual", "sleep 3"));
    case.kubectl(&["annotate", "qjob", "q", "quarks.cloudfoundry.org/run-requested=1"]);
    case.wait_qjob("q", "a run", |qjob| qjob["status"]["active"]["run"] == 1);
    case.set_now("q");
    case.wait("q", "condition=Running=false");
    let qjob = case.qjob("q");
    assert_eq!((&qjob["status"]["runs"], text(&qjob["spec"]["trigger"]["strategy"])), (&json!(2), "manual".to_owned()), "{qjob}");
}

#[test]
fn a_one_off_runs_again_when_its_template_changes() {
    let case = Case::new("template");
    for run in 1..=2 {
        case.apply(&quarks_job("q", "once", &format!("echo {run}")));
        assert_eq!(case.wait_runs("q", run)["outcome"], "Succeeded");
    }
    assert_eq!(case.jobs_created(), 2);
}

#[test]
fn nothing_starts_while_suspended() {
    let case = Case::new("suspend");
    let mut qjob = quarks_job("q", "once", "true");
    qjob["spec"]["suspend"] = json!(true);
    case.apply(&qjob);
    case.wait_condition("q", "Ready", "True", "Suspended");
    assert_eq!(case.jobs_created(), 0);
    case.patch("q", &json!({"spec": {"suspend": false}}));
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn deleting_the_quarksjob_ends_its_run() {
    let case = Case::new("deleted");
    case.apply(&quarks_job("q", "once", "sleep 300"));
    case.wait_qjob("q", "a run", |qjob| qjob["status"]["active"]["jobName"].is_string());
    case.kubectl(&["delete", "qjob", "q"]);
    case.wait_no_jobs();
    until("the pods to be gone", || case.list("pods", "").is_empty().then_some(()));
    assert_eq!(case.jobs_created(), 1);
}
