//! One case: a namespace, kubectl in it, and waiting for conditions with a limit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::audit::{self, Entry};
use crate::created::Created;
use crate::player;
use crate::times;

/// Reached only when a case fails; machines are slow and shared.
pub const LIMIT: Duration = Duration::from_secs(300);
/// Between two looks, the first time and at most: each is a kubectl process, and a dozen cases look at once.
const POLL: Duration = Duration::from_millis(250);
const POLL_MAX: Duration = Duration::from_secs(1);

pub const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests");
/// How the namespaces of all cases begin.
pub const NAMESPACE_PREFIX: &str = "t-";
pub const MONITORED: &str = "quarks.cloudfoundry.org/monitored";
pub const MONITORED_DEFAULT: &str = "quarks.cloudfoundry.org/monitored=default";
pub const SIDECAR_ACCOUNT: &str = "quarks.cloudfoundry.org/qjob-service-account=quarks-job-sidecar";

/// Cases that stop the operator run alone, all others at the same time. Alone means when no other is there: a lock that lets who asks for
/// it alone go first would make all others wait for the longest case that goes on, once for each that wants to be alone.
static TURNS: Mutex<Turns> = Mutex::new(Turns { shared: 0, alone: false });
static TURN_ENDED: Condvar = Condvar::new();

struct Turns {
    shared: usize,
    alone: bool,
}

/// Cases with many pods take turns.
static MANY_PODS: Mutex<()> = Mutex::new(());

/// Before the case is made.
pub fn many_pods() -> MutexGuard<'static, ()> {
    MANY_PODS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Objects of the cluster whose names the manifests give: two cases may have them, one to use them, one to try whether the API server
/// takes them. kubectl first looks whether an object is there and then creates or changes it, so nobody may make or delete one meanwhile.
static NAMES_OF_THE_MANIFESTS: Mutex<()> = Mutex::new(());

/// For one kubectl.
pub fn names_of_the_manifests() -> MutexGuard<'static, ()> {
    NAMES_OF_THE_MANIFESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Turn {
    Shared,
    Alone,
    /// Held by another case of the same test.
    OfAnother,
}

impl Turn {
    fn shared() -> Self {
        let mut turns = TURN_ENDED.wait_while(turns(), |turns| turns.alone).unwrap_or_else(PoisonError::into_inner);
        turns.shared += 1;
        Self::Shared
    }

    fn alone() -> Self {
        let is_taken = |turns: &mut Turns| turns.alone || turns.shared > 0;
        TURN_ENDED.wait_while(turns(), is_taken).unwrap_or_else(PoisonError::into_inner).alone = true;
        Self::Alone
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        match self {
            Self::Shared => turns().shared -= 1,
            Self::Alone => turns().alone = false,
            Self::OfAnother => {}
        }
        TURN_ENDED.notify_all();
    }
}

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Case {
    pub namespace: String,
    /// Where no audit log tells of Jobs.
    created: Option<Created>,
    _turn: Turn,
}

impl Case {
    /// In a namespace that is ready for QuarksJobs.
    pub fn new(name: &str) -> Self {
        let case = Self::unlabelled(name);
        case.label();
        case
    }

    /// The same, while no other case runs.
    pub fn alone(name: &str) -> Self {
        let case = Self::with(name, Turn::alone());
        case.label();
        case
    }

    /// In a namespace that has the accounts and rights, but not the label that makes the operator look at it.
    pub fn unlabelled(name: &str) -> Self {
        Self::with(name, Turn::shared())
    }

    /// One more unlabelled namespace for the same test; a second turn of its own could wait for ever.
    pub fn beside(&self, name: &str) -> Self {
        Self::with(name, Turn::OfAnother)
    }

    /// One more namespace for the same test, with nothing in it: no accounts, no rights, no labels.
    pub fn bare_beside(&self, name: &str) -> Self {
        Self::bare(name, Turn::OfAnother)
    }

    fn with(name: &str, turn: Turn) -> Self {
        let case = Self::bare(name, turn);
        case.prepare();
        case
    }

    fn bare(name: &str, turn: Turn) -> Self {
        times::begin();
        player::start();
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let namespace = format!("{NAMESPACE_PREFIX}{name}-{:06x}", nanos / 1_000 % 0x100_0000);
        cluster(&["create", "namespace", &namespace]);
        let created = (!audit::is_there()).then(|| Created::watch(&namespace));
        Self { namespace, created, _turn: turn }
    }

    /// What an administrator does for a namespace, but for its labels.
    pub fn prepare(&self) {
        self.kubectl(&["apply", "-f", &format!("{MANIFESTS}/monitored-namespace.yaml")]);
    }

    /// Makes the operator serve the namespace.
    pub fn label(&self) {
        self.label_namespace(&[MONITORED_DEFAULT, SIDECAR_ACCOUNT]);
    }

    pub fn label_namespace(&self, labels: &[&str]) {
        cluster(&[&["label", "--overwrite", "namespace", &self.namespace], labels].concat());
    }

    // ------------------------------------------------------------------------------------------------ kubectl

    /// kubectl in this namespace, its output; it has to work.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args, None).unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
    }

    /// Its output, or its error messages.
    pub fn try_kubectl(&self, args: &[&str], input: Option<&Value>) -> Result<String, String> {
        run(&[&["--namespace", &self.namespace], args].concat(), input)
    }

    #[track_caller]
    pub fn apply(&self, object: &Value) {
        self.try_apply(object).unwrap_or_else(|error| panic!("kubectl apply: {error}"));
    }

    pub fn try_apply(&self, object: &Value) -> Result<String, String> {
        self.try_kubectl(&["apply", "-f", "-"], Some(object))
    }

    #[track_caller]
    pub fn apply_example(&self, file: &str) {
        self.kubectl(&["apply", "-f", &example(file)]);
    }

    /// For an example that has the program's image in it.
    #[track_caller]
    pub fn apply_with_image(&self, file: &str) {
        let script = format!("sed '{}' {} | kubectl --namespace {} apply -f -", image_filter(), example(file), self.namespace);
        let output = Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[track_caller]
    pub fn set_now(&self, name: &str) {
        self.patch(name, &json!({"spec": {"trigger": {"strategy": "now"}}}));
    }

    #[track_caller]
    pub fn patch(&self, name: &str, patch: &Value) {
        self.kubectl(&["patch", "qjob", name, "--type", "merge", "-p", &patch.to_string()]);
    }

    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])).expect("JSON")
    }

    #[track_caller]
    pub fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.kubectl(&["get", kind, "-l", selector, "-o", "json"])).expect("JSON");
        list["items"].as_array().expect("a list").clone()
    }

    #[track_caller]
    pub fn qjob(&self, name: &str) -> Value {
        self.get("qjob", name)
    }

    #[track_caller]
    pub fn jobs(&self) -> Vec<Value> {
        self.list("jobs", "")
    }

    /// The data of a Secret, decoded.
    #[track_caller]
    pub fn secret(&self, name: &str) -> BTreeMap<String, String> {
        decoded(&self.get("secret", name))
    }

    /// Names of the Secrets that Jobs have written.
    #[track_caller]
    pub fn output_secrets(&self) -> Vec<String> {
        self.list("secrets", "quarks.cloudfoundry.org/container-name").iter().map(|secret| text(&secret["metadata"]["name"])).collect()
    }

    // ------------------------------------------------------------------------------------------------ waiting

    /// `kubectl wait`, as a user would: `condition=Succeeded`, `condition=Running=false`.
    #[track_caller]
    pub fn wait(&self, name: &str, condition: &str) {
        let limit = format!("--timeout={}s", LIMIT.as_secs());
        let args = ["wait", &format!("qjob/{name}"), &format!("--for={condition}"), &limit];
        let waited = until("kubectl wait to find the QuarksJob", || match self.try_kubectl(&args, None) {
            // It looks into the API server's cache, which may not know yet of what was just made; `get` does not.
            Err(error) if error.contains("NotFound") && self.try_kubectl(&["get", "qjob", name], None).is_ok() => None,
            ended => Some(ended),
        });
        waited.unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")));
    }

    /// Until the QuarksJob is as `check` wants it.
    #[track_caller]
    pub fn wait_qjob(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        until(what, || Some(self.qjob(name)).filter(|qjob| check(qjob)))
    }

    /// Until so many runs are settled; the last of them.
    #[track_caller]
    pub fn wait_runs(&self, name: &str, runs: u64) -> Value {
        let qjob = self.wait_qjob(name, &format!("{runs} runs"), |qjob| qjob["status"]["lastRun"]["run"].as_u64() >= Some(runs));
        assert_eq!(qjob["status"]["lastRun"]["run"], runs, "more runs than asked for");
        qjob["status"]["lastRun"].clone()
    }

    #[track_caller]
    pub fn wait_no_jobs(&self) {
        until("the Jobs to be gone", || self.jobs().is_empty().then_some(()));
    }

    /// The name of the only pod of the QuarksJob's run, when its main container runs.
    #[track_caller]
    pub fn wait_running_pod(&self, name: &str) -> String {
        until("the container to run", || {
            let pods = self.list("pods", &format!("quarks.cloudfoundry.org/qjob-name={name}"));
            let pod = pods.first()?;
            let main = pod["status"]["containerStatuses"].as_array()?.iter().find(|status| status["name"] == "main")?;
            main["state"]["running"].is_object().then(|| text(&pod["metadata"]["name"]))
        })
    }

    /// Until there is an Event with this reason on the QuarksJob; its text.
    #[track_caller]
    pub fn wait_event(&self, name: &str, reason: &str) -> String {
        until(&format!("Event {reason}"), || self.events(name).into_iter().find(|event| event.0 == reason)).1
    }

    /// Reason and text of all Events on the QuarksJob.
    #[track_caller]
    pub fn events(&self, name: &str) -> Vec<(String, String)> {
        let selector = format!("regarding.kind=QuarksJob,regarding.name={name}");
        let list = self.kubectl(&["get", "events.v1.events.k8s.io", "--field-selector", &selector, "-o", "json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        list["items"].as_array().expect("a list").iter().map(|event| (text(&event["reason"]), text(&event["note"]))).collect()
    }

    /// Until the condition has this status and reason; its message.
    #[track_caller]
    pub fn wait_condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> String {
        let matches = |qjob: &Value| condition(qjob, kind).is_some_and(|found| found["status"] == status && found["reason"] == reason);
        let qjob = self.wait_qjob(name, &format!("{kind}={status}, {reason}"), matches);
        text(&condition(&qjob, kind).expect("just seen")["message"])
    }

    /// Creates an object as it was, under a new UID, and then its status: what backup tools do.
    #[track_caller]
    pub fn restore(&self, object: &Value) -> Value {
        let mut new = object.clone();
        let meta = new["metadata"].as_object_mut().expect("metadata");
        for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"] {
            meta.remove(field);
        }
        let status = new.as_object_mut().expect("an object").remove("status").unwrap_or_default();
        let name = text(&new["metadata"]["name"]);
        self.try_kubectl(&["create", "-f", "-"], Some(&new)).unwrap_or_else(|error| panic!("kubectl create: {error}"));
        let patch = json!({"status": status}).to_string();
        self.kubectl(&["patch", "qjob", &name, "--subresource=status", "--type=merge", "-p", &patch]);
        self.qjob(&name)
    }

    // -------------------------------------------------------------------------------------------------- audit

    /// What was asked of the API server in this namespace.
    pub fn audit(&self) -> Vec<Entry> {
        audit::entries_in(&self.namespace)
    }

    /// Jobs that the operator has created here, whether they are still there or not.
    pub fn jobs_created(&self) -> usize {
        match &self.created {
            Some(created) => created.count(),
            None => self.audit().iter().filter(|entry| entry.is_job_created()).count(),
        }
    }

    fn diagnosis(&self) -> String {
        let mut text = String::new();
        for args in [
            &["get", "qjob,job,pod,secret", "-o", "wide"][..],
            &["get", "qjob", "-o", "yaml"],
            &["get", "events", "--sort-by=.metadata.creationTimestamp"],
            &["logs", "-l", "quarks.cloudfoundry.org/qjob-name", "--all-containers", "--prefix", "--tail=20"],
            &["--namespace=quarks-job", "logs", "deployment/quarks-job", "--tail=40"],
        ] {
            let output = self.try_kubectl(args, None).unwrap_or_else(|error| error);
            let _ = writeln!(text, "--- kubectl {}\n{output}", args.join(" "));
        }
        if audit::is_there() {
            for entry in self.audit() {
                let _ = writeln!(text, "{entry}");
            }
        }
        text
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("namespace {} is left as it is\n{}", self.namespace, self.diagnosis());
        } else {
            cluster(&["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]);
        }
    }
}

/// A QuarksJob with one container `main` that runs `script`. Its pod goes with the Job.
pub fn quarks_job(name: &str, strategy: &str, script: &str) -> Value {
    json!({
        "apiVersion": "quarks.cloudfoundry.org/v1alpha1",
        "kind": "QuarksJob",
        "metadata": {"name": name},
        "spec": {
            "trigger": {"strategy": strategy},
            "template": {"spec": {"backoffLimit": 0, "template": {
                "metadata": {"labels": {"delete": "pod"}},
                "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "main", "image": "busybox:1.36", "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-c", script],
                }]},
            }}},
        },
    })
}

/// The same with `output.json` of the container stored in the Secret `secret`.
pub fn with_output(name: &str, strategy: &str, script: &str, secret: &str) -> Value {
    let mut object = quarks_job(name, strategy, script);
    object["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": secret}}}});
    object
}

/// For sed: the image that is tested in the place of the placeholder.
pub fn image_filter() -> String {
    let image = std::env::var("QUARKS_TEST_IMAGE").expect("these tests need a cluster: run them with scripts/test");
    format!("s|quarks-job:dev|{image}|")
}

pub fn example(file: &str) -> String {
    format!("{MANIFESTS}/examples/{file}")
}

pub fn condition<'a>(qjob: &'a Value, kind: &str) -> Option<&'a Value> {
    qjob["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

pub fn decoded(secret: &Value) -> BTreeMap<String, String> {
    let data = secret["data"].as_object().cloned().unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, String::from_utf8(STANDARD.decode(text(&value)).expect("base64")).expect("UTF-8"))).collect()
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}")).to_owned()
}

#[track_caller]
pub fn until<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    until_with(POLL_MAX, what, check)
}

/// The same for looks that cost nothing and are many.
#[track_caller]
pub fn until_often<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    until_with(POLL, what, check)
}

#[track_caller]
fn until_with<T>(pause_max: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = POLL;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for: {what}");
        thread::park_timeout(pause);
        pause = pause_max.min(pause.mul_f64(1.5));
    }
}

/// All that the operator has logged. Without a node it is a process that scripts/test has started.
pub fn log() -> String {
    match std::env::var("OPERATOR_LOG") {
        Ok(path) => std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")),
        Err(_) => cluster(&["--namespace", "quarks-job", "logs", "deployment/quarks-job", "--tail=-1"]),
    }
}

/// The lines of it about a namespace.
pub fn log_about(namespace: &str) -> Vec<String> {
    log().lines().filter(|line| line.contains(namespace)).map(ToOwned::to_owned).collect()
}

/// The same with something to read for kubectl.
#[track_caller]
pub fn cluster_with(args: &[&str], input: &Value) -> String {
    run(args, Some(input)).unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
}

/// kubectl outside of any namespace; it has to work.
#[track_caller]
pub fn cluster(args: &[&str]) -> String {
    run(args, None).unwrap_or_else(|error| panic!("kubectl {}: {error}", args.join(" ")))
}

pub fn run(args: &[&str], input: Option<&Value>) -> Result<String, String> {
    // Never a cluster that happens to be the user's current one.
    assert!(std::env::var("QUARKS_CLUSTER").is_ok(), "these tests need a cluster: run them with scripts/test");
    let mut child = Command::new("kubectl")
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(input.to_string().as_bytes()).expect("kubectl reads");
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("our child");
    if status.success() { Ok(String::from_utf8_lossy(&stdout).into_owned()) } else { Err(String::from_utf8_lossy(&stderr).into_owned()) }
}
