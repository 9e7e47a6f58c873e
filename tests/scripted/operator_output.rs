//! The real operator and runs with output, against the scripted API server: the sidecar's credential, and the verdict
//! from the sidecars' reports. The test plays Job controller, kubelet and sidecar.

use serde_json::{Value, json};

use crate::support::operator::binary;
use crate::support::play::{self, End, path};
use crate::support::scene::Folder;
use crate::support::{Command, Fault, Gate, Operator, Request, Server, When};

const NAMESPACE: &str = "team";
const TOKEN: &str = "quarks-job-sidecar-token";
const STORED: &str = r#"{"secrets":[{"name":"result","container":"main","file":"output.json"}],"errors":[],"stored":true}"#;
const INVALID: &str = r#"{"secrets":[],"errors":[{"reason":"OutputInvalid","container":"main","file":"output.json","message":"key \"k\" is a number"}],"stored":false}"#;

struct Scene {
    server: Server,
    operator: Operator,
    _folder: Folder,
}

impl Scene {
    fn new(name: &str) -> Scene {
        Scene::with(name, &[])
    }

    fn with(name: &str, flags: &[&str]) -> Scene {
        let folder = Folder::new(name);
        let server = Server::start();
        play::monitored_namespace(server.api(), NAMESPACE);
        let operator = Operator::new(binary()).kubeconfig(&server.kubeconfig(folder.path())).arg("--log-level=debug").arg("--image=i:1");
        let operator = flags.iter().fold(operator, |operator, flag| operator.arg(*flag));
        Scene { server, operator, _folder: folder }
    }

    fn create(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = play::quarks_job(name, "now");
        object["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": "result"}}}});
        change(&mut object);
        self.server.api().create(&path("quarksjobs", NAMESPACE, ""), object);
    }

    fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.server.api().get(&path(plural, NAMESPACE, name))
    }

    fn wait_job(&self) -> String {
        self.operator.wait_for("the Job", || {
            let jobs = self.server.api().list(&path("jobs", NAMESPACE, ""));
            Some(jobs.first()?["metadata"]["name"].as_str()?.to_owned())
        })
    }

    /// One run whose pods end like this; the QuarksJob's status afterwards.
    fn run(&self, name: &str, end: End<'_>, pods: &[(i32, &str)]) -> Value {
        self.create(name, |_| {});
        self.operator.start();
        let job = self.wait_job();
        for (code, report) in pods {
            play::create_pod_for_job(self.server.api(), NAMESPACE, &job, &[("main", *code, ""), ("output-persist", 0, report)]);
        }
        play::finish_job(self.server.api(), NAMESPACE, &job, end);
        self.operator.wait_for("the end in status", || {
            let status = self.get("quarksjobs", name)?["status"].clone();
            (status["lastRun"]["run"] == 1).then_some(status)
        })
    }
}

fn reason(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["reason"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn stored_output_is_a_success_and_named_in_status() {
    let scene = Scene::new("stored");
    let status = scene.run("q", End::Complete, &[(0, STORED)]);
    assert_eq!(status["lastRun"]["outcome"], "Succeeded", "{}", scene.operator.log());
    assert_eq!(status["lastRun"]["outputs"], json!([{"secret": "result", "container": "main", "file": "output.json"}]));
    scene.operator.wait_for("the Job's cleanup", || scene.server.api().list(&path("jobs", NAMESPACE, "")).is_empty().then_some(()));
    let pods = scene.server.api().list(&path("pods", NAMESPACE, ""));
    let owners = pods[0]["metadata"]["ownerReferences"].as_array().expect("owners");
    assert_eq!((pods.len(), owners.len(), &owners[0]["kind"]), (1, 1, &json!("QuarksJob")), "the pod stays for its log: {pods:?}");
}

#[test]
fn a_bad_or_missing_report_is_never_a_success_and_keeps_the_job() {
    for (name, pods, outcome, reason) in [
        ("invalid", vec![(0, INVALID)], "Failed", "OutputInvalid"),
        ("garbled", vec![(0, "canary {")], "Unknown", "OutputUnverified"),
        ("empty", vec![(0, "")], "Unknown", "OutputUnverified"),
        ("none", vec![], "Unknown", "OutputUnverified"),
    ] {
        let scene = Scene::new(name);
        let status = scene.run("q", End::Complete, &pods);
        assert_eq!((&status["lastRun"]["outcome"], &status["lastRun"]["reason"]), (&json!(outcome), &json!(reason)), "{name}");
        assert_ne!(status["completed"], true);
        let told = scene.operator.wait_for("the Event", || {
            let bodies: Vec<String> =
                scene.server.mutations().iter().map(|entry| String::from_utf8_lossy(&entry.request.body).into_owned()).collect();
            let is_told = |body: &String| body.contains("\"note\"") && body.contains(&format!("\"reason\":\"{reason}\""));
            bodies.iter().any(is_told).then_some(bodies)
        });
        assert!(
            !scene.operator.log().contains("canary") && !told.iter().any(|body| body.contains("canary")),
            "{name}: a report is not repeated"
        );
        assert_eq!(scene.server.api().list(&path("jobs", NAMESPACE, "")).len(), 1, "{name}: the Job stays");
    }
}

#[test]
fn a_failed_job_names_what_it_wrote_all_the_same() {
    let scene = Scene::new("failed");
    let status = scene.run("q", End::Failed { reason: "BackoffLimitExceeded" }, &[(1, STORED)]);
    assert_eq!((&status["lastRun"]["outcome"], &status["lastRun"]["reason"]), (&json!("Failed"), &json!("BackoffLimitExceeded")));
    assert_eq!(status["lastRun"]["outputs"][0]["secret"], "result");
}

#[test]
fn the_token_is_there_before_the_job_and_gone_after_the_last_run() {
    let scene = Scene::new("token");
    let status = scene.run("q", End::Complete, &[(0, STORED)]);
    assert_eq!(status["lastRun"]["outcome"], "Succeeded");
    let order: Vec<String> =
        scene.server.mutations().iter().map(|entry| format!("{} {}", entry.request.method, entry.request.path)).collect();
    let at = |part: &str| order.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part} in {order:#?}"));
    let (created, issued, stored, job) = (
        at("POST /api/v1/namespaces/team/secrets"),
        at("/token"),
        at(&format!("PATCH /api/v1/namespaces/team/secrets/{TOKEN}")),
        at("/jobs"),
    );
    assert!(created < issued && issued < stored && stored < job, "{order:#?}");
    scene.operator.wait_for("the token's removal", || scene.get("secrets", TOKEN).is_none().then_some(()));
    assert!(!scene.operator.log().contains("issued-token-canary"), "the token stays out of the log");
}

#[test]
fn the_token_is_renewed_while_a_run_goes_on_whatever_the_labels() {
    let scene = Scene::new("renewed");
    scene.server.api().settings(|settings| settings.token_seconds = Some(8));
    scene.create("q", |_| {});
    scene.operator.start();
    scene.wait_job();
    let token = || scene.get("secrets", TOKEN).map(|secret| secret["data"]["token"].clone());
    let first = token().expect("a token");
    let second = scene.operator.wait_for("another token", || token().filter(|now| *now != first));
    let labels =
        json!({"metadata": {"labels": {"quarks.cloudfoundry.org/monitored": null, "quarks.cloudfoundry.org/qjob-service-account": null}}});
    scene.server.api().patch(&path("namespaces", "", NAMESPACE), &labels);
    scene.operator.wait_for("a third token", || token().filter(|now| *now != second));
    // A restarted operator takes the credential of a running Job over.
    scene.server.api().patch(
        &path("namespaces", "", NAMESPACE),
        &json!({"metadata": {"labels": {"quarks.cloudfoundry.org/monitored": "default", "quarks.cloudfoundry.org/qjob-service-account": "sidecar"}}}),
    );
    scene.operator.kill9();
    let before = token().expect("a token");
    scene.operator.start();
    scene.operator.wait_for("a token of the next process", || token().filter(|now| *now != before));
}

#[test]
fn without_a_credential_nothing_starts_and_the_reason_is_said() {
    type Arrange = fn(&Scene);
    let cases: [(&str, Arrange); 3] = [
        ("no-label", |scene| {
            let labels = json!({"metadata": {"labels": {"quarks.cloudfoundry.org/qjob-service-account": null}}});
            scene.server.api().patch(&path("namespaces", "", NAMESPACE), &labels);
        }),
        ("no-account", |scene| scene.server.api().delete(&path("serviceaccounts", NAMESPACE, "sidecar"), "Background")),
        ("foreign-secret", |scene| {
            scene
                .server
                .api()
                .create(&path("secrets", NAMESPACE, ""), json!({"metadata": {"name": TOKEN}, "data": {"token": "Zm9yZWlnbg=="}}));
        }),
    ];
    for (name, arrange) in cases {
        let scene = Scene::new(name);
        arrange(&scene);
        scene.create("q", |_| {});
        scene.operator.start();
        scene
            .operator
            .wait_for("the condition", || (reason(&scene.get("quarksjobs", "q")?["status"], "Ready") == "NamespaceNotReady").then_some(()));
        assert!(scene.server.api().list(&path("jobs", NAMESPACE, "")).is_empty(), "{name}");
        if name == "foreign-secret" {
            assert_eq!(
                scene.get("secrets", TOKEN).expect("still there")["data"],
                json!({"token": "Zm9yZWlnbg=="}),
                "{name}: the Secret of somebody else was changed"
            );
        }
        if name == "no-label" {
            let labels = json!({"metadata": {"labels": {"quarks.cloudfoundry.org/qjob-service-account": "sidecar"}}});
            scene.server.api().patch(&path("namespaces", "", NAMESPACE), &labels);
            scene.wait_job();
        }
    }
}

/// The sidecar's user and resources, and the output volume.
fn what_the_pod_got(scene: &Scene, job: &str) -> [Value; 3] {
    let job = scene.get("jobs", job).expect("the Job");
    let pod = &job["spec"]["template"]["spec"];
    let sidecar = &pod["containers"][1];
    assert_eq!(sidecar["name"], "output-persist");
    [sidecar["securityContext"]["runAsUser"].clone(), sidecar["resources"].clone(), pod["volumes"][0]["emptyDir"].clone()]
}

#[test]
fn where_a_namespace_gives_pods_their_users_the_sidecar_names_none() {
    const RANGE: &str = "openshift.io/sa.scc.uid-range";
    let annotate = |scene: &Scene, value: Value| {
        scene.server.api().patch(&path("namespaces", "", NAMESPACE), &json!({"metadata": {"annotations": {RANGE: value}}}));
    };
    for (flag, within, elsewhere) in
        [("auto", Value::Null, json!(65532)), ("none", Value::Null, Value::Null), ("1000:0", json!(1000), json!(1000))]
    {
        let scene = Scene::with(&format!("user-{}", &flag[..4]), &[&format!("--sidecar-user={flag}")]);
        annotate(&scene, json!("1000690000/10000"));
        scene.create("q", |_| {});
        scene.operator.start();
        let job = scene.wait_job();
        assert_eq!(what_the_pod_got(&scene, &job)[0], within, "{flag}");
        // The watches do not wait for each other, but a process begins with the namespaces.
        scene.operator.kill9();
        annotate(&scene, Value::Null);
        scene.server.api().delete(&path("quarksjobs", NAMESPACE, "q"), "Background");
        scene.server.api().delete(&path("jobs", NAMESPACE, &job), "Background");
        scene.create("r", |_| {});
        scene.operator.start();
        assert_eq!(what_the_pod_got(&scene, &scene.wait_job())[0], elsewhere, "{flag}");
    }
}

#[test]
fn pods_get_the_resources_and_volumes_that_the_operator_was_told() {
    let flags = ["--sidecar-resources=cpu=50m:,memory=16Mi:64Mi", "--output-size-limit=64Mi", "--output-medium=Memory"];
    let scene = Scene::with("told", &flags);
    scene.create("q", |_| {});
    scene.operator.start();
    let resources = json!({"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}});
    let volume = json!({"sizeLimit": "64Mi", "medium": "Memory"});
    assert_eq!(what_the_pod_got(&scene, &scene.wait_job()), [json!(65532), resources, volume]);
}

impl Scene {
    fn token(&self) -> Option<Value> {
        self.get("secrets", TOKEN).filter(|secret| secret["data"]["token"].is_string())
    }

    fn delete_token(&self) {
        self.server.api().delete(&path("secrets", NAMESPACE, TOKEN), "Background");
    }

    fn count(&self, method: &str, part: &str) -> usize {
        self.server.requests().iter().filter(|entry| entry.is(method, part)).count()
    }
}

#[test]
fn a_token_that_is_deleted_by_hand_is_made_anew_while_a_run_goes_on() {
    let scene = Scene::new("deleted");
    scene.create("q", |_| {});
    scene.operator.start();
    scene.wait_job();
    let first = scene.token().expect("a token");
    scene.delete_token();
    let second = scene.operator.wait_for("a token made anew", || scene.token());
    assert_ne!((&first["metadata"]["uid"], &first["data"]), (&second["metadata"]["uid"], &second["data"]));
    assert_eq!(scene.count("POST", "/serviceaccounts/sidecar/token"), 2, "{}", scene.operator.log());
}

#[test]
fn a_secret_of_somebody_else_in_place_of_the_token_is_named_and_waited_for() {
    let scene = Scene::new("replaced");
    scene.create("q", |_| {});
    scene.operator.start();
    scene.wait_job();
    let foreign = json!({"metadata": {"name": TOKEN}, "data": {"token": "Zm9yZWlnbg=="}});
    scene.delete_token();
    scene.server.api().create(&path("secrets", NAMESPACE, ""), foreign);
    let text = format!("Secret {NAMESPACE}/{TOKEN} does not belong to the operator");
    scene.operator.wait_for("a line about it", || scene.operator.log().contains(&text).then_some(()));
    assert_eq!(scene.token().expect("left alone")["data"], json!({"token": "Zm9yZWlnbg=="}));
}

#[test]
fn a_token_that_is_deleted_while_the_operator_is_down_is_made_anew() {
    let scene = Scene::new("deleted-down");
    scene.create("q", |_| {});
    scene.operator.start();
    scene.wait_job();
    scene.token().expect("a token");
    scene.operator.kill9();
    scene.delete_token();
    scene.operator.start();
    scene.operator.wait_for("a token of the next process", || scene.token());
    assert_eq!(scene.count("POST", "/serviceaccounts/sidecar/token"), 2, "{}", scene.operator.log());
}

#[test]
fn a_job_that_a_silent_watch_hides_keeps_its_token() {
    let scene = Scene::new("silent");
    // Known to the watch of QuarksJobs alone.
    scene.operator.start();
    scene.operator.wait_for("the watch of Jobs", || scene.server.watches().iter().any(|watch| watch.ends_with("/jobs")).then_some(()));
    assert_eq!(scene.server.command("/jobs", &Command::Silence), 1);
    scene.create("q", |_| {});
    let job = scene.wait_job();
    let first = scene.token().expect("a token");
    // Looks at it go on long after the token of an unused namespace would be gone.
    let look = format!("/secrets/{TOKEN}");
    scene.operator.wait_for("looks", || {
        assert_eq!(scene.count("DELETE", &look), 0, "its Job runs: {}", scene.operator.log());
        (scene.count("GET", &look) > 7).then_some(())
    });
    assert_eq!((scene.token(), scene.count("DELETE", &look)), (Some(first), 0), "{}", scene.operator.log());
    assert!(scene.get("jobs", &job).is_some(), "the Job is gone");
}

#[test]
fn a_look_that_fails_after_a_restart_is_repeated() {
    let scene = Scene::new("adoption");
    scene.create("q", |_| {});
    scene.operator.start();
    scene.wait_job();
    let first = scene.token().expect("a token");
    scene.operator.kill9();
    let rule = scene.server.fault(When::request("GET", TOKEN).times(2), Fault::status(500, "InternalError", "not now", None));
    scene.operator.start();
    scene.operator.wait_for("another token", || scene.token().filter(|now| now["data"] != first["data"]));
    assert_eq!(rule.hits(), 2);
}

#[test]
fn starts_that_come_together_share_one_token() {
    // One namespace has half of the workers.
    let scene = Scene::with("together", &["--max-workers=6"]);
    let gate = Gate::default();
    scene.server.fault(When::request("POST", "/serviceaccounts/sidecar/token"), Fault::Hold(gate.clone()));
    let names = ["a", "b", "c"];
    for name in names {
        scene.create(name, |_| {});
    }
    scene.operator.start();
    for name in names {
        let step = format!("key={NAMESPACE}/{name} step=Start");
        scene.operator.wait_for(&step, || scene.operator.log().contains(&step).then_some(()));
    }
    scene.operator.wait_for("the request for a token", || (gate.arrived() == 1).then_some(()));
    assert!(scene.server.api().list(&path("jobs", NAMESPACE, "")).is_empty(), "no Job without a token");
    gate.open();
    scene.operator.wait_for("a Job of each", || (scene.server.api().list(&path("jobs", NAMESPACE, "")).len() == names.len()).then_some(()));
    assert_eq!(scene.count("POST", "/serviceaccounts/sidecar/token"), 1, "{}", scene.operator.log());
}

#[test]
fn a_namespace_where_calls_hang_delays_no_other() {
    const OTHER: &str = "other";
    // A call may take longer than this test waits for anything.
    let scene = Scene::with("hangs", &["--ctx-timeout=600"]);
    play::monitored_namespace(scene.server.api(), OTHER);
    scene.create("q", |_| {});
    scene.operator.start();
    scene.wait_job();
    // Nobody answers there from now on; what looks after tokens comes to know it first.
    let hanging = format!("/namespaces/{NAMESPACE}/");
    let is_hanging = move |request: &Request| request.path.contains(&hanging);
    let rule = scene.server.fault(When::matching(is_hanging).every(), Fault::BlackHole);
    scene.operator.wait_for("a call that hangs", || (rule.hits() > 0).then_some(()));
    let token = || scene.server.api().get(&path("secrets", OTHER, TOKEN)).filter(|secret| secret["data"]["token"].is_string());
    let mut object = play::quarks_job("q", "now");
    object["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": "result"}}}});
    scene.server.api().create(&path("quarksjobs", OTHER, ""), object);
    scene.operator.wait_for("the Job", || scene.server.api().list(&path("jobs", OTHER, "")).first().map(drop));
    let first = token().expect("a token");
    scene.server.api().delete(&path("secrets", OTHER, TOKEN), "Background");
    let anew = scene.operator.wait_for("a token made anew", token);
    assert_ne!(anew["metadata"]["uid"], first["metadata"]["uid"]);
    let job = scene.server.api().list(&path("jobs", OTHER, ""))[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    play::create_pod_for_job(scene.server.api(), OTHER, &job, &[("main", 0, ""), ("output-persist", 0, STORED)]);
    play::finish_job(scene.server.api(), OTHER, &job, End::Complete);
    scene.operator.wait_for("the token's removal", || token().is_none().then_some(()));
}
