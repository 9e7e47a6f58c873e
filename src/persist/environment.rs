//! What the sidecar reads from its environment at startup.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::{ObjectKey, SIDECAR_OUTPUT_ROOT, Uid};
use crate::contract::plan::{PLAN_VARIABLE, POD_NAME_VARIABLE, POD_NAMESPACE_VARIABLE, POD_UID_VARIABLE, Plan, text_of};

/// How long final answers (403, 422 and the like) are retried: someone may be setting up rights or quota just now.
pub const REFUSED_LIMIT: Duration = Duration::from_secs(60);
/// How long a look is good for, and how long nothing may be heard until that counts as an outage.
pub const OUTAGE_LIMIT: Duration = Duration::from_secs(30);
/// Set by Kubernetes in every container of an Indexed Job's pod.
const COMPLETION_INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// For tests: where the report goes.
const TERMINATION_LOG_VARIABLE: &str = "TERMINATION_LOG";
/// For tests: where the output folders are.
const OUTPUT_ROOT_VARIABLE: &str = "OUTPUT_ROOT";
/// For tests: milliseconds in the place of [`REFUSED_LIMIT`].
const REFUSED_LIMIT_VARIABLE: &str = "REFUSED_LIMIT_MS";
/// For tests: milliseconds in the place of [`OUTAGE_LIMIT`].
const OUTAGE_LIMIT_VARIABLE: &str = "OUTAGE_LIMIT_MS";
/// Where the kubelet reads a container's report by default.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The sidecar's surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// What to store.
    pub plan: Plan,
    /// Our own pod.
    pub pod: ObjectKey,
    /// UID of our own pod.
    pub pod_uid: Uid,
    /// Completion index, in an Indexed Job.
    pub index: Option<u32>,
    /// One folder for each mapped container.
    pub root: PathBuf,
    /// How long final answers (403, 422 and the like) are retried.
    pub refused_limit: Duration,
    /// How long a look at the QuarksJob is good for.
    pub outage_limit: Duration,
}

impl Environment {
    /// Reads variables through `variable`. The error says what is wrong and repeats no content.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let required =
            |name: &str| variable(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("environment variable {name} is not set"));
        required(PLAN_VARIABLE)?;
        let plan: Plan = crate::json::from_slice(text_of(variable).as_bytes()).map_err(|error| {
            format!("environment variable {PLAN_VARIABLE}: not a valid plan (line {}, column {})", error.line(), error.column())
        })?;
        let index = if plan.indexed {
            let index = required(COMPLETION_INDEX_VARIABLE)?;
            Some(index.parse().map_err(|_| format!("environment variable {COMPLETION_INDEX_VARIABLE}: must be a number"))?)
        } else {
            None
        };
        let limit = |name: &str, usual| match variable(name) {
            Some(text) => text.parse().map(Duration::from_millis).map_err(|_| format!("environment variable {name}: must be a number")),
            None => Ok(usual),
        };
        Ok(Self {
            plan,
            pod: ObjectKey::new(required(POD_NAMESPACE_VARIABLE)?, required(POD_NAME_VARIABLE)?),
            pod_uid: Uid(required(POD_UID_VARIABLE)?),
            index,
            root: variable(OUTPUT_ROOT_VARIABLE).unwrap_or_else(|| SIDECAR_OUTPUT_ROOT.to_owned()).into(),
            refused_limit: limit(REFUSED_LIMIT_VARIABLE, REFUSED_LIMIT)?,
            outage_limit: limit(OUTAGE_LIMIT_VARIABLE, OUTAGE_LIMIT)?,
        })
    }
}

#[cfg(test)]
impl Environment {
    /// The pod `ns/p` with the UID `pod`.
    pub fn for_tests(plan: serde_json::Value, root: &std::path::Path) -> Self {
        Self {
            plan: serde_json::from_value(plan).unwrap(),
            pod: ObjectKey::new("ns", "p"),
            pod_uid: "pod".into(),
            index: None,
            root: root.to_owned(),
            refused_limit: REFUSED_LIMIT,
            outage_limit: OUTAGE_LIMIT,
        }
    }
}

/// Where the report goes; known even when nothing else is.
pub fn termination_log(variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    variable(TERMINATION_LOG_VARIABLE).unwrap_or_else(|| TERMINATION_LOG.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"{"quarksJob":"q","uid":"u","run":1}"#;
    const INDEXED: &str = r#"{"quarksJob":"q","uid":"u","run":1,"indexed":true}"#;

    fn read(set: &[(&str, &str)]) -> Result<Environment, String> {
        Environment::read(&|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn everything_is_needed() {
        let all = [("QUARKS_JOB_PLAN", PLAN), ("POD_NAME", "p"), ("POD_NAMESPACE", "ns"), ("POD_UID", "pu")];
        let read_all = read(&all).unwrap();
        assert_eq!((read_all.pod, read_all.pod_uid), (ObjectKey::new("ns", "p"), "pu".into()));
        assert_eq!((read_all.root, read_all.refused_limit), (PathBuf::from("/mnt/quarks"), Duration::from_secs(60)));
        for missing in 0..all.len() {
            let rest: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, pair)| *pair).collect();
            assert_eq!(read(&rest).unwrap_err(), format!("environment variable {} is not set", all[missing].0));
        }
    }

    #[test]
    fn an_indexed_job_needs_its_index() {
        let with = |index| {
            read(&[
                ("QUARKS_JOB_PLAN", INDEXED),
                ("POD_NAME", "p"),
                ("POD_NAMESPACE", "ns"),
                ("POD_UID", "pu"),
                ("JOB_COMPLETION_INDEX", index),
            ])
        };
        assert_eq!(with("3").unwrap().index, Some(3));
        assert!(with("").is_err() && with("x").is_err());
    }

    #[test]
    fn a_wrong_plan_is_not_repeated() {
        let error = read(&[("QUARKS_JOB_PLAN", r#"{"quarksJob":"q","uid":7,"CANARY":1}"#)]).unwrap_err();
        assert!(error.starts_with("environment variable QUARKS_JOB_PLAN: not a valid plan") && !error.contains("CANARY"), "{error}");
    }
}
