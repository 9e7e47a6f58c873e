//! One API server with one QuarksJob, and sidecars in pods of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::operator::{LIMIT, binary};
use crate::support::play::{self, path};
use crate::support::scene::Folder;
use crate::support::server::OPERATOR_TOKEN;
use crate::support::{Operator, Server, tls, wait_for};

pub const NAMESPACE: &str = "team";
pub const WRITTEN_BY: &str = "quarks.cloudfoundry.org/written-by";
pub const CONTAINER_NAME: &str = "quarks.cloudfoundry.org/container-name";
pub const SECRET_VERSION: &str = "quarks.cloudfoundry.org/secret-version";
/// In every output value, and nowhere else.
pub const CANARY: &str = "canary-s3cr3t";
/// How long final answers are retried here; 60 s outside of tests.
pub const REFUSED_LIMIT_MS: u64 = 1000;

/// An output file: each key with a value that begins with the canary.
pub fn document(entries: &[(&str, &str)]) -> String {
    let map: BTreeMap<_, _> = entries.iter().map(|(key, value)| (*key, format!("{CANARY}{value}"))).collect();
    json!(map).to_string()
}

pub fn running() -> Value {
    json!({"restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
}

/// The container's first run has ended.
pub fn ended(code: i32) -> Value {
    ended_after(0, code)
}

/// The container has ended after so many restarts.
pub fn ended_after(restarts: u32, code: i32) -> Value {
    json!({"restartCount": restarts, "state": {"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }}}})
}

/// The plan of a pod with one container `main` and one file `f` for the Secret `s`.
pub fn one_file() -> Value {
    json!({"containers": {"main": {"files": {"f": {"name": "s"}}}}})
}

pub struct Scene {
    pub server: Server,
    pub folder: Folder,
    owner: Value,
    pods: AtomicUsize,
}

impl Scene {
    pub fn new(name: &str) -> Scene {
        let folder = Folder::new(name);
        let server = Server::start();
        play::monitored_namespace(server.api(), NAMESPACE);
        let owner = server.api().create(&path("quarksjobs", NAMESPACE, ""), play::quarks_job("q", "once"));
        tls::write_service_account(&folder.path().join("account"), server.ca_pem(), OPERATOR_TOKEN, NAMESPACE);
        Scene { server, folder, owner, pods: AtomicUsize::new(0) }
    }

    pub fn api(&self) -> &Arc<Api> {
        self.server.api()
    }

    pub fn account(&self) -> PathBuf {
        self.folder.path().join("account")
    }

    /// A pod with the plan's containers, all running, and its sidecar, not yet started.
    pub fn sidecar(&self, restart_policy: &str, plan: Value) -> Sidecar {
        let pod = format!("p{}", self.pods.fetch_add(1, Ordering::Relaxed));
        let names: Vec<String> = plan["containers"].as_object().expect("a map").keys().cloned().collect();
        let containers: Vec<Value> = names.iter().map(String::as_str).chain(["output-persist"]).map(|name| json!({"name": name})).collect();
        let object = self.api().create(
            &path("pods", NAMESPACE, ""),
            json!({"metadata": {"name": pod}, "spec": {"restartPolicy": restart_policy, "containers": containers}}),
        );
        let plan_map = plan.as_object().expect("a map");
        let mut whole = json!({"quarksJob": "q", "uid": self.owner["metadata"]["uid"], "run": 1});
        whole.as_object_mut().expect("a map").extend(plan_map.clone());

        let folder = self.folder.path().join(&pod);
        let (root, report) = (folder.join("output"), folder.join("report"));
        fs::create_dir_all(&root).expect("folder made");
        for name in names.iter().filter(|name| !plan["containers"][name]["files"].is_null()) {
            fs::create_dir_all(root.join(name)).expect("folder made");
        }
        let address = self.server.address();
        let process = Operator::new(binary())
            .arg("persist-output")
            .env("KUBERNETES_SERVICE_HOST", address.ip().to_string())
            .env("KUBERNETES_SERVICE_PORT", address.port().to_string())
            .env("SERVICE_ACCOUNT_DIR", self.account().to_string_lossy())
            .env("OUTPUT_ROOT", root.to_string_lossy())
            .env("TERMINATION_LOG", report.to_string_lossy())
            .env("REFUSED_LIMIT_MS", REFUSED_LIMIT_MS.to_string())
            .env("POD_NAME", &pod)
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_UID", object["metadata"]["uid"].as_str().expect("a UID"))
            .env("QUARKS_JOB_PLAN", whole.to_string())
            .env("LOG_LEVEL", "debug");
        let sidecar = Sidecar { api: Arc::clone(self.api()), process, root, report, pod, names };
        sidecar.states(&[]);
        sidecar
    }

    /// A sidecar whose container `main` has written `content` into `f` and ended well; started.
    pub fn ended_well(&self, plan: Value, content: &str) -> Sidecar {
        let sidecar = self.sidecar("Never", plan);
        sidecar.write("main", "f", content);
        sidecar.states(&[("main", ended(0))]);
        sidecar.process.start();
        sidecar
    }

    /// Waits until a sidecar watches its pod.
    pub fn wait_watch(&self) {
        wait_for("a watch", || (!self.server.watches().is_empty()).then_some(()));
    }

    pub fn put_secret(&self, secret: Value) -> Value {
        self.api().create(&path("secrets", NAMESPACE, ""), secret)
    }

    pub fn secret(&self, name: &str) -> Option<Value> {
        self.api().get(&path("secrets", NAMESPACE, name))
    }

    /// Names of all Secrets, in order.
    pub fn secrets(&self) -> Vec<String> {
        let name = |secret: Value| secret["metadata"]["name"].as_str().expect("a name").to_owned();
        self.api().list(&path("secrets", NAMESPACE, "")).into_iter().map(name).collect()
    }

    /// The Secret's values, decoded and without the canary before each.
    pub fn data(&self, name: &str) -> BTreeMap<String, String> {
        let secret = self.secret(name).unwrap_or_else(|| panic!("no Secret {name}; there are {:?}", self.secrets()));
        let decode = |value: &Value| {
            let bytes = STANDARD.decode(value.as_str().expect("text")).expect("base64");
            let text = String::from_utf8(bytes).expect("UTF-8");
            text.strip_prefix(CANARY).unwrap_or(&text).to_owned()
        };
        let Some(data) = secret["data"].as_object() else { return BTreeMap::new() };
        data.iter().map(|(key, value)| (key.clone(), decode(value))).collect()
    }

    /// Value of the only key `k`.
    pub fn value(&self, name: &str) -> String {
        let data = self.data(name);
        assert_eq!(data.keys().collect::<Vec<_>>(), ["k"], "{name}");
        data["k"].clone()
    }

    /// All requests but those of the test, as `METHOD path` below the namespace.
    pub fn requests(&self) -> Vec<String> {
        let text = |entry: &crate::support::server::Entry| {
            let method = if entry.request.is_watch() { "WATCH" } else { &entry.request.method };
            let (_, rest) = entry.request.path.split_once(NAMESPACE).expect("all requests are in the namespace");
            format!("{method} {}", rest.trim_start_matches('/'))
        };
        self.server.requests().iter().map(text).collect()
    }
}

pub struct Sidecar {
    api: Arc<Api>,
    pub process: Operator,
    root: PathBuf,
    report: PathBuf,
    pub pod: String,
    names: Vec<String>,
}

/// How a sidecar ended.
#[derive(Debug)]
pub struct Finish {
    pub code: Option<i32>,
    pub report: Value,
    pub log: String,
}

impl Sidecar {
    pub fn file(&self, container: &str, file: &str) -> PathBuf {
        self.root.join(container).join(file)
    }

    pub fn report_path(&self) -> &Path {
        &self.report
    }

    pub fn write(&self, container: &str, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.file(container, file), content).expect("file written");
    }

    /// The pod's state is now this; containers that are not named are running.
    pub fn states(&self, states: &[(&str, Value)]) {
        self.states_in_phase("Running", states);
    }

    pub fn states_in_phase(&self, phase: &str, states: &[(&str, Value)]) {
        let status = |name: &String| {
            let state = states.iter().find(|(other, _)| other == name).map_or_else(running, |(_, state)| state.clone());
            let mut status = json!({"name": name});
            status.as_object_mut().expect("a map").extend(state.as_object().expect("a map").clone());
            status
        };
        let statuses: Vec<Value> = self.names.iter().map(status).collect();
        self.patch_pod(&json!({"status": {"phase": phase, "containerStatuses": statuses}}));
    }

    /// What the container has printed since its last start.
    pub fn print(&self, container: &str, log: impl Into<Vec<u8>>) {
        let name = format!("{NAMESPACE}/{}/{container}", self.pod);
        self.api.settings(|settings| drop(settings.logs.insert(name, log.into())));
    }

    pub fn patch_pod(&self, patch: &Value) {
        let sub = if patch["status"].is_null() { "" } else { "/status" };
        self.api.patch(&(path("pods", NAMESPACE, &self.pod) + sub), patch);
    }

    /// Waits for the process to end; says nothing that it must not.
    #[track_caller]
    pub fn finish(&self) -> Finish {
        let status = self.process.wait_exit(LIMIT).unwrap_or_else(|| panic!("it does not end:\n{}", self.process.log()));
        let text = fs::read_to_string(&self.report).unwrap_or_default();
        let log = self.process.log();
        for secret in [CANARY, &STANDARD.encode(CANARY)[..16], OPERATOR_TOKEN] {
            assert!(!text.contains(secret) && !log.contains(secret), "{secret} leaked: {text}\n{log}");
        }
        assert!(!log.contains("panicked"), "{log}");
        assert!(text.len() <= 4096, "{text}");
        Finish { code: status.code(), report: serde_json::from_str(&text).unwrap_or_default(), log }
    }

    /// Like `finish`, for an end with everything stored.
    #[track_caller]
    pub fn finish_stored(&self) -> Finish {
        let finish = self.finish();
        assert_eq!((finish.code, &finish.report["stored"]), (Some(0), &json!(true)), "{}\n{}", finish.report, finish.log);
        assert_eq!(finish.report.get("errors"), None, "{}", finish.report);
        finish
    }

    /// Like `finish`, for an end with exit code 0 and one error: its reason and message.
    #[track_caller]
    pub fn finish_error(&self) -> (String, String) {
        let finish = self.finish();
        assert_eq!((finish.code, &finish.report["stored"]), (Some(0), &json!(false)), "{}\n{}", finish.report, finish.log);
        let errors = finish.report["errors"].as_array().expect("errors");
        assert_eq!(errors.len(), 1, "{errors:?}");
        let text = |name: &str| errors[0][name].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }
}

/// Limit for "at once" on a machine that others use too.
pub const SOON: Duration = Duration::from_secs(20);
