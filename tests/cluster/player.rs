//! The node's part on a cluster without a node (`scripts/cluster up --no-node`): the pods of runs end as their scripts say.
//!
//! All that the operator sees is real but the pods: the API server, the Job controller, the garbage collector. Only scripts that need
//! nothing of a node are played: `true`, `false`, `echo` of plain words, `sleep N` and `exit N`. A pod with any other one, such as the
//! sidecar, stays pending; the cases that have such a pod need `pods` in `needs.txt`.

use std::collections::BTreeSet;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Deserializer, Value, json};

use crate::case::text;
use crate::proxy::{Lasting, Proxy};

const WATCH: [&str; 5] = ["get", "pods", "--all-namespaces", "--watch", "--output=json"];

static STARTED: Once = Once::new();

pub fn is_needed() -> bool {
    std::env::var("CLUSTER_NODE").is_ok_and(|node| node == "no")
}

/// Once a process, and until its end; nothing where there is a node.
pub fn start() {
    if is_needed() {
        STARTED.call_once(|| drop(thread::spawn(play)));
    }
}

/// Of one pod: how long it runs, and how it exits.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fate {
    runs: Duration,
    code: i32,
}

fn play() {
    let proxy = Arc::new(Proxy::start());
    let mut played = BTreeSet::new();
    // The API server ends a watch now and then.
    loop {
        let (_kubectl, output) = Lasting::start(&WATCH);
        let pods = Deserializer::from_reader(output).into_iter::<Value>();
        for pod in pods.map_while(Result::ok) {
            let is_waiting = pod["status"]["phase"] == "Pending" && pod["metadata"]["deletionTimestamp"].is_null();
            // By no label: a Job with a selector of its own sets none.
            let is_of_job = pod["metadata"]["ownerReferences"][0]["kind"] == "Job";
            let is_held = pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty());
            let Some(fate) = fate(&pod["spec"]).filter(|_| is_of_job && is_waiting && !is_held) else { continue };
            if played.insert(text(&pod["metadata"]["uid"])) {
                let proxy = Arc::clone(&proxy);
                thread::spawn(move || play_one(&proxy, &pod, fate));
            }
        }
    }
}

/// That of the container that runs longest; a container that fails decides the code.
fn fate(spec: &Value) -> Option<Fate> {
    let fates = |list: &str| -> Option<Vec<Fate>> {
        let containers = spec[list].as_array().map(Vec::as_slice).unwrap_or_default();
        containers.iter().map(|container| of_command(&container["command"])).collect()
    };
    let (init, main) = (fates("initContainers")?, fates("containers")?);
    // Those are not played: a container that starts again, and one that waits for another.
    if spec["restartPolicy"] != "Never" || init.iter().any(|fate| *fate != Fate { runs: Duration::ZERO, code: 0 }) {
        return None;
    }
    Some(Fate { runs: main.iter().map(|fate| fate.runs).max()?, code: main.iter().map(|fate| fate.code).max()? })
}

fn of_command(command: &Value) -> Option<Fate> {
    let words: Vec<&str> = command.as_array()?.iter().filter_map(Value::as_str).collect();
    let script = match words[..] {
        ["/bin/sh", "-c", script] => script,
        [program] => program,
        _ => return None,
    };
    let at_once = |code| Some(Fate { runs: Duration::ZERO, code });
    match script.split_once(' ') {
        None if script == "true" => at_once(0),
        None if script == "false" => at_once(1),
        Some(("exit", code)) => at_once(code.parse().ok()?),
        Some(("echo", words)) if words.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == ' ') => at_once(0),
        Some(("sleep", seconds)) => Some(Fate { runs: Duration::from_secs(seconds.parse().ok()?), code: 0 }),
        _ => None,
    }
}

fn play_one(proxy: &Proxy, pod: &Value, fate: Fate) {
    let started = now();
    let phase = if fate.runs.is_zero() { None } else { Some("Running") };
    if phase.is_some_and(|phase| !is_taken(proxy, pod, phase, &json!({"running": {"startedAt": started}}))) {
        return;
    }
    thread::park_timeout(fate.runs);
    let ended = json!({"terminated": {"exitCode": fate.code, "startedAt": started, "finishedAt": now(),
        "reason": if fate.code == 0 { "Completed" } else { "Error" }}});
    is_taken(proxy, pod, if fate.code == 0 { "Succeeded" } else { "Failed" }, &ended);
}

/// Whether the pod is still there; another one of its name is not meant.
fn is_taken(proxy: &Proxy, pod: &Value, phase: &str, state: &Value) -> bool {
    let (meta, containers) = (&pod["metadata"], pod["spec"]["containers"].as_array().cloned().unwrap_or_default());
    let status = |container: &Value| {
        json!({"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0,
            "ready": phase == "Running", "state": state})
    };
    let statuses: Vec<Value> = containers.iter().map(status).collect();
    let patch = json!({"metadata": {"uid": meta["uid"]}, "status": {"phase": phase, "startTime": now(), "containerStatuses": statuses}});
    let path = format!("/api/v1/namespaces/{}/pods/{}/status", text(&meta["namespace"]), text(&meta["name"]));
    match proxy.patch(&path, &patch) {
        (200, _) => true,
        (404 | 409, _) => false,
        (_, answer) => panic!("{path}: {answer}"),
    }
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
