//! Many pods of one run persist at once.

use serde_json::json;

use crate::scene::{SECRET_VERSION, Scene, Sidecar, document, ended};

const PODS: usize = 20;

fn start_all(scene: &Scene, content: impl Fn(usize) -> String) -> Vec<Sidecar> {
    let sidecars: Vec<Sidecar> = (0..PODS)
        .map(|number| {
            let sidecar = scene.sidecar("Never", json!({"containers": {"main": {"files": {"f": {"name": "s", "versioned": true}}}}}));
            sidecar.write("main", "f", document(&[("k", &content(number))]));
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
        assert_eq!(secret["metadata"]["labels"][SECRET_VERSION], version.to_string());
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
