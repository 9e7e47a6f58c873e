//! `quarks-job convert`: converts ExtendedJobs of cf-operator, the predecessor, to QuarksJobs.
//!
//! The meaning of an ExtendedJob changed over the years. Two generations have an equivalent. They differ in the template (a pod
//! template, then a Job template) and in the output: the earlier one took it from logs, the later one from
//! `/mnt/quarks/output.json`.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use crate::api::{API_VERSION, KIND, OUTPUT_MOUNT, Spec, is_subdomain};
use crate::yaml;

use super::flag::{Flag, Given, Help};
use super::flags::boolean;
use super::manifest::{FILENAME, Object, objects};
use super::output::{CliError, print, remark};

/// `convert --help`.
pub(super) const HELP: Help = Help {
    head: "\
Usage: {me} convert -f FILE [flags]   convert each ExtendedJob (cf-operator) in FILE to a QuarksJob

Other objects are printed as they are: the output takes the place of FILE.
A field without an equivalent is an error; a change of meaning is reported on standard error. Comments are not kept.

",
    flags: &[&FLAGS],
    tail: "
Exit codes: 0 printed, 1 failed, 2 usage error.
",
};

static FLAGS: [Flag; 3] = [
    FILENAME,
    Flag::new("only", "", "", "", "leave out other objects"),
    Flag::new(
        "output-from",
        "SOURCE",
        "",
        "file if the template mentions /mnt/quarks, else log",
        "source of output with a namePrefix: file (each container's\n/mnt/quarks/output.json) or log",
    ),
];
/// What the containers of a file-based ExtendedJob wrote.
const OUTPUT_FILE: &str = "output.json";
/// `backoffLimit` that the ancestor gave to Jobs that it made from a pod template.
const BACKOFF_LIMIT: u64 = 2;
/// Metadata that belongs to the object and not to its manifest.
const SERVER_METADATA: [&str; 8] =
    ["uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields", "ownerReferences", "finalizers"];

pub(super) fn main(arguments: &[OsString]) -> Result<(), CliError> {
    let given = Given::parse(&[&FLAGS], 0, arguments, &|_| None)?;
    let source = given.value("output-from");
    if source.as_ref().is_some_and(|source| !matches!(source.as_str(), "file" | "log")) {
        return Err(super::flags::bad(given.find("output-from"), "is not a valid source; use file or log"));
    }
    let only = boolean(given.find("only"))?;
    let (mut text, mut found, mut has_comments) = (String::new(), false, false);
    for object in objects(&given)? {
        if !is_extended_job(&object) {
            if only {
                remark(&format!("{}: {} is not an ExtendedJob, skipped", object.place, object.title()));
            } else {
                push_as_it_is(&mut text, &object);
            }
            continue;
        }
        let mut remarks = Vec::new();
        let converted = convert(&object.value, source.as_deref(), &mut remarks).map_err(|error| object.error(error))?;
        for text in remarks {
            remark(&format!("{}: {}: {text}", object.place, object.title()));
        }
        text.push_str("---\n");
        text.push_str(&yaml::write(&converted));
        found = true;
        has_comments |= object.has_comments;
    }
    if !found {
        return Err(CliError::Failed(format!("{}: no ExtendedJob found", given.value("filename").unwrap_or_default())));
    }
    if has_comments {
        remark("comments are not kept");
    }
    print(&text)
}

fn is_extended_job(object: &Object) -> bool {
    let version = object.text("/apiVersion").split_once('/');
    object.text("/kind") == "ExtendedJob" && matches!(version, Some(("fissile.cloudfoundry.org" | "quarks.cloudfoundry.org", "v1alpha1")))
}

/// The document, comments and all; an object of a list is written anew.
fn push_as_it_is(text: &mut String, object: &Object) {
    if !object.document.starts_with("---") {
        text.push_str("---\n");
    }
    if object.document.is_empty() {
        text.push_str(&yaml::write(&object.value));
    } else {
        text.push_str(&object.document);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
}

/// The QuarksJob that does what the ExtendedJob did. Pure: what must be reported goes to `remarks`.
fn convert(object: &Value, source: Option<&str>, remarks: &mut Vec<String>) -> Result<Value, String> {
    if !object.get("metadata").and_then(|metadata| metadata.get("name")?.as_str()).is_some_and(is_subdomain) {
        return Err("metadata.name is missing or not a valid name".to_owned());
    }
    let fields = object.get("spec").and_then(Value::as_object).ok_or("spec is missing")?;
    let mut spec = json!({"trigger": {"strategy": strategy(fields)?}});
    let (template, is_pod_template) = template(fields.get("template").unwrap_or(&Value::Null), remarks)?;
    spec["template"] = template;
    if is_pod_template {
        remarks.push(format!("template is a pod template; wrapped in a Job template with backoffLimit {BACKOFF_LIMIT}, as before"));
    }
    let updates = fields.get("updateOnConfigChange").filter(|value| !value.is_null());
    if let Some(updates) = updates {
        spec["updateOnConfigChange"] = updates.clone();
    }
    if let Some(old) = fields.get("output").filter(|value| !value.is_null()) {
        spec["output"] = output(old, &spec["template"], source, remarks)?;
    }
    let known = ["trigger", "run", "triggers", "template", "output", "updateOnConfigChange"];
    only(fields, &known, "spec", remarks);
    Spec::parse(&spec).map_err(|error| error.to_string())?;

    let mut metadata = object["metadata"].clone();
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|name, _| !SERVER_METADATA.contains(&name.as_str()));
        if let Some(annotations) = fields.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    Ok(json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}))
}

/// `trigger.strategy`, or `run` of the first versions. Triggers by other pods have no equivalent.
fn strategy(fields: &Map<String, Value>) -> Result<String, String> {
    let trigger = fields.get("trigger");
    let by_pods = trigger.is_some_and(|trigger| trigger.get("podstate").is_some_and(|podstate| !podstate.is_null()));
    let word = trigger.and_then(|trigger| trigger.get("strategy")?.as_str());
    if fields.contains_key("triggers") || by_pods || word == Some("podstate") {
        return Err("triggers by the state of other pods have no equivalent; \
                    use strategy manual and run `quarks-job trigger` from what changes the pods"
            .to_owned());
    }
    match (word, fields.get("run").and_then(Value::as_str)) {
        (Some(word @ ("manual" | "once" | "now" | "done")), _) => Ok(word.to_owned()),
        (Some(_), _) => Err("trigger.strategy must be manual, once, now or done".to_owned()),
        (None, Some("manually")) => Ok("manual".to_owned()),
        (None, Some(word @ ("now" | "once"))) => Ok(word.to_owned()),
        (None, Some(_)) => Err("run must be manually, now or once".to_owned()),
        (None, None) => Err("trigger.strategy is missing".to_owned()),
    }
}

/// The Job template, and whether it was a pod template.
fn template(old: &Value, remarks: &mut Vec<String>) -> Result<(Value, bool), String> {
    if old.pointer("/spec/containers").is_some() {
        return Ok((json!({"spec": {"backoffLimit": BACKOFF_LIMIT, "template": old}}), true));
    }
    if old.pointer("/spec/template/spec/containers").is_none() {
        return Err("template must be a pod template or a Job template".to_owned());
    }
    let mut new = old.clone();
    if let Some(fields) = new.as_object_mut() {
        only(fields, &["metadata", "spec"], "template", remarks);
        fields.retain(|name, _| matches!(name.as_str(), "metadata" | "spec"));
    }
    Ok((new, false))
}

fn output(old: &Value, template: &Value, source: Option<&str>, remarks: &mut Vec<String>) -> Result<Value, String> {
    let fields = old.as_object().ok_or("output must be a mapping")?;
    let known = ["namePrefix", "outputType", "secretLabels", "writeOnFailure", "versioned"];
    let foreign = ["secretRef", "configMapRef", "stdout", "stderr"];
    if let Some(name) = foreign.iter().find(|name| fields.contains_key(**name)) {
        return Err(format!("output.{name} of early drafts has no equivalent; use output.namePrefix or output.outputMap"));
    }
    only(fields, &known, "output", remarks);
    let mut new = json!({});
    for name in ["outputType", "secretLabels", "writeOnFailure", "versioned"] {
        if let Some(value) = fields.get(name).filter(|value| !value.is_null()) {
            new[name] = value.clone();
        }
    }
    let prefix = fields.get("namePrefix").and_then(Value::as_str).unwrap_or_default();
    let containers = template.pointer("/spec/template/spec/containers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let names = || containers.iter().filter_map(|container| container.get("name")?.as_str());
    let is_mentioned = template.to_string().contains(OUTPUT_MOUNT);
    let from_file = source.map_or(is_mentioned, |source| source == "file");
    if from_file {
        for name in names() {
            new["outputMap"][name][OUTPUT_FILE] = json!({"name": format!("{prefix}{name}")});
        }
    } else if prefix.is_empty() {
        return Err("output.namePrefix is required for logs; set it, or use --output-from file".to_owned());
    } else {
        new["namePrefix"] = prefix.into();
        if let Some(name) = names().next().filter(|_| !prefix.ends_with('-')) {
            remarks.push(format!("the Secret of container {name} will be {prefix}-{name}; it was {prefix}{name}"));
        }
    }
    if source.is_none() {
        remarks.push(match from_file {
            true => {
                format!("output is taken from each container's {OUTPUT_MOUNT}/{OUTPUT_FILE}; if it went to the log, use --output-from log")
            }
            false => format!("output is taken from the logs; if it went to {OUTPUT_MOUNT}/{OUTPUT_FILE}, use --output-from file"),
        });
    }
    Ok(new)
}

/// Tells of fields that are left out.
fn only(fields: &Map<String, Value>, known: &[&str], path: &str, remarks: &mut Vec<String>) {
    let others: Vec<&str> = fields.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if !others.is_empty() {
        remarks.push(format!("{path}: removed fields without effect: {}", others.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"labels": {"delete": "pod"}}, "spec": {"restartPolicy": "Never", "containers": [
            {"name": "json", "image": "busybox", "args": ["-c", "echo $json >> /mnt/quarks/output.json"]}, {"name": "b", "image": "busybox"}]}})
    }

    fn extended(template: Value, change: impl FnOnce(&mut Value)) -> Value {
        let mut spec = json!({"template": template, "trigger": {"strategy": "once"}});
        change(&mut spec);
        json!({"apiVersion": "fissile.cloudfoundry.org/v1alpha1", "kind": "ExtendedJob", "status": {"nodes": []},
            "metadata": {"name": "myfoo", "namespace": "ns", "labels": {"a": "b"}, "uid": "u", "resourceVersion": "1"}, "spec": spec})
    }

    fn converted(object: &Value, source: Option<&str>) -> (Value, String) {
        let mut remarks = Vec::new();
        let new = convert(object, source, &mut remarks).expect("converts");
        assert_eq!((&new["apiVersion"], &new["kind"]), (&json!(API_VERSION), &json!(KIND)));
        Spec::parse(&new["spec"]).expect("a valid spec");
        (new, remarks.join("\n"))
    }

    #[test]
    fn a_pod_template_becomes_a_job_template_with_the_ancestors_backoff_limit() {
        let (new, remarks) = converted(&extended(pod(), |_| {}), None);
        assert_eq!(new["metadata"], json!({"name": "myfoo", "namespace": "ns", "labels": {"a": "b"}}));
        assert_eq!(new["spec"], json!({"trigger": {"strategy": "once"}, "template": {"spec": {"backoffLimit": 2, "template": pod()}}}));
        assert!(remarks.contains("pod template") && new.get("status").is_none(), "{remarks}");
    }

    #[test]
    fn a_job_template_stays_and_what_had_no_effect_goes() {
        let old = json!({"backoffLimit": 2, "spec": {"template": pod()}});
        let (new, remarks) = converted(&extended(old, |spec| spec["updateOnConfigChange"] = json!(true)), None);
        assert_eq!(new["spec"]["template"], json!({"spec": {"template": pod()}}));
        assert_eq!(new["spec"]["updateOnConfigChange"], true);
        assert_eq!(remarks, "template: removed fields without effect: backoffLimit");
    }

    #[test]
    fn strategies() {
        for (given, expected) in [
            (json!({"trigger": {"strategy": "manual"}}), "manual"),
            (json!({"trigger": {"strategy": "now"}}), "now"),
            (json!({"trigger": {"strategy": "done", "podstate": null}}), "done"),
            (json!({"run": "manually"}), "manual"),
            (json!({"run": "once"}), "once"),
        ] {
            assert_eq!(strategy(given.as_object().expect("a map")).as_deref(), Ok(expected));
        }
        for (given, expected) in [
            (json!({}), "is missing"),
            (json!({"trigger": {"strategy": "always"}}), "must be manual"),
            (json!({"run": "daily"}), "run must be manually"),
            (json!({"trigger": {"strategy": "podstate", "podstate": {"when": "deleted"}}}), "state of other pods"),
            (json!({"run": "once", "triggers": {"when": "ready"}}), "state of other pods"),
        ] {
            let error = strategy(given.as_object().expect("a map")).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn output_comes_from_the_file_or_the_log() {
        let options = json!({"namePrefix": "foo-", "outputType": "json", "secretLabels": {"key": "value"}, "writeOnFailure": true, "versioned": true});
        let with = |prefix: &str| {
            extended(pod(), |spec| {
                spec["output"] = options.clone();
                spec["output"]["namePrefix"] = json!(prefix);
            })
        };
        let same = |output: &Value| {
            ["outputType", "secretLabels", "writeOnFailure", "versioned"]
                .iter()
                .for_each(|name| assert_eq!(output[name], options[name], "{name}"));
        };
        let map = |json: &str, b: &str| json!({"json": {"output.json": {"name": json}}, "b": {"output.json": {"name": b}}});
        for source in [None, Some("file")] {
            let (new, remarks) = converted(&with("foo-"), source);
            let output = &new["spec"]["output"];
            assert_eq!((&output["outputMap"], output.get("namePrefix")), (&map("foo-json", "foo-b"), None));
            same(output);
            assert_eq!(remarks.contains("--output-from log"), source.is_none(), "{remarks}");
        }
        // The ancestor put no dash between prefix and container.
        assert_eq!(converted(&with("foo"), None).0["spec"]["output"]["outputMap"], map("foojson", "foob"));
        let (new, remarks) = converted(&with("foo-"), Some("log"));
        assert_eq!((&new["spec"]["output"]["namePrefix"], new["spec"]["output"].get("outputMap")), (&json!("foo-"), None));
        same(&new["spec"]["output"]);
        assert!(!remarks.contains("Secret"), "{remarks}");
        assert!(converted(&with("foo"), Some("log")).1.contains("will be foo-json; it was foojson"));
    }

    #[test]
    fn what_has_no_equivalent_is_an_error() {
        let cases = [
            (extended(json!({"spec": {}}), |_| {}), "must be a pod template or a Job template"),
            (extended(pod(), |spec| spec["output"] = json!({"secretRef": "x"})), "output.secretRef of early drafts"),
            (extended(pod(), |spec| spec["output"] = json!("x")), "output must be a mapping"),
            (extended(pod(), |spec| spec["output"] = json!({"namePrefix": "p-", "outputType": "yaml"})), "spec.output.outputType"),
            (extended(pod(), |spec| spec["output"] = json!({"namePrefix": "P_"})), "spec.output.outputMap[b][output.json].name"),
            (extended(pod(), |spec| spec["updateOnConfigChange"] = json!("yes")), "spec.updateOnConfigChange"),
            (json!({"metadata": {"name": "a"}}), "spec is missing"),
            (json!({"metadata": {"name": "A b"}, "spec": {}}), "metadata.name"),
        ];
        for (object, expected) in cases {
            let error = convert(&object, None, &mut Vec::new()).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
