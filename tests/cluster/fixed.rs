//! An operator for fixed namespaces, in its pod, from its own manifests: with Roles and nothing else.

use serde_json::Value;

use crate::audit;
use crate::case::{Case, map, until, with_output};
use crate::granted::objects;

const WRITES: &str = r#"echo '{"a": "b"}' >> /mnt/quarks/output.json"#;

/// What an administrator does for a namespace of an operator that lives in `home`.
fn prepare(case: &Case, home: &str) {
    let mut all =
        objects("fixed-namespaces/namespace.yaml", |text| text.replace("namespace: quarks-job\n", &format!("namespace: {home}\n")));
    // The operator starts the run as soon as it may: what the sidecar may has to be there before (see `report`).
    all.sort_by_key(|object| object["kind"] == "RoleBinding" && object["metadata"]["name"] == "quarks-job");
    for object in all {
        case.apply(&object);
    }
}

fn deploy(home: &Case, namespaces: &str) {
    let image = std::env::var("QUARKS_TEST_IMAGE").expect("these tests need a cluster: run them with scripts/test");
    let change = |text: String| {
        let text = text.replace("namespace: quarks-job\n", &format!("namespace: {}\n", home.namespace));
        text.replace("quarks-job:dev", &image).replace("team-a,team-b", namespaces)
    };
    for mut object in objects("fixed-namespaces/operator.yaml", change) {
        if object["kind"] == "Namespace" {
            object["metadata"]["name"] = home.namespace.clone().into();
        }
        home.apply(&object);
    }
}

fn is_ready(home: &Case) -> bool {
    let deployment = home.get("deployment", "quarks-job");
    deployment["status"]["readyReplicas"].as_u64() == Some(1)
}

#[test]
fn fixed_namespaces_are_served_with_roles_only() {
    let first = Case::unlabelled("fixed");
    let home = first.bare_beside("fixed-home");
    let [a, b, late] = ["fixed-a", "fixed-b", "fixed-late"].map(|name| first.bare_beside(name));
    prepare(&a, &home.namespace);
    prepare(&b, &home.namespace);
    deploy(&home, &format!("{},{}, {}", a.namespace, b.namespace, late.namespace));
    let qjob = with_output("q", "once", WRITES, "s");
    for case in [&a, &b, &late] {
        case.apply(&qjob);
    }
    // One that has no rights yet holds up no other.
    for case in [&a, &b] {
        case.wait("q", "condition=Succeeded");
        assert_eq!(case.secret("s"), map(&[("a", "b")]), "{}", case.namespace);
    }
    assert!(!is_ready(&home), "ready without the lists of a namespace");
    assert_eq!(late.qjob("q")["status"], Value::Null);
    let log = until("the log to name the command", || {
        let log = home.kubectl(&["logs", "deployment/quarks-job"]);
        let command = format!("kubectl apply -n {} -f manifests/fixed-namespaces/namespace.yaml", late.namespace);
        log.lines().find(|line| line.contains(&command)).map(ToOwned::to_owned)
    });
    assert!(log.contains("cannot list resource"), "{log}");
    prepare(&late, &home.namespace);
    late.wait("q", "condition=Succeeded");
    until("readiness", || is_ready(&home).then_some(()));

    let user = format!("system:serviceaccount:{}:quarks-job", home.namespace);
    let entries: Vec<_> = audit::entries(|_| true).into_iter().filter(|entry| entry.user == user).collect();
    assert!(entries.iter().any(|entry| entry.verb == "watch"), "{} requests", entries.len());
    let served = [&a.namespace, &b.namespace, &late.namespace];
    let elsewhere: Vec<String> = entries.iter().filter(|entry| !served.contains(&&entry.namespace)).map(ToString::to_string).collect();
    assert!(elsewhere.is_empty(), "requests outside of the namespaces: {elsewhere:#?}");
    for case in [&a, &b, &late] {
        let created = case.audit().iter().filter(|entry| entry.verb == "create" && entry.resource == "jobs" && entry.code == 201).count();
        assert_eq!(created, 1, "{}", case.namespace);
        assert!(case.audit().iter().all(|entry| !entry.is_operator()), "the other operator was here: {}", case.namespace);
    }
}
