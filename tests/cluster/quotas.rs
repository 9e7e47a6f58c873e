//! Quotas that are used up: their sentence is in status, and nobody is sent to look for missing rights. Namespaces are called
//! `denied-...`: the refusals of these cases are wanted (see `report`).

use serde_json::{Value, json};

use crate::case::{Case, quarks_job, with_output};

const WRITES: &str = r#"echo '{"a": "not a good one"}' >> /mnt/quarks/output.json"#;

fn quota(case: &Case, name: &str, what: &str, limit: usize) {
    let hard = json!({what: limit.to_string()});
    case.apply(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}}));
    crate::case::until("the quota to be counted", || case.get("resourcequota", name)["status"]["used"][what].is_string().then_some(()));
}

fn secrets(case: &Case) -> usize {
    case.list("secrets", "").len()
}

fn assert_names_the_quota(message: &str, name: &str) {
    assert!(message.contains(name) && message.contains("quota"), "{message}");
    assert!(!message.contains("kubectl apply"), "rights are not what is missing: {message}");
}

#[test]
fn a_quota_of_jobs_is_named_and_the_run_starts_when_there_is_room() {
    let case = Case::new("denied-quota-jobs");
    quota(&case, "few-jobs", "count/jobs.batch", 0);
    case.apply(&quarks_job("q", "once", "true"));
    assert_names_the_quota(&case.wait_condition("q", "Ready", "False", "JobRefused"), "few-jobs");
    assert_names_the_quota(&case.wait_event("q", "JobRefused"), "few-jobs");
    case.kubectl(&["delete", "resourcequota", "few-jobs"]);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn a_quota_of_secrets_that_leaves_no_room_for_the_token_is_named() {
    let case = Case::new("denied-quota-token");
    quota(&case, "few-secrets", "secrets", secrets(&case));
    case.apply(&with_output("q", "once", WRITES, "s"));
    assert_names_the_quota(&case.wait_condition("q", "Ready", "False", "JobRefused"), "few-secrets");
    assert_eq!(case.jobs_created(), 0);
    case.kubectl(&["delete", "resourcequota", "few-secrets"]);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("s")["a"], "not a good one");
}

#[test]
fn a_quota_of_secrets_that_leaves_no_room_for_the_key_of_digests_is_named() {
    let case = Case::new("denied-quota-key");
    case.kubectl(&["create", "configmap", "settings", "--from-literal=a=b"]);
    quota(&case, "few-secrets", "secrets", secrets(&case));
    let mut qjob = quarks_job("q", "once", "true");
    qjob["spec"]["updateOnConfigChange"] = json!(true);
    qjob["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    case.apply(&qjob);
    assert_names_the_quota(&case.wait_condition("q", "Ready", "False", "JobRefused"), "few-secrets");
    assert_eq!(case.jobs_created(), 0);
    case.kubectl(&["delete", "resourcequota", "few-secrets"]);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
}

#[test]
fn a_quota_of_secrets_that_leaves_no_room_for_the_output_is_named_without_the_content() {
    let case = Case::new("denied-quota-output");
    // The token has room, the output has not.
    quota(&case, "few-secrets", "secrets", secrets(&case) + 1);
    case.apply(&with_output("q", "once", WRITES, "s"));
    let run = case.wait_runs("q", 1);
    assert_eq!((&run["outcome"], &run["reason"]), (&json!("Failed"), &json!("OutputNotStored")), "{run}");
    let message = run["message"].as_str().unwrap_or_default();
    assert!(message.contains("few-secrets"), "{message}");
    let status: Value = case.qjob("q")["status"].clone();
    let events = format!("{:?}", case.events("q"));
    assert!(!status.to_string().contains("not a good one") && !events.contains("not a good one"), "{status:#} {events}");
    assert_eq!(case.output_secrets(), [""; 0]);
}
