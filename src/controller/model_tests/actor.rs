//! An operator of the model: its index, its memories, and the turns of its workers.
//!
//! Mirrors `Reconciler::steps` and `execute` (`reconcile.rs`) with the executors in `start.rs`, `settle.rs`, `cleanup.rs` and `report.rs`,
//! and calls the model where they call the API server. What decides is the real code: `decide`, `Memory`, `identity`, `record`,
//! `strategy_after`, `StatusBuilder`, `lost_field`, `hold_back`. Left out: output, references, versions, Events, lanes.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acts;
use super::ledger::Caller;
use super::world::{Event, No, OTHER, SERVED, Stored, World};
use crate::api::{Namespace, ObjectKey, ObjectMeta, Outcome, Strategy};
use crate::controller::decide::{Decision, Hold, Pending, Readiness, Snapshot, StartedRun, Step, decide};
use crate::controller::identity::{OwnJob, run_of};
use crate::controller::memory::{Known, Memories, Memory};
use crate::controller::names::job_name;
use crate::controller::pace::Pause;
use crate::controller::reconcile::{Context, InVain, grounds};
use crate::controller::record::{Marker, RunRecord};
use crate::controller::report::ready_message;
use crate::controller::settle::{last_run, recorded_end, strategy_after};
use crate::controller::status::StatusBuilder;
use crate::controller::stick::lost_field;
use crate::controller::template::ttl_seconds;
use crate::controller::trouble::REFUSAL_BACKOFF;
use crate::controller::verdict::Verdict;
use crate::index::{Change, Index, JobView, NamespaceView, QuarksJobView};
use crate::watch::WatchEvent;

const STEPS_MAX: u32 = 16;
const SAME_REPORT: Duration = Duration::from_secs(600);
const UNSEEN_JOB_RETRY: Duration = Duration::from_secs(5);
const NOW: &str = "2026-01-01T00:00:00Z";

/// A worker with a key: it may stop anywhere between two calls for as long as it likes.
#[derive(Default)]
struct Turn {
    object: Option<Rc<Stored>>,
    must_read: bool,
    in_vain: InVain,
    steps: u32,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    Done,
    After(Duration),
    Later,
    Retry,
    /// The turn is not over.
    Goes,
}

enum Failed {
    Api(No),
    Stale,
}

impl From<No> for Failed {
    fn from(no: No) -> Self {
        match no {
            No::Gone | No::Conflict => Self::Stale,
            No::Answer | No::Exists | No::OtherObject | No::Refused => Self::Api(no),
        }
    }
}

enum Flow {
    Continue,
    Wait(Duration),
}

pub struct Operator {
    number: usize,
    life: u32,
    index: Index,
    memories: Memories,
    quarks_jobs_seen: usize,
    jobs_seen: usize,
    turns: BTreeMap<ObjectKey, (Turn, Box<Memory>)>,
}

fn new_index() -> Index {
    let mut index = Index::new("id");
    let namespace = |name: &str, monitored: &str| {
        let mut metadata = ObjectMeta { name: name.to_owned(), ..ObjectMeta::default() };
        metadata.labels.insert(crate::api::LABEL_MONITORED.to_owned(), monitored.to_owned());
        Arc::new(NamespaceView::from(Namespace { metadata }))
    };
    index.apply("", Change::Namespace(WatchEvent::Replaced(vec![namespace(SERVED, "id"), namespace(OTHER, "another")])));
    index
}

impl Operator {
    pub fn new(number: usize, world: &World) -> Self {
        let mut operator = Self {
            number,
            life: 0,
            index: new_index(),
            memories: Memories::default(),
            quarks_jobs_seen: 0,
            jobs_seen: 0,
            turns: BTreeMap::new(),
        };
        operator.relist(world, false);
        operator.relist(world, true);
        operator
    }

    pub fn restart(&mut self, world: &mut World) {
        world.ledger.only_life = world.ledger.only_life.map(|life| life + 1);
        *self = Self { life: self.life + 1, ..Self::new(self.number, world) };
    }

    /// What was missed is made up for by a fresh list.
    pub fn relist(&mut self, world: &World, is_job: bool) {
        let change = if is_job {
            self.jobs_seen = world.job_events.len();
            Change::Job(WatchEvent::Replaced(world.jobs.values().cloned().collect()))
        } else {
            self.quarks_jobs_seen = world.quarks_job_events.len();
            Change::QuarksJob(WatchEvent::Replaced(world.quarks_jobs.values().map(|stored| stored.view()).collect()))
        };
        self.index.apply("", change);
    }

    /// The next events of a watch come, in one chunk.
    pub fn deliver(&mut self, world: &World, is_job: bool, events: usize) {
        if is_job {
            let until = world.job_events.len().min(self.jobs_seen.saturating_add(events));
            for event in &world.job_events[self.jobs_seen..until] {
                let event = match event {
                    Event::Applied(job) => WatchEvent::Applied(Arc::clone(job)),
                    Event::Deleted(key) => WatchEvent::Deleted(key.clone()),
                };
                self.index.apply("", Change::Job(event));
            }
            self.jobs_seen = until;
        } else {
            let until = world.quarks_job_events.len().min(self.quarks_jobs_seen.saturating_add(events));
            for event in &world.quarks_job_events[self.quarks_jobs_seen..until] {
                let event = match event {
                    Event::Applied(stored) => WatchEvent::Applied(stored.view()),
                    Event::Deleted(key) => WatchEvent::Deleted(key.clone()),
                };
                self.index.apply("", Change::QuarksJob(event));
            }
            self.quarks_jobs_seen = until;
        }
    }

    pub fn catch_up(&mut self, world: &World) {
        self.deliver(world, false, usize::MAX);
        self.deliver(world, true, usize::MAX);
    }

    /// Catches up and works until there is nothing to do for now.
    pub fn run(&mut self, world: &mut World) {
        for _ in 0..12 {
            self.catch_up(world);
            let writes = world.writes;
            let mut is_over = true;
            for at in 0..2 {
                let next = self.work(world, &acts::key(at), STEPS_MAX);
                is_over &= matches!(next, Next::Done | Next::After(_) | Next::Retry);
            }
            if world.ledger.violation.is_some() || (is_over && world.writes == writes) {
                return;
            }
        }
    }

    /// So many rounds of a worker's turn.
    pub fn work(&mut self, world: &mut World, key: &ObjectKey, rounds: u32) -> Next {
        let (mut turn, mut memory) = self.turns.remove(key).unwrap_or_else(|| (Turn::default(), self.memories.take(key)));
        let mut next = Next::Goes;
        for _ in 0..rounds {
            if world.ledger.violation.is_some() {
                break;
            }
            next = Worker { world, operator: self, key, memory: &mut memory, turn: &mut turn }.round();
            if next != Next::Goes {
                break;
            }
        }
        if next == Next::Goes {
            // The worker has the memory.
            self.turns.insert(key.clone(), (turn, memory));
            return next;
        }
        if next != Next::Retry && memory.hold.is_none() && memory.settle.is_none() {
            memory.trouble = 0;
        }
        match self.index.quarks_job(key) {
            Some(indexed) => self.memories.put(key, memory, Some(&indexed)),
            None => world.ledger.forgets(self.number),
        }
        next
    }
}

struct Worker<'a> {
    world: &'a mut World,
    operator: &'a mut Operator,
    key: &'a ObjectKey,
    memory: &'a mut Memory,
    turn: &'a mut Turn,
}

impl Worker<'_> {
    fn caller(&self, since: u64) -> Caller {
        Caller { operator: self.operator.number, life: self.operator.life, since }
    }

    /// One round of the loop in `Reconciler::steps`.
    fn round(&mut self) -> Next {
        self.turn.steps += 1;
        if self.turn.steps > STEPS_MAX {
            return Next::Later;
        }
        let index = &self.operator.index;
        if self.turn.must_read {
            let Some(before) = index.quarks_job(self.key).map(|view| view.resource_version.clone()) else { return Next::Done };
            match self.world.read(self.key) {
                Ok(Some(read)) => {
                    self.memory.learn_view(&before, read.known());
                    self.turn.in_vain.read(&read.object.metadata.resource_version);
                    self.turn.object = Some(read);
                    self.turn.must_read = false;
                }
                Ok(None) => return Next::Done,
                Err(no) => return self.trouble(no),
            }
        }
        let Some(indexed) = index.quarks_job(self.key) else { return Next::Done };
        let jobs = index.jobs_of(&self.key.namespace, &self.memory.view(&indexed).uid);
        let had_started = self.memory.started.is_some();
        self.memory.observe(&indexed, &jobs, self.turn.object.is_some());
        let is_of_another = self.world.quarks_jobs.get(self.key).is_none_or(|stored| *stored.uid() != indexed.uid);
        if had_started && self.memory.started.is_none() && is_of_another {
            // An index that shows an object that is gone takes the memory of the next one with it.
            self.world.ledger.forgets(self.operator.number);
        }
        let view = self.memory.view(&indexed);
        let jobs = self.memory.current_jobs(jobs);
        let namespace = index.monitored(&self.key.namespace).cloned();
        let now = self.world.now;
        let (decision, grounds) = {
            let snapshot = Snapshot {
                view: &view,
                jobs: &jobs,
                namespace: namespace.as_ref(),
                started: self.memory.started.as_ref(),
                hold: self.memory.hold.as_ref(),
                references: self.memory.references(&view, None),
                pauses: self.memory.pauses(),
            };
            (decide(&snapshot, now), grounds(&snapshot))
        };
        let step = match decision {
            Decision::Nothing => return Next::Done,
            Decision::Wait(duration) => return Next::After(duration),
            Decision::Do(step) => step,
        };
        if let Some(until) = self.memory.hold_back(&step, grounds, now) {
            return Next::After(until.saturating_duration_since(now));
        }
        let is_start = matches!(step, Step::Start(_));
        let needs_object = is_start || matches!(step, Step::Report(_));
        let needs_status = step.is_record() && step != Step::TakeBaseline;
        if (needs_object && self.turn.object.is_none()) || (needs_status && self.memory.known().is_none()) {
            self.turn.must_read = true;
            return Next::Goes;
        }
        if is_start {
            self.world.ledger.starts_beside(&jobs, &view.uid);
        }
        let cleaned = step.cleaned().map(|job| job.uid.clone());
        let object = self.turn.object.take();
        let context =
            Context { key: self.key, view: &view, namespace: namespace.as_ref(), object: object.as_deref().map(|read| &read.object) };
        match self.execute(step, &context, object.as_deref(), now) {
            Ok(Flow::Wait(duration)) => return Next::After(duration),
            Ok(Flow::Continue) => {
                if cleaned.is_some() {
                    self.memory.cleaned_up(now);
                }
                self.memory.pace.wrote(now);
                if is_start {
                    return Next::Later;
                }
            }
            Err(Failed::Stale) if self.turn.in_vain.failed(&view.resource_version) => {
                let pause = Pause::after(self.memory.record, REFUSAL_BACKOFF, now);
                self.memory.record = Some(pause);
                return Next::After(pause.until - now);
            }
            Err(Failed::Stale) => self.turn.must_read = true,
            Err(Failed::Api(no)) => match cleaned {
                Some(job) => _ = self.memory.clean_up_refused(job, now, Duration::ZERO),
                None => return self.trouble(no),
            },
        }
        Next::Goes
    }

    /// `Reconciler::trouble`: from the third time on it is said.
    fn trouble(&mut self, no: No) -> Next {
        if matches!(no, No::Answer | No::Refused) && self.operator.index.monitored(&self.key.namespace).is_some() {
            if self.memory.is_trouble_to_tell()
                && let Some(Known { view, status }) = self.memory.known().cloned()
            {
                let new = StatusBuilder::new(&view, &status, NOW).refused("APIUnavailable", "no answer");
                let context = Context { key: self.key, view: &view, namespace: None, object: None };
                _ = self.write_status(&context, &status, &new);
            }
            self.memory.trouble = self.memory.trouble.saturating_add(1);
        }
        Next::Retry
    }

    fn execute(&mut self, step: Step, context: &Context<'_>, read: Option<&Stored>, now: Instant) -> Result<Flow, Failed> {
        match step {
            Step::DeleteStray(job) => self.delete_stray(context, &job),
            Step::Start(pending) => self.start(context, read.ok_or(Failed::Stale)?, pending),
            Step::RecordStart(job) => self.record_start(context, &job),
            Step::Settle(job) => {
                let verdict = Verdict::of_job(job.view.end.as_ref().ok_or(Failed::Stale)?);
                let since = self.world.version();
                self.settle(context, &job.record, Some(&job.view), verdict, since)
            }
            Step::SettleVanished { job_name, record } => self.settle_vanished(context, &job_name, &record),
            Step::RecordEnd(job) => self.record_end(context, job.as_ref()),
            Step::CleanUp(job) | Step::DeleteOldest(job) => self.delete_job(context, &job.view),
            Step::JudgeOld(_) | Step::Prune | Step::LookAtReferences => unreachable!("no output and no references"),
            Step::ReleaseTtl(job) => {
                if job.record.ttl.is_some() {
                    ignore_gone(self.world.release_ttl(context.view, &job.view.key, &job.view.uid))?;
                }
                self.memory.acted_on(&job.view);
                Ok(Flow::Continue)
            }
            Step::TakeBaseline => self.take_baseline(context, now),
            Step::Report(readiness) => self.report(context, readiness),
        }
    }

    fn delete_stray(&mut self, context: &Context<'_>, OwnJob { view: job, .. }: &OwnJob) -> Result<Flow, Failed> {
        match self.world.read_job(&job.key)? {
            Some(fresh) if fresh.uid == job.uid && fresh.end.is_none() && !fresh.is_being_deleted => {
                self.world.delete_job(context.view, &job.key, &fresh.uid, Some(&fresh.resource_version))?;
            }
            _ => {}
        }
        self.memory.acted_on(job);
        Ok(Flow::Continue)
    }

    fn start(&mut self, context: &Context<'_>, read: &Stored, pending: Pending) -> Result<Flow, Failed> {
        let Context { key, view, .. } = context;
        let Pending { trigger, strategy, request } = pending;
        let ttl = ttl_seconds(&read.object.spec["template"]);
        let template = Some(view.template_digest.to_string());
        let record = RunRecord { strategy, template, request, ttl, ..RunRecord::of_run(view.marker.runs + 1, trigger) };
        let name = job_name(&key.name, &view.uid, record.run);
        let caller = self.caller(read.version);
        match self.world.create_job(caller, read, &name, &record) {
            Ok(()) => self.remember_start(context, name, record),
            Err(No::Exists) => self.take_over(context, &name, record.run),
            Err(no) => Err(Failed::Api(no)),
        }
    }

    fn remember_start(&mut self, context: &Context<'_>, job_name: String, record: RunRecord) -> Result<Flow, Failed> {
        let caller = self.caller(0);
        self.world.ledger.knows(caller, &context.view.uid, record.run);
        self.memory.hold = None;
        self.memory.refusals = 0;
        self.memory.trouble = 0;
        self.memory.started = Some(StartedRun { job_name, record, unseen_since: Some(self.world.now) });
        Ok(Flow::Continue)
    }

    fn take_over(&mut self, context: &Context<'_>, name: &str, run: u64) -> Result<Flow, Failed> {
        let job_key = ObjectKey::new(context.key.namespace.clone(), name);
        let Some(job) = self.world.read_job(&job_key)? else { return Err(Failed::Stale) };
        match run_of(&job, context.view, None).filter(|record| record.run == run) {
            Some(record) => self.remember_start(context, name.to_owned(), record),
            None => self.refuse(context, "NameConflict", "is not of this QuarksJob"),
        }
    }

    fn refuse(&mut self, context: &Context<'_>, reason: &'static str, message: &str) -> Result<Flow, Failed> {
        self.memory.refusals = self.memory.refusals.saturating_add(1);
        let wait = REFUSAL_BACKOFF.delay(self.memory.refusals, 0.0);
        let namespace = context.namespace.cloned().unwrap_or_default();
        self.memory.hold = Some(Hold { generation: context.view.generation, namespace, until: self.world.now + wait });
        let Some(Known { status, .. }) = self.memory.known().cloned() else { return Err(Failed::Stale) };
        let new = StatusBuilder::new(context.view, &status, NOW).refused(reason, message);
        self.write_status(context, &status, &new)?;
        Ok(Flow::Wait(wait))
    }

    fn record_start(&mut self, context: &Context<'_>, OwnJob { view: job, record }: &OwnJob) -> Result<Flow, Failed> {
        let Known { status, .. } = self.memory.known().cloned().ok_or(Failed::Stale)?;
        let active = record.active(&context.view.uid, &job.key.name, job.created.clone());
        let new = StatusBuilder::new(context.view, &status, NOW).running(active, context.ready());
        self.write_status(context, &status, &new)?;
        Ok(Flow::Continue)
    }

    fn settle_vanished(&mut self, context: &Context<'_>, job_name: &str, record: &RunRecord) -> Result<Flow, Failed> {
        let since = self.world.version();
        let job_key = ObjectKey::new(context.key.namespace.clone(), job_name);
        if let Some(job) = self.world.read_job(&job_key)?
            && run_of(&job, context.view, self.memory.started.as_ref()).is_some()
        {
            return Ok(Flow::Wait(UNSEEN_JOB_RETRY));
        }
        let verdict = match context.view.last_run {
            Some((run, _)) if run == record.run => {
                let Known { status, .. } = self.memory.known().cloned().ok_or(Failed::Stale)?;
                status.last_run.map(Verdict::of_last_run).ok_or(Failed::Stale)?
            }
            Some(_) | None => Verdict::cancelled(job_name),
        };
        self.settle(context, record, None, verdict, since)
    }

    fn settle(
        &mut self,
        context: &Context<'_>,
        record: &RunRecord,
        job: Option<&JobView>,
        verdict: Verdict,
        since: u64,
    ) -> Result<Flow, Failed> {
        let view = context.view;
        let marker = view.marker.after(record, verdict.outcome, &verdict.reason);
        let strategy = strategy_after(view, record, &marker);
        let is_refused = match self.write_marker(view, &marker, strategy, since) {
            Ok(stored) => {
                self.memory.learn_view(&view.resource_version, stored.known());
                self.memory.known().is_none_or(|known| known.view.marker.runs < marker.runs)
            }
            Err(No::Refused) => true,
            Err(no) => return Err(no.into()),
        };
        if is_refused {
            return self.settle_later(context, record, job, verdict);
        }
        self.memory.settle = None;
        self.memory.trouble = 0;
        self.memory.verdict = Some((record.run, verdict));
        Ok(Flow::Continue)
    }

    fn write_marker(&mut self, view: &QuarksJobView, marker: &Marker, strategy: Option<Strategy>, since: u64) -> Result<Rc<Stored>, No> {
        let caller = self.caller(since);
        self.world.settle(caller, self.key, &view.resource_version, &view.uid, marker, strategy)
    }

    fn settle_later(&mut self, context: &Context<'_>, record: &RunRecord, job: Option<&JobView>, verdict: Verdict) -> Result<Flow, Failed> {
        let Known { status, view } = self.memory.known().cloned().ok_or(Failed::Stale)?;
        let at = self.world.now;
        let pause = Pause::after(self.memory.settle, REFUSAL_BACKOFF, at);
        self.memory.settle = Some(pause);
        let context = Context { view: &view, ..*context };
        let last = last_run(&context, record.run, Some(record.trigger), job, verdict, &status);
        let new = StatusBuilder::new(&view, &status, NOW).ended_unsettled(
            last.clone(),
            record.active(&view.uid, &last.job_name, last.start_time.clone()),
            "SettleRefused",
            "by a policy",
        );
        self.write_status(&context, &status, &new)?;
        Ok(Flow::Wait(pause.until - at))
    }

    fn record_end(&mut self, context: &Context<'_>, job: Option<&OwnJob>) -> Result<Flow, Failed> {
        let Known { status, .. } = self.memory.known().cloned().ok_or(Failed::Stale)?;
        let marker = &context.view.marker;
        let builder = StatusBuilder::new(context.view, &status, NOW);
        let new = match recorded_end(&status, marker) {
            Some(last) => builder.ended(last, context.ready()),
            None if marker.runs == 0 => builder.idle(Readiness::Ready, &ready_message(Readiness::Ready, context.view, None)),
            None => {
                let verdict = match self.memory.verdict.clone() {
                    Some((run, verdict)) if run == marker.runs => verdict,
                    _ => Verdict {
                        outcome: marker.outcome.unwrap_or(Outcome::Unknown),
                        reason: marker.reason.clone(),
                        message: String::new(),
                        outputs: Vec::new(),
                    },
                };
                let job = job.map(|job| &*job.view);
                builder.ended(last_run(context, marker.runs, marker.trigger, job, verdict, &status), context.ready())
            }
        };
        self.write_status(context, &status, &new)?;
        self.memory.verdict = None;
        Ok(Flow::Continue)
    }

    fn delete_job(&mut self, context: &Context<'_>, job: &JobView) -> Result<Flow, Failed> {
        ignore_gone(self.world.delete_job(context.view, &job.key, &job.uid, None))?;
        self.memory.acted_on(job);
        Ok(Flow::Continue)
    }

    fn take_baseline(&mut self, context: &Context<'_>, now: Instant) -> Result<Flow, Failed> {
        let view = context.view;
        let is_done = view.strategy == Some(Strategy::Done) && view.marker.once.is_none();
        let has_run = is_done || view.marker.once.is_some();
        let once = has_run.then(|| view.marker.once.clone().unwrap_or_else(|| view.template_digest.to_string()));
        let marker = Marker { once, config: None, ..view.marker.clone() };
        let since = self.world.version();
        let stored = self.write_marker(view, &marker, None, since)?;
        self.memory.learn_view(&view.resource_version, stored.known());
        let is_kept = self.memory.known().is_some_and(|known| known.view.marker == marker);
        self.memory.record = (!is_kept).then(|| Pause::after(self.memory.record, REFUSAL_BACKOFF, now));
        Ok(Flow::Continue)
    }

    fn report(&mut self, context: &Context<'_>, readiness: Readiness) -> Result<Flow, Failed> {
        let Known { status, view, .. } = self.memory.known().cloned().ok_or(Failed::Stale)?;
        let message = ready_message(readiness, &view, None);
        let new = StatusBuilder::new(&view, &status, NOW).idle(readiness, &message);
        self.write_status(context, &status, &new)?;
        Ok(if new == status { Flow::Wait(SAME_REPORT) } else { Flow::Continue })
    }

    fn write_status(
        &mut self,
        context: &Context<'_>,
        old: &crate::api::QuarksJobStatus,
        status: &crate::api::QuarksJobStatus,
    ) -> Result<(), Failed> {
        if status == old {
            return Ok(());
        }
        let stored = self.world.write_status(self.key, &context.view.resource_version, status)?;
        self.memory.learn_view(&context.view.resource_version, stored.known());
        let is_kept = self.memory.known().is_some_and(|known| lost_field(status, &known.status).is_none());
        self.memory.record = (!is_kept).then(|| Pause::after(self.memory.record, REFUSAL_BACKOFF, self.world.now));
        Ok(())
    }
}

fn ignore_gone(result: Result<(), No>) -> Result<(), Failed> {
    match result {
        Err(No::Gone | No::OtherObject) | Ok(()) => Ok(()),
        Err(no) => Err(Failed::Api(no)),
    }
}
