//! The ConfigMaps and Secrets that a Job template references. Pure.
//!
//! One table of places serves reading and rewriting. Both take the `spec` of a Job or of a Job template. Not counted:
//! `imagePullSecrets` and the credentials of volume drivers, whose content containers do not see.

use std::fmt;

use serde_json::Value;

use crate::api::Spec;

use super::outputs::is_output_name;

/// What is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferenceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// One ConfigMap or Secret, however often it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Which of the two.
    pub kind: ReferenceKind,
    /// Its name.
    pub name: String,
    /// Every use of it says `optional: true`.
    pub is_optional: bool,
    /// It is an output of the QuarksJob itself, by its name.
    pub is_own: bool,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ReferenceKind::ConfigMap => "configmap",
            ReferenceKind::Secret => "secret",
        };
        write!(f, "{kind}/{}", self.name)
    }
}

/// Containers are looked into by these paths below the pod's spec; `*` stands for each entry of a list.
const CONTAINERS: [&str; 2] = ["containers/*", "initContainers/*"];
/// Where a container names something: the last part is the field with the name, `optional` stands beside it.
const IN_CONTAINER: [(&str, ReferenceKind); 4] = [
    ("env/*/valueFrom/secretKeyRef/name", ReferenceKind::Secret),
    ("env/*/valueFrom/configMapKeyRef/name", ReferenceKind::ConfigMap),
    ("envFrom/*/secretRef/name", ReferenceKind::Secret),
    ("envFrom/*/configMapRef/name", ReferenceKind::ConfigMap),
];
/// Where the pod's spec itself does.
const IN_POD: [(&str, ReferenceKind); 4] = [
    ("volumes/*/secret/secretName", ReferenceKind::Secret),
    ("volumes/*/configMap/name", ReferenceKind::ConfigMap),
    ("volumes/*/projected/sources/*/secret/name", ReferenceKind::Secret),
    ("volumes/*/projected/sources/*/configMap/name", ReferenceKind::ConfigMap),
];

/// All references, each once, in a stable order.
pub fn collect(job_spec: &Value) -> Vec<Reference> {
    merge(uses(job_spec).into_iter().map(|found| found.reference))
}

/// Each once, in a stable order.
pub fn merge(all: impl Iterator<Item = Reference>) -> Vec<Reference> {
    let mut references: Vec<Reference> = Vec::new();
    for reference in all {
        match references.binary_search_by(|known| (known.kind, &known.name).cmp(&(reference.kind, &reference.name))) {
            Ok(at) => {
                references[at].is_optional &= reference.is_optional;
                references[at].is_own |= reference.is_own;
            }
            Err(at) => references.insert(at, reference),
        }
    }
    references
}

/// All references of a spec; those to its own output are marked.
pub fn of_spec(spec: &Spec) -> Vec<Reference> {
    let mut references = spec.template.get("spec").map(collect).unwrap_or_default();
    if let Some(output) = &spec.output {
        for reference in references.iter_mut().filter(|reference| reference.kind == ReferenceKind::Secret) {
            reference.is_own = is_output_name(output, spec.is_indexed(), &reference.name);
        }
    }
    references
}

/// Puts another name wherever `new_name` gives one.
pub fn rewrite(job_spec: &mut Value, new_name: &dyn Fn(ReferenceKind, &str) -> Option<String>) {
    for Use { reference, pointer } in uses(job_spec) {
        if let Some(name) = new_name(reference.kind, &reference.name)
            && let Some(place) = job_spec.pointer_mut(&pointer)
        {
            *place = Value::String(name);
        }
    }
}

/// One place that names something.
struct Use {
    reference: Reference,
    /// JSON pointer to the name.
    pointer: String,
}

fn uses(job_spec: &Value) -> Vec<Use> {
    const AT: &str = "/template/spec";
    let mut found = Vec::new();
    let Some(pod_spec) = job_spec.pointer(AT) else { return found };
    let mut look = |path: &str, kind: ReferenceKind| {
        walk(pod_spec, path, AT, &mut |parent, field, pointer| {
            if let Some(name) = parent.get(field).and_then(Value::as_str).filter(|name| !name.is_empty()) {
                let is_optional = parent.get("optional").and_then(Value::as_bool).unwrap_or(false);
                let reference = Reference { kind, name: name.to_owned(), is_optional, is_own: false };
                found.push(Use { reference, pointer: format!("{pointer}/{field}") });
            }
        });
    };
    for (path, kind) in IN_POD {
        look(path, kind);
    }
    for container in CONTAINERS {
        for (path, kind) in IN_CONTAINER {
            look(&format!("{container}/{path}"), kind);
        }
    }
    found
}

/// Follows `path` from `value`, which is at `pointer`; returns each object that ends it, the last part, and where that object is.
fn walk(value: &Value, path: &str, pointer: &str, visit: &mut dyn FnMut(&Value, &str, &str)) {
    let Some((part, rest)) = path.split_once('/') else { return visit(value, path, pointer) };
    if part == "*" {
        for (index, entry) in value.as_array().into_iter().flatten().enumerate() {
            walk(entry, rest, &format!("{pointer}/{index}"), visit);
        }
    } else if let Some(child) = value.get(part) {
        walk(child, rest, &format!("{pointer}/{part}"), visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KINDS: [(&str, ReferenceKind); 2] = [("secret", ReferenceKind::Secret), ("configMap", ReferenceKind::ConfigMap)];

    fn job_spec(pod_spec: Value) -> Value {
        json!({"backoffLimit": 0, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec}})
    }

    /// Every place that can name something, with this name and flag.
    fn places(name: &str, optional: Option<bool>) -> Vec<(ReferenceKind, Value)> {
        let mut places = Vec::new();
        for (word, kind) in KINDS {
            let with_flag = |field: &str| {
                let mut object = json!({field: name, "key": "k"});
                if let Some(optional) = optional {
                    object["optional"] = json!(optional);
                }
                object
            };
            for list in ["containers", "initContainers"] {
                let env =
                    json!([{"name": "PLAIN", "value": "x"}, {"name": "E", "valueFrom": {format!("{word}KeyRef"): with_flag("name")}}]);
                places.push((kind, json!({list: [{"name": "first"}, {"name": "c", "env": env}]})));
                places.push((kind, json!({list: [{"name": "c", "envFrom": [{format!("{word}Ref"): with_flag("name"), "prefix": "P_"}]}]})));
            }
            let field = if word == "secret" { "secretName" } else { "name" };
            places.push((kind, json!({"volumes": [{"name": "e", "emptyDir": {}}, {"name": "v", word: with_flag(field)}]})));
            let sources = json!([{"downwardAPI": {}}, {word: with_flag("name")}]);
            places.push((kind, json!({"volumes": [{"name": "v", "projected": {"sources": sources}}]})));
        }
        places
    }

    #[test]
    fn every_place_is_found_with_its_flag() {
        for (optional, is_optional) in [(None, false), (Some(false), false), (Some(true), true)] {
            let places = places("x", optional);
            assert_eq!(places.len(), 12);
            for (kind, pod_spec) in places {
                let expected = vec![Reference { kind, name: "x".into(), is_optional, is_own: false }];
                assert_eq!(collect(&job_spec(pod_spec.clone())), expected, "{pod_spec}");
            }
        }
    }

    #[test]
    fn every_place_is_rewritten_and_nothing_else() {
        for ((kind, before), (_, after)) in places("old", Some(true)).into_iter().zip(places("new", Some(true))) {
            let rename = |wanted: ReferenceKind| {
                let mut spec = job_spec(before.clone());
                rewrite(&mut spec, &|kind, name| (kind == wanted && name == "old").then(|| "new".to_owned()));
                spec
            };
            for (_, wanted) in KINDS {
                let expected = if wanted == kind { &after } else { &before };
                assert_eq!(rename(wanted), job_spec(expected.clone()));
            }
        }
    }

    #[test]
    fn a_reference_is_optional_only_if_every_use_is() {
        let source = |name: &str, optional: Value| json!({"secretRef": {"name": name, "optional": optional}});
        let from = json!([source("a", json!(true)), source("b", json!(true)), source("a", Value::Null), source("b", json!(true))]);
        let mut spec = job_spec(json!({"containers": [{"envFrom": from}], "volumes": [{"configMap": {"name": "a", "optional": true}}]}));
        let text = |spec: &Value| {
            let all = collect(spec).into_iter();
            all.map(|Reference { kind, name, is_optional, .. }| format!("{kind:?} {name} {is_optional}")).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(text(&spec), "ConfigMap a true, Secret a false, Secret b true");
        rewrite(&mut spec, &|_, name| (name == "a").then(|| "c".to_owned()));
        assert_eq!(text(&spec), "ConfigMap c true, Secret b true, Secret c false");
    }

    #[test]
    fn what_is_no_reference_is_left_alone() {
        let cases = [
            Value::Null,
            json!([]),
            json!({"imagePullSecrets": [{"name": "x"}], "serviceAccountName": "x"}),
            json!({"containers": {"env": []}, "initContainers": "x", "volumes": [1, null, [], {"secret": "x"}, {"secret": {"secretName": 1}}]}),
            json!({"containers": [{"name": "x", "env": [{"name": "x", "value": "x"}, {"valueFrom": {"fieldRef": {"name": "x"}}}]}]}),
            json!({"containers": [{"envFrom": [{"secretRef": {"name": ""}}, {"secretRef": {}}, {"configMapRef": null}]}]}),
            json!({"volumes": [{"secret": {"name": "x"}}, {"csi": {"nodePublishSecretRef": {"name": "x"}}}]}),
            json!({"ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "x"}}]}]}),
        ];
        for pod_spec in cases {
            let mut spec = job_spec(pod_spec);
            assert_eq!(collect(&spec), Vec::new(), "{spec}");
            let before = spec.clone();
            rewrite(&mut spec, &|_, _| Some("y".to_owned()));
            assert_eq!(spec, before);
        }
        assert_eq!(collect(&Value::Null), Vec::new());
    }
}
