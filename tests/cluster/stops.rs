//! The operator goes away and comes back: nothing is lost, nothing is done twice. These cases run alone.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::case::{Case, cluster, quarks_job, text, until, with_output};

const SELECTOR: &str = "app.kubernetes.io/name=quarks-job";
const GET_PODS: [&str; 6] = ["--namespace", "quarks-job", "get", "pods", "-l", SELECTOR];
const DEPLOYMENT: [&str; 4] = ["--namespace", "quarks-job", "deployment/quarks-job", "--timeout=120s"];

/// SIGKILL: no chance to finish anything. The pod goes too, or its restarts would be put off more each time.
fn kill() {
    let field = "jsonpath={.items[0].status.containerStatuses[0].containerID}";
    let id = cluster(&[&GET_PODS[..], &["-o", field]].concat());
    let id = id.trim().trim_start_matches("containerd://");
    let address = std::env::var("CONTAINERD_ADDRESS").expect("these tests need a cluster: run them with scripts/test");
    let killed = Command::new("ctr").args(["-a", &address, "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id]).status();
    assert!(killed.expect("ctr starts").success(), "container {id}");
    cluster(&["--namespace", "quarks-job", "delete", "pod", "-l", SELECTOR, "--now"]);
}

fn wait_ready() {
    cluster(&[&["rollout", "status"], &DEPLOYMENT[..]].concat());
}

pub fn scale(replicas: &str) {
    cluster(&["scale", "--namespace", "quarks-job", "deployment/quarks-job", &format!("--replicas={replicas}")]);
    if replicas == "0" {
        until("the operator's pod to be gone", || cluster(&[&GET_PODS[..], &["-o", "name"]].concat()).is_empty().then_some(()));
    }
    wait_ready();
}

#[test]
fn a_trigger_set_while_the_operator_is_away_is_served_once() {
    let case = Case::alone("away");
    case.apply(&quarks_job("q", "manual", "true"));
    case.wait("q", "condition=Ready");
    scale("0");
    case.set_now("q");
    case.apply(&quarks_job("new", "once", "true"));
    scale("1");
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.wait_runs("new", 1)["outcome"], "Succeeded");
    case.wait_no_jobs();
    assert_eq!(case.jobs_created(), 2);
    assert_eq!(text(&case.qjob("q")["spec"]["trigger"]["strategy"]), "manual");
}

#[test]
fn a_run_that_ends_while_the_operator_is_away_is_settled() {
    let case = Case::alone("away-during");
    case.apply(&with_output("q", "once", r#"echo '{"a": "b"}' >> /mnt/quarks/output.json; sleep 1"#, "s"));
    case.wait_qjob("q", "a run", |qjob| qjob["status"]["active"]["jobName"].is_string());
    scale("0");
    case.kubectl(&["wait", "job", "--all", "--for=condition=Complete", "--timeout=120s"]);
    scale("1");
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("s")["a"], "b");
    case.wait_no_jobs();
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn a_killed_operator_serves_what_was_asked_for_meanwhile_once() {
    let case = Case::alone("killed");
    case.apply(&quarks_job("q", "manual", "true"));
    case.wait("q", "condition=Ready");
    for run in 1..=4 {
        case.set_now("q");
        kill();
        assert_eq!(case.wait_runs("q", run)["outcome"], "Succeeded");
        wait_ready();
    }
    case.wait_no_jobs();
    assert_eq!(case.jobs_created(), 4);
}

#[test]
fn the_operator_ends_within_5_seconds_when_asked() {
    let _case = Case::alone("sigterm");
    wait_ready();
    let pod = cluster(&[&GET_PODS[..], &["-o", "name"]].concat());
    let start = Instant::now();
    cluster(&["--namespace", "quarks-job", "delete", pod.trim(), "--wait=true"]);
    let took = start.elapsed();
    // The kubelet and kubectl add their own seconds; without an answer to SIGTERM it would be 10 more.
    assert!(took < Duration::from_secs(9), "took {took:?}");
    wait_ready();
}
