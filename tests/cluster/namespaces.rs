//! Only namespaces with the label are served, from the moment they have it.

use crate::case::{Case, MONITORED, cluster, quarks_job};

#[test]
fn nothing_happens_without_the_label_and_everything_when_it_is_back() {
    let case = Case::new("label");
    case.apply(&quarks_job("first", "once", "true"));
    case.wait("first", "condition=Succeeded");
    cluster(&["label", "namespace", &case.namespace, &format!("{MONITORED}-")]);
    // Something that happened later elsewhere shows that the operator has had its time.
    let elsewhere = case.beside("label-elsewhere");
    settle(&elsewhere, "barrier-1");
    let before = case.audit().iter().filter(|entry| entry.is_operator()).count();
    case.apply(&quarks_job("second", "once", "true"));
    settle(&elsewhere, "barrier-2");
    let after = case.audit().iter().filter(|entry| entry.is_operator()).count();
    assert_eq!(before, after, "requests in a namespace without the label");
    case.label();
    case.wait("second", "condition=Succeeded");
    assert_eq!(case.jobs_created(), 2);
}

/// One whole run in the other namespace.
fn settle(case: &Case, name: &str) {
    case.label();
    case.apply(&quarks_job(name, "once", "true"));
    case.wait(name, "condition=Succeeded");
    case.wait_no_jobs();
}

#[test]
fn a_trigger_from_before_the_label_is_served() {
    let case = Case::unlabelled("label-later");
    case.apply(&quarks_job("q", "now", "true"));
    case.label();
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn a_missing_binding_is_named_with_the_command_that_makes_it() {
    let case = Case::unlabelled("binding");
    case.kubectl(&["delete", "rolebinding", "quarks-job"]);
    case.label();
    case.apply(&quarks_job("q", "once", "true"));
    // It cannot write the status either, so only its log can tell; the run comes when the binding is there.
    case.kubectl(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/monitored-namespace.yaml")]);
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.jobs_created(), 1);
}
