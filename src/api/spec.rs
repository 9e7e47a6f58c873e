//! The validated form of a QuarksJob's spec. The CRD has the same rules where it can express them; objects stored before a rule
//! existed, or under another CRD, are rejected here before a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    LABEL_DELETE, LONGEST_VERSION, NAME_MAX, OUTPUT_MOUNT, SIDECAR_CONTAINER, Strategy, StringMap, is_reserved_secret, is_subdomain,
    null_as_default,
};

/// Longest `spec.output` as JSON, in bytes. The sidecar gets it in its environment: Linux starts no program with more than 2 MiB there,
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
    /// By container and file: what is done with the file.
    pub files: BTreeMap<String, BTreeMap<String, FileOutput>>,
    /// Files are stored even if their container failed.
    pub write_on_failure: bool,
    /// By container: what is done with its log: with `namePrefix`, all ordinary containers that are not in `files`.
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
            SpecError::new("spec.trigger.strategy", format!("must be manual, once, now or done, not {:?}", shorten(word)))
        })?;
        let template = spec.get("template").cloned().unwrap_or_default();
        let pod = PodTemplate::of(&template)?;
        if pod.job_spec.get("manualSelector") == Some(&Value::Bool(true)) && !has_delete_pod_label(&template) {
            return Err(SpecError::new(
                "spec.template.spec.manualSelector",
                "requires the pod label `delete: pod`; otherwise the next run would count the kept pods as its own",
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
            .ok_or_else(|| SpecError::new(format!("spec.{name}"), "must be a non-negative integer")),
    }
}

/// Where the pod's spec is.
const POD: &str = "spec.template.spec.template.spec";

/// True if the template says that pods go with their Job after a success.
pub fn has_delete_pod_label(template: &Value) -> bool {
    template.pointer("/spec/template/metadata/labels").is_some_and(|labels| labels[LABEL_DELETE] == "pod")
}

/// A path as the kubelet takes it: a relative one starts at the root too.
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
                .ok_or_else(|| SpecError::new(path, "is required; spec.template must be a batch/v1 JobTemplateSpec"))
        };
        let job_spec = object("/spec", "spec.template.spec")?;
        let pod_spec = object("/spec/template/spec", POD)?;
        let containers = pod_spec
            .get("containers")
            .and_then(Value::as_array)
            .filter(|containers| !containers.is_empty())
            .ok_or_else(|| SpecError::new(format!("{POD}.containers"), "must have at least one container"))?
            .iter()
            .map(|container| (container.get("name").and_then(Value::as_str).unwrap_or_default(), container))
            .collect();
        // With metadata that is not an object, the Job would lose our labels.
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

    /// Says so of a name in outputMap.
    fn no_container(&self, name: &str) -> String {
        let init = self.pod_spec.get("initContainers").and_then(Value::as_array);
        if init.is_some_and(|init| init.iter().any(|container| container["name"] == name)) {
            return "is an init container; init containers cannot have output".to_owned();
        }
        let known: Vec<&str> = self.containers.iter().map(|(name, _)| *name).collect();
        format!("is not a container of the template; must be one of: {}", known.join(", "))
    }

    fn check_room_for_sidecar(&self) -> Result<(), SpecError> {
        for list in ["containers", "initContainers"] {
            let containers = self.pod_spec.get(list).and_then(Value::as_array);
            if containers.is_some_and(|list| list.iter().any(|container| container["name"] == SIDECAR_CONTAINER)) {
                return Err(SpecError::new(
                    format!("{POD}.{list}"),
                    format!("{SIDECAR_CONTAINER:?} is reserved for the sidecar that stores the output; use another name"),
                ));
            }
        }
        if self.pod_spec.get("shareProcessNamespace") == Some(&Value::Bool(true)) {
            return Err(SpecError::new(
                format!("{POD}.shareProcessNamespace"),
                format!("must be false with spec.output; otherwise the pod's processes could read the token of {SIDECAR_CONTAINER}"),
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
                            format!("{:?} would hide output in {OUTPUT_MOUNT}; mount it elsewhere", shorten(path)),
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
                "several pods of the Job would write the same Secret; set versioned: true here or completionMode: Indexed in the template",
            ));
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
            return Err(SpecError::new("spec.output", format!("must be at most {OUTPUT_MAX} bytes of JSON, not {}", text.len())));
        }
        let raw: RawOutput = crate::json::from_slice(text.as_bytes()).map_err(|error| SpecError::new("spec.output", error.to_string()))?;
        if let Some(other) = raw.output_type.filter(|kind| kind != "json" && !kind.is_empty()) {
            return Err(SpecError::new("spec.output.outputType", format!("must be json, not {:?}", shorten(&other))));
        }
        let keep_versions = match raw.keep_versions {
            None => None,
            Some(number) => Some(u32::try_from(number).ok().filter(|n| *n >= 1).ok_or_else(|| {
                SpecError::new("spec.output.keepVersions", format!("must be at least 1, not {number}; omit the field to keep all versions"))
            })?),
        };
        let index = pod.longest_index();
        let mut names = BTreeSet::new();
        let mut files = BTreeMap::new();
        for (container, raw_files) in raw.output_map {
            let path = format!("spec.output.outputMap[{container}]");
            if pod.container(&container).is_none() {
                return Err(SpecError::new(path, pod.no_container(&container)));
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
                let message = format!("must be one-to-one or fan-out, not {:?}", shorten(other));
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
        return Err(SpecError::new(path, format!("is not a valid file name; files must be directly in {OUTPUT_MOUNT}")));
    }
    Ok(())
}

/// `index` is what follows it in an Indexed Job, `names` are those of the outputs before.
fn check_secret_name(output: &FileOutput, index: &str, names: &mut BTreeSet<String>, path: &str) -> Result<(), SpecError> {
    let FileOutput { name, versioned, fan_out, .. } = output;
    let (key, version) = (if *fan_out { "-k" } else { "" }, if *versioned { LONGEST_VERSION } else { "" });
    let room = NAME_MAX.saturating_sub(index.len() + key.len() + version.len());
    let wrong = if !fan_out && is_reserved_secret(name) {
        format!("{name:?} is reserved for the operator; use another name")
    } else if !is_subdomain(name) {
        format!(
            "{:?} is not a valid Secret name: at most {NAME_MAX} lowercase letters, digits, '-' and '.', starting and ending with a letter or digit",
            shorten(name)
        )
    } else if name.len() > room {
        let of = format!("index, key and version are appended, and a Secret name has at most {NAME_MAX}");
        format!("{:?} has {} characters, must have at most {room}: {of}", shorten(name), name.len())
    } else if !names.insert(name.clone()) {
        format!("{name:?} is used by another output; each output needs its own Secret")
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
#[path = "spec_tests.rs"]
mod tests;
