//! What a worker does with a key: look, decide, do one step, look again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, warn};

use crate::api::{Job, ObjectKey, QuarksJob, QuarksJobStatus, Resource, ResourceVersion};
use crate::clock;
use crate::index::{JobView, NamespaceView, QuarksJobView, SharedIndex};
use crate::kube::{Client, Error, Propagation, Request};
use crate::metrics::Metrics;
use crate::queue::Lane;

use super::action::Action;
use super::choices::Choices;
use super::config::ConfigStore;
use super::credential::Credentials;
use super::decide::{Decision, INVALID_REQUEST, Readiness, Snapshot, Step, decide, pending, readiness};
use super::events::{EventSender, Note};
use super::identity::OwnJob;
use super::memory::{Known, Memories, Memory};
use super::pace::Pause;
use super::report::{ready_message, ready_of};
use super::status::StatusBuilder;
use super::stick::lost_field;
use super::template::SidecarSettings;
use super::trouble::REFUSAL_BACKOFF;

/// Steps for one key before others get their turn. A whole run takes fewer.
const STEPS_MAX: usize = 16;
/// Writes that fail in one turn though the object has not changed since it was read, until it waits.
const IN_VAIN_MAX: u32 = 3;

/// What becomes of a key.
#[derive(Debug)]
pub enum Next {
    /// Nothing more until something changes.
    Done,
    /// Look again after this long.
    After(Duration),
    /// Go on in the normal lane: keys with waiting triggers go first.
    Later,
    /// It panicked: back off.
    Panicked,
    /// It failed for now: back off.
    Retry(Error),
}

/// Why a step did not end well.
pub(super) enum Failed {
    /// The API server said no or could not be reached.
    Api(Error),
    /// The object was not what the decision was made on: read and decide again.
    Stale,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        // NotFound: the QuarksJob itself is gone, or the Job that the step was about; a read tells.
        if error.is_conflict() || error.is_not_found() { Self::Stale } else { Self::Api(error) }
    }
}

/// What a step leads to.
pub(super) enum Flow {
    /// Look again at once.
    Continue,
    /// Nothing more for this long.
    Wait(Duration),
}

/// Counts writes of a turn that were refused as stale though they were not.
#[derive(Default)]
pub(super) struct InVain {
    failed_at: Option<ResourceVersion>,
    failures: u32,
}

impl InVain {
    /// The object was read again.
    pub(super) fn read(&mut self, version: &ResourceVersion) {
        if self.failed_at.as_ref() != Some(version) {
            *self = Self::default();
        }
    }

    /// A write to the object at this version failed. True if that was once too often.
    pub(super) fn failed(&mut self, version: &ResourceVersion) -> bool {
        self.failed_at = Some(version.clone());
        self.failures += 1;
        self.failures > IN_VAIN_MAX
    }
}

impl Memory {
    /// Until when this step has to wait: what it writes does not stick, or was written too often.
    pub(super) fn hold_back(&mut self, step: &Step, grounds: u64, now: Instant) -> Option<Instant> {
        let paused = self.record.map(|pause| pause.until).filter(|until| step.is_record() && now < *until);
        paused.or_else(|| self.pace.until(grounds, now).filter(|_| !matches!(step, Step::LookAtReferences)))
    }
}

/// Everything a worker needs. Shared by all workers; it holds no state of its own but memories.
pub struct Reconciler {
    /// To the API server.
    pub client: Client,
    /// What the watches say.
    pub index: SharedIndex,
    /// Where Events go.
    pub events: EventSender,
    /// Tokens for sidecars.
    pub credentials: Arc<Credentials>,
    /// How pods get the sidecar.
    pub sidecar: SidecarSettings,
    /// What was learned between two steps.
    pub memories: Arc<Memories>,
    /// What referenced ConfigMaps and Secrets say, as digests.
    pub config: Arc<ConfigStore>,
    /// Starts that are about to name versions.
    pub choices: Choices,
    /// Where runs are counted.
    pub metrics: Metrics,
}

/// A worker's turn with a key.
struct Turn<'a> {
    key: &'a ObjectKey,
    lane: Lane,
    /// Read for the next step.
    object: Option<QuarksJob>,
    must_read: bool,
    in_vain: InVain,
}

/// What the index and the memory show of a key.
struct Seen {
    view: Arc<QuarksJobView>,
    jobs: Vec<Arc<JobView>>,
    namespace: Option<NamespaceView>,
}

/// What a step works with.
pub(super) struct Context<'a> {
    pub key: &'a ObjectKey,
    pub view: &'a QuarksJobView,
    pub namespace: Option<&'a NamespaceView>,
    /// The whole object, if it was read for this step.
    pub object: Option<&'a QuarksJob>,
}

impl Context<'_> {
    /// What condition `Ready` says beside a run.
    pub(super) fn ready(&self) -> (Readiness, String) {
        // Something that goes missing during a run is found by the next look.
        let of = |namespace| readiness(self.view, namespace, pending(self.view).is_some(), false);
        let readiness = self.namespace.map_or(Readiness::Ready, of);
        (readiness, ready_message(readiness, self.view, None))
    }
}

impl Reconciler {
    /// Brings one QuarksJob as far as it goes now. It waited in its lane since `since`.
    pub fn reconcile(&self, key: &ObjectKey, lane: Lane, since: Instant) -> Next {
        let mut memory = self.memories.take(key);
        if lane == Lane::Urgent && memory.started.is_none() {
            // That there is something to start is what brought it there.
            memory.trigger_seen.get_or_insert(since);
        }
        let next = self.steps(key, lane, &mut memory);
        if matches!(next, Next::Done | Next::After(_) | Next::Later) && memory.hold.is_none() && memory.settle.is_none() {
            memory.trouble = 0;
        }
        let indexed = self.index.read().quarks_job(key);
        match indexed {
            Some(indexed) => self.memories.put(key, memory, Some(&indexed)),
            None => self.config.forget(key),
        }
        next
    }

    fn steps(&self, key: &ObjectKey, lane: Lane, memory: &mut Memory) -> Next {
        let mut turn = Turn { key, lane, object: None, must_read: false, in_vain: InVain::default() };
        for _ in 0..STEPS_MAX {
            if let ControlFlow::Break(next) = self.look_and_act(&mut turn, memory) {
                return next;
            }
        }
        Next::Later
    }

    /// Looks, decides, does one step. Break: that is all for now.
    fn look_and_act(&self, turn: &mut Turn<'_>, memory: &mut Memory) -> ControlFlow<Next> {
        if turn.must_read {
            self.read_again(turn, memory)?;
        }
        let Some(seen) = self.look_at_index(turn, memory) else { return ControlFlow::Break(Next::Done) };
        let now = Instant::now();
        let (decision, grounds) = self.ask(turn.key, &seen, memory, now);
        let step = match decision {
            // Looked at once more: condition `Ready` still says that a right is missing for a clean-up that is not needed any more.
            Decision::Nothing if memory.rest() => return ControlFlow::Continue(()),
            Decision::Nothing => return ControlFlow::Break(memory.config_loop.rest(now).map_or(Next::Done, Next::After)),
            Decision::Wait(duration) => return ControlFlow::Break(Next::After(duration)),
            Decision::Do(step) => step,
        };
        let is_start = matches!(step, Step::Start(_));
        if turn.lane == Lane::Urgent && !is_start {
            return ControlFlow::Break(Next::Later);
        }
        if let Some(until) = memory.hold_back(&step, grounds, now) {
            return ControlFlow::Break(Next::After(until.saturating_duration_since(now)));
        }
        // A start is decided on an object read just now; whatever writes a status needs to know the old one.
        let needs_object = is_start || matches!(step, Step::Report(_));
        let needs_status = step.is_record() && !matches!(step, Step::TakeBaseline);
        if (needs_object && turn.object.is_none()) || (needs_status && memory.known().is_none()) {
            turn.must_read = true;
            return ControlFlow::Continue(());
        }
        self.act(step, &seen, turn, memory, now)
    }

    fn read_again(&self, turn: &mut Turn<'_>, memory: &mut Memory) -> ControlFlow<Next> {
        let before = self.index.read().quarks_job(turn.key).map(|view| view.resource_version.clone());
        let Some(before) = before else { return ControlFlow::Break(Next::Done) };
        match self.read(turn.key) {
            Ok(Some(read)) => {
                memory.learn(&before, &read);
                turn.in_vain.read(&read.metadata.resource_version);
                (turn.object, turn.must_read) = (Some(read), false);
                ControlFlow::Continue(())
            }
            // The watch will say so too; nothing is done for an object that is gone.
            Ok(None) => ControlFlow::Break(Next::Done),
            Err(error) => ControlFlow::Break(self.trouble(turn.key, memory, error)),
        }
    }

    fn look_at_index(&self, turn: &Turn<'_>, memory: &mut Memory) -> Option<Seen> {
        let index = self.index.read();
        let indexed = index.quarks_job(turn.key)?;
        memory.identify(&indexed, turn.object.is_some());
        let jobs = index.jobs_of(&turn.key.namespace, &memory.view(&indexed).uid);
        memory.observe(&indexed, &jobs, turn.object.is_some());
        let namespace = index.monitored(&turn.key.namespace).cloned();
        Some(Seen { view: memory.view(&indexed), jobs: memory.current_jobs(jobs), namespace })
    }

    /// The decision, and what it rests on.
    fn ask(&self, key: &ObjectKey, seen: &Seen, memory: &mut Memory, now: Instant) -> (Decision, u64) {
        let snapshot = Snapshot {
            view: &seen.view,
            jobs: &seen.jobs,
            namespace: seen.namespace.as_ref(),
            started: memory.started.as_ref(),
            hold: memory.hold.as_ref(),
            references: memory.references(&seen.view, self.config.due(key).map(|due| due.at)),
            pauses: memory.pauses(),
        };
        let (decision, grounds) = (decide(&snapshot, now), grounds(&snapshot));
        match decision {
            Decision::Do(Step::Start(_)) => _ = memory.trigger_seen.get_or_insert(now),
            // Nothing waits, or for something else than us; but after a refusal the trigger still does.
            Decision::Nothing => memory.trigger_seen = None,
            Decision::Wait(_) if memory.hold.is_none() => memory.trigger_seen = None,
            Decision::Do(_) | Decision::Wait(_) => {}
        }
        (decision, grounds)
    }

    fn act(&self, step: Step, seen: &Seen, turn: &mut Turn<'_>, memory: &mut Memory, now: Instant) -> ControlFlow<Next> {
        let Seen { view, namespace, .. } = seen;
        let key = turn.key;
        debug!("step key={key} step={}", step.name());
        let object = turn.object.take();
        let context = Context { key, view, namespace: namespace.as_ref(), object: object.as_ref() };
        let cleaned = step.cleaned().map(|job| job.uid.clone());
        let (is_start, is_look) = (matches!(step, Step::Start(_)), matches!(step, Step::LookAtReferences));
        match self.execute(step, &context, memory) {
            Ok(Flow::Wait(duration)) => return ControlFlow::Break(Next::After(duration)),
            Ok(Flow::Continue) => {
                if cleaned.is_some() {
                    memory.cleaned_up(now);
                }
                if !is_look {
                    memory.pace.wrote(now);
                }
                if is_start {
                    return ControlFlow::Break(Next::Later);
                }
            }
            Err(Failed::Stale) if turn.in_vain.failed(&view.resource_version) => {
                let pause = Pause::after(memory.record, REFUSAL_BACKOFF, now);
                let wait = pause.until - now;
                warn!("a write fails again and again though nothing has changed key={key} retry_seconds={}", wait.as_secs());
                memory.record = Some(pause);
                return ControlFlow::Break(Next::After(wait));
            }
            Err(Failed::Stale) => turn.must_read = true,
            Err(Failed::Api(error)) => {
                if let Some(job) = cleaned.filter(|_| !error.is_shutdown()) {
                    self.postpone_clean_up(&context, job, memory, &error);
                    return ControlFlow::Continue(());
                }
                // A write that was refused is one, too.
                if error.is_answered_write() {
                    memory.pace.wrote(now);
                }
                return ControlFlow::Break(self.trouble(key, memory, error));
            }
        }
        ControlFlow::Continue(())
    }

    fn execute(&self, step: Step, context: &Context<'_>, memory: &mut Memory) -> Result<Flow, Failed> {
        match step {
            Step::DeleteStray(job) => self.delete_stray(context, &job, memory),
            Step::Start(pending) => self.start(context, pending, memory),
            Step::RecordStart(job) => self.record_start(context, &job, memory),
            Step::Settle(job) => self.settle_ended(context, &job, memory),
            Step::SettleVanished { job_name, record } => self.settle_vanished(context, &job_name, &record, memory),
            Step::RecordEnd(job) => self.record_end(context, job.as_ref(), memory),
            Step::CleanUp(job) => self.clean_up(context, &job, memory),
            Step::JudgeOld(job) => self.judge_old(context, &job, memory),
            Step::ReleaseTtl(job) => self.release_ttl(&job, memory),
            Step::Prune => {
                self.prune_or_postpone(context, memory);
                Ok(Flow::Continue)
            }
            Step::DeleteOldest(job) => self.delete_job(&job.view, memory),
            Step::LookAtReferences => self.look_again(context, memory),
            Step::TakeBaseline => self.take_baseline(context, memory),
            Step::Report(readiness) => self.report(context, readiness, memory),
        }
    }

    pub(super) fn read(&self, key: &ObjectKey) -> Result<Option<QuarksJob>, Error> {
        match self.client.call::<QuarksJob>(&Request::get(Resource::QUARKS_JOBS, key)) {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read_job(&self, key: &ObjectKey) -> Result<Option<JobView>, Error> {
        match self.client.call::<Job>(&Request::get(Resource::JOBS, key)) {
            Ok(job) => Ok(Some(JobView::from(job))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_status(
        &self,
        context: &Context<'_>,
        old: &QuarksJobStatus,
        status: &QuarksJobStatus,
        memory: &mut Memory,
    ) -> Result<(), Failed> {
        if status == old {
            return Ok(());
        }
        let action = Action::WriteStatus { key: context.key, version: &context.view.resource_version, status };
        let lost = match self.client.call::<QuarksJob>(&action.request()) {
            Ok(object) => {
                memory.learn(&context.view.resource_version, &object);
                memory.known().and_then(|known| lost_field(status, &known.status))
            }
            // Either it is gone, or its status is no resource of its own.
            Err(error) if error.is_not_found() => match self.read(context.key)? {
                Some(object) if object.metadata.resource_version == context.view.resource_version => Some("all of it"),
                Some(_) | None => return Err(Failed::Stale),
            },
            Err(error) => return Err(error.into()),
        };
        let Some(field) = lost else {
            memory.record = None;
            self.tell_invalid_request(context, old, status);
            return Ok(());
        };
        let now = Instant::now();
        let pause = Pause::after(memory.record, REFUSAL_BACKOFF, now);
        memory.record = Some(pause);
        warn!(
            "status written and not kept, will be tried again: is the CRD older than the operator (kubectl apply -f manifests/crd.yaml), or does a \
             mutating webhook change it? key={} field=status:{field:?} retry_seconds={}",
            context.key,
            (pause.until - now).as_secs()
        );
        Ok(())
    }

    /// Whatever the status is written for, it may be the first to say that the request is none.
    fn tell_invalid_request(&self, context: &Context<'_>, old: &QuarksJobStatus, status: &QuarksJobStatus) {
        let is_said = |status: &QuarksJobStatus| ready_of(status).is_some_and(|(_, reason)| reason == INVALID_REQUEST);
        if let Some(ready) = status.condition("Ready").filter(|_| is_said(status) && !is_said(old)) {
            self.tell(context, Note::warning(INVALID_REQUEST, "Observe", ready.message.clone()));
        }
    }

    /// The Job of the trigger that waited is there.
    pub(super) fn trigger_served(&self, memory: &mut Memory) {
        if let Some(seen) = memory.trigger_seen.take() {
            self.metrics.job_created(seen.elapsed());
        }
    }

    pub(super) fn tell(&self, context: &Context<'_>, note: Note) {
        self.events.send(context.key, &context.view.uid, note);
    }

    // --- during a run ------------------------------------------------------------------------------------------

    fn record_start(&self, context: &Context<'_>, OwnJob { view: job, record }: &OwnJob, memory: &mut Memory) -> Result<Flow, Failed> {
        // If the answer to its create was lost, the watch has brought it.
        self.trigger_served(memory);
        let Known { status, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
        let active = record.active(&context.view.uid, &job.key.name, job.created.clone());
        let now = clock::now_seconds();
        let new = StatusBuilder::new(context.view, &status, &now).running(active, context.ready());
        self.write_status(context, &status, &new, memory)?;
        Ok(Flow::Continue)
    }

    /// A Job whose run is settled already, and that still runs: a create that arrived late.
    fn delete_stray(&self, context: &Context<'_>, OwnJob { view: job, .. }: &OwnJob, memory: &mut Memory) -> Result<Flow, Failed> {
        // The index may be behind: only a Job that runs now is a stray.
        match self.read_job(&job.key)? {
            Some(fresh) if fresh.uid == job.uid && fresh.end.is_none() && !fresh.is_being_deleted => {
                warn!("stray job deleted key={} job={}", context.key, job.key.name);
                let action = Action::DeleteJob {
                    key: &job.key,
                    uid: &fresh.uid,
                    version: Some(&fresh.resource_version),
                    propagation: Propagation::Background,
                };
                self.client.call_unit(&action.request())?;
            }
            _ => debug!("stray job has ended or is gone key={} job={}", context.key, job.key.name),
        }
        memory.acted_on(job);
        Ok(Flow::Continue)
    }
}

/// All that decisions rest on and that others can change, as a hash: while it stays the same, nothing has changed.
pub(super) fn grounds(snapshot: &Snapshot<'_>) -> u64 {
    let Snapshot { view, jobs, namespace, started, hold, references, pauses: _ } = snapshot;
    let mut hasher = DefaultHasher::new();
    (view.generation, &view.request, view.marker.runs, &view.marker.once, &view.marker.config, started.is_some()).hash(&mut hasher);
    for job in *jobs {
        (job.uid.as_str(), job.end.is_some(), job.is_being_deleted, job.has_ttl).hash(&mut hasher);
    }
    (namespace.map(|namespace| (&namespace.service_account, namespace.assigns_users)), hold.map(|hold| hold.until)).hash(&mut hasher);
    (references.is_missing, references.config, references.due).hash(&mut hasher);
    hasher.finish()
}
