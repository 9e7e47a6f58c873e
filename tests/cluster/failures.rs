//! Ways to fail, with output: the run says so, nothing is stored that should not be, and nothing hangs.

use serde_json::{Value, json};

use crate::case::{Case, map, text, until, with_output};

const WRITES: &str = r#"echo '{"a": "b"}' >> /mnt/quarks/output.json"#;
/// Waits to be let go, so that something can happen meanwhile.
const GATE: &str = r#"until [ -e /tmp/go ]; do sleep 0.1; done; echo '{"a": "b"}' >> /mnt/quarks/output.json"#;

fn pod_spec(qjob: &mut Value) -> &mut Value {
    &mut qjob["spec"]["template"]["spec"]["template"]["spec"]
}

fn failed(case: &Case) -> Value {
    case.wait("q", "condition=Succeeded=false");
    let run = case.wait_runs("q", 1);
    assert_eq!(run["outcome"], "Failed", "{run}");
    assert_eq!(case.jobs_created(), 1);
    run
}

fn running_pod(case: &Case) -> String {
    case.wait_running_pod("q")
}

fn open_gate(case: &Case, pod: &str) {
    case.kubectl(&["exec", pod, "-c", "main", "--", "touch", "/tmp/go"]);
}

/// The sidecar's report, when it has ended.
fn report(case: &Case, pod: &str) -> Value {
    until("the sidecar's report", || {
        let pod = case.get("pod", pod);
        let sidecar = pod["status"]["containerStatuses"].as_array()?.iter().find(|status| status["name"] == "output-persist")?.clone();
        let ended = &sidecar["state"]["terminated"];
        ended.is_object().then(|| {
            assert_eq!(ended["exitCode"], 0, "{sidecar}");
            serde_json::from_str(&text(&ended["message"])).expect("JSON")
        })
    })
}

#[test]
fn out_of_memory_is_a_failure_whose_output_is_stored_if_asked() {
    for (write, expected) in [(false, None), (true, Some(map(&[("a", "b")])))] {
        let case = Case::new("out-of-memory");
        let mut qjob = with_output("q", "once", &format!("{WRITES}; tail /dev/zero"), "s");
        qjob["spec"]["output"]["writeOnFailure"] = json!(write);
        pod_spec(&mut qjob)["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
        case.apply(&qjob);
        failed(&case);
        let pods = case.list("pods", "quarks.cloudfoundry.org/qjob-name=q");
        let statuses = pods[0]["status"]["containerStatuses"].as_array().expect("a list");
        let main = &statuses.iter().find(|status| status["name"] == "main").expect("the container")["state"]["terminated"];
        assert_eq!((&main["reason"], &main["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{main}");
        let secret = case.output_secrets().first().map(|name| case.secret(name));
        assert_eq!(secret, expected, "writeOnFailure: {write}");
    }
}

#[test]
fn an_image_that_is_not_there_ends_with_the_deadline() {
    let case = Case::new("no-image");
    let mut qjob = with_output("q", "once", WRITES, "s");
    qjob["spec"]["output"]["writeOnFailure"] = json!(true);
    qjob["spec"]["template"]["spec"]["activeDeadlineSeconds"] = json!(5);
    pod_spec(&mut qjob)["containers"][0]["image"] = json!("localhost/there-is-no-such-image:1");
    pod_spec(&mut qjob)["containers"][0]["imagePullPolicy"] = json!("Never");
    case.apply(&qjob);
    assert_eq!(failed(&case)["reason"], "DeadlineExceeded");
    assert_eq!(case.output_secrets(), [""; 0]);
}

#[test]
fn a_failed_init_container_is_a_failed_run_without_output() {
    let case = Case::new("init-failed");
    let mut qjob = with_output("q", "once", WRITES, "s");
    qjob["spec"]["output"]["writeOnFailure"] = json!(true);
    let mut init = pod_spec(&mut qjob)["containers"][0].clone();
    init["name"] = json!("first");
    init["command"] = json!(["false"]);
    pod_spec(&mut qjob)["initContainers"] = json!([init]);
    case.apply(&qjob);
    assert_eq!(failed(&case)["reason"], "BackoffLimitExceeded");
    assert_eq!(case.output_secrets(), [""; 0]);
}

#[test]
fn an_evicted_pod_stores_nothing() {
    let case = Case::new("evicted");
    case.apply(&with_output("q", "once", GATE, "s"));
    let pod = running_pod(&case);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": case.namespace}});
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", case.namespace);
    case.try_kubectl(&["create", "--raw", &path, "-f", "-"], Some(&eviction)).expect("evicted");
    assert_eq!(failed(&case)["reason"], "BackoffLimitExceeded");
    assert_eq!(case.output_secrets(), [""; 0]);
}

#[test]
fn nothing_is_stored_for_a_quarksjob_that_was_deleted_during_the_run() {
    let case = Case::new("owner-gone");
    case.apply(&with_output("q", "once", GATE, "s"));
    let pod = running_pod(&case);
    // Otherwise the Job and the pod would go, too.
    case.kubectl(&["delete", "qjob", "q", "--cascade=orphan"]);
    open_gate(&case, &pod);
    let report = report(&case, &pod);
    assert_eq!(report["errors"][0]["reason"], "OwnerGone", "{report}");
    assert_eq!(case.output_secrets(), [""; 0]);
    assert_eq!(case.audit().iter().filter(|entry| entry.is_sidecar() && !entry.is_read()).count(), 0, "a write was tried");
}

#[test]
fn nothing_is_stored_for_a_quarksjob_that_was_made_anew_during_the_run() {
    let case = Case::new("made-anew");
    case.apply(&with_output("q", "once", GATE, "s"));
    let pod = running_pod(&case);
    case.kubectl(&["delete", "qjob", "q", "--cascade=orphan"]);
    case.apply(&with_output("q", "manual", GATE, "s"));
    case.wait("q", "condition=Ready");
    open_gate(&case, &pod);
    let report = report(&case, &pod);
    assert_eq!(report["errors"][0]["reason"], "OwnerGone", "{report}");
    assert_eq!(case.output_secrets(), [""; 0]);
    // The old run is not the new one's.
    case.set_now("q");
    let later = until("the pod of the new run", || {
        let pods = case.list("pods", "quarks.cloudfoundry.org/qjob-name=q");
        pods.iter().map(|pod| text(&pod["metadata"]["name"])).find(|name| *name != pod)
    });
    until("the container to run", || case.try_kubectl(&["exec", &later, "-c", "main", "--", "touch", "/tmp/go"], None).ok());
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("s"), map(&[("a", "b")]));
}

#[test]
fn deleting_the_quarksjob_with_its_run_stores_nothing() {
    let case = Case::new("deleted-output");
    case.apply(&with_output("q", "once", GATE, "s"));
    running_pod(&case);
    case.kubectl(&["delete", "qjob", "q"]);
    case.wait_no_jobs();
    until("the pods to be gone", || case.list("pods", "").is_empty().then_some(()));
    assert_eq!(case.output_secrets(), [""; 0]);
    assert_eq!(case.jobs_created(), 1);
}
