//! A scripted API server with one monitored namespace, the real operator in front of it, and what tests ask of both.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use quarks_job::api::Uid;
use quarks_job::rules::names::job_name;
use serde_json::{Value, json};

use super::operator::binary;
use super::play::{self, End, path};
use super::{Operator, Server};

/// The namespace of everything in a scene.
pub const NAMESPACE: &str = "team";

/// A folder of this test alone, whatever others call theirs, removed when it ends.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("quarks-job-{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temp folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub struct Scene {
    pub server: Server,
    pub operator: Operator,
    pub folder: Folder,
}

impl Scene {
    pub fn new(name: &str) -> Scene {
        let folder = Folder::new(name);
        let server = Server::start();
        play::monitored_namespace(server.api(), NAMESPACE);
        let operator = program(&server, &folder);
        Scene { server, operator, folder }
    }

    pub fn create(&self, name: &str, strategy: &str, change: impl FnOnce(&mut Value)) {
        let mut object = play::quarks_job(name, strategy);
        object["spec"]["template"]["spec"]["template"]["metadata"]["labels"]["delete"] = json!("pod");
        change(&mut object);
        self.server.api().create(&path("quarksjobs", NAMESPACE, ""), object);
    }

    pub fn quarks_job(&self, name: &str) -> Value {
        self.server.api().get(&path("quarksjobs", NAMESPACE, name)).expect("the QuarksJob is there")
    }

    pub fn patch(&self, name: &str, patch: Value) {
        self.server.api().patch(&path("quarksjobs", NAMESPACE, name), &patch);
    }

    pub fn jobs(&self) -> Vec<Value> {
        self.server.api().list(&path("jobs", NAMESPACE, ""))
    }

    /// Names of all Jobs that were ever created, in order.
    pub fn created(&self) -> Vec<String> {
        let created = self.server.mutations().into_iter().filter(|entry| entry.is("POST", "/jobs") && entry.status == Some(201));
        created
            .filter_map(|entry| Some(serde_json::from_slice::<Value>(&entry.request.body).ok()?["metadata"]["name"].as_str()?.to_owned()))
            .collect()
    }

    /// Reasons and texts of the Events posted on the QuarksJob with this UID, in order.
    pub fn events_of(&self, uid: &str) -> Vec<(String, String)> {
        let events = self.server.api().list(&path("events", NAMESPACE, ""));
        let own = events.into_iter().filter(|event| event["regarding"]["uid"] == uid);
        own.map(|event| (event["reason"].as_str().unwrap_or_default().to_owned(), event["note"].as_str().unwrap_or_default().to_owned()))
            .collect()
    }

    /// Until an Event with this reason is on the QuarksJob that is there now; its text.
    pub fn wait_event(&self, name: &str, reason: &str) -> String {
        let uid = uid(&self.quarks_job(name));
        self.operator.wait_for(&format!("Event {reason} on {name}"), || {
            self.events_of(&uid).into_iter().find(|event| event.0 == reason).map(|event| event.1)
        })
    }

    /// How many requests came to a path with this part.
    pub fn asked(&self, method: &str, part: &str) -> usize {
        self.server.requests().iter().filter(|entry| entry.is(method, part)).count()
    }

    /// The test as Job controller.
    pub fn finish(&self, job: &str, end: End<'_>) {
        play::finish_job(self.server.api(), NAMESPACE, job, end);
    }

    pub fn wait_running(&self, name: &str) {
        self.operator.wait_for("the run in status", || (condition(&self.quarks_job(name), "Running") == "True").then_some(()));
    }

    /// Exactly one run of `q`, its first, that succeeded; nothing of it was ever called cancelled.
    #[track_caller]
    pub fn assert_one_success(&self, what: &str) -> Value {
        let object = self.wait_settled("q", 1);
        self.wait_quiet();
        let what = format!("{what}\n{object:#}\n{}", self.operator.log());
        assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{what}");
        assert_eq!(object["status"]["runs"], 1, "{what}");
        assert_eq!(object["status"]["lastRun"]["jobName"], own_job("q", &object, 1), "{what}");
        let events = self.events_of(&uid(&object));
        assert!(!events.iter().any(|event| event.0 == "RunCancelled"), "{events:?} {what}");
        object
    }

    pub fn wait_settled(&self, name: &str, runs: u64) -> Value {
        self.operator.wait_for(&format!("run {runs} of {name} in status"), || {
            let object = self.quarks_job(name);
            let is_over = object["status"]["lastRun"]["run"] == runs && object["status"]["active"].is_null();
            is_over.then_some(object)
        })
    }

    pub fn wait_jobs(&self, count: usize) -> Vec<Value> {
        self.operator.wait_for(&format!("{count} Jobs"), || {
            let jobs = self.jobs();
            (jobs.len() == count).then_some(jobs)
        })
    }

    /// Waits until the operator has answered a change made after all others: what it does by itself is done.
    pub fn wait_quiet(&self) {
        self.wait_quiet_while(|| {});
    }

    /// Starts the operator again if a kill has ended it.
    pub fn revive(&self) {
        if !self.operator.is_running() {
            self.operator.start();
        }
    }

    /// Like [`Scene::wait_quiet`], while a kill may still be on its way.
    pub fn wait_quiet_reviving(&self) {
        self.wait_quiet_while(|| self.revive());
    }

    fn wait_quiet_while(&self, meanwhile: impl Fn()) {
        let sentinel = "sentinel";
        if self.server.api().get(&path("quarksjobs", NAMESPACE, sentinel)).is_none() {
            self.create(sentinel, "manual", |_| {});
        } else {
            self.patch(sentinel, json!({"spec": {"suspend": self.quarks_job(sentinel)["spec"]["suspend"] != true}}));
        }
        self.operator.wait_for("the sentinel's status", || {
            meanwhile();
            let object = self.quarks_job(sentinel);
            (object["status"]["observedGeneration"] == object["metadata"]["generation"]).then_some(())
        });
    }
}

pub fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().expect("a UID").to_owned()
}

pub fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("a name").to_owned()
}

/// The name of the Job of this run of this object.
pub fn own_job(name: &str, object: &Value, run: u64) -> String {
    job_name(name, &Uid::from(uid(object).as_str()), run)
}

pub fn program(server: &Server, folder: &Folder) -> Operator {
    Operator::new(binary())
        .kubeconfig(&server.kubeconfig(&folder.0))
        .arg("--log-level=debug")
        .arg("--ctx-timeout=2")
        .arg("--image=quarks-job:test")
}

/// The reason of a condition, or nothing.
pub fn reason(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.map(|condition| condition["reason"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// The message of a condition, or nothing.
pub fn message(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.map(|condition| condition["message"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

pub fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.map(|condition| condition["status"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}
