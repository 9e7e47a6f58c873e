//! Pods where little is allowed: what the program makes, under what administrators put in its way. Mostly the API server's answer to the
//! pod of a rendered Job; it is not created.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::admission::{Policy, SENTENCE};
use crate::case::{Case, MONITORED_DEFAULT, SIDECAR_ACCOUNT, cluster, until, with_output};

const WRITES: &str = r#"echo '{"a": "b"}' >> /mnt/quarks/output.json"#;

/// In a namespace in which pods can be made.
fn case(name: &str) -> Case {
    let case = Case::unlabelled(name);
    until("the account of pods", || case.try_kubectl(&["get", "serviceaccount", "default"], None).ok());
    case
}

/// The pod of the Job that `render` prints with these flags, after a change of the QuarksJob's pod.
fn rendered(flags: &[&str], change: impl FnOnce(&mut Value)) -> Value {
    let mut qjob = with_output("q", "once", WRITES, "s");
    change(&mut qjob["spec"]["template"]["spec"]["template"]["spec"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_quarks-job"))
        .args(["render", "-f", "-", "--image=i:1"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(qjob.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("our child");
    assert!(output.status.success(), "render {flags:?}");
    let job = serde_yaml::Deserializer::from_slice(&output.stdout).next().expect("a Job");
    let job = Value::deserialize(job).expect("YAML");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": job["spec"]["template"]["spec"]})
}

/// The pod as the API server would store it, or why it would not.
fn create(case: &Case, pod: &Value) -> Result<Value, String> {
    let created = case.try_kubectl(&["create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-"], Some(pod))?;
    Ok(serde_json::from_str(&created).expect("JSON"))
}

#[track_caller]
fn assert_refused(case: &Case, pod: &Value, why: &str) {
    let error = create(case, pod).expect_err("refused");
    assert!(error.contains(why), "{error}");
}

#[track_caller]
fn assert_created(case: &Case, pod: &Value) -> Value {
    create(case, pod).unwrap_or_else(|error| panic!("{error}"))
}

/// No user is named anywhere, as where OpenShift gives pods theirs.
const NO_USER: &str =
    "object.spec.containers.all(c, !has(c.securityContext) || !(has(c.securityContext.runAsUser) || has(c.securityContext.runAsGroup)))";

#[test]
fn where_no_user_may_be_named_none_is() {
    let case = case("users");
    let _policy = Policy::of_pods(&case, NO_USER, &rendered(&["--sidecar-user=65532"], |_| {}));
    assert_refused(&case, &rendered(&[], |_| {}), SENTENCE);
    assert_refused(&case, &rendered(&["--sidecar-user=1000:0"], |_| {}), SENTENCE);
    assert_created(&case, &rendered(&["--sidecar-user=none"], |_| {}));
}

/// The image says as whom the sidecar runs.
#[test]
fn a_run_succeeds_where_the_namespace_gives_pods_their_users() {
    let case = case("uid-range");
    let _policy = Policy::of_pods(&case, NO_USER, &rendered(&["--sidecar-user=65532"], |_| {}));
    cluster(&["annotate", "namespace", &case.namespace, "openshift.io/sa.scc.uid-range=1000690000/10000"]);
    case.label_namespace(&[MONITORED_DEFAULT, SIDECAR_ACCOUNT]);
    case.apply(&with_output("q", "once", WRITES, "s"));
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("s")["a"], "b");
}

#[test]
fn a_limit_range_gets_the_resources_that_it_asks_for() {
    let case = case("limit-range");
    let limits =
        json!([{"type": "Container", "min": {"cpu": "20m", "memory": "16Mi"}, "maxLimitRequestRatio": {"cpu": "4", "memory": "2"}}]);
    case.apply(&json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "least"}, "spec": {"limits": limits}}));
    let main = |pod: &mut Value| {
        let resources = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}});
        pod["containers"][0]["resources"] = resources;
    };
    // The API server learns of it by a watch.
    until("the LimitRange to be in force", || create(&case, &rendered(&[], main)).err());
    assert_refused(&case, &rendered(&[], main), "minimum cpu usage per Container is 20m, but request is 5m");
    assert_refused(&case, &rendered(&["--sidecar-resources=cpu=20m:100m,memory=16Mi:32Mi"], main), "cpu max limit to request ratio");
    assert_created(&case, &rendered(&["--sidecar-resources=cpu=25m:100m,memory=16Mi:32Mi"], main));
    assert_created(&case, &rendered(&["--sidecar-resources=cpu=100m:100m,memory=:32Mi"], main));
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let case = case("guaranteed");
    let limits = json!({"limits": {"cpu": "100m", "memory": "64Mi"}});
    let with = |main: &Value, init: &Value| {
        rendered(&[], |pod| {
            pod["containers"][0]["resources"] = main.clone();
            pod["initContainers"] = json!([{"name": "init", "image": "busybox:1.36", "command": ["true"], "resources": init}]);
        })
    };
    let equal = json!({"requests": {"cpu": "0.1", "memory": "65536Ki"}, "limits": limits["limits"]});
    let less = json!({"requests": {"cpu": "50m"}, "limits": limits["limits"]});
    for (main, init, class) in
        [(&limits, &limits, "Guaranteed"), (&limits, &equal, "Guaranteed"), (&limits, &less, "Burstable"), (&less, &equal, "Burstable")]
    {
        let pod = assert_created(&case, &with(main, init));
        assert_eq!(pod["status"]["qosClass"], class, "{main} {init}");
    }
}

#[test]
fn a_pod_with_resources_of_its_own_shares_them() {
    let case = case("pod-level");
    let amounts = json!({"cpu": "50m", "memory": "16Mi"});
    let pod = rendered(&[], |pod| pod["resources"] = json!({"requests": amounts, "limits": amounts}));
    let pod = assert_created(&case, &pod);
    assert_eq!(pod["spec"]["resources"]["limits"], amounts, "this API server knows them");
    assert_eq!((&pod["spec"]["containers"][1]["resources"], &pod["status"]["qosClass"]), (&json!({}), &json!("Guaranteed")));
}

#[test]
fn output_volumes_in_memory_with_a_limit_are_taken() {
    let case = case("volumes");
    let pod = assert_created(&case, &rendered(&["--output-size-limit=64Mi", "--output-medium=Memory"], |_| {}));
    assert_eq!(pod["spec"]["volumes"][0]["emptyDir"], json!({"sizeLimit": "64Mi", "medium": "Memory"}));
}
