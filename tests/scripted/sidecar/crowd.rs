//! Many pods of one run persist at once.

use serde_json::json;

use super::scene::{SECRET_VERSION, Scene, Sidecar, document, ended};

const PODS: usize = 20;

fn start_all(scene: &Scene, content: impl Fn(usize) -> String) -> Vec<Sidecar> {
    start_with(scene, false, |number| document(&[("k", &content(number))]))
}

fn start_with(scene: &Scene, fan_out: bool, content: impl Fn(usize) -> String) -> Vec<Sidecar> {
    let file = json!({"name": "s", "versioned": true, "fanOut": fan_out});
    let sidecars: Vec<Sidecar> = (0..PODS)
        .map(|number| {
            let sidecar = scene.sidecar("Never", json!({"containers": {"main": {"files": {"f": file}}}}));
            sidecar.write("main", "f", content(number));
            sidecar.process.start();
            sidecar
        })
        .collect();
    // All of them wait, and then all of them begin.
    sidecars[0].process.wait_for("every watch", || (scene.server.watches().len() == PODS).then_some(()));
    for sidecar in &sidecars {
        sidecar.states(&[("main", ended(0))]);
    }
    sidecars
}

#[test]
fn twenty_pods_at_once_make_twenty_distinct_consecutive_versions() {
    let scene = Scene::new("crowd");
    let mut versions: Vec<u64> = Vec::new();
    for (number, sidecar) in start_all(&scene, |number| number.to_string()).iter().enumerate() {
        let report = sidecar.finish_stored().report;
        let version = report["secrets"][0]["version"].as_u64().expect("a version");
        let secret = scene.secret(&format!("s-v{version}")).expect("stored");
        assert_eq!(secret["metadata"]["labels"][SECRET_VERSION], version.to_string(), "sidecar {number}");
        assert_eq!(scene.value(&format!("s-v{version}")), number.to_string(), "each pod's own content");
        versions.push(version);
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=PODS as u64).collect::<Vec<_>>());
    assert_eq!(scene.secrets().len(), PODS);
}

#[test]
fn twenty_pods_at_once_with_the_same_content_make_one_version() {
    let scene = Scene::new("crowd-equal");
    for sidecar in start_all(&scene, |_| "same".to_owned()) {
        assert_eq!(sidecar.finish_stored().report["secrets"][0]["version"], 1);
    }
    assert_eq!(scene.secrets(), ["s-v1"]);
}

#[test]
fn twenty_pods_at_once_with_a_fan_out_make_twenty_versions_of_each_entry() {
    let scene = Scene::new("crowd-fan-out");
    let content = |number: usize| {
        let flat = document(&[("k", &number.to_string())]);
        format!(r#"{{"a":{flat},"b":{flat},"c":{flat}}}"#)
    };
    for (number, sidecar) in start_with(&scene, true, content).iter().enumerate() {
        for secret in sidecar.finish_stored().report["secrets"].as_array().expect("Secrets") {
            assert_eq!(scene.value(secret["name"].as_str().expect("a name")), number.to_string(), "each pod's own content");
        }
    }
    let mut names: Vec<String> = ["a", "b", "c"].iter().flat_map(|key| (1..=PODS).map(move |n| format!("s-{key}-v{n}"))).collect();
    names.sort_unstable();
    let mut found = scene.secrets();
    found.sort_unstable();
    assert_eq!(found, names);
}
