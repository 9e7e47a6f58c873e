//! `manifests/` as `kubectl apply` takes it, file by file and through kustomize: what each component adds and takes away, that image and
//! namespace reach everything, that the API server's own schema has all of it, and operators that were installed so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::audit;
use crate::case::{Case, MANIFESTS, cluster, cluster_with, map, names_of_the_manifests, run, text, until, with_output};
use crate::files::Folder;
use crate::granted::objects;
use crate::pages::{blocks, pages};

const WRITES: &str = r#"echo '{"a": "b"}' >> /mnt/quarks/output.json"#;
const PROMETHEUS_OPERATOR: &str = "prometheus-operator";
/// All of them change the Deployment or what else is in the base; the others only add objects.
const CHANGING: [&str; 4] = ["fixed-namespaces", "leader-election", "openshift", "without-crd"];
/// What is no manifest: it is for kustomize, or, in `monitoring`, for programs of its own.
const NOT_APPLIED: [&str; 3] = ["kustomization.yaml", "kustomize-images.yaml", "kustomize-names.yaml"];

// ------------------------------------------------------------------------------------------------------------- helpers

/// A repository of a user: kustomizations in folders beside `manifests`.
struct Repository {
    folder: Folder,
}

impl Repository {
    fn new(name: &str) -> Self {
        let folder = Folder::new(&format!("kustomize-{name}"));
        symlink(MANIFESTS, folder.path().join("manifests")).expect("a link");
        Self { folder }
    }

    /// Writes a kustomization with these fields and says where it is. JSON is YAML.
    fn kustomization(&self, name: &str, fields: &Value) -> String {
        let mut object = json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"});
        object.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("kustomization.yaml"), object.to_string()).expect("written");
        folder.to_str().expect("UTF-8").to_owned()
    }

    /// The base with these components, and more fields.
    fn operator(&self, name: &str, components: &[&str], more: &Value) -> String {
        let components: Vec<String> = components.iter().map(|component| format!("../manifests/components/{component}")).collect();
        let mut fields = json!({"resources": ["../manifests"], "components": components});
        fields.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
        self.kustomization(name, &fields)
    }

    fn build(&self, components: &[&str], more: &Value) -> Objects {
        build(&self.operator("build", components, more))
    }
}

/// Kind, namespace and name.
type Key = (String, String, String);
type Objects = BTreeMap<Key, Value>;

fn key(object: &Value) -> Key {
    let field = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (field(&object["kind"]), field(&metadata["namespace"]), field(&metadata["name"]))
}

/// The order of variables means nothing; kustomize puts those of a patch first.
fn by_key(all: Vec<Value>) -> Objects {
    let sorted = |mut object: Value| {
        if let Some(env) = object.pointer_mut("/spec/template/spec/containers/0/env").and_then(Value::as_array_mut) {
            env.sort_by_key(|variable| variable["name"].to_string());
        }
        (key(&object), object)
    };
    let number = all.len();
    let objects: Objects = all.into_iter().map(sorted).collect();
    assert_eq!(objects.len(), number, "two objects of one name");
    objects
}

fn parse(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text).map(|document| Value::deserialize(document).expect("valid YAML")).collect()
}

fn build(folder: &str) -> Objects {
    by_key(parse(&cluster(&["kustomize", folder])))
}

fn plain(files: &[&str]) -> Objects {
    by_key(files.iter().flat_map(|file| objects(file, |text| text)).collect())
}

fn components() -> Vec<String> {
    let folder = fs::read_dir(format!("{MANIFESTS}/components")).expect("a folder");
    let mut names: Vec<String> =
        folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).filter(|name| name != "README.md").collect();
    names.sort();
    assert!(CHANGING.iter().all(|name| names.contains(&(*name).to_owned())) && names.len() >= 9, "{names:?}");
    names
}

/// Each set of these.
fn subsets<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let is_in = |set: usize, number: usize| set & (1 << number) != 0;
    (0..1_usize << names.len())
        .map(|set| names.iter().enumerate().filter(|(number, _)| is_in(set, *number)).map(|(_, name)| *name).collect())
        .collect()
}

fn the_deployment(objects: &Objects) -> &Value {
    let all: Vec<&Value> = objects.values().filter(|object| object["kind"] == "Deployment").collect();
    assert_eq!(all.len(), 1);
    all[0]
}

fn patch(kind: &str, name: &str, operations: &Value) -> Value {
    json!({"target": {"kind": kind, "name": name}, "patch": operations.to_string()})
}

fn env_patch(variables: &[(&str, &str)]) -> Value {
    let env: Vec<Value> = variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let spec = json!({"template": {"spec": {"containers": [{"name": "quarks-job", "env": env}]}}});
    patch(
        "Deployment",
        "quarks-job",
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "quarks-job"}, "spec": spec}),
    )
}

/// The tested image, as `images` of a kustomization wants it.
fn images() -> Value {
    let image = std::env::var("QUARKS_TEST_IMAGE").expect("these tests need a cluster: run them with scripts/test");
    let ((name, version), field) = match image.split_once('@') {
        Some(parts) => (parts, "digest"),
        None => (image.rsplit_once(':').expect("an image with a tag"), "newTag"),
    };
    json!([{"name": "quarks-job", "newName": name, field: version}])
}

/// All values of the strings of an object, with the key that they stand under.
fn strings<'a>(value: &'a Value, under: &'a str, found: &mut Vec<(&'a str, &'a str)>) {
    match value {
        Value::String(text) => found.push((under, text)),
        Value::Array(items) => items.iter().for_each(|item| strings(item, under, found)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| strings(value, key, found)),
        _ => {}
    }
}

// ---------------------------------------------------------------------------------------------------------- what is built

#[test]
fn a_plain_file_and_its_component_are_the_same() {
    let repository = Repository::new("same");
    let base = plain(&["crd.yaml", "operator.yaml"]);
    assert_eq!(repository.build(&[], &json!({})), base);
    for (component, file) in [
        ("leader-election", "leader-election.yaml"),
        ("network-policy", "network-policy.yaml"),
        ("trigger-only", "policies/trigger-only.yaml"),
        ("user-roles", "components/user-roles/user-roles.yaml"),
        (PROMETHEUS_OPERATOR, "components/prometheus-operator/prometheus-operator.yaml"),
    ] {
        let mut built = repository.build(&[component], &json!({}));
        built.retain(|key, object| base.get(key).is_none_or(|other| other != object) && key.0 != "Deployment");
        assert_eq!(built, plain(&[file]), "{component}");
    }
    assert_eq!(repository.build(&["fixed-namespaces"], &json!({})), plain(&["crd.yaml", "fixed-namespaces/operator.yaml"]));
    let mut openshift = plain(&["openshift.yaml"]);
    let env = openshift.values_mut().next().expect("a Deployment").pointer_mut("/spec/template/spec/containers/0/env");
    env.and_then(Value::as_array_mut).expect("variables").push(json!({"name": "SIDECAR_USER", "value": "none"}));
    let openshift = by_key(openshift.into_values().collect());
    assert_eq!(the_deployment(&repository.build(&["openshift"], &json!({}))), the_deployment(&openshift));
    for (folder, file) in [("monitored-namespace", "monitored-namespace.yaml"), ("fixed-namespaces", "fixed-namespaces/namespace.yaml")] {
        assert_eq!(build(&format!("{MANIFESTS}/{folder}")), plain(&[file]), "{folder}");
    }
}

#[test]
fn two_replicas_by_kustomize_are_those_of_the_commands() {
    let repository = Repository::new("replicas");
    let built = repository.build(&["leader-election"], &json!({}));
    let spec = &the_deployment(&built)["spec"];
    assert_eq!(spec["replicas"], 2);
    assert_eq!(spec["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}));
    let env = spec["template"]["spec"]["containers"][0]["env"].as_array().expect("variables");
    assert!(env.contains(&json!({"name": "LEADER_ELECT", "value": "true"})), "{env:?}");
}

/// So what holds of the sets that are tried on the cluster holds of all: a component that only adds objects meets no other one.
#[test]
fn every_combination_is_the_sum_of_its_parts() {
    let repository = Repository::new("sum");
    let all = components();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let base = repository.build(&[], &json!({}));
    let added: BTreeMap<&str, Objects> = all
        .iter()
        .filter(|name| !CHANGING.contains(name))
        .map(|name| {
            let mut objects = repository.build(&[name], &json!({}));
            assert!(base.iter().all(|(key, object)| objects.remove(key).as_ref() == Some(object)), "{name} changes the base");
            assert!(!objects.is_empty(), "{name} adds nothing");
            (*name, objects)
        })
        .collect();
    let changed: BTreeMap<Vec<&str>, Objects> =
        subsets(&CHANGING).into_iter().map(|set| (set.clone(), repository.build(&set, &json!({})))).collect();
    let different: BTreeSet<String> = changed.values().map(|objects| format!("{objects:?}")).collect();
    assert_eq!(different.len(), changed.len(), "two sets with one result");
    // It is among the sets above; with it here, too, there would be twice as many.
    let most: Vec<&str> = all.iter().copied().filter(|name| *name != "without-crd").collect();
    let sets = subsets(&most);
    for set in &sets {
        let (changing, adding): (Vec<&str>, Vec<&str>) = set.iter().partition(|name| CHANGING.contains(name));
        let mut expected = changed[&changing].clone();
        adding.iter().for_each(|name| expected.extend(added[name].clone()));
        assert_eq!(repository.build(set, &json!({})), expected, "{set:?}");
    }
    let reversed: Vec<&str> = all.iter().rev().copied().collect();
    assert_eq!(repository.build(&reversed, &json!({})), repository.build(&all, &json!({})), "the order of the components counts");
    println!("{} combinations of {} components", sets.len(), all.len());
}

#[test]
fn image_and_namespace_reach_everything() {
    let repository = Repository::new("reach");
    let all = components();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let without: Vec<&str> = all.iter().copied().filter(|name| *name != "fixed-namespaces").collect();
    // The name of the image means nothing elsewhere.
    let id = env_patch(&[("MONITORED_ID", "quarks-job")]);
    for (image, expected) in [
        (json!({"newName": "example.test/a", "newTag": "7"}), "example.test/a:7"),
        (json!({"newName": "example.test/a", "digest": "sha256:1234"}), "example.test/a@sha256:1234"),
    ] {
        for set in [vec![], all.clone(), without.clone()] {
            let mut image = image.clone();
            image["name"] = "quarks-job".into();
            let built = repository.build(&set, &json!({"namespace": "elsewhere", "images": [image], "patches": [id]}));
            let pod = &the_deployment(&built)["spec"]["template"];
            let env = pod["spec"]["containers"][0]["env"].as_array().expect("variables");
            let sidecar = env.iter().find(|variable| variable["name"] == "IMAGE").expect("the sidecar's image");
            let annotation = text(&sidecar["valueFrom"]["fieldRef"]["fieldPath"]);
            let annotation =
                annotation.strip_prefix("metadata.annotations['").and_then(|rest| rest.strip_suffix("']")).expect("an annotation");
            assert_eq!(
                (&pod["spec"]["containers"][0]["image"], &pod["metadata"]["annotations"][annotation]),
                (&expected.into(), &expected.into())
            );
            assert!(env.contains(&json!({"name": "MONITORED_ID", "value": "quarks-job"})), "{set:?}: {env:?}");
            let mut found = Vec::new();
            built.values().for_each(|object| strings(object, "", &mut found));
            let left: Vec<_> =
                found.iter().filter(|(_, text)| text.contains("quarks-job:dev") || text.contains("-n quarks-job ")).collect();
            assert!(left.is_empty(), "{set:?}: {left:?}");
            let namespaces: BTreeSet<&str> = found.iter().filter(|(key, _)| *key == "namespace").map(|(_, text)| *text).collect();
            assert_eq!(namespaces, BTreeSet::from(["elsewhere"]), "{set:?}");
            for (kind, namespace, name) in built.keys() {
                // Kustomize takes it for namespaced; the API server drops the field.
                if kind.starts_with("ValidatingAdmissionPolicy") {
                    continue;
                }
                let is_global = ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace"].contains(&kind.as_str());
                assert_eq!(namespace.as_str(), if is_global { "" } else { "elsewhere" }, "{kind} {name}");
                assert!(kind != "Namespace" || name == "elsewhere", "{name}");
            }
        }
    }
}

/// With a prefix and a suffix, every object has them, and so has what refers to one.
#[test]
fn names_reach_what_refers_to_them() {
    let repository = Repository::new("names");
    let mut all = components();
    all.retain(|name| name != "fixed-namespaces");
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let built = repository.build(&all, &json!({"namespace": "elsewhere", "namePrefix": "a-", "nameSuffix": "-b"}));
    let is_there = |kind: &Value, name: &Value| built.keys().any(|(a, _, b)| a == kind && b == name);
    let mut referred = BTreeSet::new();
    for ((kind, _, name), object) in &built {
        assert!(name.starts_with("a-") && name.ends_with("-b") || kind == "Namespace", "{kind} {name}");
        let pod = &object["spec"]["template"]["spec"]["serviceAccountName"];
        let references = [
            (&object["roleRef"]["kind"], &object["roleRef"]["name"]),
            (&object["subjects"][0]["kind"], &object["subjects"][0]["name"]),
            (&json!("ServiceAccount"), pod),
            (&json!("ValidatingAdmissionPolicy"), &object["spec"]["policyName"]),
        ];
        for (other, name) in references.into_iter().filter(|(_, name)| name.is_string()) {
            assert!(is_there(other, name), "{kind} refers to {other} {name}");
            referred.insert(text(other));
        }
    }
    assert_eq!(Vec::from_iter(referred), ["ClusterRole", "Role", "ServiceAccount", "ValidatingAdmissionPolicy"]);
}

/// Each kustomization that a page shows can be built where the page says that it is.
#[test]
fn the_kustomizations_of_the_pages_can_be_built() {
    let repository = Repository::new("pages");
    let mut number = 0;
    for page in pages() {
        for block in blocks(&page).unwrap_or_else(|error| panic!("{error}")).iter().filter(|block| block.info == "yaml") {
            if !block.body.contains("kind: Kustomization\n") {
                continue;
            }
            number += 1;
            let folder = repository.folder.path().join(format!("page-{number}"));
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("kustomization.yaml"), &block.body).expect("written");
            let built = run(&["kustomize", folder.to_str().expect("UTF-8")], None);
            let built = by_key(parse(&built.unwrap_or_else(|error| panic!("{}:{}: {error}", page.name, block.line))));
            let mut found = Vec::new();
            built.values().for_each(|object| strings(object, "", &mut found));
            let is_placeholder = |text: &str| text.contains("quarks-job:dev") || text.contains("team-a,team-b");
            assert!(!found.iter().any(|(_, text)| is_placeholder(text)), "{}:{}: a placeholder is left", page.name, block.line);
        }
    }
    assert!(number >= 3, "{number} kustomizations on the pages");
}

// ---------------------------------------------------------------------------------------- what the API server says of them

/// The kinds of the Prometheus operator, as far as our manifests use them: the real definitions have a megabyte, and are not to be had here.
struct PrometheusKinds(Vec<String>);

impl PrometheusKinds {
    fn new() -> Self {
        let text = json!({"type": "string"});
        let texts = json!({"type": "object", "additionalProperties": text});
        let endpoint = json!({"type": "object", "properties": {"port": text, "path": text, "interval": text}});
        let monitor = json!({"type": "object", "required": ["selector", "podMetricsEndpoints"], "properties": {
            "selector": {"type": "object", "properties": {"matchLabels": texts}},
            "podMetricsEndpoints": {"type": "array", "items": endpoint},
        }});
        let duration = json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"});
        let rule = json!({"type": "object", "required": ["expr"], "properties": {
            "alert": text, "expr": {"x-kubernetes-int-or-string": true}, "for": duration, "labels": texts, "annotations": texts,
        }});
        let group =
            json!({"type": "object", "required": ["name"], "properties": {"name": text, "rules": {"type": "array", "items": rule}}});
        let rules = json!({"type": "object", "properties": {"groups": {"type": "array", "items": group}}});
        let mut made = Vec::new();
        for (plural, kind, spec) in [("podmonitors", "PodMonitor", monitor), ("prometheusrules", "PrometheusRule", rules)] {
            let name = format!("{plural}.monitoring.coreos.com");
            if !cluster(&["get", "crd", &name, "--ignore-not-found", "-o", "name"]).is_empty() {
                continue;
            }
            let schema = json!({"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {"spec": spec}}});
            cluster_with(
                &["create", "-f", "-"],
                &json!({
                    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
                    "spec": {
                        "group": "monitoring.coreos.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind, "singular": kind.to_lowercase()},
                        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
                    },
                }),
            );
            made.push(name);
        }
        let this = Self(made);
        for name in &this.0 {
            until("the CRD to be established", || {
                run(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{name}")], None).ok()
            });
        }
        // kubectl looks the kinds up, and keeps for a while what it found.
        until("the kinds to be served", || {
            run(&["get", "podmonitors.monitoring.coreos.com,prometheusrules.monitoring.coreos.com", "-A"], None).ok()
        });
        this
    }
}

impl Drop for PrometheusKinds {
    fn drop(&mut self) {
        for name in &self.0 {
            if run(&["delete", "crd", name, "--ignore-not-found", "--wait=false"], None).is_err() {
                eprintln!("crd {name} is left");
            }
        }
    }
}

/// `Err` if the API server does not take all of it as it stands.
fn check(args: &[&str], input: Option<&Value>) -> Result<String, String> {
    let _names = names_of_the_manifests();
    run(&[&["apply", "--dry-run=server", "--validate=strict"], args].concat(), input)
}

/// The same for a file, in this namespace if it names none.
fn check_file(file: &Path, namespace: &str) -> Result<String, String> {
    let path = file.to_str().expect("UTF-8");
    let has_namespace =
        parse(&fs::read_to_string(file).expect("readable")).iter().any(|object| object["metadata"]["namespace"].is_string());
    let namespace = if has_namespace { &[][..] } else { &["--namespace", namespace] };
    check(&[&["-f", path], namespace].concat(), None)
}

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        if path.is_dir() {
            yaml_files(&path, found);
        } else if name.ends_with(".yaml") && !NOT_APPLIED.contains(&name) {
            found.push(path);
        }
    }
}

#[test]
fn the_api_server_takes_every_manifest_and_every_kind_of_combination() {
    let case = Case::unlabelled("strict");
    let home = case.bare_beside("strict-home");
    let _kinds = PrometheusKinds::new();
    let mut files = Vec::new();
    yaml_files(Path::new(MANIFESTS), &mut files);
    assert!(files.len() >= 30, "{files:?}");
    let refused: Vec<String> = files
        .iter()
        .filter_map(|file| check_file(file, &home.namespace).err().map(|error| format!("{}: {error}", file.display())))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    // It would have seen what is wrong: a field too many, also deep in a template, and a value.
    for (kind, pointer, value) in [
        ("Deployment", "/spec/replicaz", json!(1)),
        ("Deployment", "/spec/replicas", json!("one")),
        ("PrometheusRule", "/spec/groups/0/rules/0/form", json!("1m")),
    ] {
        let file = if kind == "Deployment" { "operator.yaml" } else { "components/prometheus-operator/prometheus-operator.yaml" };
        let mut object = objects(file, |text| text).into_iter().find(|object| object["kind"] == kind).expect("one");
        let (parent, field) = pointer.rsplit_once('/').expect("a field");
        object.pointer_mut(parent).expect("a parent")[field] = value;
        let error = check(&["-f", "-"], Some(&object)).expect_err("it takes anything");
        assert!(error.contains(field), "{error}");
    }

    let repository = Repository::new("strict");
    let all = components();
    let adding: Vec<&str> = all.iter().map(String::as_str).filter(|name| !CHANGING.contains(name)).collect();
    let mut sets = Vec::new();
    for changing in subsets(&CHANGING) {
        sets.push([changing.as_slice(), &adding].concat());
        sets.push(changing);
    }
    sets.extend(adding.iter().map(|name| vec![*name]));
    // With the names that everybody has, and elsewhere.
    let more = json!({"namespace": home.namespace, "images": images()});
    for set in &sets {
        for (name, more) in [("usual", json!({"images": images()})), ("elsewhere", more.clone())] {
            let folder = repository.operator(name, set, &more);
            let taken = check(&["-k", &folder], None).unwrap_or_else(|error| panic!("{name} {set:?}: {error}"));
            assert_eq!(
                taken.lines().filter(|line| line.ends_with("(server dry run)")).count(),
                build(&folder).len(),
                "{name} {set:?}: {taken}"
            );
        }
    }
    println!("{} manifests, {} combinations in two places", files.len(), sets.len());
}

// ------------------------------------------------------------------------------------------------------ what is installed

/// Takes away what these kustomizations have made: `kubectl apply` takes nothing away that a later one does not have.
#[derive(Default)]
struct Installed(Vec<String>);

impl Installed {
    fn apply(&mut self, folder: String) {
        self.0.push(folder);
        cluster(&["apply", "-k", self.0.last().expect("just pushed")]);
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        for folder in &self.0 {
            let delete = ["delete", "--ignore-not-found", "--wait=false", "-k", folder];
            if let Err(error) = run(&delete, None) {
                eprintln!("kubectl {}: {error}", delete.join(" "));
            }
        }
    }
}

fn wait_rollout(home: &Case, name: &str) {
    home.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=300s"]);
}

/// Who created Jobs there.
fn job_creators(case: &Case) -> BTreeSet<String> {
    case.audit()
        .into_iter()
        .filter(|entry| entry.verb == "create" && entry.resource == "jobs" && entry.code == 201)
        .map(|entry| entry.user)
        .collect()
}

/// A second operator beside the one of the tests: other names, another namespace, another id, first with one replica and then with two.
#[test]
fn a_second_operator_with_names_of_its_own_serves_a_run() {
    let case = Case::unlabelled("kust");
    let (home, served) = (case.bare_beside("kust-home"), case.bare_beside("kust-served"));
    let id = home.namespace.clone();
    let name = format!("quarks-job-{id}");
    let repository = Repository::new("second");
    let lease = json!([{"op": "replace", "path": "/rules/0/resourceNames/0", "value": format!("quarks-job-{id}")}]);
    let more =
        json!({"namespace": id, "nameSuffix": format!("-{id}"), "images": images(), "patches": [env_patch(&[("MONITORED_ID", &id)])]});
    let mut installed = Installed::default();
    installed.apply(repository.operator("one", &["without-crd"], &more));
    wait_rollout(&home, &name);
    // What the page says of a namespace for a second operator, with the names of this one.
    let page = pages().into_iter().find(|page| page.name.ends_with("namespaces.md")).expect("the page");
    let all = blocks(&page).expect("blocks");
    let block = all.iter().find(|block| block.body.contains("namespace: team-test\n")).expect("the block");
    let text = block.body.replace("namespace: team-test\n", &format!("namespace: {}\n", served.namespace));
    let text = text.replace("namespace: quarks-job-test\n", &format!("namespace: {id}\n")).replace("-test\n", &format!("-{id}\n"));
    let folder = repository.kustomization("served", &json!({}));
    fs::write(format!("{folder}/kustomization.yaml"), text).expect("written");
    // It depends on nothing of the first operator.
    let own = build(&repository.operator("one", &["without-crd"], &more));
    let roles: Vec<String> = build(&folder)
        .into_values()
        .filter(|object| object["kind"] == "RoleBinding")
        .map(|object| object["roleRef"]["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(roles.len(), 2);
    for role in roles {
        assert!(own.contains_key(&("ClusterRole".to_owned(), String::new(), role.clone())), "{role} is not its own");
    }
    cluster(&["apply", "-k", &folder]);
    served.label_namespace(&[
        &format!("quarks.cloudfoundry.org/monitored={id}"),
        "quarks.cloudfoundry.org/qjob-service-account=quarks-job-sidecar",
    ]);
    served.apply(&with_output("one", "once", WRITES, "one"));
    assert_eq!(served.wait_runs("one", 1)["outcome"], "Succeeded");
    assert_eq!(served.secret("one"), map(&[("a", "b")]), "the sidecar has the image, too");

    // Now with what else an operator of its own may have.
    let mut with_lease = more.clone();
    with_lease["patches"].as_array_mut().expect("patches").push(patch("Role", "quarks-job-leader-election", &lease));
    installed.apply(repository.operator(
        "two",
        &["without-crd", "leader-election", "openshift", "network-policy", "monitoring"],
        &with_lease,
    ));
    wait_rollout(&home, &name);
    let deployment = home.get("deployment", &name);
    assert_eq!(deployment["status"]["readyReplicas"], 2);
    assert_eq!(deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"], Value::Null);
    let holder = |home: &Case| home.get("lease", &format!("quarks-job-{id}"))["spec"]["holderIdentity"].as_str().map(ToOwned::to_owned);
    until("a leader", || holder(&home).filter(|holder| holder.starts_with(&name)));
    served.apply(&with_output("two", "once", WRITES, "two"));
    assert_eq!(served.wait_runs("two", 1)["outcome"], "Succeeded");
    assert_eq!(served.secret("two"), map(&[("a", "b")]));
    for made in
        [format!("configmap/quarks-job-dashboard-{id}"), format!("configmap/quarks-job-alerts-{id}"), format!("networkpolicy/{name}")]
    {
        home.kubectl(&["get", &made]);
    }

    // And back to one replica: the strategy changes in one apply.
    installed.apply(repository.operator("one", &["without-crd"], &more));
    wait_rollout(&home, &name);
    let spec = home.get("deployment", &name)["spec"].clone();
    assert_eq!((&spec["replicas"], &spec["strategy"]), (&json!(1), &json!({"type": "Recreate"})));
    if audit::is_there() {
        assert_eq!(job_creators(&served), BTreeSet::from([format!("system:serviceaccount:{id}:{name}")]));
    }
}

/// Fixed namespaces, for OpenShift, in another namespace: no object of the cluster but the Namespace.
#[test]
fn an_operator_for_fixed_namespaces_by_kustomize_serves_a_run() {
    let case = Case::unlabelled("kustfix");
    let (home, served) = (case.bare_beside("kustfix-home"), case.bare_beside("kustfix-served"));
    let repository = Repository::new("fixed");
    let more = json!({"namespace": home.namespace, "images": images(), "patches": [env_patch(&[("WATCH_NAMESPACES", &served.namespace)])]});
    let folder = repository.operator("operator", &["fixed-namespaces", "openshift", "without-crd"], &more);
    let kinds: Vec<String> = build(&folder).into_keys().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["Deployment", "Namespace", "ServiceAccount"]);
    let subject = json!([{"op": "replace", "path": "/subjects/0/namespace", "value": home.namespace}]);
    let namespace = json!({"namespace": served.namespace, "resources": ["../manifests/fixed-namespaces"], "patches": [patch("RoleBinding", "quarks-job", &subject)]});
    cluster(&["apply", "-k", &repository.kustomization("served", &namespace)]);
    let mut installed = Installed::default();
    installed.apply(folder);
    served.apply(&with_output("q", "once", WRITES, "s"));
    assert_eq!(served.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(served.secret("s"), map(&[("a", "b")]));
    wait_rollout(&home, "quarks-job");
    if audit::is_there() {
        assert_eq!(job_creators(&served), BTreeSet::from([format!("system:serviceaccount:{}:quarks-job", home.namespace)]));
    }
}
