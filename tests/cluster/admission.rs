//! Who stands between a client and the API server's store: policies and webhooks, each for the namespace of one case alone, and
//! removed at its end.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::audit;
use crate::case::{Case, cluster, cluster_with, until};
use crate::{http, tls};

/// Part of what a policy or webhook of these tests says.
pub const SENTENCE: &str = "not on Fridays";

/// Which requests: API group, resources and operations.
#[derive(Clone, Copy)]
pub struct Requests {
    pub group: &'static str,
    pub resources: &'static [&'static str],
    pub operations: &'static [&'static str],
}

impl Requests {
    /// The settle: the operator writes nothing else of a QuarksJob but its status, which is another resource.
    pub const SETTLE: Self = Self { group: "quarks.cloudfoundry.org", resources: &["quarksjobs"], operations: &["UPDATE"] };
    pub const JOB_CREATE: Self = Self { group: "batch", resources: &["jobs"], operations: &["CREATE"] };
    pub const JOB_DELETE: Self = Self { group: "batch", resources: &["jobs"], operations: &["DELETE"] };
    pub const POD_PATCH: Self = Self { group: "", resources: &["pods"], operations: &["UPDATE"] };

    fn rule(&self) -> Value {
        json!({"apiGroups": [self.group], "apiVersions": ["*"], "resources": self.resources, "operations": self.operations})
    }
}

fn selector(case: &Case) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": case.namespace}})
}

/// Who tries whether a policy or webhook is in force. The operator's own rights do not reach for all of it: kubectl reads before it writes.
pub const PROBE: [&str; 2] = ["--as=quarks-job-probe", "--as-group=system:masters"];

/// Of the operator's requests alone, and of the probe's.
fn operator_only() -> Value {
    json!([{"name": "operator", "expression": format!("request.userInfo.username in ['{}', 'quarks-job-probe']", audit::OPERATOR)}])
}

/// A ValidatingAdmissionPolicy that refuses something.
pub struct Policy {
    name: String,
}

impl Policy {
    /// Refuses the operator with 403 (`Forbidden`) or 422 (`Invalid`). In force when this returns.
    pub fn start(case: &Case, what: Requests, reason: &str) -> Self {
        let kind = what.resources[0];
        let name = format!("{}-{kind}-{}", case.namespace, what.operations[0].to_lowercase());
        let validation = json!({"expression": "false", "message": SENTENCE, "reason": reason});
        let this = Self::install(case, name, what, &operator_only(), &validation);
        wait_in_force(case, what);
        this
    }

    /// Refuses everybody the pods for which this does not hold. In force when this returns; `refused` is such a pod.
    pub fn of_pods(case: &Case, expression: &str, refused: &Value) -> Self {
        let what = Requests { group: "", resources: &["pods"], operations: &["CREATE"] };
        let validation = json!({"expression": expression, "message": SENTENCE, "reason": "Forbidden"});
        let this = Self::install(case, format!("{}-pods", case.namespace), what, &json!([]), &validation);
        until("the policy to be in force", || {
            let tried = case.try_kubectl(&["create", "--dry-run=server", "-f", "-"], Some(refused));
            tried.is_err_and(|error| error.contains(SENTENCE)).then_some(())
        });
        this
    }

    fn install(case: &Case, name: String, what: Requests, conditions: &Value, validation: &Value) -> Self {
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"namespaceSelector": selector(case), "resourceRules": [what.rule()]},
                "matchConditions": conditions,
                "validations": [validation],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        let this = Self { name };
        cluster_with(&["apply", "-f", "-"], &json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}));
        this
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        remove(&["validatingadmissionpolicybinding", "validatingadmissionpolicy"], &self.name);
    }
}

/// Also when the case fails, and never a second panic.
fn remove(kinds: &[&str], name: &str) {
    for kind in kinds {
        let removed = std::panic::catch_unwind(|| cluster(&["delete", kind, name, "--ignore-not-found"]));
        if removed.is_err() {
            eprintln!("{kind} {name} is left");
        }
    }
}

/// Until a harmless try is refused.
fn wait_in_force(case: &Case, what: Requests) {
    let [user, group] = PROBE;
    let name = "probe";
    let meta = json!({"name": name, "namespace": case.namespace});
    let pod = json!({"restartPolicy": "Never", "schedulingGates": [{"name": "example.com/never"}],
        "containers": [{"name": "main", "image": "busybox:1.36"}]});
    let (object, kind) = match (what.group, what.resources[0]) {
        ("batch", "jobs") => (
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"suspend": true, "template": {"spec": pod}}}),
            "job",
        ),
        ("", "pods") => (json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod}), "pod"),
        _ => {
            let mut object = crate::case::quarks_job(name, "manual", "true");
            object["metadata"] = meta;
            (object, "qjob")
        }
    };
    let patch = r#"{"metadata":{"annotations":{"example.com/probe":"yes"}}}"#;
    let attempt = || match what.operations[0] {
        "CREATE" => case.try_kubectl(&["create", "--dry-run=server", user, group, "-f", "-"], Some(&object)),
        "DELETE" => case.try_kubectl(&["delete", "--dry-run=server", user, group, kind, name], None),
        _ => case.try_kubectl(&["patch", "--dry-run=server", user, group, kind, name, "--type=merge", "-p", patch], None),
    };
    if what.operations[0] != "CREATE" {
        case.apply(&object);
    }
    until("the policy to be in force", || attempt().is_err_and(|error| error.contains(SENTENCE)).then_some(()));
    if what.operations[0] != "CREATE" {
        case.kubectl(&["delete", kind, name, "--wait=false"]);
    }
}

/// How a webhook answers.
#[derive(Clone)]
pub enum Answer {
    Allow,
    /// Without a code: the API server makes a 400 of it.
    Deny,
    /// Not at all, until the webhook goes.
    Hang,
    /// A JSON patch.
    Patch(Value),
}

type Decide = Box<dyn Fn(&Value) -> Answer + Send + Sync>;

struct Shared {
    decide: Mutex<Decide>,
    is_over: AtomicBool,
    tls: Arc<rustls::ServerConfig>,
}

/// A webhook: a thread of the test that the API server calls.
pub struct Webhook {
    name: String,
    kind: &'static str,
    shared: Arc<Shared>,
    address: String,
}

impl Webhook {
    /// Asked for these requests in the namespace of the case.
    pub fn start(case: &Case, what: Requests, is_mutating: bool, decide: impl Fn(&Value) -> Answer + Send + Sync + 'static) -> Self {
        let host = host();
        let identity = tls::identity_for(&[&host]);
        let listener = TcpListener::bind((host.as_str(), 0)).expect("the host's address in the cluster's network");
        let address = listener.local_addr().expect("bound").to_string();
        let shared = Arc::new(Shared { decide: Mutex::new(Box::new(decide)), is_over: AtomicBool::new(false), tls: identity.config });
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if served.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&served);
                // What goes wrong here is the API server's to tell.
                thread::spawn(move || serve(socket, &shared).ok());
            }
        });
        Self::register(case, what, is_mutating, &address, &identity.ca_pem, shared)
    }

    /// Registered, but there is nobody at its address.
    pub fn unreachable(case: &Case, what: Requests) -> Self {
        let host = host();
        let identity = tls::identity_for(&[&host]);
        let listener = TcpListener::bind((host.as_str(), 0)).expect("the host's address in the cluster's network");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let decide: Decide = Box::new(|_| Answer::Allow);
        let shared = Arc::new(Shared { decide: Mutex::new(decide), is_over: AtomicBool::new(true), tls: identity.config });
        Self::register(case, what, false, &address, &identity.ca_pem, shared)
    }

    fn register(case: &Case, what: Requests, is_mutating: bool, address: &str, ca: &str, shared: Arc<Shared>) -> Self {
        let name = format!("{}-{}", case.namespace, what.resources[0]);
        let kind = if is_mutating { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
        let mut rule = what.rule();
        rule["scope"] = json!("Namespaced");
        let webhook = json!({
            "name": format!("guard.{}.example.com", case.namespace),
            "clientConfig": {"url": format!("https://{address}/"), "caBundle": STANDARD.encode(ca)},
            "rules": [rule], "namespaceSelector": selector(case), "matchConditions": operator_only(),
            "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 2, "admissionReviewVersions": ["v1"],
        });
        let configuration =
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [webhook]});
        let this = Self { name, kind, shared, address: address.to_owned() };
        cluster_with(&["apply", "-f", "-"], &configuration);
        this
    }

    /// From now on it answers like this.
    pub fn set(&self, decide: impl Fn(&Value) -> Answer + Send + Sync + 'static) {
        *self.shared.decide.lock().expect("webhook") = Box::new(decide);
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        remove(&[self.kind], &self.name);
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        TcpStream::connect(&self.address).ok();
    }
}

/// Until the API server asks it: only then what it would do counts.
pub fn wait_asked(case: &Case, what: Requests, is_refused: impl Fn(&str) -> bool) {
    let [user, group] = PROBE;
    let object = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "probe"}, "spec": {"suspend": true,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox:1.36"}]}}}});
    assert_eq!(what.operations, ["CREATE"]);
    until("the webhook to be in force", || {
        let tried = case.try_kubectl(&["create", "--dry-run=server", user, group, "-f", "-"], Some(&object));
        tried.is_err_and(|error| is_refused(&error)).then_some(())
    });
}

/// Where the API server reaches processes beside the cluster.
fn host() -> String {
    std::env::var("CLUSTER_HOST_IP").expect("these tests need a cluster: run them with scripts/test")
}

fn serve(socket: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let tls = ServerConnection::new(Arc::clone(&shared.tls)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(tls, socket);
    let mut buffer = Vec::new();
    while let Some(request) = http::read_request(&mut stream, &mut buffer)? {
        let review = request.json();
        let asked = &review["request"];
        let answer = shared.decide.lock().expect("webhook")(asked);
        let mut response = json!({"uid": asked["uid"], "allowed": true});
        match answer {
            Answer::Allow => {}
            Answer::Deny => {
                response["allowed"] = json!(false);
                response["status"] = json!({"message": SENTENCE});
            }
            Answer::Hang => {
                while !shared.is_over.load(Ordering::SeqCst) {
                    thread::park_timeout(Duration::from_millis(100));
                }
            }
            Answer::Patch(patch) => {
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(patch.to_string()));
            }
        }
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        http::write_full(&mut stream, &http::Response::json(200, &body), false)?;
    }
    Ok(())
}
