//! A cluster as the original operator leaves it, and what has to be true of it after the way from it and the way back.

use serde_json::{Value, json};

use super::NAMESPACE;
use crate::audit;
use crate::case::{cluster, cluster_with, condition, quarks_job, text, until, with_output};

const CRD: &str = "quarksjobs.quarks.cloudfoundry.org";
const MONITORED: &str = "quarks.cloudfoundry.org/monitored";
const ACCOUNT: &str = "quarks.cloudfoundry.org/qjob-service-account";
const CONTAINER_NAME: &str = "quarks.cloudfoundry.org/container-name";
const RBAC: &str = "rbac.authorization.k8s.io";
const RBAC_V1: &str = "rbac.authorization.k8s.io/v1";
/// Warning Events that a reader puts up with.
const WARNINGS_MAX: usize = 3;

/// A one-off that has not run, one that has and follows its ConfigMap, an errand, and an errand whose Job runs.
const NAMES: [&str; 4] = ["pending", "follower", "errand", "busy"];

/// What the cluster had.
pub struct Before {
    crd: Value,
    qjobs: Vec<Value>,
    secrets: Vec<Value>,
    job: Value,
    /// Jobs that our operator created there before.
    jobs_created: usize,
}

/// Makes the objects of the original and of a user of it.
pub fn leave_behind() -> Before {
    create(&[crd()]);
    cluster(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{CRD}")]);
    create(&operator());
    create(&tenant());
    create(&qjobs());
    for name in NAMES {
        let status = json!({"status": {"completed": name != "pending", "lastReconcile": "2021-01-01T10:00:00Z"}});
        cluster(&["patch", "qjob", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", &status.to_string()]);
    }
    create(&[running_job(&get("qjob", "busy")["metadata"]["uid"])]);
    cluster(&["rollout", "status", "-n", "quarks-job", "deployment/quarks-job", "--timeout=120s"]);
    let pod = until("the original's Job to run", || pods().into_iter().find(|pod| pod["status"]["phase"] == "Running"));
    assert_eq!(pod["metadata"]["labels"]["quarks.cloudfoundry.org/qjob-name"], "busy");
    let job = get("job", "busy-1a2b3c");
    Before { crd: get("crd", CRD)["spec"].clone(), qjobs: list("qjob"), secrets: list("secret"), job, jobs_created: jobs_created() }
}

fn create(objects: &[Value]) {
    cluster_with(&["create", "-f", "-"], &json!({"apiVersion": "v1", "kind": "List", "items": objects}));
}

fn crd() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": CRD},
        "spec": {
            "group": "quarks.cloudfoundry.org", "scope": "Namespaced",
            "names": {"kind": "QuarksJob", "listKind": "QuarksJobList", "plural": "quarksjobs", "singular": "quarksjob",
                "shortNames": ["qjob", "qjobs"]},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}}}],
        },
    })
}

/// Its names are those of ours, its Deployment's selector is not.
fn operator() -> Vec<Value> {
    let pod = json!({"metadata": {"labels": {"name": "quarks-job"}}, "spec": {
        "serviceAccountName": "quarks-job", "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "quarks-job", "image": "busybox:1.36", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"]}],
    }});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "quarks-job"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "quarks-job", "namespace": "quarks-job"}}),
        json!({"apiVersion": RBAC_V1, "kind": "ClusterRole", "metadata": {"name": "quarks-job"},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "get", "list", "update", "watch"]}]}),
        json!({"apiVersion": RBAC_V1, "kind": "ClusterRoleBinding", "metadata": {"name": "quarks-job"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "quarks-job"},
            "subjects": [{"kind": "ServiceAccount", "name": "quarks-job", "namespace": "quarks-job"}]}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "quarks-job", "namespace": "quarks-job"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"name": "quarks-job"}}, "template": pod}}),
    ]
}

/// A namespace of its users: the account of its sidecar, what a one-off refers to, and Secrets that it wrote.
fn tenant() -> Vec<Value> {
    let own = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    let secret = |name: &str, labels: Value| {
        json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"from": "original"},
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}})
    };
    let labels = json!({MONITORED: "quarks-job", ACCOUNT: "orig-account"});
    let version = json!({CONTAINER_NAME: "main", "quarks.cloudfoundry.org/secret-kind": "versionedSecret",
        "quarks.cloudfoundry.org/secret-version": "1"});
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]);
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own("orig-account")}),
        json!({"apiVersion": RBAC_V1, "kind": "Role", "metadata": own("orig-account"), "rules": rules}),
        json!({"apiVersion": RBAC_V1, "kind": "RoleBinding", "metadata": own("orig-account"),
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "orig-account"},
            "subjects": [{"kind": "ServiceAccount", "name": "orig-account", "namespace": NAMESPACE}]}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": own("settings"), "data": {"color": "red"}}),
        secret("report", json!({CONTAINER_NAME: "main"})),
        secret("colors-v1", version),
        secret("of-a-person", json!({})),
    ]
}

fn qjobs() -> Vec<Value> {
    let write = r#"echo "{\"from\": \"${color:-a new run}\"}" >> /mnt/quarks/output.json"#;
    let mut follower = with_output("follower", "done", write, "colors");
    follower["spec"]["updateOnConfigChange"] = json!(true);
    follower["spec"]["output"]["outputMap"]["main"]["output.json"]["versioned"] = json!(true);
    follower["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    let mut all = vec![
        with_output("pending", "once", write, "first"),
        follower,
        with_output("errand", "manual", write, "report"),
        quarks_job("busy", "manual", "true"),
    ];
    all.iter_mut().for_each(|qjob| qjob["metadata"]["namespace"] = json!(NAMESPACE));
    all
}

/// A Job of the original, which runs for some seconds more.
fn running_job(owner: &Value) -> Value {
    let labels = json!({"quarks.cloudfoundry.org/qjob-name": "busy"});
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "busy-1a2b3c", "namespace": NAMESPACE, "labels": labels, "ownerReferences": [{
            "apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "busy", "uid": owner,
            "controller": true, "blockOwnerDeletion": true,
        }]},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "busybox:1.36", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "20"]}],
        }}},
    })
}

fn get(kind: &str, name: &str) -> Value {
    serde_json::from_str(&cluster(&["get", kind, name, "-n", NAMESPACE, "-o", "json"])).expect("JSON")
}

/// All objects of this kind in the namespace.
fn list(kind: &str) -> Vec<Value> {
    let list: Value = serde_json::from_str(&cluster(&["get", kind, "-n", NAMESPACE, "-o", "json"])).expect("JSON");
    list["items"].as_array().expect("a list").clone()
}

fn pods() -> Vec<Value> {
    list("pod")
}

/// Everything that `part` has is in `whole`.
fn has(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(key, value)| whole.get(key).is_some_and(|own| has(own, value))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(own, value)| has(own, value))
        }
        _ => whole == part,
    }
}

impl Before {
    /// All QuarksJobs are the same objects with the same spec; the strategy may be another.
    fn assert_none_lost(&self) {
        for old in &self.qjobs {
            let new = get("qjob", &text(&old["metadata"]["name"]));
            let mut spec = old["spec"].clone();
            spec["trigger"]["strategy"] = new["spec"]["trigger"]["strategy"].clone();
            assert!(old["metadata"]["uid"] == new["metadata"]["uid"] && has(&new["spec"], &spec), "was {old}\nis {new}");
        }
    }

    /// Not a byte of the Secrets has changed, but for these.
    fn assert_secrets_but(&self, stored_again: &[&str]) {
        let now = list("secret");
        let is_kept = |secret: &&Value| !stored_again.iter().any(|name| secret["metadata"]["name"] == *name);
        for old in self.secrets.iter().filter(is_kept) {
            assert!(now.contains(old), "{} is not as it was: {now:?}", old["metadata"]["name"]);
        }
    }
}

/// After the way from it: only what had to run has run, once.
pub fn check_moved(before: &Before) {
    let ended = |name: &str, runs: u64| {
        until(&format!("{runs} runs of {name}"), || {
            let qjob = get("qjob", name);
            (qjob["status"]["runs"] == runs && qjob["status"]["lastRun"]["outcome"] == "Succeeded").then_some(())
        });
    };
    ended("pending", 1);
    for name in NAMES {
        until(&format!("{name} to be ready, and no longer suspended"), || {
            condition(&get("qjob", name), "Ready").filter(|ready| ready["reason"] == "Ready").map(|_| ())
        });
    }
    let marker = "quarks.cloudfoundry.org/settled";
    until("the follower to have a baseline", || {
        let qjob = get("qjob", "follower");
        qjob["metadata"]["annotations"][marker].as_str().filter(|marker| marker.contains("\"config\"")).map(|_| ())
    });
    before.assert_none_lost();
    before.assert_secrets_but(&[]);
    assert_eq!(jobs_created() - before.jobs_created, 1, "only the one-off that had not run");
    check_old_job(before);
    let warnings: Vec<Value> = list("events").into_iter().filter(|event| event["type"] == "Warning").collect();
    assert!(warnings.len() <= WARNINGS_MAX, "{warnings:?}");
    // What the original wrote is taken over by the next run.
    cluster(&["patch", "configmap", "settings", "-n", NAMESPACE, "--type=merge", "-p", r#"{"data":{"color":"green"}}"#]);
    cluster(&["patch", "qjob", "errand", "-n", NAMESPACE, "--type=merge", "-p", r#"{"spec":{"trigger":{"strategy":"now"}}}"#]);
    ended("follower", 1);
    ended("errand", 1);
    assert_eq!(get("secret", "report")["metadata"]["annotations"]["quarks.cloudfoundry.org/written-by"], "errand");
    assert_eq!(get("secret", "colors-v2")["data"]["from"], "Z3JlZW4=", "green");
    before.assert_secrets_but(&["report"]);
    assert_eq!(jobs_created() - before.jobs_created, 3, "and the two that were triggered");
}

fn jobs_created() -> usize {
    audit::entries_in(NAMESPACE).iter().filter(|entry| entry.is_job_created()).count()
}

/// It has ended by itself, with the pod that it had.
fn check_old_job(before: &Before) {
    let name = text(&before.job["metadata"]["name"]);
    let job = until("the original's Job to be complete", || Some(get("job", &name)).filter(|job| job["status"]["succeeded"] == 1));
    assert_eq!(job["metadata"]["uid"], before.job["metadata"]["uid"]);
    let own: Vec<Value> = pods().into_iter().filter(|pod| pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == *name).collect();
    assert!(own.len() == 1 && own[0]["status"]["containerStatuses"][0]["restartCount"] == 0, "{own:?}");
}

/// After the way back: the old definition, the old operator, and everything that it knew.
pub fn check_back(before: &Before) {
    assert_eq!(get("crd", CRD)["spec"], before.crd);
    before.assert_none_lost();
    before.assert_secrets_but(&["report"]);
    assert_eq!(get("qjob", "pending")["spec"]["trigger"]["strategy"], "done", "it would run again");
    let labels = &get("namespace", NAMESPACE)["metadata"]["labels"];
    assert_eq!((&labels[MONITORED], &labels[ACCOUNT]), (&json!("quarks-job"), &json!("orig-account")));
    cluster(&["rollout", "status", "-n", "quarks-job", "deployment/quarks-job", "--timeout=120s"]);
    assert_eq!(get_deployment()["spec"]["selector"]["matchLabels"], json!({"name": "quarks-job"}));
    let rules = cluster(&["get", "clusterrole", "quarks-job", "-o", "jsonpath={.rules[*].resources}"]);
    assert_eq!(rules, r#"["secrets"]"#);
}

fn get_deployment() -> Value {
    serde_json::from_str(&cluster(&["get", "deployment", "quarks-job", "-n", "quarks-job", "-o", "json"])).expect("JSON")
}
