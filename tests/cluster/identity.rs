//! What only looks like a QuarksJob's own: a restored status, a Job in another namespace, a Job that lost its annotation. And what
//! does go with it: a foreground deletion.

use serde_json::{Value, json};

use crate::case::{Case, MONITORED, cluster, quarks_job, text, until};

const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";
const RUN: &str = "quarks.cloudfoundry.org/run";
const HOLD: &str = "example.com/hold";

fn unlabel(case: &Case) {
    cluster(&["label", "namespace", &case.namespace, &format!("{MONITORED}-")]);
}

/// Nothing is done here any more when a later run elsewhere is over.
fn barrier(case: &Case, name: &str) {
    case.apply(&quarks_job(name, "once", "true"));
    case.wait(name, "condition=Succeeded");
}

/// Deletes the object and creates it anew as it was, its status included, while the operator does not look.
fn make_again(case: &Case, backup: &Value, change: impl FnOnce(&mut Value)) -> Value {
    unlabel(case);
    let name = text(&backup["metadata"]["name"]);
    case.kubectl(&["delete", "qjob", &name, "--ignore-not-found"]);
    case.wait_no_jobs();
    let mut object = backup.clone();
    change(&mut object);
    let restored = case.restore(&object);
    assert_ne!(restored["metadata"]["uid"], backup["metadata"]["uid"]);
    assert_eq!(restored["status"]["settled"], object["status"]["settled"], "the status came along");
    case.label();
    restored
}

#[test]
fn a_restored_once_that_fails_is_its_own_first_run() {
    let case = Case::new("restored-once");
    case.apply(&quarks_job("q", "once", "true"));
    case.wait_runs("q", 1);
    for run in 2..=3 {
        case.set_now("q");
        case.wait_runs("q", run);
    }
    let backup = case.wait_qjob("q", "it to be done", |qjob| qjob["spec"]["trigger"]["strategy"] == "done");
    let jobs = case.jobs_created();
    make_again(&case, &backup, |object| {
        object["spec"]["trigger"]["strategy"] = json!("once");
        object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["false"]);
    });
    let qjob = case.wait_qjob("q", "its own first run", |qjob| qjob["status"]["lastRun"]["run"] == 1 && qjob["status"]["active"].is_null());
    let status = &qjob["status"];
    assert_eq!((&status["lastRun"]["outcome"], &status["runs"]), (&json!("Failed"), &json!(1)), "{status}");
    assert_ne!(status["completed"], true, "{status}");
    assert_eq!(qjob["spec"]["trigger"]["strategy"], "done");
    assert_eq!(case.jobs_created(), jobs + 1);
}

#[test]
fn a_restored_run_that_went_on_is_no_run_of_this_object() {
    for (strategy, after) in [("now", "manual"), ("once", "done")] {
        let case = Case::new(&format!("restored-{strategy}"));
        case.apply(&quarks_job("q", strategy, "sleep 300"));
        let backup = case.wait_qjob("q", "a run", |qjob| qjob["status"]["active"]["run"] == 1);
        make_again(&case, &backup, |object| {
            object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["true"]);
        });
        let qjob = case.wait_qjob("q", "its own run", |qjob| qjob["status"]["lastRun"]["run"] == 1 && qjob["status"]["active"].is_null());
        assert_eq!(qjob["status"]["lastRun"]["outcome"], "Succeeded", "{strategy}: {qjob}");
        assert_eq!(qjob["spec"]["trigger"]["strategy"], after, "{strategy}: {qjob}");
        assert_ne!(
            qjob["status"]["lastRun"]["jobName"], backup["status"]["active"]["jobName"],
            "{strategy}: the Job of the object before it"
        );
        assert_eq!(case.jobs_created(), 2, "one before, one after");
        let of_before = text(&backup["status"]["active"]["jobName"]);
        let cancelled: Vec<_> =
            case.events("q").into_iter().filter(|event| event.0 == "RunCancelled" && !event.1.contains(&of_before)).collect();
        assert!(cancelled.is_empty(), "{strategy}: a run of this object was called cancelled: {cancelled:?}");
    }
}

#[test]
fn a_request_that_was_served_before_the_restore_is_no_new_one() {
    for strategy in ["manual", "done"] {
        let case = Case::new(&format!("restored-request-{strategy}"));
        let mut qjob = quarks_job("q", if strategy == "done" { "once" } else { "manual" }, "true");
        qjob["metadata"]["annotations"] = json!({REQUESTED: "r1"});
        case.apply(&qjob);
        // A one-off may serve the request with its first run or with a second.
        let backup = case.wait_qjob("q", "the request served", |qjob| {
            let settled = qjob["status"]["settled"].as_str().unwrap_or_default();
            qjob["spec"]["trigger"]["strategy"] == strategy && settled.contains("\"r1\"") && qjob["status"]["active"].is_null()
        });
        let jobs = case.jobs_created();
        make_again(&case, &backup, |_| {});
        case.wait_qjob("q", "an answer", |qjob| qjob["status"]["lastRun"].is_null() && qjob["status"]["observedGeneration"] == 1);
        barrier(&case, "barrier-1");
        assert_eq!(case.jobs_created(), jobs + 1, "only the barrier's");
        case.kubectl(&["annotate", "qjob", "q", "--overwrite", &format!("{REQUESTED}=r2")]);
        assert_eq!(case.wait_runs("q", 1)["trigger"], "request");
        case.set_now("q");
        assert_eq!(case.wait_runs("q", 2)["trigger"], "now");
        barrier(&case, "barrier-2");
        assert_eq!(case.jobs_created(), jobs + 4, "{strategy}: Jobs after the request was served and another made");
        case.wait_runs("q", 2);
    }
}

/// Takes the test's own finalizer off a Job in the end, or its namespace would never go.
struct Held<'a> {
    case: &'a Case,
    job: &'static str,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        self.case.try_kubectl(&["patch", "job", self.job, "--type=merge", "-p", patch], None).ok();
    }
}

#[test]
fn a_job_of_another_namespace_that_claims_to_be_a_run_is_nobodys_run() {
    for (is_monitored, is_finished) in [(false, true), (true, true), (false, false), (true, false)] {
        let case = Case::unlabelled("claimed");
        case.apply(&quarks_job("q", "now", "false"));
        let uid = text(&case.qjob("q")["metadata"]["uid"]);
        let stranger = case.beside("stranger");
        if is_monitored {
            stranger.label();
        }
        // The garbage collector takes what claims an owner in another namespace; a finalizer keeps it in sight.
        let container = json!({"name": "main", "image": "busybox:1.36", "imagePullPolicy": "IfNotPresent", "command": ["true"]});
        let pod = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]});
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "claims", "finalizers": [HOLD]},
            "spec": {"suspend": !is_finished, "backoffLimit": 0, "template": {"spec": pod}}});
        stranger.apply(&job);
        let held = Held { case: &stranger, job: "claims" };
        if is_finished {
            stranger.kubectl(&["wait", "job/claims", "--for=condition=Complete", "--timeout=120s"]);
        }
        let owner =
            json!({"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q", "uid": uid, "controller": true});
        let record = json!({"run": 1, "trigger": "now", "strategy": "now"}).to_string();
        let claim = json!({"metadata": {"ownerReferences": [owner], "annotations": {RUN: record}}});
        stranger.kubectl(&["patch", "job", "claims", "--type=merge", "-p", &claim.to_string()]);
        case.label();
        let qjob = case.wait_qjob("q", "a run", |qjob| qjob["status"]["lastRun"]["run"] == 1);
        assert_eq!(qjob["status"]["lastRun"]["outcome"], "Failed", "its own Job decides: {qjob}");
        assert_eq!(qjob["spec"]["trigger"]["strategy"], "manual");
        assert_eq!(case.jobs_created(), 1, "monitored {is_monitored}, finished {is_finished}");
        barrier(&case, "barrier");
        let asked: Vec<String> =
            stranger.audit().iter().filter(|entry| entry.is_operator() && entry.resource == "jobs").map(ToString::to_string).collect();
        assert!(asked.is_empty(), "{asked:#?}");
        drop(held);
    }
}

#[test]
fn a_running_job_that_lost_its_annotation_is_still_the_run() {
    for (strategy, after) in [("now", "manual"), ("once", "done")] {
        let case = Case::new(&format!("no-record-{strategy}"));
        case.apply(&quarks_job("q", strategy, "until [ -e /tmp/go ]; do sleep 0.1; done"));
        let pod = case.wait_running_pod("q");
        let qjob = case.wait_qjob("q", "the run in status", |qjob| qjob["status"]["active"]["run"] == 1);
        let job = text(&qjob["status"]["active"]["jobName"]);
        case.kubectl(&["annotate", "job", &job, &format!("{RUN}-")]);
        barrier(&case, "barrier");
        let qjob = case.qjob("q");
        assert_eq!((&qjob["status"]["active"]["jobName"], &qjob["status"]["lastRun"]), (&json!(job), &Value::Null), "it goes on: {qjob}");
        case.kubectl(&["exec", &pod, "-c", "main", "--", "touch", "/tmp/go"]);
        let run = case.wait_runs("q", 1);
        assert_eq!((&run["outcome"], &run["jobName"]), (&json!("Succeeded"), &json!(job)), "{strategy}: {run}");
        assert_eq!(case.qjob("q")["spec"]["trigger"]["strategy"], after, "{strategy}");
        case.wait_no_jobs();
        assert_eq!(case.jobs_created(), 2, "this one and the barrier's");
    }
}

#[test]
fn a_foreground_deletion_waits_for_the_pods() {
    let case = Case::new("foreground");
    case.apply(&quarks_job("q", "once", "sleep 300"));
    let pod = case.wait_running_pod("q");
    case.wait_qjob("q", "the run in status", |qjob| qjob["status"]["active"]["run"] == 1);
    case.kubectl(&["patch", "pod", &pod, "--type=merge", "-p", &json!({"metadata": {"finalizers": [HOLD]}}).to_string()]);
    let jobs = case.jobs_created();
    case.kubectl(&["delete", "qjob", "q", "--cascade=foreground", "--wait=false"]);
    until("the pod to be deleted", || case.get("pod", &pod)["metadata"]["deletionTimestamp"].is_string().then_some(()));
    // Another one that is deleted later is gone: the garbage collector has had its time.
    case.apply(&quarks_job("later", "manual", "true"));
    case.kubectl(&["delete", "qjob", "later", "--cascade=foreground"]);
    let left = case.try_kubectl(&["get", "qjob", "q", "-o", "json"], None);
    let left: Value =
        serde_json::from_str(&left.unwrap_or_else(|error| panic!("the QuarksJob is gone before its pod: {error}"))).expect("JSON");
    assert!(left["metadata"]["deletionTimestamp"].is_string(), "{left}");
    case.kubectl(&["patch", "pod", &pod, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    until("the QuarksJob to be gone", || case.try_kubectl(&["get", "qjob", "q"], None).is_err().then_some(()));
    assert_eq!((case.list("pods", "").len(), case.jobs().len()), (0, 0));
    assert_eq!(case.jobs_created(), jobs, "nothing starts for one that goes");
}
