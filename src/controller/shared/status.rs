//! The status to write, based on the current status. Pure; `now` is RFC 3339.

use serde_json::{Value, json};

use crate::api::{ActiveRun, Condition, LastRun, Outcome, QuarksJobStatus, ResourceVersion};
use crate::contract::reason::Reason;
use crate::rules::names;
use crate::views::QuarksJobView;
use crate::views::triggers::pending;

use super::ready::Readiness;

/// Longest message of a condition or of `lastRun` that we write; the API's own limit for conditions is 32,768.
const MESSAGE_MAX: usize = 1024;

/// Builds the next status of the QuarksJob as of `view`.
#[derive(Debug)]
pub struct StatusBuilder<'a> {
    view: &'a QuarksJobView,
    status: QuarksJobStatus,
    now: &'a str,
}

impl<'a> StatusBuilder<'a> {
    /// Starts from the status that was read together with `view`.
    pub fn new(view: &'a QuarksJobView, status: &QuarksJobStatus, now: &'a str) -> Self {
        let mut status = status.clone();
        status.runs = view.marker.runs;
        Self { view, status, now }
    }

    /// Copies the marker. Only together with what it says: an end whose marker is in status has been reported.
    fn copy_marker(&mut self) {
        self.status.settled = (!self.view.marker.is_blank()).then(|| self.view.marker.encode(&self.view.uid));
    }

    /// A run is active. The generation counts as observed: `Running` is true.
    pub fn running(mut self, active: ActiveRun, ready: (Readiness, String)) -> QuarksJobStatus {
        self.copy_marker();
        self.status.observed_generation = self.view.generation;
        let message = format!("run {} is active as Job {}", active.run, active.job_name);
        self.status.active = Some(active);
        self.set_ready(&ready);
        self.set("Running", "True", Reason::RunActive.as_str(), &message);
        self.finish()
    }

    /// The newest run has ended.
    pub fn ended(mut self, run: LastRun, ready: (Readiness, String)) -> QuarksJobStatus {
        self.copy_marker();
        self.observe();
        self.set_ended(run);
        self.set_ready(&ready);
        self.finish()
    }

    /// A run has ended, and its end cannot be settled. Until it is, `active` says what it consumes: its Job may go.
    pub fn ended_unsettled(mut self, run: LastRun, active: ActiveRun, reason: Reason, message: &str) -> QuarksJobStatus {
        self.status.observed_generation = self.view.generation;
        self.set_ended(run);
        self.status.active = Some(active);
        self.set("Ready", "False", reason.as_str(), message);
        self.finish()
    }

    fn set_ended(&mut self, run: LastRun) {
        self.status.active = None;
        let message = format!("run {} ended: {}", run.run, run.message);
        match run.outcome {
            Outcome::Succeeded => {
                self.status.completed = true;
                self.status.last_success_time = run.completion_time.clone().or_else(|| Some(self.now.to_owned()));
                self.set("Succeeded", "True", &run.reason, &message);
            }
            Outcome::Failed | Outcome::Cancelled => self.set("Succeeded", "False", &run.reason, &message),
            Outcome::Unknown => self.set("Succeeded", "Unknown", &run.reason, &message),
        }
        self.set("Running", "False", Reason::Idle.as_str(), "no run is active");
        self.status.last_run = Some(LastRun { message: cut(&run.message), ..run });
    }

    /// Nothing runs; `readiness` says whether something could.
    pub fn idle(mut self, readiness: Readiness, message: &str) -> QuarksJobStatus {
        self.copy_marker();
        let (is_ready, reason) = readiness.condition();
        self.idle_with(is_ready, reason, message);
        self.finish()
    }

    /// A start was refused, or the next step of an active run.
    pub fn refused(mut self, reason: Reason, message: &str) -> QuarksJobStatus {
        self.idle_with(false, reason, message);
        self.finish()
    }

    fn set_ready(&mut self, (readiness, message): &(Readiness, String)) {
        let (is_ready, reason) = readiness.condition();
        self.set("Ready", if is_ready { "True" } else { "False" }, reason.as_str(), message);
    }

    fn idle_with(&mut self, is_ready: bool, reason: Reason, message: &str) {
        if is_ready {
            self.observe();
        } else {
            self.status.observed_generation = self.view.generation;
        }
        self.set("Ready", if is_ready { "True" } else { "False" }, reason.as_str(), message);
        if self.status.active.is_none() {
            self.set("Running", "False", Reason::Idle.as_str(), "no run is active");
        }
    }

    /// Observes the generation, unless a trigger of it is pending: a client that waits for `Running=False` at this generation
    /// must not see it before the run. It may have been observed while another run was active.
    fn observe(&mut self) {
        let Self { view, status, .. } = self;
        status.observed_generation =
            if pending(view).is_none() { view.generation } else { status.observed_generation.min(view.generation - 1) };
    }

    /// Every condition speaks of the same generation as the status; `kubectl wait` compares it.
    fn finish(mut self) -> QuarksJobStatus {
        for condition in &mut self.status.conditions {
            condition.observed_generation = Some(self.status.observed_generation);
        }
        self.status
    }

    fn set(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let old = self.status.conditions.iter().position(|condition| condition.kind == kind);
        let since = old
            .map(|at| &self.status.conditions[at])
            .filter(|condition| condition.status == value)
            .and_then(|condition| condition.last_transition_time.clone())
            .unwrap_or_else(|| self.now.to_owned());
        let condition = Condition {
            kind: kind.to_owned(),
            status: value.to_owned(),
            // The API server takes none without a reason; a marker or status that someone edited may have none.
            reason: if reason.is_empty() { "Unknown" } else { reason }.to_owned(),
            message: cut(message),
            last_transition_time: Some(since),
            observed_generation: None,
        };
        match old {
            Some(at) => self.status.conditions[at] = condition,
            None => self.status.conditions.push(condition),
        }
    }
}

/// The merge patch that turns any status into `status`, if the object is still at `version`.
pub fn patch_body(status: &QuarksJobStatus, version: &ResourceVersion) -> Value {
    let mut fields = serde_json::to_value(status).expect("strings and numbers always serialize");
    for optional in ["active", "lastRun", "settled", "lastSuccessTime"] {
        if fields.get(optional).is_none() {
            fields[optional] = Value::Null;
        }
    }
    // A merge patch merges maps: fields of an older `active` or `lastRun` that the new one lacks must go.
    for (parent, optional) in [
        ("active", "startTime"),
        ("active", "details"),
        ("active", "record"),
        ("active", "uid"),
        ("lastRun", "startTime"),
        ("lastRun", "completionTime"),
        ("lastRun", "trigger"),
        ("lastRun", "outputs"),
    ] {
        if fields[parent].is_object() && fields[parent].get(optional).is_none() {
            fields[parent][optional] = Value::Null;
        }
    }
    if let Some(details) = fields.pointer_mut("/active/details").and_then(Value::as_object_mut) {
        for optional in ["strategy", "request", "template", "config", "ttlSecondsAfterFinished"] {
            details.entry(optional).or_insert(Value::Null);
        }
    }
    json!({"metadata": {"resourceVersion": version}, "status": fields})
}

/// At most [`MESSAGE_MAX`] bytes, cut at a character boundary.
fn cut(message: &str) -> String {
    if message.len() <= MESSAGE_MAX {
        return message.to_owned();
    }
    format!("{}...", names::cut(message, MESSAGE_MAX - 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{QuarksJob, Strategy, Trigger};
    use crate::contract::record::{Marker, RunRecord};

    fn view(strategy: &str, generation: i64) -> QuarksJobView {
        let object: QuarksJob = serde_json::from_value(json!({
            "metadata": {"name": "q", "namespace": "ns", "uid": "u", "generation": generation},
            "spec": {
                "trigger": {"strategy": strategy},
                "template": {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}
            }
        }))
        .expect("decodes");
        QuarksJobView::from(&object)
    }

    fn ended(outcome: Outcome) -> LastRun {
        LastRun {
            run: 1,
            job_name: "j".into(),
            trigger: Some(Trigger::Now),
            start_time: None,
            completion_time: Some("t9".into()),
            outcome,
            reason: "R".into(),
            message: "m".into(),
            outputs: Vec::new(),
        }
    }

    fn ready() -> (Readiness, String) {
        (Readiness::Ready, "ready to run".to_owned())
    }

    fn words(status: &QuarksJobStatus) -> String {
        let words: Vec<_> = status.conditions.iter().map(|c| format!("{}={}", c.kind, c.status)).collect();
        words.join(" ")
    }

    #[test]
    fn a_run_from_start_to_end() {
        let now = view("now", 2);
        let active = RunRecord::of_run(1, Trigger::Now).active(&"u".into(), "j", Some("t1".into()));
        let running = StatusBuilder::new(&now, &QuarksJobStatus::default(), "t1").running(active, ready());
        assert_eq!((words(&running).as_str(), running.observed_generation), ("Ready=True Running=True", 2));
        let done = StatusBuilder::new(&view("manual", 3), &running, "t2").ended(ended(Outcome::Succeeded), ready());
        assert_eq!(words(&done), "Ready=True Running=False Succeeded=True");
        assert_eq!((done.observed_generation, done.completed, done.last_success_time.as_deref()), (3, true, Some("t9")));
        assert_eq!(done.active, None);
        let failed = StatusBuilder::new(&view("manual", 3), &done, "t3").ended(ended(Outcome::Failed), ready());
        assert!(failed.completed, "completed stays after the first success");
        let times: Vec<_> = failed.conditions.iter().map(|c| c.last_transition_time.as_deref().unwrap_or_default()).collect();
        assert_eq!(times, ["t1", "t2", "t3"], "a time moves only with its status");
    }

    #[test]
    fn a_condition_always_has_a_reason() {
        let end = LastRun { reason: String::new(), ..ended(Outcome::Failed) };
        let status = StatusBuilder::new(&view("manual", 3), &QuarksJobStatus::default(), "t").ended(end, ready());
        assert_eq!(status.condition("Succeeded").map(|condition| condition.reason.as_str()), Some("Unknown"));
    }

    #[test]
    fn a_generation_with_a_waiting_trigger_is_not_observed() {
        // 5: while another run was active, or while nothing could start.
        for before in [4, 5] {
            let old = QuarksJobStatus { observed_generation: before, ..QuarksJobStatus::default() };
            let observed = |strategy, build: fn(StatusBuilder<'_>) -> QuarksJobStatus| {
                let view = view(strategy, 5);
                build(StatusBuilder::new(&view, &old, "t")).observed_generation
            };
            assert_eq!(observed("now", |b| b.idle(Readiness::Suspended, "")), 4);
            assert_eq!(observed("manual", |b| b.idle(Readiness::Suspended, "")), 5);
            assert_eq!(observed("now", |b| b.refused(Reason::InvalidTemplate, "")), 5);
            assert_eq!(observed("now", |b| b.ended(ended(Outcome::Succeeded), ready())), 4);
            assert_eq!(observed("manual", |b| b.ended(ended(Outcome::Succeeded), ready())), 5);
        }
    }

    #[test]
    fn the_marker_is_copied_only_with_what_it_says() {
        let view = QuarksJobView { marker: Marker { runs: 2, ..Marker::default() }, ..view("manual", 5) };
        let old = QuarksJobStatus { settled: Some("of run 1".to_owned()), ..QuarksJobStatus::default() };
        let copies = |build: fn(StatusBuilder<'_>) -> QuarksJobStatus| {
            let settled = build(StatusBuilder::new(&view, &old, "t")).settled.expect("a marker");
            (settled == view.marker.encode(&view.uid), settled == "of run 1")
        };
        assert_eq!(copies(|b| b.ended(ended(Outcome::Succeeded), ready())), (true, false));
        assert_eq!(copies(|b| b.idle(Readiness::Ready, "")), (true, false));
        assert_eq!(copies(|b| b.refused(Reason::NamespaceNotReady, "")), (false, true), "the end of run 2 has not been told");
    }

    #[test]
    fn what_a_run_consumes_stays_in_status_until_it_is_settled() {
        let active = RunRecord::of_run(1, Trigger::Now).active(&"u".into(), "j", None);
        let view = view("now", 2);
        let status = StatusBuilder::new(&view, &QuarksJobStatus::default(), "t");
        let status = status.ended_unsettled(ended(Outcome::Failed), active.clone(), Reason::SettleRefused, "by a policy");
        assert_eq!((status.active.as_ref(), status.last_run.as_ref().map(|last| last.run)), (Some(&active), Some(1)));
        assert_eq!(words(&status), "Succeeded=False Running=False Ready=False");
        let settled = StatusBuilder::new(&view, &status, "t").ended(ended(Outcome::Failed), ready());
        assert_eq!(settled.active, None);
    }

    #[test]
    fn the_patch_removes_what_is_gone_and_carries_the_version() {
        let body = patch_body(&QuarksJobStatus::default(), &ResourceVersion::from("7"));
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        let active = |record: &RunRecord| {
            let status = QuarksJobStatus { active: Some(record.active(&"u".into(), "j", None)), ..QuarksJobStatus::default() };
            patch_body(&status, &ResourceVersion::from("7"))["status"]["active"].clone()
        };
        let of_run = RunRecord::of_run(1, Trigger::Now);
        let full = RunRecord {
            strategy: Some(Strategy::Now),
            template: Some("t".into()),
            config: Some("c".into()),
            request: Some("r".into()),
            ttl: Some(1),
            ..of_run.clone()
        };
        let (full, bare) = (active(&full), active(&of_run));
        assert_eq!((&full["details"]["request"], &full["record"]), (&json!("r"), &Value::Null));
        // What the run before consumed must not be taken for what this one does.
        for (field, value) in full["details"].as_object().expect("a map") {
            assert!(bare["details"].get(field).is_some_and(|bare| bare.is_boolean() || bare.is_null()), "{field}: {value}");
        }
        assert_eq!((&body["status"]["active"], &body["status"]["lastRun"]), (&Value::Null, &Value::Null));
        assert!(body["status"].as_object().expect("an object").contains_key("active"));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let message = cut(&"ä".repeat(2_000));
        assert!(message.len() <= MESSAGE_MAX && message.ends_with("..."));
    }
}
