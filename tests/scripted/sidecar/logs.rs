//! Logs as output (`namePrefix`): the same rules as for files, with the whole log of the last start as the one document.

use serde_json::{Value, json};

use super::scene::{CANARY, CONTAINER_NAME, Scene, Sidecar, WRITTEN_BY, document, ended, ended_after, running};
use crate::support::{Fault, When};

fn one_log() -> Value {
    json!({"containers": {"main": {"log": {"name": "p-main"}}}})
}

/// A sidecar whose container `main` has printed `log` and ended with `code`; started.
fn printed(scene: &Scene, plan: Value, log: &str, code: i32) -> Sidecar {
    let sidecar = scene.sidecar("Never", plan);
    sidecar.print("main", log);
    sidecar.states(&[("main", ended(code))]);
    sidecar.process.start();
    sidecar
}

#[test]
fn a_log_becomes_a_secret_with_one_request_more() {
    let scene = Scene::new("log");
    let sidecar = printed(&scene, one_log(), &(document(&[("k", "1")]) + "\n"), 0);
    let report = sidecar.finish_stored().report;
    assert_eq!(report["secrets"], json!([{"name": "p-main", "container": "main"}]));
    let log = format!("GET pods/{}/log", sidecar.pod);
    assert_eq!(scene.requests(), ["WATCH pods", &log, "GET quarksjobs/q", "POST secrets"]);
    let query = &scene.server.requests()[1].request.query;
    assert_eq!((query["container"].as_str(), query["limitBytes"].as_str(), query.len()), ("main", "4194305", 2));
    let metadata = scene.secret("p-main").expect("stored")["metadata"].clone();
    assert_eq!(metadata["labels"], json!({CONTAINER_NAME: "main"}));
    assert_eq!(metadata["annotations"], json!({WRITTEN_BY: "q"}));
    assert_eq!(scene.value("p-main"), "1");
}

#[test]
fn a_log_can_be_versioned_labelled_and_indexed() {
    let scene = Scene::new("log-versioned");
    let log = json!({"name": "p-main", "versioned": true, "labels": {"l": "1"}, "annotations": {"a": "2"}});
    let plan = json!({"indexed": true, "containers": {"main": {"log": log, "remoteId": "r"}}});
    for (content, versions) in [("1", 1), ("1", 1), ("2", 2)] {
        let mut sidecar = scene.sidecar("Never", plan.clone());
        sidecar.process = sidecar.process.env("JOB_COMPLETION_INDEX", "3");
        sidecar.print("main", document(&[("k", content)]));
        sidecar.states(&[("main", ended(0))]);
        sidecar.process.start();
        let report = sidecar.finish_stored().report;
        assert_eq!(
            report["secrets"],
            json!([{"name": format!("p-main-3-v{versions}"), "version": versions, "container": "main"}]),
            "after content {content}"
        );
        assert_eq!(scene.secrets().len(), versions, "after content {content}: versions");
    }
    let metadata = scene.secret("p-main-3-v2").expect("stored")["metadata"].clone();
    assert_eq!((&metadata["labels"]["l"], &metadata["annotations"]["a"]), (&json!("1"), &json!("2")));
    assert_eq!(metadata["labels"]["quarks.cloudfoundry.org/remote-id"], "r");
}

#[test]
fn files_and_logs_go_together_and_every_container_is_waited_for() {
    let scene = Scene::new("log-both");
    let sidecar = scene.sidecar("Never", json!({"containers": {"a": {"files": {"f": {"name": "s"}}}, "b": {"log": {"name": "p-b"}}}}));
    sidecar.write("a", "f", document(&[("k", "1")]));
    sidecar.print("b", document(&[("k", "2")]));
    sidecar.states(&[("a", ended(0))]);
    sidecar.process.start();
    sidecar.process.wait_for("the file's Secret", || scene.secret("s"));
    assert!(scene.secret("p-b").is_none(), "a log is not read before its container has ended");
    sidecar.states(&[("a", ended(0)), ("b", ended(0))]);
    sidecar.finish_stored();
    assert_eq!((scene.value("s"), scene.value("p-b")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn under_on_failure_the_log_of_the_last_start_counts() {
    let scene = Scene::new("log-restart");
    let sidecar = scene.sidecar("OnFailure", one_log());
    sidecar.print("main", document(&[("k", "first")]));
    sidecar.process.start();
    scene.wait_watch();
    sidecar.states(&[("main", ended(1))]);
    sidecar.states(&[("main", running())]);
    sidecar.print("main", document(&[("k", "second")]));
    sidecar.states(&[("main", ended_after(1, 0))]);
    sidecar.finish_stored();
    assert_eq!(scene.value("p-main"), "second");
    assert_eq!(scene.requests().iter().filter(|request| request.ends_with("/log")).count(), 1);
}

#[test]
fn what_is_no_document_is_refused_and_never_quoted() {
    let scene = Scene::new("log-invalid");
    let large = " ".repeat(4 * 1024 * 1024) + &document(&[("k", "1")]);
    for (log, expected) in [
        (format!("starting {CANARY}\n{}", document(&[("k", "1")])), "log: not valid JSON: expected value at line 1 column 1"),
        (format!("{}\nready {CANARY}", document(&[("k", "1")])), "log: trailing data at line 2"),
        (format!(r#"{{"k":{{"l":"{CANARY}"}}}}"#), r#"log: key "k" must be a string, not an object"#),
        (String::new(), "log: empty"),
        (large, "log: larger than 4 MiB"),
    ] {
        let (reason, message) = printed(&scene, one_log(), &log, 0).finish_error();
        assert!(reason == "OutputInvalid" && message.starts_with(expected), "{message}");
    }
    assert!(scene.secrets().is_empty(), "{:?}", scene.secrets());
}

#[test]
fn the_log_of_a_failed_container_counts_only_with_write_on_failure() {
    for (write_on_failure, log, secrets) in
        [(false, document(&[("k", "1")]), 0), (true, document(&[("k", "1")]), 1), (true, "no".into(), 0)]
    {
        let scene = Scene::new(&format!("log-failed-{write_on_failure}-{}", log.len()));
        let mut plan = one_log();
        plan["writeOnFailure"] = json!(write_on_failure);
        printed(&scene, plan, &log, 137).finish_stored();
        assert_eq!(scene.secrets().len(), secrets);
    }
}

#[test]
fn a_log_that_cannot_be_had_for_now_is_asked_for_again() {
    let faults = [
        Fault::status(500, "InternalError", "kubelet is away", None),
        Fault::status(403, "Forbidden", CANARY, None),
        Fault::LoseReply,
        Fault::HalfBody,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let scene = Scene::new(&format!("log-away-{number}"));
        let rule = scene.server.fault(When::request("GET", "/log").times(1), fault);
        printed(&scene, one_log(), &document(&[("k", "1")]), 0).finish_stored();
        assert_eq!((rule.hits(), scene.value("p-main")), (1, "1".to_owned()), "fault {number}: hits and value");
    }
}

#[test]
fn a_log_that_may_never_be_read_is_told_with_verb_and_resource() {
    let scene = Scene::new("log-no-right");
    scene.server.fault(When::request("GET", "/log").every(), Fault::status(403, "Forbidden", CANARY, None));
    let (reason, message) = printed(&scene, one_log(), &document(&[("k", "1")]), 0).finish_error();
    assert_eq!((reason.as_str(), message.as_str()), ("OutputNotStored", "log: get pods/log: 403 Forbidden"));
    assert!(scene.secrets().is_empty(), "{:?}", scene.secrets());
}

#[test]
fn a_foreign_secret_of_the_same_name_stays() {
    let scene = Scene::new("log-foreign");
    let before = scene.put_secret(json!({"metadata": {"name": "p-main"}, "data": {"k": "dGhlaXJz"}}));
    assert_eq!(printed(&scene, one_log(), &document(&[("k", "1")]), 0).finish_error().0, "OutputConflict");
    assert_eq!(scene.secret("p-main"), Some(before));
}

#[test]
fn a_stop_with_a_log_still_to_read_ends_in_time() {
    let scene = Scene::new("log-stop");
    let rule = scene.server.fault(When::request("GET", "/log").every(), Fault::BlackHole);
    let sidecar = printed(&scene, one_log(), &document(&[("k", "1")]), 0);
    sidecar.process.wait_for("a call that hangs", || (rule.hits() == 1).then_some(()));
    sidecar.process.sigterm();
    assert_eq!(sidecar.finish().code, Some(143));
}
