//! The output mapping at the start of a run: which file or log of which container becomes which Secret.
//!
//! The operator builds it and passes it to the sidecar as JSON in the environment variable [`PLAN_VARIABLE`], split over several
//! variables if it is long. So an edit of the QuarksJob during the run changes nothing. Not for decisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{StringMap, Uid};

/// Environment variable of the sidecar that holds the [`Plan`] as JSON; what does not fit continues in `<name>_1`, `<name>_2`, ...
pub const PLAN_VARIABLE: &str = "QUARKS_JOB_PLAN";
/// Longest piece of a plan in one variable, in bytes: Linux starts no program with a longer string than 128 KiB, name included.
const PIECE: usize = 100 * 1024;
/// Environment variable of the sidecar: name of its pod, by the downward API (`metadata.name`).
pub const POD_NAME_VARIABLE: &str = "POD_NAME";
/// Environment variable of the sidecar: namespace of its pod, by the downward API (`metadata.namespace`).
pub const POD_NAMESPACE_VARIABLE: &str = "POD_NAMESPACE";
/// Environment variable of the sidecar: UID of its pod, by the downward API (`metadata.uid`).
pub const POD_UID_VARIABLE: &str = "POD_UID";

/// Everything the sidecar has to know about its run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Name of the QuarksJob, in the pod's namespace.
    pub quarks_job: String,
    /// UID of the QuarksJob: one re-created under the same name is another one.
    pub uid: Uid,
    /// Number of the run, from 1.
    pub run: u64,
    /// Store existing and valid output even when the container failed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub write_on_failure: bool,
    /// The Job is Indexed: `-<completion index>` follows each name.
    #[serde(default, skip_serializing_if = "is_false")]
    pub indexed: bool,
    /// The user's labels for every Secret. Here once: with each of a hundred files they would be a hundred times as long.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: StringMap,
    /// The user's annotations for every Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: StringMap,
    /// Mapped containers by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, ContainerPlan>,
}

impl Plan {
    /// All files and logs.
    pub fn outputs(&self) -> impl Iterator<Item = &SecretPlan> {
        self.containers.values().flat_map(|container| container.files.values().chain(&container.log))
    }

    /// True if one output is the Secret of this name, which is called like a version. Where the index comes last, none is.
    pub fn has_plain(&self, name: &str) -> bool {
        !self.indexed && self.outputs().any(|output| !output.versioned && !output.fan_out && output.name == name)
    }

    /// Names and values of the variables that hold it.
    pub fn to_variables(&self) -> Vec<(String, String)> {
        let text = serde_json::to_string(self).expect("strings and numbers always serialize");
        let mut variables = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let mut end = PIECE.min(rest.len());
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, after) = rest.split_at(end);
            variables.push((variable_name(variables.len()), piece.to_owned()));
            rest = after;
        }
        variables
    }
}

/// The text of the plan that the variables hold together, empty without any.
pub fn text_of(variable: &dyn Fn(&str) -> Option<String>) -> String {
    (0..).map_while(|at| variable(&variable_name(at))).collect()
}

fn variable_name(at: usize) -> String {
    if at == 0 { PLAN_VARIABLE.to_owned() } else { format!("{PLAN_VARIABLE}_{at}") }
}

/// Labels or annotations for every Secret, and those of one file over them.
pub fn merged(all: &StringMap, own: &StringMap) -> StringMap {
    let mut merged = all.clone();
    merged.extend(own.clone());
    merged
}

/// What to do with the output of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPlan {
    /// Files by name, relative to the container's output volume; no folders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, SecretPlan>,
    /// The log is output, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<SecretPlan>,
    /// The container's literal env `REMOTE_ID`, already made label-safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
}

/// The Secret, or with fan-out the Secrets, that one file or log becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretPlan {
    /// Name of the Secret; with fan-out, the prefix `<name>-`; versioned, `-v<N>` follows.
    pub name: String,
    /// Each content is a new, immutable Secret.
    #[serde(default, skip_serializing_if = "is_false")]
    pub versioned: bool,
    /// Every top-level value is an object of strings and becomes a Secret of its own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fan_out: bool,
    /// The user's labels for this file; they win over those of the plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: StringMap,
    /// The user's annotations for this file; they win over those of the plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: StringMap,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_left_out_and_come_back() {
        let text = r#"{"quarksJob":"q","uid":"u","run":3,"containers":{"c":{"files":{"f.json":{"name":"s"}}}}}"#;
        let plan: Plan = serde_json::from_str(text).unwrap();
        assert_eq!(plan.containers["c"].files["f.json"].name, "s");
        assert!(!plan.write_on_failure && !plan.indexed && !plan.containers["c"].files["f.json"].versioned);
        assert_eq!(serde_json::to_string(&plan).unwrap(), text);
    }

    #[test]
    fn files_and_logs_have_their_names_unless_something_follows() {
        for (options, indexed, expected) in [
            (r#""name":"s-v1""#, false, true),
            (r#""name":"s-v1""#, true, false),
            (r#""name":"s-v2""#, false, false),
            (r#""name":"s-v1","versioned":true"#, false, false),
            (r#""name":"s-v1","fanOut":true"#, false, false),
        ] {
            for output in [format!(r#""files":{{"f":{{{options}}}}}"#), format!(r#""log":{{{options}}}"#)] {
                let text = format!(r#"{{"quarksJob":"q","uid":"u","run":1,"indexed":{indexed},"containers":{{"c":{{{output}}}}}}}"#);
                assert_eq!(serde_json::from_str::<Plan>(&text).unwrap().has_plain("s-v1"), expected, "{text}");
            }
        }
    }

    #[test]
    fn every_field_survives_the_way_through_the_environment() {
        let secret = SecretPlan {
            name: "s".into(),
            versioned: true,
            fan_out: true,
            labels: [("a".into(), "b".into())].into(),
            annotations: [("c".into(), "d \"e\"".into())].into(),
        };
        let log = Some(SecretPlan { name: "l".into(), ..SecretPlan::default() });
        let container = ContainerPlan { files: [("f".into(), secret)].into(), log, remote_id: Some("r".into()) };
        let plan = Plan {
            quarks_job: "q".into(),
            uid: "u".into(),
            run: u64::MAX,
            write_on_failure: true,
            indexed: true,
            labels: [("e".into(), "f".into())].into(),
            annotations: [("g".into(), "h".into())].into(),
            containers: [("c".into(), container)].into(),
        };
        assert_eq!(serde_json::from_str::<Plan>(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
    }

    #[test]
    fn a_long_plan_is_cut_into_variables_that_linux_takes() {
        for (filler, length, pieces) in
            [("x", 0, 1), ("x", PIECE - 100, 1), ("x", PIECE, 2), ("ü", PIECE, 3), ("\"", PIECE, 3), ("𝄞", PIECE, 5)]
        {
            let plan = Plan { quarks_job: filler.repeat(length), ..Plan::default() };
            let variables = plan.to_variables();
            assert_eq!(variables.len(), pieces, "{filler} {length}");
            assert_eq!(variables[0].0, PLAN_VARIABLE);
            assert!(variables.iter().all(|(_, piece)| piece.len() <= PIECE));
            let variables: BTreeMap<_, _> = variables.into_iter().collect();
            let text = text_of(&|name| variables.get(name).cloned());
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        }
    }
}
