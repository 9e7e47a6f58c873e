//! A turn: one controller has one key in hand. It looks, decides, takes one step, and looks again.
//!
//! What both controllers do in a turn is here: look at index and memory, read the QuarksJob, write its status, send Events. What
//! they decide and do is in `errand` and `job`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;

use crate::api::{Job, ObjectKey, QuarksJob, QuarksJobStatus, Resource, ResourceVersion, Spec};
use crate::clock;
use crate::contract::reason::Reason;
use crate::controller::claims::{Controller, Snapshot, Stage};
use crate::index::{Index, SharedIndex};
use crate::kube::{Client, Error, Request};
use crate::metrics::Metrics;
use crate::views::identity::{OwnJob, own_jobs};
use crate::views::triggers::pending;
use crate::views::{JobView, NamespaceView, QuarksJobView};

use super::action::Action;
use super::burst::Bursts;
use super::choices::Choices;
use super::decision::{Failed, Flow, Outcome};
use super::events::EventSender;
use super::memory::{InHand, Known, Memories, Memory, Waiting};
use super::note::Note;
use super::pace::Pause;
use super::pace::REFUSAL_BACKOFF;
use super::ready::{Readiness, readiness, ready_message, ready_of};
use super::status::StatusBuilder;
use super::stick::lost_field;

/// Steps for one key before others get their turn. A whole run takes fewer.
pub const STEPS_MAX: usize = 16;
/// Writes that may fail in one turn although the object has not changed since it was read, before it waits.
const IN_VAIN_MAX: u32 = 3;

/// What both controllers work with. Shared by all workers; its only state is the memories.
pub struct Tools {
    /// To the API server.
    pub client: Client,
    /// What the watches show.
    pub index: SharedIndex,
    /// Where Events go.
    pub events: EventSender,
    /// What is remembered between two turns.
    pub memories: Arc<Memories>,
    /// Starts that have chosen versions.
    pub choices: Choices,
    /// Where many start at once.
    pub bursts: Bursts,
    /// Where runs are counted.
    pub metrics: Metrics,
}

impl Tools {
    /// Reads the QuarksJob; `None` if it does not exist.
    pub fn read(&self, key: &ObjectKey) -> Result<Option<QuarksJob>, Error> {
        match self.client.call::<QuarksJob>(&Request::get(Resource::QUARKS_JOBS, key)) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a Job; `None` if it does not exist.
    pub fn read_job(&self, key: &ObjectKey) -> Result<Option<JobView>, Error> {
        match self.client.call::<Job>(&Request::get(Resource::JOBS, key)) {
            Ok(job) => Ok(Some(JobView::from(job))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Counts writes of a turn that were rejected as stale although they were not.
#[derive(Debug, Default)]
pub struct InVain {
    failed_at: Option<ResourceVersion>,
    failures: u32,
}

impl InVain {
    /// The object was read again.
    pub fn read(&mut self, version: &ResourceVersion) {
        if self.failed_at.as_ref() != Some(version) {
            *self = Self::default();
        }
    }

    /// A write to the object at this version failed. True if that was one time too many.
    pub fn failed(&mut self, version: &ResourceVersion) -> bool {
        self.failed_at = Some(version.clone());
        self.failures += 1;
        self.failures > IN_VAIN_MAX
    }
}

impl Memory {
    /// Until when a step must wait: what it writes is not stored, or was written too often. `is_record` says that it writes the
    /// QuarksJob and nothing starts or ends by it.
    pub fn hold_back(&mut self, is_record: bool, grounds: u64, now: Instant) -> Option<Instant> {
        let paused = self.record.map(|pause| pause.until).filter(|until| is_record && now < *until);
        paused.or_else(|| self.pace.until(grounds, now))
    }
}

/// What index and memory show of a key.
#[derive(Debug)]
pub struct Seen {
    /// The QuarksJob.
    pub view: Arc<QuarksJobView>,
    /// Its Jobs.
    pub jobs: Vec<OwnJob>,
    /// Its namespace, if it is served.
    pub namespace: Option<NamespaceView>,
}

impl Seen {
    /// What decisions depend on.
    pub fn snapshot<'s>(&'s self, memory: &'s Memory) -> Snapshot<'s> {
        let Self { view, jobs, namespace } = self;
        Snapshot { view, jobs, namespace: namespace.as_ref(), started: memory.started.as_ref() }
    }
}

/// A QuarksJob that was read just now: what the view does not have of it.
#[derive(Debug)]
pub struct Fresh {
    /// The checked spec; `None` if it breaks a rule.
    pub spec: Option<Spec>,
}

/// A key in hand.
pub struct Turn<'a> {
    /// What both controllers work with.
    pub tools: &'a Tools,
    /// Whose turn it is.
    pub key: &'a ObjectKey,
    hand: InHand,
    /// As it was last seen.
    pub view: Arc<QuarksJobView>,
    /// The same of its namespace, if it is served.
    pub namespace: Option<NamespaceView>,
    /// What was read for the next step.
    pub fresh: Option<Fresh>,
    /// It is to be read before the next look.
    pub must_read: bool,
    in_vain: InVain,
    /// A step was taken: the other controller may have to continue.
    pub has_acted: bool,
    /// A read showed that the QuarksJob no longer exists: the watch will show it too.
    pub is_gone: bool,
}

impl<'a> Turn<'a> {
    /// Takes the key in hand. `None` if the QuarksJob does not exist; `Err` if the other controller has it.
    pub fn begin(tools: &'a Tools, key: &'a ObjectKey, controller: Controller) -> Result<Option<Self>, InOtherHand> {
        let hand = tools.memories.take(key, controller).ok_or(InOtherHand)?;
        let indexed = tools.index.read().quarks_job(key);
        Ok(indexed.map(|view| Self {
            tools,
            key,
            hand,
            view,
            namespace: None,
            fresh: None,
            must_read: false,
            in_vain: InVain::default(),
            has_acted: false,
            is_gone: false,
        }))
    }

    /// Puts it back. The other controller continues if a step of this one made the key the other's.
    pub fn end(self, controller: Controller, outcome: &Outcome) {
        let Self { tools, key, mut hand, has_acted, .. } = self;
        let index = tools.index.read();
        let Some(indexed) = index.quarks_job(key) else { return };
        let is_retry = matches!(outcome, Outcome::Retry(_));
        let hands_over = end_turn(&index, &indexed, &mut hand.memory, controller, has_acted, is_retry);
        drop(index);
        hand.put(Some(&indexed), hands_over);
    }

    /// What is remembered of the key.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.hand.memory
    }

    /// What the last answer showed of the QuarksJob.
    pub fn known(&self) -> Result<Known, Failed> {
        self.hand.memory.known().cloned().ok_or(Failed::Stale)
    }

    /// True if the last answer is known.
    pub fn is_known(&self) -> bool {
        self.hand.memory.known().is_some()
    }

    /// Reads the QuarksJob if necessary, and looks at index and memory. `Err` says how the turn ends.
    pub fn observe(&mut self) -> Result<Seen, Outcome> {
        if self.must_read {
            match self.read_again() {
                Ok(true) => {}
                Ok(false) => {
                    self.is_gone = true;
                    return Err(Outcome::Done);
                }
                Err(error) => return Err(self.trouble(error)),
            }
        }
        self.look().ok_or(Outcome::Done)
    }

    /// What follows from the result of a step. `is_write` says that it was meant to write something.
    pub fn follow(&mut self, result: Result<Flow, Failed>, is_write: bool, now: Instant) -> ControlFlow<Outcome> {
        match result {
            Ok(Flow::Wait(duration)) => ControlFlow::Break(Outcome::RequeueAfter(duration)),
            Ok(Flow::Continue) => {
                self.has_acted = true;
                if is_write {
                    self.memory().pace.wrote(now);
                }
                ControlFlow::Continue(())
            }
            Err(Failed::Stale) => match self.went_stale(now) {
                Some(wait) => ControlFlow::Break(Outcome::RequeueAfter(wait)),
                None => ControlFlow::Continue(()),
            },
            Err(Failed::Api(error)) => {
                // A rejected write counts too.
                if error.is_answered_write() {
                    self.memory().pace.wrote(now);
                }
                ControlFlow::Break(self.trouble(error))
            }
        }
    }

    /// Looks at index and memory. `None` if the QuarksJob no longer exists.
    fn look(&mut self) -> Option<Seen> {
        let Self { tools, key, hand: InHand { memory, .. }, .. } = self;
        let is_fresh = self.fresh.is_some();
        let index = tools.index.read();
        let indexed = index.quarks_job(key)?;
        memory.identify(&indexed, is_fresh);
        let jobs = index.jobs_of(&key.namespace, &memory.view(&indexed).uid);
        memory.observe(&indexed, &jobs, is_fresh);
        let namespace = index.monitored(&key.namespace).cloned();
        let view = memory.view(&indexed);
        let jobs = own_jobs(&view, &memory.current_jobs(jobs), memory.started.as_ref());
        self.view = Arc::clone(&view);
        self.namespace.clone_from(&namespace);
        Some(Seen { view, jobs, namespace })
    }

    /// Reads the QuarksJob. False if it does not exist: the watch will show it too, and nothing is done for a deleted object.
    fn read_again(&mut self) -> Result<bool, Error> {
        let before = self.tools.index.read().quarks_job(self.key).map(|view| view.resource_version.clone());
        let Some(before) = before else { return Ok(false) };
        let Some(read) = self.tools.read(self.key)? else { return Ok(false) };
        let spec = self.memory().learn(&before, &read);
        self.in_vain.read(&read.metadata.resource_version);
        (self.fresh, self.must_read) = (Some(Fresh { spec }), false);
        Ok(true)
    }

    /// A step was based on an object that has changed, according to the API server: it is read again. If that happens repeatedly
    /// although nothing has changed, it waits for this long.
    fn went_stale(&mut self, now: Instant) -> Option<Duration> {
        self.must_read = true;
        let version = self.view.resource_version.clone();
        if !self.in_vain.failed(&version) {
            return None;
        }
        let pause = Pause::after(self.memory().record, REFUSAL_BACKOFF, now);
        let wait = pause.until - now;
        warn!(key:% = self.key, retry_seconds:% = wait.as_secs(); "a write keeps failing although nothing has changed");
        self.memory().record = Some(pause);
        Some(wait)
    }

    /// Condition `Ready` during a run. A missing right to clean up is reported until the right is back.
    pub fn ready(&self) -> (Readiness, String) {
        let InHand { memory, .. } = &self.hand;
        let denial = memory.known().filter(|_| memory.is_clean_up_denied).and_then(|known| known.status.condition("Ready"));
        match denial.filter(|ready| ready.reason == Reason::NamespaceNotReady.as_str()) {
            Some(ready) => (Readiness::NamespaceNotReady, ready.message.clone()),
            None => ready_beside_run(&self.view, self.namespace.as_ref()),
        }
    }

    /// A builder of the status that follows `status`.
    pub fn status<'b>(&'b self, status: &QuarksJobStatus, now: &'b str) -> StatusBuilder<'b> {
        StatusBuilder::new(&self.view, status, now)
    }

    /// Writes the status, if it differs from `old`.
    pub fn write_status(&mut self, old: &QuarksJobStatus, status: &QuarksJobStatus) -> Result<(), Failed> {
        if status == old {
            return Ok(());
        }
        let version = self.view.resource_version.clone();
        let action = Action::WriteStatus { key: self.key, version: &version, status };
        let lost = match self.tools.client.call::<QuarksJob>(&action.request()) {
            Ok(object) => {
                self.memory().learn(&version, &object);
                self.hand.memory.known().and_then(|known| lost_field(status, &known.status))
            }
            // Either it no longer exists, or its status is not a separate resource.
            Err(error) if error.is_not_found() => match self.tools.read(self.key)? {
                Some(object) if object.metadata.resource_version == version => Some("all"),
                Some(_) | None => return Err(Failed::Stale),
            },
            Err(error) => return Err(error.into()),
        };
        let Some(field) = lost else {
            self.memory().record = None;
            self.tell_invalid_request(old, status);
            return Ok(());
        };
        let now = Instant::now();
        let pause = Pause::after(self.memory().record, REFUSAL_BACKOFF, now);
        self.memory().record = Some(pause);
        warn!(
            key:% = self.key, field:% = format_args!("status:{field}"), retry_seconds:% = (pause.until - now).as_secs();
            "status accepted but not stored; will retry; apply the current CRD (kubectl apply -f manifests/crd.yaml) or check for a mutating webhook"
        );
        Ok(())
    }

    /// Any status write may be the first one to report an invalid request.
    fn tell_invalid_request(&self, old: &QuarksJobStatus, status: &QuarksJobStatus) {
        let is_said = |status: &QuarksJobStatus| ready_of(status).is_some_and(|(_, reason)| reason == Reason::InvalidRequest.as_str());
        if let Some(ready) = status.condition("Ready").filter(|_| is_said(status) && !is_said(old)) {
            self.tell(Note::new(Reason::InvalidRequest, "Observe", ready.message.clone()));
        }
    }

    /// The Job of the pending trigger exists.
    pub fn trigger_served(&mut self) {
        if let Some(seen) = self.memory().waiting.trigger_seen.take() {
            self.tools.metrics.job_created(seen.elapsed());
        }
    }

    /// Leaves an Event on the QuarksJob.
    pub fn tell(&self, note: Note) {
        self.tools.events.send(self.key, &self.view.uid, note);
    }

    /// The time for a status.
    pub fn now(&self) -> String {
        clock::now_seconds()
    }
}

/// Who may write the QuarksJob now, as index and memory show it.
fn claimed_by(index: &Index, indexed: &Arc<QuarksJobView>, memory: &Memory) -> Controller {
    let (view, started) = (memory.view(indexed), memory.started.as_ref());
    let jobs = memory.current_jobs(index.jobs_of(&view.key.namespace, &view.uid));
    let jobs = own_jobs(&view, &jobs, started);
    Stage::of(&Snapshot { view: &view, jobs: &jobs, namespace: None, started }).controller()
}

/// What the end of a turn of `controller` means for the memory. True if the other one continues.
pub fn end_turn(
    index: &Index,
    indexed: &Arc<QuarksJobView>,
    memory: &mut Memory,
    controller: Controller,
    has_acted: bool,
    is_retry: bool,
) -> bool {
    // The owner does not matter for most turns: they find nothing to do.
    if !has_acted && memory.trouble == 0 {
        return false;
    }
    let is_own = claimed_by(index, indexed, memory) == controller;
    let is_held = memory.waiting.hold.is_some() || memory.ending.settle.is_some();
    // A look at a key of the other controller says nothing about that one's failures.
    if (is_own || has_acted) && !is_held && !is_retry {
        memory.trouble = 0;
    }
    has_acted && !is_own
}

/// The other controller has the key; it is going to hand it over.
#[derive(Debug)]
pub struct InOtherHand;

/// Condition `Ready` during a run.
pub fn ready_beside_run(view: &QuarksJobView, namespace: Option<&NamespaceView>) -> (Readiness, String) {
    // What is deleted during a run is noticed by the next look.
    let of = |namespace| readiness(view, namespace, pending(view).is_some(), false);
    let readiness = namespace.map_or(Readiness::Ready, of);
    (readiness, ready_message(readiness, view, None))
}

/// Everything that decisions depend on and that others can change, as a hash: while it stays the same, nothing has changed.
pub fn grounds(snapshot: &Snapshot<'_>, waiting: &Waiting) -> u64 {
    let Snapshot { view, jobs, namespace, started } = snapshot;
    let mut hasher = DefaultHasher::new();
    (view.generation, &view.request, view.marker.runs, &view.marker.once, &view.marker.config, started.is_some()).hash(&mut hasher);
    for OwnJob { view: job, .. } in *jobs {
        (job.uid.as_str(), job.end.is_some(), job.is_being_deleted, job.has_ttl).hash(&mut hasher);
    }
    (namespace.map(|namespace| (&namespace.service_account, namespace.assigns_users)), waiting.hold.as_ref().map(|hold| hold.until))
        .hash(&mut hasher);
    (waiting.missing.is_some(), &waiting.config).hash(&mut hasher);
    hasher.finish()
}
