//! What the versions of Kubernetes make of the newer parts of a template, against the table in docs/kubernetes-versions.md.

use serde_json::{Value, json};

use crate::case::{Case, cluster, condition, quarks_job, text};
use crate::pages;

const HEAD: &str = "| part of a Job or pod | 1.30 | 1.31 | 1.32 | 1.33 | 1.34 | 1.35 | 1.36 |";
/// Of the table: versions begin in its second column with this one.
const FIRST: usize = 30;

/// First cell of the row, what it is in a Job's spec, and where that would be in the Job.
fn parts() -> Vec<(&'static str, Value, &'static str)> {
    let restarts = |action: &str| json!([{"restartPolicy": "Never", "restartPolicyRules": [{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]}]);
    let container = |fields: Value| json!({"template": {"spec": {"containers": fields}}});
    vec![
        ("`managedBy` of the Job", json!({"managedBy": "example.com/other"}), "/managedBy"),
        (
            "`successPolicy` of the Job",
            json!({"completionMode": "Indexed", "completions": 2, "successPolicy": {"rules": [{"succeededCount": 1}]}}),
            "/successPolicy",
        ),
        (
            "`resources` of the pod",
            json!({"template": {"spec": {"resources": {"limits": {"memory": "16Mi"}}}}}),
            "/template/spec/resources",
        ),
        (
            "a volume of type `image`",
            json!({"template": {"spec": {"volumes": [{"name": "v", "image": {"reference": "busybox:1.36"}}]}}}),
            "/template/spec/volumes/0/image",
        ),
        ("`restartPolicy` of a container", container(json!([{"restartPolicy": "OnFailure"}])), "/template/spec/containers/0/restartPolicy"),
        ("`restartPolicyRules` with `Restart`", container(restarts("Restart")), "/template/spec/containers/0/restartPolicyRules"),
        (
            "`restartPolicyRules` with `RestartAllContainers`",
            container(restarts("RestartAllContainers")),
            "/template/spec/containers/0/restartPolicyRules",
        ),
    ]
}

/// Lists by their places, all else as in a merge patch.
fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            change.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (Value::Array(into), Value::Array(change)) => into.iter_mut().zip(change).for_each(|(into, value)| merge(into, value)),
        (into, change) => *into = change.clone(),
    }
}

#[test]
fn each_version_makes_of_a_template_what_the_table_says() {
    let version: Value = serde_json::from_str(&cluster(&["get", "--raw", "/version"])).expect("JSON");
    let minor: usize = text(&version["minor"]).parse().expect("a minor version");
    let table = pages::table(HEAD);
    let column = minor - FIRST + 1;
    let parts = parts();
    assert_eq!(table.rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), parts.iter().map(|part| part.0).collect::<Vec<_>>());

    let case = Case::new("versions");
    for (at, (_, spec, _)) in parts.iter().enumerate() {
        // Suspended: what counts is the Job, not what becomes of it.
        let mut qjob = quarks_job(&format!("q{at}"), "once", "true");
        qjob["spec"]["template"]["spec"]["suspend"] = json!(true);
        merge(&mut qjob["spec"]["template"]["spec"], spec);
        case.apply(&qjob);
    }
    // After all of these has its Event what no version knows.
    let mut typo = quarks_job("typo", "once", "true");
    typo["spec"]["template"]["spec"]["backofLimit"] = json!(1);
    case.apply(&typo);
    case.wait_event("typo", "TemplateWarning");

    let mut wrong = Vec::new();
    for (at, (row, (name, _, path))) in table.rows.iter().zip(&parts).enumerate() {
        let is_refused = |qjob: &Value| condition(qjob, "Ready").is_some_and(|ready| ready["reason"] == "InvalidTemplate");
        let qjob = case.wait_qjob(&format!("q{at}"), "a Job or its refusal", |qjob| {
            qjob["status"]["active"]["jobName"].is_string() || is_refused(qjob)
        });
        let found = if is_refused(&qjob) {
            "refused"
        } else {
            let job = case.get("job", &text(&qjob["status"]["active"]["jobName"]));
            let is_warned = case.events(&format!("q{at}")).iter().any(|(reason, _)| reason == "TemplateWarning");
            match (job["spec"].pointer(path), is_warned) {
                (Some(_), false) => "kept",
                (None, false) => "dropped",
                (None, true) => "warned",
                (Some(_), true) => "kept and warned",
            }
        };
        println!("1.{minor}: {name}: {found}");
        if row[column] != found {
            wrong.push(format!("{name}: {found}, not {}", row[column]));
        }
    }
    assert!(wrong.is_empty(), "{}, 1.{minor}: {wrong:#?}", table.place);
}
