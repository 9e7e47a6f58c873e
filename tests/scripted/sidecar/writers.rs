//! Two writers of one name: every cell of the table in `docs/output-writers.md`, and who else has no business with a Secret.

use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::scene::{CANARY, CONTAINER_NAME, NAMESPACE, SECRET_VERSION, Scene, Sidecar, WRITTEN_BY, document, ended};
use crate::pages;
use crate::support::play::path;
use crate::support::{Fault, Gate, When};

const HEAD: &str = "| stored by | one-to-one | fan-out | versioned |";
const SECRET_KIND: &str = "quarks.cloudfoundry.org/secret-kind";
const SETTLED: &str = "quarks.cloudfoundry.org/settled";
/// How long a look at the QuarksJob is good for here; 30 s outside of tests.
const OUTAGE_LIMIT_MS: u64 = 1000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    OneToOne,
    FanOut,
    Versioned,
}

/// In the order of the table's columns.
const METHODS: [Method; 3] = [Method::OneToOne, Method::FanOut, Method::Versioned];

impl Method {
    fn plan(self) -> Value {
        let file = json!({"name": "s", "fanOut": self == Method::FanOut, "versioned": self == Method::Versioned});
        json!({"containers": {"main": {"files": {"f": file}}}})
    }

    fn content(self) -> String {
        let flat = document(&[("k", "ours")]);
        if self == Method::FanOut { format!(r#"{{"a":{flat}}}"#) } else { flat }
    }

    /// The name that both writers want.
    fn secret(self) -> &'static str {
        match self {
            Method::OneToOne => "s",
            Method::FanOut => "s-a",
            Method::Versioned => "s-v1",
        }
    }
}

/// What another writer left.
fn theirs(method: Method, labels: Value, annotations: Value) -> Value {
    let mut secret = json!({"metadata": {"name": method.secret(), "labels": labels, "annotations": annotations},
        "data": {"k": STANDARD.encode(format!("{CANARY}theirs"))}});
    if method == Method::Versioned && !secret["metadata"]["labels"].as_object().expect("a map").is_empty() {
        secret["metadata"]["labels"][SECRET_KIND] = json!("versionedSecret");
        secret["metadata"]["labels"][SECRET_VERSION] = json!("1");
        secret["immutable"] = json!(true);
    }
    secret
}

fn by(writer: &str, method: Method) -> Value {
    theirs(method, json!({CONTAINER_NAME: "main"}), json!({WRITTEN_BY: writer}))
}

fn settle(scene: &Scene, runs: u64, in_status: bool) {
    let object = path("quarksjobs", NAMESPACE, "q");
    let uid = scene.api().get(&object).expect("a QuarksJob")["metadata"]["uid"].clone();
    let marker = json!({"uid": uid, "runs": runs}).to_string();
    if in_status {
        scene.api().patch(&(object + "/status"), &json!({"status": {"settled": marker}}));
    } else {
        scene.api().patch(&object, &json!({"metadata": {"annotations": {SETTLED: marker}}}));
    }
}

/// The node is cut off at the first write, for longer than a look is good for; `meanwhile` things happen.
fn cut_off(scene: &Scene, sidecar: &mut Sidecar, content: &str, meanwhile: impl FnOnce()) {
    let rule = scene.server.fault(When::request("POST", "/secrets"), Fault::BlackHole);
    sidecar.write("main", "f", content);
    sidecar.states(&[("main", ended(0))]);
    sidecar.process.start();
    sidecar.process.wait_for("the first write", || (rule.hits() == 1).then_some(()));
    scene.server.set_down(true);
    meanwhile();
    // The waits before these and the next one are more than a second together.
    let tries = || sidecar.process.log().matches("output not stored; will retry").count();
    sidecar.process.wait_for("some tries", || (tries() >= 4).then_some(()));
    scene.server.set_down(false);
}

fn sidecar(scene: &Scene, plan: Value) -> Sidecar {
    let mut sidecar = scene.sidecar("Never", plan);
    sidecar.process = sidecar.process.env("OUTAGE_LIMIT_MS", OUTAGE_LIMIT_MS.to_string());
    sidecar
}

/// What the table says in a row.
fn cells(row: &str) -> Vec<String> {
    let table = pages::table(HEAD);
    let cells = table.rows.iter().find(|cells| cells[0] == row).unwrap_or_else(|| panic!("{} has no row {row}", table.place));
    cells[1..].iter().map(|cell| cell.replace('`', "")).collect()
}

fn check(row: &str, method: Method, cell: &str) {
    let scene = Scene::new(&format!("writers-{}-{method:?}", row.replace(' ', "-")));
    let mut sidecar = sidecar(&scene, method.plan());
    let content = method.content();
    let put = |secret: Value| Some(scene.put_secret(secret));
    let before = match row {
        "an older run of the same QuarksJob" => put(by("q", method)),
        "another QuarksJob" => put(by("other", method)),
        "a person" => put(theirs(method, json!({}), json!({}))),
        "the original operator" => put(theirs(method, json!({CONTAINER_NAME: "main"}), json!({}))),
        _ => None,
    };
    let before = before.unwrap_or_else(|| {
        let pod = path("pods", NAMESPACE, &sidecar.pod);
        cut_off(&scene, &mut sidecar, &content, || {
            scene.put_secret(by("q", method));
            match row {
                "a newer run of the same QuarksJob" => settle(&scene, 2, false),
                "the pod that replaced this one in the same run" => scene.api().delete(&pod, ""),
                other => panic!("no such row: {other}"),
            }
        });
        scene.secret(method.secret()).expect("stored")
    });
    if sidecar.process.pid().is_none() {
        sidecar.write("main", "f", &content);
        sidecar.states(&[("main", ended(0))]);
        sidecar.process.start();
    }
    let what = format!("{row}, {method:?}: {cell}");
    match cell.split_once(", ") {
        Some(("left", reason)) => {
            let (found, message) = sidecar.finish_error();
            assert_eq!(found, reason, "{what}: {message}");
            assert_eq!((scene.secret(method.secret()), scene.secrets().len()), (Some(before), 1), "{what}");
        }
        _ => {
            sidecar.finish_stored();
            let stored = if cell == "replaced" { method.secret() } else { "s-v2" };
            let secret = scene.secret(stored).unwrap_or_else(|| panic!("{what}: {:?}", scene.secrets()));
            assert_eq!((scene.value(stored).as_str(), &secret["metadata"]["annotations"][WRITTEN_BY]), ("ours", &json!("q")), "{what}");
            match cell {
                "replaced" => assert_eq!(scene.secrets().len(), 1, "{what}"),
                "next version" => assert_eq!((scene.secret("s-v1"), scene.secrets().len()), (Some(before), 2), "{what}"),
                other => panic!("no such word: {other}"),
            }
        }
    }
}

/// The three cells side by side: they wait most of the time.
fn check_row(row: &str) {
    let cells = cells(row);
    thread::scope(|scope| {
        for (method, cell) in METHODS.into_iter().zip(cells) {
            scope.spawn(move || check(row, method, &cell));
        }
    });
}

#[test]
fn the_table_holds_the_rows_that_are_run() {
    assert_eq!(pages::table(HEAD).rows.len(), 6);
}

#[test]
fn an_older_run() {
    check_row("an older run of the same QuarksJob");
}

#[test]
fn a_newer_run() {
    check_row("a newer run of the same QuarksJob");
}

#[test]
fn the_pod_that_replaced_this_one() {
    check_row("the pod that replaced this one in the same run");
}

#[test]
fn another_quarks_job() {
    check_row("another QuarksJob");
}

#[test]
fn a_person() {
    check_row("a person");
}

#[test]
fn the_original() {
    check_row("the original operator");
}

#[test]
fn a_run_that_is_over_writes_nothing_from_the_start() {
    for (runs, in_status) in [(1, false), (1, true), (5, true)] {
        let scene = Scene::new(&format!("writers-over-{runs}-{in_status}"));
        settle(&scene, runs, in_status);
        let (reason, message) = scene.ended_well(Method::OneToOne.plan(), &Method::OneToOne.content()).finish_error();
        assert!(reason == "OwnerGone" && message.contains("is over"), "{reason}: {message}");
        assert_eq!(scene.requests(), ["WATCH pods", "GET quarksjobs/q"], "{runs} runs, in status: {in_status}");
    }
}

#[test]
fn between_two_requests_of_one_write_the_run_may_end() {
    let scene = Scene::new("writers-between");
    let before = scene.put_secret(by("q", Method::OneToOne));
    let gate = Gate::default();
    scene.server.fault(When::request("POST", "/secrets"), Fault::HoldReply(gate.clone()));
    let sidecar = sidecar(&scene, Method::OneToOne.plan());
    sidecar.write("main", "f", Method::OneToOne.content());
    sidecar.states(&[("main", ended(0))]);
    sidecar.process.start();
    sidecar.process.wait_for("the create", || (gate.arrived() == 1).then_some(()));
    let start = Instant::now();
    settle(&scene, 1, false);
    sidecar.process.wait_for("the look to be too old", || (start.elapsed() >= Duration::from_millis(OUTAGE_LIMIT_MS)).then_some(()));
    gate.open();
    assert_eq!(sidecar.finish_error().0, "OwnerGone");
    assert_eq!(scene.secret("s"), Some(before));
    let requests = scene.requests();
    assert!(!requests.iter().any(|request| request.starts_with("PUT")), "{requests:?}");
    assert_eq!(requests.last().map(String::as_str), Some("GET quarksjobs/q"));
}

#[test]
fn a_cut_off_run_that_is_not_over_stores_when_the_node_is_back() {
    let scene = Scene::new("writers-back");
    let mut sidecar = sidecar(&scene, json!({"run": 2, "containers": Method::OneToOne.plan()["containers"]}));
    cut_off(&scene, &mut sidecar, &Method::OneToOne.content(), || settle(&scene, 1, false));
    sidecar.finish_stored();
    assert_eq!(scene.value("s"), "ours");
}

#[test]
fn a_pod_that_is_being_deleted_stores_no_more_after_an_outage() {
    let scene = Scene::new("writers-deleted");
    let mut sidecar = sidecar(&scene, Method::OneToOne.plan());
    sidecar.patch_pod(&json!({"metadata": {"finalizers": ["example.org/wait"]}}));
    let pod = path("pods", NAMESPACE, &sidecar.pod);
    cut_off(&scene, &mut sidecar, &Method::OneToOne.content(), || scene.api().delete(&pod, ""));
    assert_eq!(sidecar.finish_error().0, "OutputNotStored");
    assert!(scene.secrets().is_empty(), "{:?}", scene.secrets());
}

#[test]
fn two_quarks_jobs_do_not_share_a_versioned_name() {
    let scene = Scene::new("writers-teams");
    let object = scene.api().create(&path("quarksjobs", NAMESPACE, ""), crate::support::play::quarks_job("team-b", "once"));
    let mut plan = Method::Versioned.plan();
    scene.ended_well(plan.clone(), &document(&[("k", "a")])).finish_stored();
    plan.as_object_mut()
        .expect("a map")
        .extend([("quarksJob".to_owned(), json!("team-b")), ("uid".to_owned(), object["metadata"]["uid"].clone())]);
    for content in ["a", "b"] {
        let (reason, message) = scene.ended_well(plan.clone(), &document(&[("k", content)])).finish_error();
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("OutputConflict", r#"Secret s-v1 was written by QuarksJob "q"; use another output name"#),
            "content {content}"
        );
        assert_eq!((scene.secrets(), scene.value("s-v1")), (vec!["s-v1".to_owned()], "a".to_owned()), "content {content}");
    }
}

#[test]
fn a_version_is_not_overwritten_by_a_one_to_one_output_of_its_name() {
    for writer in [json!({}), json!({WRITTEN_BY: "q"})] {
        let scene = Scene::new(&format!("writers-version-{}", writer.as_object().expect("a map").len()));
        let mut version = theirs(Method::Versioned, json!({CONTAINER_NAME: "main"}), writer.clone());
        version["metadata"]["name"] = json!("s");
        // The original's versions are immutable by convention only.
        version["immutable"] = json!(false);
        let before = scene.put_secret(version);
        assert_eq!(scene.ended_well(Method::OneToOne.plan(), &Method::OneToOne.content()).finish_error().0, "OutputConflict");
        assert_eq!(scene.secret("s"), Some(before), "written by {writer}");
    }
}

#[test]
fn a_key_of_a_fan_out_does_not_lead_to_the_operators_own_secrets() {
    for (name, key) in [("quarks-job-sidecar", "token"), ("quarks-job-config", "key")] {
        let scene = Scene::new(&format!("writers-reserved-{key}"));
        let plan = json!({"containers": {"main": {"files": {"f": {"name": name, "fanOut": true}}}}});
        let content = format!(r#"{{"{key}":{},"other":{{}}}}"#, document(&[("k", "1")]));
        let (reason, message) = scene.ended_well(plan, &content).finish_error();
        assert_eq!(
            (reason.as_str(), message),
            ("OutputConflict", format!("Secret {name}-{key} is reserved for the operator; use another name")),
            "{name}-{key}"
        );
        assert!(scene.secrets().is_empty(), "nothing of the file is stored");
    }
}

#[test]
fn two_pods_of_an_indexed_run_never_write_one_name() {
    for order in [[0, 1], [1, 0]] {
        let scene = Scene::new(&format!("writers-indexed-{}", order[0]));
        for index in order {
            let files = json!({"f": {"name": "a", "fanOut": true}, "g": {"name": "a-1"}});
            let mut sidecar = scene.sidecar("Never", json!({"indexed": true, "containers": {"main": {"files": files}}}));
            sidecar.process = sidecar.process.env("JOB_COMPLETION_INDEX", index.to_string());
            sidecar.write("main", "f", format!(r#"{{"0":{}}}"#, document(&[("k", "fan-out")])));
            sidecar.write("main", "g", document(&[("k", "one-to-one")]));
            sidecar.states(&[("main", ended(0))]);
            sidecar.process.start();
            if index == 0 {
                sidecar.finish_stored();
            } else {
                let (reason, message) = sidecar.finish_error();
                let expected = r#"Secret a-1-0 belongs to output "a-1" of the pod with index 0"#;
                assert_eq!((reason.as_str(), message.as_str()), ("OutputConflict", expected), "pod {index}");
            }
        }
        assert_eq!(
            (scene.secrets(), scene.value("a-1-0").as_str()),
            (["a-0-0", "a-1-0", "a-1-1"].map(str::to_owned).to_vec(), "one-to-one")
        );
    }
}
