//! A fan-out of five keys, disturbed at each of its writes: killed before it, killed after it, its reply lost, an error in its place.
//! In the end five right Secrets, and with versions no more than one each.

use std::collections::BTreeMap;
use std::thread;

use serde_json::json;

use super::scene::{CANARY, SECRET_VERSION, Scene, Sidecar, document, ended};
use crate::support::operator::LIMIT;
use crate::support::{Fault, When};

type MakeFault = fn(&Sidecar) -> Fault;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn content(round: &str) -> String {
    let entries: BTreeMap<&str, _> = KEYS.iter().map(|key| (*key, json!({"k": format!("{CANARY}{round}-{key}")}))).collect();
    json!(entries).to_string()
}

/// Stores a round of five, started anew for as long as it is killed; gives the number of its writes.
fn round(scene: &Scene, versioned: bool, name: &str, fault: Option<(usize, MakeFault)>) -> usize {
    let file = json!({"name": "s", "fanOut": true, "versioned": versioned});
    let sidecar = scene.sidecar("OnFailure", json!({"containers": {"main": {"files": {"f": file}}}}));
    sidecar.write("main", "f", content(name));
    sidecar.states(&[("main", ended(0))]);
    let before = scene.server.mutations().len();
    let rule = fault.map(|(k, fault)| scene.server.fault(When::mutation().nth(k), fault(&sidecar)));
    sidecar.process.start();
    let finish = loop {
        // A fault that has killed it leaves no process to wait for.
        sidecar.process.wait_for("its end", || (!sidecar.process.is_running()).then_some(()));
        if sidecar.process.pid().is_some() {
            break sidecar.finish_stored();
        }
        sidecar.process.start();
    };
    let stored: Vec<&str> =
        finish.report["secrets"].as_array().expect("Secrets").iter().map(|secret| secret["name"].as_str().expect("a name")).collect();
    assert_eq!(stored.len(), KEYS.len(), "{stored:?}");
    for (key, secret) in KEYS.iter().zip(stored.iter().collect::<std::collections::BTreeSet<_>>()) {
        assert_eq!(scene.value(secret), format!("{name}-{key}"), "{secret}");
    }
    assert!(rule.is_none_or(|rule| rule.hits() == 1), "the fault was met");
    scene.server.mutations().len() - before
}

/// All four shapes: versioned or not, over nothing or over an earlier round. Side by side, since they wait most of the time.
fn every_write(name: &str, fault: MakeFault) {
    thread::scope(|scope| {
        for (versioned, rounds, writes) in [(false, 1, 5), (false, 2, 10), (true, 1, 5), (true, 2, 5)] {
            scope.spawn(move || (1..=writes).for_each(|k| disturbed(name, fault, versioned, rounds, k)));
        }
    });
}

fn disturbed(name: &str, fault: MakeFault, versioned: bool, rounds: usize, k: usize) {
    let scene = Scene::new(&format!("{name}-{versioned}-{rounds}-{k}"));
    if rounds == 2 {
        assert_eq!(round(&scene, versioned, "old", None), 5);
    }
    round(&scene, versioned, "new", Some((k, fault)));
    let what = format!("{name} at write {k}, versioned: {versioned}, rounds: {rounds}");
    let names = scene.secrets();
    assert_eq!(names.len(), if versioned { 5 * rounds } else { 5 }, "{what}: {names:?}");
    if versioned {
        for key in KEYS {
            let version = scene.secret(&format!("s-{key}-v{rounds}")).expect("the last version");
            assert_eq!(version["metadata"]["labels"][SECRET_VERSION], rounds.to_string(), "{what}");
        }
    }
}

#[test]
fn an_undisturbed_round_costs_what_it_should() {
    for (versioned, first, second) in [(false, 5, 10), (true, 5, 5)] {
        let scene = Scene::new(&format!("undisturbed-{versioned}"));
        assert_eq!(round(&scene, versioned, "old", None), first);
        assert_eq!(round(&scene, versioned, "new", None), second);
        assert_eq!(round(&scene, versioned, "new", None), if versioned { 0 } else { 5 }, "the same again");
    }
}

#[test]
fn killed_before_each_write() {
    every_write("kill-before", |sidecar| Fault::KillBefore(sidecar.process.killer()));
}

#[test]
fn killed_after_each_write() {
    every_write("kill-after", |sidecar| Fault::KillAfter(sidecar.process.killer()));
}

#[test]
fn reply_lost_at_each_write() {
    every_write("lose-reply", |_| Fault::LoseReply);
}

#[test]
fn reply_cut_at_each_write() {
    every_write("half-body", |_| Fault::HalfBody);
}

#[test]
fn server_error_at_each_write() {
    every_write("error", |_| Fault::status(500, "InternalError", "try again", None));
}

#[test]
fn conflict_at_each_write() {
    every_write("conflict", |_| Fault::status(409, "Conflict", "has been modified", None));
}

#[test]
fn killed_while_waiting_it_finds_everything_when_it_is_started_again() {
    let scene = Scene::new("kill-waiting");
    let sidecar = scene.sidecar("OnFailure", super::scene::one_file());
    sidecar.write("main", "f", document(&[("k", "1")]));
    sidecar.process.start();
    scene.wait_watch();
    sidecar.process.kill9();
    sidecar.states(&[("main", ended(0))]);
    sidecar.process.start();
    assert!(sidecar.process.wait_exit(LIMIT).is_some_and(|status| status.success()), "it failed, or goes on");
    assert_eq!(scene.value("s"), "1");
}
