//! The commands of the real program: against the scripted API server, and with files that nobody should trust.
//! Each failure is one line on standard error, with exit code 1 or 2, and holds no secret.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::support::operator::{binary, make_program};
use crate::support::play::{self, path};
use crate::support::scene::{Folder, Scene};
use crate::support::server::OPERATOR_TOKEN;
use crate::support::{Fault, Server, When, tls, wait_for};

const NAMESPACE: &str = "team";
const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";
const CANARY: &str = "canary-4711-canary";
/// What the program may map in a test with hostile input, in KiB.
const MEMORY_KIB: u32 = 700_000;

/// How a call ended: exit code, standard output, standard error.
type Ended = (i32, String, String);

fn program() -> Command {
    let mut command = Command::new(binary());
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().expect("our child");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn call(arguments: &[&str]) -> Ended {
    ended(program().args(arguments).spawn().expect("it starts"))
}

/// A failure as all are: nothing but one line on standard error.
#[track_caller]
fn one_line((code, out, err): &Ended, expected_code: i32, expected: &str) {
    assert!(err.ends_with('\n') && err.lines().count() == 1, "one line: {err:?}");
    assert!(err.starts_with("quarks-job: ") && err.contains(expected), "{expected:?} in {err}");
    assert_eq!((*code, out.as_str()), (expected_code, ""), "{err}");
    assert!(!err.contains(CANARY) && !err.contains(OPERATOR_TOKEN) && !err.contains("panicked"), "{err}");
}

struct Cluster {
    server: Server,
    folder: Folder,
    kubeconfig: PathBuf,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let server = Server::start();
        play::monitored_namespace(server.api(), NAMESPACE);
        server.api().create(&path("quarksjobs", NAMESPACE, ""), play::quarks_job("q", "manual"));
        let kubeconfig = server.kubeconfig(folder.path());
        Self { server, folder, kubeconfig }
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let kubeconfig = self.kubeconfig.to_str().expect("UTF-8");
        program().args([&["trigger", "-c", kubeconfig, "-n", NAMESPACE], arguments].concat()).spawn().expect("it starts")
    }

    fn trigger(&self, arguments: &[&str]) -> Ended {
        ended(self.start(arguments))
    }

    fn object(&self) -> Value {
        self.server.api().get(&path("quarksjobs", NAMESPACE, "q")).expect("the QuarksJob is there")
    }

    fn requested(&self) -> Option<String> {
        self.object()["metadata"]["annotations"][REQUESTED].as_str().map(str::to_owned)
    }

    fn patch(&self, patch: &Value) {
        self.server.api().patch(&path("quarksjobs", NAMESPACE, "q"), patch);
    }

    /// Until the request of a waiting call is made; its value.
    fn wait_requested(&self) -> String {
        wait_for("the request", || self.requested())
    }

    /// What the operator writes when the run that serves `request` has ended.
    fn settle(&self, run: u64, request: &str, last: &Value) {
        let marker = json!({"uid": self.object()["metadata"]["uid"], "runs": run, "request": request}).to_string();
        self.patch(&json!({"metadata": {"annotations": {"quarks.cloudfoundry.org/settled": marker}}}));
        let mut status = json!({"settled": marker, "runs": run, "active": null, "lastRun": {"run": run, "jobName": format!("q-{run}"), "trigger": "request",
            "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:12Z"}});
        for (key, value) in last.as_object().expect("a map") {
            status["lastRun"][key] = value.clone();
        }
        self.server.api().patch(&(path("quarksjobs", NAMESPACE, "q") + "/status"), &json!({"status": status}));
    }
}

#[test]
fn trigger_sets_a_fresh_value_and_nothing_else() {
    let cluster = Cluster::new("cli-trigger");
    let before = cluster.object();
    let mut values = Vec::new();
    for _ in 0..2 {
        assert_eq!(cluster.trigger(&["q"]), (0, "q: run requested\n".to_owned(), String::new()));
        values.push(cluster.requested().expect("a value"));
    }
    assert_ne!(values[0], values[1]);
    let after = cluster.object();
    assert_eq!((&after["spec"], &after["metadata"]["generation"]), (&before["spec"], &before["metadata"]["generation"]));
    // The right to patch is enough.
    let requests: Vec<String> = cluster.server.requests().iter().map(|entry| entry.request.method.clone()).collect();
    assert_eq!(requests, ["PATCH", "PATCH"]);
    for (entry, value) in cluster.server.mutations().iter().zip(&values) {
        let body: Value = serde_json::from_slice(&entry.request.body).expect("JSON");
        assert_eq!(body, json!({"metadata": {"annotations": {REQUESTED: value}}}));
    }
}

#[test]
fn a_given_value_asks_once() {
    let cluster = Cluster::new("cli-request");
    assert_eq!(cluster.trigger(&["q", "--request", "mine"]).1, "q: run requested\n");
    assert_eq!(cluster.requested().as_deref(), Some("mine"));
    cluster.settle(4, "mine", &json!({"outcome": "Failed", "reason": "R", "message": "m"}));
    assert_eq!(cluster.trigger(&["q", "--request=mine"]), (0, "q: this request was already served\n".to_owned(), String::new()));
    let (code, out, _) = cluster.trigger(&["q", "--request=mine", "--wait"]);
    assert_eq!((code, out.as_str()), (1, "q: run 4 Failed (Job q-4, 12 s): R: m\n"));
}

#[test]
fn a_suspended_quarksjob_is_told_of() {
    let cluster = Cluster::new("cli-suspended");
    let ready = json!([{"type": "Ready", "status": "True", "reason": "Suspended", "message": "spec.suspend is set"}]);
    cluster.server.api().patch(&(path("quarksjobs", NAMESPACE, "q") + "/status"), &json!({"status": {"conditions": ready}}));
    let expected = "q: no run starts now: Suspended: spec.suspend is set\n".to_owned();
    assert_eq!(cluster.trigger(&["q"]), (0, "q: run requested\n".to_owned(), expected.clone()));
    let child = cluster.start(&["q", "--wait", "--request", "mine"]);
    wait_for("the request", || (cluster.requested()? == "mine").then_some(()));
    cluster.settle(1, "mine", &json!({"outcome": "Succeeded"}));
    assert_eq!(ended(child), (0, "q: run 1 Succeeded (Job q-1, 12 s)\n".to_owned(), expected));
}

#[test]
fn wait_prints_the_outcome_and_exits_with_it() {
    let outputs =
        json!([{"secret": "a", "container": "main", "file": "f"}, {"secret": "b-v2", "container": "main", "file": "g", "version": 2}]);
    for (last, code, expected) in [
        (json!({"outcome": "Succeeded", "outputs": outputs}), 0, "q: run 1 Succeeded (Job q-1, 12 s)\nq: stored a, b-v2\n"),
        (json!({"outcome": "Failed", "reason": "R", "message": "two\nlines"}), 1, "q: run 1 Failed (Job q-1, 12 s): R: two lines\n"),
        (json!({"outcome": "Cancelled", "reason": "R", "message": "m"}), 1, "q: run 1 Cancelled (Job q-1, 12 s): R: m\n"),
        (json!({"outcome": "Unknown", "reason": "R", "message": "m"}), 1, "q: run 1 Unknown (Job q-1, 12 s): R: m\n"),
    ] {
        let cluster = Cluster::new(&format!("cli-wait-{}", last["outcome"].as_str().expect("text").to_lowercase()));
        let child = cluster.start(&["q", "--wait"]);
        cluster.settle(1, &cluster.wait_requested(), &last);
        assert_eq!(ended(child), (code, expected.to_owned(), String::new()));
    }
}

#[test]
fn wait_with_the_operator() {
    for (name, fails) in [("cli-operator", false), ("cli-operator-fails", true)] {
        let scene = Scene::new(name);
        let finish = move |api: &crate::support::Api, job: &Value| {
            let end = if fails { play::End::Failed { reason: "BackoffLimitExceeded" } } else { play::End::Complete };
            play::finish_job(api, NAMESPACE, job["metadata"]["name"].as_str().expect("a name"), end);
        };
        let _jobs = play::auto(scene.server.api(), finish);
        scene.create("q", "manual", |_| {});
        scene.operator.start();
        for run in 1..=2 {
            let kubeconfig = scene.server.kubeconfig(scene.folder.path());
            let (code, out, err) = call(&["trigger", "q", "-n", NAMESPACE, "--wait", "-c", kubeconfig.to_str().expect("UTF-8")]);
            let outcome = if fails { "Failed" } else { "Succeeded" };
            assert_eq!((code, out.lines().count()), (i32::from(fails), 1), "{out} {err}");
            assert!(out.starts_with(&format!("q: run {run} {outcome} (Job q-")), "{out}");
            assert_eq!(scene.quarks_job("q")["spec"]["trigger"]["strategy"], "manual");
        }
        assert_eq!(scene.created().len(), 2, "{name}: the Job and the one that was asked for");
    }
}

#[test]
fn a_wait_that_takes_too_long_says_so_with_a_code_of_its_own() {
    let cluster = Cluster::new("cli-timeout");
    let result = cluster.trigger(&["q", "--wait", "--timeout", "1s"]);
    one_line(&result, 3, "q: timed out after 1 s; the request remains in effect");
    assert!(cluster.requested().is_some(), "nothing was asked for");
    // The watch shows nothing, so nothing is requested.
    let cluster = Cluster::new("cli-timeout-early");
    cluster.server.fault(When::request("GET", "/quarksjobs").nth(2).every(), Fault::status(500, "InternalError", "later", None));
    one_line(&cluster.trigger(&["q", "--wait", "--timeout", "1s"]), 3, "q: timed out after 1 s; no run was requested");
    assert_eq!(cluster.requested(), None);
}

#[test]
fn a_wait_that_is_interrupted_ends() {
    let cluster = Cluster::new("cli-interrupted");
    let child = cluster.start(&["q", "--wait"]);
    cluster.wait_requested();
    let sent = Command::new("/bin/kill").args(["-s", "TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success(), "kill(1) failed");
    one_line(&ended(child), 1, "q: interrupted; the request remains");
}

#[test]
fn a_quarksjob_that_goes_while_it_is_waited_for_is_a_failure() {
    for is_made_anew in [false, true] {
        let cluster = Cluster::new(&format!("cli-deleted-{is_made_anew}"));
        let child = cluster.start(&["q", "--wait"]);
        cluster.wait_requested();
        cluster.server.api().delete(&path("quarksjobs", NAMESPACE, "q"), "Background");
        if is_made_anew {
            cluster.server.api().create(&path("quarksjobs", NAMESPACE, ""), play::quarks_job("q", "manual"));
        }
        one_line(&ended(child), 1, "q: request not served: it was deleted");
    }
}

#[test]
fn a_request_that_is_set_over_ours_serves_both() {
    let cluster = Cluster::new("cli-overwritten");
    let child = cluster.start(&["q", "--wait"]);
    cluster.wait_requested();
    cluster.patch(&json!({"metadata": {"annotations": {REQUESTED: "theirs"}}}));
    cluster.settle(3, "theirs", &json!({"outcome": "Succeeded"}));
    let (code, out, err) = ended(child);
    assert_eq!((code, out.as_str()), (0, "q: run 3 Succeeded (Job q-3, 12 s)\n"), "{err}");
    assert_eq!(err, "q: another request replaced this one; its run serves both\n");
}

#[test]
fn a_request_that_is_taken_back_is_a_failure() {
    let cluster = Cluster::new("cli-withdrawn");
    let child = cluster.start(&["q", "--wait"]);
    cluster.wait_requested();
    cluster.patch(&json!({"metadata": {"annotations": {REQUESTED: null}}}));
    one_line(&ended(child), 1, "q: request not served: the request was withdrawn");
}

#[test]
fn refusals_are_explained() {
    let cluster = Cluster::new("cli-refused");
    for wait in [&[][..], &["--wait"]] {
        one_line(&cluster.trigger(&[&["absent"], wait].concat()), 1, "QuarksJob absent not found in namespace team");
    }
    let no_kind = || Fault::status(404, "NotFound", "the server could not find the requested resource", None);
    let no_right = || Fault::status(403, "Forbidden", "quarksjobs is forbidden", None);
    for (when, fault, wait, expected) in [
        (When::request("PATCH", "/quarksjobs/q"), no_right(), false, "patch quarksjobs: 403 Forbidden: quarksjobs is forbidden"),
        (When::request("PATCH", "/quarksjobs/q"), no_right(), true, "patch quarksjobs: 403 Forbidden: quarksjobs is forbidden"),
        (When::request("GET", "/quarksjobs"), no_right(), true, "list quarksjobs: 403 Forbidden: quarksjobs is forbidden"),
        (
            When::watch("/quarksjobs").every(),
            no_right(),
            true,
            "cannot watch quarksjobs (denied); --wait requires the rights list and watch",
        ),
        (When::request("PATCH", "/quarksjobs/q"), no_kind(), false, "is the CRD missing?"),
        (When::request("GET", "/quarksjobs"), no_kind(), true, "is the CRD missing?"),
        (When::request("PATCH", "/quarksjobs/q").every(), Fault::text(404, "404 page not found"), false, "is the CRD missing?"),
        (When::request("PATCH", "/quarksjobs/q"), Fault::status(401, "Unauthorized", "Unauthorized", None), false, "401 Unauthorized"),
        (When::request("PATCH", "/quarksjobs/q").every(), Fault::Reset, false, "patch quarksjobs: "),
        (When::request("PATCH", "/quarksjobs/q").every(), Fault::status(500, "InternalError", "no", None), false, "500 InternalError: no"),
    ] {
        cluster.server.fault(when, fault);
        one_line(&cluster.trigger(if wait { &["q", "--wait"] } else { &["q"] }), 1, expected);
        cluster.server.clear_faults();
    }
    cluster.server.set_down(true);
    one_line(&cluster.trigger(&["q"]), 1, "patch quarksjobs: ");
}

#[test]
fn a_lost_answer_makes_no_second_request() {
    let cluster = Cluster::new("cli-lost");
    let rule = cluster.server.fault(When::request("PATCH", "/quarksjobs/q"), Fault::LoseReply);
    let busy = cluster.server.fault(When::request("PATCH", "/quarksjobs/q"), Fault::status(429, "TooManyRequests", "later", Some("1")));
    assert_eq!(cluster.trigger(&["q"]), (0, "q: run requested\n".to_owned(), String::new()));
    assert_eq!((rule.hits(), busy.hits()), (1, 1));
    let bodies: Vec<Vec<u8>> = cluster.server.mutations().into_iter().map(|entry| entry.request.body).collect();
    assert!(bodies.len() == 3 && bodies.iter().all(|body| *body == bodies[0]), "the same value each time");
}

#[test]
fn in_a_pod_the_account_and_its_namespace_are_used() {
    let cluster = Cluster::new("cli-in-cluster");
    let account = cluster.folder.path().join("account");
    tls::write_service_account(&account, cluster.server.ca_pem(), OPERATOR_TOKEN, NAMESPACE);
    let address = cluster.server.address();
    let child = program()
        .args(["trigger", "q"])
        .env("KUBERNETES_SERVICE_HOST", address.ip().to_string())
        .env("KUBERNETES_SERVICE_PORT", address.port().to_string())
        .env("SERVICE_ACCOUNT_DIR", &account)
        .spawn()
        .expect("it starts");
    assert_eq!(ended(child), (0, "q: run requested\n".to_owned(), String::new()));
}

#[test]
fn called_as_kubectl_qjob_it_is_a_plugin() {
    let cluster = Cluster::new("cli-plugin");
    let link = cluster.folder.path().join("kubectl-qjob");
    symlink(binary(), &link).expect("a link");
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&link);
        command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ended(command.env("KUBECONFIG", &cluster.kubeconfig).spawn().expect("it starts"))
    };
    let (code, out, err) = call(&[]);
    assert!(code == 0 && out.contains("kubectl qjob trigger NAME") && err.is_empty(), "help, and no operator: {out} {err}");
    assert!(call(&["trigger", "--help"]).1.starts_with("Usage: kubectl qjob trigger NAME [flags]"));
    assert_eq!(call(&["trigger", "q", "-n", NAMESPACE]), (0, "q: run requested\n".to_owned(), String::new()));
    for (arguments, code, expected) in [
        (&["trigger", "absent", "-n", NAMESPACE][..], 1, "kubectl-qjob: QuarksJob absent not found in namespace team\n"),
        (&["trigger"], 2, "kubectl-qjob: the NAME of a QuarksJob is required (see kubectl qjob trigger --help)\n"),
        (&["-n", NAMESPACE, "trigger", "q"], 2, "kubectl-qjob: flags must follow the command (see kubectl qjob --help)\n"),
    ] {
        assert_eq!(call(arguments), (code, String::new(), expected.to_owned()));
    }
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for (arguments, expected) in [
        (&["trigger"][..], "the NAME of a QuarksJob is required (see quarks-job trigger --help)"),
        (&["trigger", "a", "b"], "unexpected argument \"b\""),
        (&["trigger", "A/b"], "\"A/b\" is not a valid QuarksJob name"),
        (&["trigger", "a\nb"], "is not a valid"),
        (&["trigger", "a", "--timeout", "5"], "--timeout: \"5\" is not a valid duration; use for example 90s"),
        (&["trigger", "a", "--timeout", "5s"], "--timeout requires --wait"),
        (&["trigger", "a", "--wait=maybe"], "--wait: \"maybe\" is not a valid boolean; use true or false"),
        (&["trigger", "a", "--request", ""], "--request: must be 1 to 1024 bytes"),
        (&["trigger", "a", "--wiat"], "--wiat"),
        (&["trigger", "a", "-n"], "-n"),
        (&["trigger", "a", "-n", "a/b"], "--namespace: \"a/b\" is not a valid namespace name; use at most 63 lowercase letters"),
        (&["render", "-f", "x", "-n", ""], "--namespace: \"\" is not a valid namespace name"),
        (&["render"], "-f FILE is required (see quarks-job render --help)"),
        (&["render", "-f", "x", "--docker-image-pull-policy", "x"], "is not a valid pull policy"),
        (&["render", "-f", "x", "--sidecar-user=me"], "--sidecar-user: \"me\" is not a valid user; use auto, none, UID or UID:GID"),
        (
            &["--sidecar-resources=cpu=1"],
            "--sidecar-resources: \"cpu=1\" is not a valid resource; use KIND=REQUEST:LIMIT, for example cpu=5m:100m or memory=8Mi:32Mi",
        ),
        (&["--output-size-limit=big"], "--output-size-limit: \"big\" is not a valid size"),
        (&["--output-size-limit=100m"], "--output-size-limit: \"100m\" is not a valid size; use a whole number of bytes"),
        (&["--sidecar-resources=cpu=1:,cpu=2:"], "--sidecar-resources: \"cpu=2:\" repeats a resource"),
        (
            &["--http-listen", "foo"],
            "--http-listen: \"foo\" is not a valid address; use HOST:PORT, [IPv6]:PORT or :PORT, for example :8080",
        ),
        (&["--output-medium=disk"], "--output-medium: \"disk\" is not a valid medium; use Memory"),
        (&["convert", "-f", "x", "--output-from", "x"], "is not a valid source"),
        (&["crd", "--all"], "--all"),
        (&["version", "x"], "unexpected argument"),
        (&["--version", "x"], "unexpected argument"),
        (&["help", "triger"], "did you mean trigger?"),
        (&["help", "crd", "x"], "unexpected argument"),
        (&["persist-output", "--all"], "--all' (see quarks-job persist-output --help)"),
        (&["persist-output", "x"], "unexpected argument"),
        (&["triger"], "did you mean trigger?"),
        (&["bogus"], "is not a command; commands: trigger, render, convert, crd, version, persist-output"),
        (&["bo\ngus\u{1b}[1m"], "is not a command"),
    ] {
        one_line(&call(arguments), 2, expected);
    }
    for arguments in [
        &["trigger", "--help"][..],
        &["render", "-h"],
        &["convert", "--help"],
        &["crd", "-h"],
        &["version", "--help"],
        &["persist-output", "--help"],
        &["persist-output", "-h"],
        &["help", "persist-output"],
        &["help", "trigger"],
        &["--help"],
        &["help"],
    ] {
        let (code, out, err) = call(arguments);
        assert!(code == 0 && out.contains("Usage: quarks-job") && err.is_empty() && !out.contains("{me}"), "{arguments:?}: {out} {err}");
    }
    assert_eq!(call(&["version"]), call(&["--version"]));
    assert_eq!(call(&["crd"]).1, fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/crd.yaml")).expect("readable"));
}

/// A kubeconfig whose user is asked of a plugin.
fn with_plugin(cluster: &Cluster, script: &str, fields: Value) -> PathBuf {
    let plugin = cluster.folder.path().join("plugin");
    make_program(&plugin, format!("#!/bin/sh\n{script}\n").as_bytes());
    let mut config: Value = serde_json::from_slice(&fs::read(&cluster.kubeconfig).expect("readable")).expect("JSON");
    // Relative: it stands beside the kubeconfig.
    let mut exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "Never"});
    for (key, value) in fields.as_object().expect("a map") {
        exec[key] = value.clone();
    }
    config["users"][0]["user"] = json!({"exec": exec});
    let path = cluster.folder.path().join("kubeconfig-plugin");
    fs::write(&path, config.to_string()).expect("written");
    path
}

fn credential(token: &str) -> String {
    let object = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}});
    format!("echo '{object}'")
}

#[test]
fn a_credential_plugin_is_asked_and_asked_again_when_its_token_is_refused() {
    let cluster = Cluster::new("cli-exec");
    let count = cluster.folder.path().join("count");
    let counted = format!("echo x >> {}", count.display());
    let runs = || fs::read_to_string(&count).map(|text| text.lines().count()).unwrap_or_default();
    let call = |script: String, fields: Value| {
        let _ = fs::remove_file(&count);
        let kubeconfig = with_plugin(&cluster, &script, fields);
        call(&["trigger", "q", "-n", NAMESPACE, "-c", kubeconfig.to_str().expect("UTF-8")])
    };
    let good = (0, "q: run requested\n".to_owned(), String::new());
    assert_eq!(call(format!("{counted}; {}", credential(OPERATOR_TOKEN)), json!({})), good);
    assert_eq!(runs(), 1);
    let script = format!(
        "{counted}; if [ $(wc -l < {}) = 1 ]; then {}; else {}; fi",
        count.display(),
        credential(CANARY),
        credential(OPERATOR_TOKEN)
    );
    assert_eq!(call(script, json!({})), good);
    assert_eq!(runs(), 2);
    one_line(&call(format!("{counted}; {}", credential(CANARY)), json!({})), 1, "patch quarksjobs: 401 Unauthorized");
    assert_eq!(runs(), 2, "asked again once");
    let told = r#"case $KUBERNETES_EXEC_INFO in *certificate-authority-data*'"server":"https://'*) ;; *) exit 9 ;; esac; test "$1 $A" = "b c" || exit 8; "#;
    let fields = json!({"provideClusterInfo": true, "args": ["b"], "env": [{"name": "A", "value": "c"}]});
    assert_eq!(call(format!("PATH=/bin:/usr/bin; {told}{}", credential(OPERATOR_TOKEN)), fields), good);
}

#[test]
fn a_credential_plugin_that_fails_is_one_line() {
    let cluster = Cluster::new("cli-exec-bad");
    for (script, fields, arguments, expected) in [
        (
            format!("echo 'no login {CANARY}{CANARY}{CANARY}' >&2; exit 1"),
            json!({}),
            &[][..],
            "plugin: failed, exit status: 1: no login (hidden)",
        ),
        ("exec sleep 1000".to_owned(), json!({}), &["--wait", "--timeout=1s"], "plugin: no answer in 1 s"),
        (format!("echo {CANARY}"), json!({}), &[], "plugin: did not print valid JSON"),
        (format!("exec yes {CANARY}"), json!({}), &[], "plugin: printed more than"),
        (credential(""), json!({}), &[], "neither a token nor a certificate"),
        (
            String::new(),
            json!({"command": "quarks-job-no-such-plugin", "installHint": "get it\nthere"}),
            &[],
            "quarks-job-no-such-plugin: not found (get it there)",
        ),
        (String::new(), json!({"command": "/etc/passwd"}), &[], "/etc/passwd: Permission denied"),
        (String::new(), json!({"interactiveMode": "Always"}), &[], "exec.interactiveMode: Always requires a terminal"),
        (String::new(), json!({"apiVersion": "client.authentication.k8s.io/v1alpha1"}), &[], "exec.apiVersion: is not a supported version"),
    ] {
        let kubeconfig = with_plugin(&cluster, &script, fields);
        let kubeconfig = kubeconfig.to_str().expect("UTF-8");
        let result = ended(
            program()
                .env("PATH", "/bin:/usr/bin")
                .args([&["trigger", "q", "-c", kubeconfig], arguments].concat())
                .spawn()
                .expect("it starts"),
        );
        one_line(&result, 1, expected);
        assert!(result.2.contains(&format!("{kubeconfig}: user test: exec")), "place and field: {}", result.2);
    }
    assert!(
        cluster.server.requests().is_empty(),
        "it asked the API server: {:?}",
        cluster.server.requests().iter().map(|entry| &entry.request.target).collect::<Vec<_>>()
    );
}

#[test]
fn a_kubeconfig_that_is_no_good_is_one_line() {
    let folder = Folder::new("cli-kubeconfig");
    let place = folder.path().join("config");
    let user = |user: &str| {
        format!(
            "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}}}]\nusers: [{{name: u, user: {user}}}]\n"
        )
    };
    for (content, expected) in [
        (String::new(), "config: current-context: not set (use --context NAME)"),
        (CANARY.to_owned(), "not a valid kubeconfig: must be a mapping"),
        (format!("users: [{CANARY}"), "not a valid kubeconfig: line "),
        (user(&format!("{{token: [{CANARY}]}}")), "user u: token: must be a string"),
        (user(&format!("{{token: 'a\n\n{CANARY}'}}")), "user u: token: contains characters"),
        (user(&format!("{{client-certificate-data: {CANARY}}}")), "user u: client-certificate-data: not valid base64"),
        (user(&format!("{{tokenFile: {}}}", folder.path().join("absent").display())), "absent: token: "),
        (user(&format!("{{auth-provider: {{name: {CANARY}}}}}")), "user u: auth-provider: not supported"),
        (user("{client-certificate-data: QQ==, client-key-data: QQ==}"), "user u: client-certificate: contains no PEM certificate"),
    ] {
        fs::write(&place, content).expect("written");
        one_line(&call(&["trigger", "q", "-c", place.to_str().expect("UTF-8")]), 1, expected);
    }
    one_line(&call(&["trigger", "q", "-c", "/nonexistent"]), 1, "/nonexistent: no such file (use --kubeconfig FILE");
    one_line(&call(&["trigger", "q"]), 1, "kubeconfig: none given, not in a cluster, and HOME is not set");
}

fn feed(command: &str, input: &[u8]) -> Ended {
    let script = format!("ulimit -v {MEMORY_KIB}; exec \"$0\" {command} -f -");
    let mut child = Command::new("/bin/sh")
        .args(["-c", &script, &binary()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (mut pipe, input) = (child.stdin.take().expect("piped"), input.to_vec());
    let writer = thread::spawn(move || {
        use std::io::Write as _;
        // It may have seen enough.
        let _ = pipe.write_all(&input);
    });
    let result = ended(child);
    writer.join().expect("it writes");
    result
}

#[test]
fn hostile_files_are_one_line() {
    let head = "apiVersion: quarks.cloudfoundry.org/v1alpha1\nkind: QuarksJob\nmetadata: {name: q}\n";
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let item = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [item.as_str(); 9].join(", ")));
    }
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), ": no "),
        ("text", CANARY.into(), "not a Kubernetes object"),
        ("a list", format!("[{CANARY}]").into(), "not a Kubernetes object"),
        ("not closed", format!("{head}spec: [{CANARY}").into(), "line "),
        ("a tab", format!("{head}spec:\n\ttrigger: {CANARY}\n").into(), "line "),
        ("a key twice", format!("{head}spec: {{trigger: {CANARY}, trigger: {CANARY}}}\n").into(), "duplicate key trigger"),
        ("not UTF-8", [head.as_bytes(), &[0xff, 0xfe]].concat(), "not valid UTF-8"),
        ("binary", (0..=255_u8).cycle().take(100_000).collect(), "standard input: "),
        ("NUL", format!("{head}spec: \u{0}{CANARY}").into(), "line "),
        ("a bomb of aliases", format!("{bomb}{head}").into(), "limit"),
        ("a large alias", format!("a: &a {}\nb: [{}]\n", "x".repeat(1_000_000), "*a, ".repeat(5_000)).into(), "too large with its aliases"),
        ("deep in brackets", "[".repeat(1_400_000).into(), "open brackets"),
        ("deep by dashes", "- ".repeat(700_000).into(), "recursion limit"),
        ("deep by question marks", "? ".repeat(700_000).into(), "line "),
        ("deep by indents", (0..1_500).map(|at| format!("{}a:\n", " ".repeat(at))).collect::<String>().into(), "recursion limit"),
        ("many elements", format!("{head}spec: [{}]", "a,".repeat(700_000)).into(), "spec.trigger.strategy"),
        ("a large document", format!("{head}spec: {}", "x".repeat(2_000_000)).into(), "larger than 1500000 bytes"),
        ("a large file", "a: b\n---\n".repeat(2_000_000).into(), "larger than 8 MiB"),
        ("a tag", format!("{head}spec: !{CANARY} x").into(), "line "),
        ("an unknown anchor", format!("{head}spec: *{CANARY}").into(), "unknown anchor"),
        ("no name", head.replace("name: q", "").into(), "metadata.name"),
        ("a bad name", head.replace("name: q", &format!("name: 'Q {CANARY}'")).replace(CANARY, "x").into(), "metadata.name"),
        ("an empty spec", head.into(), "spec"),
        ("a text as spec", format!("{head}spec: {CANARY}").into(), "spec"),
        ("numbers as metadata", head.replace("{name: q}", "17").into(), "metadata.name"),
    ];
    for (what, input, expected) in &cases {
        let result = feed("render", input);
        assert!(!result.2.contains("memory allocation"), "{what}: {}", result.2);
        one_line(&result, 1, expected);
        let text = String::from_utf8_lossy(input).replace("kind: QuarksJob", "kind: ExtendedJob");
        let input = if std::str::from_utf8(input).is_ok() { text.as_bytes() } else { input };
        // The same, but what the spec has to say is another thing.
        one_line(&feed("convert", input), 1, if expected.starts_with("spec") { "" } else { expected });
    }
    for file in ["/nonexistent", "/", "/dev/zero"] {
        one_line(&call(&["render", "-f", file]), 1, &format!("{file}: "));
    }
}

#[test]
fn all_examples_render_and_what_is_no_quarksjob_is_passed_over() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/examples"));
    for file in fs::read_dir(folder).expect("a folder") {
        let path = file.expect("readable").path();
        let (code, out, err) = call(&["render", "-f", path.to_str().expect("UTF-8"), "-n", "team", "--image=i:1"]);
        assert_eq!(code, 0, "{err}");
        assert!(out.starts_with("---\napiVersion: batch/v1\nkind: Job\n") && out.contains("\n  namespace: team\n"), "{out}");
        assert!(err.lines().all(|line| line.ends_with(" is not a QuarksJob, skipped")), "{err}");
    }
    let (code, out, err) = feed("render", b"kind: Secret");
    assert!(code == 1 && out.is_empty() && err.ends_with("quarks-job: -: no QuarksJob found\n"), "{err}");
}

#[test]
fn what_the_operator_would_not_run_is_refused_with_its_words() {
    let object = |change: fn(&mut Value)| {
        let mut object = play::quarks_job("q", "once");
        object["apiVersion"] = json!("quarks.cloudfoundry.org/v1alpha1");
        object["kind"] = json!("QuarksJob");
        change(&mut object);
        object.to_string().into_bytes()
    };
    let bad = object(|object| object["spec"]["trigger"]["strategy"] = json!("daily"));
    one_line(
        &feed("render", &bad),
        1,
        "standard input: line 1: QuarksJob q: spec.trigger.strategy: must be manual, once, now or done, not \"daily\"",
    );
    let elsewhere = object(|object| object["metadata"]["namespace"] = json!("other"));
    one_line(&feed("render -n team", &elsewhere), 1, "metadata.namespace is other, but --namespace is team");
    let (code, out, err) = feed("render", &object(|object| object["spec"]["template"]["backoffLimit"] = json!(2)));
    assert!(code == 0 && out.contains("kind: Job") && err.contains("spec.template: ignored fields: backoffLimit"), "{err}");
    // A list as kubectl prints it, and several documents.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [serde_json::from_slice::<Value>(&elsewhere).expect("JSON"), {"kind": "Secret", "metadata": {"name": "s"}}]});
    let several = [list.to_string().into_bytes(), b"\n---\n# nothing\n---\n".to_vec(), object(|_| {})].concat();
    let (code, out, err) = feed("render", &several);
    assert_eq!(
        (code, out.matches("kind: Job\n").count(), err.as_str()),
        (0, 2, "standard input: line 1: Secret s is not a QuarksJob, skipped\n")
    );
    assert!(out.contains("\n  namespace: other\n") && out.contains("\n  namespace: default\n"), "{out}");
}

#[test]
fn a_converted_extendedjob_renders() {
    let old = "# old\napiVersion: fissile.cloudfoundry.org/v1alpha1\nkind: ExtendedJob\nmetadata: {name: myfoo, uid: u}\nspec:\n  trigger: {strategy: once}\n  \
               output: {namePrefix: foo-, secretLabels: {key: value}}\n  template:\n    spec:\n      restartPolicy: Never\n      volumes: [{name: a, secret: \
               {secretName: x, defaultMode: 0400}}]\n      containers: [{name: json, image: busybox, args: [-c, \"echo $json >> /mnt/quarks/output.json\"]}]\n---\n\
               # kept\nkind: Secret\nmetadata: {name: s}\ndata: {mode: 0400}";
    let (code, new, err) = feed("convert", old.as_bytes());
    assert_eq!(code, 0, "{err}");
    assert!(
        new.starts_with("---\napiVersion: quarks.cloudfoundry.org/v1alpha1\nkind: QuarksJob\nmetadata:\n  name: myfoo\nspec:\n"),
        "{new}"
    );
    assert!(new.contains("name: foo-json") && new.contains("defaultMode: 256\n") && new.contains("backoffLimit: 2\n"), "{new}");
    assert!(new.ends_with("\n---\n# kept\nkind: Secret\nmetadata: {name: s}\ndata: {mode: 0400}\n"), "as it was: {new}");
    for remark in ["pod template", "--output-from log", "comments are not kept"] {
        assert!(err.contains(remark), "{remark}: {err}");
    }
    assert!(!err.contains("Secret"), "{err}");
    let (code, job, err) = feed("render", new.as_bytes());
    assert!(code == 0 && err.ends_with("Secret s is not a QuarksJob, skipped\n") && job.contains("output-persist"), "{err}");
    let (code, only, err) = feed("convert --only", old.as_bytes());
    assert!(code == 0 && err.contains("Secret s is not an ExtendedJob, skipped"), "{err}");
    assert_eq!(new.strip_prefix(&only), Some("---\n# kept\nkind: Secret\nmetadata: {name: s}\ndata: {mode: 0400}\n"));
    // The order of the file, what is in a list, and what begins or ends in its own way.
    let first = old.split("---\n").next().expect("a document");
    let list = json!({"kind": "List", "items": [{"kind": "ConfigMap", "data": {"a": "0400"}}]});
    let mixed = format!("--- {{kind: A}}\n---\r\n{{\"kind\": \"B\"}}\n...\n---\n{list}\n---\n{first}---\nkind: C");
    let (code, out, err) = feed("convert", mixed.as_bytes());
    assert_eq!(code, 0, "{err}");
    let kinds: Vec<&str> =
        out.split("---").skip(1).map(|document| document.trim().split([',', '\n', '\r']).next().unwrap_or_default()).collect();
    assert_eq!(kinds, ["{kind: A}", "{\"kind\": \"B\"}", "data:", "apiVersion: quarks.cloudfoundry.org/v1alpha1", "kind: C"], "{out}");
    assert!(out.contains("a: \"0400\"\n") && out.ends_with("kind: C\n"), "{out}");
    // A list of one kind, whose items need not say it; others are passed on whole, whatever their kind ends in.
    let mut item: Value = serde_yaml::from_str(first).expect("YAML");
    item.as_object_mut().expect("an object").retain(|field, _| field != "kind" && field != "apiVersion");
    let typed = json!({"apiVersion": "fissile.cloudfoundry.org/v1alpha1", "kind": "ExtendedJobList", "items": [item]});
    let others = "kind: ConfigMapList\nitems: [{metadata: {name: a}}]\n---\nkind: AllowList\nitems: [{cidr: 10.0.0.0/8}]\n";
    let (code, out, err) = feed("convert", format!("{typed}\n---\n{others}").as_bytes());
    assert!(code == 0 && out.contains("kind: QuarksJob\n") && out.ends_with(&format!("---\n{others}")), "{err}: {out}");
    let podstate = old.replace("strategy: once", "strategy: podstate, podstate: {when: ready}").replace("kind: Secret", "");
    let result = feed("convert", podstate.split("---").next().expect("a document").as_bytes());
    one_line(&result, 1, "ExtendedJob myfoo: triggers by the state of other pods");
}
