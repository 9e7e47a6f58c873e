//! The operator's threads and their wiring: watches write their kinds into the index and send dirty keys to both controllers, each
//! of which has a thread with a queue and workers; each sends a key to the other when it is the other's turn.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{debug, info, warn};

use crate::api::{ObjectKey, Resource};
use crate::index::{Change, Changed, Index, SharedIndex};
use crate::kube::Client;
use crate::metrics::Metrics;
use crate::rules::template::SidecarSettings;
use crate::shutdown::Shutdown;
use crate::threads::Thread;
use crate::watch::{self, OnListed, Relister, WatchEvent, WatchHandle, WatchSpec};

use super::claims::Controller;
use super::credential::{self, Credentials};
use super::dispatch::{Beside, Closed, DRAIN, Dispatch, KeySender, keys};
use super::errand::{ConfigStore, ConfigWatches, ErrandController};
use super::health::Health;
use super::job::JobController;
use super::job::leftovers::AllLeftovers;
use super::shared::burst::Bursts;
use super::shared::choices::Choices;
use super::shared::events;
use super::shared::memory::Memories;
use super::shared::trouble::remedy;
use super::shared::turn::Tools;

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// Value of the namespace label `monitored`.
    pub monitored_id: String,
    /// These namespaces and no others, whatever their labels; found by their labels if empty.
    pub fixed_namespaces: Vec<String>,
    /// The service account of the sidecar in fixed namespaces.
    pub sidecar_service_account: String,
    /// Keys that each controller works on at once.
    pub max_workers: usize,
    /// How pods get the sidecar.
    pub sidecar: SidecarSettings,
    /// Name of this process in Events: the pod's name.
    pub instance: String,
    /// Namespace of the pod, if there is one: that of the operator's account.
    pub home: Option<String>,
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

/// Sends keys to both controllers.
#[derive(Clone, Debug)]
pub(super) struct DirtySender {
    errand: KeySender,
    job: KeySender,
}

impl DirtySender {
    /// They must be checked.
    pub(super) fn send(&self, keys: Vec<ObjectKey>) -> Result<(), Closed> {
        self.errand.changed(keys.clone())?;
        self.job.changed(keys)
    }

    /// They stand for another object now, or for none.
    fn renewed(&self, keys: Vec<ObjectKey>) -> Result<(), Closed> {
        self.errand.renewed(keys.clone())?;
        self.job.renewed(keys)
    }

    /// One controller is done with the key, and the other continues.
    fn hand_over(&self, controller: Controller, key: &ObjectKey) {
        let sender = match controller {
            Controller::Errand => &self.errand,
            Controller::Job => &self.job,
        };
        // The receiver is gone: the program ends.
        _ = sender.changed(vec![key.clone()]);
    }
}

/// Starts all threads. They end after `shutdown`; a thread that panics is named on `panics`.
pub fn run(client: &Client, config: OperatorConfig, shutdown: &Shutdown, panics: &Sender<&'static str>) -> std::io::Result<Operator> {
    let OperatorConfig { monitored_id, fixed_namespaces, sidecar_service_account, max_workers, sidecar, instance, home, metrics } = config;
    let is_fixed = !fixed_namespaces.is_empty();
    let index = if is_fixed { Index::fixed(&fixed_namespaces, &sidecar_service_account) } else { Index::new(monitored_id) };
    let index = SharedIndex::new(index.with_home(home.unwrap_or_default()));
    let ((errand, errand_keys), (job, job_keys)) = (keys(), keys());
    let dirty = DirtySender { errand, job };
    let (events, poster) = events::pair(instance);
    let credentials = Arc::new(Credentials::default());
    let mut threads = Vec::new();

    let hands = dirty.clone();
    let tools = Arc::new(Tools {
        client: client.clone(),
        index: index.clone(),
        events,
        memories: Memories::new(Box::new(move |controller, key| hands.hand_over(controller, key))),
        choices: Choices::default(),
        bursts: Bursts::default(),
        metrics: metrics.clone(),
    });
    let config = Arc::new(ConfigStore::default());
    let watches = ConfigWatches::new(client.clone(), index.clone(), Arc::clone(&config), dirty.errand.clone(), metrics.clone());
    let errand = ErrandController { tools: Arc::clone(&tools), credentials: Arc::clone(&credentials), sidecar, config };
    let errand = Dispatch {
        names: ("ctl-errand", "errand"),
        workers: max_workers,
        keys: errand_keys,
        work: Arc::new(move |key, since| errand.reconcile(key, since)),
        metrics: metrics.errand(),
    };
    let beside = BesideErrand { first_lists: FirstLists::of(&tools), watches };
    let errand = errand.start(Box::new(beside), shutdown, panics, &mut threads)?;
    let job = JobController { tools: Arc::clone(&tools), leftovers: AllLeftovers::default() };
    let job = Dispatch {
        names: ("ctl-job", "job"),
        workers: max_workers,
        keys: job_keys,
        work: Arc::new(move |key, _| job.reconcile(key)),
        metrics: metrics.job(),
    };
    let job = job.start(Box::new(FirstLists::of(&tools)), shutdown, panics, &mut threads)?;

    let (event_client, event_shutdown) = (client.clone(), shutdown.clone());
    threads.push(Thread::spawn("events", panics, move || poster.run(&event_client, &event_shutdown))?);
    for _ in 0..credential::THREADS {
        let (credentials, client, index, shutdown) = (Arc::clone(&credentials), client.clone(), index.clone(), shutdown.clone());
        threads.push(Thread::spawn("credentials", panics, move || credentials.run(&client, &index, &shutdown))?);
    }

    // Watches last: what they feed exists by now.
    let feed = Feed { client, index: &index, dirty: &dirty, metrics: &metrics };
    let watches = if is_fixed { fixed_namespaces.iter().flat_map(|scope| feed.fixed(scope)).collect() } else { feed.all() };
    let health = Health { controllers: [errand, job], watches: Arc::new(watches), index, call_timeout: client.call_timeout() };
    Ok(Operator { client: client.clone(), threads, health })
}

/// What the thread of `errand` does besides: it owns the watches of ConfigMaps and Secrets, which come and go with references.
struct BesideErrand {
    first_lists: FirstLists,
    watches: ConfigWatches,
}

impl Beside for BesideErrand {
    fn is_ready(&mut self) -> bool {
        self.first_lists.is_ready()
    }

    fn came(&mut self, key: &ObjectKey) {
        let FirstLists { tools, .. } = &self.first_lists;
        // Drops what is in the index in the meantime.
        let indexed = tools.index.read().quarks_job(key);
        if let Some(indexed) = indexed {
            tools.memories.tidy(key, &indexed);
        }
    }

    fn adjust(&mut self, now: Instant) {
        self.watches.adjust(now);
    }
}

/// All that the thread of `job` does besides: nothing is worked on before all first lists are in; with fixed namespaces each is judged by its
/// own.
struct FirstLists {
    tools: Arc<Tools>,
    is_any_in: bool,
}

impl FirstLists {
    fn of(tools: &Arc<Tools>) -> Self {
        Self { tools: Arc::clone(tools), is_any_in: false }
    }
}

impl Beside for FirstLists {
    fn is_ready(&mut self) -> bool {
        self.is_any_in = self.is_any_in || self.tools.index.read().is_any_in();
        self.is_any_in
    }
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
            warn!(count:% = late; "threads did not stop in time");
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

    /// The watches of Jobs and QuarksJobs, in one namespace or, with an empty `scope`, in all. Each waits until its list is requested;
    /// after each requested list of QuarksJobs, the Jobs are requested.
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

/// A watch ends when the receiver is gone.
fn flow(sent: Result<(), Closed>) -> ControlFlow<()> {
    if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Takes a change into the index and notifies the controllers that it may matter to. Each kind has one watch, so changes of
/// one kind and scope come in order.
fn take_in(index: &SharedIndex, dirty: &DirtySender, lists: &Lists, scope: &str, change: Change) -> Result<(), Closed> {
    let (changed, is_newly_in) = {
        let mut index = index.write();
        let was_in = index.is_in(scope);
        let changed = index.apply(scope, change);
        (changed, index.is_in(scope) && !was_in)
    };
    if is_newly_in {
        let (quarks_jobs, jobs) = index.read().sizes();
        info!(namespace:% = scope, quarksjobs:% = quarks_jobs, jobs:%; "caches synced");
        // Wakes the controllers, whatever the keys.
        dirty.send(Vec::new())?;
    }
    let Changed { dirty: keys, renewed, list_all_for, list_jobs } = changed;
    if let (Some(number), Some(quarks_jobs)) = (list_all_for, &lists.quarks_jobs) {
        quarks_jobs.list_for(number);
    }
    if let (true, Some(jobs)) = (list_jobs, &lists.jobs) {
        debug!(namespace:% = scope; "Jobs of a new QuarksJob were skipped; listing them again");
        jobs.list_again();
    }
    dirty.renewed(renewed)?;
    if keys.is_empty() { Ok(()) } else { dirty.send(keys) }
}

/// QuarksJobs and Jobs of namespaces that have come to be served are in.
fn has_listed(index: &SharedIndex, dirty: &DirtySender, number: u64) -> Result<(), Closed> {
    let keys = index.write().has_listed(number);
    if keys.is_empty() { Ok(()) } else { dirty.send(keys) }
}
