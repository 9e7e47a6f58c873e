//! The real operator and what only looks like a QuarksJob's own, against the scripted API server: another object of its name, Jobs of
//! others that claim it, what a restore brings along, a Job that lost its annotation, a template that is only spelled otherwise.
#![forbid(unsafe_code)]

mod support;

use quarks_job::api::Uid;
use quarks_job::controller::names::job_name;
use serde_json::{Value, json};
use support::play::{self, End, path};
use support::probe::{Samples, listening};
use support::scene::{NAMESPACE, Scene, condition, message, name, reason, uid};
use support::{Command, Fault, Gate, Request, When};

const SETTLED: &str = "quarks.cloudfoundry.org/settled";
const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";
const RUN: &str = "quarks.cloudfoundry.org/run";
/// The namespace of somebody else.
const STRANGER: &str = "stranger";
/// What a restored object was called before.
const OLD: &str = "99999999-0000-4000-8000-000000000000";

fn finish(scene: &Scene, job: &str, end: End<'_>) {
    play::finish_job(scene.server.api(), NAMESPACE, job, end);
}

/// With one worker, whose requests may take long.
fn with_one_worker(name: &str) -> Scene {
    let Scene { server, operator, folder } = listening(Scene::new(name));
    Scene { server, operator: operator.arg("--max-workers=1").arg("--ctx-timeout=60"), folder }
}

fn wait_running(scene: &Scene, name: &str) {
    scene.operator.wait_for("the run in status", || (condition(&scene.quarks_job(name), "Running") == "True").then_some(()));
}

/// Exactly one run, of this number, that succeeded; nothing of it is called cancelled.
fn assert_one_success(scene: &Scene, what: &str) -> Value {
    let object = scene.wait_settled("q", 1);
    scene.wait_quiet();
    let what = format!("{what}\n{object:#}\n{}", scene.operator.log());
    assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{what}");
    assert_eq!(object["status"]["runs"], 1, "{what}");
    assert_eq!(object["status"]["lastRun"]["jobName"], job_name("q", &Uid::from(uid(&object).as_str()), 1), "{what}");
    let events = scene.events_of(&uid(&object));
    assert!(!events.iter().any(|event| event.0 == "RunCancelled"), "{events:?} {what}");
    object
}

// --- another object of its name ------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Hides {
    /// All events since the start of its run come in one chunk, behind much work with others.
    Chunk,
    /// The only worker is busy with another key.
    BusyWorker,
}

fn deleted_and_made_again(hides: Hides, policy: &str, on_change: bool, others: usize) {
    let what = format!("{hides:?} {policy} on_change={on_change} others={others}");
    let scene = with_one_worker(&format!("again-{hides:?}-{policy}-{on_change}-{others}"));
    let make = |strategy: &str| {
        scene.create("q", strategy, |object| {
            if on_change {
                object["spec"]["updateOnConfigChange"] = json!(true);
                pod_spec(object)["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
            }
        });
    };
    scene.server.api().create(&path("configmaps", NAMESPACE, ""), json!({"metadata": {"name": "settings"}, "data": {"a": "b"}}));
    for number in 0..others {
        scene.create(&format!("other{number}"), "manual", |_| {});
    }
    make("manual");
    scene.create("busy", "manual", |_| {});
    scene.operator.start();
    scene.wait_quiet();
    let first = scene.quarks_job("q");
    let (posts, events) = (Gate::default(), Gate::default());
    scene.server.fault(When::request("POST", "/jobs"), Fault::Hold(posts.clone()));
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "once"}}}));
    scene.operator.wait_for("the Job on its way", || (posts.arrived() == 1).then_some(()));
    if hides == Hides::Chunk {
        assert!(scene.server.command("/quarksjobs", &Command::Gather(events.clone())) > 0);
        scene.operator.wait_for("the watch to gather", || (scene.server.pending("/quarksjobs") == 0).then_some(()));
    }
    posts.open();
    wait_running(&scene, "q");
    if hides == Hides::BusyWorker {
        let asks = |request: &Request| request.path.ends_with("/quarksjobs/busy") && request.method == "GET";
        scene.server.fault(When::matching(asks), Fault::Hold(events.clone()));
        scene.patch("busy", json!({"spec": {"trigger": {"strategy": "now"}}}));
        scene.operator.wait_for("the worker to be busy", || (events.arrived() == 1).then_some(()));
    }
    for number in 0..others {
        scene.patch(&format!("other{number}"), json!({"spec": {"trigger": {"strategy": "now"}}}));
    }
    scene.server.api().delete(&path("quarksjobs", NAMESPACE, "q"), policy);
    make("once");
    let second = scene.quarks_job("q");
    assert_ne!(uid(&first), uid(&second));
    if hides == Hides::BusyWorker {
        // When one that was made later waits, both events are in.
        let waiting = || Samples::scrape(&scene.operator).value("workqueue_depth{name=\"quarksjob\"}");
        let before = waiting();
        scene.create("later", "manual", |_| {});
        scene.operator.wait_for("a later one to wait", || (waiting() > before).then_some(()));
    }
    events.open();
    let own = job_name("q", &Uid::from(uid(&second).as_str()), 1);
    scene
        .operator
        .wait_for(&format!("the Job of the new object, {what}"), || scene.server.api().get(&path("jobs", NAMESPACE, &own)).map(|_| ()));
    wait_running(&scene, "q");
    finish(&scene, &own, End::Complete);
    let object = assert_one_success(&scene, &what);
    assert_eq!(object["spec"]["trigger"]["strategy"], "done", "{what}");
    let created = scene.created();
    assert_eq!(created.iter().filter(|job| job.starts_with("q-")).count(), 2, "one each: {created:?} {what}");
}

#[test]
fn another_object_of_the_name_runs_its_own_once_when_both_events_come_together() {
    for (policy, on_change, others) in [("Background", false, 1), ("Orphan", false, 20), ("Background", true, 20), ("Orphan", true, 1)] {
        deleted_and_made_again(Hides::Chunk, policy, on_change, others);
    }
}

#[test]
fn another_object_of_the_name_runs_its_own_once_when_workers_were_busy() {
    for (policy, on_change, others) in [("Background", false, 0), ("Orphan", false, 20), ("Background", true, 20), ("Orphan", true, 0)] {
        deleted_and_made_again(Hides::BusyWorker, policy, on_change, others);
    }
}

#[test]
fn another_object_of_the_name_does_not_get_what_was_about_to_be_said_of_the_first() {
    // The first has ended and its status, or its settle, is on its way when it is deleted and made again.
    for part in ["settle", "status"] {
        let scene = Scene::new(&format!("again-late-{part}"));
        scene.create("q", "once", |_| {});
        scene.operator.start();
        wait_running(&scene, "q");
        let job = name(&scene.wait_jobs(1)[0]);
        let gate = Gate::default();
        let is_status = part == "status";
        let late = move |r: &Request| r.method == "PATCH" && r.path.contains("/quarksjobs/q") && r.path.ends_with("/status") == is_status;
        scene.server.fault(When::matching(late), Fault::Hold(gate.clone()));
        finish(&scene, &job, End::Complete);
        scene.operator.wait_for("the write on its way", || (gate.arrived() == 1).then_some(()));
        scene.server.api().delete(&path("quarksjobs", NAMESPACE, "q"), "Background");
        scene.create("q", "once", |_| {});
        gate.open();
        let own = job_name("q", &Uid::from(uid(&scene.quarks_job("q")).as_str()), 1);
        scene.operator.wait_for("the Job of the new object", || scene.server.api().get(&path("jobs", NAMESPACE, &own)).map(|_| ()));
        wait_running(&scene, "q");
        finish(&scene, &own, End::Failed { reason: "BackoffLimitExceeded" });
        let object = scene.wait_settled("q", 1);
        scene.wait_quiet();
        assert_eq!((&object["status"]["lastRun"]["outcome"], &object["status"]["runs"]), (&json!("Failed"), &json!(1)), "{part}");
        assert_ne!(object["status"]["completed"], true, "{part}: that was the first one");
        assert_eq!(scene.created().len(), 2, "{part}");
    }
}

// --- Jobs of others -----------------------------------------------------------------------------------------

/// A Job in the stranger's namespace that claims to be a run of `q`.
fn foreign_job(scene: &Scene, name: &str, run: u64, is_finished: bool) -> Value {
    let q = scene.quarks_job("q");
    let owner =
        json!({"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q", "uid": uid(&q), "controller": true});
    let record = json!({"run": run, "trigger": "now", "strategy": "now"}).to_string();
    let container = json!({"name": "main", "image": "busybox"});
    let job = json!({"metadata": {"name": name, "ownerReferences": [owner], "annotations": {RUN: record}},
        "spec": {"suspend": !is_finished, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}});
    scene.server.api().create(&path("jobs", STRANGER, ""), job);
    if is_finished {
        play::finish_job(scene.server.api(), STRANGER, name, End::Complete);
    }
    scene.server.api().get(&path("jobs", STRANGER, name)).expect("just made")
}

fn foreign_jobs(is_monitored: bool, is_finished: bool, run: u64, during_a_run: bool) {
    let what = format!("monitored={is_monitored} finished={is_finished} run={run} during_a_run={during_a_run}");
    let scene = Scene::new(&format!("foreign-{is_monitored}-{is_finished}-{run}-{during_a_run}"));
    if is_monitored {
        play::monitored_namespace(scene.server.api(), STRANGER);
    } else {
        play::namespace(scene.server.api(), STRANGER, &json!({}));
    }
    scene.create("q", "now", |_| {});
    let own = job_name("q", &Uid::from(uid(&scene.quarks_job("q")).as_str()), 1);
    let mut foreign = Vec::new();
    let mut arrange = || {
        foreign.push(foreign_job(&scene, "claims", run, is_finished));
        // The very name of the run, too.
        foreign.push(foreign_job(&scene, &own, run, is_finished));
    };
    if during_a_run {
        scene.operator.start();
        wait_running(&scene, "q");
        arrange();
    } else {
        arrange();
        scene.operator.start();
    }
    scene.wait_quiet();
    scene.operator.wait_for(&format!("the run's own Job, {what}"), || {
        let jobs: Vec<String> = scene.jobs().iter().map(name).collect();
        (jobs == [own.clone()]).then_some(())
    });
    wait_running(&scene, "q");
    assert!(scene.quarks_job("q")["status"]["lastRun"].is_null(), "{what}: not over because another's Job is");
    finish(&scene, &own, End::Failed { reason: "BackoffLimitExceeded" });
    let object = scene.wait_settled("q", 1);
    scene.wait_quiet();
    assert_eq!(object["status"]["lastRun"]["outcome"], "Failed", "its own Job decides, {what}");
    assert_eq!((&object["spec"]["trigger"]["strategy"], &object["status"]["runs"]), (&json!("manual"), &json!(1)), "{what}");
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    let later = job_name("q", &Uid::from(uid(&object).as_str()), 2);
    scene
        .operator
        .wait_for(&format!("the second run's Job, {what}"), || scene.server.api().get(&path("jobs", NAMESPACE, &later)).map(|_| ()));
    wait_running(&scene, "q");
    finish(&scene, &later, End::Complete);
    scene.wait_settled("q", 2);
    scene.wait_quiet();
    let asked: Vec<String> =
        scene.server.requests().iter().map(|entry| format!("{} {}", entry.request.method, entry.request.path)).collect();
    let theirs = format!("/namespaces/{STRANGER}/jobs");
    assert!(!asked.iter().any(|line| line.contains(&theirs)), "{what}: {asked:#?}");
    for before in foreign {
        assert_eq!(scene.server.api().get(&path("jobs", STRANGER, &name(&before))).as_ref(), Some(&before), "untouched, {what}");
    }
}

#[test]
fn a_job_of_another_namespace_that_claims_to_be_a_run_is_nobodys_run() {
    for (is_monitored, is_finished, run) in
        [(false, true, 1), (false, false, 1), (true, true, 1), (true, false, 1), (false, true, 7), (true, false, 7)]
    {
        foreign_jobs(is_monitored, is_finished, run, false);
    }
}

#[test]
fn a_job_of_another_namespace_does_not_end_a_run_that_goes_on() {
    for (is_monitored, is_finished, run) in [(false, true, 1), (false, false, 7), (true, true, 7), (true, true, 1)] {
        foreign_jobs(is_monitored, is_finished, run, true);
    }
}

// --- restored objects ---------------------------------------------------------------------------------------

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
    let mut active = json!({"run": run, "jobName": job_name("q", &Uid::from(OLD), run), "trigger": trigger, "startTime": "2020-01-01T00:00:00Z",
        "record": json!({"run": run, "trigger": trigger, "strategy": trigger, "template": "sha256:00000000000000000000000000000000"}).to_string()});
    if has_uid {
        active["uid"] = json!(OLD);
    }
    active
}

fn old_status(settled: Option<&str>, active: Option<Value>) -> Value {
    let at = "2020-01-01T00:00:10Z";
    let of = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "as it was", "lastTransitionTime": at, "observedGeneration": 1});
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
    let own = job_name("q", &Uid::from(uid(&scene.quarks_job("q")).as_str()), 1);
    let jobs: Vec<String> = scene.wait_jobs(1).iter().map(name).collect();
    assert_eq!(jobs, [own.clone()]);
    finish(&scene, &own, End::Failed { reason: "BackoffLimitExceeded" });
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
            let own = job_name("q", &Uid::from(uid(&scene.quarks_job("q")).as_str()), 1);
            scene
                .operator
                .wait_for(&format!("the Job of run 1, {what}"), || scene.server.api().get(&path("jobs", NAMESPACE, &own)).map(|_| ()));
            wait_running(&scene, "q");
            scene.operator.wait_for("the run in status", || (scene.quarks_job("q")["status"]["active"]["run"] == 1).then_some(()));
            finish(&scene, &own, End::Complete);
            let object = assert_one_success(&scene, &what);
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
        let own = job_name("q", &Uid::from(uid(&scene.quarks_job("q")).as_str()), 1);
        scene.operator.wait_for("the Job of run 1", || scene.server.api().get(&path("jobs", NAMESPACE, &own)).map(|_| ()));
        scene.operator.wait_for("the run in status", || (scene.quarks_job("q")["status"]["active"]["jobName"] == own).then_some(()));
        finish(&scene, &own, End::Complete);
        assert_one_success(&scene, &format!("{has_uid}"));
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
        assert_ne!(object["status"]["completed"], true);
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
        wait_running(&scene, "q");
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
        finish(&scene, &own, End::Complete);
        assert_one_success(&scene, &format!("{strategy} {active:?}"));
        assert_eq!(scene.created(), [own]);
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

// --- a Job without its annotation ---------------------------------------------------------------------------

fn take_annotation_off(scene: &Scene, job: &str) {
    scene.server.api().patch(&path("jobs", NAMESPACE, job), &json!({"metadata": {"annotations": {RUN: null}}}));
}

/// The run goes on although its Job's annotation is gone; it ends well, and its trigger with it.
fn goes_on(scene: &Scene, job: &str, after: &str, what: &str) {
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1, "no second Job beside it, {what}: {}", scene.operator.log());
    assert!(scene.quarks_job("q")["status"]["lastRun"].is_null(), "it goes on, {what}: {}", scene.operator.log());
    finish(scene, job, End::Complete);
    let object = assert_one_success(scene, what);
    assert_eq!(object["spec"]["trigger"]["strategy"], after, "{what}");
    scene.wait_jobs(0);
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1, "{what}: {}", scene.operator.log());
}

#[test]
fn a_running_job_that_lost_its_annotation_is_still_the_run() {
    for (strategy, after) in [("now", "manual"), ("once", "done"), ("request", "manual")] {
        for is_restarted in [false, true] {
            let what = format!("{strategy}, restarted: {is_restarted}");
            let scene = Scene::new(&format!("annotation-{strategy}-{is_restarted}"));
            match strategy {
                "request" => scene.create("q", "manual", |object| object["metadata"]["annotations"] = json!({REQUESTED: "r1"})),
                strategy => scene.create("q", strategy, |_| {}),
            }
            scene.operator.start();
            wait_running(&scene, "q");
            let job = name(&scene.wait_jobs(1)[0]);
            if is_restarted {
                scene.operator.kill9();
            }
            take_annotation_off(&scene, &job);
            if is_restarted {
                scene.operator.start();
            }
            goes_on(&scene, &job, after, &what);
            if strategy == "request" {
                let marker = scene.quarks_job("q")["metadata"]["annotations"][SETTLED].as_str().expect("a marker").to_owned();
                assert!(marker.contains("\"r1\""), "what the run served is on record, {what}: {marker}");
            }
        }
    }
}

#[test]
fn a_job_that_lost_its_annotation_before_status_told_of_it_is_still_the_run() {
    for (strategy, after) in [("now", "manual"), ("once", "done")] {
        // The operator lives and knows what it has posted.
        let scene = Scene::new(&format!("annotation-early-{strategy}"));
        let gate = Gate::default();
        scene.server.fault(When::request("PATCH", "/quarksjobs/q/status"), Fault::Hold(gate.clone()));
        scene.create("q", strategy, |_| {});
        scene.operator.start();
        scene.operator.wait_for("the status on its way", || (gate.arrived() == 1).then_some(()));
        let job = name(&scene.wait_jobs(1)[0]);
        take_annotation_off(&scene, &job);
        gate.open();
        goes_on(&scene, &job, after, strategy);
        // It ended when it had posted the Job: all that is left is the Job's owner and name, and the trigger.
        let scene = Scene::new(&format!("annotation-killed-{strategy}"));
        scene.server.fault(When::request("POST", "/jobs"), Fault::KillAfter(scene.operator.killer()));
        scene.create("q", strategy, |_| {});
        scene.operator.start();
        let job = name(&scene.wait_jobs(1)[0]);
        scene.operator.wait_for("its end", || (!scene.operator.is_running()).then_some(()));
        take_annotation_off(&scene, &job);
        scene.operator.start();
        goes_on(&scene, &job, after, &format!("{strategy}, killed"));
    }
}

#[test]
fn a_job_that_lost_its_annotation_and_ended_while_it_was_down_is_settled() {
    for end in ["Complete", "Failed"] {
        let scene = Scene::new(&format!("annotation-ended-{end}"));
        scene.create("q", "once", |_| {});
        scene.operator.start();
        wait_running(&scene, "q");
        let job = name(&scene.wait_jobs(1)[0]);
        scene.operator.kill9();
        take_annotation_off(&scene, &job);
        finish(&scene, &job, if end == "Complete" { End::Complete } else { End::Failed { reason: "BackoffLimitExceeded" } });
        scene.operator.start();
        let object = scene.wait_settled("q", 1);
        scene.wait_quiet();
        let expected = if end == "Complete" { "Succeeded" } else { "Failed" };
        assert_eq!(object["status"]["lastRun"]["outcome"], expected, "{}", scene.operator.log());
        assert_eq!(object["spec"]["trigger"]["strategy"], "done");
        assert_eq!(scene.created().len(), 1, "{}", scene.operator.log());
    }
}

#[test]
fn jobs_of_the_original_are_still_not_ours() {
    // Another name, no annotation, our UID as controller: the original's.
    let scene = Scene::new("original");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "manual", |_| {});
    let owner = json!({"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q", "uid": uid(&scene.quarks_job("q")), "controller": true});
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]}});
    for name in ["q-4f1bb6cf4d3a1f6c", "q"] {
        let job = json!({"metadata": {"name": name, "ownerReferences": [owner]}, "spec": {"template": template}});
        scene.server.api().create(&path("jobs", NAMESPACE, ""), job);
    }
    scene.operator.start();
    scene.wait_quiet();
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    let object = scene.wait_settled("q", 1);
    assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded");
    scene.wait_jobs(2);
}

// --- the same template, spelled otherwise -------------------------------------------------------------------

fn pod_spec(object: &mut Value) -> &mut Value {
    &mut object["spec"]["template"]["spec"]["template"]["spec"]
}

fn replaced(scene: &Scene, change: impl FnOnce(&mut Value)) {
    let mut object = scene.quarks_job("q");
    object["spec"]["trigger"]["strategy"] = json!("once");
    change(&mut object);
    scene.server.api().replace(&path("quarksjobs", NAMESPACE, "q"), object);
    scene.operator.wait_for("the generation observed", || {
        let object = scene.quarks_job("q");
        (object["status"]["observedGeneration"] == object["metadata"]["generation"]).then_some(())
    });
    scene.wait_quiet();
}

type Change = fn(&mut Value);

/// What an API server, a client or a template engine makes of one and the same template.
const SPELLINGS: [(&str, Change); 10] = [
    ("creationTimestamp", |object| {
        object["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
        object["spec"]["template"]["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    }),
    ("cpu as a number", |object| pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": 1, "memory": "1Gi"}})),
    ("cpu in thousandths", |object| pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": "1000m", "memory": "1Gi"}})),
    ("memory in other units", |object| {
        pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "1024Mi"}})
    }),
    ("empty requests", |object| {
        pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {}});
    }),
    ("empty lists", |object| {
        pod_spec(object)["containers"][0]["env"] = json!([]);
        pod_spec(object)["volumes"] = json!([]);
        pod_spec(object)["initContainers"] = json!([]);
    }),
    ("nulls", |object| {
        pod_spec(object)["volumes"] = Value::Null;
        pod_spec(object)["containers"][0]["args"] = Value::Null;
        object["spec"]["template"]["spec"]["backoffLimit"] = Value::Null;
    }),
    ("empty maps", |object| {
        pod_spec(object)["nodeSelector"] = json!({});
        pod_spec(object)["securityContext"] = json!({});
        object["spec"]["template"]["metadata"] = json!({"labels": {}, "annotations": {}});
    }),
    ("metadata with nothing in it", |object| object["spec"]["template"]["metadata"] = json!({"creationTimestamp": null})),
    ("empty in empty", |object| pod_spec(object)["affinity"] = json!({"nodeAffinity": {}})),
];

fn with_resources(object: &mut Value) {
    pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
}

#[test]
fn the_same_template_spelled_otherwise_does_not_run_once_again() {
    for is_backwards in [false, true] {
        for (what, spell) in SPELLINGS {
            let scene = Scene::new(&format!("spelling-{}-{is_backwards}", what.replace(' ', "-")));
            let _jobs = play::auto_complete(scene.server.api());
            scene.create("q", "once", |object| {
                with_resources(object);
                if is_backwards {
                    spell(object);
                }
            });
            let plain = {
                let mut object = scene.quarks_job("q");
                object = play_again(object);
                with_resources(&mut object);
                object["spec"]["template"].clone()
            };
            scene.operator.start();
            scene.wait_settled("q", 1);
            replaced(&scene, |object| {
                object["spec"]["template"] = plain.clone();
                if !is_backwards {
                    spell(object);
                }
            });
            assert_eq!(scene.created().len(), 1, "{what}, backwards: {is_backwards}");
            assert_eq!(scene.quarks_job("q")["spec"]["trigger"]["strategy"], "once", "left as it is, {what}");
            scene.wait_event("q", "AlreadyRan");
        }
    }
}

/// The object as `Scene::create` makes it, with this one's metadata.
fn play_again(object: Value) -> Value {
    let mut plain = play::quarks_job("q", "once");
    plain["spec"]["template"]["spec"]["template"]["metadata"]["labels"]["delete"] = json!("pod");
    plain["metadata"] = object["metadata"].clone();
    plain
}

#[test]
fn a_template_that_means_something_else_does_run_once_again() {
    let changes: [(&str, Change); 8] = [
        ("another quantity", |object| pod_spec(object)["containers"][0]["resources"]["limits"]["cpu"] = json!("2")),
        ("another unit", |object| pod_spec(object)["containers"][0]["resources"]["limits"]["memory"] = json!("1G")),
        ("an argument that looks like a quantity", |object| pod_spec(object)["containers"][0]["args"] = json!(["1000m"])),
        ("a label that looks like a quantity", |object| {
            object["spec"]["template"]["spec"]["template"]["metadata"]["labels"]["cpu"] = json!("1000m");
        }),
        ("another order", |object| pod_spec(object)["containers"][0]["command"] = json!(["b", "a"])),
        ("an empty directory", |object| pod_spec(object)["volumes"] = json!([{"name": "v", "emptyDir": {"medium": "Memory"}}])),
        ("a variable", |object| pod_spec(object)["containers"][0]["env"] = json!([{"name": "limits", "value": "1000m"}])),
        ("a field that is false", |object| pod_spec(object)["enableServiceLinks"] = json!(false)),
    ];
    let scene = Scene::new("meaning");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "once", |object| {
        with_resources(object);
        pod_spec(object)["containers"][0]["args"] = json!(["1"]);
        pod_spec(object)["containers"][0]["command"] = json!(["a", "b"]);
        pod_spec(object)["containers"][0]["env"] = json!([{"name": "limits", "value": "1"}]);
        object["spec"]["template"]["spec"]["template"]["metadata"]["labels"]["cpu"] = json!("1");
    });
    scene.operator.start();
    scene.wait_settled("q", 1);
    for (runs, (what, change)) in (2..).zip(changes) {
        let mut object = scene.quarks_job("q");
        object["spec"]["trigger"]["strategy"] = json!("once");
        change(&mut object);
        scene.server.api().replace(&path("quarksjobs", NAMESPACE, "q"), object);
        scene
            .operator
            .wait_for(&format!("another run: {what}"), || (scene.quarks_job("q")["status"]["lastRun"]["run"] == runs).then_some(()));
        scene.wait_settled("q", runs);
    }
}

#[test]
fn a_digest_of_another_algorithm_takes_a_baseline_and_runs_nothing() {
    let scene = Scene::new("upgrade");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.wait_settled("q", 1);
    scene.wait_jobs(0);
    scene.operator.kill9();
    // As the version before has left it.
    let own = uid(&scene.quarks_job("q"));
    let old =
        json!({"uid": own, "runs": 1, "once": "sha256:00112233445566778899aabbccddeeff", "outcome": "Succeeded", "reason": "Completed",
        "trigger": "once"})
        .to_string();
    scene.patch("q", json!({"metadata": {"annotations": {SETTLED: old}}, "spec": {"trigger": {"strategy": "once"}}}));
    scene.server.api().patch(&(path("quarksjobs", NAMESPACE, "q") + "/status"), &json!({"status": {"settled": old}}));
    scene.operator.start();
    scene.operator.wait_for("a new baseline", || {
        let object = scene.quarks_job("q");
        let marker: Value = serde_json::from_str(object["metadata"]["annotations"][SETTLED].as_str()?).ok()?;
        let once = marker["once"].as_str()?;
        (!once.starts_with("sha256:") && marker["runs"] == 1).then_some(())
    });
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1, "{}", scene.operator.log());
    let object = scene.quarks_job("q");
    assert_eq!((&object["status"]["runs"], &object["status"]["lastRun"]["run"]), (&json!(1), &json!(1)));
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "once"}, "template": {"spec": {"backoffLimit": 1}}}}));
    scene.wait_settled("q", 2);
    assert_eq!(scene.created().len(), 2);
}

// --- its own output -----------------------------------------------------------------------------------------

/// A one-off that refers to its own output.
fn uses_its_own(object: &mut Value, is_optional: bool) {
    object["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": "result"}}}});
    pod_spec(object)["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "result", "optional": is_optional}}]);
}

#[test]
fn a_reference_to_its_own_output_is_told_before_the_first_run() {
    for on_change in [false, true] {
        let scene = Scene::new(&format!("own-optional-{on_change}"));
        scene.create("q", "once", |object| {
            uses_its_own(object, true);
            object["spec"]["updateOnConfigChange"] = json!(on_change);
        });
        scene.operator.start();
        scene.wait_jobs(1);
        // Nobody finishes the Job: it is told now or never.
        assert!(scene.wait_event("q", "SelfReference").contains("result"));
        assert!(scene.quarks_job("q")["status"]["lastRun"].is_null());
    }
}

#[test]
fn an_errand_that_refers_to_its_own_output_is_told_before_it_is_asked() {
    let scene = Scene::new("own-errand");
    scene.create("q", "manual", |object| uses_its_own(object, true));
    scene.operator.start();
    assert!(scene.wait_event("q", "SelfReference").contains("result"));
    assert_eq!(scene.created().len(), 0);
}

#[test]
fn one_that_waits_for_its_own_output_is_told_that_it_waits_for_ever() {
    let scene = Scene::new("own-missing");
    scene.create("q", "once", |object| uses_its_own(object, false));
    scene.operator.start();
    scene.operator.wait_for("the missing reference", || (reason(&scene.quarks_job("q"), "Ready") == "MissingReference").then_some(()));
    let said = message(&scene.quarks_job("q"), "Ready");
    assert!(said.contains("result"), "{said}");
    assert!(["never", "itself", "own output"].iter().any(|word| said.contains(word)), "it never comes by itself: {said}");
    assert_eq!(scene.created().len(), 0);
    // It does start when somebody makes the Secret.
    scene.server.api().create(&path("secrets", NAMESPACE, ""), json!({"metadata": {"name": "result"}, "data": {"a": "YQ=="}}));
    scene.wait_jobs(1);
}
