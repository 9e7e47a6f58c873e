//! The progress of the run's output (pure): which mapped containers are still running, are being stored, or are done.
//!
//! Each container is handed to the store once, as soon as it has ended permanently, so a container that never ends delays no other.

use std::collections::BTreeMap;

use crate::api::{Pod, Uid};
use crate::contract::plan::Plan;
use crate::contract::report::{OutputError, OutputErrorReason, Report};

use super::messages::{EndedContainer, StoreEvent};
use super::pod::decide::{OutputDecision, decide};
use super::pod::expect::{count_containers, observe};

/// Mapped containers on their way.
#[derive(Debug)]
pub struct Progress {
    pod_uid: Uid,
    write_on_failure: bool,
    containers: BTreeMap<String, Stage>,
    report: Report,
    /// Containers in the pod: they share the room for reports.
    in_pod: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Storing,
    Done,
}

impl Progress {
    /// All mapped containers are waited for.
    pub fn new(plan: &Plan, pod_uid: Uid) -> Self {
        let mut containers = BTreeMap::new();
        containers.extend(plan.containers.keys().map(|name| (name.clone(), Stage::Waiting)));
        let in_pod = containers.len() + 1;
        Self { pod_uid, write_on_failure: plan.write_on_failure, containers, report: Report::default(), in_pod }
    }

    /// Looks at the pod; returns what must be stored now. A pod of the same name with another UID says nothing, and one that Kubernetes has
    /// replaced says it too late.
    pub fn on_pod(&mut self, pod: &Pod) -> Vec<EndedContainer> {
        if pod.metadata.uid != self.pod_uid || pod.is_disrupted() {
            return Vec::new();
        }
        self.in_pod = self.in_pod.max(count_containers(pod));
        let mut ended = Vec::new();
        for (name, stage) in self.containers.iter_mut().filter(|(_, stage)| **stage == Stage::Waiting) {
            match decide(observe(pod, name), self.write_on_failure) {
                OutputDecision::Wait => {}
                OutputDecision::Nothing => {
                    log::info!(container:% = name; "container failed, nothing to store");
                    *stage = Stage::Done;
                }
                OutputDecision::Absent => {
                    *stage = Stage::Done;
                    let message = "the pod has no such container";
                    self.report.errors.push(error(OutputErrorReason::OutputInvalid, name, message.to_owned()));
                }
                OutputDecision::Read { lenient, documents } => {
                    log::info!(container:% = name, failed:% = lenient; "container ended");
                    *stage = Stage::Storing;
                    ended.push(EndedContainer { container: name.clone(), lenient, documents });
                }
            }
        }
        ended
    }

    /// Notes what the store did.
    pub fn on_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Stored(secret) => self.report.secrets.push(secret),
            StoreEvent::Failed(error) => self.report.errors.push(error),
            StoreEvent::Finished(container) => {
                self.containers.insert(container, Stage::Done);
            }
        }
    }

    /// True once nothing is left to wait for.
    pub fn is_complete(&self) -> bool {
        self.containers.values().all(|stage| *stage == Stage::Done)
    }

    /// True while the store has something of ours.
    pub fn is_storing(&self) -> bool {
        self.containers.values().any(|stage| *stage == Stage::Storing)
    }

    /// The report as things are; whatever is not done is an error with this text.
    pub fn into_report(mut self, undone: &str) -> Report {
        for (name, _) in self.containers.iter().filter(|(_, stage)| **stage != Stage::Done) {
            self.report.errors.push(error(OutputErrorReason::OutputNotStored, name, undone.to_owned()));
        }
        self.report.stored = self.report.errors.is_empty();
        self.report
    }

    /// Bytes that the report may have.
    pub fn report_limit(&self) -> usize {
        Report::limit_for(self.in_pod)
    }
}

fn error(reason: OutputErrorReason, container: &str, message: String) -> OutputError {
    OutputError { reason, container: container.to_owned(), file: String::new(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::contract::report::StoredSecret;

    fn plan(write_on_failure: bool) -> Plan {
        serde_json::from_value(json!({
            "quarksJob": "q", "uid": "u", "run": 1, "writeOnFailure": write_on_failure,
            "containers": {"a": {"files": {"f": {"name": "s"}}}, "b": {"files": {"f": {"name": "t"}}}},
        }))
        .unwrap()
    }

    fn pod(a: Value, b: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "pod"},
            "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "output-persist"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "a", "restartCount": 1, "state": a}, {"name": "b", "state": b}, {"name": "c", "state": {"running": {}}},
            ]},
        }))
        .unwrap()
    }

    fn running() -> Value {
        json!({"running": {}})
    }

    fn ended(code: i32) -> Value {
        json!({"terminated": {"exitCode": code}})
    }

    fn stored(container: &str) -> StoreEvent {
        StoreEvent::Stored(StoredSecret { name: "s".into(), version: None, container: container.into(), file: "f".into() })
    }

    #[test]
    fn each_container_is_stored_once_and_unmapped_ones_are_not_waited_for() {
        let mut progress = Progress::new(&plan(false), "pod".into());
        assert_eq!(progress.on_pod(&pod(running(), running())), []);
        let first = EndedContainer { container: "a".into(), lenient: false, documents: 2 };
        assert_eq!(progress.on_pod(&pod(ended(0), running())), [first]);
        assert_eq!(progress.on_pod(&pod(ended(0), running())), []);
        for event in [stored("a"), StoreEvent::Finished("a".into())] {
            progress.on_event(event);
        }
        assert!(!progress.is_complete() && !progress.is_storing());
        assert_eq!(progress.on_pod(&pod(ended(0), ended(0))).len(), 1);
        assert!(progress.is_storing());
        for event in [stored("b"), StoreEvent::Finished("b".into())] {
            progress.on_event(event);
        }
        assert!(progress.is_complete());
        assert_eq!(progress.report_limit(), 3072);
        let report = progress.into_report("");
        assert!(report.is_success() && report.secrets.len() == 2);
    }

    #[test]
    fn another_pod_of_the_same_name_says_nothing() {
        let mut progress = Progress::new(&plan(false), "other".into());
        assert_eq!(progress.on_pod(&pod(ended(0), ended(0))), []);
    }

    #[test]
    fn a_pod_that_kubernetes_has_replaced_stores_nothing_more() {
        for (deleted, condition, status, is_stored) in [
            (true, "DisruptionTarget", "True", false),
            // By hand, or by its Job that has failed.
            (true, "Ready", "True", true),
            (true, "DisruptionTarget", "False", true),
            (false, "DisruptionTarget", "True", true),
        ] {
            let mut seen = pod(ended(0), ended(0));
            seen.metadata.deletion_timestamp = deleted.then(|| "t".into());
            seen.status.conditions = serde_json::from_value(json!([{"type": condition, "status": status}])).unwrap();
            let mut progress = Progress::new(&plan(false), "pod".into());
            assert_eq!(progress.on_pod(&seen).is_empty(), !is_stored, "{deleted} {condition} {status}");
        }
    }

    #[test]
    fn a_failed_container_writes_nothing_and_is_done() {
        let mut failed = pod(ended(1), ended(137));
        failed.spec.restart_policy = "Never".into();
        let mut progress = Progress::new(&plan(false), "pod".into());
        assert_eq!(progress.on_pod(&failed), []);
        assert!(progress.is_complete() && progress.into_report("").is_success());
        let mut progress = Progress::new(&plan(true), "pod".into());
        let lenient = |name: &str, documents| EndedContainer { container: name.into(), lenient: true, documents };
        assert_eq!(progress.on_pod(&failed), [lenient("a", 2), lenient("b", 1)]);
    }

    #[test]
    fn what_is_not_done_is_an_error() {
        let mut progress = Progress::new(&plan(false), "pod".into());
        progress.on_pod(&pod(ended(0), running()));
        let report = progress.into_report("stopped");
        assert!(!report.stored);
        let told: Vec<_> = report.errors.iter().map(|error| (error.container.as_str(), error.message.as_str())).collect();
        assert_eq!(told, [("a", "stopped"), ("b", "stopped")]);
    }

    #[test]
    fn an_empty_plan_is_complete_at_once() {
        let progress = Progress::new(&Plan::default(), "pod".into());
        assert!(progress.is_complete() && progress.into_report("").is_success());
    }
}
