//! Speed beside a control in the same run, on the cluster that `KUBECONFIG` names (`scripts/bench` sets it up).
//!
//! Controls are bare POSTs of the same objects by the same client, seen by the same watch. All Jobs are suspended, so
//! that no pod takes part. The operator is a child process of the given binary.
//!
//! Environment: `QUARKS_JOB_BINARY` (default: the one that cargo built), `BENCH_OBJECTS` (default 1000),
//! `BENCH_MEMORY` (default 10000; QuarksJobs at rest), `BENCH_CONNECTIONS` (default 4).
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
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
const LIMIT: Duration = Duration::from_secs(300);
const SAMPLES: usize = 20;
const MONITORED: &str = "bench-monitored";
const CONTROL: &str = "bench-control";

fn main() {
    // `cargo test` runs benches too, to see that they compile.
    if std::env::args().any(|argument| argument == "--test") || std::env::var_os("KUBECONFIG").is_none() {
        println!("speed: nothing measured; run scripts/bench");
        return;
    }
    let config = Config::load(None, None).expect("a kubeconfig");
    let connections = number("BENCH_CONNECTIONS", 4);
    let options = ClientOptions { user_agent: "bench".into(), max_connections: connections + 1, ..ClientOptions::default() };
    let client = Client::new(&config, options).expect("a client");
    for (name, labels) in [(MONITORED, json!({"quarks.cloudfoundry.org/monitored": "bench"})), (CONTROL, json!({}))] {
        remove_namespace(&client, name);
        client
            .call_unit(&Request::create(Resource::NAMESPACES, "", &json!({"metadata": {"name": name, "labels": labels}})))
            .expect("a namespace");
    }
    let operator = Operator::start();
    let mut jobs = JobWatch::start(&client);

    println!("binary bytes: {}", std::fs::metadata(binary()).map_or(0, |file| file.len()));
    wait("the operator at work", || operator.resident().is_some_and(|kb| kb > 1_000));
    latency(&client, &mut jobs);
    println!("operator resident after {SAMPLES} runs: {} KiB, threads {}", operator.resident().unwrap_or(0), operator.status("Threads:"));
    burst(&client, &mut jobs, number("BENCH_OBJECTS", 1_000), connections);
    println!("operator resident after the burst: {} KiB", operator.resident().unwrap_or(0));
    drop(operator);
    at_rest(&client, number("BENCH_MEMORY", 10_000), connections);
    for name in [MONITORED, CONTROL] {
        remove_namespace(&client, name);
    }
}

/// `now` → Job, beside one bare POST of the same Job; alternating.
fn latency(client: &Client, jobs: &mut JobWatch) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let name = format!("errand-{sample}");
        client.call_unit(&Request::create(Resource::QUARKS_JOBS, MONITORED, &quarks_job(&name, "manual"))).expect("an errand");
        let key = ObjectKey::new(MONITORED, name.as_str());
        wait("the errand observed", || {
            client.call::<QuarksJob>(&Request::get(Resource::QUARKS_JOBS, &key)).is_ok_and(|object| object.status.observed_generation == 1)
        });
        let started = Instant::now();
        client.call_unit(&Request::create(Resource::JOBS, CONTROL, &job(&name))).expect("a Job");
        bare.push(jobs.wait_for(1, started));
        let started = Instant::now();
        let patch = json!({"spec": {"trigger": {"strategy": "now"}}});
        client.call_unit(&Request::merge_patch(Resource::QUARKS_JOBS, &key, &patch)).expect("the trigger");
        ours.push(jobs.wait_for(1, started));
    }
    let (ours, bare) = (median(&mut ours), median(&mut bare));
    println!(
        "now to Job: median {ours:.2?} beside {bare:.2?} for a bare POST, {SAMPLES} samples: ratio {:.2} (budget 3)",
        ratio(ours, bare)
    );
}

/// One-offs at once: first POST → last Job, beside bare POSTs of as many QuarksJobs and then Jobs.
fn burst(client: &Client, jobs: &mut JobWatch, count: usize, connections: usize) {
    let started = Instant::now();
    post_all(client, count, connections, |number| {
        Request::create(Resource::QUARKS_JOBS, CONTROL, &quarks_job(&format!("burst-{number}"), "once"))
    });
    post_all(client, count, connections, |number| Request::create(Resource::JOBS, CONTROL, &job(&format!("burst-{number}"))));
    let bare = jobs.wait_for(count, started);
    let started = Instant::now();
    post_all(client, count, connections, |number| {
        Request::create(Resource::QUARKS_JOBS, MONITORED, &quarks_job(&format!("burst-{number}"), "once"))
    });
    let posted = started.elapsed();
    let ours = jobs.wait_for(count, started);
    println!(
        "{count} one-offs: {ours:.2?} (posted after {posted:.2?}) beside {bare:.2?} on {connections} connections: ratio {:.2} (budget 1.5)",
        ratio(ours, bare)
    );
}

/// Memory with many QuarksJobs and nothing to do: a fresh operator, so that only what it holds counts.
fn at_rest(client: &Client, count: usize, connections: usize) {
    for name in [MONITORED, CONTROL] {
        remove_namespace(client, name);
    }
    let labels = json!({"quarks.cloudfoundry.org/monitored": "bench"});
    client
        .call_unit(&Request::create(Resource::NAMESPACES, "", &json!({"metadata": {"name": MONITORED, "labels": labels}})))
        .expect("a namespace");
    let empty = Operator::start();
    wait("an empty operator's caches", || empty.log_says("caches are in"));
    let at_zero = empty.settled();
    for (from, to) in [(0, count / 10), (count / 10, count)] {
        post_all(client, to - from, connections, |number| {
            Request::create(Resource::QUARKS_JOBS, MONITORED, &quarks_job(&format!("rest-{}", from + number), "manual"))
        });
        wait("all observed", || {
            let key = ObjectKey::new(MONITORED, format!("rest-{}", to - 1));
            client.call::<QuarksJob>(&Request::get(Resource::QUARKS_JOBS, &key)).is_ok_and(|object| object.status.observed_generation == 1)
        });
        let worked = empty.settled();
        let fresh = Operator::start();
        wait("the caches", || fresh.log_says("caches are in"));
        println!(
            "operator resident: {at_zero} KiB with 0 QuarksJobs, {} KiB with {to} after a start, {worked} KiB after serving them",
            fresh.settled()
        );
    }
}

fn post_all(client: &Client, count: usize, connections: usize, request: impl Fn(usize) -> Request + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    client.call_unit(&request(number)).expect("a create");
                }
            });
        }
    });
}

fn template() -> Value {
    json!({"spec": {"suspend": true, "template": {
        "metadata": {"labels": {"delete": "pod"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1.36", "command": ["true"]}]}
    }}})
}

fn quarks_job(name: &str, strategy: &str) -> Value {
    json!({
        "apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "metadata": {"name": name},
        "spec": {"trigger": {"strategy": strategy}, "template": template()}
    })
}

fn job(name: &str) -> Value {
    let mut job = template();
    job["metadata"] = json!({"name": name});
    job
}

/// Jobs as one watch sees them.
struct JobWatch {
    seen: Receiver<(String, Instant)>,
    known: HashSet<String>,
    _watch: WatchHandle,
}

impl JobWatch {
    fn start(client: &Client) -> JobWatch {
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
    fn wait_for(&mut self, count: usize, started: Instant) -> Duration {
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
}

/// The operator as a child process.
struct Operator {
    child: Child,
    log: std::path::PathBuf,
}

impl Operator {
    fn start() -> Operator {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let log =
            std::env::temp_dir().join(format!("quarks-job-bench-{}-{}.log", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        let file = std::fs::File::create(&log).expect("a log file");
        let child =
            Command::new(binary()).args(["--monitored-id", "bench", "--image", "bench:none"]).stderr(file).stdout(Stdio::null()).spawn();
        Operator { child: child.expect("the operator starts"), log }
    }

    fn status(&self, field: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    fn resident(&self) -> Option<usize> {
        self.status("VmRSS:").parse().ok()
    }

    /// Resident memory when it has stopped changing.
    fn settled(&self) -> usize {
        let mut last = (0, 0);
        wait("memory at rest", || {
            let now = self.resident().unwrap_or(0);
            last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
            last.1 >= 20
        });
        last.0
    }

    fn log_says(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

fn binary() -> String {
    std::env::var("QUARKS_JOB_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_quarks-job").to_owned())
}

fn remove_namespace(client: &Client, name: &str) {
    let key = ObjectKey::new("", name);
    let options = DeleteOptions { uid: None, resource_version: None, propagation: Propagation::Background };
    let _ = client.call_unit(&Request::delete(Resource::NAMESPACES, &key, &options));
    wait("the namespace gone", || client.call_unit(&Request::get(Resource::NAMESPACES, &key)).is_err_and(|error| error.is_not_found()));
}

fn wait(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < LIMIT, "waited too long for {what}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
