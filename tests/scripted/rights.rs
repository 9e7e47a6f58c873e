//! The real operator against the scripted API server, with rights that are missing: fixed namespaces, each on its own.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::support::play::{self, End, path};
use crate::support::scene::{NAMESPACE, Scene};
use crate::support::{Fault, Request, Response, When};

/// What the API server says where a right is missing.
fn forbidden(verb: &str, resource: &str) -> Fault {
    let message = format!("{resource} is forbidden: User \"o\" cannot {verb} resource \"{resource}\" in the namespace \"x\"");
    Fault::status(403, "Forbidden", &message, None)
}

/// An operator for two namespaces, `team` and `other`, which has no labels.
fn fixed(name: &str, arguments: &[&str]) -> Scene {
    let mut scene = Scene::new(name);
    play::namespace(scene.server.api(), "other", &json!({}));
    let operator =
        arguments.iter().fold(crate::support::scene::program(&scene.server, &scene.folder), |operator, argument| operator.arg(*argument));
    scene.operator = operator.arg("--watch-namespaces=team,other");
    scene
}

fn create_in(scene: &Scene, namespace: &str, name: &str) {
    let mut object = play::quarks_job(name, "once");
    object["spec"]["template"]["spec"]["template"]["metadata"] = json!({"labels": {"delete": "pod"}});
    scene.server.api().create(&path("quarksjobs", namespace, ""), object);
}

fn wait_succeeded(scene: &Scene, namespace: &str, name: &str) {
    scene.operator.wait_for("the end in status", || {
        let object = scene.server.api().get(&path("quarksjobs", namespace, name))?;
        (object["status"]["lastRun"]["outcome"] == "Succeeded").then_some(())
    });
}

fn get(address: &str, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {target} HTTP/1.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer[9..12].to_owned())
}

/// An address that nobody listens on.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string()
}

#[test]
fn fixed_namespaces_need_no_label_and_nothing_of_the_cluster() {
    let scene = fixed("fixed", &[]);
    let _jobs = play::auto_complete(scene.server.api());
    play::namespace(scene.server.api(), "third", &json!({"quarks.cloudfoundry.org/monitored": "default"}));
    for namespace in [NAMESPACE, "other", "third"] {
        create_in(&scene, namespace, "q");
    }
    scene.operator.start();
    wait_succeeded(&scene, NAMESPACE, "q");
    wait_succeeded(&scene, "other", "q");
    assert_eq!(scene.server.api().list(&path("jobs", "third", "")), [Value::Null; 0]);
    for entry in scene.server.requests() {
        let path = &entry.request.path;
        let is_ours = ["/namespaces/team/", "/namespaces/other/"].iter().any(|part| path.contains(part));
        assert!(is_ours, "a request outside of the two namespaces: {} {path}", entry.request.method);
    }
}

#[test]
fn a_fixed_namespace_without_rights_holds_up_no_other_and_is_served_when_it_has_them() {
    let address = free_address();
    let scene = fixed("fixed-denied", &[&format!("--http-listen={address}")]);
    let _jobs = play::auto_complete(scene.server.api());
    let jobs_of_other = |request: &Request| request.method == "GET" && request.path.ends_with("/namespaces/other/jobs");
    let denied = scene.server.fault(When::matching(jobs_of_other).every(), forbidden("list", "jobs"));
    for namespace in [NAMESPACE, "other"] {
        create_in(&scene, namespace, "q");
    }
    scene.operator.start();
    wait_succeeded(&scene, NAMESPACE, "q");
    let line = scene.operator.wait_for("the line that says so", || {
        scene.operator.log().lines().find(|line| line.contains("watch not allowed")).map(ToOwned::to_owned)
    });
    for part in
        ["resource=jobs", "namespace=other", "cannot list resource", "kubectl apply -n other -f manifests/fixed-namespaces/namespace.yaml"]
    {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    assert_eq!(scene.server.api().list(&path("jobs", "other", "")), [Value::Null; 0], "nothing is started without its list");
    assert_eq!((get(&address, "/healthz").as_deref(), get(&address, "/readyz").as_deref()), (Some("200"), Some("503")));
    denied.cancel();
    wait_succeeded(&scene, "other", "q");
    scene.operator.wait_for("readiness", || (get(&address, "/readyz")? == "200").then_some(()));
    assert_eq!(scene.created().len(), 2);
}

fn ready(scene: &Scene, name: &str) -> Option<(String, String)> {
    let object = scene.quarks_job(name);
    let found = object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Ready")?.clone();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((format!("{} {}", text("status"), text("reason")), text("message")))
}

/// A request of this kind, no watch, to a collection or to one object of it.
fn is_to(request: &Request, method: &str, plural: &str, is_one: bool) -> bool {
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let at = parts.len() - 1 - usize::from(is_one);
    request.method == method && !request.is_watch() && parts[at] == plural && parts[at - 2] == "namespaces"
}

/// What a run needs, each taken away while the run needs it: said on the QuarksJob, and the run goes on when it is back.
#[test]
fn each_missing_right_of_a_run_is_said_and_mended_without_a_restart() {
    for (verb, resource, method, is_one) in [
        ("get", "quarksjobs", "GET", true),
        ("create", "jobs", "POST", false),
        ("patch", "quarksjobs", "PATCH", true),
        ("list", "pods", "GET", false),
        ("patch", "pods", "PATCH", true),
        ("delete", "jobs", "DELETE", true),
    ] {
        let mut scene = Scene::new(&format!("missing-{verb}-{resource}"));
        // An operator that is not where the manifests have it says so: the file binds the account of another namespace.
        let home = if verb == "get" { "jobs" } else { "quarks-job" };
        scene.operator = scene.operator.env("POD_NAMESPACE", home);
        let suffix = if verb == "get" { " with namespace: jobs for the operator's account" } else { "" };
        let _jobs = play::auto(scene.server.api(), |api, job| {
            let name = job["metadata"]["name"].as_str().expect("a name");
            play::create_pod_for_job(api, NAMESPACE, name, &[("main", 0, "")]);
            play::finish_job(api, NAMESPACE, name, End::Complete);
        });
        let rule = When::matching(move |request: &Request| is_to(request, method, resource, is_one)).every();
        let denied = scene.server.fault(rule, forbidden(verb, resource));
        // Its pods stay for their logs.
        scene.create("q", "once", |object| object["spec"]["template"]["spec"]["template"]["metadata"] = Value::Null);
        scene.operator.start();
        let message = scene.operator.wait_for("the condition", || {
            let (state, message) = ready(&scene, "q")?;
            (state == "False NamespaceNotReady").then_some(message)
        });
        assert!(message.contains(&format!("cannot {verb} resource \"{resource}\"")), "{message}");
        assert!(message.ends_with(&format!("; run: kubectl apply -n team -f manifests/monitored-namespace.yaml{suffix}")), "{message}");
        assert!(denied.hits() > 0, "nothing was denied");
        denied.cancel();
        wait_succeeded(&scene, NAMESPACE, "q");
        scene.operator.wait_for("Ready=True", || (ready(&scene, "q")?.0 == "True Ready").then_some(()));
        scene.wait_jobs(0);
        assert_eq!(scene.created().len(), 1, "{verb} {resource}");
    }
}

/// A right that is missing costs a try with backoff and no write after the first.
#[test]
fn a_missing_right_is_written_down_once() {
    let scene = Scene::new("missing-once");
    let denied =
        scene.server.fault(When::matching(|request| is_to(request, "GET", "quarksjobs", true)).every(), forbidden("get", "quarksjobs"));
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.operator.wait_for("five tries", || (denied.hits() >= 5).then_some(()));
    let writes: Vec<String> = scene
        .server
        .mutations()
        .iter()
        .filter(|entry| !entry.request.path.contains("/events"))
        .map(|entry| entry.request.path.clone())
        .collect();
    assert_eq!(writes, ["/apis/quarks.cloudfoundry.org/v1alpha1/namespaces/team/quarksjobs/q/status"]);
}

#[test]
fn a_missing_right_to_clean_up_is_written_down_once_and_taken_back() {
    let scene = Scene::new("missing-delete");
    let _jobs = play::auto_complete(scene.server.api());
    let rule = When::matching(|request| is_to(request, "DELETE", "jobs", true)).every();
    let denied = scene.server.fault(rule, forbidden("delete", "jobs"));
    scene.create("q", "once", |_| {});
    scene.operator.start();
    let is_said = || (ready(&scene, "q")?.0 == "False NamespaceNotReady").then_some(());
    scene.operator.wait_for("the condition", is_said);
    let writes = || scene.asked("PATCH", "/quarksjobs/q/status");
    let before = writes();
    scene.operator.wait_for("four tries", || (denied.hits() >= 4).then_some(()));
    scene.wait_quiet();
    assert_eq!((writes(), is_said()), (before, Some(())), "{}", scene.operator.log());
    denied.cancel();
    scene.wait_jobs(0);
    scene.operator.wait_for("Ready=True", || (ready(&scene, "q")?.0 == "True Ready").then_some(()));
    assert_eq!(scene.created().len(), 1);
}

#[test]
fn where_the_status_may_not_be_written_either_the_log_tells() {
    let scene = Scene::new("missing-status");
    let is_object = |request: &Request| request.path.ends_with("/quarksjobs/q") && request.method == "GET";
    scene.server.fault(When::matching(is_object).every(), forbidden("get", "quarksjobs"));
    scene.server.fault(When::request("PATCH", "/status").every(), forbidden("patch", "quarksjobs/status"));
    scene.create("q", "once", |_| {});
    scene.operator.start();
    for part in ["cannot get resource", "cannot patch resource", "run: kubectl apply -n team -f manifests/monitored-namespace.yaml"] {
        scene.operator.wait_for(part, || scene.operator.log().replace('\\', "").contains(part).then_some(()));
    }
}

#[test]
fn events_that_may_not_be_posted_are_told_in_the_log() {
    let scene = Scene::new("missing-events");
    let _jobs = play::auto_complete(scene.server.api());
    scene.server.fault(When::request("POST", "/events").every(), forbidden("create", "events"));
    scene.create("q", "once", |_| {});
    scene.operator.start();
    wait_succeeded(&scene, NAMESPACE, "q");
    scene.operator.wait_for("the line", || scene.operator.log().contains("WARN").then_some(()));
    let log = scene.operator.log();
    let line = log.lines().find(|line| line.contains("Event not posted")).expect("the line");
    assert!(line.contains("create events: 403") && line.contains("WARN"), "{line}");
}

#[test]
fn a_namespace_that_is_being_deleted_is_left_alone() {
    let scene = Scene::new("terminating");
    let mut denied = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "unable to create new content in namespace team because it is being terminated"});
    denied["details"] = json!({"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]});
    let posts = When::matching(|request: &Request| request.method == "POST" && request.path.ends_with("/jobs")).every();
    let rule = scene.server.fault(posts, Fault::Answer(Response::json(403, &denied)));
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.operator.wait_for("the try", || (rule.hits() > 0).then_some(()));
    // Its key may have been dirty twice; after that there is a minute of peace.
    scene.wait_quiet();
    let tries = rule.hits();
    scene.wait_quiet();
    assert!(tries <= 2 && rule.hits() == tries, "{tries} tries, then {}", rule.hits());
    assert!(!scene.operator.log().contains("WARN"), "{}", scene.operator.log());
    assert_ne!(ready(&scene, "q").map(|(state, _)| state).as_deref(), Some("False JobRefused"));
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text")).collect()
}

/// Every single right that roles of a manifest grant: verb, group, resource, and the name if it is for one object only.
fn rights(manifest: &str, roles: &[&str]) -> BTreeSet<String> {
    let path = format!("{}/manifests/{manifest}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut found = BTreeSet::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object = Value::deserialize(document).expect("valid YAML");
        let is_wanted = roles.iter().any(|name| object["metadata"]["name"] == *name);
        for rule in object["rules"].as_array().into_iter().flatten().filter(|_| is_wanted) {
            let mut names = texts(&rule["resourceNames"]);
            if names.is_empty() {
                names.push("*");
            }
            for verb in texts(&rule["verbs"]) {
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        found.extend(names.iter().map(|name| format!("{verb} {group}/{resource} {name}")));
                    }
                }
            }
        }
    }
    assert!(!found.is_empty(), "no rules of {roles:?} in {manifest}");
    found
}

/// The Roles for fixed namespaces are copies; they must not drift.
#[test]
fn the_roles_of_fixed_namespaces_grant_what_the_cluster_roles_grant_but_for_namespaces() {
    let mut cluster = rights("operator.yaml", &["quarks-job", "quarks-job-status", "quarks-job-namespace"]);
    cluster.retain(|right| !right.contains(" /namespaces "));
    assert_eq!(rights("fixed-namespaces/namespace.yaml", &["quarks-job"]), cluster);
    let sidecar = |manifest| rights(manifest, &["quarks-job-sidecar"]);
    assert_eq!(sidecar("fixed-namespaces/namespace.yaml"), sidecar("operator.yaml"));
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/fixed-namespaces/operator.yaml")).expect("readable");
    assert!(!text.contains("rbac.authorization.k8s.io"), "the operator's own manifest grants nothing");
}

/// What is left of a try that failed must not make the next start believe in a token that is not there.
#[test]
fn no_job_with_output_starts_while_its_account_is_missing() {
    let scene = Scene::new("no-account");
    let labels = json!({"metadata": {"labels": {"quarks.cloudfoundry.org/qjob-service-account": "nobody"}}});
    scene.server.api().patch("/api/v1/namespaces/team", &labels);
    scene.create("q", "once", |object| object["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": "s"}}}}));
    scene.operator.start();
    let count = |what: &str| scene.operator.log().matches(what).count();
    let asked = || scene.server.requests().iter().filter(|entry| entry.is("POST", "/token")).count();
    scene.operator.wait_for("some tries", || (asked() > 2).then_some(()));
    let tries = count("no run started");
    scene.operator.wait_for("one more try", || (count("no run started") > tries).then_some(()));
    assert_eq!(scene.created(), [""; 0]);
    let (state, message) = ready(&scene, "q").expect("a condition");
    assert!(state == "False NamespaceNotReady" && message.contains("\"nobody\"") && message.contains("kubectl apply -n team"), "{message}");
    scene.server.api().create(&path("serviceaccounts", NAMESPACE, ""), json!({"metadata": {"name": "nobody"}}));
    scene.wait_jobs(1);
}

/// A thread makes a Secret anew and gets no token for it: that Secret is there, and no start may believe in it.
#[test]
fn no_job_with_output_starts_on_a_secret_that_a_renewal_left_without_a_token() {
    const TOKEN: &str = "quarks-job-sidecar-token";
    let scene = Scene::new("no-renewal");
    let labels = json!({"metadata": {"labels": {"quarks.cloudfoundry.org/qjob-service-account": "nobody"}}});
    scene.server.api().patch("/api/v1/namespaces/team", &labels);
    let account = || scene.server.api().create(&path("serviceaccounts", NAMESPACE, ""), json!({"metadata": {"name": "nobody"}}));
    let create = |name: &str| {
        scene.create(name, "once", |object| object["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": "s"}}}}));
    };
    account();
    create("first");
    scene.operator.start();
    scene.wait_jobs(1);
    scene.server.api().delete(&path("serviceaccounts", NAMESPACE, "nobody"), "Background");
    scene.server.api().delete(&path("secrets", NAMESPACE, TOKEN), "Background");
    let count = |what: &str| scene.operator.log().matches(what).count();
    // Only the threads say this; the only start was long before.
    scene.operator.wait_for("a renewal", || (count("token not renewed") > 0).then_some(()));
    let secret = scene.server.api().get(&path("secrets", NAMESPACE, TOKEN)).expect("made anew");
    assert!(!secret["data"]["token"].is_string(), "{secret}");
    create("second");
    scene.operator.wait_for("a refusal", || (count("no run started") > 0).then_some(()));
    let tries = count("no run started");
    scene.operator.wait_for("one more try", || (count("no run started") > tries).then_some(()));
    assert_eq!(scene.created().len(), 1, "{}", scene.operator.log());
    let (state, message) = ready(&scene, "second").expect("a condition");
    assert!(state == "False NamespaceNotReady" && message.contains("\"nobody\""), "{state} {message}");
    account();
    scene.wait_jobs(2);
}
