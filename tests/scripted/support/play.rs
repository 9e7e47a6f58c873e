//! The test as Job controller and kubelet: finishes Jobs and makes their pods in the in-memory API.
//! Not a simulation: nothing happens unless the test, or the closure it gave to `auto`, says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::api::{Api, text};
use super::store::now;

pub const GROUP: &str = "/apis/quarks.cloudfoundry.org/v1alpha1";

/// The path of a collection, of an object when `name` is not empty.
pub fn path(plural: &str, namespace: &str, name: &str) -> String {
    let root = match plural {
        "quarksjobs" => GROUP,
        "jobs" => "/apis/batch/v1",
        "events" => "/apis/events.k8s.io/v1",
        "leases" => "/apis/coordination.k8s.io/v1",
        _ => "/api/v1",
    };
    let mut path = format!("{root}/namespaces/{namespace}/{plural}");
    if !name.is_empty() {
        path = format!("{path}/{name}");
    }
    path
}

/// A namespace with these labels.
pub fn namespace(api: &Api, name: &str, labels: &Value) {
    let object = json!({"metadata": {"name": name, "labels": labels}});
    api.create("/api/v1/namespaces", object);
}

/// A monitored namespace with a service account `sidecar` for output.
pub fn monitored_namespace(api: &Api, name: &str) {
    let labels = json!({"quarks.cloudfoundry.org/monitored": "default",
        "quarks.cloudfoundry.org/qjob-service-account": "sidecar"});
    namespace(api, name, &labels);
    let account = json!({"metadata": {"name": "sidecar"}});
    api.create(&path("serviceaccounts", name, ""), account);
}

/// A QuarksJob of one container `main`.
pub fn quarks_job(name: &str, strategy: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"trigger": {"strategy": strategy},
        "template": {"spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "main", "image": "busybox", "command": ["true"]}]}}}}}})
}

#[derive(Clone, Copy)]
pub enum End<'a> {
    Complete,
    Failed { reason: &'a str },
}

/// Writes the Job's status as its controller does at the end, the preliminary condition included.
pub fn finish_job(api: &Api, namespace: &str, name: &str, end: End<'_>) {
    let path = path("jobs", namespace, name) + "/status";
    let (early, last, reason) = match end {
        End::Complete => ("SuccessCriteriaMet", "Complete", "CompletionsReached"),
        End::Failed { reason } => ("FailureTarget", "Failed", reason),
    };
    let time = now();
    let condition = |kind| {
        json!({"type": kind, "status": "True", "reason": reason, "message": reason,
            "lastProbeTime": time, "lastTransitionTime": time})
    };
    let first = json!({"startTime": time, "active": 1, "conditions": [condition(early)]});
    api.patch(&path, &json!({"status": first}));
    let mut status = json!({"active": null, "conditions": [condition(early), condition(last)]});
    match end {
        End::Complete => {
            status["succeeded"] = 1.into();
            status["completionTime"] = time.as_str().into();
        }
        End::Failed { .. } => status["failed"] = 1.into(),
    }
    api.patch(&path, &json!({"status": status}));
}

/// One container's end: name, exit code and termination message.
pub type Ended<'a> = (&'a str, i32, &'a str);

/// A pod of the Job from its template, with these containers terminated (init containers too when
/// named so in the template). Returns the pod.
pub fn create_pod_for_job(api: &Api, namespace: &str, job: &str, ended: &[Ended<'_>]) -> Value {
    let job = api.get(&path("jobs", namespace, job)).expect("the Job is there");
    let (name, uid) = (text(&job, "/metadata/name"), text(&job, "/metadata/uid"));
    let template = &job["spec"]["template"];
    let names = |field: &str| -> Vec<String> {
        let list = template["spec"][field].as_array();
        let containers = list.into_iter().flatten();
        containers.map(|c| text(c, "/name").to_owned()).collect()
    };
    let statuses = |field: &str| -> Vec<Value> {
        let names = names(field);
        let ours = ended.iter().filter(|(name, ..)| names.iter().any(|n| n == name));
        let status = |(name, code, message): &Ended<'_>| {
            json!({"name": name, "ready": false, "restartCount": 0, "state": {"terminated": {
                "exitCode": code, "message": message, "reason": if *code == 0 { "Completed" } else { "Error" },
                "startedAt": now(), "finishedAt": now()}}})
        };
        ours.map(status).collect()
    };
    let failed = ended.iter().any(|(_, code, _)| *code != 0);
    let mut metadata = json!({"generateName": format!("{name}-"), "ownerReferences": [{
        "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": true}]});
    for field in ["labels", "annotations"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    let pod = json!({"metadata": metadata, "spec": template["spec"], "status": {
        "phase": if failed { "Failed" } else { "Succeeded" },
        "containerStatuses": statuses("containers"),
        "initContainerStatuses": statuses("initContainers")}});
    api.create(&path("pods", namespace, ""), pod)
}

/// Deletes what has owner references but no owner left, as the garbage collector does in the end.
pub fn collect_garbage(api: &Api, plurals: &[&str], namespace: &str) {
    let lists = ["quarksjobs", "jobs", "pods", "secrets"];
    let alive: Vec<String> = lists
        .iter()
        .flat_map(|plural| api.list(&path(plural, namespace, "")))
        .map(|object| text(&object, "/metadata/uid").to_owned())
        .collect();
    for plural in plurals {
        for object in api.list(&path(plural, namespace, "")) {
            let owners = object["metadata"]["ownerReferences"].as_array();
            let dead = |owner: &Value| !alive.iter().any(|uid| uid == text(owner, "/uid"));
            if owners.is_some_and(|owners| !owners.is_empty() && owners.iter().all(dead)) {
                let name = text(&object, "/metadata/name");
                api.delete(&path(plural, namespace, name), "Background");
            }
        }
    }
}

/// Stops its thread when dropped.
pub struct Auto {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Calls `act` once for every Job that has no condition yet, as soon as it is stored.
pub fn auto(api: &Api, act: impl Fn(&Api, &Value) + Send + 'static) -> Auto {
    let (api, stop) = (api.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        let mut done = std::collections::HashSet::new();
        while !stopped.load(Ordering::SeqCst) {
            let seen = api.version();
            for job in api.list("/apis/batch/v1/jobs") {
                let fresh = job["status"]["conditions"].is_null();
                if fresh && done.insert(text(&job, "/metadata/uid").to_owned()) {
                    act(&api, &job);
                }
            }
            api.wait_change(seen, Duration::from_millis(50));
        }
    });
    Auto { stop, thread: Some(thread) }
}

/// Every Job completes by itself.
pub fn auto_complete(api: &Api) -> Auto {
    auto(api, |api, job| {
        let (namespace, name) = (text(job, "/metadata/namespace"), text(job, "/metadata/name"));
        // A Job that was deleted meanwhile cannot be finished.
        if api.get(&path("jobs", namespace, name)).is_some() {
            finish_job(api, namespace, name, End::Complete);
        }
    })
}

/// The same for the Jobs of one namespace alone.
pub fn auto_complete_in(api: &Api, namespace: &'static str) -> Auto {
    auto(api, move |api, job| {
        let name = text(job, "/metadata/name");
        if text(job, "/metadata/namespace") == namespace && api.get(&path("jobs", namespace, name)).is_some() {
            finish_job(api, namespace, name, End::Complete);
        }
    })
}

impl Drop for Auto {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || !matches!(ended, Some(Err(_))), "the automatic Job controller panicked");
    }
}
