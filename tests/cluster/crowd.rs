//! Twenty pods that store at the same time, under one versioned name.

use std::collections::BTreeSet;

use serde_json::json;

use crate::case::{Case, many_pods, text, until, with_output};

const PODS: usize = 20;

/// All pods wait for a file that is made on the node when the last of them runs.
fn run(case: &Case, content: &str) {
    let gate = std::env::temp_dir().join(format!("gate-{}", case.namespace));
    std::fs::create_dir(&gate).expect("a folder");
    let script = format!(r#"until [ -e /gate/open ]; do sleep 0.1; done; echo "{content}" >> /mnt/quarks/output.json"#);
    let mut qjob = with_output("q", "once", &script, "found");
    qjob["spec"]["output"]["versioned"] = json!(true);
    let job = &mut qjob["spec"]["template"]["spec"];
    job["completions"] = json!(PODS);
    job["parallelism"] = json!(PODS);
    let pod = &mut job["template"]["spec"];
    pod["volumes"] = json!([{"name": "gate", "hostPath": {"path": gate}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "gate", "mountPath": "/gate", "readOnly": true}]);
    case.apply(&qjob);
    until("all pods to run", || {
        let pods = case.list("pods", "quarks.cloudfoundry.org/qjob-name=q");
        (pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count() == PODS).then_some(())
    });
    std::fs::write(gate.join("open"), "").expect("written");
    assert_eq!(text(&case.wait_runs("q", 1)["outcome"]), "Succeeded");
    assert_eq!(case.jobs_created(), 1);
    std::fs::remove_dir_all(&gate).expect("removed");
}

/// Numbers of the versions, in order. Name and label agree.
fn versions(case: &Case) -> Vec<usize> {
    let number = |secret: &serde_json::Value| -> usize {
        let label = text(&secret["metadata"]["labels"]["quarks.cloudfoundry.org/secret-version"]);
        assert_eq!(secret["metadata"]["name"], format!("found-v{label}"));
        assert_eq!(secret["immutable"], true);
        label.parse().expect("a number")
    };
    let mut numbers: Vec<usize> = case.list("secrets", "quarks.cloudfoundry.org/container-name").iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn twenty_pods_at_once_make_twenty_consecutive_versions() {
    let _turn = many_pods();
    let case = Case::new("crowd");
    run(&case, r#"{\"pod\": \"$HOSTNAME\"}"#);
    assert_eq!(versions(&case), (1..=PODS).collect::<Vec<_>>());
    let pods: BTreeSet<String> =
        (1..=PODS).map(|number| case.secret(&format!("found-v{number}")).remove("pod").expect("a pod's name")).collect();
    assert_eq!(pods.len(), PODS, "each pod's content once");
    let entries = case.audit();
    let created = |code| entries.iter().filter(|entry| entry.is_sidecar() && entry.verb == "create" && entry.code == code).count();
    let (creates, conflicts) = (created(201), created(409));
    let reads = entries.iter().filter(|entry| entry.is_sidecar() && entry.is_read()).count();
    println!("{creates} Secrets created, {conflicts} conflicts, {reads} reads");
    assert_eq!(creates, PODS);
}

#[test]
fn twenty_pods_at_once_with_equal_content_make_one_version() {
    let _turn = many_pods();
    let case = Case::new("crowd-equal");
    run(&case, r#"{\"same\": \"for all\"}"#);
    assert_eq!(versions(&case), [1]);
    assert_eq!(case.secret("found-v1")["same"], "for all");
}
