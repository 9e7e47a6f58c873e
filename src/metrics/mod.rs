//! The numbers of `/metrics`: counters and histograms of this process, and their text form.
//!
//! Promises: recording costs an atomic or a short lock, blocks on nothing else and cannot fail; counters only grow; label values
//! come from fixed sets (our own words, kinds, status codes), so no object or namespace names get in. Names and labels are those of
//! client-go and controller-runtime where they have the same number: dashboards know them.

mod process;
mod registry;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::api::{Outcome, Trigger};
use crate::kube::Request;
use crate::watch::OnRestart;

use registry::{CONTROLLERS, Counters, Histogram, Queue, Registry};

const TRIGGERS: [Trigger; 4] = [Trigger::Now, Trigger::Once, Trigger::Request, Trigger::Config];
const OUTCOMES: [Outcome; 4] = [Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled, Outcome::Unknown];
const RESULTS: [Reconciled; 4] = [Reconciled::Success, Reconciled::Error, Reconciled::Requeue, Reconciled::RequeueAfter];

/// How a turn of work on one key ended, in controller-runtime's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// Nothing more to do.
    Success,
    /// It failed and comes back after a backoff.
    Error,
    /// It continues at once, after others had their turn.
    Requeue,
    /// It comes back after a set time.
    RequeueAfter,
}

impl Reconciled {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Requeue => "requeue",
            Self::RequeueAfter => "requeue_after",
        }
    }
}

/// All metrics of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Registry>);

/// The numbers of one controller and its queue. Clones share them.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    registry: Arc<Registry>,
    /// Its place among the controllers.
    at: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All zero. Series whose labels are a small fixed set exist from the start, so that the first increase is one.
    pub fn new() -> Self {
        let (runs, reconciles) = (Counters::default(), Counters::default());
        for trigger in TRIGGERS {
            for outcome in OUTCOMES {
                runs.add(0, [trigger.as_str(), outcome.as_str()], 0);
            }
        }
        for controller in CONTROLLERS {
            RESULTS.iter().for_each(|result| reconciles.add(0, [controller, result.as_str()], 0));
        }
        Self(Arc::new(Registry {
            queues: Default::default(),
            trigger_to_job: Histogram::default(),
            requests: Counters::default(),
            reconciles,
            runs,
            restarts: Counters::default(),
            leader: AtomicU8::new(0),
            started: process::start_time(),
        }))
    }

    /// Of the controller `errand`.
    pub fn errand(&self) -> ControllerMetrics {
        ControllerMetrics { registry: Arc::clone(&self.0), at: 0 }
    }

    /// Of the controller `job`.
    pub fn job(&self) -> ControllerMetrics {
        ControllerMetrics { registry: Arc::clone(&self.0), at: 1 }
    }

    /// A request was answered with `code`, or with nothing (0).
    pub fn requested(&self, request: &Request, code: u16) {
        self.0.requests.add(code, [request.method.as_str(), request.resource.plural], 1);
    }

    /// A run is settled.
    pub fn settled(&self, trigger: Trigger, outcome: Outcome) {
        self.0.runs.add(0, [trigger.as_str(), outcome.as_str()], 1);
    }

    /// A trigger's Job was created so long after the operator had seen that it may run.
    pub fn job_created(&self, after: Duration) {
        self.0.trigger_to_job.record(after);
    }

    /// What a watch reports its restarts to.
    pub fn on_restart(&self) -> OnRestart {
        let metrics = self.clone();
        Arc::new(move |resource, reason| metrics.0.restarts.add(0, [resource, reason], 1))
    }

    /// Whether this process is the leader. Until the first call there is no election, and no series, as in client-go.
    pub fn set_leader(&self, is_leader: bool) {
        self.0.leader.store(if is_leader { 2 } else { 1 }, Ordering::Relaxed);
    }

    /// All of it in Prometheus' text format 0.0.4.
    pub fn text(&self) -> String {
        text::write(&self.0)
    }
}

impl ControllerMetrics {
    fn own(&self) -> &Queue {
        &self.registry.queues[self.at]
    }

    /// The queue as its owner sees it: keys that wait, and all that ever came to wait.
    pub fn queue(&self, depth: usize, adds: u64) {
        self.own().depth.store(depth as u64, Ordering::Relaxed);
        self.own().adds.store(adds, Ordering::Relaxed);
    }

    /// A key waited this long for a worker.
    pub fn waited(&self, time: Duration) {
        self.own().queue_time.record(time);
    }

    /// A worker had a key for this long.
    pub fn worked(&self, time: Duration) {
        self.own().work_time.record(time);
    }

    /// A turn of work has ended. A key that comes back after a time counts as a retry, as in client-go.
    pub fn reconciled(&self, result: Reconciled) {
        self.registry.reconciles.add(0, [CONTROLLERS[self.at], result.as_str()], 1);
        if matches!(result, Reconciled::Error | Reconciled::RequeueAfter) {
            self.own().retries.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ObjectKey, Resource};

    fn sample(metrics: &Metrics, series: &str) -> Option<String> {
        metrics.text().lines().find_map(|line| Some(line.strip_prefix(series)?.strip_prefix(' ')?.to_owned()))
    }

    #[test]
    fn small_fixed_sets_are_there_from_the_start_and_others_when_they_occur() {
        let metrics = Metrics::new();
        let text = metrics.text();
        assert_eq!(text.lines().filter(|line| line.starts_with("quarksjob_runs_total{")).count(), TRIGGERS.len() * OUTCOMES.len());
        assert_eq!(
            text.lines().filter(|line| line.starts_with("controller_runtime_reconcile_total{")).count(),
            CONTROLLERS.len() * RESULTS.len()
        );
        for name in ["rest_client_requests_total", "quarksjob_watch_restarts_total", "leader_election_master_status"] {
            assert!(!text.contains(name), "{name} has no series, so it is not spoken of:\n{text}");
        }
    }

    #[test]
    fn runs_and_reconciles_are_counted_by_their_labels() {
        let metrics = Metrics::new();
        metrics.settled(Trigger::Config, Outcome::Unknown);
        metrics.settled(Trigger::Config, Outcome::Unknown);
        assert_eq!(sample(&metrics, r#"quarksjob_runs_total{trigger="config",outcome="Unknown"}"#).as_deref(), Some("2"));
        assert_eq!(sample(&metrics, r#"quarksjob_runs_total{trigger="now",outcome="Unknown"}"#).as_deref(), Some("0"));
        for result in RESULTS {
            metrics.errand().reconciled(result);
            for (controller, count) in [("errand", "1"), ("job", "0")] {
                let result = result.as_str();
                let series = format!(r#"controller_runtime_reconcile_total{{controller="{controller}",result="{result}"}}"#);
                assert_eq!(sample(&metrics, &series).as_deref(), Some(count));
            }
        }
        assert_eq!(sample(&metrics, r#"workqueue_retries_total{name="errand"}"#).as_deref(), Some("2"), "error and requeue_after");
    }

    #[test]
    fn requests_are_told_by_kind_and_subresource_and_never_by_name() {
        let metrics = Metrics::new();
        let key = ObjectKey::new("namespace-canary", "name-canary");
        metrics.requested(&Request::get(Resource::QUARKS_JOBS, &key), 200);
        metrics.requested(&Request::get(Resource::QUARKS_JOBS, &key), 200);
        metrics.requested(&Request::merge_patch_status(&key, &()), 409);
        metrics.requested(&Request::create_token(&key, &()), 0);
        metrics.requested(&Request::pod_log(&key, "main"), 200);
        metrics.requested(&Request::get_path("/version"), 200);
        for (series, count) in [
            (r#"{code="200",method="GET",resource="quarksjobs"}"#, "2"),
            (r#"{code="409",method="PATCH",resource="quarksjobs/status"}"#, "1"),
            (r#"{code="<error>",method="POST",resource="serviceaccounts/token"}"#, "1"),
            (r#"{code="200",method="GET",resource="pods/log"}"#, "1"),
            (r#"{code="200",method="GET",resource="version"}"#, "1"),
        ] {
            assert_eq!(sample(&metrics, &format!("rest_client_requests_total{series}")).as_deref(), Some(count), "{series}");
        }
        assert!(!metrics.text().contains("canary"));
    }

    #[test]
    fn a_histogram_is_cumulative_and_takes_any_duration() {
        let metrics = Metrics::new();
        for time in [Duration::ZERO, Duration::from_micros(1_000), Duration::from_micros(1_001), Duration::from_secs(301)] {
            metrics.job().waited(time);
        }
        let bucket = |bound: &str| {
            sample(&metrics, &format!(r#"workqueue_queue_duration_seconds_bucket{{name="job",le="{bound}"}}"#)).expect("a bucket")
        };
        assert_eq!([bucket("0.001"), bucket("0.0025"), bucket("300"), bucket("+Inf")], ["2", "3", "3", "4"]);
        assert_eq!(sample(&metrics, r#"workqueue_queue_duration_seconds_sum{name="job"}"#).as_deref(), Some("301.002001"));
        assert_eq!(sample(&metrics, r#"workqueue_queue_duration_seconds_count{name="job"}"#).as_deref(), Some("4"));
        metrics.job_created(Duration::from_millis(1_500));
        assert_eq!(sample(&metrics, r#"quarksjob_trigger_to_job_seconds_bucket{le="1"}"#).as_deref(), Some("0"));
        assert_eq!(sample(&metrics, r#"quarksjob_trigger_to_job_seconds_bucket{le="2.5"}"#).as_deref(), Some("1"));
        assert_eq!(sample(&metrics, "quarksjob_trigger_to_job_seconds_sum").as_deref(), Some("1.500000"));
        metrics.job().worked(Duration::from_secs(86_400));
        metrics.job().worked(Duration::ZERO);
        assert_eq!(sample(&metrics, r#"workqueue_work_duration_seconds_count{name="job"}"#).as_deref(), Some("2"));
    }

    #[test]
    fn leadership_is_spoken_of_only_with_an_election() {
        let metrics = Metrics::new();
        let series = r#"leader_election_master_status{name="quarks-job"}"#;
        assert_eq!(sample(&metrics, series), None);
        for (is_leader, value) in [(false, "0"), (true, "1"), (false, "0")] {
            metrics.set_leader(is_leader);
            assert_eq!(sample(&metrics, series).as_deref(), Some(value));
        }
    }

    #[test]
    fn queue_numbers_are_its_owners() {
        let metrics = Metrics::new();
        metrics.job().queue(3, 10);
        metrics.job().queue(1, 11);
        metrics.on_restart()("jobs", "gone");
        assert_eq!(sample(&metrics, r#"workqueue_depth{name="job"}"#).as_deref(), Some("1"));
        assert_eq!(sample(&metrics, r#"workqueue_adds_total{name="job"}"#).as_deref(), Some("11"));
        assert_eq!(sample(&metrics, r#"quarksjob_watch_restarts_total{resource="jobs",reason="gone"}"#).as_deref(), Some("1"));
    }

    #[test]
    fn this_process_has_all_process_metrics() {
        let metrics = Metrics::new();
        for name in ["cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes", "open_fds", "max_fds", "start_time_seconds"] {
            let value = sample(&metrics, &format!("process_{name}")).unwrap_or_else(|| panic!("no process_{name}"));
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{name} {value}");
        }
    }
}
