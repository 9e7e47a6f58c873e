//! The sidecars' credential: in each namespace with runs that have output, one Secret with a token of the service account that the
//! namespace sets. The token is bound to that Secret and becomes invalid with it, is valid for at most an hour and is renewed at
//! half its lifetime; the kubelet updates it in running pods.
//!
//! `state` decides. Its decisions are carried out here: by the worker whose start needs a token, and otherwise by a few threads.
//! One of them at a time works on a namespace, without a lock during its calls. So the first start creates the token while the
//! others wait for it, and a namespace with a hanging webhook delays only itself: only one thread at a time is given to namespaces
//! that were slow.

mod calls;
mod error;
mod held;
mod state;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use calls::carry_out;
pub use error::CredentialError;
use log::{debug, info, warn};
pub use state::Run;
use state::{Answer, Fate, Readiness, Shown, State, Step};

use crate::api::{ObjectKey, Resource, TOKEN_SECRET};
use crate::index::{Index, SharedIndex};
use crate::kube::{Client, Error};
use crate::moment::Moment;
use crate::shutdown::Shutdown;
use crate::watch::Jitter;

/// Threads that renew, look and delete: two are left if one waits for a namespace that was never slow before, and one for one that was.
pub const THREADS: usize = 3;
/// How often the threads check, in memory, what is due. Only what is due makes a request.
const TICK: Duration = Duration::from_secs(2);
/// A namespace where a call took longer is slow until one has not.
const SLOW: Duration = Duration::from_secs(3);
/// Slow namespaces that are worked on at once, besides what workers do for their starts.
const SLOW_AT_ONCE: usize = 1;
/// Calls that another one may make while a start waits for it: look, create, request, store.
const CALLS: u32 = 4;

#[derive(Debug)]
struct Entry {
    state: State,
    /// The last failure, and how many there were.
    failure: Option<CredentialError>,
    failures: u64,
    is_slow: bool,
}

#[derive(Debug)]
struct All {
    entries: HashMap<String, Box<Entry>>,
    /// Namespaces where it was looked, or is about to be, for what another process left; in order.
    swept: Vec<String>,
    /// When the index was last asked.
    observed: Option<Moment>,
    slow_in_work: usize,
    jitter: Jitter,
}

/// The tokens of all namespaces.
#[derive(Debug)]
pub struct Credentials {
    all: Mutex<All>,
    /// An answer is in.
    changed: Condvar,
}

impl Default for Credentials {
    fn default() -> Self {
        let all = All { entries: HashMap::new(), swept: Vec::new(), observed: None, slow_in_work: 0, jitter: Jitter::from_entropy() };
        Self { all: Mutex::new(all), changed: Condvar::new() }
    }
}

/// A step on its way.
struct Claimed {
    step: Step,
    /// It takes a place of the slow ones.
    is_slow: bool,
}

impl Credentials {
    /// Returns when the Secret of the run's namespace holds a token of `account` that lives for a good while. From now on, whatever
    /// comes of it, the token is kept for this run until it is known to have ended.
    pub fn ensure(&self, client: &Client, index: &SharedIndex, run: &Run, account: &str) -> Result<(), CredentialError> {
        let namespace = &*run.quarks_job.namespace;
        let deadline = Instant::now() + client.call_timeout() * CALLS;
        let mut all = self.lock();
        let limit = client.call_timeout();
        let entry = all.entry(namespace, limit);
        entry.state.need(run.clone(), account, Moment::now());
        let failures = entry.failures;
        loop {
            let now = Moment::now();
            let entry = all.entry(namespace, limit);
            match entry.state.readiness(account, now) {
                Readiness::Ready => {
                    // It may have taken long; the Job's create comes now.
                    entry.state.need(run.clone(), account, now);
                    return Ok(());
                }
                Readiness::Foreign => {
                    return Err(CredentialError::NotReady(foreign_message(namespace)));
                }
                Readiness::NotYet => {}
            }
            let failed = entry.failure.clone();
            if let Some(failure) = failed.clone().filter(|_| entry.failures != failures) {
                return Err(failure);
            }
            match entry.state.step(now) {
                Step::Busy => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(CredentialError::Api(timed_out()));
                    }
                    all = self.changed.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                // Another start has just failed: its error holds for this one too.
                Step::Wait(_) | Step::Over => return Err(failed.unwrap_or_else(|| CredentialError::Api(timed_out()))),
                step => {
                    drop(all);
                    self.carry(client, index, namespace, Claimed { step, is_slow: false });
                    all = self.lock();
                }
            }
        }
    }

    /// Renews, re-creates and deletes tokens; runs on its own threads until shutdown.
    pub fn run(&self, client: &Client, index: &SharedIndex, shutdown: &Shutdown) {
        while !shutdown.wait(TICK) {
            for namespace in self.observe(index, client.call_timeout()) {
                while let Some(claimed) = self.claim(&namespace) {
                    if let Some(error) = self.carry(client, index, &namespace, claimed) {
                        log_failure(&namespace, &error);
                    }
                }
            }
        }
    }

    /// Asks the index who needs a token. Returns all namespaces that have something to do with one.
    fn observe(&self, index: &SharedIndex, call: Duration) -> Vec<String> {
        let now = Moment::now();
        let mut all = self.lock();
        // Once for all threads.
        if all.observed.is_none_or(|observed| now - observed >= TICK / 2) {
            all.observed = Some(now);
            all.take_in(&index.read(), call, now);
        }
        all.entries.keys().cloned().collect()
    }

    /// The next step for a namespace, if there is one and no other thread works on it.
    fn claim(&self, namespace: &str) -> Option<Claimed> {
        let mut all = self.lock();
        let has_place = all.slow_in_work < SLOW_AT_ONCE;
        let entry = all.entries.get_mut(namespace)?;
        let is_slow = entry.is_slow;
        if is_slow && !has_place {
            return None;
        }
        match entry.state.step(Moment::now()) {
            Step::Busy | Step::Wait(_) => None,
            Step::Over => {
                all.entries.remove(namespace);
                None
            }
            step => {
                all.slow_in_work += usize::from(is_slow);
                Some(Claimed { step, is_slow })
            }
        }
    }

    /// Does one step, without a lock, and takes in what comes of it.
    fn carry(&self, client: &Client, index: &SharedIndex, namespace: &str, claimed: Claimed) -> Option<CredentialError> {
        let Claimed { step, is_slow } = claimed;
        let sent = Moment::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| carry_out(client, index, namespace, &step)));
        let now = Moment::now();
        let (answer, error, panic) = match outcome {
            Ok((answer, error)) => (answer, error, None),
            // Otherwise the namespace would wait for this answer forever.
            Err(panic) => (Answer::Failed, None, Some(panic)),
        };
        tell(namespace, &step, &answer);
        let is_failure = matches!(answer, Answer::Failed | Answer::NoAccount);
        let mut all = self.lock();
        all.slow_in_work -= usize::from(is_slow);
        if let Some(entry) = all.entries.get_mut(namespace) {
            entry.state.take_in(answer, sent, now);
            entry.is_slow = now - sent >= SLOW;
            if error.is_some() {
                entry.failure.clone_from(&error);
                entry.failures += u64::from(is_failure);
            }
        }
        drop(all);
        self.changed.notify_all();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        error
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn entry(&mut self, namespace: &str, call: Duration) -> &mut Entry {
        let jitter = &mut self.jitter;
        self.entries.entry(namespace.to_owned()).or_insert_with(|| {
            let state = State::new(jitter.next_factor(), call, Moment::now());
            Box::new(Entry { state, failure: None, failures: 0, is_slow: false })
        })
    }

    fn take_in(&mut self, index: &Index, call: Duration, now: Moment) {
        let running = index.running_output();
        for namespace in running.iter().filter(|namespace| index.monitored(namespace).is_some()) {
            self.entry(namespace, call);
        }
        self.sweep(index, call);
        self.entries.retain(|namespace, entry| {
            if index.is_out_of_reach(namespace) {
                debug!(namespace:%; "token left in place; namespace no longer served");
                return false;
            }
            let shown = Shown {
                is_in: index.is_in(namespace),
                is_running: running.binary_search_by(|running| (**running).cmp(namespace.as_str())).is_ok(),
                account: index.monitored(namespace).and_then(|found| found.service_account.clone()),
            };
            entry.state.observe(shown, &|run| fate(index, run), now);
            true
        });
    }

    /// One more namespace to check for what an earlier process left there, each time it becomes ours. Where a run is active it is
    /// checked once; elsewhere there is time.
    fn sweep(&mut self, index: &Index, call: Duration) {
        let namespaces = index.monitored_with_account();
        self.swept.retain(|swept| namespaces.binary_search_by(|(namespace, _)| namespace.cmp(swept)).is_ok());
        let new = namespaces.into_iter().find_map(|(namespace, _)| Some((self.swept.binary_search(&namespace).err()?, namespace)));
        if let Some((at, namespace)) = new {
            self.entry(&namespace, call);
            self.swept.insert(at, namespace);
        }
    }
}

/// What the index says of a run that this process has started.
fn fate(index: &Index, run: &Run) -> Fate {
    match index.quarks_job(&run.quarks_job).filter(|view| view.uid == run.owner) {
        Some(view) if view.marker.runs >= run.number => Fate::Judged,
        Some(_) => Fate::Waiting,
        // Not before all is in: then nothing has been said.
        None if index.is_in(&run.quarks_job.namespace) => Fate::Ownerless,
        None => Fate::Waiting,
    }
}

fn timed_out() -> Error {
    let message = "timed out; another start in this namespace is also waiting for the sidecar's token".to_owned();
    Error::Transport { verb: "create", resource: Resource::SERVICE_ACCOUNT_TOKENS, sent: false, timed_out: true, message }
}

fn foreign_message(namespace: &str) -> String {
    let key = ObjectKey::new(namespace, TOKEN_SECRET);
    format!(
        "Secret {key} does not belong to the operator, which needs this name for the sidecar's token; delete it or move it to another name"
    )
}

fn tell(namespace: &str, step: &Step, answer: &Answer) {
    match (step, answer) {
        (Step::Store { account, expires, .. }, Answer::Stored(_)) => {
            info!(namespace:%, account:%, expires:%; "token stored");
        }
        (Step::Look, Answer::Found { account: None, .. }) => {
            warn!(namespace:%, message:% = foreign_message(namespace); "no token")
        }
        (Step::Delete(_), Answer::Deleted) => info!(namespace:%; "token Secret deleted"),
        _ => debug!(step:% = step.name(), namespace:%; "token"),
    }
}

fn log_failure(namespace: &str, error: &CredentialError) {
    match error {
        CredentialError::Api(error) if error.is_shutdown() => debug!(namespace:%, error:%; "token not renewed"),
        CredentialError::Api(error) => warn!(namespace:%, error:%; "token not renewed; will retry"),
        CredentialError::NotReady(message) => warn!(namespace:%, message:%; "token not renewed; will retry"),
    }
}

#[cfg(test)]
mod model_tests;
