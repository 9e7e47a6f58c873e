//! Objects on the cluster: made, seen and waited for.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use quarks_job::api::{Job, ObjectKey, QuarksJob, Resource};
use quarks_job::kube::{Client, ClientOptions, Config, DeleteOptions, Propagation, Request};
use quarks_job::watch::{self, WatchEvent, WatchHandle, WatchSpec};
use serde_json::{Value, json};

/// Everything must have happened by then; no measured time depends on it.
pub const LIMIT: Duration = Duration::from_secs(600);

/// A client with some connections.
pub struct Cluster {
    /// For single requests.
    pub client: Client,
    connections: usize,
}

impl Cluster {
    /// Connects when it is used.
    pub fn new(config: &Config, connections: usize) -> Cluster {
        let options = ClientOptions { user_agent: "bench".into(), max_connections: connections + 1, ..ClientOptions::default() };
        Cluster { client: Client::new(config, options).expect("a client"), connections }
    }

    /// An empty namespace, and whether the operators of this program serve it. What an earlier run has left goes.
    pub fn namespace(&self, name: &'static str, is_monitored: bool) -> &'static str {
        self.remove_namespace(name);
        let labels = if is_monitored { json!({"quarks.cloudfoundry.org/monitored": "bench"}) } else { json!({}) };
        self.create(Resource::NAMESPACES, "", &json!({"metadata": {"name": name, "labels": labels}}));
        name
    }

    /// With all that is in it.
    pub fn remove_namespace(&self, name: &str) {
        let key = ObjectKey::new("", name);
        let options = DeleteOptions { uid: None, resource_version: None, propagation: Propagation::Background };
        let _ = self.client.call_unit(&Request::delete(Resource::NAMESPACES, &key, &options));
        let gone = || self.client.call_unit(&Request::get(Resource::NAMESPACES, &key)).is_err_and(|error| error.is_not_found());
        wait("the namespace gone", gone);
    }

    /// One QuarksJob gone.
    pub fn delete_quarks_job(&self, namespace: &str, name: &str) {
        let options = DeleteOptions { uid: None, resource_version: None, propagation: Propagation::Background };
        let key = ObjectKey::new(namespace, name);
        self.client.call_unit(&Request::delete(Resource::QUARKS_JOBS, &key, &options)).expect("a delete");
    }

    /// One POST.
    pub fn create(&self, resource: Resource, namespace: &str, object: &Value) {
        self.client.call_unit(&Request::create(resource, namespace, object)).expect("a create");
    }

    /// Many POSTs on all connections.
    pub fn post_all(&self, count: usize, request: impl Fn(usize) -> Request + Sync) {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..self.connections {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return;
                        }
                        self.client.call_unit(&request(number)).expect("a create");
                    }
                });
            }
        });
    }

    /// Until the operator has looked at this QuarksJob.
    pub fn wait_observed(&self, namespace: &str, name: &str) {
        let key = ObjectKey::new(namespace, name);
        wait("the QuarksJob observed", || {
            let found = self.client.call::<QuarksJob>(&Request::get(Resource::QUARKS_JOBS, &key));
            found.is_ok_and(|object| object.status.observed_generation >= 1)
        });
    }
}

/// The template of all Jobs.
fn template() -> Value {
    json!({"spec": {"suspend": true, "template": {
        "metadata": {"labels": {"delete": "pod"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1.36", "command": ["true"]}]}
    }}})
}

/// A QuarksJob whose Job is suspended.
pub fn quarks_job(name: &str, strategy: &str) -> Value {
    json!({
        "apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "metadata": {"name": name},
        "spec": {"trigger": {"strategy": strategy}, "template": template()}
    })
}

/// A one-off that has run, and runs again when this Secret changes.
pub fn waiting_for_config(name: &str, secret: &str) -> Value {
    let mut object = quarks_job(name, "done");
    object["spec"]["updateOnConfigChange"] = true.into();
    object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": secret}}]);
    object
}

/// The Job that the operator would make, more or less.
pub fn job(name: &str) -> Value {
    let mut job = template();
    job["metadata"] = json!({"name": name});
    job
}

/// A Secret of about this many bytes.
pub fn secret(name: &str, bytes: usize) -> Value {
    json!({"metadata": {"name": name}, "stringData": {"value": "s".repeat(bytes)}})
}

/// Jobs as one watch sees them.
pub struct JobWatch {
    seen: Receiver<(String, Instant)>,
    known: HashSet<String>,
    _watch: WatchHandle,
}

impl JobWatch {
    /// Knows all that are there.
    pub fn start(client: &Client) -> JobWatch {
        let (sender, seen) = unbounded();
        let synced = Arc::new(AtomicUsize::new(0));
        let is_synced = Arc::clone(&synced);
        let watch = watch::spawn::<Job, _>(client, WatchSpec::new("bench-jobs", Resource::JOBS), move |event| {
            let now = Instant::now();
            match event {
                WatchEvent::Replaced(_) => synced.store(1, Ordering::SeqCst),
                WatchEvent::Applied(job) => {
                    let _ = sender.send((job.metadata.uid.to_string(), now));
                }
                WatchEvent::Deleted(_) => {}
            }
            ControlFlow::Continue(())
        });
        wait("the watch of Jobs", || is_synced.load(Ordering::SeqCst) == 1);
        JobWatch { seen, known: HashSet::new(), _watch: watch }
    }

    /// How long after `started` the `count`-th new Job was seen.
    pub fn wait_for(&mut self, count: usize, started: Instant) -> Duration {
        let mut fresh = 0;
        loop {
            let (uid, at) = self.seen.recv_timeout(LIMIT).expect("the watch shows the Jobs in time");
            if self.known.insert(uid) {
                fresh += 1;
                if fresh == count {
                    return at.duration_since(started);
                }
            }
        }
    }

    /// Until nothing has happened to any Job for two seconds: the cluster's own controllers are through with them.
    pub fn wait_quiet(&mut self) {
        let begun = Instant::now();
        while let Ok((uid, _)) = self.seen.recv_timeout(Duration::from_secs(2)) {
            self.known.insert(uid);
            assert!(begun.elapsed() < LIMIT, "waited too long for quiet");
        }
    }
}

/// Until `check` is true.
pub fn wait(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < LIMIT, "waited too long for {what}");
        thread::park_timeout(Duration::from_millis(50));
    }
}
