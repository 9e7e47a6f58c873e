//! What the real operator says of itself, by HTTP and in its log, while it works against the scripted API server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command as Process;

use serde_json::{Value, json};

use crate::support::operator::binary;
use crate::support::play::{self, End};
use crate::support::probe::{Samples, address, ask, connect, get, listening};
use crate::support::scene::{NAMESPACE, Scene};
use crate::support::{Fault, FrameFault, When, wait_for};

fn scene(name: &str) -> Scene {
    listening(Scene::new(&format!("metrics-{name}")))
}

/// Scrapes until the samples are as they should be; those are given.
#[track_caller]
fn wait_samples(scene: &Scene, what: &str, check: impl Fn(&Samples) -> bool) -> Samples {
    scene.operator.wait_for(what, || {
        let samples = Samples::scrape(&scene.operator);
        check(&samples).then_some(samples)
    })
}

const RUNS: &str = "quarksjob_runs_total";
const TO_JOB: &str = "quarksjob_trigger_to_job_seconds_count";

fn runs(samples: &Samples) -> f64 {
    samples.moved(RUNS).values().sum()
}

/// A number of the queues of both controllers.
fn of_both(samples: &Samples, name: &str) -> f64 {
    ["errand", "job"].map(|queue| samples.value(&format!("{name}{{name=\"{queue}\"}}"))).iter().sum()
}

/// Turns of both controllers that failed.
fn errors(samples: &Samples) -> f64 {
    let of = |controller| {
        let series = format!("controller_runtime_reconcile_total{{controller=\"{controller}\",result=\"error\"}}");
        samples.value(&series)
    };
    of("errand") + of("job")
}

#[test]
fn one_run_moves_what_it_should_and_nothing_else() {
    let scene = scene("one-run");
    let object = play::path("quarksjobs", NAMESPACE, "canary-name");
    let _jobs = play::auto(scene.server.api(), move |api, job| {
        // A run that ends before its start is recorded costs a write less.
        wait_for("the run in status", || (api.get(&object)?["status"]["active"]["run"] == 1).then_some(()));
        play::finish_job(api, NAMESPACE, job["metadata"]["name"].as_str().expect("a name"), End::Complete);
    });
    scene.operator.start();
    let before = wait_samples(&scene, "the first lists", |samples| {
        samples.moved("rest_client_requests_total").values().sum::<f64>() >= 6.0 && get(&scene.operator, "/readyz").0 == 200
    });
    assert_eq!((runs(&before), before.value(TO_JOB)), (0.0, 0.0));
    scene.create("canary-name", "now", |_| {});
    scene.wait_settled("canary-name", 1);
    scene.wait_jobs(0);
    let idle = |samples: &Samples| {
        let turns: f64 = samples.moved("controller_runtime_reconcile_total").values().sum();
        of_both(samples, "workqueue_depth") == 0.0
            && of_both(samples, "workqueue_adds_total") == turns
            && of_both(samples, "workqueue_queue_duration_seconds_count") == turns
            && of_both(samples, "workqueue_work_duration_seconds_count") == turns
            && turns >= 4.0
    };
    let after = wait_samples(&scene, "each key that came to wait was worked on once", idle);
    assert_eq!(after.moved(RUNS), BTreeMap::from([("{trigger=\"now\",outcome=\"Succeeded\"}", 1.0)]));
    assert_eq!(after.value(TO_JOB), 1.0);
    assert_eq!(after.value("quarksjob_trigger_to_job_seconds_bucket{le=\"+Inf\"}"), 1.0);
    assert_eq!(errors(&after), 0.0);
    assert_eq!(after.moved("quarksjob_watch_restarts_total"), BTreeMap::new());
    let asked = |code: &str, method: &str, resource: &str| {
        after.value(&format!("rest_client_requests_total{{code=\"{code}\",method=\"{method}\",resource=\"{resource}\"}}"))
    };
    assert_eq!([asked("201", "POST", "jobs"), asked("200", "DELETE", "jobs")], [1.0, 1.0]);
    assert_eq!([asked("200", "PATCH", "quarksjobs"), asked("200", "PATCH", "quarksjobs/status")], [1.0, 2.0]);
    assert!(!after.0.keys().any(|series| series.contains("canary") || series.contains(NAMESPACE)), "{after:#?}");
}

/// Every exchange that the server has recorded is counted, with code, method and resource, and no other.
#[test]
fn requests_are_those_that_the_server_saw() {
    let scene = scene("requests");
    let _jobs = play::auto_complete(scene.server.api());
    scene.server.fault(When::request("PATCH", "/status").nth(1), Fault::status(500, "InternalError", "try again", None));
    scene.create("q", "now", |_| {});
    scene.create("r", "once", |_| {});
    scene.operator.start();
    scene.wait_settled("q", 1);
    scene.wait_settled("r", 1);
    scene.wait_jobs(0);
    wait_samples(&scene, "the same numbers on both sides", |samples| {
        let mut seen: BTreeMap<String, f64> = BTreeMap::new();
        for entry in scene.server.requests() {
            let parts: Vec<&str> = entry.request.path.trim_matches('/').split('/').collect();
            let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
            let resource = match rest {
                ["namespaces", _, plural] | ["namespaces", _, plural, _] | [plural] => (*plural).to_owned(),
                ["namespaces", _, plural, _, sub] => format!("{plural}/{sub}"),
                other => panic!("{other:?}"),
            };
            let code = entry.status.map_or("<error>".to_owned(), |status| status.to_string());
            *seen.entry(format!("{{code=\"{code}\",method=\"{}\",resource=\"{resource}\"}}", entry.request.method)).or_default() += 1.0;
        }
        let counted = samples.moved("rest_client_requests_total");
        counted.len() == seen.len() && seen.iter().all(|(labels, count)| counted.get(labels.as_str()) == Some(count))
    });
}

#[test]
fn failures_are_counted_and_no_run_twice() {
    let scene = scene("failures");
    let _jobs = play::auto(scene.server.api(), |api, job| {
        let name = job["metadata"]["name"].as_str().expect("a name");
        let end = if name.starts_with("bad") { End::Failed { reason: "BackoffLimitExceeded" } } else { End::Complete };
        play::finish_job(api, NAMESPACE, name, end);
    });
    // The create fails twice, then its answer is lost; later the answer to the settle is.
    scene.server.fault(When::request("POST", "/jobs").times(2), Fault::status(500, "InternalError", "try again", None));
    scene.server.fault(When::request("POST", "/jobs").times(1), Fault::LoseReply);
    scene.create("good", "once", |_| {});
    let settle = When::matching(|request| request.method == "PATCH" && request.path.ends_with("/quarksjobs/good"));
    let lost = scene.server.fault(settle, Fault::LoseReply);
    scene.operator.start();
    scene.wait_settled("good", 1);
    assert_eq!(lost.hits(), 1);
    scene.create("bad", "now", |_| {});
    scene.wait_settled("bad", 1);
    let samples = wait_samples(&scene, "two runs", |samples| runs(samples) >= 2.0);
    let expected = [("{trigger=\"now\",outcome=\"Failed\"}", 1.0), ("{trigger=\"once\",outcome=\"Succeeded\"}", 1.0)];
    assert_eq!(samples.moved(RUNS), BTreeMap::from(expected));
    assert_eq!(samples.value(TO_JOB), 2.0, "however often it was tried");
    // Two failures and a lost answer: at least two backoffs of 200 ms and more.
    assert!(samples.value("quarksjob_trigger_to_job_seconds_sum") >= 0.4, "it counts from the first sight of the trigger");
    assert!(errors(&samples) >= 4.0, "{} failed reconciles", errors(&samples));
    assert!(of_both(&samples, "workqueue_retries_total") >= 4.0, "{} retries", of_both(&samples, "workqueue_retries_total"));
    assert_eq!(samples.value("rest_client_requests_total{code=\"<error>\",method=\"POST\",resource=\"jobs\"}"), 1.0);
    assert_eq!(samples.value("rest_client_requests_total{code=\"<error>\",method=\"PATCH\",resource=\"quarksjobs\"}"), 1.0);
}

#[test]
fn a_trigger_that_waits_for_the_user_is_not_late() {
    let scene = scene("suspended");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "now", |object| object["spec"]["suspend"] = json!(true));
    scene.operator.start();
    scene.operator.wait_for("the status", || (!scene.quarks_job("q")["status"]["conditions"].is_null()).then_some(()));
    let waited = std::time::Instant::now();
    scene.wait_quiet();
    scene.wait_quiet();
    let at_least = waited.elapsed().as_secs_f64();
    let resumed = std::time::Instant::now();
    scene.patch("q", json!({"spec": {"suspend": false}}));
    scene.wait_settled("q", 1);
    let at_most = resumed.elapsed().as_secs_f64();
    let samples = wait_samples(&scene, "the run", |samples| runs(samples) == 1.0);
    let late = samples.value("quarksjob_trigger_to_job_seconds_sum");
    assert!(late <= at_most, "{late} s of {at_most} s since the resume, after {at_least} s of suspension");
}

#[test]
fn restarts_of_watches_are_told_by_reason() {
    let scene = scene("restarts");
    scene.server.fault(When::watch("/jobs").nth(1), Fault::Frames(vec![FrameFault::Cut(0)]));
    scene.server.fault(When::watch("/namespaces").nth(1), Fault::status(503, "ServiceUnavailable", "later", Some("1")));
    scene.operator.start();
    let samples = wait_samples(&scene, "two restarts", |samples| samples.moved("quarksjob_watch_restarts_total").len() >= 2);
    let restarts = samples.moved("quarksjob_watch_restarts_total");
    let expected = [("{resource=\"jobs\",reason=\"interrupted\"}", 1.0), ("{resource=\"namespaces\",reason=\"busy\"}", 1.0)];
    assert_eq!(restarts, BTreeMap::from(expected));
}

#[test]
fn nothing_that_counts_ever_goes_back_and_labels_are_bounded() {
    let scene = scene("monotonic");
    let _jobs = play::auto_complete(scene.server.api());
    scene.operator.start();
    let is_counter = |series: &str| {
        let name = series.split('{').next().expect("a name");
        ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
    };
    let mut before = Samples::scrape(&scene.operator);
    let mut series_after_first = 0;
    for number in 0..12 {
        let name = format!("canary-{number}");
        scene.create(&name, if number % 2 == 0 { "now" } else { "once" }, |_| {});
        scene.wait_settled(&name, 1);
        let samples = Samples::scrape(&scene.operator);
        for (series, value) in before.0.iter().filter(|(series, _)| is_counter(series)) {
            assert!(samples.value(series) >= *value, "{series} went from {value} to {}", samples.value(series));
        }
        before = samples;
        if number == 3 {
            series_after_first = before.0.len();
        }
    }
    wait_samples(&scene, "all runs", |samples| runs(samples) == 12.0);
    // An answer of another kind may still add a series; objects do not.
    assert!(before.0.len() <= series_after_first + 4, "{series_after_first} series became {}", before.0.len());
    let labels: BTreeSet<&str> = before
        .0
        .keys()
        .filter_map(|series| series.split_once('{'))
        .flat_map(|(_, rest)| rest.trim_end_matches('}').split(','))
        .filter_map(|label| label.split_once('='))
        .map(|(label, _)| label)
        .collect();
    let expected = ["code", "controller", "le", "method", "name", "outcome", "reason", "resource", "result", "trigger"];
    assert!(labels.is_subset(&BTreeSet::from(expected)), "{labels:?}");
    assert!(!before.0.keys().any(|series| series.contains("canary") || series.contains(NAMESPACE)), "{before:#?}");
}

#[test]
fn a_failing_check_names_the_watch_and_only_readiness_suffers() {
    let scene = scene("health");
    let away = scene.server.fault(When::matching(|request| request.path.ends_with("/jobs")).every(), Fault::Reset);
    scene.operator.start();
    let body = scene.operator.wait_for("consecutive failures", || {
        let (status, body) = get(&scene.operator, "/readyz");
        assert_eq!(status, 503, "{body}");
        body.contains("consecutive failures").then_some(body)
    });
    let lines: Vec<&str> = body.lines().collect();
    assert!(lines.contains(&"watch-jobs: initial list not complete"), "{body}");
    assert!(lines.iter().all(|line| line.starts_with("watch-jobs: ")), "the others are well: {body}");
    assert_eq!(get(&scene.operator, "/healthz"), (200, "ok\n".to_owned()));
    away.cancel();
    scene.operator.wait_for("readiness", || (get(&scene.operator, "/readyz") == (200, "ok\n".to_owned())).then_some(()));
}

#[test]
fn the_pages_have_their_type_and_head_has_no_body() {
    let scene = scene("pages");
    scene.operator.start();
    let (head, body) = ask(&scene.operator, "GET", "/metrics");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())) && body.ends_with('\n'), "{head}");
    let (head, body) = ask(&scene.operator, "HEAD", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}\n{body}");
    assert_eq!(get(&scene.operator, "/elsewhere").0, 404);
    assert!(ask(&scene.operator, "DELETE", "/metrics").0.starts_with("HTTP/1.1 405 "), "{:?}", ask(&scene.operator, "DELETE", "/metrics"));
}

#[test]
fn slow_peers_hold_up_no_probe() {
    let scene = scene("slow");
    scene.operator.start();
    scene.operator.wait_for("readiness", || (get(&scene.operator, "/readyz").0 == 200).then_some(()));
    let address = address(&scene.operator);
    // At 2 s each even four at a time would take longer than the limit on an answer.
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        for _ in 0..150 {
            let mut stream = TcpStream::connect(address).expect("connected");
            stream.write_all(b"GET /healthz HT").expect("sent");
            slow.push(stream);
        }
        assert_eq!(get(&scene.operator, "/healthz").0, 200);
        assert_eq!(get(&scene.operator, "/metrics").0, 200);
    }
    // One that keeps sending a little is cut off as well. It cannot be told from one that is slow by silence.
    let mut dripping = connect(&scene.operator);
    scene.operator.wait_for("the end of one that drips", || {
        let is_cut = dripping.write_all(b"x").is_err() || {
            dripping.set_read_timeout(Some(std::time::Duration::from_millis(20))).expect("set");
            match dripping.read(&mut [0; 16]) {
                Ok(0) => true,
                Ok(_) => panic!("half a request was answered"),
                Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            }
        };
        is_cut.then_some(())
    });
    assert_eq!(get(&scene.operator, "/healthz").0, 200);
}

#[test]
fn the_log_as_json_is_one_object_a_line_and_the_sidecar_is_told() {
    let Scene { server, operator, folder } = Scene::new("metrics-json");
    let scene = Scene { server, operator: operator.env("LOG_FORMAT", "json"), folder };
    let _jobs = play::auto_complete(scene.server.api());
    scene.server.fault(When::request("GET", "/quarksjobs/q").nth(1), Fault::status(500, "InternalError", "a \"quote\" level=x", None));
    scene.create("q", "now", |object| object["spec"]["output"] = json!({"outputMap": {"main": {"f": {"name": "s"}}}}));
    scene.operator.start();
    scene.wait_settled("q", 1);
    let job = scene.server.mutations().into_iter().find(|entry| entry.is("POST", "/jobs")).expect("a Job").request.json();
    let containers = job["spec"]["template"]["spec"]["containers"].as_array().expect("a list").clone();
    let sidecar = containers.iter().find(|container| container["name"] == "output-persist").expect("a sidecar");
    assert!(sidecar["env"].as_array().expect("a list").contains(&json!({"name": "LOG_FORMAT", "value": "json"})), "{sidecar}");
    scene.operator.sigterm();
    scene.operator.wait_exit(crate::support::operator::LIMIT).expect("it ends");
    let log = wait_for("the last line", || Some(scene.operator.log()).filter(|log| log.contains("operator stopping")));
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    for line in &lines {
        for field in ["ts", "level", "target", "msg"] {
            assert!(line[field].is_string(), "{line}");
        }
    }
    let created = lines.iter().find(|line| line["msg"] == "job created").expect("the line");
    assert_eq!((&created["key"], &created["run"], &created["trigger"]), (&json!("team/q"), &json!("1"), &json!("now")));
    assert_eq!((&created["level"], &created["target"]), (&json!("info"), &json!("controller::errand::start")));
    let failed = lines.iter().find(|line| line["msg"] == "failed; will retry").expect("the line");
    assert_eq!(failed["level"], "warn");
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("a \"quote\" level=x")), "{failed}");
}

#[test]
fn a_wrong_log_format_is_named() {
    let output = Process::new(binary()).env_clear().env("LOG_FORMAT", "xml").output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("LOG_FORMAT") && error.contains("xml") && error.lines().count() == 1, "{error}");
}

#[test]
fn it_takes_all_open_files_that_it_may_have() {
    let Scene { server, operator, folder } = scene("open-files");
    let scene = Scene { server, operator: operator.after("ulimit -Sn 200; ulimit -Hn 300"), folder };
    scene.operator.start();
    wait_samples(&scene, "its limit", |samples| samples.value("process_max_fds") == 300.0);
}
