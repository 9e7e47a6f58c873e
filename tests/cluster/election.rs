//! Two operators with `--leader-elect`, as processes beside the cluster, in the place of the operator in its pod: they act as its
//! account, with the rights of its manifests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::case::{Case, cluster, quarks_job, text, until};
use crate::files::{Folder, kubeconfig_with};
use crate::stops::scale;

/// Lease duration, renew deadline and retry period in seconds: short enough to wait for, long enough for a slow machine.
const TIMES: [&str; 3] = ["--leader-elect-lease-duration=12", "--leader-elect-renew-deadline=8", "--leader-elect-retry-period=1"];
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/leader-election.yaml");

/// The pod's place is free while this lives.
struct Deployment;

impl Deployment {
    fn put_away() -> Self {
        scale("0");
        Self
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return scale("1");
        }
        let _ = Command::new("kubectl").args(["scale", "-n", "quarks-job", "deployment/quarks-job", "--replicas=1"]).status();
    }
}

struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    fn start(folder: &Path, name: &str, kubeconfig: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_quarks-job"))
            .args(["--leader-elect", "--log-level=debug", "--image=not-used:here", "--kubeconfig"])
            .arg(kubeconfig)
            .args(TIMES)
            .env_clear()
            .env("POD_NAME", name)
            .stdin(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("the operator starts");
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill starts").success(), "SIG{name}");
    }

    #[track_caller]
    fn wait_log(&self, words: &str) {
        until(&format!("{words:?} in the log"), || self.log().contains(words).then_some(()));
    }

    #[track_caller]
    fn wait_exit(&mut self) -> Option<i32> {
        let status = until("the end of the process", || self.child.try_wait().expect("our child"));
        status.code()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A kubeconfig with a token of the operator's account; its namespace is that of the Lease. JSON is YAML.
fn kubeconfig(folder: &Folder) -> PathBuf {
    let token = cluster(&["create", "token", "quarks-job", "--namespace=quarks-job", "--duration=1h"]);
    let mut config = kubeconfig_with(&token);
    config["contexts"][0]["context"]["namespace"] = "quarks-job".into();
    folder.write("kubeconfig", config.to_string()).into()
}

/// Name of the process that holds the Lease.
fn holder() -> String {
    let identity =
        cluster(&["--namespace=quarks-job", "get", "lease", "quarks-job", "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}"]);
    identity.rsplit_once('_').map(|(name, _)| name.to_owned()).unwrap_or_default()
}

#[track_caller]
fn wait_holder(name: &str) {
    until(&format!("{name} to hold the Lease"), || (holder() == name).then_some(()));
}

#[test]
fn each_trigger_runs_once_whoever_leads() {
    let case = Case::alone("election");
    let _deployment = Deployment::put_away();
    let folder = Folder::new("election");
    cluster(&["apply", "-f", MANIFEST]);
    let kubeconfig = kubeconfig(&folder);
    let mut first = Operator::start(folder.path(), "first", &kubeconfig);
    first.wait_log("caches synced");
    let mut second = Operator::start(folder.path(), "second", &kubeconfig);
    second.wait_log("waiting for the Lease");
    case.apply(&quarks_job("q", "manual", "true"));
    case.wait("q", "condition=Ready");

    // Some while it is stopped, and some about which it has begun to do something.
    let names: Vec<String> = (0..8).map(|number| format!("w{number}")).collect();
    let list =
        json!({"apiVersion": "v1", "kind": "List", "items": names.iter().map(|name| quarks_job(name, "once", "true")).collect::<Vec<_>>()});
    case.apply(&list);
    first.signal("STOP");
    case.set_now("q");
    wait_holder("second");
    for name in names.iter().map(String::as_str).chain(["q"]) {
        assert_eq!(case.wait_runs(name, 1)["outcome"], "Succeeded", "{name}");
    }
    case.wait_no_jobs();
    first.signal("CONT");
    assert_eq!(first.wait_exit(), Some(1), "{}", first.log());
    assert_eq!(first.log().matches("lost the Lease").count(), 1);

    // It waits now, and takes over when the other ends.
    let first = Operator::start(folder.path(), "first-again", &kubeconfig);
    first.wait_log("waiting for the Lease");
    second.signal("TERM");
    case.set_now("q");
    assert_eq!(second.wait_exit(), Some(0), "{}", second.log());
    assert!(second.log().contains("Lease released"), "{}", second.log());
    wait_holder("first-again");
    assert_eq!(case.wait_runs("q", 2)["outcome"], "Succeeded");
    case.wait_no_jobs();
    assert_eq!(case.jobs_created(), names.len() + 2, "one Job a trigger");
    assert_eq!(text(&case.qjob("q")["spec"]["trigger"]["strategy"]), "manual");
    drop(first);
    // The pod does not wait for a Lease, but the next test may want to look at one that nobody holds.
    cluster(&["--namespace=quarks-job", "delete", "lease", "quarks-job"]);
}
