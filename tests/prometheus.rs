//! What a running operator says of itself, our alerts and our dashboard, read by Prometheus' own parsers. Not a default target: it
//! needs the program built from tests/tools/promcheck, which `scripts/test` makes and names in `QUARKS_PROMCHECK`. That is why it is no
//! module of tests/scripted, whose tests need nothing.
#![forbid(unsafe_code)]

#[path = "scripted/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command as Process;

use support::play::{self, End};
use support::probe::{Samples, get, listening};
use support::scene::{NAMESPACE, Scene};
use support::{Fault, FrameFault, When};

/// Prometheus' own parsers have the last word on what a running operator says, and on our alerts and dashboard: their
/// queries must find series in it. So the operator has to have seen of everything something.
#[test]
fn prometheus_takes_metrics_alerts_and_dashboard() {
    let program = std::env::var("QUARKS_PROMCHECK").expect("QUARKS_PROMCHECK names the program built from tests/tools/promcheck");
    let scene = listening(Scene::new("promcheck"));
    let _jobs = play::auto(scene.server.api(), |api, job| {
        let name = job["metadata"]["name"].as_str().expect("a name");
        let end = if name.starts_with("bad") { End::Failed { reason: "BackoffLimitExceeded" } } else { End::Complete };
        play::finish_job(api, NAMESPACE, name, end);
    });
    scene.server.fault(When::request("POST", "/jobs").times(1), Fault::status(500, "InternalError", "try again", None));
    scene.server.fault(When::request("POST", "/jobs").times(1), Fault::LoseReply);
    scene.server.fault(When::watch("/jobs").nth(1), Fault::Frames(vec![FrameFault::Cut(0)]));
    scene.operator.start();
    scene.create("good", "once", |_| {});
    scene.create("bad", "now", |_| {});
    scene.wait_settled("good", 1);
    scene.wait_settled("bad", 1);
    scene.operator.wait_for("two runs and a restart", || {
        let samples = Samples::scrape(&scene.operator);
        let runs: f64 = samples.moved("quarksjob_runs_total").values().sum();
        (runs == 2.0 && !samples.moved("quarksjob_watch_restarts_total").is_empty()).then_some(())
    });
    let check = |name: &str, text: &str| {
        let metrics = scene.folder.path().join(name);
        std::fs::write(&metrics, text).expect("written");
        let monitoring = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/monitoring");
        let mut check = Process::new(&program);
        check.arg(&metrics).arg(monitoring.join("alerts.yml")).arg(monitoring.join("dashboard.json"));
        let output = check.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let text = get(&scene.operator, "/metrics").1;
    let (code, said) = check("metrics", &text);
    assert_eq!(code, Some(0), "{said}\n{text}");
    assert!(said.contains(" 0 problems"), "{said}");
    // It would have seen what is wrong.
    for (number, (from, to, expected)) in [
        ("# TYPE workqueue_adds_total counter", "# TYPE workqueue_adds_total gauge", "workqueue_adds_total"),
        ("# HELP workqueue_depth ", "# HELP other_depth ", "workqueue_depth"),
        ("result=\"error\"", "result=\"failure\"", "alert QuarksJobReconcileErrors: no series"),
        ("process_open_fds", "process_open_files", "panel File descriptors: no series"),
        ("le=\"+Inf\"", "le=\"Inf\"x", "metrics: "),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(text.contains(from), "{from}");
        let (code, said) = check(&format!("wrong-{number}"), &text.replace(from, to));
        assert!(code == Some(1) && said.contains(expected), "{from}: {said}");
    }
}
