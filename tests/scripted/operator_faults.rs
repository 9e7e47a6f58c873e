//! The real operator against the scripted API server: kills at every write, lost replies, two operators at once,
//! creates that arrive late, and everything that happens while it is down. One question everywhere: one run per trigger.

use serde_json::{Value, json};

use crate::support::play::{self, End, path};
use crate::support::scene::{NAMESPACE, Scene, condition, program};
use crate::support::{Command, Fault, Gate, Operator, Request, When, wait_for};

const SETTLED: &str = "quarks.cloudfoundry.org/settled";
const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";

/// Writes that matter: everything but Events.
fn writes() -> When {
    When::matching(|request: &Request| request.method != "GET" && !request.path.contains("/events"))
}

/// One run of an errand, disturbed at its k-th write; returns how many writes that matter there were.
fn disturbed_run(name: &str, k: usize, fault: impl FnOnce(&Operator) -> Option<Fault>, end: &str) -> usize {
    let scene = Scene::new(&format!("{name}-{end}-{k}"));
    let failing = end == "Failed";
    let restarting = scene.server.api().clone();
    let _jobs = play::auto(scene.server.api(), move |api, job| {
        let job_name = job["metadata"]["name"].as_str().expect("a name");
        // A Job takes longer than a status write: else the number of writes would depend on who is faster.
        wait_for("the run in status", || {
            let object = restarting.get(&path("quarksjobs", NAMESPACE, "q"))?;
            (object["status"]["active"]["run"] == 1).then_some(())
        });
        let end = if failing { End::Failed { reason: "BackoffLimitExceeded" } } else { End::Complete };
        play::finish_job(api, NAMESPACE, job_name, end);
    });
    let rule = fault(&scene.operator).map(|fault| scene.server.fault(writes().nth(k), fault));
    scene.create("q", "now", |_| {});
    scene.operator.start();
    let object = wait_for("the run in status", || {
        scene.revive();
        let object = scene.quarks_job("q");
        (object["status"]["lastRun"]["run"] == 1 && object["spec"]["trigger"]["strategy"] == "manual").then_some(object)
    });
    let jobs_left = usize::from(failing);
    wait_for("the Job's cleanup", || {
        scene.revive();
        (scene.jobs().len() == jobs_left).then_some(())
    });
    scene.revive();
    let what = format!("{name} at write {k}, {end}\n{}", scene.operator.log());
    assert_eq!(scene.created().len(), 1, "one Job: {what}");
    assert_eq!(object["status"]["lastRun"]["outcome"], if failing { "Failed" } else { "Succeeded" }, "{what}");
    assert_eq!(object["status"]["runs"], 1, "{what}");
    assert_eq!((condition(&object, "Running"), condition(&object, "Ready")), ("False".into(), "True".into()), "{what}");
    assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"], "{what}");
    assert_eq!(object["status"]["settled"], object["metadata"]["annotations"][SETTLED], "{what}");
    if let Some(rule) = rule {
        assert_eq!(rule.hits(), 1, "the fault was met: {what}");
    }
    let count = scene.server.mutations().iter().filter(|entry| !entry.request.path.contains("/events")).count();
    scene.wait_quiet_reviving();
    assert_eq!(scene.created().len(), 1, "still one Job: {what}");
    count
}

fn every_write(name: &str, fault: fn(&Operator) -> Fault) {
    for end in ["Complete", "Failed"] {
        let writes = disturbed_run(&format!("{name}-undisturbed"), 0, |_| None, end);
        assert_eq!(writes, if end == "Failed" { 4 } else { 5 }, "create, status, settle, status, and delete after a success");
        for k in 1..=writes {
            disturbed_run(name, k, |operator| Some(fault(operator)), end);
        }
    }
}

#[test]
fn killed_before_each_write() {
    every_write("kill-before", |operator| Fault::KillBefore(operator.killer()));
}

#[test]
fn killed_after_each_write() {
    every_write("kill-after", |operator| Fault::KillAfter(operator.killer()));
}

#[test]
fn reply_lost_at_each_write() {
    every_write("lose-reply", |_| Fault::LoseReply);
}

#[test]
fn server_error_at_each_write() {
    every_write("error", |_| Fault::status(500, "InternalError", "try again", None));
}

#[test]
fn a_conflict_at_each_write_is_read_and_decided_again() {
    every_write("conflict", |_| Fault::status(409, "Conflict", "the object has been modified", None));
}

#[test]
fn what_happens_while_it_is_down_is_served_afterwards_once_each() {
    let scene = Scene::new("down");
    scene.create("set", "manual", |_| {});
    scene.create("completing", "now", |_| {});
    scene.create("failing", "now", |_| {});
    scene.operator.start();
    let running = |name: &str| scene.operator.wait_for(name, || (condition(&scene.quarks_job(name), "Running") == "True").then_some(()));
    running("completing");
    running("failing");
    let job_of = |name: &str| scene.quarks_job(name)["status"]["active"]["jobName"].as_str().expect("an active Job").to_owned();
    let (completing, failing) = (job_of("completing"), job_of("failing"));
    scene.operator.kill9();

    scene.patch("set", json!({"spec": {"trigger": {"strategy": "now"}}}));
    scene.create("fresh", "once", |_| {});
    scene.create("asked", "manual", |object| object["metadata"]["annotations"] = json!({REQUESTED: "r1"}));
    play::finish_job(scene.server.api(), NAMESPACE, &completing, End::Complete);
    play::finish_job(scene.server.api(), NAMESPACE, &failing, End::Failed { reason: "BackoffLimitExceeded" });

    let _jobs = play::auto_complete(scene.server.api());
    scene.operator.start();
    for (name, strategy, outcome) in [
        ("set", "manual", "Succeeded"),
        ("fresh", "done", "Succeeded"),
        ("asked", "manual", "Succeeded"),
        ("completing", "manual", "Succeeded"),
        ("failing", "manual", "Failed"),
    ] {
        let object = scene.wait_settled(name, 1);
        assert_eq!(
            (&object["spec"]["trigger"]["strategy"], &object["status"]["lastRun"]["outcome"]),
            (&json!(strategy), &json!(outcome)),
            "{name}"
        );
    }
    scene.wait_jobs(1);
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 5, "{:?}", scene.created());
}

#[test]
fn replacing_a_finished_once_with_its_first_manifest_runs_nothing() {
    let scene = Scene::new("replace");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.wait_settled("q", 1);
    // `kubectl replace` writes the file as it was: no annotation of ours, strategy once again.
    scene.patch("q", json!({"metadata": {"annotations": {SETTLED: null}}, "spec": {"trigger": {"strategy": "once"}}}));
    scene.operator.wait_for("the generation observed", || {
        let object = scene.quarks_job("q");
        (object["status"]["observedGeneration"] == object["metadata"]["generation"]).then_some(())
    });
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1);
    assert_eq!(scene.quarks_job("q")["spec"]["trigger"]["strategy"], "once", "left as it is");
    wait_for("the Event AlreadyRan", || {
        let told = scene.server.mutations().iter().any(|entry| String::from_utf8_lossy(&entry.request.body).contains("AlreadyRan"));
        told.then_some(())
    });
    // Another template is another once.
    scene.patch("q", json!({"spec": {"template": {"spec": {"backoffLimit": 1}}}}));
    scene.wait_settled("q", 2);
    assert_eq!(scene.quarks_job("q")["spec"]["trigger"]["strategy"], "done");
    assert_eq!(scene.created().len(), 2);
}

#[test]
fn two_operators_at_once_make_one_run_each() {
    let scene = Scene::new("two");
    let second = program(&scene.server, &scene.folder);
    let _jobs = play::auto_complete(scene.server.api());
    scene.operator.start();
    second.start();
    let names: Vec<String> = (0..20).map(|number| format!("q{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        scene.create(name, if number % 2 == 0 { "once" } else { "now" }, |_| {});
    }
    for name in &names {
        scene.wait_settled(name, 1);
    }
    scene.wait_jobs(0);
    scene.wait_quiet();
    scene.wait_jobs(0);
    for name in &names {
        let object = scene.quarks_job(name);
        assert_eq!((&object["status"]["runs"], &object["status"]["lastRun"]["outcome"]), (&json!(1), &json!("Succeeded")), "{name}");
    }
    let created = scene.created();
    let distinct: std::collections::BTreeSet<_> = created.iter().collect();
    assert_eq!(distinct.len(), names.len(), "one run number each: {created:?}");
}

#[test]
fn a_create_that_arrives_after_its_run_is_over_is_undone() {
    let scene = Scene::new("stray");
    let gate = Gate::default();
    // The first operator's create waits in the network.
    scene.server.fault(When::request("POST", "/jobs").nth(1), Fault::Hold(gate.clone()));
    let auto = play::auto_complete(scene.server.api());
    scene.create("q", "now", |_| {});
    scene.operator.start();
    scene.operator.wait_for("the create on its way", || (gate.arrived() == 1).then_some(()));
    let second = program(&scene.server, &scene.folder);
    second.start();
    scene.wait_settled("q", 1);
    scene.wait_jobs(0);
    drop(auto);
    gate.open();
    scene.operator.wait_for("the late create", || (scene.created().len() == 2).then_some(()));
    scene.wait_jobs(0);
    scene.wait_quiet();
    let object = scene.quarks_job("q");
    assert_eq!((&object["status"]["runs"], &object["status"]["lastRun"]["run"]), (&json!(1), &json!(1)));
    assert_eq!(scene.created()[0], scene.created()[1], "the same name: a stray of run 1, not a run 2");
}

#[test]
fn an_operator_whose_watch_is_behind_makes_no_second_run() {
    let scene = Scene::new("behind");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "now", |_| {});
    // The one that will be behind sees the trigger, and then nothing more of QuarksJobs. Its own look at it is held up.
    let gate = Gate::default();
    scene.server.fault(When::request("GET", "/quarksjobs/q").nth(1), Fault::Hold(gate.clone()));
    let behind = program(&scene.server, &scene.folder);
    behind.start();
    let reads = |is_answered: bool| {
        let requests = scene.server.requests();
        requests.iter().filter(|entry| entry.is("GET", "/quarksjobs/q") && entry.status.is_some() == is_answered).count()
    };
    behind.wait_for("its look at the QuarksJob", || (reads(false) > 0).then_some(()));
    behind.wait_for("its watch", || (scene.server.command("/quarksjobs", &Command::Silence) > 0).then_some(()));
    behind.signal("STOP");
    scene.operator.start();
    scene.wait_settled("q", 1);
    scene.wait_jobs(0);
    let before = reads(true);
    gate.open();
    behind.signal("CONT");
    behind.wait_for("its answer", || (reads(true) > before).then_some(()));
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1, "{}", behind.log());
    assert_eq!(scene.quarks_job("q")["status"]["runs"], 1);
}

#[test]
fn a_reply_held_back_until_the_run_is_over_makes_no_second_run() {
    let scene = Scene::new("held-reply");
    let gate = Gate::default();
    scene.server.fault(When::request("POST", "/jobs").nth(1), Fault::HoldReply(gate.clone()));
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.wait_settled("q", 1);
    gate.open();
    scene.wait_jobs(0);
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1);
}

#[test]
fn a_trigger_set_during_a_run_leads_to_one_trailing_run() {
    let scene = Scene::new("trailing");
    scene.create("q", "manual", |object| object["metadata"]["annotations"] = json!({REQUESTED: "r1"}));
    scene.operator.start();
    let first = scene.wait_jobs(1)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    scene.patch("q", json!({"metadata": {"annotations": {REQUESTED: "r2"}}}));
    scene.patch("q", json!({"metadata": {"annotations": {REQUESTED: "r3"}}}));
    let _jobs = play::auto_complete(scene.server.api());
    let object = scene.wait_settled("q", 2);
    scene.wait_quiet();
    let created = scene.created();
    assert_eq!((created.len(), created.first()), (2, Some(&first)), "{created:?}");
    assert_eq!(object["spec"]["trigger"]["strategy"], "manual");
    let marker: Value = serde_json::from_str(object["metadata"]["annotations"][SETTLED].as_str().expect("a marker")).expect("JSON");
    assert_eq!(marker["request"], "r3", "values overwritten before being served are skipped");
}

#[test]
fn a_deleted_job_is_a_cancelled_run_and_is_not_run_again() {
    for is_down in [false, true] {
        let scene = Scene::new(&format!("cancelled-{is_down}"));
        scene.create("q", "once", |_| {});
        scene.operator.start();
        scene.operator.wait_for("the run", || (condition(&scene.quarks_job("q"), "Running") == "True").then_some(()));
        let job = scene.wait_jobs(1)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        if is_down {
            scene.operator.kill9();
        }
        scene.server.api().delete(&path("jobs", NAMESPACE, &job), "Background");
        if is_down {
            scene.operator.start();
        }
        let object = scene.wait_settled("q", 1);
        scene.wait_quiet();
        assert_eq!(
            (&object["status"]["lastRun"]["outcome"], &object["spec"]["trigger"]["strategy"]),
            (&json!("Cancelled"), &json!("done"))
        );
        assert_eq!(scene.created().len(), 1, "operator down: {is_down}");
    }
}

#[test]
fn a_refused_template_is_said_and_does_not_spin() {
    let scene = Scene::new("refused");
    let details =
        json!({"causes": [{"reason": "FieldValueRequired", "field": "spec.template.spec.restartPolicy", "message": "Required value"}]});
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "reason": "Invalid", "message": "restartPolicy: Required value", "details": details});
    scene.server.fault(When::request("POST", "/jobs").every(), Fault::Answer(crate::support::Response::json(422, &body)));
    scene.create("q", "now", |_| {});
    scene.operator.start();
    scene.operator.wait_for("Ready=False", || (condition(&scene.quarks_job("q"), "Ready") == "False").then_some(()));
    scene.wait_quiet();
    scene.wait_quiet();
    let tries = || scene.server.mutations().iter().filter(|entry| entry.is("POST", "/jobs")).count();
    assert_eq!(tries(), 1);
    let object = scene.quarks_job("q");
    let ready =
        object["status"]["conditions"].as_array().expect("conditions").iter().find(|c| c["type"] == "Ready").expect("Ready").clone();
    assert_eq!(ready["reason"], "InvalidTemplate");
    assert!(ready["message"].as_str().expect("a message").contains("restartPolicy"), "{ready}");
    assert_eq!(object["spec"]["trigger"]["strategy"], "now", "the trigger is not lost");
    // Fixing the spec makes it run at once.
    scene.server.clear_faults();
    let _jobs = play::auto_complete(scene.server.api());
    scene.patch("q", json!({"spec": {"template": {"spec": {"backoffLimit": 0}}}}));
    assert_eq!(scene.wait_settled("q", 1)["status"]["lastRun"]["outcome"], "Succeeded");
}

#[test]
fn labels_of_the_namespace_come_and_go() {
    let scene = Scene::new("labels");
    let _jobs = play::auto_complete(scene.server.api());
    let namespace = path("namespaces", "", NAMESPACE);
    let label =
        |value: Value| scene.server.api().patch(&namespace, &json!({"metadata": {"labels": {"quarks.cloudfoundry.org/monitored": value}}}));
    label(Value::Null);
    scene.create("q", "now", |_| {});
    play::monitored_namespace(scene.server.api(), "other");
    scene.server.api().create(&path("quarksjobs", "other", ""), play::quarks_job("sentinel", "manual"));
    scene.operator.start();
    scene.operator.wait_for("the other namespace served", || {
        let object = scene.server.api().get(&path("quarksjobs", "other", "sentinel"))?;
        (object["status"]["observedGeneration"] == 1).then_some(())
    });
    assert!(scene.quarks_job("q")["status"].is_null() && scene.created().is_empty(), "nothing is written where the label is missing");
    label(json!("default"));
    scene.wait_settled("q", 1);
    label(json!("another-operator"));
    // Namespaces come in order: when one that was made later is served, the operator knows of the label.
    play::monitored_namespace(scene.server.api(), "later");
    scene.server.api().create(&path("quarksjobs", "later", ""), play::quarks_job("sentinel", "manual"));
    scene.operator.wait_for("the later namespace served", || {
        let object = scene.server.api().get(&path("quarksjobs", "later", "sentinel"))?;
        (object["status"]["observedGeneration"] == 1).then_some(())
    });
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    scene.server.api().patch(&path("quarksjobs", "other", "sentinel"), &json!({"spec": {"suspend": true}}));
    scene.operator.wait_for("the other namespace served again", || {
        let object = scene.server.api().get(&path("quarksjobs", "other", "sentinel"))?;
        (object["status"]["observedGeneration"] == 2).then_some(())
    });
    assert_eq!(scene.created().len(), 1);
    label(json!("default"));
    scene.wait_settled("q", 2);
}

#[test]
fn sigterm_ends_it_cleanly() {
    let scene = Scene::new("sigterm");
    scene.operator.start();
    scene.wait_quiet();
    scene.operator.sigterm();
    let status = scene.operator.wait_exit(crate::support::operator::LIMIT).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", scene.operator.log());
}
