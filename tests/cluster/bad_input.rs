//! What is wrong is refused where it is written, or named in the status; it never becomes a Job.

use serde_json::json;

use crate::case::{Case, quarks_job, with_output};

#[test]
fn a_template_that_the_api_server_refuses_is_named_and_runs_when_mended() {
    let case = Case::new("bad-template");
    let mut qjob = quarks_job("q", "once", "true");
    qjob["spec"]["template"]["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    case.apply(&qjob);
    let message = case.wait_condition("q", "Ready", "False", "InvalidTemplate");
    assert!(message.contains("restartPolicy"), "{message}");
    assert!(case.wait_event("q", "InvalidTemplate").contains("restartPolicy"), "Event InvalidTemplate does not name the field");
    assert_eq!(case.jobs_created(), 0);
    qjob["spec"]["template"]["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    case.apply(&qjob);
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn output_of_an_unknown_container_is_refused_at_once() {
    let case = Case::new("unknown-container");
    let mut qjob = quarks_job("q", "once", "true");
    qjob["spec"]["output"] = json!({"outputMap": {"nobody": {"output.json": {"name": "s"}}}});
    let error = case.try_apply(&qjob).expect_err("refused");
    assert!(error.contains("outputMap") && error.contains("nobody"), "{error}");
}

#[test]
fn output_of_a_container_that_was_renamed_is_named_and_makes_no_job() {
    let case = Case::new("renamed-container");
    let mut qjob = with_output("q", "manual", "true", "s");
    case.apply(&qjob);
    case.wait("q", "condition=Ready");
    // The API server looks only at new entries of the map.
    qjob["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["name"] = json!("other");
    qjob["spec"]["trigger"]["strategy"] = json!("now");
    case.apply(&qjob);
    let message = case.wait_condition("q", "Ready", "False", "InvalidSpec");
    assert!(message.contains("main"), "{message}");
    assert_eq!(case.jobs_created(), 0);
}

#[test]
fn a_manual_selector_needs_pods_that_go_with_their_job() {
    let case = Case::new("manual-selector");
    let mut qjob = quarks_job("q", "now", "true");
    let job = &mut qjob["spec"]["template"]["spec"];
    job["manualSelector"] = json!(true);
    job["selector"] = json!({"matchLabels": {"app": "q"}});
    job["template"]["metadata"]["labels"] = json!({"app": "q"});
    case.apply(&qjob);
    let message = case.wait_condition("q", "Ready", "False", "InvalidSpec");
    assert!(message.contains("manualSelector") && message.contains("delete: pod"), "{message}");
    assert_eq!(case.jobs_created(), 0);
    qjob["spec"]["template"]["spec"]["template"]["metadata"]["labels"]["delete"] = json!("pod");
    case.apply(&qjob);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    case.set_now("q");
    assert_eq!(case.wait_runs("q", 2)["outcome"], "Succeeded");
    assert_eq!(case.jobs_created(), 2);
}

#[test]
fn output_and_processes_that_see_each_other_do_not_go_together() {
    let case = Case::new("shared-processes");
    let mut qjob = with_output("q", "once", r#"echo '{"a": "b"}' > /mnt/quarks/output.json"#, "s");
    qjob["spec"]["template"]["spec"]["template"]["spec"]["shareProcessNamespace"] = json!(true);
    case.apply(&qjob);
    let message = case.wait_condition("q", "Ready", "False", "InvalidSpec");
    assert!(message.contains("shareProcessNamespace") && message.contains("output-persist"), "{message}");
    assert_eq!(case.jobs_created(), 0);
    qjob["spec"]["template"]["spec"]["template"]["spec"]["shareProcessNamespace"] = json!(false);
    case.apply(&qjob);
    case.wait("q", "condition=Succeeded");
}

#[test]
fn an_unknown_strategy_is_refused_at_once() {
    let case = Case::new("strategy");
    let error = case.try_apply(&quarks_job("q", "sometimes", "true")).expect_err("refused");
    assert!(error.contains("sometimes") && error.contains("manual"), "{error}");
}

#[test]
fn two_files_for_one_secret_are_refused_or_named() {
    let case = Case::new("one-secret");
    let mut qjob = quarks_job("q", "once", "true");
    qjob["spec"]["output"] = json!({"outputMap": {"main": {"a.json": {"name": "same"}, "b.json": {"name": "same"}}}});
    match case.try_apply(&qjob) {
        Err(error) => assert!(error.contains("same"), "{error}"),
        Ok(_) => {
            let message = case.wait_condition("q", "Ready", "False", "InvalidSpec");
            assert!(message.contains("same"), "{message}");
        }
    }
    assert_eq!(case.jobs_created(), 0);
}
