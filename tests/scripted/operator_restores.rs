//! The real operator and objects that a backup tool made again, against the scripted API server: the annotations and the status of
//! another UID, of which nothing counts but the request that was served.

use quarks_job::api::Uid;
use quarks_job::rules::names::job_name;
use serde_json::{Value, json};

use crate::support::play::{self, End, path};
use crate::support::probe::{Samples, listening};
use crate::support::scene::{NAMESPACE, Scene, condition, name, own_job};

const SETTLED: &str = "quarks.cloudfoundry.org/settled";
const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";
/// What a restored object was called before.
const OLD: &str = "99999999-0000-4000-8000-000000000000";

fn old_settled(request: Option<&str>) -> String {
    let mut marker = json!({"uid": OLD, "runs": 5, "once": "sha256:00000000000000000000000000000000", "outcome": "Succeeded",
        "reason": "Completed", "trigger": "once"});
    if let Some(request) = request {
        marker["request"] = json!(request);
    }
    marker.to_string()
}

fn old_last_run() -> Value {
    json!({"run": 5, "jobName": job_name("q", &Uid::from(OLD), 5), "trigger": "once", "startTime": "2020-01-01T00:00:00Z",
        "completionTime": "2020-01-01T00:00:09Z", "outcome": "Succeeded", "reason": "Completed", "message": "the Job completed"})
}

fn old_active(run: u64, trigger: &str, has_uid: bool) -> Value {
    let record = json!({"run": run, "trigger": trigger, "strategy": trigger, "template": "sha256:00000000000000000000000000000000"});
    let mut active = json!({"run": run, "jobName": job_name("q", &Uid::from(OLD), run), "trigger": trigger,
        "startTime": "2020-01-01T00:00:00Z", "record": record.to_string()});
    if has_uid {
        active["uid"] = json!(OLD);
    }
    active
}

fn old_status(settled: Option<&str>, active: Option<Value>) -> Value {
    let at = "2020-01-01T00:00:10Z";
    let of = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": "as it was", "lastTransitionTime": at,
            "observedGeneration": 1})
    };
    let running = if active.is_some() { of("Running", "True", "RunActive") } else { of("Running", "False", "Idle") };
    let mut status = json!({"observedGeneration": 1, "completed": true, "runs": 5, "lastRun": old_last_run(), "lastSuccessTime": at,
        "conditions": [of("Ready", "True", "Ready"), running, of("Succeeded", "True", "Completed")]});
    if let Some(settled) = settled {
        status["settled"] = json!(settled);
    }
    if let Some(active) = active {
        status["active"] = active;
    }
    status
}

/// What a backup tool makes: the manifest with annotations and status as they were, under a new UID.
fn restore(scene: &Scene, strategy: &str, request: Option<&str>, active: Option<Value>) {
    let settled = old_settled(request);
    scene.create("q", strategy, |object| {
        object["metadata"]["annotations"] = json!({SETTLED: settled});
        if let Some(request) = request {
            object["metadata"]["annotations"][REQUESTED] = json!(request);
        }
        object["status"] = old_status(Some(&settled), active);
    });
}

#[test]
fn a_restored_once_that_fails_is_reported_as_its_own_first_run() {
    let scene = Scene::new("restored-once");
    restore(&scene, "once", None, None);
    scene.operator.start();
    let own = own_job("q", &scene.quarks_job("q"), 1);
    let jobs: Vec<String> = scene.wait_jobs(1).iter().map(name).collect();
    assert_eq!(jobs, std::slice::from_ref(&own));
    scene.finish(&own, End::Failed { reason: "BackoffLimitExceeded" });
    let object = scene.wait_settled("q", 1);
    scene.wait_quiet();
    let status = &object["status"];
    assert_eq!((&status["lastRun"]["outcome"], &status["runs"]), (&json!("Failed"), &json!(1)), "{status:#}");
    assert_eq!((condition(&object, "Succeeded").as_str(), condition(&object, "Running").as_str()), ("False", "False"), "{status:#}");
    assert_ne!(status["completed"], true, "this one has never succeeded: {status:#}");
    assert!(status["lastSuccessTime"].is_null(), "{status:#}");
    assert_eq!(object["spec"]["trigger"]["strategy"], "done");
}

#[test]
fn a_restored_run_that_went_on_is_no_run_of_this_object() {
    for (strategy, after) in [("now", "manual"), ("once", "done")] {
        for (run, has_uid) in [(5, false), (5, true), (6, false), (6, true), (1, false)] {
            let what = format!("{strategy} {run} {has_uid}");
            let scene = Scene::new(&format!("restored-active-{strategy}-{run}-{has_uid}"));
            restore(&scene, strategy, None, Some(old_active(run, strategy, has_uid)));
            scene.operator.start();
            let own = own_job("q", &scene.quarks_job("q"), 1);
            scene
                .operator
                .wait_for(&format!("the Job of run 1, {what}"), || scene.server.api().get(&path("jobs", NAMESPACE, &own)).map(|_| ()));
            scene.wait_running("q");
            scene.operator.wait_for("the run in status", || (scene.quarks_job("q")["status"]["active"]["run"] == 1).then_some(()));
            scene.finish(&own, End::Complete);
            let object = scene.assert_one_success(&what);
            assert_eq!(object["spec"]["trigger"]["strategy"], after, "{what}");
            assert_eq!(scene.created(), [own], "{what}");
        }
    }
}

#[test]
fn a_restored_first_run_without_a_marker_is_no_run_of_this_object() {
    // Backed up during its very first run: no marker tells whose status it is.
    for has_uid in [false, true] {
        let scene = Scene::new(&format!("restored-first-{has_uid}"));
        scene.create("q", "once", |object| {
            object["status"] = old_status(None, Some(old_active(1, "once", has_uid)));
            for field in ["runs", "completed", "lastRun", "lastSuccessTime"] {
                object["status"].as_object_mut().expect("a map").remove(field);
            }
        });
        scene.operator.start();
        let own = own_job("q", &scene.quarks_job("q"), 1);
        scene.operator.wait_for("the Job of run 1", || scene.server.api().get(&path("jobs", NAMESPACE, &own)).map(|_| ()));
        scene.operator.wait_for("the run in status", || (scene.quarks_job("q")["status"]["active"]["jobName"] == own).then_some(()));
        scene.finish(&own, End::Complete);
        scene.assert_one_success(&format!("{has_uid}"));
    }
}

#[test]
fn a_restored_errand_starts_with_an_empty_status() {
    for active in [None, Some(old_active(6, "now", true)), Some(old_active(6, "now", false))] {
        let scene = Scene::new(&format!(
            "restored-errand-{}",
            active.as_ref().map_or("none".to_owned(), |active| active["uid"].to_string().len().to_string())
        ));
        restore(&scene, "manual", None, active.clone());
        scene.operator.start();
        let object = scene.operator.wait_for(&format!("an empty status, {active:?}"), || {
            let object = scene.quarks_job("q");
            let status = &object["status"];
            let is_empty = status["lastRun"].is_null() && status["active"].is_null() && matches!(status["runs"].as_u64(), None | Some(0));
            is_empty.then_some(object)
        });
        scene.wait_quiet();
        assert_ne!(object["status"]["completed"], true, "{active:?}: the restored object counts as completed");
        assert_ne!(condition(&object, "Running"), "True");
        assert_ne!(condition(&object, "Succeeded"), "True");
        assert_eq!(scene.created().len(), 0, "{}", scene.operator.log());
        assert_eq!(scene.quarks_job("q")["spec"]["trigger"]["strategy"], "manual");
    }
}

#[test]
fn a_status_restored_during_the_first_run_does_not_end_it() {
    // kubectl create, then the status in a second request, while the operator is at work.
    for (strategy, active) in [("once", Some(old_active(6, "once", true))), ("now", Some(old_active(5, "now", false))), ("once", None)] {
        let scene = Scene::new(&format!("restored-late-{strategy}-{}", active.is_some()));
        scene.create("q", strategy, |object| object["metadata"]["annotations"] = json!({SETTLED: old_settled(None)}));
        scene.operator.start();
        scene.wait_running("q");
        let own = name(&scene.wait_jobs(1)[0]);
        let mut status = old_status(Some(&old_settled(None)), active.clone());
        if active.is_none() {
            status["active"] = Value::Null;
        }
        scene.server.api().patch(&(path("quarksjobs", NAMESPACE, "q") + "/status"), &json!({"status": status}));
        scene
            .operator
            .wait_for("its own run in status again", || (scene.quarks_job("q")["status"]["active"]["jobName"] == own).then_some(()));
        scene.wait_quiet();
        scene.finish(&own, End::Complete);
        scene.assert_one_success(&format!("{strategy} {active:?}"));
        assert_eq!(scene.created(), [own], "{strategy}, {active:?}: Jobs");
    }
}

#[test]
fn a_request_that_was_served_before_the_restore_is_no_new_request() {
    for strategy in ["done", "manual"] {
        let scene = Scene::new(&format!("restored-request-{strategy}"));
        let _jobs = play::auto_complete(scene.server.api());
        restore(&scene, strategy, Some("r1"), None);
        scene.operator.start();
        scene.wait_quiet();
        scene.operator.kill9();
        scene.operator.start();
        scene.wait_quiet();
        assert_eq!(scene.created().len(), 0, "{strategy}: {}", scene.operator.log());
        scene.patch("q", json!({"metadata": {"annotations": {REQUESTED: "r2"}}}));
        let object = scene.wait_settled("q", 1);
        scene.wait_quiet();
        assert_eq!(object["status"]["lastRun"]["trigger"], "request", "{strategy}");
        assert_eq!(scene.created().len(), 1, "{strategy}");
        scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
        scene.wait_settled("q", 2);
        scene.wait_quiet();
        scene.operator.kill9();
        scene.operator.start();
        scene.wait_quiet();
        assert_eq!(scene.created().len(), 2, "{strategy}: {}", scene.operator.log());
    }
}

#[test]
fn a_request_from_before_the_restore_stays_served_after_a_run_for_another_reason() {
    for strategy in ["done", "manual"] {
        let scene = Scene::new(&format!("restored-now-{strategy}"));
        let _jobs = play::auto_complete(scene.server.api());
        restore(&scene, strategy, Some("r1"), None);
        scene.operator.start();
        scene.wait_quiet();
        scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
        let object = scene.wait_settled("q", 1);
        assert_eq!(object["status"]["lastRun"]["trigger"], "now", "{strategy}");
        scene.wait_quiet();
        scene.operator.kill9();
        scene.operator.start();
        scene.wait_quiet();
        assert_eq!(scene.created().len(), 1, "{strategy}: {}", scene.operator.log());
        scene.patch("q", json!({"metadata": {"annotations": {REQUESTED: "r2"}}}));
        scene.wait_settled("q", 2);
        scene.wait_quiet();
        assert_eq!(scene.created().len(), 2, "{strategy}: {}", scene.operator.log());
    }
}

#[test]
fn an_end_that_somebody_takes_out_of_status_is_written_again_and_not_told_again() {
    for is_restarted in [false, true] {
        let what = format!("restarted: {is_restarted}");
        let scene = listening(Scene::new(&format!("taken-out-{is_restarted}")));
        let _jobs = play::auto_complete(scene.server.api());
        scene.create("q", "once", |_| {});
        scene.operator.start();
        let before = scene.wait_settled("q", 1);
        scene.wait_quiet();
        if is_restarted {
            scene.operator.kill9();
        }
        scene.server.api().patch(&(path("quarksjobs", NAMESPACE, "q") + "/status"), &json!({"status": {"lastRun": null}}));
        if is_restarted {
            scene.operator.start();
        }
        let after = scene.wait_settled("q", 1);
        scene.wait_quiet();
        for field in ["run", "jobName", "trigger", "startTime", "completionTime", "outcome", "reason"] {
            assert!(before["status"]["lastRun"][field] != Value::Null, "{field} is there before, {what}");
            assert_eq!(after["status"]["lastRun"][field], before["status"]["lastRun"][field], "{field}, {what}");
        }
        let marker: Value = serde_json::from_str(after["metadata"]["annotations"][SETTLED].as_str().expect("a marker")).expect("JSON");
        for time in ["startTime", "completionTime"] {
            assert_eq!(marker[time], before["status"]["lastRun"][time], "where {time} comes from, {what}");
        }
        let events = scene.server.api().list(&path("events", NAMESPACE, ""));
        let told: Vec<&Value> = events.iter().filter(|event| event["reason"] == "RunSucceeded").collect();
        assert!(told.len() == 1 && told[0]["series"].is_null(), "{what}: {told:?}");
        let counted: f64 = Samples::scrape(&scene.operator).moved("quarksjob_runs_total").values().sum();
        assert!(counted < 1.5 && (is_restarted || counted > 0.5), "{what}: {counted} runs are counted");
        assert_eq!(scene.created().len(), 1, "{what}");
    }
}
