//! `quarks-job crd`: the custom resource definition, compiled in, so that program and definition cannot differ.

use serde_json::Value;

use crate::api::{ObjectKey, Resource};
use crate::kube::{Client, Request};

use super::CliError;

/// The manifest as it is in the repository.
pub const MANIFEST: &str = include_str!("../../manifests/crd.yaml");

/// Creates the definition, or brings the one that is there up to date.
pub fn apply(client: &Client) -> Result<(), CliError> {
    let definition: Value =
        serde_yaml::from_str(MANIFEST).map_err(|error| CliError::Failed(format!("manifests/crd.yaml, compiled in: {error}")))?;
    let name = definition.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let key = ObjectKey::new("", name);
    let failed = |error| CliError::Failed(format!("the CRD could not be applied: {error}"));
    match client.call_unit(&Request::create(Resource::DEFINITIONS, "", &definition)) {
        Err(error) if error.is_already_exists() => {
            client.call_unit(&Request::merge_patch(Resource::DEFINITIONS, &key, &definition)).map_err(failed)
        }
        other => other.map_err(failed),
    }
}
