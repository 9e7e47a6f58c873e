//! Values of output are in the Secrets and nowhere else.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::case::{Case, cluster, decoded, quarks_job, text, until, with_output};

/// What is looked for. The scripts hold it only in another writing, as the specs are not what is tested.
const CANARY: &str = "canary-of-the-output";
const MAKE: &str = "c=$(echo pnanel-bs-gur-bhgchg | tr a-z n-za-m)";

/// The text itself, and the parts of its base64 that do not depend on what stands before and after it.
fn traces() -> Vec<String> {
    let mut traces = vec![CANARY.to_owned()];
    for offset in 0..3 {
        let padded = format!("{}{CANARY}", &"..."[..offset]);
        let encoded = STANDARD.encode(&padded);
        let end = padded.len() / 3 * 4;
        traces.push(encoded[offset.div_ceil(3) * 4..end].to_owned());
    }
    traces
}

fn assert_clean(what: &str, content: &str) {
    for trace in traces() {
        if let Some(line) = content.lines().find(|line| line.contains(&trace)) {
            panic!("{what} holds {trace:?}: {line}");
        }
    }
}

/// The operator and its sidecars say all they can while this is there.
struct Talkative;

impl Talkative {
    fn new() -> Self {
        Self::set("LOG_LEVEL=trace");
        Self
    }

    fn set(variable: &str) {
        cluster(&["--namespace", "quarks-job", "set", "env", "deployment/quarks-job", variable]);
        cluster(&["--namespace", "quarks-job", "rollout", "status", "deployment/quarks-job", "--timeout=120s"]);
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        Self::set("LOG_LEVEL-");
    }
}

fn script(echo: &str) -> String {
    format!("{MAKE}; echo \"{}\" >> /mnt/quarks/output.json", echo.replace('"', "\\\""))
}

/// Name, whether it stores, and the QuarksJob: outputs of each kind, good ones and such with each kind of error.
fn qjobs() -> Vec<(&'static str, bool, Value)> {
    let file = |name: &'static str, stores: bool, content: &str| (name, stores, with_output(name, "once", &script(content), name));
    let mut fan_out = file("fan-out", true, r#"{"a": {"key": "$c"}, "b": {"key": "$c"}}"#);
    fan_out.2["spec"]["output"]["outputMap"]["main"]["output.json"]["persistencemethod"] = json!("fan-out");
    let mut versioned = file("versioned", true, r#"{"key": "$c"}"#);
    versioned.2["spec"]["output"]["versioned"] = json!(true);
    let mut failing = with_output("failing", "once", &format!("{}; exit 3", script(r#"{"key": "$c"}"#)), "failing");
    failing["spec"]["output"]["writeOnFailure"] = json!(true);
    // Only into the log of the container, where whoever may read logs finds it.
    let mut log = quarks_job("log", "once", &format!("{MAKE}; echo \"{{\\\"key\\\": \\\"$c\\\"}}\""));
    log["spec"]["output"] = json!({"namePrefix": "log"});
    vec![
        file("good", true, r#"{"key": "$c", "document": "before $c after"}"#),
        fan_out,
        versioned,
        ("failing", true, failing),
        ("log", true, log),
        file("no-map", false, r#"["$c"]"#),
        file("no-strings", false, r#"{"key": ["$c"]}"#),
        file("nested", false, r#"{"key": {"$c": "$c"}}"#),
        file("no-json", false, r#"{"key": "$c" "$c"}"#),
        file("only-text", false, "$c"),
        file("unfinished", false, r#"{"key": "$c"#),
        file("twice", false, r#"{"key": "$c", "key": "$c"}"#),
        file("trailing", false, r#"{"key": "$c"} $c"#),
        file("taken", false, r#"{"key": "$c"}"#),
    ]
}

#[test]
fn values_are_in_the_secrets_and_nowhere_else() {
    let case = Case::alone("canary");
    let talkative = Talkative::new();
    case.kubectl(&["create", "secret", "generic", "taken", "--from-literal=theirs=1"]);
    let mut qjobs = qjobs();
    for (_, _, qjob) in &mut qjobs {
        // All pods are kept.
        qjob["spec"]["template"]["spec"]["template"]["metadata"] = Value::Null;
    }
    let items: Vec<&Value> = qjobs.iter().map(|(_, _, qjob)| qjob).collect();
    case.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
    for (name, stores, _) in &qjobs {
        let run = case.wait_runs(name, 1);
        let ended = if *name == "failing" { Some(&json!("BackoffLimitExceeded")) } else { None };
        let conflict = *name == "taken";
        assert_eq!(run["outcome"], if *stores && ended.is_none() { "Succeeded" } else { "Failed" }, "{name}: {run}");
        if !stores {
            assert_eq!(run["reason"], if conflict { "OutputConflict" } else { "OutputInvalid" }, "{name}: {run}");
        }
        case.wait(name, "condition=Running=false");
    }

    // Where it shall be.
    let secrets = case.list("secrets", "quarks.cloudfoundry.org/container-name");
    let names: Vec<&str> = secrets.iter().filter_map(|secret| secret["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["failing", "fan-out-a", "fan-out-b", "good", "log-main", "versioned-v1"]);
    for mut secret in secrets {
        assert!(decoded(&secret).values().all(|value| value.contains(CANARY)), "{}", secret["metadata"]["name"]);
        // The search finds it in this writing.
        let encoded = secret["data"].to_string();
        assert!(traces()[1..].iter().any(|trace| encoded.contains(trace)), "{encoded}");
        secret["data"] = Value::Null;
        assert_clean("a Secret beside its data", &secret.to_string());
    }
    // And nowhere else: no object of any kind,
    let kinds = cluster(&["api-resources", "--namespaced", "--verbs=list", "--output=name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| *kind != "secrets").collect();
    assert!(["pods", "events", "quarksjobs.quarks.cloudfoundry.org", "jobs.batch"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    let objects = case.kubectl(&["get", &kinds.join(","), "--ignore-not-found", "-o", "json"]);
    assert!(objects.contains("OutputInvalid") && objects.contains(r#"\"stored\":true"#), "no reports seen");
    assert_clean("an object", &objects);
    // no log of a sidecar or of the operator, with all they can say,
    let pods = case.list("pods", "");
    assert_eq!(pods.len(), qjobs.len());
    for pod in &pods {
        let containers = pod["spec"]["containers"].as_array().expect("a list");
        let sidecar = containers.iter().find(|container| container["name"] == "output-persist").expect("the sidecar");
        assert!(sidecar["env"].as_array().expect("a list").contains(&json!({"name": "LOG_LEVEL", "value": "trace"})), "{sidecar}");
        let pod = text(&pod["metadata"]["name"]);
        // On a busy node the last lines come after the container's end.
        let log = until("the last line of its log", || {
            Some(case.kubectl(&["logs", &pod, "-c", "output-persist"])).filter(|log| log.contains("output-persist exiting"))
        });
        assert_clean(&format!("the log of output-persist in {pod}"), &log);
        let log = case.kubectl(&["logs", &pod, "-c", "main"]);
        if pod.starts_with("log-") {
            assert!(log.contains(CANARY), "{pod}:\n{log}");
        } else {
            assert_clean(&format!("the log of main in {pod}"), &log);
        }
    }
    let log = cluster(&["--namespace", "quarks-job", "logs", "deployment/quarks-job", "--tail=-1"]);
    assert!(log.contains(" DEBUG "), "the operator says too little");
    assert_clean("the operator's log", &log);
    // no log of the cluster's own parts, the audit log included.
    let logs = std::env::var("CLUSTER_LOGS").expect("these tests need a cluster: run them with scripts/test");
    let files: Vec<_> = std::fs::read_dir(Path::new(&logs)).expect("a folder").filter_map(Result::ok).collect();
    assert!(files.len() > 3, "{files:?}");
    for file in files.iter().map(std::fs::DirEntry::path).filter(|path| path.is_file()) {
        assert_clean(&file.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&file).expect("readable")));
    }
    drop(talkative);
}
