//! The plan as the operator hands it over and the kernel and the program take it, whatever its size.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use super::scene::{NAMESPACE, Scene, document, ended};
use crate::support::operator::binary;
use crate::support::play::{self, path};

/// What `render` sets for the UID.
const PLACEHOLDER_UID: &str = "00000000-0000-0000-0000-000000000000";

/// Literal variables that the operator gives the sidecar of a QuarksJob, as the kubelet hands them over.
fn environment(object: &Value) -> Vec<(String, String)> {
    let mut command = Command::new(binary());
    command.args(["render", "-f", "-"]).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("render starts");
    child.stdin.take().expect("piped").write_all(object.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("our child");
    assert!(output.status.success(), "{output:?}");
    let job: Value = serde_yaml::from_slice(&output.stdout).expect("YAML");
    let containers = job["spec"]["template"]["spec"]["containers"].as_array().expect("a list");
    let sidecar = containers.iter().find(|container| container["name"] == "output-persist").expect("the sidecar");
    let literal =
        |variable: &Value| Some((variable["name"].as_str()?.to_owned(), variable["value"].as_str()?.replace("$$", "$").to_owned()));
    sidecar["env"].as_array().expect("a list").iter().filter_map(literal).collect()
}

fn named(files: usize, options: &Value) -> Value {
    let mut map = Map::new();
    for at in 0..files {
        let mut file = options.clone();
        file["name"] = json!(format!("s{at}"));
        map.insert(format!("f{at}"), file);
    }
    json!({"outputMap": {"main": map}})
}

/// So many keys of the longest kind, each with the value.
fn marks(keys: usize, value: &str) -> Value {
    let domain = format!("{0}.{0}.{0}", "d".repeat(63));
    Value::Object((0..keys).map(|at| (format!("{domain}/k{at:03}-{}", "n".repeat(56)), json!(value))).collect())
}

#[test]
fn a_plan_within_the_documented_limits_reaches_the_sidecar_whatever_its_size() {
    let text = format!("\"$(POD_NAME)\" $$ ü {}", "x".repeat(2_280));
    let small = json!({});
    // With its hundred names just below the longest output.
    let largest = json!({"secretAnnotations": {"a": "x".repeat(10_400)}});
    let own = json!({"secretAnnotations": {"a": text, "b": "file"}, "secretLabels": {"l": "file"}});
    for (name, files, options, labels, annotations) in [
        ("annotation", 60, &small, json!({"l": "all"}), json!({"a": text, "b": "all"})),
        ("many", 100, &small, marks(100, &"v".repeat(63)), marks(100, &text)),
        ("largest", 100, &largest, json!({}), json!({})),
        ("own", 100, &own, json!({"l": "all", "m": "all"}), json!({"b": "all", "c": "all"})),
    ] {
        let scene = Scene::new(&format!("plan-{name}"));
        let mut output = named(files, options);
        (output["secretLabels"], output["secretAnnotations"]) = (labels.clone(), annotations.clone());
        let mut object = play::quarks_job("q", "once");
        object["apiVersion"] = json!("quarks.cloudfoundry.org/v1alpha1");
        object["kind"] = json!("QuarksJob");
        object["spec"]["output"] = output;
        let live = scene.api().get(&path("quarksjobs", NAMESPACE, "q")).expect("the QuarksJob");
        let uid = live["metadata"]["uid"].as_str().expect("a UID");
        let mut sidecar = scene.sidecar("Never", json!({"containers": {"main": {"files": {}}}}));
        for (variable, value) in environment(&object) {
            sidecar.process = sidecar.process.env(&variable, value.replace(PLACEHOLDER_UID, uid));
        }
        for at in 0..files {
            sidecar.write("main", &format!("f{at}"), document(&[("k", "1")]));
        }
        sidecar.states(&[("main", ended(0))]);
        sidecar.process.start();
        sidecar.finish_stored();
        for at in 0..files {
            let secret = scene.secret(&format!("s{at}")).expect("stored");
            let stored = |part: &str, key: &str| secret["metadata"][part][key].clone();
            for (part, all, over) in
                [("labels", &labels, &options["secretLabels"]), ("annotations", &annotations, &options["secretAnnotations"])]
            {
                for (key, value) in all.as_object().into_iter().chain(over.as_object()).flatten() {
                    let expected = over.get(key).unwrap_or(value);
                    assert_eq!(stored(part, key), *expected, "{name} {at} {part} {key}");
                }
            }
        }
    }
}
