//! `quarks-job render`: prints the Job that would be created, without a cluster.

use std::ffi::OsString;

use log::LevelFilter;
use serde_json::Value;

use crate::api::{API_VERSION, KIND, ObjectKey, Spec, Strategy, Trigger, Uid};
use crate::contract::record::RunRecord;
use crate::digest::Digest;
use crate::log::Format;
use crate::rules::names::job_name;
use crate::rules::template::{SidecarSettings, build_job, has_delete_pod_label, ignored_fields, ttl_seconds};
use crate::yaml;

use super::flag::{Flag, Given, Help};
use super::flags::SIDECAR;
use super::manifest::{FILENAME, Object, objects};
use super::output::{CliError, print, remark};

/// `render --help`.
pub(super) const HELP: Help = Help {
    head: "\
Usage: {me} render -f FILE [flags]   print the Job that would be created for each QuarksJob in FILE

No cluster is contacted: the UID is a placeholder, the run is the first one, and names of versioned Secrets such as X-v1
stay as they are. Other objects are skipped with a remark. A QuarksJob that the operator would not run is an error.

",
    flags: &[&FLAGS, &SIDECAR],
    tail: "
Exit codes: 0 printed, 1 failed, 2 usage error.
",
};

/// The UID is not known before the QuarksJob exists.
const PLACEHOLDER_UID: &str = "00000000-0000-0000-0000-000000000000";

static FLAGS: [Flag; 2] = [FILENAME, Flag::new("namespace", "NS", "", "default", "namespace of QuarksJobs that set none").short('n')];

pub(super) fn main(arguments: &[OsString]) -> Result<(), CliError> {
    let given = Given::parse(&[&FLAGS, &SIDECAR], 0, arguments, &|name| std::env::var_os(name))?;
    let (namespace, sidecar) = (given.namespace()?, given.sidecar(LevelFilter::Info, Format::Text)?);
    let mut text = String::new();
    for object in objects(&given)? {
        if object.text("/kind") != KIND || object.text("/apiVersion") != API_VERSION {
            remark(&format!("{}: {} is not a QuarksJob, skipped", object.place, object.title()));
            continue;
        }
        let job = job_of(&object, namespace.clone(), &sidecar)?;
        text.push_str("---\n");
        text.push_str(&yaml::write(&job));
    }
    if text.is_empty() {
        return Err(CliError::Failed(format!("{}: no QuarksJob found", given.value("filename").unwrap_or_default())));
    }
    print(&text)
}

fn job_of(object: &Object, namespace: Option<String>, sidecar: &SidecarSettings) -> Result<Value, CliError> {
    let name = object.text("/metadata/name");
    if !crate::api::is_subdomain(name) {
        return Err(object.error("metadata.name is missing or not a valid name"));
    }
    let own = object.text("/metadata/namespace");
    let namespace = match namespace {
        Some(asked) if !own.is_empty() && asked != own => {
            return Err(object.error(format!("metadata.namespace is {own}, but --namespace is {asked}")));
        }
        Some(asked) => asked,
        None if own.is_empty() => "default".to_owned(),
        None => own.to_owned(),
    };
    let spec = Spec::parse(&object.value["spec"]).map_err(|error| object.error(error))?;
    if let Some(warning) = ignored_fields(&spec.template) {
        remark(&format!("{}: {}: {warning}", object.place, object.title()));
    }
    let (trigger, strategy) = match spec.strategy {
        Strategy::Now => (Trigger::Now, Some(Strategy::Now)),
        Strategy::Once => (Trigger::Once, Some(Strategy::Once)),
        Strategy::Manual | Strategy::Done => (Trigger::Request, None),
    };
    let record = RunRecord {
        run: 1,
        trigger,
        strategy,
        template: Some(Digest::of_template(&spec.template).to_string()),
        config: None,
        request: None,
        ttl: ttl_seconds(&spec.template),
        output: spec.has_output(),
        delete_pods: has_delete_pod_label(&spec.template),
    };
    let uid = Uid::from(PLACEHOLDER_UID);
    let job_name = job_name(name, &uid, record.run);
    Ok(build_job(&ObjectKey::new(namespace, name), &uid, &job_name, &spec, &record, sidecar, false))
}
