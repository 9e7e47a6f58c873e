//! What health checks report: a list of what fails, one line each; empty means healthy.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::index::SharedIndex;
use crate::watch::WatchHandle;

/// A controller that has not moved for this long is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// A watch makes progress at least every four minutes, on a quiet cluster too: its idle limit, and some.
const WATCH_SILENT: Duration = Duration::from_secs(330);
/// Failures in a row of one watch until the API server counts as unreachable.
const WATCH_FAILURES: u32 = 3;
/// A worker that is busy with one key for as long as this many calls may take is stuck: no honest turn takes so many at their limit.
const STUCK_CALLS: u32 = 30;
/// But never sooner than this: the end of a run with a thousand pods has a thousand short calls.
const STUCK_WORKER: Duration = Duration::from_secs(900);

/// What health checks ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    pub(super) controllers: [Pulses; 2],
    pub(super) watches: Arc<Vec<WatchHandle>>,
    pub(super) index: SharedIndex,
    /// Limit on one call to the API server.
    pub(super) call_timeout: Duration,
}

impl Health {
    /// `/healthz`: all threads live (another one that ends takes the process with it), and controllers and workers move.
    pub fn alive_failures(&self) -> String {
        let mut failures = String::new();
        let limit = stuck_worker(self.call_timeout);
        for Pulses { names: (name, worker), owner, workers } in &self.controllers {
            let silence = owner.silence();
            if silence >= STUCK {
                fail(&mut failures, format_args!("{name}: no progress for {} s", silence.as_secs()));
            }
            for busy in workers.iter().map(Pulse::silence).filter(|busy| *busy >= limit) {
                fail(&mut failures, format_args!("{worker}: a worker has been busy with one key for {} s", busy.as_secs()));
            }
        }
        for watch in self.watches.iter().filter(|watch| !watch.health().alive) {
            fail(&mut failures, format_args!("{}: stopped", Called(watch)));
        }
        failures
    }

    /// `/readyz`: alive, every first list is in, and the API server can be reached.
    pub fn ready_failures(&self) -> String {
        let mut failures = self.alive_failures();
        for watch in self.watches.iter() {
            let (health, name) = (watch.health(), Called(watch));
            if !health.synced {
                fail(&mut failures, format_args!("{name}: initial list not complete"));
            }
            if health.failures >= WATCH_FAILURES {
                fail(&mut failures, format_args!("{name}: {} consecutive failures", health.failures));
            }
            if health.last_progress_age >= WATCH_SILENT {
                fail(&mut failures, format_args!("{name}: no answer for {} s", health.last_progress_age.as_secs()));
            }
        }
        if failures.is_empty() && !self.index.read().is_synced() {
            fail(&mut failures, format_args!("index: not synced"));
        }
        failures
    }
}

/// A watch as named in answers: with fixed namespaces each has its own.
struct Called<'a>(&'a WatchHandle);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.name(), self.0.namespace()) {
            (name, "") => f.write_str(name),
            (name, namespace) => write!(f, "{name} namespace={namespace}"),
        }
    }
}

fn fail(failures: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = failures.write_fmt(line);
    failures.push('\n');
}

fn stuck_worker(call_timeout: Duration) -> Duration {
    (call_timeout * STUCK_CALLS).max(STUCK_WORKER)
}

/// The pulses of a controller's threads.
#[derive(Clone, Debug)]
pub(super) struct Pulses {
    /// Names of the thread that owns the queue, and of the workers.
    pub(super) names: (&'static str, &'static str),
    /// Of the owner of the queue.
    pub(super) owner: Pulse,
    /// Of the workers.
    pub(super) workers: Arc<Vec<Pulse>>,
}

/// When a thread last moved.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    started: Instant,
    /// Milliseconds from `started`; the largest number while it rests.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// It moves now.
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), last: Arc::new(AtomicU64::new(0)) }
    }

    /// It moves now.
    pub(super) fn beat(&self) {
        self.last.store(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// It has nothing to do and need not move.
    pub(super) fn rest(&self) {
        self.last.store(u64::MAX, Ordering::Relaxed);
    }

    /// How long it has not moved; zero while it rests.
    pub(super) fn silence(&self) -> Duration {
        self.silence_after(self.started.elapsed())
    }

    fn silence_after(&self, elapsed: Duration) -> Duration {
        elapsed.saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Job, Resource};
    use crate::index::Index;
    use crate::kube::config::Auth;
    use crate::kube::scripted::Script;
    use crate::kube::{Client, ClientOptions};
    use crate::watch::{WatchSpec, spawn};

    fn health(controller: Pulse, workers: Vec<Pulse>) -> Health {
        let (watches, index) = (Arc::new(Vec::new()), SharedIndex::new(Index::new("default".to_owned())));
        let pulses = |names, owner, workers| Pulses { names, owner, workers: Arc::new(workers) };
        let controllers = [pulses(("ctl-errand", "errand"), Pulse::new(), Vec::new()), pulses(("ctl-job", "job"), controller, workers)];
        Health { controllers, watches, index, call_timeout: Duration::from_secs(30) }
    }

    fn still_for(seconds: u64) -> Pulse {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the machine is up for longer");
        Pulse { started: long_ago, last: Arc::new(AtomicU64::new(0)) }
    }

    fn resting() -> Pulse {
        let pulse = still_for(100);
        pulse.rest();
        pulse
    }

    #[test]
    fn a_resting_thread_is_not_silent_and_a_beating_one_was_not_for_long() {
        let pulse = Pulse::new();
        let later = Duration::from_secs(1_000);
        assert!(pulse.silence_after(later) == later);
        pulse.rest();
        assert_eq!(pulse.silence_after(later), Duration::ZERO);
        pulse.beat();
        assert!(pulse.silence_after(later) > Duration::from_secs(900));
    }

    #[test]
    fn a_stuck_controller_or_worker_is_named() {
        assert_eq!(health(Pulse::new(), vec![resting(), Pulse::new()]).alive_failures(), "");
        assert!(health(still_for(61), vec![]).alive_failures().starts_with("ctl-job: no progress for 6"));
        let call = |seconds| stuck_worker(Duration::from_secs(seconds));
        assert_eq!([call(1), call(30), call(60)], [900, 900, 1_800].map(Duration::from_secs));
        let slow = health(Pulse::new(), vec![resting(), still_for(901)]);
        let failures = slow.alive_failures();
        assert!(failures.starts_with("job: a worker has been busy with one key for 90") && failures.lines().count() == 1, "{failures}");
        assert!(slow.ready_failures().starts_with(&failures), "who is not alive is not ready");
    }

    #[test]
    fn without_first_lists_it_is_alive_and_not_ready() {
        let health = health(Pulse::new(), vec![resting()]);
        assert_eq!((health.alive_failures().as_str(), health.ready_failures().as_str()), ("", "index: not synced\n"));
    }

    #[test]
    fn a_watch_is_named_with_its_namespace() {
        // Never answers.
        let client = Client::with_transport(Arc::new(Script::default()), &Auth::None, ClientOptions::default());
        let watch = |namespace: &str| {
            let spec = WatchSpec { namespace: namespace.to_owned(), ..WatchSpec::new("watch-jobs", Resource::JOBS) };
            spawn::<Job, _>(&client, spec, |_| std::ops::ControlFlow::Continue(()))
        };
        let health = Health { watches: Arc::new(vec![watch(""), watch("team-a")]), ..health(Pulse::new(), vec![resting()]) };
        let expected = "watch-jobs: initial list not complete\nwatch-jobs namespace=team-a: initial list not complete\n";
        assert_eq!((health.alive_failures().as_str(), health.ready_failures().as_str()), ("", expected));
    }
}
