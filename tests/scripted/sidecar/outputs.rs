//! What is stored when nothing goes wrong.

use serde_json::json;

use super::scene::{CANARY, CONTAINER_NAME, NAMESPACE, SECRET_VERSION, Scene, WRITTEN_BY, document, ended, ended_after, one_file};
use crate::support::play::path;

const SECRET_KIND: &str = "quarks.cloudfoundry.org/secret-kind";

#[test]
fn one_file_becomes_one_secret_with_three_requests_in_all() {
    let scene = Scene::new("create");
    let sidecar = scene.sidecar("Never", one_file());
    sidecar.write("main", "f", document(&[("k", "1"), ("l", "2")]));
    sidecar.process.start();
    scene.wait_watch();
    // However often the pod changes, and whatever else the API server says, waiting costs no request.
    for number in 0..50 {
        sidecar.patch_pod(&json!({"metadata": {"annotations": {"n": number.to_string()}}}));
        scene.api().bookmark();
    }
    sidecar.states(&[("main", ended(0))]);
    let finish = sidecar.finish_stored();
    assert_eq!(finish.report["secrets"], json!([{"name": "s", "container": "main", "file": "f"}]));
    assert_eq!(scene.requests(), ["WATCH pods", "GET quarksjobs/q", "POST secrets"]);
    let secret = scene.secret("s").expect("stored");
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(secret["metadata"]["labels"], json!({CONTAINER_NAME: "main"}));
    assert_eq!(secret["metadata"]["annotations"], json!({WRITTEN_BY: "q"}));
    assert_eq!((secret["metadata"].get("ownerReferences"), secret.get("immutable")), (None, None), "it outlives the QuarksJob");
    assert_eq!(scene.data("s"), [("k".into(), "1".into()), ("l".into(), "2".into())].into());
}

#[test]
fn a_secret_of_our_own_is_updated_and_what_others_put_on_it_stays() {
    let scene = Scene::new("update");
    scene.put_secret(json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q", "theirs": "a"},
        "labels": {CONTAINER_NAME: "main", "theirs": "l"}, "finalizers": ["example.org/theirs"]}, "data": {"old": "eA==", "k": "eA=="}}));
    scene.ended_well(one_file(), &document(&[("k", "1")])).finish_stored();
    let secret = scene.secret("s").expect("still there");
    assert_eq!(scene.value("s"), "1");
    assert_eq!((&secret["metadata"]["labels"]["theirs"], &secret["metadata"]["annotations"]["theirs"]), (&json!("l"), &json!("a")));
    assert_eq!(secret["metadata"]["finalizers"], json!(["example.org/theirs"]));
    assert_eq!(scene.requests(), ["WATCH pods", "GET quarksjobs/q", "POST secrets", "GET secrets/s", "PUT secrets/s"]);
    // The same again is no write.
    scene.server.forget_requests();
    scene.ended_well(one_file(), &document(&[("k", "1")])).finish_stored();
    assert_eq!(scene.requests(), ["WATCH pods", "GET quarksjobs/q", "POST secrets", "GET secrets/s"]);
    assert_eq!(scene.secret("s"), Some(secret));
}

#[test]
fn a_foreign_secret_stays_as_it_is_byte_for_byte() {
    for (name, metadata) in [
        ("other-writer", json!({"annotations": {WRITTEN_BY: "other"}, "labels": {CONTAINER_NAME: "main"}})),
        ("no-mark", json!({"labels": {"app": "theirs"}})),
        ("other-container", json!({"labels": {CONTAINER_NAME: "elsewhere"}})),
        ("version-of-ours", json!({"annotations": {WRITTEN_BY: "q"}})),
    ] {
        let scene = Scene::new(&format!("foreign-{name}"));
        let mut secret = json!({"metadata": metadata, "data": {"k": "dGhlaXJz"}});
        secret["metadata"]["name"] = json!("s");
        // Ours, but immutable: it cannot take other content either.
        secret["immutable"] = json!(name == "version-of-ours");
        let before = scene.put_secret(secret);
        let (reason, message) = scene.ended_well(one_file(), &document(&[("k", "1")])).finish_error();
        assert_eq!(reason, "OutputConflict");
        assert!(message.contains("Secret s "), "{message}");
        assert_eq!(scene.secret("s"), Some(before), "{name}");
        assert!(!scene.requests().iter().any(|request| request.starts_with("PUT")), "{name}: it was overwritten");
    }
}

#[test]
fn the_originals_secret_is_taken_over() {
    let scene = Scene::new("adopt");
    scene.put_secret(json!({"metadata": {"name": "s", "labels": {CONTAINER_NAME: "main", "theirs": "l"}}, "data": {"k": "eA=="}}));
    scene.ended_well(one_file(), &document(&[("k", "1")])).finish_stored();
    let secret = scene.secret("s").expect("still there");
    assert_eq!((&secret["metadata"]["annotations"][WRITTEN_BY], &secret["metadata"]["labels"]["theirs"]), (&json!("q"), &json!("l")));
    assert_eq!(scene.value("s"), "1");
}

#[test]
fn a_missing_file_is_an_error_that_names_it_and_the_exit_code_is_zero() {
    let scene = Scene::new("missing");
    let sidecar = scene.sidecar("Never", json!({"containers": {"main": {"files": {"f": {"name": "s"}, "g": {"name": "t"}}}}}));
    sidecar.write("main", "g", document(&[("k", "1")]));
    sidecar.states(&[("main", ended(0))]);
    sidecar.process.start();
    let (reason, message) = sidecar.finish_error();
    assert_eq!((reason.as_str(), message.as_str()), ("OutputInvalid", "the container exited without writing it"));
    assert_eq!(scene.secrets(), ["t"], "the other file is stored");
}

#[test]
fn labels_annotations_index_and_fan_out_meet_in_one_secret() {
    let scene = Scene::new("everything");
    let file = json!({"name": "s", "fanOut": true, "versioned": true,
        "labels": {"l": "1", CONTAINER_NAME: "not this"}, "annotations": {"a": "2", WRITTEN_BY: "not this"}});
    let mut sidecar = scene.sidecar("Never", json!({"indexed": true, "containers": {"main": {"files": {"f": file}, "remoteId": "r"}}}));
    sidecar.process = sidecar.process.env("JOB_COMPLETION_INDEX", "7");
    let marshalled = document(&[("k", "2")]);
    sidecar.write("main", "f", json!({"a": {"k": format!("{CANARY}1")}, "b": marshalled}).to_string());
    sidecar.states(&[("main", ended(0))]);
    sidecar.process.start();
    let report = sidecar.finish_stored().report;
    assert_eq!(report["secrets"][1], json!({"name": "s-7-b-v1", "version": 1, "container": "main", "file": "f"}));
    assert_eq!((scene.value("s-7-a-v1"), scene.value("s-7-b-v1")), ("1".to_owned(), "2".to_owned()));
    let secret = scene.secret("s-7-a-v1").expect("stored");
    let metadata = &secret["metadata"];
    let labels = json!({"l": "1", CONTAINER_NAME: "main", SECRET_KIND: "versionedSecret", SECRET_VERSION: "1",
        "quarks.cloudfoundry.org/remote-id": "r"});
    assert_eq!((&secret["immutable"], &metadata["labels"]), (&json!(true), &labels));
    let annotations = json!({"a": "2", WRITTEN_BY: "q", "quarks.cloudfoundry.org/source-description": "created by quarksJob"});
    assert_eq!(metadata["annotations"], annotations);
    assert_eq!((&metadata["ownerReferences"][0]["name"], &metadata["ownerReferences"][0]["controller"]), (&json!("q"), &json!(true)));
}

#[test]
fn a_new_version_for_new_content_and_none_for_the_same() {
    let scene = Scene::new("versions");
    let plan = || json!({"containers": {"main": {"files": {"f": {"name": "s", "versioned": true}}}}});
    for (content, names) in [("1", vec!["s-v1"]), ("1", vec!["s-v1"]), ("2", vec!["s-v1", "s-v2"]), ("1", vec!["s-v1", "s-v2", "s-v3"])] {
        let report = scene.ended_well(plan(), &document(&[("k", content)])).finish_stored().report;
        assert_eq!(scene.secrets(), names, "after content {content}");
        let last = *names.last().expect("one at least");
        assert_eq!(report["secrets"][0]["name"], last, "after content {content}: the report");
        // What others put on a version makes no other one.
        scene
            .api()
            .patch(&path("secrets", NAMESPACE, last), &json!({"metadata": {"labels": {"theirs": "l"}, "annotations": {"theirs": "a"}}}));
    }
    assert_eq!(["s-v1", "s-v2", "s-v3"].map(|name| scene.value(name)), ["1", "2", "1"]);
}

#[test]
fn each_container_is_stored_when_it_has_ended_and_unmapped_ones_hold_up_nothing() {
    let scene = Scene::new("each");
    let sidecar =
        scene.sidecar("Never", json!({"containers": {"a": {"files": {"f": {"name": "s"}}}, "b": {"files": {"f": {"name": "t"}}}}}));
    sidecar.write("a", "f", document(&[("k", "1")]));
    sidecar.process.start();
    sidecar.states(&[("a", ended(0))]);
    sidecar.process.wait_for("the first Secret", || scene.secret("s"));
    assert_eq!(scene.secret("t"), None, "its container has not ended");
    assert!(sidecar.process.is_running(), "it ended before the second container");
    sidecar.write("b", "f", document(&[("k", "2")]));
    sidecar.states(&[("a", ended(0)), ("b", ended(0))]);
    sidecar.finish_stored();
    assert_eq!((scene.value("s"), scene.value("t")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn of_appended_documents_the_last_one_counts_and_one_too_many_is_an_error() {
    let scene = Scene::new("appended");
    let content: String = ["1", "2", "3"].map(|value| document(&[("k", value)]) + "\n").concat();
    let run = |restarts| {
        let sidecar = scene.sidecar("OnFailure", one_file());
        sidecar.write("main", "f", &content);
        sidecar.states(&[("main", ended_after(restarts, 0))]);
        sidecar.process.start();
        sidecar
    };
    let (reason, message) = run(1).finish_error();
    assert!(reason == "OutputInvalid" && message.starts_with("trailing data at line 3"), "{message}");
    assert!(scene.secrets().is_empty(), "{:?}", scene.secrets());
    run(2).finish_stored();
    assert_eq!(scene.value("s"), "3");
}

#[test]
fn nothing_mapped_is_done_at_once() {
    let scene = Scene::new("nothing");
    let sidecar = scene.sidecar("Never", json!({"containers": {}}));
    sidecar.process.start();
    sidecar.finish_stored();
    assert!(scene.requests().is_empty(), "{:?}", scene.requests());
}

#[test]
fn bad_surroundings_are_told_and_do_not_run_the_users_container_again() {
    let scene = Scene::new("surroundings");
    for (variable, value, expected) in [
        ("QUARKS_JOB_PLAN", "{", "QUARKS_JOB_PLAN: not a valid plan"),
        ("POD_UID", "", "POD_UID is not set"),
        ("REFUSED_LIMIT_MS", "soon", "REFUSED_LIMIT_MS: must be a number"),
    ] {
        let mut sidecar = scene.sidecar("Never", one_file());
        sidecar.process = sidecar.process.env(variable, value);
        sidecar.process.start();
        let (reason, message) = sidecar.finish_error();
        assert!(reason == "OutputNotStored" && message.contains(expected), "{message}");
    }
    assert!(scene.requests().is_empty(), "{:?}", scene.requests());
}

#[test]
fn the_log_has_the_format_that_is_asked_for_and_a_wrong_word_fails_no_run() {
    for (format, is_json) in [("json", true), ("text", false), ("xml", false)] {
        let scene = Scene::new(&format!("log-format-{format}"));
        let mut sidecar = scene.sidecar("Never", one_file());
        sidecar.process = sidecar.process.env("LOG_FORMAT", format);
        sidecar.write("main", "f", document(&[("k", "1")]));
        sidecar.states(&[("main", ended(0))]);
        sidecar.process.start();
        let log = sidecar.finish_stored().log;
        let objects: Vec<_> = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).collect();
        assert_eq!(objects.len(), if is_json { log.lines().count() } else { 0 }, "{log}");
        assert!(!is_json || objects.iter().any(|line| line["msg"] == "output-persist exiting" && line["stored"] == "true"), "{log}");
        assert!(log.contains("output-persist exiting"), "{log}");
    }
}
