//! `quarks-job crd`: the custom resource definition, compiled in, so that program and definition cannot differ.

use serde_json::Value;

use crate::api::{ObjectKey, Resource};
use crate::kube::{Client, Request};
use crate::yaml;

use super::output::CliError;

/// The manifest as it is in the repository.
const SOURCE: &[u8] = include_bytes!("../../manifests/crd.yaml");
/// The same, packed, and its length: in place of the spaces at the start of a line stands one byte that counts them.
const PACK: ([u8; SOURCE.len()], usize) = pack();
/// What of it is in the program. Of the manifest, 40 % is indentation: 13 KB.
static PACKED: [u8; PACK.1] = match PACK.0.first_chunk() {
    Some(packed) => *packed,
    None => panic!("longer than before"),
};
/// Added to the count, so that it looks like no character.
const COUNT: u8 = 0x80;

const fn pack() -> ([u8; SOURCE.len()], usize) {
    let mut packed = [0; SOURCE.len()];
    let (mut read, mut written, mut spaces, mut at_start) = (0, 0, 0, true);
    while read < SOURCE.len() {
        let byte = SOURCE[read];
        read += 1;
        if at_start && byte == b' ' {
            spaces += 1;
            continue;
        }
        if spaces > 0 {
            packed[written] = COUNT + spaces;
            (written, spaces) = (written + 1, 0);
        }
        packed[written] = byte;
        (written, at_start) = (written + 1, byte == b'\n');
    }
    (packed, written)
}

/// The manifest: `manifests/crd.yaml`, byte for byte.
pub fn manifest() -> String {
    let mut text = String::with_capacity(SOURCE.len());
    for byte in PACKED {
        match byte.checked_sub(COUNT) {
            Some(spaces) => text.extend(std::iter::repeat_n(' ', spaces.into())),
            None => text.push(byte.into()),
        }
    }
    text
}

/// Creates the definition, or updates the existing one.
pub fn apply(client: &Client) -> Result<(), CliError> {
    let definition: Value =
        yaml::parse(1, &manifest()).map_err(|error| CliError::Failed(format!("manifests/crd.yaml, compiled in: {error}")))?;
    let name = definition.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let key = ObjectKey::new("", name);
    let failed = |error| CliError::Failed(format!("cannot apply the CRD: {error}"));
    match client.call_unit(&Request::create(Resource::DEFINITIONS, "", &definition)) {
        Err(error) if error.is_already_exists() => {
            client.call_unit(&Request::merge_patch(Resource::DEFINITIONS, &key, &definition)).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ActiveRun, Condition, LastRun, Outcome, QuarksJobStatus, RunDetails, StoredOutput, Strategy, Trigger};

    #[test]
    fn the_manifest_comes_out_as_it_is_in_the_repository() {
        assert_eq!(manifest().as_bytes(), SOURCE);
        assert!(PACKED.len() < SOURCE.len() * 2 / 3);
    }

    /// A field that the schema does not know is pruned by the API server without a word.
    #[test]
    fn the_schema_knows_every_field_of_the_status_that_we_write() {
        let some = || Some("x".to_owned());
        let status = QuarksJobStatus {
            observed_generation: 1,
            completed: true,
            runs: 1,
            active: Some(ActiveRun {
                run: 1,
                job_name: "j".into(),
                trigger: Trigger::Now,
                uid: Some("u".into()),
                details: Some(RunDetails {
                    strategy: Some(Strategy::Now),
                    request: some(),
                    template: some(),
                    config: some(),
                    ttl_seconds_after_finished: Some(1),
                    ..RunDetails::default()
                }),
                record: None,
                start_time: some(),
            }),
            last_run: Some(LastRun {
                run: 1,
                job_name: "j".into(),
                trigger: Some(Trigger::Once),
                start_time: some(),
                completion_time: some(),
                outcome: Outcome::Failed,
                reason: "R".into(),
                message: "m".into(),
                outputs: vec![StoredOutput { secret: "s".into(), container: "c".into(), file: "f".into(), version: Some(1) }],
            }),
            settled: some(),
            last_success_time: some(),
            conditions: vec![Condition {
                kind: "Ready".into(),
                status: "True".into(),
                reason: "R".into(),
                message: "m".into(),
                last_transition_time: some(),
                observed_generation: Some(1),
            }],
        };
        let definition: Value = yaml::parse(1, &manifest()).expect("valid YAML");
        let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status").expect("a schema of the status");
        check(&serde_json::to_value(&status).expect("serializes"), schema, "status");
    }

    fn check(value: &Value, schema: &Value, path: &str) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let known = schema.pointer("/properties").and_then(|properties| properties.get(name));
                    check(value, known.unwrap_or_else(|| panic!("{path}.{name} is not in the schema")), &format!("{path}.{name}"));
                }
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, &schema["items"], path)),
            _ => assert!(schema["type"].is_string(), "{path} has a type"),
        }
    }
}
