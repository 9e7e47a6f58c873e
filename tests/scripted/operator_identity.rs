//! The real operator and what only looks like a QuarksJob's own, against the scripted API server: another object of its name, Jobs of
//! others that claim it, and a Job that lost its annotation.

use serde_json::{Value, json};

use crate::support::play::{self, End, path};
use crate::support::probe::{Samples, listening};
use crate::support::scene::{NAMESPACE, Scene, name, own_job, uid};
use crate::support::{Command, Fault, Gate, Request, When};

const SETTLED: &str = "quarks.cloudfoundry.org/settled";
const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";
const RUN: &str = "quarks.cloudfoundry.org/run";
/// The namespace of somebody else.
const STRANGER: &str = "stranger";

fn pod_spec(object: &mut Value) -> &mut Value {
    &mut object["spec"]["template"]["spec"]["template"]["spec"]
}

/// With one worker, whose requests may take long.
fn with_one_worker(name: &str) -> Scene {
    let Scene { server, operator, folder } = listening(Scene::new(name));
    Scene { server, operator: operator.arg("--max-workers=1").arg("--ctx-timeout=60"), folder }
}

// --- another object of its name ------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
enum Hides {
    /// All events since the start of its run come in one chunk, behind much work with others.
    Chunk,
    /// The only worker is busy with another key.
    BusyWorker,
    /// The watch says nothing since the start of its run, and then has to list anew: there is no event of a deletion.
    Relist,
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
        assert!(scene.server.command("/quarksjobs", &Command::Gather(events.clone())) > 0, "no watch of QuarksJobs to gather events of");
        scene.operator.wait_for("the watch to gather", || (scene.server.pending("/quarksjobs") == 0).then_some(()));
    }
    if hides == Hides::Relist {
        assert!(scene.server.command("/quarksjobs", &Command::Silence) > 0, "no watch of QuarksJobs to silence");
        scene.operator.wait_for("the watch to be silent", || (scene.server.pending("/quarksjobs") == 0).then_some(()));
    }
    posts.open();
    scene.wait_running("q");
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
        let waiting = || Samples::scrape(&scene.operator).value("workqueue_depth{name=\"errand\"}");
        let before = waiting();
        scene.create("later", "manual", |_| {});
        scene.operator.wait_for("a later one to wait", || (waiting() > before).then_some(()));
    }
    if hides == Hides::Relist {
        scene.server.api().compact();
        scene.server.command("/quarksjobs", &Command::Cut);
    }
    events.open();
    let own = own_job("q", &second, 1);
    scene
        .operator
        .wait_for(&format!("the Job of the new object, {what}"), || scene.server.api().get(&path("jobs", NAMESPACE, &own)).map(|_| ()));
    scene.wait_running("q");
    scene.finish(&own, End::Complete);
    let object = scene.assert_one_success(&what);
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
fn another_object_of_the_name_runs_its_own_once_when_only_a_new_list_tells_of_it() {
    for (policy, on_change, others) in [("Background", false, 0), ("Orphan", false, 20), ("Background", true, 20), ("Orphan", true, 0)] {
        deleted_and_made_again(Hides::Relist, policy, on_change, others);
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
        scene.wait_running("q");
        let job = name(&scene.wait_jobs(1)[0]);
        let gate = Gate::default();
        let is_status = part == "status";
        let late = move |r: &Request| r.method == "PATCH" && r.path.contains("/quarksjobs/q") && r.path.ends_with("/status") == is_status;
        scene.server.fault(When::matching(late), Fault::Hold(gate.clone()));
        scene.finish(&job, End::Complete);
        scene.operator.wait_for("the write on its way", || (gate.arrived() == 1).then_some(()));
        scene.server.api().delete(&path("quarksjobs", NAMESPACE, "q"), "Background");
        scene.create("q", "once", |_| {});
        gate.open();
        let own = own_job("q", &scene.quarks_job("q"), 1);
        scene.operator.wait_for("the Job of the new object", || scene.server.api().get(&path("jobs", NAMESPACE, &own)).map(|_| ()));
        scene.wait_running("q");
        scene.finish(&own, End::Failed { reason: "BackoffLimitExceeded" });
        let object = scene.wait_settled("q", 1);
        scene.wait_quiet();
        assert_eq!((&object["status"]["lastRun"]["outcome"], &object["status"]["runs"]), (&json!("Failed"), &json!(1)), "{part}");
        assert_ne!(object["status"]["completed"], true, "{part}: that was the first one");
        assert_eq!(scene.created().len(), 2, "{part}");
    }
}

// --- Jobs of others -----------------------------------------------------------------------------------------

/// An owner reference as the Jobs of `q` have it.
fn owner_of(scene: &Scene) -> Value {
    let uid = uid(&scene.quarks_job("q"));
    json!({"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q", "uid": uid, "controller": true})
}

/// A Job in the stranger's namespace that claims to be a run of `q`.
fn foreign_job(scene: &Scene, name: &str, run: u64, is_finished: bool) -> Value {
    let owner = owner_of(scene);
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
    let own = own_job("q", &scene.quarks_job("q"), 1);
    let mut foreign = Vec::new();
    let mut arrange = || {
        foreign.push(foreign_job(&scene, "claims", run, is_finished));
        // The very name of the run, too.
        foreign.push(foreign_job(&scene, &own, run, is_finished));
    };
    if during_a_run {
        scene.operator.start();
        scene.wait_running("q");
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
    scene.wait_running("q");
    assert!(scene.quarks_job("q")["status"]["lastRun"].is_null(), "{what}: not over because another's Job is");
    scene.finish(&own, End::Failed { reason: "BackoffLimitExceeded" });
    let object = scene.wait_settled("q", 1);
    scene.wait_quiet();
    assert_eq!(object["status"]["lastRun"]["outcome"], "Failed", "its own Job decides, {what}");
    assert_eq!((&object["spec"]["trigger"]["strategy"], &object["status"]["runs"]), (&json!("manual"), &json!(1)), "{what}");
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    let later = own_job("q", &object, 2);
    scene
        .operator
        .wait_for(&format!("the second run's Job, {what}"), || scene.server.api().get(&path("jobs", NAMESPACE, &later)).map(|_| ()));
    scene.wait_running("q");
    scene.finish(&later, End::Complete);
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

// --- a Job without its annotation ---------------------------------------------------------------------------

fn take_annotation_off(scene: &Scene, job: &str) {
    scene.server.api().patch(&path("jobs", NAMESPACE, job), &json!({"metadata": {"annotations": {RUN: null}}}));
}

/// The run goes on although its Job's annotation is gone; it ends well, and its trigger with it.
fn goes_on(scene: &Scene, job: &str, after: &str, what: &str) {
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1, "no second Job beside it, {what}: {}", scene.operator.log());
    assert!(scene.quarks_job("q")["status"]["lastRun"].is_null(), "it goes on, {what}: {}", scene.operator.log());
    scene.finish(job, End::Complete);
    let object = scene.assert_one_success(what);
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
            scene.wait_running("q");
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
        scene.wait_running("q");
        let job = name(&scene.wait_jobs(1)[0]);
        scene.operator.kill9();
        take_annotation_off(&scene, &job);
        scene.finish(&job, if end == "Complete" { End::Complete } else { End::Failed { reason: "BackoffLimitExceeded" } });
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
    let owner = owner_of(&scene);
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

/// A Job in the namespace of `q` that claims to be a run of it, and has ended well.
fn forge(scene: &Scene, job: &str, record: Option<Value>) {
    let mut metadata = json!({"name": job, "ownerReferences": [{
        "apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q", "uid": uid(&scene.quarks_job("q")), "controller": true}]});
    if let Some(record) = record {
        metadata["annotations"] = json!({RUN: record.to_string()});
    }
    scene.server.api().create(&path("jobs", NAMESPACE, ""), json!({"metadata": metadata, "spec": {}}));
    scene.finish(job, End::Complete);
}

#[test]
fn a_run_number_that_nobody_can_have_reached_is_none() {
    for (case, forged) in [("name", u64::MAX), ("annotation", (1 << 53) - 1), ("marker", (1 << 53) - 1)] {
        let scene = Scene::new(&format!("forged-{case}"));
        let _jobs = play::auto_complete(scene.server.api());
        scene.create("q", "manual", |_| {});
        scene.operator.start();
        scene.wait_quiet();
        match case {
            "name" => forge(&scene, &own_job("q", &scene.quarks_job("q"), forged), None),
            "marker" => {
                let marker = json!({"uid": uid(&scene.quarks_job("q")), "runs": forged, "outcome": "Succeeded"});
                scene.patch("q", json!({"metadata": {"annotations": {"quarks.cloudfoundry.org/settled": marker.to_string()}}}));
            }
            _ => forge(&scene, "by-hand", Some(json!({"run": forged, "trigger": "now"}))),
        }
        for run in 1..=2 {
            scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
            let object = scene.wait_settled("q", run);
            assert_eq!((&object["status"]["runs"], &object["spec"]["trigger"]["strategy"]), (&json!(run), &json!("manual")), "{case}");
        }
        assert_eq!(scene.created().len(), 2, "{case}: {}", scene.operator.log());
    }
}

#[test]
fn an_annotation_changed_during_the_run_does_not_change_what_it_consumes() {
    for is_restarted in [false, true] {
        let scene = Scene::new(&format!("annotation-changed-{is_restarted}"));
        scene.create("q", "now", |_| {});
        scene.operator.start();
        scene.wait_running("q");
        let job = name(&scene.wait_jobs(1)[0]);
        let record = json!({"run": 1, "trigger": "once", "request": "never-made"}).to_string();
        if is_restarted {
            scene.operator.kill9();
        }
        scene.server.api().patch(&path("jobs", NAMESPACE, &job), &json!({"metadata": {"annotations": {RUN: record}}}));
        if is_restarted {
            scene.operator.start();
        }
        goes_on(&scene, &job, "manual", &format!("restarted: {is_restarted}"));
        let marker = scene.quarks_job("q")["metadata"]["annotations"][SETTLED].as_str().expect("a marker").to_owned();
        assert!(!marker.contains("never-made") && !marker.contains("once"), "{marker}");
    }
}
