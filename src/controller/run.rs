//! The operator's threads: each watch writes its kind into the index and names dirty keys to the controller thread, which
//! owns the queue and gives keys to idle workers.
//!
//! Bounded channels point one way. Keys go only to idle workers and there is room for every worker's answer, so
//! nobody waits in a circle.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender, bounded, select};
use log::{debug, error, info, warn};

use crate::api::{ObjectKey, Resource};
use crate::index::{Change, Changed, Index, JobView, SharedIndex};
use crate::kube::{Answer, Client, Error};
use crate::metrics::{Metrics, Reconciled};
use crate::queue::{Backoff, Lane, Queue};
use crate::shutdown::Shutdown;
use crate::threads::Thread;
use crate::watch::{self, Jitter, OnListed, Relister, WatchEvent, WatchHandle, WatchSpec};

use super::choices::Choices;
use super::config::{ConfigStore, ConfigWatches};
use super::credential::{self, Credentials};
use super::decide::pending;
use super::events;
use super::health::{Health, Pulse};
use super::identity::run_of;
use super::memory::Memories;
use super::reconcile::{Next, Reconciler};
use super::template::SidecarSettings;
use super::trouble::remedy;

/// Sets of keys that wait for the controller.
const CHANNEL: usize = 256;
/// Keys that failed: first and longest delay.
const RETRY: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(60) };
/// What the API server refuses as invalid is tried again no sooner: only an edit or a new CRD helps.
const INVALID_RETRY: Duration = Duration::from_secs(60);
/// A key for which a busy API server took nothing comes back after this, or later if the server asks for it.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// The controller shows at least this often that it moves.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Running requests get this long after the shutdown; the process must be gone 5 s after SIGTERM.
const DRAIN: Duration = Duration::from_secs(4);
/// A worker that is busy with one key for this long is worth a line.
const SLOW: Duration = Duration::from_secs(60);

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// Value of the namespace label `monitored`.
    pub monitored_id: String,
    /// These namespaces and no others, whatever their labels; found by their labels if empty.
    pub fixed_namespaces: Vec<String>,
    /// The account that the sidecar acts as in fixed namespaces.
    pub sidecar_service_account: String,
    /// Keys that are worked on at once.
    pub max_workers: usize,
    /// How pods get the sidecar.
    pub sidecar: SidecarSettings,
    /// Name of this process in Events: the pod's name.
    pub instance: String,
    /// Where everything is counted.
    pub metrics: Metrics,
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    client: Client,
    threads: Vec<Thread>,
    health: Health,
}

/// Names keys to the controller thread.
#[derive(Clone, Debug)]
pub(super) struct DirtySender(Sender<Dirty>);

impl DirtySender {
    /// Sends keys, each in the lane that it belongs to now.
    pub(super) fn send(&self, index: &SharedIndex, keys: Vec<ObjectKey>) -> Result<(), SendError<Dirty>> {
        let (urgent, normal) = {
            let index = index.read();
            keys.into_iter().partition(|key| has_to_start(&index, key))
        };
        self.send_lanes(Vec::new(), urgent, normal)
    }

    fn send_lanes(&self, renewed: Vec<ObjectKey>, urgent: Vec<ObjectKey>, normal: Vec<ObjectKey>) -> Result<(), SendError<Dirty>> {
        if !renewed.is_empty() {
            self.0.send(Dirty::Renewed(renewed))?;
        }
        for (keys, lane) in [(urgent, Lane::Urgent), (normal, Lane::Normal)] {
            if !keys.is_empty() {
                self.0.send(Dirty::Changed(keys, lane))?;
            }
        }
        Ok(())
    }
}

/// What the controller is told of keys.
#[derive(Debug)]
pub(super) enum Dirty {
    /// They have to be looked at.
    Changed(Vec<ObjectKey>, Lane),
    /// They stand for another object now, or for none: nothing that the old one waited for counts.
    Renewed(Vec<ObjectKey>),
}

/// With the time since when it waited.
type Work = (ObjectKey, Lane, Instant);
type Done = (ObjectKey, Next);

/// Starts all threads. They end after `shutdown`; a thread that panics is named on `panics`.
pub fn run(client: &Client, config: OperatorConfig, shutdown: &Shutdown, panics: &Sender<&'static str>) -> std::io::Result<Operator> {
    let OperatorConfig { monitored_id, fixed_namespaces, sidecar_service_account, max_workers, sidecar, instance, metrics } = config;
    let is_fixed = !fixed_namespaces.is_empty();
    let index =
        SharedIndex::new(if is_fixed { Index::fixed(&fixed_namespaces, &sidecar_service_account) } else { Index::new(monitored_id) });
    let pulse = Pulse::new();
    let (dirty, dirty_in) = bounded::<Dirty>(CHANNEL);
    let dirty = DirtySender(dirty);
    let (work, work_in) = bounded::<Work>(max_workers);
    let (done, done_in) = bounded::<Done>(max_workers);
    let rush = Arc::new(AtomicBool::new(false));
    let (events, poster) = events::pair(instance, Arc::clone(&rush));
    let credentials = Arc::new(Credentials::default());
    let mut threads = Vec::new();

    let memories = Arc::new(Memories::default());
    let (ctl_pulse, ctl_index, ctl_shutdown) = (pulse.clone(), index.clone(), shutdown.clone());
    let config = Arc::new(ConfigStore::default());
    let config_watches = ConfigWatches::new(client.clone(), index.clone(), Arc::clone(&config), dirty.clone(), metrics.clone());
    let controller = Controller {
        queue: Queue::new(RETRY),
        idle: max_workers,
        work,
        done: done_in,
        dirty: dirty_in,
        rush,
        config_watches,
        memories: Arc::clone(&memories),
        metrics: metrics.clone(),
    };
    threads.push(Thread::spawn("ctl-run", panics, move || controller.run(&ctl_index, &ctl_pulse, &ctl_shutdown))?);

    let reconciler = Arc::new(Reconciler {
        client: client.clone(),
        index: index.clone(),
        events,
        credentials: Arc::clone(&credentials),
        sidecar,
        memories,
        config,
        choices: Choices::default(),
        metrics: metrics.clone(),
    });
    let workers: Vec<Pulse> = (0..max_workers).map(|_| Pulse::new()).collect();
    for pulse in &workers {
        let (reconciler, work, done, pulse) = (Arc::clone(&reconciler), work_in.clone(), done.clone(), pulse.clone());
        threads.push(Thread::spawn("worker", panics, move || serve_keys(&reconciler, &work, &done, &pulse))?);
    }

    let (event_client, event_shutdown) = (client.clone(), shutdown.clone());
    threads.push(Thread::spawn("events", panics, move || poster.run(&event_client, &event_shutdown))?);
    for _ in 0..credential::THREADS {
        let (credentials, client, index, shutdown) = (Arc::clone(&credentials), client.clone(), index.clone(), shutdown.clone());
        threads.push(Thread::spawn("credentials", panics, move || credentials.run(&client, &index, &shutdown))?);
    }

    // Watches last: what they feed is there.
    let feed = Feed { client, index: &index, dirty: &dirty, metrics: &metrics };
    let watches = if is_fixed { fixed_namespaces.iter().flat_map(|scope| feed.fixed(scope)).collect() } else { feed.all() };
    let (workers, watches) = (Arc::new(workers), Arc::new(watches));
    let health = Health { pulse, workers, watches, index, call_timeout: client.call_timeout() };
    Ok(Operator { client: client.clone(), threads, health })
}

impl Operator {
    /// For health checks.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// After the shutdown: closes the watches, lets running requests end for a few seconds, joins what has ended.
    pub fn stop(self) {
        let Self { client, threads, health } = self;
        health.watches.iter().for_each(WatchHandle::stop);
        let is_over = || threads.iter().all(Thread::is_finished) && health.watches.iter().all(|watch| !watch.health().alive);
        let deadline = Instant::now() + DRAIN;
        while Instant::now() < deadline && !is_over() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        // What still waits for an answer is cut off; a watch that is connecting cannot be, and ends with the process.
        client.shutdown();
        let late = threads.iter().filter(|thread| !thread.is_finished()).count();
        if late > 0 {
            warn!("threads did not end in time count={late}");
        }
        threads.into_iter().filter(Thread::is_finished).for_each(Thread::join);
    }
}

/// What every watch of the index needs.
struct Feed<'a> {
    client: &'a Client,
    index: &'a SharedIndex,
    dirty: &'a DirtySender,
    metrics: &'a Metrics,
}

/// How the objects of a kind come into the index.
struct Intake<T> {
    /// What is kept of an object; `None` if it is not ours.
    decode: fn(&SharedIndex, &[u8]) -> serde_json::Result<Option<T>>,
    wrap: fn(WatchEvent<Arc<T>>) -> Change,
}

/// The watches that a change may ask for fresh lists, where there are such.
#[derive(Clone, Default)]
struct Lists {
    quarks_jobs: Option<Relister>,
    jobs: Option<Relister>,
}

impl Feed<'_> {
    /// The three watches of everything. What is ours of a kind is known by the one before it: first the Namespaces are listed, then the
    /// QuarksJobs, then the Jobs.
    fn all(&self) -> Vec<WatchHandle> {
        let [jobs, quarks_jobs] = self.pair("");
        let lists = Lists { quarks_jobs: Some(quarks_jobs.relister()), jobs: None };
        let spec = WatchSpec::new("watch-namespaces", Resource::NAMESPACES);
        let namespaces = self.watch(spec, Intake { decode: SharedIndex::decode_namespace, wrap: Change::Namespace }, lists);
        vec![namespaces, jobs, quarks_jobs]
    }

    /// The two watches of a namespace that is given.
    fn fixed(&self, scope: &str) -> [WatchHandle; 2] {
        let pair = self.pair(scope);
        let [_, quarks_jobs] = &pair;
        quarks_jobs.relister().list_for(1);
        pair
    }

    /// The watches of Jobs and QuarksJobs, in one namespace or, with an empty `scope`, in all. Each waits until its list is asked for;
    /// after each list of QuarksJobs that was asked for, the Jobs are asked for.
    fn pair(&self, scope: &str) -> [WatchHandle; 2] {
        let spec = |name, resource| WatchSpec { namespace: scope.to_owned(), is_held: true, ..WatchSpec::new(name, resource) };
        let (index, dirty) = (self.index.clone(), self.dirty.clone());
        let jobs_listed: OnListed = Arc::new(move |number| flow(has_listed(&index, &dirty, number)));
        let jobs = WatchSpec { on_listed: Some(jobs_listed), ..spec("watch-jobs", Resource::JOBS) };
        let jobs = self.watch(jobs, Intake { decode: SharedIndex::decode_job, wrap: Change::Job }, Lists::default());
        let (relister, lists) = (jobs.relister(), Lists { quarks_jobs: None, jobs: Some(jobs.relister()) });
        let listed: OnListed = Arc::new(move |number| {
            relister.list_for(number);
            ControlFlow::Continue(())
        });
        let quarks_jobs = WatchSpec { on_listed: Some(listed), ..spec("watch-qjobs", Resource::QUARKS_JOBS) };
        let quarks_jobs = self.watch(quarks_jobs, Intake { decode: SharedIndex::decode_quarks_job, wrap: Change::QuarksJob }, lists);
        [jobs, quarks_jobs]
    }

    /// Starts the watch of one kind.
    fn watch<T: Send + Sync + 'static>(&self, spec: WatchSpec, intake: Intake<T>, lists: Lists) -> WatchHandle {
        let Intake { decode, wrap } = intake;
        let (index, dirty, scope) = (self.index.clone(), self.dirty.clone(), spec.namespace.clone());
        let spec = WatchSpec { remedy: remedy(&index, &scope), on_restart: Some(self.metrics.on_restart()), ..spec };
        let known = self.index.clone();
        let decode = move |json: &[u8]| decode(&known, json);
        watch::spawn_filtered(self.client, spec, decode, move |event| flow(take_in(&index, &dirty, &lists, &scope, wrap(event))))
    }
}

/// A watch ends when nobody listens.
fn flow(sent: Result<(), SendError<Dirty>>) -> ControlFlow<()> {
    if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Takes a change into the index and tells the controller whom it may matter to. Each kind has one watch, so changes of
/// one kind and scope come in order.
fn take_in(index: &SharedIndex, dirty: &DirtySender, lists: &Lists, scope: &str, change: Change) -> Result<(), SendError<Dirty>> {
    let (changed, normal, urgent, is_newly_in) = {
        let mut index = index.write();
        let was_in = index.is_in(scope);
        let mut changed = index.apply(scope, change);
        let keys = std::mem::take(&mut changed.dirty);
        let (urgent, normal): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| has_to_start(&index, key));
        (changed, normal, urgent, index.is_in(scope) && !was_in)
    };
    if is_newly_in {
        let (quarks_jobs, jobs) = index.read().sizes();
        info!("caches are in namespace={scope:?} quarksjobs={quarks_jobs} jobs={jobs}");
        // Wakes the controller, whatever the keys.
        dirty.0.send(Dirty::Changed(Vec::new(), Lane::Normal))?;
    }
    let Changed { dirty: _, renewed, list_all_for, list_jobs } = changed;
    if let (Some(number), Some(quarks_jobs)) = (list_all_for, &lists.quarks_jobs) {
        quarks_jobs.list_for(number);
    }
    if let (true, Some(jobs)) = (list_jobs, &lists.jobs) {
        debug!("Jobs of a new QuarksJob were passed over, they are listed again namespace={scope:?}");
        jobs.list_again();
    }
    dirty.send_lanes(renewed, urgent, normal)
}

/// QuarksJobs and Jobs of namespaces that have come to be served are in.
fn has_listed(index: &SharedIndex, dirty: &DirtySender, number: u64) -> Result<(), SendError<Dirty>> {
    let keys = index.write().has_listed(number);
    dirty.send(index, keys)
}

/// True if a trigger waits and no run goes on: somebody waits for a Job.
fn has_to_start(index: &Index, key: &ObjectKey) -> bool {
    index.quarks_job(key).is_some_and(|view| {
        let is_unsettled = |job: &Arc<JobView>| run_of(job, &view, None).is_some_and(|record| record.run > view.marker.runs);
        view.active.is_none() && pending(&view).is_some() && !index.jobs_of(&key.namespace, &view.uid).iter().any(is_unsettled)
    })
}

/// One worker: a key in, what becomes of it out. A panic is this key's failure and nobody else's.
fn serve_keys(reconciler: &Reconciler, work: &Receiver<Work>, done: &Sender<Done>, pulse: &Pulse) {
    pulse.rest();
    for (key, lane, since) in work {
        let started = Instant::now();
        pulse.beat();
        let next = catch_unwind(AssertUnwindSafe(|| reconciler.reconcile(&key, lane, since))).unwrap_or_else(|_| {
            error!("worker panicked, the key is tried again key={key}");
            Next::Panicked
        });
        pulse.rest();
        let taken = started.elapsed();
        reconciler.metrics.worked(taken);
        if taken > SLOW {
            warn!("slow key key={key} seconds={}", taken.as_secs());
        }
        if done.send((key, next)).is_err() {
            return;
        }
    }
}

/// Owner of the queue.
struct Controller {
    queue: Queue,
    idle: usize,
    work: Sender<Work>,
    done: Receiver<Done>,
    dirty: Receiver<Dirty>,
    /// Told to the poster of Events: it holds back while triggers wait for their Jobs.
    rush: Arc<AtomicBool>,
    /// Watches that come and go with what QuarksJobs refer to.
    config_watches: ConfigWatches,
    /// Only to drop what is in the index meanwhile.
    memories: Arc<Memories>,
    metrics: Metrics,
}

impl Controller {
    fn run(mut self, index: &SharedIndex, pulse: &Pulse, shutdown: &Shutdown) {
        let mut jitter = Jitter::from_entropy();
        let mut is_any_in = false;
        loop {
            pulse.beat();
            let now = Instant::now();
            is_any_in = is_any_in || index.read().is_any_in();
            // Nothing is worked on before all first lists are in; with fixed namespaces each is judged by its own.
            while is_any_in && self.idle > 0 {
                let Some((key, lane, since)) = self.queue.take(now) else { break };
                self.metrics.waited(now.saturating_duration_since(since));
                if self.work.send((key, lane, since)).is_err() {
                    return;
                }
                self.idle -= 1;
            }
            if is_any_in {
                self.config_watches.adjust(now);
            }
            self.metrics.queue(self.queue.depth(), self.queue.adds());
            self.rush.store(self.queue.is_rush(now), Ordering::Relaxed);
            let due =
                self.queue.next_due().filter(|_| self.idle > 0).map_or(HEARTBEAT, |due| due.saturating_duration_since(now).min(HEARTBEAT));
            select! {
                recv(shutdown.channel()) -> _ => return self.drain(),
                recv(self.done) -> message => match message {
                    Ok((key, next)) => {
                        self.idle += 1;
                        self.finish(&key, next, jitter.next_factor());
                    }
                    Err(_) => return,
                },
                recv(self.dirty) -> message => match message {
                    Ok(Dirty::Renewed(keys)) => keys.iter().for_each(|key| self.queue.forget(key)),
                    Ok(Dirty::Changed(keys, lane)) => {
                        let now = Instant::now();
                        for key in keys {
                            let indexed = index.read().quarks_job(&key);
                            if let Some(indexed) = indexed {
                                self.memories.tidy(&key, &indexed);
                            }
                            self.queue.add(key, lane, now);
                        }
                    }
                    Err(_) => return,
                },
                default(due) => {}
            }
        }
    }

    fn finish(&mut self, key: &ObjectKey, next: Next, jitter: f64) {
        let now = Instant::now();
        self.metrics.reconciled(match next {
            Next::Done => Reconciled::Success,
            Next::After(_) => Reconciled::RequeueAfter,
            Next::Later => Reconciled::Requeue,
            Next::Retry(_) | Next::Panicked => Reconciled::Error,
        });
        match next {
            Next::Done => self.queue.done(key, now),
            Next::After(duration) => self.queue.done_until(key, now + duration, now),
            Next::Later => {
                self.queue.done(key, now);
                self.queue.add(key.clone(), Lane::Normal, now);
            }
            // The server's load is not this key's fault.
            Next::Retry(error) if error.answer() == Answer::Busy => {
                let pause = error.retry_after().unwrap_or_default().max(BUSY_RETRY).mul_f64(1.0 + jitter / 4.0);
                self.queue.done_until(key, now + pause, now);
                log_failure(key, &error);
            }
            Next::Retry(error) => {
                let at_least = if error.is_invalid() { Some(INVALID_RETRY) } else { error.retry_after() };
                self.queue.failed(key, at_least, jitter, now);
                log_failure(key, &error);
            }
            Next::Panicked => self.queue.failed(key, None, jitter, now),
        }
    }

    /// No new keys; the workers end when the channel closes, after what they are at.
    fn drain(self) {
        let Self { queue, idle: _, work, done, dirty: _, rush: _, config_watches, memories: _, metrics: _ } = self;
        drop(config_watches);
        drop(work);
        debug!("waiting for workers busy={}", queue.in_work());
        // The channel closes when the last worker is gone.
        let deadline = Instant::now() + DRAIN;
        while done.recv_deadline(deadline).is_ok() {}
    }
}

fn log_failure(key: &ObjectKey, error: &Error) {
    if error.is_shutdown() {
        debug!("stopped in the middle key={key}");
    } else if !error.is_forbidden() {
        // What is forbidden was told with what helps.
        warn!("failed, will be tried again key={key} error={error}");
    }
}
