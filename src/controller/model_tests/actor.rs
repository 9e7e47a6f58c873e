//! An operator of the model: its index, its memories, and the turns of its two controllers, which are taken in any order and stop
//! anywhere between two calls.
//!
//! Mirrors `errand/reconcile.rs` and `job/reconcile.rs` with the executors beside them, and calls the model where they call the API server.
//! What decides is the real code: `claims`, the three `decide`, `Memories`, `Leftovers`, `identity`, `record`, `strategy_after`,
//! `StatusBuilder`, `lost_field`, `hold_back`. A key is worked on only if a watch, a pause that is over or the other controller says so.
//! Left out: output, references, versions, Events, shares of workers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::api::{Namespace, ObjectKey, ObjectMeta, QuarksJobStatus};
use crate::contract::reason::Reason;
use crate::controller::claims::{Controller, Snapshot, Stage};
use crate::controller::errand::decide::{self as errand, Step as ErrandStep};
use crate::controller::errand::known;
use crate::controller::job::decide::{self as job, Step as JobStep};
use crate::controller::job::leftovers::{AllLeftovers, Leftovers};
use crate::controller::job::tidy::{self, Step as TidyStep};
use crate::controller::shared::decision::{Decision, Flow};
use crate::controller::shared::memory::{InHand, Known, Memories, Memory, Waiting};
use crate::controller::shared::pace::Pause;
use crate::controller::shared::pace::REFUSAL_BACKOFF;
use crate::controller::shared::ready::Readiness;
use crate::controller::shared::status::StatusBuilder;
use crate::controller::shared::turn::{InVain, end_turn, grounds, ready_beside_run};
use crate::index::{Change, Index};
use crate::rules::verdict::Verdict;
use crate::views::identity::{OwnJob, StartedRun, own_jobs};
use crate::views::{NamespaceView, QuarksJobView};
use crate::watch::WatchEvent;

use super::acts;
use super::ledger::Caller;
use super::world::{Event, No, OTHER, SERVED, Stored, World};

const STEPS_MAX: u32 = 16;
pub const NOW: &str = "2026-01-01T00:00:00Z";

/// A worker with a key: it may stop anywhere between two calls for as long as it likes.
pub struct Turn {
    /// Not while it cleans up.
    hand: Option<InHand>,
    leftovers: Box<Leftovers>,
    pub view: Arc<QuarksJobView>,
    pub namespace: Option<NamespaceView>,
    started: Option<StartedRun>,
    object: Option<Rc<Stored>>,
    must_read: bool,
    in_vain: InVain,
    steps: u32,
    has_acted: bool,
    /// When `job` comes back, if it does not tidy up before.
    wait: Option<Duration>,
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

pub enum Failed {
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

/// Keys that a controller is told of.
type Woken = Arc<Mutex<Vec<(Controller, ObjectKey)>>>;

pub struct Operator {
    number: usize,
    life: u32,
    index: Index,
    memories: Arc<Memories>,
    leftovers: AllLeftovers,
    quarks_jobs_seen: usize,
    jobs_seen: usize,
    turns: BTreeMap<(bool, ObjectKey), Turn>,
    /// Keys that wait, of `job` and of `errand`.
    dirty: BTreeSet<(bool, ObjectKey)>,
    due: BTreeMap<(bool, ObjectKey), Instant>,
    woken: Woken,
}

const BOTH: [Controller; 2] = [Controller::Errand, Controller::Job];

fn is_job(controller: Controller) -> bool {
    controller == Controller::Job
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
        let woken = Woken::default();
        let wakes = Arc::clone(&woken);
        let wake = move |controller, key: &ObjectKey| wakes.lock().expect("no panic").push((controller, key.clone()));
        let mut operator = Self {
            number,
            life: 0,
            index: new_index(),
            memories: Memories::new(Box::new(wake)),
            leftovers: AllLeftovers::default(),
            quarks_jobs_seen: 0,
            jobs_seen: 0,
            turns: BTreeMap::new(),
            dirty: BTreeSet::new(),
            due: BTreeMap::new(),
            woken,
        };
        operator.relist(world, false);
        operator.relist(world, true);
        operator
    }

    pub fn restart(&mut self, world: &mut World) {
        world.ledger.only_life = world.ledger.only_life.map(|life| life + 1);
        *self = Self { life: self.life + 1, ..Self::new(self.number, world) };
    }

    /// A watch says something. Whom it may matter to is told to both controllers.
    fn take_in(&mut self, change: Change) {
        for key in self.index.apply("", change).dirty {
            self.dirty.extend(BOTH.map(|controller| (is_job(controller), key.clone())));
        }
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
        self.take_in(change);
    }

    /// The next events of a watch come, in one chunk.
    pub fn deliver(&mut self, world: &World, is_job: bool, events: usize) {
        if is_job {
            let until = world.job_events.len().min(self.jobs_seen.saturating_add(events));
            for event in &world.job_events[self.jobs_seen..until] {
                self.take_in(Change::Job(match event {
                    Event::Applied(job) => WatchEvent::Applied(Arc::clone(job)),
                    Event::Deleted(key) => WatchEvent::Deleted(key.clone()),
                }));
            }
            self.jobs_seen = until;
        } else {
            let until = world.quarks_job_events.len().min(self.quarks_jobs_seen.saturating_add(events));
            for event in &world.quarks_job_events[self.quarks_jobs_seen..until] {
                self.take_in(Change::QuarksJob(match event {
                    Event::Applied(stored) => WatchEvent::Applied(stored.view()),
                    Event::Deleted(key) => WatchEvent::Deleted(key.clone()),
                }));
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
        for round in 0..24 {
            self.catch_up(world);
            let writes = world.writes;
            let mut is_over = true;
            for at in 0..4 {
                // Now one of them is first, now the other.
                let controller = BOTH[(at + round) % 2];
                let next = self.work(world, controller, &acts::key((at / 2) as u8), STEPS_MAX);
                is_over &= matches!(next, Next::Done | Next::After(_) | Next::Retry);
            }
            if world.ledger.violation.is_some() || (is_over && world.writes == writes && self.dirty.is_empty()) {
                return;
            }
        }
    }

    /// What others say of keys, and pauses that are over.
    fn hear(&mut self, now: Instant) {
        let woken = std::mem::take(&mut *self.woken.lock().expect("no panic"));
        self.dirty.extend(woken.into_iter().map(|(controller, key)| (is_job(controller), key)));
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(_, at)| *at <= now);
        self.due = later;
        let due: BTreeMap<_, _> = due;
        self.dirty.extend(due.into_keys());
    }

    /// So many rounds of a worker's turn, if there is something to do.
    pub fn work(&mut self, world: &mut World, controller: Controller, key: &ObjectKey, rounds: u32) -> Next {
        self.hear(world.now);
        let at = (is_job(controller), key.clone());
        let mut turn = match self.turns.remove(&at) {
            Some(turn) => turn,
            None if !self.dirty.remove(&at) => return Next::Done,
            None => match self.begin(world, controller, key) {
                Some(turn) => turn,
                None => return Next::Done,
            },
        };
        let mut next = Next::Goes;
        for _ in 0..rounds {
            if world.ledger.violation.is_some() {
                break;
            }
            next = Worker { world, operator: self, key, turn: &mut turn }.round(controller);
            if next != Next::Goes {
                break;
            }
        }
        match next {
            // The worker has the key.
            Next::Goes => _ = self.turns.insert(at, turn),
            Next::Later => _ = self.dirty.insert(at),
            Next::After(wait) => self.come_back(at, world.now + wait),
            Next::Retry => self.come_back(at, world.now + Duration::from_secs(1)),
            Next::Done => {}
        }
        self.hear(world.now);
        next
    }

    fn come_back(&mut self, at: (bool, ObjectKey), time: Instant) {
        let due = self.due.entry(at).or_insert(time);
        *due = time.min(*due);
    }

    fn begin(&mut self, world: &mut World, controller: Controller, key: &ObjectKey) -> Option<Turn> {
        let hand = self.memories.take(key, controller)?;
        let is_in_hand = |turn: &Turn| turn.hand.is_some();
        if self.turns.get(&(is_job(controller.other()), key.clone())).is_some_and(is_in_hand) {
            world.ledger.fail("claims", || format!("both controllers have {key} in hand"));
        }
        let Some(view) = self.index.quarks_job(key) else {
            world.ledger.forgets(self.number);
            return None;
        };
        Some(Turn {
            hand: Some(hand),
            leftovers: if is_job(controller) { self.leftovers.take(key) } else { Box::default() },
            view,
            namespace: None,
            started: None,
            object: None,
            must_read: false,
            in_vain: InVain::default(),
            steps: 0,
            has_acted: false,
            wait: None,
        })
    }

    /// The hand is put back.
    fn end(&mut self, world: &mut World, controller: Controller, key: &ObjectKey, turn: &mut Turn, is_retry: bool) {
        let Some(mut hand) = turn.hand.take() else { return };
        turn.started = hand.memory.started.clone();
        match self.index.quarks_job(key) {
            Some(indexed) => {
                let hands_over = end_turn(&self.index, &indexed, &mut hand.memory, controller, turn.has_acted, is_retry);
                hand.put(Some(&indexed), hands_over);
            }
            None => world.ledger.forgets(self.number),
        }
    }
}

pub struct Worker<'a> {
    pub world: &'a mut World,
    operator: &'a mut Operator,
    pub key: &'a ObjectKey,
    pub turn: &'a mut Turn,
}

/// What is done next, by whom.
enum Step {
    Errand(ErrandStep),
    Job(JobStep),
}

impl Worker<'_> {
    pub fn caller(&self, since: u64) -> Caller {
        Caller { operator: self.operator.number, life: self.operator.life, since }
    }

    pub fn memory(&mut self) -> &mut Memory {
        &mut self.turn.hand.as_mut().expect("the key is in hand").memory
    }

    pub fn known(&mut self) -> Result<Known, Failed> {
        self.memory().known().cloned().ok_or(Failed::Stale)
    }

    /// One round: a look and a step. `job` cleans up when it has put the key back.
    fn round(&mut self, controller: Controller) -> Next {
        if self.turn.hand.is_none() {
            let next = self.tidy();
            if next != Next::Goes {
                let leftovers = std::mem::take(&mut self.turn.leftovers);
                self.operator.leftovers.put(self.key, leftovers);
            }
            return next;
        }
        let next = self.round_in_hand(controller);
        if next == Next::Goes {
            return next;
        }
        self.operator.end(self.world, controller, self.key, self.turn, next == Next::Retry);
        match (controller, next) {
            (Controller::Job, Next::Done | Next::After(_)) => {
                self.turn.wait = if let Next::After(wait) = next { Some(wait) } else { None };
                self.turn.steps = 0;
                Next::Goes
            }
            (Controller::Job, _) => {
                let leftovers = std::mem::take(&mut self.turn.leftovers);
                self.operator.leftovers.put(self.key, leftovers);
                next
            }
            (Controller::Errand, _) => next,
        }
    }

    /// `JobController::tidy_up`.
    fn tidy(&mut self) -> Next {
        let view = Arc::clone(&self.turn.view);
        let index = &self.operator.index;
        let is_there = |indexed: &Arc<QuarksJobView>| indexed.uid == view.uid && !indexed.is_being_deleted;
        if !index.quarks_job(self.key).as_ref().is_some_and(is_there) {
            return self.turn.wait.map_or(Next::Done, Next::After);
        }
        let jobs = index.jobs_of(&view.key.namespace, &view.uid);
        let namespace = index.monitored(&view.key.namespace).cloned();
        let started = self.turn.started.clone();
        let jobs = self.turn.leftovers.observe(&view.uid, own_jobs(&view, &jobs, started.as_ref()));
        let snapshot = Snapshot { view: &view, jobs: &jobs, namespace: namespace.as_ref(), started: started.as_ref() };
        let (now, wait) = (self.world.now, self.turn.wait);
        let sooner = |other: Duration| Next::After(wait.map_or(other, |wait| wait.min(other)));
        let step = match tidy::decide(&snapshot, &self.turn.leftovers.pauses(), now) {
            Decision::Nothing => {
                self.turn.leftovers.rest();
                return wait.map_or(Next::Done, Next::After);
            }
            Decision::Wait(other) => return sooner(other),
            Decision::Do(step) => step,
        };
        if let Some(until) = self.turn.leftovers.pace.until(grounds(&snapshot, &Waiting::default()), now) {
            return sooner(until.saturating_duration_since(now));
        }
        let done = match &step {
            TidyStep::CleanUp(job) | TidyStep::DeleteOldest(job) => self.world.delete_job(&view, &job.view.key, &job.view.uid, None),
            TidyStep::ReleaseTtl(job) => self.world.release_ttl(&view, &job.view.key, &job.view.uid),
            TidyStep::JudgeOld(_) | TidyStep::Prune => unreachable!("no output"),
        };
        let job = step.job().expect("each is about a Job");
        let leftovers = &mut self.turn.leftovers;
        match done {
            Ok(()) | Err(No::Gone | No::OtherObject) => {
                leftovers.acted_on(job);
                leftovers.pace.wrote(now);
                leftovers.cleaned_up(now);
            }
            Err(_) => _ = leftovers.refused(job.uid.clone(), now, Duration::ZERO, None),
        }
        Next::Later
    }

    fn round_in_hand(&mut self, controller: Controller) -> Next {
        self.turn.steps += 1;
        if self.turn.steps > STEPS_MAX {
            return Next::Later;
        }
        if self.turn.must_read
            && let Some(next) = self.read_again()
        {
            return next;
        }
        let Some((view, jobs)) = self.look() else { return Next::Done };
        let now = self.world.now;
        let namespace = self.turn.namespace.clone();
        let memory = self.memory();
        let started = memory.started.clone();
        let snapshot = Snapshot { view: &view, jobs: &jobs, namespace: namespace.as_ref(), started: started.as_ref() };
        let (stage, grounds) = (Stage::of(&snapshot), grounds(&snapshot, &memory.waiting));
        let is_own = stage.controller() == controller;
        if snapshot.served().is_none() || (controller == Controller::Errand && !is_own) {
            return Next::Done;
        }
        let decision = match controller {
            Controller::Errand => of(errand::decide(&snapshot, &known(memory, &view, None), now), Step::Errand),
            Controller::Job => {
                let settle = memory.ending.settle.map(|pause| pause.until);
                of(job::decide(&view, stage, settle, None, now), Step::Job)
            }
        };
        let step = match decision {
            Decision::Nothing => {
                if is_own {
                    memory.record = None;
                }
                return Next::Done;
            }
            Decision::Wait(duration) => return Next::After(duration),
            Decision::Do(step) => step,
        };
        let is_start = matches!(step, Step::Errand(ErrandStep::Start(_)));
        let is_record = match &step {
            Step::Errand(step) => step.is_record(),
            Step::Job(step) => step.is_record(),
        };
        if let Some(until) = memory.hold_back(is_record, grounds, now) {
            return Next::After(until.saturating_duration_since(now));
        }
        let is_known = memory.known().is_some();
        let needs_object = matches!(step, Step::Errand(ErrandStep::Start(_) | ErrandStep::Report(_)));
        let needs_status = needs_object || (is_record && !matches!(step, Step::Errand(ErrandStep::TakeBaseline)));
        if (needs_object && self.turn.object.is_none()) || (needs_status && !is_known) {
            self.turn.must_read = true;
            return Next::Goes;
        }
        if is_start {
            let jobs: Vec<_> = jobs.iter().map(|job| Arc::clone(&job.view)).collect();
            self.world.ledger.starts_beside(&jobs, &view.uid);
        }
        self.act(step, now)
    }

    /// Reads the QuarksJob; returns how the turn ends if there is nothing to go on with.
    fn read_again(&mut self) -> Option<Next> {
        let before = self.operator.index.quarks_job(self.key).map(|view| view.resource_version.clone());
        let Some(before) = before else { return Some(Next::Done) };
        match self.world.read(self.key) {
            Ok(Some(read)) => {
                self.memory().learn_view(&before, read.known());
                self.turn.in_vain.read(&read.object.metadata.resource_version);
                self.turn.object = Some(read);
                self.turn.must_read = false;
                None
            }
            Ok(None) => Some(Next::Done),
            Err(no) => Some(self.trouble(no)),
        }
    }

    fn act(&mut self, step: Step, now: Instant) -> Next {
        let object = self.turn.object.take();
        match self.execute(step, object.as_deref(), now) {
            Ok(Flow::Wait(duration)) => return Next::After(duration),
            Ok(Flow::Continue) => {
                self.turn.has_acted = true;
                self.memory().pace.wrote(now);
            }
            Err(Failed::Stale) => {
                self.turn.must_read = true;
                if self.turn.in_vain.failed(&self.turn.view.resource_version) {
                    let pause = Pause::after(self.memory().record, REFUSAL_BACKOFF, now);
                    self.memory().record = Some(pause);
                    return Next::After(pause.until - now);
                }
            }
            Err(Failed::Api(no)) => return self.trouble(no),
        }
        Next::Goes
    }

    /// `Turn::look`.
    fn look(&mut self) -> Option<(Arc<QuarksJobView>, Vec<OwnJob>)> {
        let index = &self.operator.index;
        let indexed = index.quarks_job(self.key)?;
        let memory = &mut self.turn.hand.as_mut().expect("the key is in hand").memory;
        let is_fresh = self.turn.object.is_some();
        let jobs = index.jobs_of(&self.key.namespace, &memory.view(&indexed).uid);
        let had_started = memory.started.is_some();
        memory.observe(&indexed, &jobs, is_fresh);
        let is_of_another = self.world.quarks_jobs.get(self.key).is_none_or(|stored| *stored.uid() != indexed.uid);
        if had_started && memory.started.is_none() && is_of_another {
            // An index that shows an object that is gone takes the memory of the next one with it.
            self.world.ledger.forgets(self.operator.number);
        }
        let view = memory.view(&indexed);
        let jobs = own_jobs(&view, &memory.current_jobs(jobs), memory.started.as_ref());
        self.turn.view = Arc::clone(&view);
        self.turn.namespace = index.monitored(&self.key.namespace).cloned();
        Some((view, jobs))
    }

    pub fn status<'s>(&'s self, status: &QuarksJobStatus) -> StatusBuilder<'s> {
        StatusBuilder::new(&self.turn.view, status, NOW)
    }

    pub fn ready(&self) -> (Readiness, String) {
        ready_beside_run(&self.turn.view, self.turn.namespace.as_ref())
    }

    /// `Turn::trouble`: from the third time on it is said.
    fn trouble(&mut self, no: No) -> Next {
        if matches!(no, No::Answer | No::Refused) && self.operator.index.monitored(&self.key.namespace).is_some() {
            if self.memory().is_trouble_to_tell()
                && let Ok(Known { view, status }) = self.known()
            {
                self.turn.view = view;
                let new = self.status(&status).refused(Reason::APIUnavailable, "no answer");
                _ = self.write_status(&status, &new);
            }
            let trouble = &mut self.memory().trouble;
            *trouble = trouble.saturating_add(1);
        }
        Next::Retry
    }

    fn execute(&mut self, step: Step, read: Option<&Stored>, now: Instant) -> Result<Flow, Failed> {
        match step {
            Step::Errand(ErrandStep::Start(pending)) => self.start(read.ok_or(Failed::Stale)?, pending),
            Step::Errand(ErrandStep::LookAtReferences) => unreachable!("no references"),
            Step::Errand(ErrandStep::TakeBaseline) => self.take_baseline(now),
            Step::Errand(ErrandStep::Report(readiness)) => self.report(readiness),
            Step::Job(JobStep::DeleteStray(job)) => self.delete_stray(&job),
            Step::Job(JobStep::RecordStart(job)) => self.record_start(&job),
            Step::Job(JobStep::Settle(job)) => {
                let verdict = Verdict::of_job(job.view.end.as_ref().ok_or(Failed::Stale)?);
                let since = self.world.version();
                self.settle(&job.record, Some(&job.view), verdict, since)
            }
            Step::Job(JobStep::SettleVanished { job_name, record }) => self.settle_vanished(&job_name, &record),
            Step::Job(JobStep::RecordEnd(job)) => self.record_end(job.as_ref()),
        }
    }
}

fn of<S>(decision: Decision<S>, step: fn(S) -> Step) -> Decision<Step> {
    match decision {
        Decision::Nothing => Decision::Nothing,
        Decision::Wait(duration) => Decision::Wait(duration),
        Decision::Do(decided) => Decision::Do(step(decided)),
    }
}
