//! The real operator and what would have no end, against the scripted API server: requests of any size, writes that do not stick,
//! one-offs that feed each other, runs with thousands of pods.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::api::Mutation;
use crate::support::play::{self, End, path};
use crate::support::scene::{NAMESPACE, Scene, condition, name, reason, uid};
use crate::support::{Fault, Request, When, wait_for_within};

const SETTLED: &str = "quarks.cloudfoundry.org/settled";
const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";
/// Longer than any backoff (1 min) and what it took to get there.
const HEALS: Duration = Duration::from_secs(180);

/// Until the run is over and the QuarksJob says so, which may take a whole backoff.
fn wait_run_healed(scene: &Scene, run: u64) -> Value {
    wait_for_within(HEALS, &format!("run {run} in status"), || {
        let object = scene.quarks_job("q");
        let status = &object["status"];
        // Status says how a run ended before it is settled.
        (status["lastRun"]["run"] == run && status["runs"] == run && status["active"].is_null()).then_some(object)
    })
}

// --- requests ---------------------------------------------------------------------------------------------------

fn request(scene: &Scene, value: &str) {
    scene.patch("q", json!({"metadata": {"annotations": {REQUESTED: value}}}));
}

#[test]
fn a_request_that_is_too_long_is_named_and_everything_else_works_on() {
    for length in [1_025, 250 * 1_024] {
        for on_creation in [false, true] {
            let what = format!("{length} bytes, on creation: {on_creation}");
            let scene = Scene::new(&format!("long-{length}-{on_creation}"));
            let _jobs = play::auto_complete(scene.server.api());
            let long = "r".repeat(length);
            scene.create("q", "manual", |object| {
                if on_creation {
                    object["metadata"]["annotations"] = json!({REQUESTED: long});
                }
            });
            scene.operator.start();
            if !on_creation {
                scene.wait_quiet();
                request(&scene, &long);
            }
            let object = scene.operator.wait_for(&format!("InvalidRequest, {what}"), || {
                let object = scene.quarks_job("q");
                (reason(&object, "Ready") == "InvalidRequest").then_some(object)
            });
            assert_eq!(condition(&object, "Ready"), "False", "{what}");
            assert!(scene.wait_event("q", "InvalidRequest").len() < 1_100, "the Event does not repeat it, {what}");
            scene.wait_quiet();
            assert_eq!(scene.created().len(), 0, "{what}");
            // All else works on.
            scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
            let object = scene.wait_settled("q", 1);
            assert_eq!(
                (&object["status"]["lastRun"]["trigger"], &object["status"]["lastRun"]["outcome"]),
                (&json!("now"), &json!("Succeeded"))
            );
            assert_eq!(object["spec"]["trigger"]["strategy"], "manual", "{what}");
            scene.wait_jobs(0);
            scene.wait_quiet();
            assert_eq!(reason(&scene.quarks_job("q"), "Ready"), "InvalidRequest", "until it changes, {what}");
            scene.operator.kill9();
            scene.operator.start();
            scene.wait_quiet();
            assert_eq!(scene.created().len(), 1, "{what}");
            // None of it is anywhere that we write, nor in the log.
            for entry in scene.server.mutations() {
                assert!(
                    !String::from_utf8_lossy(&entry.request.body).contains(&long[..600]),
                    "{what}: {} {}",
                    entry.request.method,
                    entry.request.path
                );
            }
            assert!(!scene.operator.log().contains(&long[..600]), "{what}");
            // As long as it may be.
            request(&scene, &long[..1_024]);
            let object = scene.wait_settled("q", 2);
            assert_eq!(object["status"]["lastRun"]["trigger"], "request", "{what}");
            let marker: Value = serde_json::from_str(object["metadata"]["annotations"][SETTLED].as_str().expect("a marker")).expect("JSON");
            assert_eq!(marker["request"], long[..1_024], "served, {what}");
            scene.operator.wait_for("Ready=True", || (condition(&scene.quarks_job("q"), "Ready") == "True").then_some(()));
            scene.wait_quiet();
            assert_eq!(scene.created().len(), 2, "{what}");
        }
    }
}

#[test]
fn a_request_that_is_too_long_is_told_by_whatever_is_written_first() {
    for is_running in [false, true] {
        let scene = Scene::new(&format!("long-told-{is_running}"));
        let long = "r".repeat(1_025);
        scene.create("q", "now", |object| {
            if !is_running {
                object["metadata"]["annotations"] = json!({REQUESTED: long});
            }
        });
        scene.operator.start();
        scene.wait_running("q");
        if is_running {
            request(&scene, &long);
        }
        let job = name(&scene.wait_jobs(1)[0]);
        scene.finish(&job, End::Complete);
        scene.wait_settled("q", 1);
        scene.wait_event("q", "InvalidRequest");
    }
}

#[test]
fn a_served_request_that_becomes_too_long_runs_nothing_and_a_removed_one_neither() {
    let scene = Scene::new("long-after");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "once", |object| object["metadata"]["annotations"] = json!({REQUESTED: "r1"}));
    scene.operator.start();
    scene.wait_settled("q", 1);
    scene.wait_quiet();
    let before = scene.created().len();
    request(&scene, &"x".repeat(2_000));
    scene.operator.wait_for("InvalidRequest", || (reason(&scene.quarks_job("q"), "Ready") == "InvalidRequest").then_some(()));
    scene.patch("q", json!({"metadata": {"annotations": {REQUESTED: null}}}));
    scene.operator.wait_for("ready again", || (condition(&scene.quarks_job("q"), "Ready") == "True").then_some(()));
    request(&scene, "r1");
    scene.wait_quiet();
    assert_eq!(scene.created().len(), before, "r1 was served: {}", scene.operator.log());
}

// --- writes that do not stick -----------------------------------------------------------------------------------

fn is_status(request: &Request) -> bool {
    request.path.contains("/quarksjobs/") && request.path.ends_with("/status")
}

/// An old CRD: all of the status goes, or all but the original's one field, or only what is new in it.
fn prunes(keep: Option<&'static [&'static str]>, drop: &'static [&'static str]) -> Mutation {
    Arc::new(move |request, object| {
        if !is_status(request) {
            return;
        }
        let Some(status) = object["status"].as_object_mut() else { return };
        status.retain(|field, _| keep.is_none_or(|keep| keep.contains(&field.as_str())) && !drop.contains(&field.as_str()));
        for parent in ["active", "lastRun"] {
            if let Some(map) = status.get_mut(parent).and_then(Value::as_object_mut) {
                map.retain(|field, _| !drop.contains(&field.as_str()));
            }
        }
        if status.is_empty() {
            object["status"] = Value::Null;
        }
    })
}

/// A webhook that takes our annotation away.
fn strips() -> Mutation {
    Arc::new(|request, object| {
        if request.path.contains("/quarksjobs/")
            && let Some(annotations) = object["metadata"]["annotations"].as_object_mut()
        {
            annotations.remove(SETTLED);
        }
    })
}

fn writes_of(scene: &Scene, name: &str) -> usize {
    let about =
        |path: &str| path.contains(&format!("/quarksjobs/{name}")) || path.contains(&format!("/jobs/{name}-")) || path.ends_with("/jobs");
    scene.server.mutations().iter().filter(|entry| about(&entry.request.path)).count()
}

/// No key makes more than 20 writes a minute when nothing changes: counted from here on, for 25 s or until there are too many.
fn assert_few_writes(scene: &Scene, what: &str) {
    let window = Duration::from_secs(25);
    let (start, before) = (Instant::now(), writes_of(scene, "q"));
    let count = || writes_of(scene, "q") - before;
    scene.operator.wait_for("the window to pass", || (start.elapsed() >= window || count() > 20).then_some(()));
    let line = || {
        scene
            .server
            .mutations()
            .iter()
            .rev()
            .take(12)
            .map(|entry| format!("{} {}\n", entry.request.method, entry.request.path))
            .collect::<String>()
    };
    assert!(count() <= 20, "{} writes in {:?}, {what}; the last:\n{}", count(), start.elapsed(), line());
}

/// Lines of the log that warn about `q` and name one of these causes.
fn causes_named(scene: &Scene, words: &[&str]) -> Vec<String> {
    let log = scene.operator.log();
    let warns = log.lines().filter(|line| (line.contains(" WARN ") || line.contains(" ERROR ")) && line.contains("team/q"));
    warns.filter(|line| words.iter().any(|word| line.to_lowercase().contains(word))).map(ToOwned::to_owned).collect()
}

/// One run of `q` whose writes do not stick because of `mutation`, in one minute or so; then they do.
fn does_not_stick(name_of: &str, arrange: impl FnOnce(&Scene), heal: impl FnOnce(&Scene), words: &[&str]) {
    let scene = Scene::new(&format!("stick-{name_of}"));
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "manual", |_| {});
    scene.operator.start();
    scene.wait_quiet();
    arrange(&scene);
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    scene.operator.wait_for("the Job of the run", || (!scene.created().is_empty()).then_some(()));
    assert_few_writes(&scene, name_of);
    let lines = scene.operator.wait_for(&format!("the likely cause in the log, {name_of}"), || {
        Some(causes_named(&scene, words)).filter(|lines| !lines.is_empty())
    });
    assert!(lines.len() <= 5, "said and not repeated, {name_of}: {lines:#?}");
    assert_eq!(scene.created().len(), 1, "{name_of}: {}", scene.operator.log());
    heal(&scene);
    let object = wait_run_healed(&scene, 1);
    assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{name_of}");
    assert_eq!((condition(&object, "Running").as_str(), &object["status"]["runs"]), ("False", &json!(1)), "{name_of}");
    wait_for_within(HEALS, "the clean-up", || scene.jobs().is_empty().then_some(()));
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    wait_run_healed(&scene, 2);
    assert_eq!(scene.created().len(), 2, "{name_of}: {}", scene.operator.log());
}

fn mutate(scene: &Scene, mutation: Option<Mutation>) {
    scene.server.api().settings(|settings| settings.mutation = mutation);
}

/// The CRD knows these fields of the status only.
fn an_old_crd_keeps(name: &str, keep: &'static [&'static str]) {
    let arrange = |scene: &Scene| mutate(scene, Some(prunes(Some(keep), &[])));
    does_not_stick(name, arrange, |scene| mutate(scene, None), &["crd", "customresourcedefinition"]);
}

/// The CRD does not know these fields. Nothing is said about what does not matter, but nothing may spin either.
fn is_pruned(name: &str, drop: &'static [&'static str]) {
    let scene = Scene::new(&format!("prune-{name}"));
    let _jobs = play::auto_complete(scene.server.api());
    mutate(&scene, Some(prunes(None, drop)));
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.operator.wait_for("the Job of the run", || (!scene.created().is_empty()).then_some(()));
    assert_few_writes(&scene, name);
    assert_eq!(scene.created().len(), 1, "{name}: {}", scene.operator.log());
    mutate(&scene, None);
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    wait_run_healed(&scene, 2);
    assert_eq!(scene.created().len(), 2, "{name}: {}", scene.operator.log());
}

/// Half a minute of waiting each, so each is a test of its own: they wait at the same time.
mod a_status_that_is_pruned_is_not_written_again_and_again {
    use super::{an_old_crd_keeps, is_pruned};

    #[test]
    fn all_of_it() {
        an_old_crd_keeps("all", &[]);
    }

    #[test]
    fn all_but_the_originals_fields() {
        an_old_crd_keeps("original", &["completed", "lastReconcile"]);
    }

    #[test]
    fn uid_and_details() {
        is_pruned("uid-and-details", &["uid", "details"]);
    }

    #[test]
    fn settled() {
        is_pruned("settled", &["settled"]);
    }

    #[test]
    fn last_run() {
        is_pruned("last-run", &["lastRun"]);
    }

    #[test]
    fn active() {
        is_pruned("active", &["active"]);
    }

    #[test]
    fn conditions() {
        is_pruned("conditions", &["conditions"]);
    }

    #[test]
    fn observed_generation() {
        is_pruned("generation", &["observedGeneration"]);
    }
}

#[test]
fn a_marker_that_a_webhook_strips_is_not_written_again_and_again() {
    does_not_stick("strips", |scene| mutate(scene, Some(strips())), |scene| mutate(scene, None), &["webhook"]);
}

#[test]
fn a_crd_without_the_status_subresource_is_named_and_not_asked_again_and_again() {
    let missing = || Fault::status(404, "NotFound", "the server could not find the requested resource", None);
    let arrange = |scene: &Scene| {
        scene.server.fault(When::matching(|request| request.method == "PATCH" && is_status(request)).every(), missing());
    };
    does_not_stick("no-subresource", arrange, |scene| scene.server.clear_faults(), &["subresource", "crd", "customresourcedefinition"]);
}

// --- one-offs that feed each other ------------------------------------------------------------------------------

#[test]
fn two_one_offs_that_feed_each_other_slow_down_and_say_so() {
    let scene = Scene::new("loop");
    for name in ["a-out", "b-out"] {
        scene.server.api().create(&path("secrets", NAMESPACE, ""), json!({"metadata": {"name": name}, "data": {"n": "MA=="}}));
    }
    // Each run of one writes what the other refers to: the test plays the sidecar.
    let counter = std::sync::atomic::AtomicUsize::new(0);
    let _jobs = play::auto(scene.server.api(), move |api, job| {
        let job_name = name(job);
        let of = job_name.split('-').next().expect("a name").to_owned();
        if of == "a" || of == "b" {
            let value = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst).to_string();
            let patch = json!({"metadata": {"annotations": {"quarks.cloudfoundry.org/written-by": of}}, "data": {"n": value}});
            api.patch(&path("secrets", NAMESPACE, &format!("{of}-out")), &patch);
        }
        play::finish_job(api, NAMESPACE, &job_name, End::Complete);
    });
    for (name, source) in [("a", "b-out"), ("b", "a-out")] {
        scene.create(name, "once", |object| {
            object["spec"]["updateOnConfigChange"] = json!(true);
            object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": source}}]);
        });
    }
    scene.operator.start();
    let runs = |name: &str| scene.created().iter().filter(|job| job.starts_with(&format!("{name}-"))).count();
    let told =
        || ["a", "b"].into_iter().find(|name| scene.events_of(&uid(&scene.quarks_job(name))).iter().any(|event| event.0 == "ConfigLoop"));
    // Without a limit it would be far beyond that by then.
    let looping = wait_for_within(Duration::from_secs(120), "Event ConfigLoop", || {
        assert!(runs("a") < 25, "no end: {} runs of a, {} of b", runs("a"), runs("b"));
        told()
    });
    assert!(runs(looping) >= 6, "its first run and five for config, not {}", runs(looping));
    // The pause doubles: 2, 4, 8, 16 s. Both wait for each other, so half a minute has room for no more than these.
    let (start, before) = (Instant::now(), runs("a") + runs("b"));
    let window = Duration::from_secs(30);
    let since = || runs("a") + runs("b") - before;
    wait_for_within(HEALS, "the window to pass", || (start.elapsed() >= window || since() > 12).then_some(()));
    assert!(since() <= 12, "{} runs in {:?}", since(), start.elapsed());
    // What a person asks for does not wait.
    let posts = |name: &str| {
        let posted = scene.server.mutations().into_iter().filter(|entry| entry.is("POST", "/jobs") && entry.status == Some(201));
        posted
            .filter(|entry| entry.request.json()["metadata"]["name"].as_str().is_some_and(|job| job.starts_with(&format!("{name}-"))))
            .collect::<Vec<_>>()
    };
    scene.patch("a", json!({"spec": {"trigger": {"strategy": "now"}}}));
    let asked = Instant::now();
    scene.operator.wait_for("the run that a person asked for", || {
        let is_now = |record: &Value| record.as_str().is_some_and(|record| record.contains("\"trigger\":\"now\""));
        posts("a").iter().any(|entry| is_now(&entry.request.json()["metadata"]["annotations"]["quarks.cloudfoundry.org/run"])).then_some(())
    });
    assert!(asked.elapsed() < Duration::from_secs(20), "it waited {:?}", asked.elapsed());
}

#[test]
fn edits_by_hand_do_not_slow_down() {
    // Four within ten minutes are no loop.
    let scene = Scene::new("no-loop");
    let _jobs = play::auto_complete(scene.server.api());
    scene.server.api().create(&path("secrets", NAMESPACE, ""), json!({"metadata": {"name": "login"}, "data": {"n": "MA=="}}));
    scene.create("q", "once", |object| {
        object["spec"]["updateOnConfigChange"] = json!(true);
        object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "login"}}]);
    });
    scene.operator.start();
    for run in 1..=5 {
        scene.wait_settled("q", run);
        scene.wait_quiet();
        if run < 5 {
            scene.server.api().patch(&path("secrets", NAMESPACE, "login"), &json!({"data": {"n": run.to_string()}}));
        }
    }
    let events = scene.events_of(&uid(&scene.quarks_job("q")));
    assert!(!events.iter().any(|event| event.0 == "ConfigLoop"), "{events:?}");
}

// --- many pods --------------------------------------------------------------------------------------------------

const STORED: &str = r#"{"secrets":[{"name":"result-v1","version":1,"container":"main","file":"output.json"}],"errors":[],"stored":true}"#;

fn with_output(object: &mut Value, pods: usize) {
    object["spec"]["output"] = json!({"versioned": true, "outputMap": {"main": {"output.json": {"name": "result"}}}});
    object["spec"]["template"]["spec"]["parallelism"] = json!(4);
    object["spec"]["template"]["spec"]["completions"] = json!(pods);
}

/// Pods of the Job, each with an annotation of this size.
fn make_pods(scene: &Scene, job: &str, count: usize, bytes: usize) {
    let first = play::create_pod_for_job(scene.server.api(), NAMESPACE, job, &[("main", 0, ""), ("output-persist", 0, STORED)]);
    let mut pod = first.clone();
    let meta = pod["metadata"].as_object_mut().expect("a map");
    for field in ["name", "uid", "resourceVersion", "creationTimestamp", "generation"] {
        meta.remove(field);
    }
    pod["metadata"]["annotations"]["padding"] = json!("p".repeat(bytes));
    for _ in 1..count {
        scene.server.api().create(&path("pods", NAMESPACE, ""), pod.clone());
    }
}

/// The most that the operator had in memory so far, in MiB.
fn peak_memory(scene: &Scene) -> u64 {
    let pid = scene.operator.pid().expect("running");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1_024
}

fn pod_lists(scene: &Scene) -> Vec<Request> {
    let lists = scene.server.requests().into_iter().filter(|entry| entry.request.method == "GET" && entry.request.path.ends_with("/pods"));
    lists.map(|entry| entry.request).collect()
}

/// So many pods of each of so many runs, which end at once.
fn many_pods(name_of: &str, runs: usize, count: usize, bytes: usize) {
    let scene = Scene::new(&format!("pods-{name_of}"));
    for run in 0..runs {
        scene.create(&format!("q{run}"), "once", |object| with_output(object, count));
    }
    scene.operator.start();
    let jobs = scene.wait_jobs(runs);
    for run in 0..runs {
        scene.wait_running(&format!("q{run}"));
    }
    for job in &jobs {
        make_pods(&scene, &name(job), count, bytes);
    }
    for job in &jobs {
        play::finish_job(scene.server.api(), NAMESPACE, &name(job), End::Complete);
        let succeeded = json!({"status": {"succeeded": count}});
        scene.server.api().patch(&(path("jobs", NAMESPACE, &name(job)) + "/status"), &succeeded);
    }
    for run in 0..runs {
        let object = wait_for_within(HEALS, "the end in status", || {
            let object = scene.quarks_job(&format!("q{run}"));
            (object["status"]["lastRun"]["run"] == 1).then_some(object)
        });
        let last = &object["status"]["lastRun"];
        assert_eq!(last["outcome"], "Succeeded", "{last:#}\n{}", scene.operator.log());
    }
    let lists = pod_lists(&scene);
    assert!(!lists.is_empty(), "no list of pods");
    for list in &lists {
        let limit: usize = list.parameter("limit").parse().unwrap_or(0);
        assert!((1..=500).contains(&limit), "every list of pods comes in pages: {}", list.target);
    }
    for job in &jobs {
        let selector = format!("batch.kubernetes.io/controller-uid={}", uid(job));
        assert!(lists.iter().any(|list| list.parameter("labelSelector") == selector), "{selector}: {}", lists[0].target);
    }
    let peak = peak_memory(&scene);
    assert!(peak <= 64, "{peak} MiB");
}

#[test]
fn a_run_of_five_thousand_pods_is_judged_page_by_page() {
    many_pods("many", 1, 5_000, 9_000);
}

#[test]
fn runs_of_heavy_pods_that_end_at_once_fit_into_64_mib() {
    many_pods("heavy", 4, 115, 250 * 1_024);
}
