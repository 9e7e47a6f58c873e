//! The real operator against the scripted API server, where others do what they like: Jobs that are not ours cost nothing, whatever they
//! claim, and a namespace that is labelled late gets all that it had before.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::play::{self, End, path};
use crate::support::probe::{Samples, listening};
use crate::support::scene::{NAMESPACE, Scene, condition};
use crate::support::{Fault, Gate, Operator, Request, When};

/// More may not be resident at any time than without hostile objects, in KiB.
const PEAK_MORE: usize = 8_000_000 / 1024;
/// As long as the API server takes them.
const LONG: usize = 250 * 1024;

/// Enough for twice as much as may be resident. `scripts/bench foreign` has 300, and an API server that is faster than this one.
const HOSTILE: usize = 75;

/// What the API server takes a second, watches aside.
const REQUESTS: usize = 50;
/// QuarksJobs that all want to start.
const CROWD: usize = 100;

/// The most that was ever resident, in KiB.
fn peak(operator: &Operator) -> usize {
    let pid = operator.pid().expect("running");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says so");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// A Job with a record as long as it may be. It claims to belong to `q`: from elsewhere, by an unknown UID, rightly.
fn hostile_job(scene: &Scene, number: usize) {
    let q = scene.quarks_job("q");
    let (namespace, uid) = match number % 3 {
        0 => ("foreign", q["metadata"]["uid"].clone()),
        1 => (NAMESPACE, json!(format!("unknown-{number}"))),
        _ => (NAMESPACE, q["metadata"]["uid"].clone()),
    };
    let record = json!({"run": 9, "trigger": "request", "request": "x".repeat(LONG)}).to_string();
    let owner =
        json!([{"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q", "uid": uid, "controller": true}]);
    let metadata =
        json!({"name": format!("hostile-{number}"), "annotations": {"quarks.cloudfoundry.org/run": record}, "ownerReferences": owner});
    scene.server.api().create(&path("jobs", namespace, ""), json!({"metadata": metadata, "spec": {"suspend": true}}));
}

fn label(scene: &Scene, value: Value) {
    let labels = json!({"metadata": {"labels": {"quarks.cloudfoundry.org/monitored": value}}});
    scene.server.api().patch(&path("namespaces", "", NAMESPACE), &labels);
}

fn wait_caches(operator: &Operator) {
    operator.wait_for("its caches", || operator.log().contains("caches synced").then_some(()));
}

#[test]
fn hostile_jobs_cost_no_memory_and_hold_up_nobody() {
    let scene = Scene::new("hostile");
    play::namespace(scene.server.api(), "foreign", &json!({}));
    scene.create("q", "manual", |_| {});
    let run = |number: u64| {
        scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
        // Not by listing: the Jobs of others are large here, too.
        let name = scene.operator.wait_for("the Job", || scene.created().get(usize::try_from(number - 1).ok()?).cloned());
        play::finish_job(scene.server.api(), NAMESPACE, &name, End::Complete);
        let object = scene.wait_settled("q", number);
        assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded");
        let is_gone = || scene.server.api().get(&path("jobs", NAMESPACE, &name)).is_none().then_some(());
        scene.operator.wait_for("its Job gone", is_gone);
    };
    scene.operator.start();
    run(1);
    let before = peak(&scene.operator);
    scene.operator.kill9();

    (0..HOSTILE).for_each(|number| hostile_job(&scene, number));
    scene.operator.start();
    run(2);
    // And while it watches.
    (HOSTILE..HOSTILE + 15).for_each(|number| hostile_job(&scene, number));
    run(3);
    let after = peak(&scene.operator);
    assert!(after <= before + PEAK_MORE, "{before} KiB without hostile Jobs, {after} KiB with them");
    assert_eq!(scene.created().len(), 3);
    let harmed = scene.server.mutations().into_iter().filter(|entry| entry.request.path.contains("hostile")).count();
    assert_eq!(harmed, 0, "none of them was touched");
}

#[test]
fn a_namespace_that_is_labelled_late_gets_its_quarks_jobs_and_a_run_under_way_goes_on() {
    let scene = Scene::new("late");
    scene.create("q", "once", |_| {});
    scene.operator.start();
    let job = scene.wait_jobs(1).remove(0);
    scene.operator.wait_for("the run in status", || (scene.quarks_job("q")["status"]["active"]["run"] == 1).then_some(()));
    scene.operator.kill9();

    // One that starts while the label is gone knows nothing of it, and then all.
    label(&scene, Value::Null);
    scene.create("new", "manual", |_| {});
    scene.operator.start();
    wait_caches(&scene.operator);
    label(&scene, json!("default"));
    scene.operator.wait_for("a look at the new one", || (condition(&scene.quarks_job("new"), "Ready") == "True").then_some(()));
    play::finish_job(scene.server.api(), NAMESPACE, job["metadata"]["name"].as_str().expect("a name"), End::Complete);
    assert_eq!(scene.wait_settled("q", 1)["status"]["lastRun"]["outcome"], "Succeeded");
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1, "{}", scene.operator.log());

    // The same while it runs, away and back.
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    let job = scene.wait_jobs(1).remove(0);
    label(&scene, Value::Null);
    label(&scene, json!("default"));
    play::finish_job(scene.server.api(), NAMESPACE, job["metadata"]["name"].as_str().expect("a name"), End::Complete);
    assert_eq!(scene.wait_settled("q", 2)["status"]["lastRun"]["outcome"], "Succeeded");
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 2, "{}", scene.operator.log());
}

#[test]
fn what_decides_whose_an_object_is_is_listed_before_it() {
    let scene = Scene::new("order");
    let first_list = |plural: &str| {
        let is_list = |path: &str| path.ends_with(plural);
        scene.server.requests().iter().find(|entry| !entry.request.is_watch() && is_list(&entry.request.path)).cloned()
    };
    let gate = Gate::default();
    scene.server.fault(When::request("GET", "/quarksjobs").nth(1), Fault::HoldReply(gate.clone()));
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.operator.wait_for("the QuarksJobs asked for", || first_list("/quarksjobs"));
    assert!(first_list("/namespaces").is_some_and(|entry| entry.status == Some(200)), "namespaces were not listed");
    assert!(first_list("/jobs").is_none(), "Jobs wait for the QuarksJobs");
    gate.open();
    scene.wait_jobs(1);
    assert!(
        first_list("/jobs").expect("asked for").seq > first_list("/quarksjobs").expect("asked for").seq,
        "Jobs were listed before QuarksJobs"
    );
}

/// Counts requests in a second that begins with the first of them.
#[derive(Default)]
struct Limiter {
    second: Option<Instant>,
    taken: usize,
    taken_in_all: usize,
}

impl Limiter {
    fn is_too_many(&mut self, now: Instant) -> bool {
        if self.second.is_none_or(|second| now - second >= Duration::from_secs(1)) {
            (self.second, self.taken) = (Some(now), 0);
        }
        let is_taken = self.taken < REQUESTS;
        self.taken += usize::from(is_taken);
        self.taken_in_all += usize::from(is_taken);
        !is_taken
    }
}

#[test]
fn an_api_server_that_takes_so_many_requests_a_second_is_used_to_that_limit() {
    let scene = Scene::new("limited");
    (0..CROWD).for_each(|number| scene.create(&format!("q{number}"), "once", |_| {}));
    let limiter = Arc::new(Mutex::new(Limiter::default()));
    let limits = Arc::clone(&limiter);
    let is_too_many = move |request: &Request| !request.is_watch() && limits.lock().expect("no panic").is_too_many(Instant::now());
    let busy = Fault::status(429, "TooManyRequests", "Too many requests, please try again later.", Some("1"));
    let rule = scene.server.fault(When::matching(is_too_many).times(usize::MAX), busy);
    let start = Instant::now();
    scene.operator.start();
    scene.operator.wait_for("all of them in status", || {
        let is_active = |number| condition(&scene.quarks_job(&format!("q{number}")), "Running") == "True";
        (0..CROWD).all(is_active).then_some(())
    });
    let (taken, allowed) = (limiter.lock().expect("no panic").taken_in_all as f64, REQUESTS as f64 * start.elapsed().as_secs_f64());
    assert!(rule.hits() > 3, "the limit was reached {} times", rule.hits());
    assert!(taken * 1.4 > allowed, "{taken} requests were taken in a time for {allowed}; {}", scene.operator.log());
    assert!(taken < 5.0 * CROWD as f64, "{taken} requests for {CROWD}: GET, POST, status and an Event each, and few more");
    assert_eq!(scene.created().len(), CROWD);
}

/// A QuarksJob in a namespace that is served, too.
fn elsewhere(scene: &Scene, name: &str, namespace: &str, strategy: &str) {
    scene.server.api().create(&path("quarksjobs", namespace, ""), play::quarks_job(name, strategy));
}

#[test]
fn a_namespace_where_calls_hang_holds_up_no_other() {
    let scene = Scene::new("hanging");
    let (here, there) = (path("quarksjobs", "quiet", "q"), path("jobs", "quiet", ""));
    play::monitored_namespace(scene.server.api(), "quiet");
    elsewhere(&scene, "q", "quiet", "manual");
    let run = |scene: &Scene, runs: u64| {
        scene.server.api().patch(&here, &json!({"spec": {"trigger": {"strategy": "now"}}}));
        let job = scene.operator.wait_for("its Job", || scene.server.api().list(&there).pop());
        play::finish_job(scene.server.api(), "quiet", job["metadata"]["name"].as_str().expect("a name"), End::Complete);
        scene.operator.wait_for("its end in status", || {
            let object = scene.server.api().get(&here)?;
            (object["status"]["lastRun"]["run"] == runs && scene.server.api().list(&there).is_empty()).then_some(())
        });
    };
    // As behind an admission webhook that never answers: first all creates of Jobs, then all that ends runs.
    let (creates, ends) = (Gate::default(), Gate::default());
    let of_team = |request: &Request, method: &str, part: &str| {
        request.method == method && request.path.contains(&format!("/namespaces/{NAMESPACE}/")) && request.path.contains(part)
    };
    let create = When::matching(move |request| of_team(request, "POST", "/jobs")).times(usize::MAX);
    scene.server.fault(create, Fault::Hold(creates.clone()));
    (0..40).for_each(|number| scene.create(&format!("q{number}"), "once", |_| {}));
    scene.operator.start();
    scene.operator.wait_for("creates that hang", || (creates.arrived() >= 2).then_some(()));
    run(&scene, 1);
    assert_eq!(scene.created().len(), 1, "all others hang");

    let settle = When::matching(move |request| of_team(request, "PATCH", "/quarksjobs/")).times(usize::MAX);
    scene.server.fault(settle, Fault::Hold(ends.clone()));
    creates.open();
    scene.operator.wait_for("writes that hang", || (ends.arrived() >= 2).then_some(()));
    run(&scene, 2);
    ends.open();
    scene.wait_jobs(40);
}

#[test]
fn what_is_not_served_is_never_worked_on() {
    let scene = listening(Scene::new("not-served"));
    play::namespace(scene.server.api(), "foreign", &json!({}));
    elsewhere(&scene, "q", "foreign", "now");
    scene.operator.start();
    wait_caches(&scene.operator);
    scene.create("sign", "manual", |_| {});
    scene.wait_quiet();
    let adds =
        || ["errand", "job"].map(|queue| Samples::scrape(&scene.operator).value(&format!("workqueue_adds_total{{name=\"{queue}\"}}")));
    let before = adds();
    for number in 0..300 {
        scene.server.api().patch(&path("quarksjobs", "foreign", "q"), &json!({"metadata": {"labels": {"n": number.to_string()}}}));
    }
    // One that is served, after all of them: the watch has shown them.
    scene.patch("sign", json!({"metadata": {"labels": {"n": "1"}}}));
    scene.operator.wait_for("the served one", || (adds() != before).then_some(()));
    scene.wait_quiet();
    let more: f64 = adds().iter().zip(before).map(|(after, before)| after - before).sum();
    assert!(more < 100.0, "{more} turns for a few changes of what is served and 300 of what is not");
}
