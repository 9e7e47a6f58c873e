//! What can happen: the actions of a sequence, how one is made from a seed, and what each does to the world.

use std::fmt;

use serde_json::{Value, json};

use crate::api::{
    ANNOTATION_RUN_REQUESTED, ANNOTATION_SETTLED, ActiveRun, Condition, LastRun, ObjectKey, ObjectMeta, Outcome, QuarksJob,
    QuarksJobStatus, Strategy, Trigger, Uid,
};
use crate::contract::record::{Marker, RunRecord};
use crate::rules::names::job_name;

use super::world::{Faults, OTHER, SERVED, World, job_end, new_job};

/// The UID that restored objects had.
const FORMER: &str = "uid-former";
/// The run that they had come to.
const FORMER_RUN: u64 = 5;

/// Numbers from a seed (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, number: u64) -> u64 {
        self.next() % number
    }

    fn small(&mut self, number: u64) -> u8 {
        self.below(number) as u8
    }

    pub fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}

/// What a restored object brings along.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// `status.active` of the former run; with its UID, or as older versions wrote it.
    active: Option<bool>,
    has_last_run: bool,
    has_annotation: bool,
    has_copy: bool,
    /// Its marker says that the one-off has run.
    has_once: bool,
}

/// One thing that happens.
#[derive(Clone)]
pub enum Act {
    Create {
        key: u8,
        strategy: Strategy,
        template: u8,
        request: Option<u8>,
        restored: Option<Restored>,
    },
    Delete(u8),
    /// It stays until the garbage collector has been there.
    DeleteInForeground(u8),
    SetStrategy(u8, Strategy),
    SetRequest(u8, Option<u8>),
    SetTemplate(u8, u8),
    /// `kubectl replace`: annotations are as in the manifest.
    Replace(u8, Strategy),
    Suspend(u8, bool),
    EndJob(u8, bool),
    DeleteJob(u8),
    /// It has a deletionTimestamp, and stays.
    MarkJobDeleted(u8),
    DropAnnotation(u8),
    /// The annotation names another run, or consumes nothing.
    ChangeAnnotation(u8, bool),
    /// A Job with the UID of the QuarksJob in the other namespace, or with its next name and another owner in its own.
    MakeForeignJob {
        is_elsewhere: bool,
        is_named: bool,
        end: Option<bool>,
    },
    CollectGarbage,
    LetArrive,
    Pass(u16),
    Cut(u8),
    Lose(u8),
    BeLate,
    RefuseSettle,
    RefuseCleanUp,
    PruneStatus,
    DropStatus,
    Heal,
    /// In the middle of a step: after so many calls.
    Meanwhile(u8, Box<Act>),
    Deliver {
        operator: u8,
        is_job: bool,
        events: u8,
    },
    Relist {
        operator: u8,
        is_job: bool,
    },
    Work {
        operator: u8,
        /// Of `job`; else of `errand`.
        is_job: bool,
        key: u8,
        steps: u8,
    },
    /// All watches of an operator catch up, and it works until it has nothing to do.
    Run(u8),
    Restart(u8),
}

pub fn key(key: u8) -> ObjectKey {
    ObjectKey::new(if key == 0 { SERVED } else { OTHER }, "q")
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { key, strategy, template, request, restored } => {
                write!(f, "Create({key} {strategy} t{template} request={request:?} {restored:?})")
            }
            Self::Delete(key) => write!(f, "Delete({key})"),
            Self::DeleteInForeground(key) => write!(f, "DeleteInForeground({key})"),
            Self::SetStrategy(key, strategy) => write!(f, "SetStrategy({key} {strategy})"),
            Self::SetRequest(key, request) => write!(f, "SetRequest({key} {request:?})"),
            Self::SetTemplate(key, template) => write!(f, "SetTemplate({key} t{template})"),
            Self::Replace(key, strategy) => write!(f, "Replace({key} {strategy})"),
            Self::Suspend(key, is_on) => write!(f, "Suspend({key} {is_on})"),
            Self::EndJob(pick, is_good) => write!(f, "EndJob({pick} good={is_good})"),
            Self::DeleteJob(pick) => write!(f, "DeleteJob({pick})"),
            Self::MarkJobDeleted(pick) => write!(f, "MarkJobDeleted({pick})"),
            Self::DropAnnotation(pick) => write!(f, "DropAnnotation({pick})"),
            Self::ChangeAnnotation(pick, is_run) => write!(f, "ChangeAnnotation({pick} run={is_run})"),
            Self::MakeForeignJob { is_elsewhere, is_named, end } => {
                write!(f, "MakeForeignJob(elsewhere={is_elsewhere} named={is_named} end={end:?})")
            }
            Self::CollectGarbage => write!(f, "CollectGarbage"),
            Self::LetArrive => write!(f, "LetArrive"),
            Self::Pass(seconds) => write!(f, "Pass({seconds})"),
            Self::Cut(calls) => write!(f, "Cut({calls})"),
            Self::Lose(calls) => write!(f, "Lose({calls})"),
            Self::BeLate => write!(f, "BeLate"),
            Self::RefuseSettle => write!(f, "RefuseSettle"),
            Self::RefuseCleanUp => write!(f, "RefuseCleanUp"),
            Self::PruneStatus => write!(f, "PruneStatus"),
            Self::DropStatus => write!(f, "DropStatus"),
            Self::Heal => write!(f, "Heal"),
            Self::Meanwhile(calls, act) => write!(f, "Meanwhile({calls} {act:?})"),
            Self::Deliver { operator, is_job, events } => write!(f, "Deliver(op{operator} job={is_job} {events})"),
            Self::Relist { operator, is_job } => write!(f, "Relist(op{operator} job={is_job})"),
            Self::Work { operator, is_job, key, steps } => {
                write!(f, "Work(op{operator} {} {key} {steps})", if *is_job { "job" } else { "errand" })
            }
            Self::Run(operator) => write!(f, "Run(op{operator})"),
            Self::Restart(operator) => write!(f, "Restart(op{operator})"),
        }
    }
}

// --- from a seed -------------------------------------------------------------------------------------------------

fn strategy(random: &mut Random) -> Strategy {
    [Strategy::Now, Strategy::Once, Strategy::Now, Strategy::Once, Strategy::Manual, Strategy::Done][random.below(6) as usize]
}

fn request(random: &mut Random) -> Option<u8> {
    (!random.one_in(4)).then(|| random.small(2))
}

fn restored(random: &mut Random) -> Restored {
    Restored {
        active: [None, Some(true), Some(false)][random.below(3) as usize],
        has_last_run: !random.one_in(3),
        has_annotation: !random.one_in(3),
        has_copy: random.one_in(2),
        has_once: random.one_in(2),
    }
}

fn create(random: &mut Random, key: u8) -> Act {
    let restored = random.one_in(4).then(|| restored(random));
    Act::Create {
        key,
        strategy: strategy(random),
        template: random.small(2),
        request: request(random).filter(|_| random.one_in(3)),
        restored,
    }
}

/// Something that others do, at any moment.
fn of_others(random: &mut Random, key: u8) -> Act {
    let pick = random.small(3);
    match random.below(33) {
        0..5 => Act::SetStrategy(key, strategy(random)),
        5..8 => Act::SetRequest(key, request(random)),
        8 => Act::SetTemplate(key, random.small(2)),
        9..11 => Act::Replace(key, strategy(random)),
        11 => Act::Suspend(key, random.one_in(2)),
        12..19 => Act::EndJob(pick, !random.one_in(3)),
        19..22 => Act::DeleteJob(pick),
        22 => Act::MarkJobDeleted(pick),
        23..25 => Act::DropAnnotation(pick),
        25 => Act::ChangeAnnotation(pick, random.one_in(2)),
        26 | 27 => Act::MakeForeignJob {
            is_elsewhere: !random.one_in(3),
            is_named: random.one_in(2),
            end: [None, Some(true), Some(false)][random.below(3) as usize],
        },
        28 => Act::LetArrive,
        29 => Act::CollectGarbage,
        30 => Act::Delete(key),
        31 => Act::DeleteInForeground(key),
        _ => create(random, key),
    }
}

/// A whole sequence.
pub fn sequence(seed: u64) -> Vec<Act> {
    let random = &mut Random::new(seed);
    // One operator is the usual case.
    let operators = if random.one_in(3) { 2 } else { 1 };
    let length = 8 + random.below(17);
    let mut acts = vec![create(random, 0)];
    while (acts.len() as u64) < length {
        let key = u8::from(random.one_in(12));
        let operator = random.small(operators);
        match random.below(32) {
            0..12 => acts.push(of_others(random, key)),
            12 => acts.extend([Act::Delete(key), create(random, key)]),
            13..21 => acts.push(Act::Run(operator)),
            21..24 => acts.push(Act::Work { operator, is_job: random.one_in(2), key, steps: 1 + random.small(4) }),
            24 | 25 => acts.push(Act::Deliver { operator, is_job: random.one_in(2), events: 1 + random.small(4) }),
            26 => acts.push(Act::Relist { operator, is_job: random.one_in(2) }),
            27 => acts.push(Act::Pass([3, 31, 61][random.below(3) as usize])),
            28 => acts.push(Act::Restart(operator)),
            29 => acts.push(Act::Meanwhile(random.small(4), Box::new(of_others(random, key)))),
            30 => acts.push([Act::Cut(random.small(5)), Act::Lose(random.small(5)), Act::BeLate][random.below(3) as usize].clone()),
            _ => acts.push(
                [Act::RefuseSettle, Act::RefuseCleanUp, Act::PruneStatus, Act::DropStatus, Act::Heal][random.below(5) as usize].clone(),
            ),
        }
    }
    acts
}

// --- what it does ------------------------------------------------------------------------------------------------

fn template(number: u8) -> Value {
    match number {
        0 => json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}),
        _ => json!({"spec": {"ttlSecondsAfterFinished": 60, "template": {"spec": {"containers": [{"name": "c"}]}}}}),
    }
}

fn request_text(number: u8) -> String {
    format!("r{number}")
}

impl Act {
    /// What others do to the world. What operators do is not asked for here.
    pub fn act(self, world: &mut World) {
        match self {
            Self::Create { key: at, strategy, template: number, request, restored } => {
                world.create(&key(at), strategy, number, request, restored);
            }
            Self::Delete(at) => world.remove(&key(at)),
            Self::DeleteInForeground(at) => world.change(&key(at), |object| object.metadata.deletion_timestamp = Some("t".to_owned())),
            Self::SetStrategy(at, strategy) => world.change(&key(at), |object| set_strategy(object, strategy)),
            Self::SetRequest(at, request) => world.change(&key(at), |object| set_request(object, request)),
            Self::SetTemplate(at, number) => world.change(&key(at), |object| object.spec["template"] = template(number)),
            Self::Replace(at, strategy) => world.replace(&key(at), strategy),
            Self::Suspend(at, is_on) => world.change(&key(at), |object| object.spec["suspend"] = is_on.into()),
            Self::EndJob(pick, is_good) => world.end_job(pick, is_good),
            Self::DeleteJob(pick) => {
                let key = world.pick_job(pick);
                key.into_iter().for_each(|key| world.remove_job(&key));
            }
            Self::MarkJobDeleted(pick) => {
                if let Some(key) = world.pick_job(pick) {
                    let mut job = (*world.jobs[&key]).clone();
                    job.is_being_deleted = true;
                    world.put_job(job);
                }
            }
            Self::DropAnnotation(pick) => world.change_annotation(pick, None),
            Self::ChangeAnnotation(pick, is_run) => world.change_annotation(pick, Some(is_run)),
            Self::MakeForeignJob { is_elsewhere, is_named, end } => world.make_foreign_job(is_elsewhere, is_named, end),
            Self::CollectGarbage => world.collect_garbage(),
            Self::LetArrive => world.let_arrive(),
            Self::Pass(seconds) => world.pass(seconds.into()),
            Self::Cut(calls) => world.faults.cut = Some(calls),
            Self::Lose(calls) => world.faults.lose = Some(calls),
            Self::BeLate => world.faults.is_create_late = true,
            Self::RefuseSettle => world.faults.is_settle_refused = true,
            Self::RefuseCleanUp => world.faults.is_clean_up_refused = true,
            Self::PruneStatus => world.faults.is_status_pruned = true,
            Self::DropStatus => world.faults.is_status_dropped = true,
            Self::Heal => world.faults = Faults::default(),
            Self::Meanwhile(calls, act) => world.faults.meanwhile.push((calls, *act)),
            Self::Deliver { .. } | Self::Relist { .. } | Self::Work { .. } | Self::Run(_) | Self::Restart(_) => {}
        }
    }
}

fn set_strategy(object: &mut QuarksJob, strategy: Strategy) {
    object.spec["trigger"]["strategy"] = strategy.as_str().into();
}

fn set_request(object: &mut QuarksJob, request: Option<u8>) {
    match request {
        Some(number) => _ = object.metadata.annotations.insert(ANNOTATION_RUN_REQUESTED.to_owned(), request_text(number)),
        None => _ = object.metadata.annotations.remove(ANNOTATION_RUN_REQUESTED),
    }
}

impl World {
    fn create(&mut self, key: &ObjectKey, strategy: Strategy, number: u8, request: Option<u8>, restored: Option<Restored>) {
        if self.quarks_jobs.contains_key(key) {
            return;
        }
        let uid = self.new_uid();
        let metadata =
            ObjectMeta { name: key.name.to_string(), namespace: key.namespace.to_string(), uid, generation: 1, ..ObjectMeta::default() };
        let spec = json!({"trigger": {"strategy": strategy.as_str()}, "template": template(number), "failedJobsHistoryLimit": 1});
        let mut object = QuarksJob { metadata, spec, status: QuarksJobStatus::default() };
        set_request(&mut object, request);
        if let Some(restored) = restored {
            restore(&mut object, restored);
            if restored.has_annotation || restored.has_copy {
                self.ledger.restored(&object.metadata.uid, request.map(request_text));
            }
        }
        self.ledger.user_wrote(None, &object);
        self.put(key, object);
    }

    pub fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut QuarksJob)) {
        let Some(stored) = self.quarks_jobs.get(key).cloned() else { return };
        let mut object = stored.object.clone();
        change(&mut object);
        if object.spec != stored.object.spec {
            object.metadata.generation += 1;
        }
        let is_changed = object.spec != stored.object.spec || object.metadata != stored.object.metadata;
        if is_changed {
            self.ledger.user_wrote(Some(&stored.object), &object);
            self.put(key, object);
        }
    }

    fn replace(&mut self, key: &ObjectKey, strategy: Strategy) {
        if let Some(stored) = self.quarks_jobs.get(key) {
            self.ledger.replaced(&stored.object);
        }
        self.change(key, |object| {
            object.metadata.annotations.clear();
            set_strategy(object, strategy);
        });
    }

    fn pick_job(&self, pick: u8) -> Option<ObjectKey> {
        let own: Vec<&ObjectKey> = self.jobs.values().filter(|job| !self.ledger.is_foreign(job)).map(|job| &job.key).collect();
        own.get(usize::from(pick) % own.len().max(1)).map(|key| (*key).clone())
    }

    pub fn end_job(&mut self, pick: u8, is_good: bool) {
        let Some(key) = self.pick_job(pick) else { return };
        let mut job = (*self.jobs[&key]).clone();
        if job.end.is_none() {
            job.end = Some(job_end(is_good));
            self.ledger.job_ended(&job, is_good);
            self.put_job(job);
        }
    }

    /// It is taken off, or names another run, or consumes nothing.
    fn change_annotation(&mut self, pick: u8, to: Option<bool>) {
        let Some(key) = self.pick_job(pick) else { return };
        let mut job = (*self.jobs[&key]).clone();
        let Some(record) = job.record.take() else { return };
        let other = match to {
            Some(true) => Some(RunRecord { run: record.run + 3, ..*record }),
            Some(false) => Some(RunRecord::of_run(record.run, Trigger::Config)),
            None => None,
        };
        let is_believed = other.as_ref().is_some_and(|other| other.run == record.run);
        self.ledger.annotation_changed(&job, is_believed);
        job.record = other.map(Box::new);
        self.put_job(job);
    }

    fn make_foreign_job(&mut self, is_elsewhere: bool, is_named: bool, end: Option<bool>) {
        let Some(stored) = self.quarks_jobs.get(&key(0)).cloned() else { return };
        let run = stored.view().marker.runs + 1;
        let name = if is_named { job_name("q", stored.uid(), run) } else { "by-hand".to_owned() };
        let at = ObjectKey::new(if is_elsewhere { OTHER } else { SERVED }, name);
        if self.jobs.contains_key(&at) {
            return;
        }
        let uid = self.new_uid();
        let former = Uid::from(FORMER);
        let owner = if is_elsewhere { stored.uid() } else { &former };
        let record = RunRecord { strategy: Some(Strategy::Now), ..RunRecord::of_run(run, Trigger::Now) };
        let mut job = new_job(at, uid, ("q", owner), Some(&record));
        job.end = end.map(job_end);
        self.ledger.foreign_job(&job.uid);
        self.put_job(job);
    }
}

fn restore(object: &mut QuarksJob, restored: Restored) {
    let Restored { active, has_last_run, has_annotation, has_copy, has_once } = restored;
    let former = Uid::from(FORMER);
    let name = job_name("q", &former, FORMER_RUN);
    let marker = Marker {
        runs: FORMER_RUN,
        once: has_once.then(|| crate::digest::Digest::of_template(&object.spec["template"]).to_string()),
        request: object.metadata.annotations.get(ANNOTATION_RUN_REQUESTED).cloned(),
        outcome: Some(Outcome::Succeeded),
        ..Marker::default()
    };
    let text = marker.encode(&former);
    if has_annotation {
        object.metadata.annotations.insert(ANNOTATION_SETTLED.to_owned(), text.clone());
    }
    let status = &mut object.status;
    status.settled = has_copy.then_some(text);
    status.observed_generation = 1;
    status.runs = FORMER_RUN;
    if has_last_run {
        status.last_run = Some(LastRun {
            run: FORMER_RUN,
            job_name: name,
            trigger: Some(Trigger::Now),
            start_time: None,
            completion_time: None,
            outcome: Outcome::Succeeded,
            reason: String::new(),
            message: String::new(),
            outputs: Vec::new(),
        });
    }
    status.active = active.map(|has_uid| ActiveRun {
        run: FORMER_RUN + 1,
        job_name: job_name("q", &former, FORMER_RUN + 1),
        trigger: Trigger::Now,
        uid: has_uid.then_some(former),
        details: None,
        record: None,
        start_time: None,
    });
    status.conditions.push(Condition {
        kind: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: "Ready".to_owned(),
        message: "ready to run".to_owned(),
        last_transition_time: None,
        observed_generation: Some(1),
    });
}
