//! `v1` Pod, only the fields that show the states of its containers.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Condition, ObjectMeta, OwnerReference, SIDECAR_CONTAINER, Uid, null_as_default};

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is running.
    #[serde(default)]
    pub spec: PodSpec,
    /// How it goes.
    #[serde(default)]
    pub status: PodStatus,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// `Always`, `OnFailure` or `Never`.
    #[serde(default)]
    pub restart_policy: String,
    /// Ordinary containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub containers: Vec<Container>,
    /// Init containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub init_containers: Vec<Container>,
    /// Containers that someone added for debugging.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ephemeral_containers: Vec<Container>,
}

/// What a Pod's spec says about one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Name of the container.
    pub name: String,
    /// Overrides the pod's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// Exceptions from the policy by exit code; the first that matches counts.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub restart_policy_rules: Vec<RestartRule>,
}

/// One entry of `restartPolicyRules`: the container is restarted if its exit code matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartRule {
    /// `Restart`, or `RestartAllContainers` for all of the pod, those that have ended included.
    #[serde(default)]
    pub action: String,
    /// Which exit codes match; without it the rule matches none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_codes: Option<RestartExitCodes>,
}

/// Exit codes of a [`RestartRule`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RestartExitCodes {
    /// `In` or `NotIn`.
    #[serde(default)]
    pub operator: String,
    /// The codes.
    #[serde(default, deserialize_with = "null_as_default")]
    pub values: Vec<i32>,
}

impl RestartRule {
    /// True if the rule can also restart the pod's other containers.
    pub fn is_for_all(&self) -> bool {
        self.action == "RestartAllContainers"
    }

    /// True if the rule speaks of this exit code.
    pub fn is_match(&self, exit_code: i32) -> bool {
        self.exit_codes.as_ref().is_some_and(|codes| match codes.operator.as_str() {
            "In" => codes.values.contains(&exit_code),
            "NotIn" => !codes.values.contains(&exit_code),
            _ => false,
        })
    }
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(default)]
    pub phase: String,
    /// CamelCase word, for example `Evicted`.
    #[serde(default)]
    pub reason: String,
    /// For example `DisruptionTarget`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Ordinary containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub container_statuses: Vec<ContainerStatus>,
    /// Init containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
}

impl Pod {
    /// True if Kubernetes itself deletes it, because of its node for example: its Job has another one in its place.
    pub fn is_disrupted(&self) -> bool {
        let is_target = |condition: &Condition| condition.kind == "DisruptionTarget" && condition.is_true();
        self.metadata.is_being_deleted() && self.status.conditions.iter().any(is_target)
    }
}

/// State of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name of the container.
    pub name: String,
    /// How often it was restarted in place.
    #[serde(default)]
    pub restart_count: u32,
    /// What it does now.
    #[serde(default, deserialize_with = "null_as_default")]
    pub state: ContainerState,
    /// How its last run ended.
    #[serde(default, deserialize_with = "null_as_default")]
    pub last_state: ContainerState,
}

/// At most one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Set while it waits to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ContainerWaiting>,
    /// Set once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated: Option<ContainerTerminated>,
}

/// Why a container waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerWaiting {
    /// For example `ImagePullBackOff`.
    #[serde(default)]
    pub reason: String,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerTerminated {
    /// Exit code; 128 + n for signal n.
    #[serde(default)]
    pub exit_code: i32,
    /// For example `OOMKilled`.
    #[serde(default)]
    pub reason: String,
    /// Termination message, at most 4,096 bytes. Written by the container: never trusted.
    #[serde(default)]
    pub message: String,
}

/// What is kept of a pod of a run: whose it is, how it ended, and what its sidecar reported. Everything else is skipped while
/// it is decoded: a run may have thousands of pods, each with large annotations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct PodReport {
    /// Part of the standard metadata.
    #[serde(default)]
    pub metadata: PodReportMeta,
    /// Part of its status.
    #[serde(default, deserialize_with = "null_as_default")]
    pub status: PodReportStatus,
}

/// `metadata` of a [`PodReport`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReportMeta {
    /// `metadata.name`.
    #[serde(default)]
    pub name: String,
    /// `metadata.uid`.
    #[serde(default)]
    pub uid: Uid,
    /// `metadata.ownerReferences`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub owner_references: Vec<OwnerReference>,
    /// Of `metadata.labels` the one that the Job controller sets.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: PodReportLabels,
}

/// `metadata.labels` of a [`PodReport`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct PodReportLabels {
    /// Name of the pod's Job; empty if it has none.
    #[serde(default, rename = "batch.kubernetes.io/job-name")]
    pub job_name: String,
}

/// `status` of a [`PodReport`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReportStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(default)]
    pub phase: String,
    /// What the sidecar reported, once it has ended. Of the other containers nothing is kept.
    #[serde(default, rename = "containerStatuses", deserialize_with = "null_as_default")]
    pub sidecar: SidecarReport,
}

/// Termination message of the sidecar, if it has ended. Written inside the pod: never trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarReport(pub Option<String>);

impl PodReportMeta {
    /// The owner whose reference says `controller: true`, if any.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

#[derive(Deserialize)]
struct Reported {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    state: ReportedState,
}

#[derive(Default, Deserialize)]
struct ReportedState {
    #[serde(default)]
    terminated: Option<ReportedEnd>,
}

#[derive(Deserialize)]
struct ReportedEnd {
    #[serde(default)]
    message: String,
}

impl<'de> Deserialize<'de> for SidecarReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Statuses;

        impl<'de> Visitor<'de> for Statuses {
            type Value = SidecarReport;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of container statuses")
            }

            /// One at a time.
            fn visit_seq<A: SeqAccess<'de>>(self, mut statuses: A) -> Result<Self::Value, A::Error> {
                let mut found = SidecarReport::default();
                while let Some(Reported { name, state }) = statuses.next_element()? {
                    if name == SIDECAR_CONTAINER {
                        found = SidecarReport(state.terminated.map(|end| end.message));
                    }
                }
                Ok(found)
            }
        }

        deserializer.deserialize_seq(Statuses)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_restart_rule_speaks_of_its_exit_codes_and_of_all_containers_only_by_its_action() {
        let codes = |operator: &str| json!({"operator": operator, "values": [0, 42]});
        for (action, exit_codes, is_for_all, matched) in [
            ("Restart", codes("In"), false, [true, false, true]),
            ("Restart", codes("NotIn"), false, [false, true, false]),
            ("RestartAllContainers", codes("In"), true, [true, false, true]),
            // What we do not know speaks of nothing.
            ("Restart", codes("Above"), false, [false; 3]),
            ("Restart", json!({"operator": "In", "values": null}), false, [false; 3]),
            ("Restart", Value::Null, false, [false; 3]),
            ("", json!({}), false, [false; 3]),
        ] {
            let rule = json!({"action": action, "exitCodes": exit_codes});
            let read: RestartRule = crate::json::from_slice(rule.to_string().as_bytes()).unwrap();
            assert_eq!((read.is_for_all(), [0, 1, 42].map(|code| read.is_match(code))), (is_for_all, matched), "{rule}");
        }
    }

    #[test]
    fn of_a_pod_only_its_report_is_kept() {
        let pod = json!({
            "metadata": {
                "name": "p", "uid": "u", "annotations": {"large": "x".repeat(1000)}, "finalizers": null,
                "labels": {"batch.kubernetes.io/job-name": "j", "app": "a"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "other"},
                    {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job", "controller": true, "blockOwnerDeletion": true},
                ],
            },
            "spec": {"containers": [{"name": "main", "image": "i"}]},
            "status": {"phase": "Succeeded", "containerStatuses": [
                {"name": "main", "state": {"terminated": {"exitCode": 0, "message": "not this"}}},
                {"name": "output-persist", "ready": false, "state": {"terminated": {"exitCode": 0, "message": "this"}}},
                {"name": "later", "state": {"running": {}}},
            ]},
        });
        let PodReport { metadata, status } = crate::json::from_slice(pod.to_string().as_bytes()).unwrap();
        assert_eq!((metadata.name.as_str(), metadata.uid.as_str(), metadata.labels.job_name.as_str()), ("p", "u", "j"));
        assert_eq!(metadata.controller().map(|owner| owner.uid.as_str()), Some("job"));
        assert_eq!((status.phase.as_str(), status.sidecar.0.as_deref()), ("Succeeded", Some("this")));
    }

    #[test]
    fn without_an_ended_sidecar_there_is_no_report() {
        let report = |statuses: Value| {
            let pod = json!({"metadata": {"labels": null, "ownerReferences": null}, "status": {"containerStatuses": statuses}});
            crate::json::from_slice::<PodReport>(pod.to_string().as_bytes()).map(|pod| pod.status.sidecar.0)
        };
        for (statuses, expected) in [
            (json!(null), None),
            (json!([]), None),
            (json!([{"name": "output-persist"}]), None),
            (json!([{"name": "output-persist", "state": null}]), None),
            (json!([{"name": "output-persist", "state": {"running": {}}}]), None),
            (json!([{"name": "output-persist", "state": {"terminated": null}}]), None),
            (json!([{"name": "output-persist", "state": {"terminated": {"exitCode": 137}}}]), Some("")),
            (json!([{"name": "main", "state": {"terminated": {"message": "m"}}}]), None),
        ] {
            assert_eq!(report(statuses.clone()).unwrap().as_deref(), expected, "{statuses}");
        }
        assert!(report(json!({})).is_err() && report(json!([{"name": 4}])).is_err());
        assert_eq!(crate::json::from_slice::<PodReport>(b"{}").unwrap(), PodReport::default());
    }
}
