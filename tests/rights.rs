//! The real operator against the scripted API server, with rights that are missing: fixed namespaces, each on its own.
#![forbid(unsafe_code)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use support::play::{self, path};
use support::scene::{NAMESPACE, Scene};
use support::{Fault, Request, When};

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
        arguments.iter().fold(support::scene::program(&scene.server, &scene.folder), |operator, argument| operator.arg(*argument));
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
    for part in [
        "resource=jobs",
        "namespace=\"other\"",
        "cannot list resource",
        "kubectl apply -n other -f manifests/fixed-namespaces/namespace.yaml",
    ] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    assert_eq!(scene.server.api().list(&path("jobs", "other", "")), [Value::Null; 0], "nothing is started without its list");
    assert_eq!((get(&address, "/healthz").as_deref(), get(&address, "/readyz").as_deref()), (Some("200"), Some("503")));
    denied.cancel();
    wait_succeeded(&scene, "other", "q");
    scene.operator.wait_for("readiness", || (get(&address, "/readyz")? == "200").then_some(()));
    assert_eq!(scene.created().len(), 2);
}
