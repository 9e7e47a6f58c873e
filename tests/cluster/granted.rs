//! What the manifests grant, right by right.

use std::fmt;

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::audit::Entry;
use crate::case::{MANIFESTS, text};

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub verb: String,
    pub group: String,
    /// With the subresource: `quarksjobs/status`.
    pub resource: String,
    /// Of the only object that it is for; empty for all.
    pub name: String,
}

impl Right {
    /// It allows this request, wherever it is bound.
    pub fn covers(&self, entry: &Entry) -> bool {
        let is_named = self.name.is_empty() || self.name == entry.name;
        is_named && self.verb == entry.verb && self.group == entry.group && self.resource == entry.resource
    }

    /// A right that OwnerReferencesPermissionEnforcement wants to see when a Job with `blockOwnerDeletion` is created. It is on in the
    /// tests' cluster, and no request of its own uses the right.
    pub fn is_asked_by_admission(&self) -> bool {
        self.verb == "update" && self.resource == "quarksjobs/finalizers"
    }

    /// All that the other right allows, this one allows, too.
    fn includes(&self, other: &Right) -> bool {
        let is_named = self.name.is_empty() || self.name == other.name;
        is_named && self.verb == other.verb && self.group == other.group && self.resource == other.resource
    }

    fn rule(&self) -> Value {
        let Self { verb, group, resource, name } = self;
        let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
        if !name.is_empty() {
            rule["resourceNames"] = json!([name]);
        }
        rule
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " {}", self.name) }
    }
}

/// The objects of a manifest, after a change of its text.
pub fn objects(manifest: &str, change: impl Fn(String) -> String) -> Vec<Value> {
    let path = format!("{MANIFESTS}/{manifest}");
    let text = change(std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")));
    serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).expect("valid YAML")).collect()
}

/// The rights that a ClusterRole of `operator.yaml`, or the Role of `leader-election.yaml`, grants.
pub fn rights(role: &str) -> Vec<Right> {
    let list = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };
    let is_wanted = |object: &Value| text(&object["kind"]).ends_with("Role") && object["metadata"]["name"] == role;
    let mut all = ["operator.yaml", "leader-election.yaml"].into_iter().flat_map(|manifest| objects(manifest, |text| text));
    let role = all.find(is_wanted).unwrap_or_else(|| panic!("no role {role}"));
    let mut found = Vec::new();
    for rule in role["rules"].as_array().expect("rules") {
        let mut names = list(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for (verb, group) in
            list(&rule["verbs"]).into_iter().flat_map(|verb| list(&rule["apiGroups"]).into_iter().map(move |group| (verb.clone(), group)))
        {
            for resource in list(&rule["resources"]) {
                found.extend(names.iter().map(|name| Right {
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    found
}

/// A role with these rights but for `missing`, and whatever grants the same.
pub fn role_without(kind: &str, name: &str, rights: &[Right], missing: Option<&Right>) -> Value {
    let rules: Vec<Value> = rights.iter().filter(|right| missing.is_none_or(|missing| !right.includes(missing))).map(Right::rule).collect();
    assert!(missing.is_none() || rules.len() < rights.len(), "{missing:?} is not among the rights");
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules})
}

/// Binds a role to an account.
pub fn binding(kind: &str, role_kind: &str, name: &str, role: &str, account: (&str, &str)) -> Value {
    let (namespace, account) = account;
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    })
}
