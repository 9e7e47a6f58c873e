//! SIGTERM: what had ended is stored, the rest is told, and the end comes within 2 s.

use std::time::{Duration, Instant};

use serde_json::json;

use super::scene::{Finish, SOON, Scene, Sidecar, document, ended, one_file};
use crate::support::{Fault, Gate, When};

const STOPPED: &str = "the pod was stopped before the container's output was stored";

/// Sends SIGTERM; the promise is 2 s, the limit allows for a busy machine.
fn stop(sidecar: &Sidecar) -> Finish {
    let start = Instant::now();
    sidecar.process.sigterm();
    let finish = sidecar.finish();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    finish
}

fn errors(finish: &Finish) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let errors = finish.report["errors"].as_array().expect("errors").iter();
    errors.map(|error| (text(&error["reason"]), text(&error["message"]))).collect()
}

#[test]
fn with_everything_still_running_it_ends_with_143() {
    let scene = Scene::new("stop-running");
    let sidecar = scene.sidecar("Never", one_file());
    sidecar.write("main", "f", document(&[("k", "1")]));
    sidecar.process.start();
    scene.wait_watch();
    let finish = stop(&sidecar);
    assert_eq!((finish.code, errors(&finish)), (Some(143), vec![("OutputNotStored".to_owned(), STOPPED.to_owned())]));
    assert!(scene.secrets().is_empty(), "nothing is stored of a container that was not seen to end");
}

#[test]
fn what_had_ended_is_stored_and_the_rest_is_told() {
    let scene = Scene::new("stop-half");
    let sidecar =
        scene.sidecar("Never", json!({"containers": {"a": {"files": {"f": {"name": "s"}}}, "b": {"files": {"f": {"name": "t"}}}}}));
    sidecar.write("a", "f", document(&[("k", "1")]));
    sidecar.write("b", "f", document(&[("k", "2")]));
    sidecar.states(&[("a", ended(0))]);
    sidecar.process.start();
    sidecar.process.wait_for("the first Secret", || scene.secret("s"));
    let finish = stop(&sidecar);
    assert_eq!((finish.code, errors(&finish).len(), scene.secrets()), (Some(143), 1, vec!["s".to_owned()]));
    assert_eq!(finish.report["secrets"][0]["name"], "s");
}

#[test]
fn a_write_that_is_under_way_is_finished_and_the_exit_code_is_zero() {
    let scene = Scene::new("stop-storing");
    let gate = Gate::default();
    scene.server.fault(When::request("POST", "/secrets"), Fault::HoldReply(gate.clone()));
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("the create", || (gate.arrived() == 1).then_some(()));
    sidecar.process.sigterm();
    sidecar.process.wait_for("the signal heard", || sidecar.process.log().contains("stopping storing=true").then_some(()));
    gate.open();
    sidecar.finish_stored();
}

#[test]
fn a_write_that_waits_for_its_next_try_is_tried_once_more() {
    let scene = Scene::new("stop-retrying");
    let rule = scene.server.fault(When::request("POST", "/secrets").every(), Fault::status(503, "ServiceUnavailable", "later", Some("60")));
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("a failed try", || sidecar.process.log().contains("output not stored; will retry").then_some(()));
    rule.cancel();
    let finish = stop(&sidecar);
    assert_eq!((finish.code, scene.secrets().len()), (Some(0), 1));
}

#[test]
fn a_last_try_that_fails_is_told_with_its_reason() {
    let scene = Scene::new("stop-refused");
    scene.server.fault(When::request("POST", "/secrets").every(), Fault::status(503, "ServiceUnavailable", "later", Some("60")));
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("a failed try", || sidecar.process.log().contains("output not stored; will retry").then_some(()));
    let finish = stop(&sidecar);
    let told = ("OutputNotStored".to_owned(), "Secret s: create secrets: 503 ServiceUnavailable".to_owned());
    assert_eq!((finish.code, errors(&finish)), (Some(143), vec![told]));
}

#[test]
fn an_api_server_that_does_not_answer_does_not_hold_it_up() {
    for part in ["/secrets", "/quarksjobs"] {
        let scene = Scene::new(&format!("stop-hanging-{}", part.len()));
        let rule = scene.server.fault(When::matching(move |request| request.path.contains(part)).every(), Fault::BlackHole);
        let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
        sidecar.process.wait_for("a call that hangs", || (rule.hits() == 1).then_some(()));
        let finish = stop(&sidecar);
        assert_eq!((finish.code, errors(&finish)[0].0.as_str()), (Some(143), "OutputNotStored"), "no answer from {part}");
    }
}

#[test]
fn an_api_server_that_is_away_does_not_hold_it_up() {
    let scene = Scene::new("stop-away");
    scene.server.set_down(true);
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("a try", || (scene.server.opened() > 0).then_some(()));
    assert_eq!(stop(&sidecar).code, Some(143));
}

#[test]
fn without_an_account_it_ends_too() {
    let scene = Scene::new("stop-no-account");
    std::fs::remove_file(scene.account().join("token")).expect("removed");
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("its complaint", || sidecar.process.log().contains("no access to the cluster yet; will retry").then_some(()));
    assert_eq!(stop(&sidecar).code, Some(143));
}

#[test]
fn a_second_signal_changes_nothing() {
    let scene = Scene::new("stop-twice");
    scene.server.fault(When::request("POST", "/secrets").every(), Fault::BlackHole);
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("the create", || scene.requests().contains(&"POST secrets".to_owned()).then_some(()));
    let start = Instant::now();
    sidecar.process.sigterm();
    sidecar.process.wait_for("the signal heard", || sidecar.process.log().contains("stopping").then_some(()));
    sidecar.process.sigterm();
    assert_eq!(sidecar.finish().code, Some(143));
    assert!(start.elapsed() >= Duration::from_secs(1), "the second signal cuts nothing short: {:?}", start.elapsed());
}
