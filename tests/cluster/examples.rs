//! Every file in `manifests/examples` keeps the promise in its head.

use serde_json::Value;

use crate::case::{Case, example, map, text};

const TESTED: [&str; 9] = [
    "errand-output.yaml",
    "errand.yaml",
    "failing-write-on-failure.yaml",
    "log-output.yaml",
    "multi-container-output.yaml",
    "one-off-output.yaml",
    "one-off.yaml",
    "parallel-completions.yaml",
    "work-queue.yaml",
];

#[test]
fn every_example_has_a_test() {
    let mut files: Vec<String> = std::fs::read_dir(example(""))
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    assert_eq!(files, TESTED);
}

#[test]
fn errand_runs_when_asked_and_waits_again() {
    let case = Case::new("errand");
    case.apply_example("errand.yaml");
    case.wait("errand1", "condition=Ready");
    assert_eq!(case.jobs_created(), 0, "manual never runs by itself");
    for run in 1..=2 {
        case.set_now("errand1");
        case.wait("errand1", "condition=Running=false");
        let qjob = case.qjob("errand1");
        assert_eq!(qjob["spec"]["trigger"]["strategy"], "manual");
        assert_eq!((&qjob["status"]["lastRun"]["outcome"], &qjob["status"]["runs"]), (&Value::from("Succeeded"), &Value::from(run)));
        assert_eq!(case.jobs_created(), run);
    }
    case.wait_no_jobs();
    let selector = "quarks.cloudfoundry.org/qjob-name=errand1";
    assert_eq!(case.list("pods", selector).len(), 2, "the pods are kept for their logs");
    assert_eq!(case.kubectl(&["logs", "-l", selector]), "the errand has run\nthe errand has run\n");
}

#[test]
fn one_off_runs_once_and_not_again_when_replaced() {
    let case = Case::new("one-off");
    case.apply_example("one-off.yaml");
    case.wait("one-off", "condition=Succeeded");
    let qjob = case.qjob("one-off");
    assert_eq!((&qjob["spec"]["trigger"]["strategy"], &qjob["status"]["completed"]), (&Value::from("done"), &Value::from(true)));
    case.wait_no_jobs();
    // Takes every annotation away, so that only the status knows.
    case.kubectl(&["replace", "-f", &example("one-off.yaml")]);
    case.wait_event("one-off", "AlreadyRan");
    assert_eq!(case.jobs_created(), 1);
    assert_eq!(case.qjob("one-off")["status"]["runs"], 1);
}

#[test]
fn one_off_output_becomes_a_secret_that_outlives_the_quarksjob() {
    let case = Case::new("one-off-output");
    case.apply_example("one-off-output.yaml");
    case.wait("one-off-output", "condition=Succeeded");
    let secret = case.get("secret", "one-off-output");
    assert_eq!(crate::case::decoded(&secret), map(&[("user", "admin"), ("password", "not a good one")]));
    assert_eq!(secret["metadata"]["labels"]["example"], "one-off-output");
    assert_eq!(case.qjob("one-off-output")["status"]["lastRun"]["outputs"].as_array().map(Vec::len), Some(1));
    case.wait_event("one-off-output", "OutputStored");
    assert_eq!(case.jobs_created(), 1);
    case.kubectl(&["delete", "qjob", "one-off-output", "--cascade=foreground"]);
    assert_eq!(case.get("secret", "one-off-output")["data"], secret["data"]);
}

#[test]
fn errand_output_is_written_anew_by_each_run() {
    let case = Case::new("errand-output");
    case.apply_example("errand-output.yaml");
    let mut pods = Vec::new();
    for run in 1..=2 {
        case.set_now("errand-output");
        case.wait("errand-output", "condition=Running=false");
        assert_eq!(case.wait_runs("errand-output", run)["outcome"], "Succeeded");
        pods.push(case.secret("errand-output").remove("pod").expect("a pod's name"));
    }
    assert!(pods[0] != pods[1], "{pods:?}");
    assert_eq!(case.output_secrets(), ["errand-output"]);
    assert_eq!(case.jobs_created(), 2);
}

#[test]
fn multi_container_output_becomes_one_secret_a_file() {
    let case = Case::new("multi-container");
    case.apply_example("multi-container-output.yaml");
    case.wait("multi-container-output", "condition=Succeeded");
    assert_eq!(case.output_secrets(), ["database-admin", "database-reader", "web-session"]);
    assert_eq!(case.list("secrets", "example=multi-container-output").len(), 3);
    assert_eq!(case.secret("database-admin"), map(&[("user", "admin"), ("database", "shop")]));
    assert_eq!(case.secret("database-reader"), map(&[("user", "reader"), ("database", "shop")]));
    assert_eq!(case.secret("web-session")["key"].len(), 32);
    for (secret, container, access) in
        [("database-admin", "database", ""), ("database-reader", "database", "read-only"), ("web-session", "web", "")]
    {
        let labels = &case.get("secret", secret)["metadata"]["labels"];
        assert_eq!(labels["quarks.cloudfoundry.org/container-name"], container);
        assert_eq!(labels["access"].as_str().unwrap_or_default(), access);
    }
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn failing_job_is_kept_and_its_output_stored() {
    let case = Case::new("write-on-failure");
    case.apply_example("failing-write-on-failure.yaml");
    case.wait("failing-write-on-failure", "condition=Succeeded=false");
    let qjob = case.qjob("failing-write-on-failure");
    assert_eq!(
        (&qjob["status"]["lastRun"]["outcome"], &qjob["spec"]["trigger"]["strategy"]),
        (&Value::from("Failed"), &Value::from("done"))
    );
    assert_eq!(case.secret("failure-report"), map(&[("passed", "2"), ("failed", "1")]));
    case.wait_event("failing-write-on-failure", "RunFailed");
    let jobs = case.list("jobs", "quarks.cloudfoundry.org/qjob-name=failing-write-on-failure");
    let names: Vec<String> = jobs.iter().map(|job| text(&job["metadata"]["name"])).collect();
    assert_eq!(names, [text(&qjob["status"]["lastRun"]["jobName"])]);
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn parallel_completions_are_one_run() {
    let case = Case::new("parallel");
    case.apply_example("parallel-completions.yaml");
    case.wait("parallel-completions", "condition=Succeeded");
    assert_eq!(case.qjob("parallel-completions")["status"]["runs"], 1);
    let pods = case.list("pods", "quarks.cloudfoundry.org/qjob-name=parallel-completions");
    assert_eq!(pods.iter().filter(|pod| pod["status"]["phase"] == "Succeeded").count(), 6);
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn work_queue_is_one_run() {
    let case = Case::new("work-queue");
    case.apply_example("work-queue.yaml");
    case.wait("work-queue", "condition=Succeeded");
    assert_eq!(case.qjob("work-queue")["status"]["runs"], 1);
    let pods = case.list("pods", "quarks.cloudfoundry.org/qjob-name=work-queue");
    assert_eq!(pods.iter().filter(|pod| pod["status"]["phase"] == "Succeeded").count(), 3);
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn log_output_becomes_a_secret_for_each_container() {
    let case = Case::new("log-output");
    case.apply_example("log-output.yaml");
    case.wait("log-output", "condition=Succeeded");
    assert_eq!(case.secret("log-output-user"), map(&[("user", "admin")]));
    assert_eq!(case.secret("log-output-place"), map(&[("city", "Berlin"), ("country", "Germany")]));
}
