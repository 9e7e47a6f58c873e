//! The API server refuses, contradicts, disappears; the QuarksJob is not what it was.

use std::time::{Duration, Instant};

use serde_json::json;

use super::scene::{CANARY, NAMESPACE, REFUSED_LIMIT_MS, Scene, WRITTEN_BY, document, ended, one_file};
use crate::support::play::{self, path};
use crate::support::{Command, Fault, Gate, Request, When, tls};

/// What the API server says about a Secret may quote it; what it says of anything else is repeated.
fn forbidden(part: &str) -> Fault {
    let message = if part.contains("secrets") { CANARY } else { "by someone" };
    Fault::status(403, "Forbidden", message, None)
}

#[test]
fn a_right_that_comes_late_helps() {
    for (method, part) in [("POST", "/secrets"), ("GET", "/quarksjobs/q")] {
        let scene = Scene::new(&format!("late-right-{}", method.to_lowercase()));
        let rule = scene.server.fault(When::request(method, part).times(2), forbidden(part));
        scene.ended_well(one_file(), &document(&[("k", "1")])).finish_stored();
        assert_eq!((rule.hits(), scene.value("s")), (2, "1".to_owned()), "{method} {part}: hits of the fault, and the value");
    }
}

#[test]
fn a_right_that_never_comes_is_told_with_verb_and_resource() {
    for (method, part, expected) in [
        ("POST", "/secrets", "Secret s: create secrets: 403 Forbidden"),
        ("GET", "/quarksjobs/q", "Secret s: get quarksjobs: 403 Forbidden: by someone"),
        ("GET", "/secrets/s", "Secret s: get secrets: 403 Forbidden"),
        ("PUT", "/secrets/s", "Secret s: update secrets: 403 Forbidden"),
    ] {
        let scene = Scene::new(&format!("no-right-{}-{}", method.to_lowercase(), part.len()));
        scene.put_secret(json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q"}}, "data": {"k": "eA=="}}));
        let rule = scene.server.fault(When::request(method, part).every(), forbidden(part));
        let start = Instant::now();
        let (reason, message) = scene.ended_well(one_file(), &document(&[("k", "1")])).finish_error();
        assert_eq!(reason, "OutputNotStored");
        assert!(message.starts_with(expected), "{message}");
        assert!(start.elapsed() >= Duration::from_millis(REFUSED_LIMIT_MS) && rule.hits() >= 2, "{:?} {}", start.elapsed(), rule.hits());
    }
}

#[test]
fn a_load_balancers_404_is_no_end() {
    for (method, part) in [("GET", "/quarksjobs/q"), ("POST", "/secrets"), ("GET", "/secrets/s"), ("PUT", "/secrets/s"), ("WATCH", "/pods")]
    {
        let scene = Scene::new(&format!("balancer-{}-{}", method.to_lowercase(), part.len()));
        scene.put_secret(json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q"}}, "data": {"k": "eA=="}}));
        let when = if method == "WATCH" { When::watch(part) } else { When::request(method, part) };
        let rule = scene.server.fault(when.times(2), Fault::text(404, "default backend - 404"));
        scene.ended_well(one_file(), &document(&[("k", "1")])).finish_stored();
        // A create that perhaps was done is followed by a read.
        let expected = if method == "POST" { 1 } else { 2 };
        assert_eq!((rule.hits(), scene.value("s")), (expected, "1".to_owned()), "{method} {part}");
    }
}

#[test]
fn a_load_balancers_404_hides_no_version() {
    for part in ["/secrets", "/secrets/s-v1"] {
        let scene = Scene::new(&format!("balancer-versions-{}", part.len()));
        let version = json!({"metadata": {"name": "s-v1", "annotations": {WRITTEN_BY: "q"}, "labels": {
            "quarks.cloudfoundry.org/secret-kind": "versionedSecret", "quarks.cloudfoundry.org/secret-version": "1"}}});
        scene.put_secret(version);
        let rule = scene.server.fault(When::request("GET", part).times(2), Fault::text(404, "default backend - 404"));
        let mut plan = one_file();
        plan["containers"]["main"]["files"]["f"]["versioned"] = json!(true);
        scene.ended_well(plan, &document(&[("k", "1")])).finish_stored();
        assert_eq!(
            (rule.hits(), scene.secrets()),
            (2, vec!["s-v1".to_owned(), "s-v2".to_owned()]),
            "{part}: hits of the fault, and the Secrets"
        );
    }
}

#[test]
fn a_quota_on_secrets_is_named() {
    let scene = Scene::new("quota");
    let quota = "exceeded quota: few, requested: count/secrets=1, used: count/secrets=9, limited: count/secrets=9";
    let message = format!("secrets \"s\" is forbidden: {quota}");
    scene.server.fault(When::request("POST", "/secrets").every(), Fault::status(403, "Forbidden", &message, None));
    let (reason, message) = scene.ended_well(one_file(), &document(&[("k", "1")])).finish_error();
    assert_eq!((reason.as_str(), message), ("OutputNotStored", format!("Secret s: create secrets: 403 Forbidden: {quota}")));
}

#[test]
fn a_pod_that_may_not_be_watched_is_told() {
    let scene = Scene::new("no-watch");
    scene.server.fault(When::watch("/pods").every(), Fault::status(403, "Forbidden", "pods is forbidden", None));
    let (reason, message) = scene.ended_well(one_file(), &document(&[("k", "1")])).finish_error();
    assert!(reason == "OutputNotStored" && message.contains("watch pods: 403"), "{message}");
    assert!(scene.secrets().is_empty(), "{:?}", scene.secrets());
}

#[test]
fn a_conflict_at_each_write_is_read_and_decided_again() {
    for (existing, writes) in [(false, 1), (true, 2)] {
        for k in 1..=writes {
            let scene = Scene::new(&format!("conflict-{existing}-{k}"));
            if existing {
                scene.put_secret(json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q"}}, "data": {"k": "eA=="}}));
            }
            let rule = scene.server.fault(When::mutation().nth(k), Fault::status(409, "Conflict", "has been modified", None));
            scene.ended_well(one_file(), &document(&[("k", "1")])).finish_stored();
            assert_eq!((rule.hits(), scene.value("s")), (1, "1".to_owned()), "{k}");
        }
    }
}

#[test]
fn a_change_by_someone_else_between_read_and_update_is_not_lost() {
    let scene = Scene::new("race");
    scene.put_secret(json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q"}}, "data": {"k": "eA=="}}));
    let gate = Gate::default();
    scene.server.fault(When::request("PUT", "/secrets"), Fault::Hold(gate.clone()));
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("the update", || (gate.arrived() == 1).then_some(()));
    scene.api().patch(&path("secrets", NAMESPACE, "s"), &json!({"metadata": {"labels": {"theirs": "new"}}}));
    gate.open();
    sidecar.finish_stored();
    assert_eq!((scene.value("s").as_str(), &scene.secret("s").expect("there")["metadata"]["labels"]["theirs"]), ("1", &json!("new")));
    assert_eq!(scene.requests().iter().filter(|request| request.starts_with("PUT")).count(), 2);
}

#[test]
fn the_secret_becomes_someone_elses_between_read_and_update() {
    let scene = Scene::new("taken");
    scene.put_secret(json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q"}}, "data": {"k": "eA=="}}));
    let gate = Gate::default();
    scene.server.fault(When::request("PUT", "/secrets"), Fault::Hold(gate.clone()));
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("the update", || (gate.arrived() == 1).then_some(()));
    scene.api().delete(&path("secrets", NAMESPACE, "s"), "");
    let theirs = scene.put_secret(json!({"metadata": {"name": "s"}, "data": {"k": "dGhlaXJz"}}));
    gate.open();
    assert_eq!(sidecar.finish_error().0, "OutputConflict");
    assert_eq!(scene.secret("s"), Some(theirs));
}

#[test]
fn nothing_is_written_for_a_quarks_job_that_is_gone_made_anew_or_being_deleted() {
    for (case, expected) in [("gone", "no longer exists"), ("anew", "was re-created"), ("deleted", "is being deleted")] {
        let scene = Scene::new(&format!("owner-{case}"));
        let object = path("quarksjobs", NAMESPACE, "q");
        if case == "deleted" {
            scene.api().patch(&object, &json!({"metadata": {"finalizers": ["example.org/wait"]}}));
        }
        scene.api().delete(&object, "Background");
        if case == "anew" {
            scene.api().create(&path("quarksjobs", NAMESPACE, ""), play::quarks_job("q", "once"));
        }
        let mut plan = one_file();
        plan["containers"]["main"]["files"]["f"]["versioned"] = json!(case == "anew");
        let (reason, message) = scene.ended_well(plan, &document(&[("k", "1")])).finish_error();
        assert!(reason == "OwnerGone" && message.contains(expected), "{message}");
        assert_eq!(scene.requests(), ["WATCH pods", "GET quarksjobs/q"], "{case}");
    }
}

#[test]
fn an_api_server_that_is_away_and_comes_back_gets_everything() {
    for when in ["from the start", "while waiting", "while storing"] {
        let scene = Scene::new(&format!("away-{}", when.len()));
        let sidecar = scene.sidecar("Never", one_file());
        sidecar.write("main", "f", document(&[("k", "1")]));
        let away = |scene: &Scene| scene.server.set_down(true);
        let refused = |least: usize| {
            let before = scene.server.opened();
            sidecar.process.wait_for("some tries", || (scene.server.opened() >= before + least).then_some(()));
        };
        match when {
            "from the start" => {
                away(&scene);
                sidecar.process.start();
                refused(2);
            }
            "while waiting" => {
                sidecar.process.start();
                scene.wait_watch();
                away(&scene);
                refused(2);
            }
            _ => {
                let gate = Gate::default();
                scene.server.fault(When::request("POST", "/secrets"), Fault::Hold(gate.clone()));
                sidecar.states(&[("main", ended(0))]);
                sidecar.process.start();
                sidecar.process.wait_for("the create", || (gate.arrived() == 1).then_some(()));
                away(&scene);
                gate.open();
                refused(2);
            }
        }
        sidecar.states(&[("main", ended(0))]);
        scene.server.set_down(false);
        sidecar.finish_stored();
        assert_eq!((scene.secrets(), scene.value("s")), (vec!["s".to_owned()], "1".to_owned()), "{when}");
    }
}

#[test]
fn a_watch_that_breaks_in_any_way_is_opened_again() {
    for (number, command) in [
        Command::End,
        Command::Cut,
        Command::Inject(b"{\"type\":\"ERROR\",\"object\":{\"code\":410}}\n".to_vec()),
        Command::Inject(b"\xff{\n".to_vec()),
    ]
    .into_iter()
    .enumerate()
    {
        let scene = Scene::new(&format!("watch-{number}"));
        let sidecar = scene.sidecar("Never", one_file());
        sidecar.write("main", "f", document(&[("k", "1")]));
        sidecar.process.start();
        scene.wait_watch();
        assert_eq!(scene.server.command("/pods", &command), 1);
        sidecar.process.wait_for("another watch", || (scene.requests().len() >= 2 && !scene.server.watches().is_empty()).then_some(()));
        sidecar.states(&[("main", ended(0))]);
        sidecar.finish_stored();
        assert_eq!(scene.value("s"), "1");
    }
}

#[test]
fn a_token_that_ends_is_read_again_from_its_file() {
    let scene = Scene::new("token");
    let sidecar = scene.sidecar("Never", one_file());
    sidecar.write("main", "f", document(&[("k", "1")]));
    sidecar.process.start();
    scene.wait_watch();
    scene.api().settings(|settings| settings.tokens = [("second-token".to_owned(), "sidecar".to_owned())].into());
    tls::write_service_account(&scene.account(), scene.server.ca_pem(), "second-token", NAMESPACE);
    sidecar.states(&[("main", ended(0))]);
    sidecar.finish_stored();
    assert_eq!(scene.value("s"), "1");
}

#[test]
fn an_account_that_is_mounted_late_is_waited_for() {
    let scene = Scene::new("late-account");
    std::fs::remove_file(scene.account().join("token")).expect("removed");
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    sidecar.process.wait_for("its complaint", || sidecar.process.log().contains("no access to the cluster yet; will retry").then_some(()));
    tls::write_service_account(&scene.account(), scene.server.ca_pem(), crate::support::server::OPERATOR_TOKEN, NAMESPACE);
    sidecar.finish_stored();
}

#[test]
fn a_secret_being_deleted_is_waited_for() {
    let scene = Scene::new("deleting");
    scene.put_secret(json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q"}, "finalizers": ["example.org/wait"]}}));
    let secret = path("secrets", NAMESPACE, "s");
    scene.api().delete(&secret, "");
    let sidecar = scene.ended_well(one_file(), &document(&[("k", "1")]));
    let reads = |request: &Request| request.method == "GET" && request.path.ends_with("/secrets/s");
    sidecar.process.wait_for("a read", || scene.server.requests().iter().any(|entry| reads(&entry.request)).then_some(()));
    scene.api().patch(&secret, &json!({"metadata": {"finalizers": null}}));
    sidecar.finish_stored();
    assert_eq!(scene.value("s"), "1");
}
