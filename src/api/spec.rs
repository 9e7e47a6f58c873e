//! The checked form of a QuarksJob's spec. The CRD says the same rules where it can; objects stored before a rule,
//! or under another CRD, are caught here before a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    LABEL_DELETE, LONGEST_VERSION, OUTPUT_MOUNT, SIDECAR_CONTAINER, Strategy, StringMap, is_reserved_secret, null_as_default, split_version,
};

/// Longest Secret name and longest key of a Secret (DNS subdomain, RFC 1123; Kubernetes' `IsConfigMapKey`).
const NAME_MAX: usize = 253;
/// Longest `spec.output` as JSON, in bytes. The sidecar is told of it in its environment: Linux starts no program with more than 2 MiB there,
/// and the API server stores no Job above 1.5 MiB.
const OUTPUT_MAX: usize = 1024 * 1024;

/// A rule of the spec that an object breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// Path of the field, for example `spec.trigger.strategy`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl SpecError {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for SpecError {}

/// A spec that keeps every rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// When to run.
    pub strategy: Strategy,
    /// The Job template as the user wrote it.
    pub template: Value,
    /// A change of referenced ConfigMaps or Secrets is a trigger.
    pub update_on_config_change: bool,
    /// What to keep of a run.
    pub output: Option<Output>,
    /// No new run starts.
    pub suspend: bool,
    /// Failed Jobs kept.
    pub failed_jobs_history_limit: u32,
    /// Successful runs whose pods are kept.
    pub pod_history_limit: u32,
}

/// `spec.output`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Container, then file, to what is done with it.
    pub files: BTreeMap<String, BTreeMap<String, FileOutput>>,
    /// Files are stored even if their container failed.
    pub write_on_failure: bool,
    /// Container to what is done with its log: with `namePrefix`, all ordinary containers that are not in `files`.
    pub logs: BTreeMap<String, FileOutput>,
    /// Versions kept per name; `None` keeps all.
    pub keep_versions: Option<u32>,
    /// Labels of every Secret.
    pub labels: StringMap,
    /// Annotations of every Secret.
    pub annotations: StringMap,
}

/// What is done with one file, or one log; the default for `versioned` is merged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOutput {
    /// Name of the Secret; with fan-out its prefix.
    pub name: String,
    /// A new Secret for each new content.
    pub versioned: bool,
    /// One Secret for each top-level key.
    pub fan_out: bool,
    /// Labels of this Secret alone; they win over those of every Secret.
    pub labels: StringMap,
    /// Annotations of this Secret alone.
    pub annotations: StringMap,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOutput {
    #[serde(default, deserialize_with = "null_as_default")]
    output_map: BTreeMap<String, BTreeMap<String, RawFile>>,
    #[serde(default)]
    output_type: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    secret_labels: StringMap,
    #[serde(default, deserialize_with = "null_as_default")]
    secret_annotations: StringMap,
    #[serde(default, deserialize_with = "null_as_default")]
    versioned: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    write_on_failure: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    name_prefix: String,
    #[serde(default)]
    keep_versions: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    #[serde(default)]
    name: String,
    #[serde(default)]
    versioned: Option<bool>,
    #[serde(default, deserialize_with = "null_as_default")]
    secret_labels: StringMap,
    #[serde(default, deserialize_with = "null_as_default")]
    secret_annotations: StringMap,
    #[serde(default, rename = "persistencemethod")]
    persistence_method: Option<String>,
}

impl Spec {
    /// Checks `spec` of a QuarksJob against every rule; the first rule broken is the error.
    pub fn parse(spec: &Value) -> Result<Self, SpecError> {
        let word = spec.pointer("/trigger/strategy").and_then(Value::as_str).unwrap_or_default();
        let strategy = Strategy::parse(word).ok_or_else(|| {
            SpecError::new("spec.trigger.strategy", format!("{:?} is not a strategy; use manual, once, now or done", shorten(word)))
        })?;
        let template = spec.get("template").cloned().unwrap_or_default();
        let pod = PodTemplate::of(&template)?;
        if pod.job_spec.get("manualSelector") == Some(&Value::Bool(true)) && !has_delete_pod_label(&template) {
            return Err(SpecError::new(
                "spec.template.spec.manualSelector",
                "needs the pod label `delete: pod`: the next run would count pods that are kept for its own",
            ));
        }
        let output = match spec.get("output") {
            None | Some(Value::Null) => None,
            Some(output) => Some(Output::parse(output, &pod)?),
        };
        if let Some(output) = &output {
            pod.check_room_for_sidecar()?;
            pod.check_mounts(output)?;
            pod.check_several_pods(output)?;
            pod.check_versions(output)?;
        }
        Ok(Self {
            strategy,
            output,
            update_on_config_change: boolean(spec, "updateOnConfigChange")?,
            suspend: boolean(spec, "suspend")?,
            failed_jobs_history_limit: limit(spec, "failedJobsHistoryLimit", 10)?,
            pod_history_limit: limit(spec, "podHistoryLimit", 3)?,
            template,
        })
    }

    /// True if pods have a completion index.
    pub fn is_indexed(&self) -> bool {
        self.template.pointer("/spec/completionMode").and_then(Value::as_str) == Some("Indexed")
    }

    /// True if runs of this spec get the sidecar.
    pub fn has_output(&self) -> bool {
        self.output.is_some()
    }
}

fn boolean(spec: &Value, name: &str) -> Result<bool, SpecError> {
    match spec.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(SpecError::new(format!("spec.{name}"), "must be true or false")),
    }
}

fn limit(spec: &Value, name: &str, default: u32) -> Result<u32, SpecError> {
    match spec.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| SpecError::new(format!("spec.{name}"), "must be a whole number from 0")),
    }
}

/// Where the pod's spec is.
const POD: &str = "spec.template.spec.template.spec";

/// True if the template says that pods go with their Job after a success.
pub fn has_delete_pod_label(template: &Value) -> bool {
    template.pointer("/spec/template/metadata/labels").is_some_and(|labels| labels[LABEL_DELETE] == "pod")
}

/// A path as the kubelet takes it: one that is not absolute begins at the root, too.
fn parts_of(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// The parts of a Job template that rules speak of.
struct PodTemplate<'a> {
    job_spec: &'a Map<String, Value>,
    pod_spec: &'a Map<String, Value>,
    containers: Vec<(&'a str, &'a Value)>,
}

impl<'a> PodTemplate<'a> {
    fn of(template: &'a Value) -> Result<Self, SpecError> {
        let object = |pointer: &str, path: &str| {
            template
                .pointer(pointer)
                .and_then(Value::as_object)
                .ok_or_else(|| SpecError::new(path, "is missing; the template is a batch/v1 JobTemplateSpec"))
        };
        let job_spec = object("/spec", "spec.template.spec")?;
        let pod_spec = object("/spec/template/spec", POD)?;
        let containers = pod_spec
            .get("containers")
            .and_then(Value::as_array)
            .filter(|containers| !containers.is_empty())
            .ok_or_else(|| SpecError::new(format!("{POD}.containers"), "names no container"))?
            .iter()
            .map(|container| (container.get("name").and_then(Value::as_str).unwrap_or_default(), container))
            .collect();
        // Metadata that is no object would make the Job lose our labels.
        for pointer in ["/metadata", "/spec/template/metadata"] {
            for part in ["", "/labels", "/annotations"] {
                let path = format!("{pointer}{part}");
                if template.pointer(&path).is_some_and(|value| !value.is_object() && !value.is_null()) {
                    return Err(SpecError::new(format!("spec.template{}", path.replace('/', ".")), "must be a map"));
                }
            }
        }
        Ok(Self { job_spec, pod_spec, containers })
    }

    fn container(&self, name: &str) -> Option<&'a Value> {
        self.containers.iter().find(|(candidate, _)| *candidate == name).map(|(_, container)| *container)
    }

    fn check_room_for_sidecar(&self) -> Result<(), SpecError> {
        for list in ["containers", "initContainers"] {
            let containers = self.pod_spec.get(list).and_then(Value::as_array);
            if containers.is_some_and(|list| list.iter().any(|container| container["name"] == SIDECAR_CONTAINER)) {
                return Err(SpecError::new(
                    format!("{POD}.{list}"),
                    format!("{SIDECAR_CONTAINER:?} is the name of the container that stores the output; use another name"),
                ));
            }
        }
        if self.pod_spec.get("shareProcessNamespace") == Some(&Value::Bool(true)) {
            return Err(SpecError::new(
                format!("{POD}.shareProcessNamespace"),
                format!("with output your processes could read the token of {SIDECAR_CONTAINER}; set it to false"),
            ));
        }
        Ok(())
    }

    /// Nothing may be mounted over the output folder of a container or over one of its files.
    fn check_mounts(&self, output: &Output) -> Result<(), SpecError> {
        for (name, files) in &output.files {
            for (list, field) in [("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")] {
                let mounts = self.container(name).and_then(|container| container.get(list)).and_then(Value::as_array);
                for path in mounts.into_iter().flatten().filter_map(|mount| mount[field].as_str()) {
                    let parts = parts_of(path);
                    let below = parts.strip_prefix(&parts_of(OUTPUT_MOUNT)[..]);
                    if below.is_some_and(|below| below.first().is_none_or(|file| files.contains_key(*file))) {
                        return Err(SpecError::new(
                            format!("{POD}.containers[{name}].{list}"),
                            format!("{:?} would hide output below {OUTPUT_MOUNT}; mount it elsewhere", shorten(path)),
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Several pods that end well would overwrite each other's Secret, except by index or by version.
    fn check_several_pods(&self, output: &Output) -> Result<(), SpecError> {
        let number = |name: &str| self.job_spec.get(name).and_then(Value::as_u64);
        let is_indexed = self.job_spec.get("completionMode").and_then(Value::as_str) == Some("Indexed");
        let is_several = number("completions").or(number("parallelism")).unwrap_or(1) > 1;
        let all_versioned = output.all().all(|file| file.versioned);
        if is_several && !is_indexed && !all_versioned {
            return Err(SpecError::new(
                "spec.output",
                "several pods of this Job would write the same Secret; set versioned: true, or completionMode: Indexed in the template",
            ));
        }
        Ok(())
    }

    /// No output may have the name of another one's version. In an Indexed Job the index comes before the version.
    fn check_versions(&self, output: &Output) -> Result<(), SpecError> {
        let mut versioned = BTreeSet::new();
        versioned.extend(output.all().filter(|output| output.versioned && !output.fan_out).map(|output| output.name.clone()));
        for FileOutput { name, .. } in output.all().filter(|output| !output.versioned && !output.fan_out) {
            if let Some((base, _)) = split_version(name).filter(|(base, _)| self.longest_index().is_empty() && versioned.contains(*base)) {
                let message = format!("{name:?} would be a version of the output {base:?}, which is versioned; use another name");
                return Err(SpecError::new("spec.output", message));
            }
        }
        Ok(())
    }

    /// What follows the longest name of a pod's Secret at least: its index.
    fn longest_index(&self) -> String {
        if self.job_spec.get("completionMode").and_then(Value::as_str) != Some("Indexed") {
            return String::new();
        }
        let completions = self.job_spec.get("completions").and_then(Value::as_u64).unwrap_or(1);
        format!("-{}", completions.saturating_sub(1))
    }
}

impl Output {
    /// True if there can be versions beyond `keepVersions`.
    pub fn prunes_versions(&self) -> bool {
        self.keep_versions.is_some() && self.all().any(|output| output.versioned)
    }

    /// All files and logs.
    pub fn all(&self) -> impl Iterator<Item = &FileOutput> {
        self.files.values().flat_map(BTreeMap::values).chain(self.logs.values())
    }

    fn parse(value: &Value, pod: &PodTemplate<'_>) -> Result<Self, SpecError> {
        let text = value.to_string();
        if text.len() > OUTPUT_MAX {
            return Err(SpecError::new("spec.output", format!("has {} bytes as JSON; at most {OUTPUT_MAX} are possible", text.len())));
        }
        let raw: RawOutput = crate::json::from_slice(text.as_bytes()).map_err(|error| SpecError::new("spec.output", error.to_string()))?;
        if let Some(other) = raw.output_type.filter(|kind| kind != "json" && !kind.is_empty()) {
            return Err(SpecError::new("spec.output.outputType", format!("{:?} is not supported; use json", shorten(&other))));
        }
        let keep_versions = match raw.keep_versions {
            None => None,
            Some(number) => Some(u32::try_from(number).ok().filter(|n| *n >= 1).ok_or_else(|| {
                SpecError::new(
                    "spec.output.keepVersions",
                    format!("{number} is not possible; the least is 1, and without the field all are kept"),
                )
            })?),
        };
        let index = pod.longest_index();
        let mut names = BTreeSet::new();
        let mut files = BTreeMap::new();
        for (container, raw_files) in raw.output_map {
            let path = format!("spec.output.outputMap[{container}]");
            if pod.container(&container).is_none() {
                let known: Vec<&str> = pod.containers.iter().map(|(name, _)| *name).collect();
                return Err(SpecError::new(path, format!("the template has no container of this name; it has {}", known.join(", "))));
            }
            let mut checked = BTreeMap::new();
            for (file, raw_file) in raw_files {
                let path = format!("{path}[{file}]");
                check_file_name(&file, &path)?;
                let output = raw_file.check(&path, raw.versioned)?;
                check_secret_name(&output, &index, &mut names, &format!("{path}.name"))?;
                checked.insert(file, output);
            }
            files.insert(container, checked);
        }
        let mut logs = BTreeMap::new();
        if !raw.name_prefix.is_empty() {
            for (container, _) in pod.containers.iter().filter(|(container, _)| !files.contains_key(*container)) {
                let name = log_secret_name(&raw.name_prefix, container);
                let output = FileOutput { name, versioned: raw.versioned, ..FileOutput::default() };
                check_secret_name(&output, &index, &mut names, "spec.output.namePrefix")?;
                logs.insert((*container).to_owned(), output);
            }
        }
        let (labels, annotations) = (raw.secret_labels, raw.secret_annotations);
        Ok(Self { files, write_on_failure: raw.write_on_failure, logs, keep_versions, labels, annotations })
    }
}

impl RawFile {
    fn check(self, path: &str, versioned: bool) -> Result<FileOutput, SpecError> {
        let fan_out = match self.persistence_method.as_deref() {
            None | Some("" | "one-to-one") => false,
            Some("fan-out") => true,
            Some(other) => {
                let message = format!("{:?} is not a method; use one-to-one or fan-out", shorten(other));
                return Err(SpecError::new(format!("{path}.persistencemethod"), message));
            }
        };
        Ok(FileOutput {
            name: self.name,
            versioned: self.versioned.unwrap_or(versioned),
            fan_out,
            labels: self.secret_labels,
            annotations: self.secret_annotations,
        })
    }
}

/// Name of the Secret with a container's log. The original's manifests end the prefix with the dash; it is not doubled.
fn log_secret_name(prefix: &str, container: &str) -> String {
    format!("{}-{container}", prefix.strip_suffix('-').unwrap_or(prefix))
}

fn check_file_name(file: &str, path: &str) -> Result<(), SpecError> {
    if file.is_empty() || file.len() > NAME_MAX || file == "." || file == ".." || file.contains(['/', '\0']) {
        return Err(SpecError::new(path, format!("is not the name of a file directly below {OUTPUT_MOUNT}")));
    }
    Ok(())
}

/// DNS subdomain, RFC 1123: what Kubernetes asks of a Secret's name.
pub fn is_subdomain(name: &str) -> bool {
    let is_label = |label: &str| {
        let ends_well = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends_well(label.chars().next())
            && ends_well(label.chars().last())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= NAME_MAX && name.split('.').all(is_label)
}

/// `index` is what follows it in an Indexed Job, `names` are those of the outputs before.
fn check_secret_name(output: &FileOutput, index: &str, names: &mut BTreeSet<String>, path: &str) -> Result<(), SpecError> {
    let FileOutput { name, versioned, fan_out, .. } = output;
    let (key, version) = (if *fan_out { "-k" } else { "" }, if *versioned { LONGEST_VERSION } else { "" });
    let room = NAME_MAX.saturating_sub(index.len() + key.len() + version.len());
    let wrong = if !fan_out && is_reserved_secret(name) {
        format!("{name:?} is the operator's own; use another name")
    } else if !is_subdomain(name) {
        format!("{:?} is no name for a Secret: lower case letters, digits, dashes and dots, at most {NAME_MAX} characters", shorten(name))
    } else if name.len() > room {
        let of = format!("a Secret's name has at most {NAME_MAX}, and index, key and version follow this one");
        format!("{:?} has {} characters; at most {room} are possible here: {of}", shorten(name), name.len())
    } else if !names.insert(name.clone()) {
        format!("{name:?} is the name of two outputs; each needs a Secret of its own")
    } else {
        return Ok(());
    };
    Err(SpecError::new(path, wrong))
}

/// The start of a text that is quoted in a message.
fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> Value {
        json!({
            "trigger": {"strategy": "once"},
            "template": {"spec": {"template": {"spec": {"containers": [{"name": "main"}, {"name": "other"}]}}}},
            "output": {
                "outputMap": {"main": {"a.json": {"name": "a", "secretLabels": {"x": "file", "z": "file"}}}},
                "secretLabels": {"x": "all", "y": "all"}
            }
        })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut spec = spec();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
        spec.pointer_mut(parent).and_then(Value::as_object_mut).expect("the parent is an object").insert(name.to_owned(), value);
        spec
    }

    #[test]
    fn a_good_spec_gets_defaults_and_keeps_labels_where_they_are() {
        let parsed = Spec::parse(&spec()).expect("valid");
        assert_eq!((parsed.failed_jobs_history_limit, parsed.pod_history_limit, parsed.suspend), (10, 3, false));
        let output = parsed.output.expect("has output");
        let text = |labels: &StringMap| labels.iter().map(|(k, v)| format!("{k}={v} ")).collect::<String>();
        assert_eq!((text(&output.files["main"]["a.json"].labels), text(&output.labels)), ("x=file z=file ".into(), "x=all y=all ".into()));
    }

    #[test]
    fn each_broken_rule_names_its_field() {
        let containers = "/template/spec/template/spec/containers";
        let cases = [
            (with("/trigger/strategy", json!("sometimes")), "spec.trigger.strategy"),
            (with("/trigger/strategy", json!(1)), "spec.trigger.strategy"),
            (with("/template", json!({"spec": {}})), "spec.template.spec.template.spec"),
            (with(containers, json!([])), "spec.template.spec.template.spec.containers"),
            (with(containers, json!([{"name": "main"}, {"name": "output-persist"}])), "spec.template.spec.template.spec.containers"),
            (
                with(containers, json!([{"name": "main", "volumeMounts": [{"mountPath": "/mnt/quarks/"}]}])),
                "spec.template.spec.template.spec.containers[main].volumeMounts",
            ),
            (with("/template/metadata", json!("x")), "spec.template.metadata"),
            (with("/template/spec/template/metadata", json!({"labels": 1})), "spec.template.spec.template.metadata.labels"),
            (with("/template/spec/completions", json!(2)), "spec.output"),
            (with("/template/spec/parallelism", json!(2)), "spec.output"),
            (with("/suspend", json!("yes")), "spec.suspend"),
            (with("/failedJobsHistoryLimit", json!(-1)), "spec.failedJobsHistoryLimit"),
            (with("/podHistoryLimit", json!(1.5)), "spec.podHistoryLimit"),
            (with("/output/outputType", json!("yaml")), "spec.output.outputType"),
            (with("/output/keepVersions", json!(0)), "spec.output.keepVersions"),
            (with("/output/outputMap", json!({"nobody": {"a": {"name": "a"}}})), "spec.output.outputMap[nobody]"),
            (with("/output/outputMap", json!({"main": {"../a": {"name": "a"}}})), "spec.output.outputMap[main][../a]"),
            (with("/output/outputMap", json!({"main": {"a": {"name": "A"}}})), "spec.output.outputMap[main][a].name"),
            (with("/output/outputMap", json!({"main": {"a": {}}})), "spec.output.outputMap[main][a].name"),
            (
                with("/output/outputMap", json!({"main": {"a": {"name": "s"}}, "other": {"b": {"name": "s"}}})),
                "spec.output.outputMap[other][b].name",
            ),
            (
                with("/output/outputMap", json!({"main": {"a": {"name": "a", "persistencemethod": "x"}}})),
                "spec.output.outputMap[main][a].persistencemethod",
            ),
            (with("/output/namePrefix", json!("X")), "spec.output.namePrefix"),
            (with("/output/namePrefix", json!("p.")), "spec.output.namePrefix"),
            (with("/output/namePrefix", json!("-")), "spec.output.namePrefix"),
            (with("/output/namePrefix", json!("p".repeat(248))), "spec.output.namePrefix"),
            (with("/output", json!({"outputMap": {"main": {"a": {"name": "p-other"}}}, "namePrefix": "p-"})), "spec.output.namePrefix"),
            (with("/output", json!({"outputMap": {"main": {"a": {"name": "p-other"}}}, "namePrefix": "p"})), "spec.output.namePrefix"),
            (with("/output", json!("all")), "spec.output"),
        ];
        for (spec, field) in cases {
            let error = Spec::parse(&spec).expect_err(field);
            assert_eq!(error.field, field, "{error}");
        }
    }

    #[test]
    fn no_output_has_the_name_of_a_version_of_another() {
        let entry = |name: &str, versioned: bool, method: &str| json!({"name": name, "versioned": versioned, "persistencemethod": method});
        let plain = |name: &str| entry(name, false, "one-to-one");
        let versioned = |name: &str| entry(name, true, "one-to-one");
        for (one, other, indexed, is_valid) in [
            (plain("s-v1"), versioned("s"), false, false),
            (versioned("s"), plain("s-v20"), false, false),
            (plain("s-v1"), versioned("s"), true, true),
            (plain("s-v1"), plain("s"), false, true),
            (versioned("s-v1"), versioned("s"), false, true),
            (versioned("s-v1"), plain("s"), false, true),
            (plain("s-v01"), versioned("s"), false, true),
            (plain("s-v1-v2"), versioned("s"), false, true),
            (plain("s-v1"), entry("s", true, "fan-out"), false, true),
            (entry("s-v1", false, "fan-out"), versioned("s"), false, true),
        ] {
            let mut spec = with("/output/outputMap", json!({"main": {"a": one}, "other": {"b": other}}));
            if indexed {
                spec["template"]["spec"]["completionMode"] = json!("Indexed");
            }
            let refused = Spec::parse(&spec).err().map(|error| error.field);
            assert_eq!(refused.as_deref(), (!is_valid).then_some("spec.output"), "{spec}");
        }
        let log = json!({"outputMap": {"main": {"a": versioned("p-other")}}, "namePrefix": "p", "versioned": false});
        let mut spec = with("/output", log);
        spec["template"]["spec"]["template"]["spec"]["containers"][1]["name"] = json!("other-v1");
        assert_eq!(
            Spec::parse(&spec).expect_err("refused").message,
            "\"p-other-v1\" would be a version of the output \"p-other\", which is versioned; use another name"
        );
    }

    #[test]
    fn names_leave_room_for_what_follows_them() {
        let (file, log) = ("spec.output.outputMap[main][a].name", "spec.output.namePrefix");
        for (versioned, method, completions, most) in [
            (false, "one-to-one", None, 253),
            (true, "one-to-one", None, 231),
            (false, "fan-out", None, 251),
            (true, "fan-out", None, 229),
            (false, "one-to-one", Some(1), 251),
            (false, "one-to-one", Some(10), 251),
            (false, "one-to-one", Some(11), 250),
            (true, "fan-out", Some(1_000), 225),
        ] {
            let parse = |output: Value| {
                let mut spec = with("/output", output);
                if let Some(completions) = completions {
                    spec["template"]["spec"]["completionMode"] = json!("Indexed");
                    spec["template"]["spec"]["completions"] = json!(completions);
                }
                Spec::parse(&spec).err().map(|error| error.field)
            };
            let of_map = |length: usize| {
                parse(
                    json!({"outputMap": {"main": {"a": {"name": "n".repeat(length), "versioned": versioned, "persistencemethod": method}}}}),
                )
            };
            // The longer one of the two containers is `-other`.
            let of_log = |length: usize| parse(json!({"namePrefix": "n".repeat(length - 6), "versioned": versioned}));
            assert_eq!((of_map(most), of_map(most + 1).as_deref()), (None, Some(file)), "{versioned} {method} {completions:?}");
            if method == "one-to-one" {
                assert_eq!((of_log(most), of_log(most + 1).as_deref()), (None, Some(log)), "{versioned} {completions:?}");
            }
        }
        let spec = with("/output/outputMap", json!({"main": {"a": {"name": "n".repeat(232), "versioned": true}}}));
        let expected = "has 232 characters; at most 231 are possible here: a Secret's name has at most 253, and index, key and version follow this one";
        assert!(Spec::parse(&spec).expect_err("too long").message.ends_with(expected));
    }

    #[test]
    fn names_of_our_own_secrets_are_refused_but_as_a_beginning() {
        let prefixed = |prefix: &str, container: &str, versioned: bool| {
            let mut spec = with("/output", json!({"namePrefix": prefix, "versioned": versioned}));
            spec["template"]["spec"]["template"]["spec"]["containers"] = json!([{"name": container}]);
            spec
        };
        let mapped = |name: &str, method: &str, versioned: bool| {
            with("/output/outputMap", json!({"main": {"a": {"name": name, "persistencemethod": method, "versioned": versioned}}}))
        };
        let field = "spec.output.outputMap[main][a].name";
        for (spec, refused) in [
            (mapped("quarks-job-sidecar-token", "one-to-one", false), Some(field)),
            (mapped("quarks-job-config-key", "one-to-one", false), Some(field)),
            (mapped("quarks-job-config-key", "", true), Some(field)),
            (mapped("quarks-job-config-key", "fan-out", false), None),
            (mapped("quarks-job-config", "one-to-one", false), None),
            (prefixed("quarks-job-sidecar-", "token", false), Some("spec.output.namePrefix")),
            (prefixed("quarks-job-config", "key", false), Some("spec.output.namePrefix")),
            (prefixed("quarks-job-config", "key", true), Some("spec.output.namePrefix")),
            (prefixed("quarks-job-config", "keys", false), None),
        ] {
            let parsed = Spec::parse(&spec);
            assert_eq!(parsed.as_ref().err().map(|error| error.field.as_str()), refused, "{parsed:?}");
        }
    }

    #[test]
    fn what_the_pod_template_must_not_have_names_its_field() {
        let pod = "/template/spec/template/spec";
        let mounts = |field: &str, paths: &str, path: &str| {
            with(&format!("{pod}/containers"), json!([{"name": "main", field: [{"name": "v", paths: path}]}, {"name": "other"}]))
        };
        let at = |path: &str| mounts("volumeMounts", "mountPath", path);
        let manual = |labels: Value| {
            let mut spec = with("/template/spec/manualSelector", json!(true));
            spec["template"]["spec"]["template"]["metadata"] = json!({"labels": labels});
            spec
        };
        let no_output = |mut spec: Value| {
            spec["output"] = Value::Null;
            spec
        };
        let share = || with(&format!("{pod}/shareProcessNamespace"), json!(true));
        let mount = "spec.template.spec.template.spec.containers[main].volumeMounts";
        for (spec, refused) in [
            (share(), Some("spec.template.spec.template.spec.shareProcessNamespace")),
            (with(&format!("{pod}/shareProcessNamespace"), json!(false)), None),
            (no_output(share()), None),
            (with(&format!("{pod}/hostPID"), json!(true)), None),
            (manual(json!({"app": "a"})), Some("spec.template.spec.manualSelector")),
            (no_output(manual(json!(null))), Some("spec.template.spec.manualSelector")),
            (manual(json!({"delete": "no"})), Some("spec.template.spec.manualSelector")),
            (manual(json!({"delete": "pod"})), None),
            (with("/template/spec/manualSelector", json!(false)), None),
            (at("/mnt/quarks"), Some(mount)),
            (at("/mnt//./x/../quarks/"), Some(mount)),
            (at("mnt/quarks"), Some(mount)),
            (at("/mnt/quarks/a.json"), Some(mount)),
            (at("/mnt/quarks/a.json/below"), Some(mount)),
            (at("/mnt/quarks/b.json"), None),
            (at("/mnt"), None),
            (at("/mnt/quarks2"), None),
            (mounts("volumeDevices", "devicePath", "/mnt/quarks"), Some("spec.template.spec.template.spec.containers[main].volumeDevices")),
            (
                with(&format!("{pod}/initContainers"), json!([{"name": "output-persist", "restartPolicy": "Always"}])),
                Some("spec.template.spec.template.spec.initContainers"),
            ),
        ] {
            let parsed = Spec::parse(&spec);
            assert_eq!(parsed.as_ref().err().map(|error| error.field.as_str()), refused, "{spec}: {parsed:?}");
        }
    }

    #[test]
    fn output_that_the_sidecar_cannot_be_told_of_is_named_with_its_size() {
        let with_length = |length: usize| {
            let mut output = json!({"namePrefix": "p", "secretAnnotations": {"a": ""}});
            output["secretAnnotations"]["a"] = json!("x".repeat(length - output.to_string().len()));
            Spec::parse(&with("/output", output))
        };
        with_length(OUTPUT_MAX).expect("allowed");
        let error = with_length(OUTPUT_MAX + 1).expect_err("too long");
        assert_eq!(error.to_string(), "spec.output: has 1048577 bytes as JSON; at most 1048576 are possible");
    }

    #[test]
    fn several_pods_may_write_by_index_or_version() {
        for (pointer, value) in [("/template/spec/completionMode", json!("Indexed")), ("/output/versioned", json!(true))] {
            let mut spec = with(pointer, value);
            spec["template"]["spec"]["completions"] = json!(3);
            Spec::parse(&spec).expect("allowed");
        }
    }

    #[test]
    fn logs_of_containers_that_are_not_in_the_map_are_output() {
        let logs = |output: Value| Spec::parse(&with("/output", output)).expect("valid").output.expect("has output").logs;
        let names = |output| logs(output).into_iter().map(|(container, log)| (container, log.name)).collect::<Vec<_>>();
        let pair = |container: &str, name: &str| (container.to_owned(), name.to_owned());
        assert_eq!(names(json!({"namePrefix": "p"})), [pair("main", "p-main"), pair("other", "p-other")]);
        assert_eq!(names(json!({"namePrefix": "p-"})), [pair("main", "p-main"), pair("other", "p-other")]);
        assert_eq!(names(json!({"namePrefix": "p--"}))[0].1, "p--main");
        assert_eq!(names(json!({"outputMap": {"main": {"a": {"name": "a"}}}, "namePrefix": "p"})), [pair("other", "p-other")]);
        assert_eq!(names(json!({"outputMap": {"main": {"a": {"name": "a"}}}})), []);
        let log =
            logs(json!({"namePrefix": "p", "versioned": true, "secretLabels": {"l": "1"}, "secretAnnotations": {"a": "2"}})).remove("main");
        let log = log.expect("has a log");
        assert!(log.versioned && log.labels.is_empty() && log.annotations.is_empty(), "{log:?}");
    }

    #[test]
    fn subdomains() {
        for good in ["a", "a-b.c1", &"a".repeat(253)] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "A", "a_b", "ä", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
    }
}
