//! Versioned Secrets and the operator: references `X-vN` in Jobs, and what `keepVersions` leaves.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::operator::binary;
use crate::support::play::{self, Auto, End, path};
use crate::support::scene::{NAMESPACE, Scene, condition};
use crate::support::{Fault, Gate, Operator, Request, When};

const KIND: &str = "quarks.cloudfoundry.org/secret-kind";
const VERSION: &str = "quarks.cloudfoundry.org/secret-version";
const WRITTEN_BY: &str = "quarks.cloudfoundry.org/written-by";
const QJOB_NAME: &str = "quarks.cloudfoundry.org/qjob-name";

const REPORT: &str = r#"{"secrets":[{"name":"s-v5","container":"main","file":"a.json","version":5}],"errors":[],"stored":true}"#;

fn secret(api: &Api, name: &str, labels: Value, annotations: Value, owner: Option<&Value>) {
    let mut object = json!({"metadata": {"name": name, "labels": labels, "annotations": annotations}, "data": {"k": "djE="}});
    if let Some(owner) = owner {
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob",
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": true}]);
    }
    api.create(&path("secrets", NAMESPACE, ""), object);
}

/// A version as the sidecar makes it for the QuarksJob `writer`.
fn version(scene: &Scene, name: &str, writer: &str) {
    let number = name.rsplit_once("-v").expect("a version").1;
    let owner = scene.server.api().get(&path("quarksjobs", NAMESPACE, writer));
    secret(scene.server.api(), name, json!({KIND: "versionedSecret", VERSION: number}), json!({WRITTEN_BY: writer}), owner.as_ref());
}

fn is_version(name: &str) -> bool {
    name.rsplit_once("-v").is_some_and(|(_, number)| number.parse::<u64>().is_ok())
}

/// Names of all Secrets that look like versions.
fn versions(scene: &Scene) -> String {
    let secrets = scene.server.api().list(&path("secrets", NAMESPACE, ""));
    let names = secrets.iter().filter_map(|secret| secret["metadata"]["name"].as_str());
    names.filter(|name| is_version(name)).collect::<Vec<_>>().join(" ")
}

/// Lists of Secrets that the operator has asked for.
fn lists(scene: &Scene) -> Vec<Request> {
    let requests = scene.server.requests().into_iter().map(|entry| entry.request);
    requests.filter(|request| request.method == "GET" && request.path.ends_with("/secrets")).collect()
}

/// Jobs of this QuarksJob complete, with a pod whose sidecar has stored everything.
fn complete_jobs_of(scene: &Scene, quarks_job: &'static str) -> Auto {
    play::auto(scene.server.api(), move |api, job| {
        if job["metadata"]["labels"][QJOB_NAME] == quarks_job {
            let name = job["metadata"]["name"].as_str().expect("a name");
            play::create_pod_for_job(api, NAMESPACE, name, &[("main", 0, ""), ("output-persist", 0, REPORT)]);
            play::finish_job(api, NAMESPACE, name, End::Complete);
        }
    })
}

/// Everything by which a pod can name a Secret or a ConfigMap; the ConfigMaps have the name of a version.
fn everywhere(secret: &str) -> Value {
    let container = |name: &str| {
        json!({"name": name, "image": "i",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k", "optional": true}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "db-v1", "key": "k"}}}, {"name": "C", "value": "db-v1"}],
            "envFrom": [{"secretRef": {"name": secret}}, {"configMapRef": {"name": "db-v1"}}]})
    };
    json!({
        "restartPolicy": "Never",
        "imagePullSecrets": [{"name": "db-v1"}],
        "initContainers": [container("init")],
        "containers": [container("main"), container("other")],
        "volumes": [
            {"name": "a", "secret": {"secretName": secret, "defaultMode": 256}},
            {"name": "b", "configMap": {"name": "db-v1"}},
            {"name": "c", "projected": {"sources": [{"secret": {"name": secret}}, {"configMap": {"name": "db-v1"}}]}},
        ],
    })
}

/// The ConfigMap and the Secrets that [`everywhere`] names beside versions.
fn plain_references(scene: &Scene, secrets: &[&str]) {
    scene.server.api().create(&path("configmaps", NAMESPACE, ""), json!({"metadata": {"name": "db-v1"}}));
    for name in secrets {
        secret(scene.server.api(), name, json!({}), json!({}), None);
    }
}

/// The pod specs of a QuarksJob with this one, and of the Job made from it.
fn run_with(scene: &Scene, name: &str, pod_spec: &Value) -> Value {
    scene.create(name, "now", |object| object["spec"]["template"]["spec"]["template"]["spec"] = pod_spec.clone());
    if !scene.operator.is_running() {
        scene.operator.start();
    }
    let job = scene
        .operator
        .wait_for(&format!("the Job of {name}"), || scene.jobs().into_iter().find(|job| job["metadata"]["labels"][QJOB_NAME] == name));
    assert_eq!(&scene.quarks_job(name)["spec"]["template"]["spec"]["template"]["spec"], pod_spec, "the QuarksJob stays as it is");
    let mut spec = job["spec"]["template"]["spec"].clone();
    spec.as_object_mut().expect("an object").retain(|field, _| pod_spec.get(field).is_some());
    spec
}

#[test]
fn references_mean_the_highest_version_everywhere_in_the_job() {
    let scene = Scene::new("everywhere");
    let api = scene.server.api();
    for name in ["db-v2", "db-v9", "db-v10", "mydb-v77", "db-v1-v99"] {
        version(&scene, name, "somebody");
    }
    secret(api, "db-v11", json!({KIND: "versionedSecret", VERSION: "eleven"}), json!({}), None);
    secret(api, "db-v12", json!({KIND: "versionedSecret", VERSION: "13"}), json!({}), None);
    secret(api, "db-v14", json!({VERSION: "14"}), json!({}), None);
    secret(api, "odd", json!({KIND: "versionedSecret"}), json!({}), None);
    plain_references(&scene, &["b-v1", "odd-v3"]);

    assert_eq!(run_with(&scene, "gone", &everywhere("db-v1")), everywhere("db-v10"));
    let asked = lists(&scene);
    assert_eq!(asked.len(), 1, "one list for one run: {asked:?}");
    assert!(asked[0].header("accept").contains("as=PartialObjectMetadataList"), "no content");
    assert_eq!(asked[0].parameter("labelSelector"), format!("{KIND}=versionedSecret"));

    assert_eq!(run_with(&scene, "exact", &everywhere("mydb-v1")), everywhere("mydb-v77"));
    assert_eq!(run_with(&scene, "nested", &everywhere("db-v1-v1")), everywhere("db-v1-v99"));
    assert_eq!(run_with(&scene, "none", &everywhere("b-v1")), everywhere("b-v1"));
    assert_eq!(run_with(&scene, "unlabelled", &everywhere("odd-v3")), everywhere("odd-v3"));
}

#[test]
fn a_template_without_versions_lists_no_secrets() {
    let scene = Scene::new("no-versions");
    version(&scene, "db-v2", "somebody");
    plain_references(&scene, &["db"]);
    assert_eq!(run_with(&scene, "q", &everywhere("db")), everywhere("db"));
    assert!(lists(&scene).is_empty(), "{:?}", lists(&scene));
}

#[test]
fn many_versions_come_in_pages_also_when_one_expires() {
    let scene = Scene::new("pages");
    for number in 1..=250 {
        version(&scene, &format!("db-v{number}"), "somebody");
    }
    plain_references(&scene, &[]);
    let second = |request: &Request| request.path.ends_with("/secrets") && !request.parameter("continue").is_empty();
    let expired = scene.server.fault(When::matching(second), Fault::status(410, "Expired", "the page token is too old", None));
    assert_eq!(run_with(&scene, "q", &everywhere("db-v3")), everywhere("db-v250"));
    assert_eq!((expired.hits(), lists(&scene).len()), (1, 2 + 1));
}

#[test]
fn a_missing_right_is_said_and_no_job_starts_with_an_old_version() {
    let scene = Scene::new("forbidden");
    version(&scene, "db-v2", "somebody");
    plain_references(&scene, &[]);
    let refused = When::matching(|request: &Request| request.path.ends_with("/secrets")).every();
    scene.server.fault(refused, Fault::status(403, "Forbidden", "secrets is forbidden", None));
    scene.create("q", "now", |object| object["spec"]["template"]["spec"]["template"]["spec"] = everywhere("db-v1"));
    scene.operator.start();
    scene.operator.wait_for("Ready=False", || (condition(&scene.quarks_job("q"), "Ready") == "False").then_some(()));
    let conditions = scene.quarks_job("q")["status"]["conditions"].to_string();
    assert!(conditions.contains("NamespaceNotReady") && conditions.contains("kubectl apply -n team"), "{conditions}");
    assert!(scene.created().is_empty(), "{:?}", scene.created());
    scene.server.clear_faults();
    scene.wait_jobs(1);
}

/// A QuarksJob `q` with one versioned output `s`, waiting, and its versions `s-v1` to `s-v5`.
fn producer(scene: &Scene, keep: Option<u32>) -> Auto {
    scene.create("q", "manual", |object| {
        object["spec"]["output"] = json!({"outputMap": {"main": {"a.json": {"name": "s", "versioned": true}}}, "keepVersions": keep});
    });
    for number in 1..=5 {
        version(scene, &format!("s-v{number}"), "q");
    }
    complete_jobs_of(scene, "q")
}

fn trigger(scene: &Scene) {
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
}

/// Waits for the end of the run and of its clean-up: its Job goes last.
fn wait_cleaned_up(scene: &Scene, runs: u64) {
    let object = scene.wait_settled("q", runs);
    assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{object}");
    scene
        .operator
        .wait_for("the Job's clean-up", || scene.jobs().iter().all(|job| job["metadata"]["labels"][QJOB_NAME] != "q").then_some(()));
}

#[test]
fn the_newest_versions_are_kept_and_what_is_in_use_or_of_others() {
    let scene = Scene::new("prune");
    let _jobs = producer(&scene, Some(2));
    let api = scene.server.api();
    version(&scene, "s-v6", "other");
    version(&scene, "mys-v1", "q");
    version(&scene, "s-v1-v1", "q");
    version(&scene, "s-v1-v2", "q");
    version(&scene, "s-v1-v3", "q");
    secret(api, "s-v0", json!({KIND: "versionedSecret", VERSION: "0"}), json!({WRITTEN_BY: "q"}), None);
    secret(api, "s-v07", json!({KIND: "versionedSecret", VERSION: "7"}), json!({WRITTEN_BY: "q"}), None);
    secret(api, "s-v8", json!({}), json!({WRITTEN_BY: "q"}), None);
    // Somebody's own Job that goes on, and one that has ended.
    let job = |secret: &str| {
        json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": secret}}]}}]}}}})
    };
    for (name, secret) in [("goes-on", "s-v2"), ("has-ended", "s-v3")] {
        let mut object = job(secret);
        object["metadata"] = json!({"name": name});
        api.create(&path("jobs", NAMESPACE, ""), object);
    }
    play::finish_job(api, NAMESPACE, "has-ended", End::Failed { reason: "BackoffLimitExceeded" });
    trigger(&scene);
    scene.operator.start();
    wait_cleaned_up(&scene, 1);
    assert_eq!(versions(&scene), "mys-v1 s-v0 s-v07 s-v1-v1 s-v1-v2 s-v1-v3 s-v2 s-v4 s-v5 s-v6 s-v8", "{}", scene.operator.log());

    let mutations = scene.server.mutations();
    let at = |what: &dyn Fn(&crate::support::server::Entry) -> bool| mutations.iter().position(what).expect("it happened");
    let recorded = at(&|entry| entry.is("PATCH", "/quarksjobs/q/status") && entry.request.json()["status"]["lastRun"]["run"] == 1);
    let pruned: Vec<_> = mutations.iter().filter(|entry| entry.is("DELETE", "/secrets/s-v")).collect();
    let paths: Vec<_> = pruned.iter().map(|entry| entry.request.path.rsplit('/').next().expect("a name")).collect();
    assert_eq!(paths, ["s-v1", "s-v3"], "oldest first");
    for entry in &pruned {
        assert!(entry.request.json()["preconditions"]["uid"].is_string(), "deleted whatever it is by then: {}", entry.request.path);
        assert_eq!(entry.status, Some(200), "{}", entry.request.path);
    }
    assert!(recorded < at(&|entry| entry.is("DELETE", "/secrets/s-v")), "the status comes first");
    assert!(at(&|entry| entry.is("DELETE", "/secrets/s-v3")) < at(&|entry| entry.is("DELETE", "/jobs/q-")), "the Job goes last");

    // What was in use then is pruned after the next run.
    play::finish_job(api, NAMESPACE, "goes-on", End::Complete);
    trigger(&scene);
    wait_cleaned_up(&scene, 2);
    assert!(!versions(&scene).contains("s-v2 "), "{}", versions(&scene));
}

#[test]
fn names_that_fan_out_are_each_pruned() {
    let scene = Scene::new("fan-out");
    let _jobs = producer(&scene, Some(1));
    scene.patch("q", json!({"spec": {"output": {"outputMap": {"main": {"a.json": {"persistencemethod": "fan-out"}}}}}}));
    for name in ["s-a-v1", "s-a-v2", "s-b-v1", "s-b-v10", "s-b-v9"] {
        version(&scene, name, "q");
    }
    trigger(&scene);
    scene.operator.start();
    wait_cleaned_up(&scene, 1);
    assert_eq!(versions(&scene), "s-a-v2 s-b-v10 s-v1 s-v2 s-v3 s-v4 s-v5", "{}", scene.operator.log());
}

#[test]
fn without_keep_versions_nothing_is_looked_at_and_nothing_goes() {
    let scene = Scene::new("keep-all");
    let _jobs = producer(&scene, None);
    trigger(&scene);
    scene.operator.start();
    wait_cleaned_up(&scene, 1);
    assert_eq!(versions(&scene), "s-v1 s-v2 s-v3 s-v4 s-v5");
    assert!(lists(&scene).is_empty(), "lists of Secrets: {:?}", lists(&scene));
}

/// One run that prunes three versions, disturbed at one of its last four writes.
fn disturbed_pruning(name: &str, k: usize, fault: &dyn Fn(&Operator) -> Fault) {
    let scene = Scene::new(&format!("{name}-{k}"));
    let _jobs = producer(&scene, Some(2));
    let writes =
        |request: &Request| request.method == "DELETE" && (request.path.contains("/secrets/s-v") || request.path.contains("/jobs/"));
    let rule = scene.server.fault(When::matching(writes).nth(k), fault(&scene.operator));
    trigger(&scene);
    scene.operator.start();
    let what = format!("{name} at {k}");
    crate::support::wait_for(&what, || {
        scene.revive();
        (scene.jobs().is_empty() && versions(&scene) == "s-v4 s-v5").then_some(())
    });
    let log = scene.operator.log();
    assert_eq!(rule.hits(), 1, "the fault was met: {what}\n{log}");
    assert_eq!(scene.created().len(), 1, "{what}\n{log}");
    let object = scene.quarks_job("q");
    assert_eq!((&object["status"]["runs"], &object["status"]["lastRun"]["outcome"]), (&json!(1), &json!("Succeeded")), "{what}\n{log}");
    scene.wait_quiet_reviving();
    assert_eq!(versions(&scene), "s-v4 s-v5", "{what}\n{}", scene.operator.log());
}

fn at_every_write(name: &str, fault: &dyn Fn(&Operator) -> Fault) {
    for k in 1..=4 {
        disturbed_pruning(name, k, fault);
    }
}

#[test]
fn killed_before_each_write_of_pruning() {
    at_every_write("prune-kill-before", &|operator| Fault::KillBefore(operator.killer()));
}

#[test]
fn killed_after_each_write_of_pruning() {
    at_every_write("prune-kill-after", &|operator| Fault::KillAfter(operator.killer()));
}

#[test]
fn reply_lost_at_each_write_of_pruning() {
    at_every_write("prune-lose-reply", &|_| Fault::LoseReply);
}

#[test]
fn an_error_at_each_write_of_pruning() {
    at_every_write("prune-error", &|_| Fault::status(500, "InternalError", "try again", None));
}

#[test]
fn pruning_that_is_refused_holds_nothing_up_and_is_done_later() {
    let scene = Scene::new("prune-refused");
    let _jobs = producer(&scene, Some(2));
    let refused = scene.server.fault(When::request("DELETE", "/secrets/s-v").every(), Fault::status(403, "Forbidden", "no", None));
    trigger(&scene);
    scene.operator.start();
    wait_cleaned_up(&scene, 1);
    trigger(&scene);
    wait_cleaned_up(&scene, 2);
    assert!(refused.hits() >= 2, "{} refusals", refused.hits());
    assert_eq!(versions(&scene), "s-v1 s-v2 s-v3 s-v4 s-v5");
    scene.server.clear_faults();
    // No trigger, no event: it is tried again by itself.
    scene.operator.wait_for("the versions pruned", || (versions(&scene) == "s-v4 s-v5").then_some(()));
    assert_eq!(scene.created().len(), 2);
}

#[test]
fn a_version_that_a_starting_job_has_chosen_is_not_pruned() {
    let mut scene = Scene::new("choice");
    // The create is held for as long as the test needs.
    let patient = Operator::new(binary()).kubeconfig(&scene.server.kubeconfig(scene.folder.path()));
    scene.operator = patient.arg("--log-level=debug").arg("--ctx-timeout=300").arg("--image=quarks-job:test");
    let _jobs = producer(&scene, Some(1));
    plain_references(&scene, &[]);
    let gate = Gate::default();
    let of_consumer = |request: &Request| {
        request.method == "POST" && request.path.ends_with("/jobs") && request.json()["metadata"]["labels"][QJOB_NAME] == "consumer"
    };
    scene.server.fault(When::matching(of_consumer), Fault::Hold(gate.clone()));
    scene.create("consumer", "now", |object| object["spec"]["template"]["spec"]["template"]["spec"] = everywhere("s-v1"));
    scene.operator.start();
    scene.operator.wait_for("the create on its way", || (gate.arrived() == 1).then_some(()));

    version(&scene, "s-v6", "q");
    trigger(&scene);
    wait_cleaned_up(&scene, 1);
    assert_eq!(versions(&scene), "s-v1 s-v2 s-v3 s-v4 s-v5 s-v6", "the Job on its way names s-v5, and nobody can see it");
    gate.open();
    scene.operator.wait_for("the others pruned", || (versions(&scene) == "s-v5 s-v6").then_some(()));
    let job = scene.jobs().into_iter().find(|job| job["metadata"]["labels"][QJOB_NAME] == "consumer").expect("the Job is there");
    assert_eq!(job["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"], "s-v5");

    play::finish_job(scene.server.api(), NAMESPACE, job["metadata"]["name"].as_str().expect("a name"), End::Complete);
    trigger(&scene);
    wait_cleaned_up(&scene, 2);
    assert_eq!(versions(&scene), "s-v6");
}
