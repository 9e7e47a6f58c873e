//! Which containers have ended permanently, according to the pod's state (pure).
//!
//! A `terminated` state may be followed by a restart in place; only an end after which Kubernetes does not restart the container
//! counts. Not for what happens then: see `decide`.

use crate::api::{Container, ContainerStatus, ContainerTerminated, Pod, RestartRule};

/// What the pod's state says about one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It has not ended permanently, as far as one can see.
    Going,
    /// It will not run again.
    Ended(ContainerEnd),
    /// The pod has no such container: waiting for it would never end.
    Absent,
}

/// The last end of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerEnd {
    /// 0 for success; signals and running out of memory are above 128.
    pub exit_code: i32,
    /// How often it was restarted in place.
    pub restarts: u32,
}

/// Looks for one container in a pod.
pub fn observe(pod: &Pod, name: &str) -> Observed {
    let spec = spec_of(pod, name);
    let statuses = || pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    let Some(status) = statuses().find(|status| status.name == name) else {
        return if spec.is_none() && !pod.spec.containers.is_empty() { Observed::Absent } else { Observed::Going };
    };
    match final_end(pod, spec, status) {
        Some(end) => Observed::Ended(ContainerEnd { exit_code: end.exit_code, restarts: status.restart_count }),
        None => Observed::Going,
    }
}

/// Containers of all kinds: they share the room for termination messages.
pub fn count_containers(pod: &Pod) -> usize {
    pod.spec.containers.len() + pod.spec.init_containers.len() + pod.spec.ephemeral_containers.len()
}

fn spec_of<'p>(pod: &'p Pod, name: &str) -> Option<&'p Container> {
    pod.spec.containers.iter().chain(&pod.spec.init_containers).find(|container| container.name == name)
}

fn final_end<'p>(pod: &Pod, spec: Option<&Container>, status: &'p ContainerStatus) -> Option<&'p ContainerTerminated> {
    let end = status.state.terminated.as_ref()?;
    let pod_ends = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") || pod.metadata.is_being_deleted();
    (pod_ends || !is_restarted(pod, spec, end.exit_code) && !can_restart_all(pod)).then_some(end)
}

/// Whether a running container may make Kubernetes restart all containers. Native sidecars do not count: they keep running until
/// we have ended, so waiting for them would never end.
fn can_restart_all(pod: &Pod) -> bool {
    pod.spec.containers.iter().filter(|spec| spec.restart_policy_rules.iter().any(RestartRule::is_for_all)).any(|spec| {
        let status = pod.status.container_statuses.iter().find(|status| status.name == spec.name);
        let end = status.and_then(|status| status.state.terminated.as_ref());
        end.is_none_or(|end| is_restarted(pod, Some(spec), end.exit_code))
    })
}

/// Whether Kubernetes starts the container again after this exit code. An unknown policy restarts: waiting is the safe side.
fn is_restarted(pod: &Pod, spec: Option<&Container>, exit_code: i32) -> bool {
    if spec.is_some_and(|spec| spec.restart_policy_rules.iter().any(|rule| rule.is_match(exit_code))) {
        return true;
    }
    match spec.and_then(|spec| spec.restart_policy.as_deref()).unwrap_or(&pod.spec.restart_policy) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(policy: &str, phase: &str, container: Value, state: Value) -> Pod {
        let mut container = container;
        container["name"] = json!("main");
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"restartPolicy": policy, "containers": [container, {"name": "output-persist"}]},
            "status": {"phase": phase, "containerStatuses": [{"name": "main", "restartCount": 2, "state": state}]},
        }))
        .unwrap()
    }

    fn ended(code: i32) -> Value {
        json!({"terminated": {"exitCode": code, "reason": "Whatever"}})
    }

    #[test]
    fn an_end_counts_when_no_restart_can_follow() {
        let plain = || json!({});
        let own = |policy: &str| json!({"restartPolicy": policy});
        let rule = |policy: &str, operator: &str, codes: &[i32]| json!({"restartPolicy": policy, "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": operator, "values": codes}}]});
        for (policy, phase, container, state, expected) in [
            ("Never", "Running", plain(), ended(0), Some(0)),
            ("Never", "Running", plain(), ended(1), Some(1)),
            ("Never", "Running", plain(), ended(137), Some(137)),
            ("OnFailure", "Running", plain(), ended(0), Some(0)),
            ("OnFailure", "Running", plain(), ended(1), None),
            ("OnFailure", "Running", plain(), ended(137), None),
            ("OnFailure", "Failed", plain(), ended(1), Some(1)),
            ("OnFailure", "Succeeded", plain(), ended(0), Some(0)),
            ("Never", "Running", plain(), json!({"running": {"startedAt": "x"}}), None),
            ("Never", "Running", plain(), json!({"waiting": {"reason": "ContainerCreating"}}), None),
            ("OnFailure", "Running", plain(), json!({"waiting": {"reason": "CrashLoopBackOff"}}), None),
            ("Never", "Pending", plain(), json!({}), None),
            ("Never", "Pending", plain(), Value::Null, None),
            // Container-level policies.
            ("Never", "Running", own("OnFailure"), ended(1), None),
            ("Never", "Running", own("OnFailure"), ended(0), Some(0)),
            ("Never", "Running", own("Always"), ended(0), None),
            ("Never", "Failed", own("Always"), ended(0), Some(0)),
            ("OnFailure", "Running", own("Never"), ended(1), Some(1)),
            ("Never", "Running", rule("Never", "In", &[42]), ended(42), None),
            ("Never", "Running", rule("Never", "In", &[42]), ended(1), Some(1)),
            ("Never", "Running", rule("Never", "NotIn", &[42]), ended(42), Some(42)),
            ("Never", "Running", rule("Never", "NotIn", &[42]), ended(7), None),
            ("", "Running", plain(), ended(0), None),
        ] {
            let expected = expected.map_or(Observed::Going, |exit_code| Observed::Ended(ContainerEnd { exit_code, restarts: 2 }));
            let question = format!("{policy} {phase} {container} {state}");
            assert_eq!(observe(&pod(policy, phase, container, state), "main"), expected, "{question}");
        }
    }

    #[test]
    fn in_a_pod_being_deleted_nothing_is_restarted() {
        let mut deleted = pod("OnFailure", "Running", json!({}), ended(1));
        deleted.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        assert_eq!(observe(&deleted, "main"), Observed::Ended(ContainerEnd { exit_code: 1, restarts: 2 }));
    }

    #[test]
    fn another_container_may_restart_all() {
        let rule = |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]);
        let all = || rule("RestartAllContainers");
        let running = || json!({"running": {}});
        // Policy, rules and state of the other container, where it stands; whether the first one has ended permanently.
        for (policy, rules, state, place, is_final) in [
            ("Never", json!([]), running(), "containers", true),
            ("Never", rule("Restart"), running(), "containers", true),
            ("Never", all(), running(), "containers", false),
            ("Never", all(), Value::Null, "containers", false),
            ("Never", all(), json!({"waiting": {}}), "containers", false),
            ("Never", all(), ended(42), "containers", false),
            ("Never", all(), ended(0), "containers", true),
            ("Never", all(), ended(1), "containers", true),
            ("OnFailure", all(), ended(1), "containers", false),
            ("OnFailure", all(), ended(0), "containers", true),
            // A native sidecar runs for as long as this one does.
            ("Never", all(), running(), "initContainers", true),
        ] {
            let question = format!("{policy} {rules} {state} {place}");
            let mut value = json!({
                "spec": {"restartPolicy": policy, "containers": [{"name": "main"}], "initContainers": []},
                "status": {"phase": "Running", "containerStatuses": [{"name": "main", "state": ended(0)}, {"name": "other", "state": state}]},
            });
            value["spec"][place].as_array_mut().unwrap().push(json!({"name": "other", "restartPolicyRules": rules}));
            let mut pod: Pod = serde_json::from_value(value).unwrap();
            assert_eq!(observe(&pod, "main") != Observed::Going, is_final, "{question}");
            pod.status.phase = "Failed".into();
            assert_ne!(observe(&pod, "main"), Observed::Going, "{question}");
        }
    }

    #[test]
    fn a_container_that_is_not_there_is_not_waited_for() {
        let pod = pod("Never", "Running", json!({}), ended(0));
        assert_eq!(observe(&pod, "other"), Observed::Absent);
        // Statuses come later than the spec; a pod without a spec says nothing.
        assert_eq!(observe(&pod, "output-persist"), Observed::Going);
        assert_eq!(observe(&Pod::default(), "main"), Observed::Going);
        assert_eq!(count_containers(&pod), 2);
    }

    #[test]
    fn init_containers_count_too() {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "a"}], "initContainers": [{"name": "init"}]},
            "status": {"initContainerStatuses": [{"name": "init", "state": ended(0)}], "containerStatuses": null},
        }))
        .unwrap();
        assert_eq!(observe(&pod, "init"), Observed::Ended(ContainerEnd { exit_code: 0, restarts: 0 }));
    }
}
