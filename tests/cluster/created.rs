//! How many Jobs the operator has created in a namespace, on a cluster without an audit log: what a watch has seen.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use crate::case::{cluster, run, until};

/// Who created a Job is who manages its first fields.
const COLUMNS: &str = "custom-columns=EVENT:.type,NAME:.object.metadata.name,BY:.object.metadata.managedFields[0].manager";
const BARRIER: &str = "barrier";

pub struct Created {
    namespace: String,
    watch: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Created {
    /// From now on; the namespace is new.
    pub fn watch(namespace: &str) -> Self {
        let arguments = ["get", "jobs", "--watch", "--output-watch-events", "--show-managed-fields", "--no-headers", "-o", COLUMNS];
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["--namespace", namespace]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut watch = kubectl.spawn().expect("kubectl starts");
        let output = BufReader::new(watch.stdout.take().expect("piped"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| seen.lock().expect("no panic").push(line)));
        Self { namespace: namespace.to_owned(), watch, lines }
    }

    /// All that were created before this call, whether they are still there or not: a watch tells of a Job of ours after them.
    pub fn count(&self) -> usize {
        let is_seen = |event: &'static str| {
            let is_it = move |line: &String| line.starts_with(event) && line.split_whitespace().nth(1) == Some(BARRIER);
            self.lines.lock().expect("no panic").iter().filter(|line| is_it(line)).count()
        };
        let before = is_seen("ADDED");
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": BARRIER}, "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1.36"}]}}}});
        run(&["--namespace", &self.namespace, "create", "-f", "-"], Some(&job)).unwrap_or_else(|error| panic!("kubectl create: {error}"));
        until("the watch of Jobs to tell of ours", || (is_seen("ADDED") > before).then_some(()));
        cluster(&["--namespace", &self.namespace, "delete", "job", BARRIER]);
        let lines = self.lines.lock().expect("no panic");
        let is_ours = |line: &&String| line.starts_with("ADDED") && line.split_whitespace().nth(2) == Some("quarks-job");
        lines.iter().filter(is_ours).count()
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        let _ = self.watch.kill();
        let _ = self.watch.wait();
    }
}
