//! `kubectl explain` teaches every field of the custom resource.

use serde_json::Value;

use crate::case::{cluster, text};

const CRD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/crd.yaml");
/// Shorter than this a description only repeats the field's name.
const SHORTEST: usize = 15;

/// Paths of all fields below `schema`, as `kubectl explain` takes them, with their descriptions.
fn fields(schema: &Value, path: &str, found: &mut Vec<(String, String)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        // Standard fields are explained by Kubernetes.
        if path == "qjob" && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let path = format!("{path}.{name}");
        found.push((path.clone(), text(&field["description"])));
        fields(field, &path, found);
        fields(&field["items"], &path, found);
        // Maps have no part of the path for their keys.
        fields(&field["additionalProperties"], &path, found);
        fields(&field["additionalProperties"]["additionalProperties"], &path, found);
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_field_is_explained() {
    let crd: Value = serde_yaml::from_str(&std::fs::read_to_string(CRD).expect("readable")).expect("YAML");
    let mut all = Vec::new();
    fields(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "qjob", &mut all);
    assert!(all.len() > 40, "{} fields", all.len());
    for (path, description) in all {
        assert!(description.len() >= SHORTEST, "{path}: {description:?}");
        let said = cluster(&["explain", &path]);
        // kubectl breaks lines and leaves out what looks like a list.
        let start: String = words(&description).chars().take(40).collect();
        assert!(words(&said).contains(&start), "{path}: {description}\n{said}");
    }
    // The one that people look up first names its own fields.
    let output = cluster(&["explain", "qjob.spec.output"]);
    for field in ["outputMap", "outputType", "secretLabels", "versioned", "writeOnFailure", "namePrefix", "keepVersions"] {
        assert!(output.contains(field), "{field}: {output}");
    }
}
