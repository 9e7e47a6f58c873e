//! From a QuarksJob to the Job of one run. Pure: the same input gives the same Job.
//!
//! The user's template passes through unchanged, unknown fields included. Added are the operator's labels and the run annotation,
//! the name, the owner, and, with `spec.output`, the sidecar with its volumes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::api::{
    ANNOTATION_RUN, API_VERSION, FileOutput, GROUP, KIND, LABEL_QJOB_NAME, OUTPUT_MOUNT, ObjectKey, Output, SERVICE_ACCOUNT_DIR,
    SIDECAR_OUTPUT_ROOT, Spec, Uid,
};
use crate::contract::plan::{ContainerPlan, Plan, SecretPlan};
use crate::contract::record::RunRecord;

use super::names::{free_name, label_value, output_volume};
use super::objects::{as_object, list_at, object_at};
use super::sidecar::{SidecarUser, parsed, resources_in};

/// Volume with the sidecar's credential, if no other is called so.
const TOKEN_VOLUME: &str = "output-persist-token";

/// Its source: the Secret `TOKEN_SECRET`, and what every pod's own token comes with.
const TOKEN_VOLUME_SOURCE: &str = r#"{"projected": {"sources": [
    {"secret": {"name": "quarks-job-sidecar-token", "items": [{"key": "token", "path": "token"}]}},
    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}"#;
/// The sidecar, as far as it is the same in all pods.
const CONTAINER: &str = r#"{"name": "output-persist", "args": ["persist-output"], "env": [
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]}"#;

/// How pods get the sidecar; the same for all runs of this operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarSettings {
    /// Image of the sidecar: the operator's own.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Name of a pull secret to add to the pods.
    pub image_pull_secret: Option<String>,
    /// Value of `LOG_LEVEL` in the sidecar.
    pub log_level: String,
    /// Its `LOG_FORMAT`.
    pub log_format: &'static str,
    /// As whom it runs.
    pub user: SidecarUser,
    /// Its requests and limits.
    pub resources: Map<String, Value>,
    /// The output volumes, an `emptyDir`.
    pub volume: Map<String, Value>,
}

pub use crate::api::has_delete_pod_label;

/// The template's `ttlSecondsAfterFinished`.
pub fn ttl_seconds(template: &Value) -> Option<i64> {
    template.pointer("/spec/ttlSecondsAfterFinished").and_then(Value::as_i64)
}

/// What of the template has no place in a Job and is left out; one sentence, or `None`.
pub fn ignored_fields(template: &Value) -> Option<String> {
    let fields: Vec<&str> = template.as_object()?.keys().map(String::as_str).filter(|key| !matches!(*key, "metadata" | "spec")).collect();
    if fields.is_empty() {
        return None;
    }
    Some(format!(
        "spec.template: ignored fields: {}; a Job template has only metadata and spec (Job settings go in spec.template.spec)",
        fields.join(", ")
    ))
}

/// The Job of run `record.run`.
///
/// `assigns_users`: the namespace gives pods their users.
pub fn build_job(
    key: &ObjectKey,
    uid: &Uid,
    job_name: &str,
    spec: &Spec,
    record: &RunRecord,
    sidecar: &SidecarSettings,
    assigns_users: bool,
) -> Value {
    let qjob_label = label_value(&key.name);
    let mut job_spec = spec.template.get("spec").cloned().unwrap_or_default();
    if let Some(fields) = job_spec.as_object_mut() {
        // Held back until the run is recorded, so that the Job cannot vanish unseen.
        fields.remove("ttlSecondsAfterFinished");
    }
    let pod = &mut job_spec["template"];
    let labels = object_at(object_at(as_object(pod), "metadata"), "labels");
    labels.insert(LABEL_QJOB_NAME.to_owned(), json!(qjob_label));
    if let Some(output) = &spec.output {
        add_sidecar(object_at(as_object(pod), "spec"), output, &plan(key, uid, record, spec, output), sidecar, assigns_users);
    }

    let mut metadata = json!({
        "name": job_name,
        "namespace": &*key.namespace,
        "labels": users_own(&spec.template, "labels"),
        "annotations": users_own(&spec.template, "annotations"),
        // A foreground deletion of the QuarksJob waits for the Job, and the Job's for its pods.
        "ownerReferences": [{
            "apiVersion": API_VERSION, "kind": KIND, "name": &*key.name, "uid": uid, "controller": true, "blockOwnerDeletion": true,
        }],
    });
    metadata["labels"][LABEL_QJOB_NAME] = json!(qjob_label);
    metadata["annotations"][ANNOTATION_RUN] = json!(record.encode());
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job_spec})
}

/// Labels or annotations of the template for the Job; keys of our group are set by the operator.
fn users_own(template: &Value, part: &str) -> Value {
    let mut own = template.pointer(&format!("/metadata/{part}")).and_then(Value::as_object).cloned().unwrap_or_default();
    own.retain(|key, _| key.split('/').next() != Some(GROUP));
    Value::Object(own)
}

/// The mapping as of now, for the sidecar; a later edit of the QuarksJob does not change it.
fn plan(key: &ObjectKey, uid: &Uid, record: &RunRecord, spec: &Spec, output: &Output) -> Plan {
    let mut containers: BTreeMap<String, ContainerPlan> = BTreeMap::new();
    let planned = |container: &str| ContainerPlan { remote_id: remote_id(&spec.template, container), ..ContainerPlan::default() };
    for (container, files) in &output.files {
        let mut plan = planned(container);
        for (file, options) in files {
            plan.files.insert(file.clone(), secret_plan(options));
        }
        containers.insert(container.clone(), plan);
    }
    for (container, options) in &output.logs {
        let mut plan = planned(container);
        plan.log = Some(secret_plan(options));
        containers.insert(container.clone(), plan);
    }
    Plan {
        quarks_job: key.name.to_string(),
        uid: uid.clone(),
        run: record.run,
        write_on_failure: output.write_on_failure,
        indexed: spec.is_indexed(),
        labels: output.labels.clone(),
        annotations: output.annotations.clone(),
        containers,
    }
}

fn secret_plan(options: &FileOutput) -> SecretPlan {
    let FileOutput { name, versioned, fan_out, labels, annotations } = options.clone();
    SecretPlan { name, versioned, fan_out, labels, annotations }
}

/// The container's literal env `REMOTE_ID`, made label-safe.
fn remote_id(template: &Value, container: &str) -> Option<String> {
    let containers = template.pointer("/spec/template/spec/containers")?.as_array()?;
    let env = containers.iter().find(|c| c["name"] == container)?.get("env")?.as_array()?;
    let value = env.iter().find(|variable| variable["name"] == "REMOTE_ID")?.get("value")?.as_str()?;
    Some(label_value(value)).filter(|label| !label.is_empty())
}

fn add_sidecar(pod_spec: &mut Map<String, Value>, output: &Output, plan: &Plan, settings: &SidecarSettings, assigns_users: bool) {
    // `collect` would bring a sort for each type: kilobytes of code for a few entries.
    let mut taken = BTreeSet::new();
    taken.extend(names_in(list_at(pod_spec, "volumes")));
    let mut volumes: BTreeMap<&str, String> = BTreeMap::new();
    volumes.extend(output.files.keys().map(|container| (container.as_str(), free_name(&mut taken, &output_volume(container)))));
    // A container that mounts a volume which is not declared may get the output of another one, but never the token.
    for list in ["containers", "initContainers"] {
        for container in pod_spec.get(list).and_then(Value::as_array).into_iter().flatten() {
            for mounts in ["volumeMounts", "volumeDevices"] {
                taken.extend(container.get(mounts).and_then(Value::as_array).into_iter().flat_map(|mounts| names_in(mounts)));
            }
        }
    }
    let token_volume = free_name(&mut taken, TOKEN_VOLUME);
    let mut container = sidecar_container(&volumes, plan, settings, pod_spec, assigns_users);
    list_at(as_object(&mut container), "volumeMounts").push(read_only_mount(&token_volume, SERVICE_ACCOUNT_DIR));
    let container_list = list_at(pod_spec, "containers");
    for container in container_list.iter_mut() {
        let volume = container["name"].as_str().and_then(|name| volumes.get(name)).cloned();
        if let Some(volume) = volume {
            list_at(as_object(container), "volumeMounts").push(json!({"name": volume, "mountPath": OUTPUT_MOUNT}));
        }
    }

    container_list.push(container);

    let volume_list = list_at(pod_spec, "volumes");
    for volume in volumes.values() {
        volume_list.push(json!({"name": volume, "emptyDir": settings.volume}));
    }
    let mut token = parsed(TOKEN_VOLUME_SOURCE);
    token["name"] = token_volume.into();
    volume_list.push(token);
    if let Some(secret) = &settings.image_pull_secret {
        let secrets = list_at(pod_spec, "imagePullSecrets");
        let entry = json!({"name": secret});
        if !secrets.contains(&entry) {
            secrets.push(entry);
        }
    }
}

fn names_in(list: &[Value]) -> impl Iterator<Item = String> {
    list.iter().filter_map(|entry| entry["name"].as_str()).map(str::to_owned)
}

fn read_only_mount(volume: &str, path: &str) -> Value {
    json!({"name": volume, "mountPath": path, "readOnly": true})
}

/// The sidecar in this pod, which does not have it yet.
fn sidecar_container(
    volumes: &BTreeMap<&str, String>,
    plan: &Plan,
    settings: &SidecarSettings,
    pod_spec: &Map<String, Value>,
    assigns_users: bool,
) -> Value {
    // User and group that the first mapped container sets itself.
    let own = |name: &str| {
        let mut containers = pod_spec.get("containers")?.as_array()?.iter();
        containers.find_map(|container| {
            let is_mapped = volumes.contains_key(container["name"].as_str()?);
            container.get("securityContext").filter(|_| is_mapped)?.get(name)?.as_i64()
        })
    };
    let mounts: Vec<Value> =
        volumes.iter().map(|(container, volume)| read_only_mount(volume, &format!("{SIDECAR_OUTPUT_ROOT}/{container}"))).collect();
    let mut container = parsed(CONTAINER);
    let fields = as_object(&mut container);
    let env = list_at(fields, "env");
    let literal = |name: &str, value: &str| json!({"name": name, "value": value});
    env.extend(plan.to_variables().iter().map(|(name, value)| literal(name, &escape_variables(value))));
    env.extend([literal("LOG_LEVEL", &settings.log_level), literal("LOG_FORMAT", settings.log_format)]);
    let context = settings.user.context(assigns_users, pod_spec.get("securityContext"), &own);
    for (name, value) in [
        ("image", settings.image.as_str().into()),
        ("imagePullPolicy", settings.image_pull_policy.as_str().into()),
        ("volumeMounts", Value::Array(mounts)),
        ("resources", Value::Object(resources_in(pod_spec, &settings.resources))),
        ("securityContext", context),
    ] {
        fields.insert(name.to_owned(), value);
    }
    container
}

/// Kubernetes expands `$(NAME)` in env values; `$$` stands for one dollar sign.
fn escape_variables(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{SIDECAR_CONTAINER, TOKEN_SECRET, Trigger};
    use crate::contract::plan::{PLAN_VARIABLE, POD_NAME_VARIABLE, POD_NAMESPACE_VARIABLE, POD_UID_VARIABLE};

    fn record(run: u64) -> RunRecord {
        RunRecord {
            run,
            trigger: Trigger::Once,
            strategy: None,
            template: None,
            config: None,
            request: None,
            ttl: None,
            output: true,
            delete_pods: false,
        }
    }

    fn build(template: Value, output: Option<Value>) -> Value {
        let mut spec = json!({"trigger": {"strategy": "once"}, "template": template});
        if let Some(output) = output {
            spec["output"] = output;
        }
        let spec = Spec::parse(&spec).expect("the test's spec is valid");
        let settings = SidecarSettings {
            image: "img".into(),
            image_pull_policy: "IfNotPresent".into(),
            image_pull_secret: Some("pull".into()),
            log_level: "info".into(),
            log_format: "json",
            resources: crate::rules::sidecar::resources("").expect("valid"),
            ..SidecarSettings::default()
        };
        build_job(&ObjectKey::new("ns", "q.1"), &Uid::from("u1"), "q-1-x-1", &spec, &record(1), &settings, false)
    }

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"a": "b", "quarks.cloudfoundry.org/x": "y"}, "annotations": {"c": "d"}},
            "spec": {
                "backoffLimit": 2, "ttlSecondsAfterFinished": 5, "aFieldOfTheFuture": {"x": [1, 2]},
                "template": {
                    "metadata": {"labels": {"delete": "pod"}},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "i"}, {"name": "other"}]}
                }
            }
        })
    }

    #[test]
    fn without_output_only_names_and_owner_are_added() {
        let job = build(template(), None);
        assert_eq!(job["metadata"]["name"], "q-1-x-1");
        assert_eq!(job["metadata"]["labels"], json!({"a": "b", "quarks.cloudfoundry.org/qjob-name": "q.1"}));
        assert_eq!(job["metadata"]["annotations"]["c"], "d");
        assert_eq!(
            job["metadata"]["ownerReferences"],
            json!([{
                "apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": "q.1", "uid": "u1",
                "controller": true, "blockOwnerDeletion": true,
            }])
        );
        let mut expected = template()["spec"].clone();
        expected.as_object_mut().expect("an object").remove("ttlSecondsAfterFinished");
        expected["template"]["metadata"]["labels"]["quarks.cloudfoundry.org/qjob-name"] = json!("q.1");
        assert_eq!(job["spec"], expected);
    }

    #[test]
    fn output_adds_the_sidecar_and_touches_only_mapped_containers() {
        let output = json!({"outputMap": {"main": {"a.json": {"name": "secret", "secretAnnotations": {"x": "$(POD_NAME)"}}}}});
        let job = build(template(), Some(output));
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["volumeMounts"], json!([{"name": "output-main", "mountPath": "/mnt/quarks"}]));
        assert_eq!(pod["containers"][1], json!({"name": "other"}));
        let sidecar = &pod["containers"][2];
        assert_eq!(sidecar["name"], "output-persist");
        assert_eq!(sidecar["securityContext"]["runAsUser"], 65532);
        assert_eq!(sidecar["volumeMounts"][0], json!({"name": "output-main", "mountPath": "/mnt/quarks/main", "readOnly": true}));
        let plan = sidecar["env"].as_array().expect("a list").iter().find(|v| v["name"] == PLAN_VARIABLE).expect("has the plan");
        let text = plan["value"].as_str().expect("text");
        assert!(sidecar["env"].as_array().is_some_and(|env| env.contains(&json!({"name": "LOG_FORMAT", "value": "json"}))), "{sidecar}");
        assert!(text.contains("$$(POD_NAME)"), "the kubelet must not expand what users wrote: {text}");
        let plan: Plan = serde_json::from_str(&text.replace("$$", "$")).expect("a plan");
        assert_eq!(plan.containers["main"].files["a.json"].name, "secret");
        assert_eq!(pod["volumes"][0], json!({"name": "output-main", "emptyDir": {}}));
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
    }

    /// What stands in constants as text is what the rest of the program goes by.
    #[test]
    fn the_sidecar_is_called_and_finds_what_its_other_half_expects() {
        let job = build(template(), Some(json!({"outputMap": {"main": {"a.json": {"name": "secret"}}}})));
        let pod = &job["spec"]["template"]["spec"];
        let sidecar = &pod["containers"][2];
        assert_eq!(sidecar["name"], SIDECAR_CONTAINER);
        let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        for (name, path) in
            [(POD_NAME_VARIABLE, "metadata.name"), (POD_NAMESPACE_VARIABLE, "metadata.namespace"), (POD_UID_VARIABLE, "metadata.uid")]
        {
            assert!(
                sidecar["env"].as_array().is_some_and(|env| env.contains(&json!({"name": name, "valueFrom": from(path)}))),
                "{sidecar}"
            );
        }
        assert_eq!(sidecar["env"].as_array().map(Vec::len), Some(6));
        assert_eq!(sidecar["volumeMounts"][1], json!({"name": TOKEN_VOLUME, "mountPath": SERVICE_ACCOUNT_DIR, "readOnly": true}));
        let token = &pod["volumes"][1];
        assert_eq!(token["name"], TOKEN_VOLUME);
        let mut files: Vec<Value> = Vec::new();
        for source in token["projected"]["sources"].as_array().expect("sources") {
            let items = source.as_object().and_then(|kinds| kinds.values().next()).expect("one kind");
            files.extend(items["items"].as_array().expect("items").iter().map(|item| item["path"].clone()));
        }
        assert_eq!(
            (token["projected"]["sources"][0]["secret"]["name"].as_str(), files),
            (Some(TOKEN_SECRET), vec![json!("token"), json!("ca.crt"), json!("namespace")])
        );
        assert_eq!(
            (sidecar["image"].as_str(), sidecar["imagePullPolicy"].as_str(), &sidecar["args"]),
            (Some("img"), Some("IfNotPresent"), &json!(["persist-output"]))
        );
    }

    #[test]
    fn what_is_added_never_has_the_name_of_something_else() {
        let names = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
        };
        let (long, hash) = ("c".repeat(63), &output_volume(&"c".repeat(63))["output-".len()..]);
        for (volumes, mapped) in [
            (&[][..], &["main"][..]),
            (&["output-main", "output-main-1"], &["main"]),
            (&[], &["persist-token"]),
            (&["output-persist-token"], &["persist-token", "persist-token-1", "persist-token-2"]),
            (&[], &[long.as_str(), hash]),
        ] {
            let mut template = template();
            let pod = &mut template["spec"]["template"]["spec"];
            pod["volumes"] = volumes.iter().map(|name| json!({"name": name})).collect();
            pod["containers"] = mapped.iter().map(|name| json!({"name": name})).collect();
            // A container that mounts the token's volume by its name does not get it.
            pod["initContainers"] = json!([{"name": "i", "volumeMounts": [{"name": "output-persist-token", "mountPath": "/t"}]}]);
            let map: Map<String, Value> = mapped.iter().map(|name| ((*name).to_owned(), json!({"a": {"name": *name}}))).collect();
            let job = build(template, Some(json!({"outputMap": map})));
            let pod = &job["spec"]["template"]["spec"];
            let all = names(&pod["volumes"]);
            let distinct: BTreeSet<_> = all.iter().collect();
            assert_eq!((distinct.len(), all.len()), (all.len(), volumes.len() + mapped.len() + 1), "{all:?}");
            assert!(all.iter().all(|name| name.len() <= 63), "{all:?}");
            let sidecar = &pod["containers"][mapped.len()];
            for (at, name) in mapped.iter().enumerate() {
                let own = &pod["containers"][at]["volumeMounts"][0]["name"];
                let path = json!(format!("/mnt/quarks/{name}"));
                let seen = sidecar["volumeMounts"].as_array().expect("a list").iter().find(|mount| mount["mountPath"] == path);
                assert_eq!(seen.map(|mount| &mount["name"]), Some(own), "{name}");
                assert!(!volumes.iter().any(|users| own == users), "{name} has {own}");
            }
            let token = pod["volumes"].as_array().expect("a list").iter().find(|volume| !volume["projected"].is_null()).expect("the token");
            let is_token = |mount: &&Value| mount["name"] == token["name"];
            let places = sidecar["volumeMounts"].as_array().expect("a list").iter().filter(is_token).map(|mount| &mount["mountPath"]);
            assert_eq!(places.collect::<Vec<_>>(), [SERVICE_ACCOUNT_DIR]);
            assert_ne!(token["name"], pod["initContainers"][0]["volumeMounts"][0]["name"]);
        }
    }

    #[test]
    fn a_container_that_mounts_what_the_template_does_not_declare_may_get_output_and_never_the_token() {
        let mount = |field: &str, name: &str| json!([{"name": "main", field: [{"name": name, "mountPath": "/t", "devicePath": "/t"}]}]);
        for (name, is_output) in [("output-main", true), ("output-persist-token", false), ("output-main-1", false)] {
            for (list, field) in [
                ("containers", "volumeMounts"),
                ("containers", "volumeDevices"),
                ("initContainers", "volumeMounts"),
                ("initContainers", "volumeDevices"),
            ] {
                let mut template = template();
                let pod = &mut template["spec"]["template"]["spec"];
                pod["containers"] = json!([{"name": "main"}]);
                pod[list] = mount(field, name);
                let job = build(template, Some(json!({"outputMap": {"main": {"a.json": {"name": "secret"}}}})));
                let pod = &job["spec"]["template"]["spec"];
                assert_eq!(pod[list][0][field][0]["name"], name, "left as it is");
                let volumes = pod["volumes"].as_array().expect("a list");
                let (token, output): (Vec<_>, Vec<_>) = volumes.iter().partition(|volume| volume["projected"].is_object());
                let is_it = |volume: &&Value| volume["name"] == name;
                assert_eq!((token.len(), output.len()), (1, 1), "{volumes:?}");
                assert!(!token.iter().any(is_it), "{list} {field}: {volumes:?}");
                assert_eq!(output.iter().any(is_it), is_output, "{list} {field}: {volumes:?}");
            }
        }
    }

    #[test]
    fn a_log_needs_no_volume_and_leaves_its_container_as_it_is() {
        let output = json!({"outputMap": {"main": {"a.json": {"name": "secret"}}}, "namePrefix": "log-", "secretLabels": {"l": "1"}});
        let job = build(template(), Some(output));
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][1], json!({"name": "other"}));
        let sidecar = &pod["containers"][2];
        let names = |list: &Value| list.as_array().expect("a list").iter().map(|entry| entry["name"].clone()).collect::<Vec<_>>();
        assert_eq!(names(&sidecar["volumeMounts"]), ["output-main", "output-persist-token"]);
        assert_eq!(names(&pod["volumes"]), ["output-main", "output-persist-token"]);
        let plan = sidecar["env"].as_array().expect("a list").iter().find(|v| v["name"] == PLAN_VARIABLE).expect("has the plan");
        let plan: Plan = serde_json::from_str(plan["value"].as_str().expect("text")).expect("a plan");
        let (main, other) = (&plan.containers["main"], &plan.containers["other"]);
        assert!(main.log.is_none() && main.files.len() == 1 && other.files.is_empty());
        let log = other.log.as_ref().expect("a log");
        assert_eq!((log.name.as_str(), plan.labels["l"].as_str(), log.fan_out), ("log-other", "1", false));
    }

    #[test]
    fn the_sidecar_takes_over_user_and_group() {
        let user = |pod: Value, container: Value| {
            let mut template = template();
            template["spec"]["template"]["spec"]["securityContext"] = pod;
            template["spec"]["template"]["spec"]["containers"][0]["securityContext"] = container;
            let job = build(template, Some(json!({"outputMap": {"main": {"a": {"name": "s"}}}})));
            let context = job["spec"]["template"]["spec"]["containers"][2]["securityContext"].clone();
            (context["runAsUser"].as_i64(), context["runAsGroup"].as_i64(), context["runAsNonRoot"].as_bool())
        };
        assert_eq!(user(Value::Null, Value::Null), (Some(65532), Some(65532), Some(true)));
        assert_eq!(user(json!({"runAsUser": 7, "runAsGroup": 8}), Value::Null), (Some(7), Some(8), Some(true)));
        assert_eq!(user(json!({"runAsUser": 7}), json!({"runAsUser": 9, "runAsGroup": 1})), (Some(9), Some(1), Some(true)));
        assert_eq!(user(json!({"runAsUser": 0}), Value::Null), (Some(0), Some(0), Some(false)));
    }

    #[test]
    fn the_sidecar_asks_for_what_the_pod_leaves_it() {
        let resources = |own: Value, main: Value, other: Value| {
            let mut template = template();
            let pod = &mut template["spec"]["template"]["spec"];
            pod["resources"] = own;
            pod["containers"][0]["resources"] = main;
            pod["containers"][1]["resources"] = other;
            build(template, Some(json!({"outputMap": {"main": {"a": {"name": "s"}}}})))["spec"]["template"]["spec"]["containers"][2]
                ["resources"]
                .clone()
        };
        let usual = json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}});
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let equal = json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}});
        assert_eq!(resources(Value::Null, Value::Null, Value::Null), usual);
        assert_eq!(resources(Value::Null, limits.clone(), Value::Null), usual);
        assert_eq!(resources(Value::Null, limits.clone(), limits.clone()), equal);
        assert_eq!(resources(limits.clone(), limits.clone(), limits), json!({}));
    }

    #[test]
    fn fields_beside_metadata_and_spec_are_named() {
        assert_eq!(ignored_fields(&template()), None);
        let message = ignored_fields(&json!({"spec": {}, "backoffLimit": 1})).expect("a warning");
        assert!(message.contains("backoffLimit"), "{message}");
    }

    #[test]
    fn remote_id_is_made_label_safe() {
        let mut template = template();
        template["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "REMOTE_ID", "value": "a/b"}]);
        assert_eq!(remote_id(&template, "main").as_deref(), Some("a-b"));
        template["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "REMOTE_ID", "valueFrom": {}}]);
        assert_eq!(remote_id(&template, "main"), None);
    }
}
