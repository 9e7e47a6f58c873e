//! The real operator and what QuarksJobs refer to, against the scripted API server: config changes, also while it is down or while a
//! run goes on, baselines, missing references, and watches that are there only while they are needed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::play::{self, End, path};
use crate::support::scene::{NAMESPACE, Scene, condition, program};
use crate::support::{Command, Fault, Gate, Request, When};

const RUN: &str = "quarks.cloudfoundry.org/run";
const KEY: &str = "quarks-job-config-key";

/// A one-off that uses ConfigMap `settings` and Secret `login` by `envFrom`, and runs when they change.
fn uses(object: &mut Value, names: &[(&str, &str)]) {
    let sources: Vec<Value> = names.iter().map(|(kind, name)| json!({*kind: {"name": name}})).collect();
    object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!(sources);
}

fn on_change(object: &mut Value) {
    uses(object, &[("configMapRef", "settings"), ("secretRef", "login")]);
    object["spec"]["updateOnConfigChange"] = json!(true);
}

fn put(scene: &Scene, plural: &str, name: &str, value: &str) {
    let path_of = path(plural, NAMESPACE, name);
    let object = json!({"metadata": {"name": name}, "data": {"a": value}});
    if scene.server.api().get(&path_of).is_some() {
        scene.server.api().patch(&path_of, &object);
    } else {
        scene.server.api().create(&path(plural, NAMESPACE, ""), object);
    }
}

fn both(scene: &Scene, value: &str) {
    put(scene, "configmaps", "settings", value);
    put(scene, "secrets", "login", value);
}

/// A scene in which `q` has run once with what both say first, and Jobs complete by themselves.
fn ran_once(name: &str) -> (Scene, play::Auto) {
    let scene = Scene::new(name);
    // A Job takes longer than a status write: else the number of writes would depend on who is faster.
    let jobs = play::auto(scene.server.api(), |api, job| {
        let name = job["metadata"]["name"].as_str().expect("a name");
        crate::support::wait_for("the run in status", || {
            let object = api.get(&path("quarksjobs", NAMESPACE, "q"))?;
            (object["status"]["active"]["jobName"] == name).then_some(())
        });
        play::finish_job(api, NAMESPACE, name, End::Complete);
    });
    both(&scene, "A");
    scene.create("q", "once", on_change);
    scene.operator.start();
    scene.wait_settled("q", 1);
    (scene, jobs)
}

fn config_of_run(scene: &Scene, run: u64) -> String {
    let object = scene.quarks_job("q");
    let marker: Value = serde_json::from_str(object["status"]["settled"].as_str().expect("a marker")).expect("JSON");
    assert_eq!(marker["runs"], run);
    marker["config"].as_str().unwrap_or_default().to_owned()
}

fn watches_of(scene: &Scene, plural: &str) -> usize {
    scene.server.watches().iter().filter(|path| path.contains(plural)).count()
}

fn wait_watches(scene: &Scene, counts: [usize; 2]) {
    scene.operator.wait_for(&format!("{counts:?} watches of ConfigMaps and Secrets"), || {
        ([watches_of(scene, "/configmaps"), watches_of(scene, "/secrets")] == counts).then_some(())
    });
}

/// Waits until the operator has taken a change in that was made after all others, burst included.
fn wait_looked(scene: &Scene, looks: usize) {
    scene.operator.wait_for(&format!("{looks} looks"), || (looked(scene) >= looks).then_some(()));
    scene.wait_quiet();
}

fn looked(scene: &Scene) -> usize {
    scene.operator.log().matches("key=team/q step=LookAtReferences").count()
}

#[test]
fn a_burst_of_edits_is_one_run_with_the_last_content() {
    let (scene, _jobs) = ran_once("burst");
    wait_watches(&scene, [1, 1]);
    // A fresh list means a look at once, which would see the first edits.
    scene.wait_quiet();
    let first = config_of_run(&scene, 1);
    // The operator hears of all at once: on a machine that stands still for a second in between it would be two bursts.
    let heard = Gate::default();
    for plural in ["/configmaps", "/secrets"] {
        assert_eq!(scene.server.command(plural, &Command::Gather(heard.clone())), 1, "watches of {plural}");
        scene.operator.wait_for("the watch to gather", || (scene.server.pending(plural) == 0).then_some(()));
    }
    for edit in 0..50 {
        both(&scene, &format!("edit {edit}"));
    }
    heard.open();
    scene.wait_settled("q", 2);
    let second = config_of_run(&scene, 2);
    assert_ne!(first, second);
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 2, "{}", scene.operator.log());
    assert_eq!(scene.quarks_job("q")["status"]["lastRun"]["trigger"], "config");
    assert_eq!(scene.quarks_job("q")["spec"]["trigger"]["strategy"], "done");
    // Only what containers see counts.
    let looks = looked(&scene);
    scene.server.api().patch(&path("configmaps", NAMESPACE, "settings"), &json!({"metadata": {"labels": {"a": "b"}}}));
    wait_looked(&scene, looks + 1);
    assert_eq!(scene.created().len(), 2, "a label is no content\n{}", scene.operator.log());
    scene.server.api().patch(&path("configmaps", NAMESPACE, "settings"), &json!({"binaryData": {"b": "AAAA"}}));
    scene.wait_settled("q", 3);
}

#[test]
fn what_changes_while_it_is_down_is_seen_and_what_is_as_before_is_not() {
    let (scene, _jobs) = ran_once("down");
    scene.operator.kill9();
    both(&scene, "B");
    both(&scene, "A");
    scene.operator.start();
    wait_looked(&scene, 1);
    assert_eq!(scene.created().len(), 1, "A, B, A is no change: {}", scene.operator.log());
    scene.operator.kill9();
    put(&scene, "secrets", "login", "B");
    scene.operator.start();
    scene.wait_settled("q", 2);
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 2);
    // Deleted and made anew with the same content while it is down: no change either.
    scene.operator.kill9();
    scene.server.api().delete(&path("secrets", NAMESPACE, "login"), "Background");
    put(&scene, "secrets", "login", "B");
    let looks = looked(&scene);
    scene.operator.start();
    wait_looked(&scene, looks + 1);
    assert_eq!(scene.created().len(), 2);
}

#[test]
fn a_change_during_a_run_is_one_trailing_run_with_the_newest_content() {
    let scene = Scene::new("trailing");
    both(&scene, "A");
    scene.create("q", "once", on_change);
    scene.operator.start();
    let first = scene.wait_jobs(1)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    scene.operator.wait_for("the run in status", || (condition(&scene.quarks_job("q"), "Running") == "True").then_some(()));
    wait_watches(&scene, [1, 1]);
    for value in ["B", "C", "D"] {
        both(&scene, value);
    }
    play::finish_job(scene.server.api(), NAMESPACE, &first, End::Complete);
    let _jobs = play::auto_complete(scene.server.api());
    scene.wait_settled("q", 2);
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 2, "{}", scene.operator.log());
    let newest = config_of_run(&scene, 2);
    // What that run used is what is there now: a look finds no change.
    scene.operator.kill9();
    let looks = looked(&scene);
    scene.operator.start();
    wait_looked(&scene, looks + 1);
    assert_eq!((scene.created().len(), config_of_run(&scene, 2)), (2, newest));
}

#[test]
fn switching_it_on_another_template_and_a_lost_key_take_a_baseline_and_run_nothing() {
    let (scene, _jobs) = ran_once("baseline");
    let stored = |scene: &Scene| config_of_run(scene, 1);
    let changed_from = |old: &str| {
        scene.operator.wait_for("another baseline", || (stored(&scene) != old).then(|| stored(&scene)));
        scene.wait_quiet();
        assert_eq!(scene.created().len(), 1, "{}", scene.operator.log());
        stored(&scene)
    };
    let before = stored(&scene);
    scene.patch("q", json!({"spec": {"updateOnConfigChange": false}}));
    let off = changed_from(&before);
    assert_eq!(off, "");
    both(&scene, "B");
    scene.patch("q", json!({"spec": {"updateOnConfigChange": true}}));
    let on = changed_from(&off);
    scene.patch("q", json!({"spec": {"template": {"spec": {"backoffLimit": 1}}}}));
    let template = changed_from(&on);
    wait_watches(&scene, [1, 1]);
    scene.server.api().delete(&path("secrets", NAMESPACE, KEY), "Background");
    changed_from(&template);
    // The key is random, 32 bytes, in a Secret that no pod mounts.
    let key = scene.server.api().get(&path("secrets", NAMESPACE, KEY)).expect("a new key");
    assert_eq!((key["type"].as_str(), key["data"]["key"].as_str().map(str::len)), (Some("quarks.cloudfoundry.org/config-key"), Some(44)));
    both(&scene, "C");
    let object = scene.wait_settled("q", 2);
    assert_eq!(object["status"]["lastRun"]["trigger"], "config");
}

#[test]
fn first_seen_as_done_takes_a_baseline_and_runs_at_the_first_change() {
    let scene = Scene::new("first-done");
    let _jobs = play::auto_complete(scene.server.api());
    both(&scene, "A");
    scene.create("q", "done", on_change);
    scene.operator.start();
    wait_watches(&scene, [1, 1]);
    scene.operator.wait_for("a baseline", || {
        let marker = scene.quarks_job("q")["status"]["settled"].as_str().unwrap_or_default().to_owned();
        marker.contains("hmac-sha256:").then_some(())
    });
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 0);
    both(&scene, "B");
    scene.wait_settled("q", 1);
}

#[test]
fn errands_and_suspended_ones_do_not_run_and_what_waited_does_on_resume() {
    let scene = Scene::new("quiet");
    let _jobs = play::auto_complete(scene.server.api());
    both(&scene, "A");
    scene.create("errand", "manual", on_change);
    scene.create("q", "once", on_change);
    scene.operator.start();
    scene.wait_settled("q", 1);
    wait_watches(&scene, [1, 1]);
    scene.patch("q", json!({"spec": {"suspend": true}}));
    scene.operator.wait_for("suspended", || scene.quarks_job("q")["status"].to_string().contains("Suspended").then_some(()));
    both(&scene, "B");
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1);
    scene.patch("q", json!({"spec": {"suspend": false}}));
    scene.wait_settled("q", 2);
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 2);
}

#[test]
fn a_missing_reference_is_named_and_the_run_starts_when_the_last_one_appears() {
    for strategy in ["now", "once"] {
        let scene = Scene::new(&format!("missing-{strategy}"));
        let _jobs = play::auto_complete(scene.server.api());
        let optional = |object: &mut Value| {
            uses(object, &[("configMapRef", "settings"), ("secretRef", "login"), ("secretRef", "maybe")]);
            object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["envFrom"][2]["secretRef"]["optional"] = json!(true);
        };
        scene.create("q", strategy, optional);
        scene.operator.start();
        let ready = |names: &[&str], not: &[&str]| {
            scene.operator.wait_for(&format!("missing {names:?}"), || {
                let status = scene.quarks_job("q")["status"]["conditions"].to_string();
                let is_said = status.contains("MissingReference") && names.iter().all(|name| status.contains(name));
                (is_said && !not.iter().any(|name| status.contains(name))).then_some(())
            });
        };
        ready(&["configmap/settings", "secret/login"], &["maybe"]);
        let object = scene.quarks_job("q");
        assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"], "{strategy}: {object}");
        wait_watches(&scene, [1, 1]);
        // Looking again is caused by events and not by time: nothing is asked on a quiet cluster. The first lists are such an event.
        let asked = |plural: &str| scene.server.requests().iter().filter(|entry| entry.is("GET", plural)).count();
        let mut last = (0, Instant::now());
        scene.operator.wait_for("the looks that the first lists have caused to be over", || {
            let count = asked("/secrets/") + asked("/configmaps/");
            if count != last.0 {
                last = (count, Instant::now());
            }
            (last.1.elapsed() >= Duration::from_secs(3)).then_some(())
        });
        scene.wait_quiet();
        scene.server.forget_requests();
        put(&scene, "secrets", "other", "x");
        scene.wait_quiet();
        assert_eq!((asked("/secrets/"), asked("/configmaps/")), (0, 0), "{strategy}: requests for Secrets and ConfigMaps");
        put(&scene, "secrets", "login", "x");
        ready(&["configmap/settings"], &["secret/login"]);
        assert_eq!(scene.created().len(), 0, "{strategy}: a Job although a reference is missing");
        // Also after a restart.
        scene.operator.kill9();
        scene.operator.start();
        wait_watches(&scene, [1, 1]);
        put(&scene, "configmaps", "settings", "x");
        scene.wait_settled("q", 1);
        assert_eq!(condition(&scene.quarks_job("q"), "Ready"), "True");
        assert_eq!(scene.created().len(), 1, "{strategy}: Jobs");
        // Nobody needs the watches any more.
        wait_watches(&scene, [0, 0]);
    }
}

#[test]
fn an_errand_that_could_not_run_says_so_before_it_is_asked() {
    let scene = Scene::new("unready");
    scene.create("q", "manual", |object| uses(object, &[("secretRef", "login")]));
    scene.operator.start();
    let ready = |expected: &str| {
        scene.operator.wait_for(&format!("Ready={expected}"), || (condition(&scene.quarks_job("q"), "Ready") == expected).then_some(()));
    };
    ready("False");
    wait_watches(&scene, [0, 1]);
    put(&scene, "secrets", "login", "x");
    ready("True");
}

#[test]
fn a_newer_version_is_a_change_and_a_name_that_only_looks_like_it_is_not() {
    let scene = Scene::new("versions");
    let _jobs = play::auto_complete(scene.server.api());
    let version = |base: &str, number: u64, value: &str| {
        let labels = json!({"quarks.cloudfoundry.org/secret-kind": "versionedSecret",
            "quarks.cloudfoundry.org/secret-version": number.to_string()});
        let object = json!({"metadata": {"name": format!("{base}-v{number}"), "labels": labels}, "data": {"a": value}, "immutable": true});
        scene.server.api().create(&path("secrets", NAMESPACE, ""), object);
    };
    version("db", 1, "x");
    scene.create("q", "once", |object| {
        uses(object, &[("secretRef", "db-v1")]);
        object["spec"]["updateOnConfigChange"] = json!(true);
    });
    scene.operator.start();
    scene.wait_settled("q", 1);
    wait_watches(&scene, [0, 1]);
    version("mydb", 2, "y");
    version("db-v1", 7, "y");
    scene.wait_quiet();
    version("db", 2, "y");
    let object = scene.wait_settled("q", 2);
    assert_eq!(object["status"]["lastRun"]["trigger"], "config");
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 2, "{}", scene.operator.log());
}

#[test]
fn its_own_output_does_not_make_it_run_again() {
    let scene = Scene::new("own");
    let stored = r#"{"secrets":[{"name":"result","container":"main","file":"output.json"}],"errors":[],"stored":true}"#;
    scene.create("q", "once", |object| {
        object["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": "result"}}}});
        object["spec"]["updateOnConfigChange"] = json!(true);
        uses(object, &[("configMapRef", "settings"), ("secretRef", "result"), ("secretRef", "by-annotation")]);
        for at in [1, 2] {
            object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["envFrom"][at]["secretRef"]["optional"] = json!(true);
        }
    });
    put(&scene, "configmaps", "settings", "A");
    let written = |name: &str, value: &str| {
        let annotations = json!({"quarks.cloudfoundry.org/written-by": "q"});
        json!({"metadata": {"name": name, "annotations": annotations}, "data": {"a": value}})
    };
    let _jobs = play::auto(scene.server.api(), move |api, job| {
        let name = job["metadata"]["name"].as_str().expect("a name");
        play::create_pod_for_job(api, NAMESPACE, name, &[("main", 0, ""), ("output-persist", 0, stored)]);
        play::finish_job(api, NAMESPACE, name, End::Complete);
    });
    scene.operator.start();
    scene.wait_settled("q", 1);
    wait_watches(&scene, [1, 1]);
    for name in ["result", "by-annotation"] {
        scene.server.api().create(&path("secrets", NAMESPACE, ""), written(name, "1"));
        let looks = looked(&scene);
        scene.server.api().patch(&path("secrets", NAMESPACE, name), &written(name, "2"));
        wait_looked(&scene, looks + 1);
    }
    assert_eq!(scene.created().len(), 1, "{}", scene.operator.log());
    put(&scene, "configmaps", "settings", "B");
    scene.wait_settled("q", 2);
    let events = scene.server.api().list(&path("events", NAMESPACE, ""));
    assert!(events.iter().any(|event| event["reason"] == "SelfReference"), "{events:?}");
}

#[test]
fn many_that_use_one_secret_all_run_and_hold_up_nobody() {
    const MANY: usize = 60;
    let scene = Scene::new("many");
    let _jobs = play::auto_complete(scene.server.api());
    both(&scene, "A");
    for number in 0..MANY {
        scene.create(&format!("q{number}"), "once", on_change);
    }
    scene.operator.start();
    for number in 0..MANY {
        scene.wait_settled(&format!("q{number}"), 1);
    }
    scene.wait_quiet();
    wait_watches(&scene, [1, 1]);
    scene.server.forget_requests();
    put(&scene, "secrets", "login", "B");
    for number in 0..MANY {
        scene.wait_settled(&format!("q{number}"), 2);
    }
    scene.wait_quiet();
    assert_eq!(scene.created().len(), MANY);
    let content = scene.server.requests().iter().filter(|entry| entry.is("GET", "/secrets/login")).count();
    assert!(content <= 4, "the content is read once, or by each worker at the same time: {content}");
}

#[test]
fn what_somebody_asks_for_goes_before_config_runs_of_many() {
    const MANY: usize = 60;
    let Scene { server, operator, folder } = Scene::new("asked-first");
    // Two workers for a namespace.
    let scene = Scene { server, operator: operator.arg("--max-workers=4"), folder };
    let _jobs = play::auto_complete(scene.server.api());
    both(&scene, "A");
    play::monitored_namespace(scene.server.api(), "quiet");
    scene.server.api().create(&path("quarksjobs", "quiet", ""), play::quarks_job("later", "manual"));
    scene.create("asked", "manual", |_| {});
    for number in 0..MANY {
        scene.create(&format!("q{number}"), "done", on_change);
    }
    scene.operator.start();
    for number in 0..MANY {
        scene.operator.wait_for("its baseline", || {
            scene.quarks_job(&format!("q{number}"))["status"]["settled"].as_str().filter(|settled| settled.contains("config")).map(|_| ())
        });
    }
    wait_watches(&scene, [1, 1]);
    scene.wait_quiet();
    // The workers that the namespace may have hang in the first creates; all others wait for their turn.
    let gate = Gate::default();
    let creates = |request: &Request| request.method == "POST" && request.path.contains(&format!("/namespaces/{NAMESPACE}/jobs"));
    scene.server.fault(When::matching(creates).times(usize::MAX), Fault::Hold(gate.clone()));
    put(&scene, "secrets", "login", "B");
    scene.operator.wait_for("creates that hang", || (gate.arrived() >= 2).then_some(()));
    let now = json!({"spec": {"trigger": {"strategy": "now"}}});
    scene.patch("asked", now.clone());
    // What comes by the same watch afterwards is known, so this is, too.
    scene.server.api().patch(&path("quarksjobs", "quiet", "later"), &now);
    scene.operator.wait_for("its Job", || (!scene.created().is_empty()).then_some(()));
    gate.open();
    scene.wait_settled("asked", 1);
    for number in 0..MANY {
        scene.wait_settled(&format!("q{number}"), 1);
    }
    let created = scene.created();
    let place = created.iter().position(|job| job.starts_with("asked-")).expect("its Job");
    // The one elsewhere, the two that hung, and one that the other worker has begun with.
    assert!(place <= 4, "{place} Jobs were made before that of somebody who asked: {created:?}");
}

#[test]
fn a_change_is_not_lost_to_a_watch_that_breaks() {
    let (scene, _jobs) = ran_once("broken-watch");
    wait_watches(&scene, [1, 1]);
    // The event of this change never comes: when the watch asks again, the server does not remember so far back.
    scene.server.set_down(true);
    scene.server.drop_connections();
    put(&scene, "secrets", "login", "B");
    scene.server.api().compact();
    scene.server.set_down(false);
    scene.wait_settled("q", 2);
}

#[test]
fn a_config_run_is_one_run_whatever_happens_at_its_writes() {
    let writes = || When::matching(|request: &Request| request.method != "GET" && !request.path.contains("/events"));
    for k in 1..=5 {
        for fault in ["kill-before", "kill-after", "lose-reply", "500"] {
            let (scene, _jobs) = ran_once(&format!("config-{fault}-{k}"));
            scene.wait_quiet();
            wait_watches(&scene, [1, 1]);
            let rule = scene.server.fault(
                writes().nth(k),
                match fault {
                    "kill-before" => Fault::KillBefore(scene.operator.killer()),
                    "kill-after" => Fault::KillAfter(scene.operator.killer()),
                    "lose-reply" => Fault::LoseReply,
                    _ => Fault::status(500, "InternalError", "try again", None),
                },
            );
            put(&scene, "secrets", "login", "B");
            crate::support::wait_for(&format!("the second run in status, {fault} at write {k}"), || {
                scene.revive();
                let object = scene.quarks_job("q");
                (object["status"]["lastRun"]["run"] == 2 && scene.jobs().is_empty() && rule.hits() == 1).then_some(())
            });
            scene.wait_quiet_reviving();
            assert_eq!(scene.created().len(), 2, "{fault} at write {k}: {}", scene.operator.log());
        }
    }
}

#[test]
fn two_operators_by_mistake_make_one_run_of_each_change_and_one_baseline() {
    let (scene, _jobs) = ran_once("two");
    let second = program(&scene.server, &scene.folder);
    second.start();
    wait_watches(&scene, [2, 2]);
    // One edit each: two can be a second apart on a machine that stands still, and then they are two bursts.
    for (run, plural, name) in [(2, "secrets", "login"), (3, "configmaps", "settings"), (4, "secrets", "login")] {
        put(&scene, plural, name, &format!("of run {run}"));
        scene.wait_settled("q", run);
    }
    // A lost key is made anew by one of them; whoever comes second uses it.
    let before = config_of_run(&scene, 4);
    scene.server.api().delete(&path("secrets", NAMESPACE, KEY), "Background");
    scene.operator.wait_for("another baseline", || (config_of_run(&scene, 4) != before).then_some(()));
    put(&scene, "configmaps", "settings", "of run 5");
    scene.wait_settled("q", 5);
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 5, "{}\n{}", scene.operator.log(), second.log());
}

#[test]
fn runs_say_which_config_they_used_and_never_what_it_was() {
    let scene = Scene::new("secrecy");
    both(&scene, "Y2FuYXJ5LWNhbmFyeQ==");
    scene.create("q", "once", on_change);
    scene.operator.start();
    let job = scene.wait_jobs(1).remove(0);
    let record = job["metadata"]["annotations"][RUN].as_str().expect("a record");
    assert!(record.contains("hmac-sha256:"), "{record}");
    for text in [scene.operator.log(), scene.quarks_job("q").to_string(), job.to_string()] {
        assert!(!text.contains("Y2FuYXJ5") && !text.contains("canary-canary"), "{text}");
    }
}
