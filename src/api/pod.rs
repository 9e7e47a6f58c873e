//! `v1` Pod, as far as its containers' states go.

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, null_as_default};

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

/// One entry of `restartPolicyRules`: the container is started anew if its exit code matches.
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
    /// True if the rule can start the pod's other containers anew, too.
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
    /// Ordinary containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub container_statuses: Vec<ContainerStatus>,
    /// Init containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// State of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name of the container.
    pub name: String,
    /// How often it was started anew in place.
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
