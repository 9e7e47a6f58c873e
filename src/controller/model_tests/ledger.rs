//! What has really happened, and the invariants of it: asked at every write of an operator, and when all is quiet.
//!
//! It never asks the functions under test. What a Job consumes is what its create said, whatever has become of its annotation since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use crate::api::{
    ANNOTATION_RUN_REQUESTED, ANNOTATION_SETTLED, ActiveRun, JobEnd, ObjectKey, Outcome, QuarksJob, QuarksJobStatus, Strategy, Trigger, Uid,
};
use crate::contract::record::{Marker, RunRecord};
use crate::digest::Digest;
use crate::rules::names::job_name;
use crate::rules::template::ttl_seconds;
use crate::views::{JobView, QuarksJobView};

use super::world::{SERVED, Stored};

/// Which operator, which of its lives, and how many calls had been made when its step began.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub operator: usize,
    pub life: u32,
    /// The version of the store then.
    pub since: u64,
}

/// The commit point of a run, or a baseline.
pub struct Settled<'a> {
    pub marker: &'a Marker,
    pub strategy: Option<Strategy>,
}

/// A run that has, or had, a Job.
struct Run {
    record: RunRecord,
    job_name: String,
    /// What its Job says, or what remembers it, was changed by others: what it consumes is not certain any more.
    is_doubtful: bool,
    /// Its Job does not say it any more.
    is_changed: bool,
    /// Status has said it.
    was_written: bool,
    /// Version of the store since which status shows it as active.
    recorded: Option<u64>,
    /// Lives of operators that know that they started it.
    known_to: Vec<(usize, u32)>,
    /// UIDs of its Jobs, and the store's versions at which they came.
    jobs: Vec<(Uid, u64)>,
    /// How its Job ended.
    is_good: Option<bool>,
    /// Status says how it ended.
    is_told: bool,
    outcome: Option<Outcome>,
}

/// All that has happened to one UID.
#[derive(Default)]
struct Account {
    /// How often each trigger was set.
    set: HashMap<String, u32>,
    /// How many runs each had.
    served: HashMap<String, u32>,
    runs: BTreeMap<u64, Run>,
    settled: u64,
    /// Template of the last one-off run.
    once: Option<String>,
    /// The request served last.
    request: Option<String>,
    /// The one that its restored marker names as served.
    restored: Option<String>,
    /// What a run consumed was destroyed everywhere before it was settled: which triggers are served is not certain any more.
    is_doubtful: bool,
    /// The marker was destroyed everywhere: how many runs there were is not certain any more, nor anything else.
    is_marker_lost: bool,
    /// The highest run that status said the end of, permanently.
    told: u64,
}

impl Account {
    fn is_doubtful(&self) -> bool {
        self.is_doubtful || self.is_marker_lost
    }
}

#[derive(Default)]
pub struct Ledger {
    /// The life of the only operator; none if there are two.
    pub only_life: Option<u32>,
    accounts: HashMap<Uid, Account>,
    /// Jobs that users made.
    foreign: HashSet<Uid>,
    /// The first that was broken.
    pub violation: Option<String>,
    /// How many of each kind were seen.
    seen: Seen,
}

/// That the model does what it is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub runs: u64,
    pub cancelled: u64,
    pub strays: u64,
    /// UIDs of which nothing was certain any more.
    pub doubtful: u64,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.cancelled += other.cancelled;
        self.strays += other.strays;
        self.doubtful += other.doubtful;
    }
}

/// Digest of the template. There are two.
pub fn template_of(object: &QuarksJob) -> String {
    static DIGESTS: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
    let template = &object.spec["template"];
    let at = usize::from(ttl_seconds(template).is_some());
    DIGESTS[at].get_or_init(|| Digest::of_template(template).to_string()).clone()
}

pub fn request_of(object: &QuarksJob) -> Option<&String> {
    object.metadata.annotations.get(ANNOTATION_RUN_REQUESTED).filter(|value| !value.is_empty())
}

impl Ledger {
    pub fn fail(&mut self, invariant: &str, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(format!("{invariant}: {}", what()));
        }
    }

    pub fn seen(&self) -> Seen {
        let doubtful = self.accounts.values().filter(|account| account.is_doubtful()).count() as u64;
        Seen { doubtful, ..self.seen }
    }

    fn require(&mut self, invariant: &str, is_kept: bool, what: impl FnOnce() -> String) {
        if !is_kept {
            self.fail(invariant, what);
        }
    }

    fn account(&mut self, uid: &Uid) -> &mut Account {
        self.accounts.entry(uid.clone()).or_default()
    }

    /// True if a trigger waits: what is asked for and not consumed.
    pub fn is_waiting(&self, object: &QuarksJob) -> bool {
        let none = Account::default();
        let Account { once, request, restored, .. } = self.accounts.get(&object.metadata.uid).unwrap_or(&none);
        match object.strategy() {
            Some(Strategy::Now) => return true,
            Some(Strategy::Once) if once.as_ref() != Some(&template_of(object)) => return true,
            _ => {}
        }
        request_of(object).is_some_and(|value| request.as_ref() != Some(value) && restored.as_ref() != Some(value))
    }

    /// A user has written the object; `old` is what was there of the same UID.
    pub fn user_wrote(&mut self, old: Option<&QuarksJob>, new: &QuarksJob) {
        let old_strategy = old.and_then(QuarksJob::strategy);
        let account = self.account(&new.metadata.uid);
        let mut set = |what: String| *account.set.entry(what).or_default() += 1;
        match new.strategy() {
            Some(Strategy::Now) if old_strategy != Some(Strategy::Now) => set("now".to_owned()),
            Some(Strategy::Once) => {
                let template = template_of(new);
                if old_strategy != Some(Strategy::Once) || old.is_none_or(|old| template_of(old) != template) {
                    let last = account.runs.values().rev().find(|run| run.record.strategy == Some(Strategy::Once));
                    let is_new = match last {
                        Some(run) => run.record.template.as_deref() != Some(&*template),
                        None => account.once.as_ref() != Some(&template),
                    };
                    if is_new {
                        *account.set.entry(format!("once {template}")).or_default() += 1;
                    }
                }
            }
            _ => {}
        }
        let request = request_of(new);
        if let Some(value) = request.filter(|value| old.and_then(request_of) != Some(*value)) {
            let is_restored = old.is_none() && account.restored.as_ref() == Some(value);
            if !is_restored {
                *account.set.entry(format!("request {value}")).or_default() += 1;
                // It came and went: whether it was served already is not known of this UID.
                account.is_doubtful |= account.restored.is_some();
            }
        }
    }

    /// The object was restored with the marker of another UID, which names this request.
    pub fn restored(&mut self, uid: &Uid, request: Option<String>) {
        self.account(uid).restored = request;
    }

    /// Annotations were replaced. What only they said is lost.
    pub fn replaced(&mut self, old: &QuarksJob) {
        let uid = &old.metadata.uid;
        let copy = old.status.settled.clone();
        let is_copied = old.metadata.annotations.get(ANNOTATION_SETTLED).is_none_or(|text| copy.as_ref() == Some(text));
        let account = self.account(uid);
        account.is_marker_lost |= !is_copied;
    }

    pub fn is_foreign(&self, job: &JobView) -> bool {
        self.foreign.contains(&job.uid)
    }

    pub fn foreign_job(&mut self, uid: &Uid) {
        self.foreign.insert(uid.clone());
    }

    fn run_of_job(&mut self, job: &JobView) -> Option<(&mut Account, u64)> {
        let (_, owner) = job.owner.as_ref()?;
        let account = self.accounts.get_mut(owner)?;
        let run = account.runs.iter().find(|(_, run)| run.jobs.iter().any(|(uid, _)| *uid == job.uid)).map(|(run, _)| *run)?;
        Some((account, run))
    }

    /// Somebody changes the annotation of a Job, and it may be believed.
    pub fn annotation_changed(&mut self, job: &JobView, is_believed: bool) {
        if let Some((account, run)) = self.run_of_job(job) {
            let run = account.runs.get_mut(&run).expect("was found");
            run.is_changed = true;
            run.is_doubtful |= is_believed;
        }
    }

    pub fn job_ended(&mut self, job: &JobView, is_good: bool) {
        if let Some((account, run)) = self.run_of_job(job) {
            account.runs.get_mut(&run).expect("was found").is_good = Some(is_good);
        }
    }

    /// A create is sent, decided on `read`.
    pub fn create(&mut self, caller: Caller, read: &Stored, job: &JobView, record: &RunRecord) {
        let metadata = &read.object.metadata;
        let Account { is_doubtful, is_marker_lost, .. } = *self.account(&metadata.uid);
        let is_doubtful = is_doubtful || is_marker_lost;
        let asks = read.object.strategy() == Some(Strategy::Once) || request_of(&read.object).is_some();
        let is_waiting = read.is_waiting || (is_doubtful && asks);
        self.require("I2", is_waiting, || format!("no trigger waited: {:?} {:?}", read.object.strategy(), request_of(&read.object)));
        self.require("I2", metadata.namespace == SERVED, || format!("namespace {}", metadata.namespace));
        self.require("I2", metadata.deletion_timestamp.is_none(), || "being deleted".to_owned());
        self.require("I2", read.object.spec["suspend"] != true, || "suspended".to_owned());
        let active = read.object.status.active.as_ref().filter(|active| active.run == record.run && active.job_name == *job.key.name);
        self.require("I1", active.is_none(), || format!("run {} was active in what was read", record.run));
        let version = read.version;
        let run = self.account(&metadata.uid).runs.get(&record.run);
        let is_known = run.is_some_and(|run| run.known_to.contains(&(caller.operator, caller.life)));
        let is_recorded = run.and_then(|run| run.recorded).is_some_and(|recorded| recorded < version);
        self.require("I1", !is_known || is_marker_lost, || format!("run {} is made again by who made it", record.run));
        self.require("I1", !is_recorded || is_marker_lost, || format!("run {} is made again though status showed it", record.run));
    }

    /// A start was decided with these Jobs in sight.
    pub fn starts_beside(&mut self, shown: &[Arc<JobView>], uid: &Uid) {
        for job in shown.iter().filter(|job| job.end.is_none() && !job.is_being_deleted) {
            let settled = self.account(uid).settled;
            let is_stray = self.run_of_job(job).is_some_and(|(_, run)| run <= settled);
            self.require("I1", !is_stray, || format!("a run starts beside the stray {}", job.key));
        }
    }

    /// The operator knows that this run has its Job.
    pub fn knows(&mut self, caller: Caller, uid: &Uid, run: u64) {
        if let Some(run) = self.account(uid).runs.get_mut(&run) {
            run.known_to.push((caller.operator, caller.life));
        }
    }

    /// It has dropped its memory of a key that is not in its index: that is as good as a restart.
    pub fn forgets(&mut self, operator: usize) {
        let runs = self.accounts.values_mut().flat_map(|account| account.runs.values_mut());
        runs.for_each(|run| run.known_to.retain(|(known, _)| *known != operator));
    }

    /// A Job of an operator's is stored.
    pub fn created(&mut self, job: &Arc<JobView>, version: u64) {
        let (owner, uid) = job.owner.clone().expect("has an owner");
        let record = (**job.record.as_ref().expect("has a record")).clone();
        let is_named = *job.key.name == job_name(&owner, &uid, record.run);
        self.require("I1", is_named, || format!("{} is not the name of run {}", job.key.name, record.run));
        let account = self.account(&uid);
        let number = record.run;
        let made = (job.uid.clone(), version);
        if number <= account.settled {
            let run = account.runs.get_mut(&number);
            let is_run = run.is_some();
            run.into_iter().for_each(|run| run.jobs.push(made.clone()));
            self.seen.strays += 1;
            return self.require("I1", is_run, || format!("run {number} is settled and never was"));
        }
        let (settled, is_marker_lost) = (account.settled, account.is_marker_lost);
        let (is_next, is_doubtful) = (number == settled + 1, account.is_doubtful());
        self.require("I1", is_next || is_marker_lost, || format!("run {number} is made, and {settled} is settled"));
        let account = self.account(&uid);
        if let Some(run) = account.runs.get_mut(&number) {
            // Nobody could know of the first: it came late, or was deleted before it was recorded.
            run.is_doubtful |= run.record != record;
            account.is_doubtful |= run.record != record;
            run.jobs.push(made);
            return;
        }
        let trigger = match record.trigger {
            Trigger::Request => format!("request {}", record.request.clone().unwrap_or_default()),
            Trigger::Once => format!("once {}", record.template.clone().unwrap_or_default()),
            Trigger::Now | Trigger::Config => record.trigger.as_str().to_owned(),
        };
        *account.served.entry(trigger.clone()).or_default() += 1;
        let counts = [&account.set, &account.served].map(|of| of.get(&trigger).copied().unwrap_or_default());
        let run = Run {
            record,
            job_name: job.key.name.to_string(),
            is_doubtful: false,
            is_changed: false,
            was_written: false,
            recorded: None,
            known_to: Vec::new(),
            jobs: vec![made],
            is_good: None,
            is_told: false,
            outcome: None,
        };
        account.runs.insert(number, run);
        let [set, served] = counts;
        self.seen.runs += 1;
        self.require("I1", served <= set || is_doubtful, || format!("{trigger:?} was set {set} times and has run {served} times"));
    }

    /// Marker and strategy are written together.
    pub fn settle(&mut self, caller: Caller, stored: &Stored, write: Settled<'_>, jobs: &BTreeMap<ObjectKey, Arc<JobView>>) {
        let Settled { marker, .. } = write;
        let (object, uid) = (&stored.object, stored.uid());
        self.require("I2", object.metadata.namespace == SERVED, || "settled where nothing is served".to_owned());
        let account = self.account(uid);
        let number = marker.runs;
        if number <= account.settled {
            return self.take_baseline(object, write);
        }
        let settled = account.settled;
        let is_doubtful = account.is_doubtful();
        let is_only = self.only_life == Some(caller.life);
        let account = self.account(uid);
        let Some(run) = account.runs.get_mut(&number) else {
            return self.fail("I1", || format!("run {number} is settled as {:?} and never was", marker.outcome));
        };
        let (record, is_good) = (run.record.clone(), run.is_good);
        let is_said = !run.is_changed && run.jobs.iter().any(|(uid, _)| jobs.values().any(|job| job.uid == *uid));
        let is_written = |active: &ActiveRun| RunRecord::of_active(active).as_ref() == Some(&record);
        let is_remembered = is_only && !run.was_written && run.known_to.contains(&(caller.operator, caller.life));
        run.is_doubtful |= !is_said && !object.status.active.as_ref().is_some_and(is_written) && !is_remembered;
        let is_run_doubtful = run.is_doubtful;
        run.outcome = marker.outcome;
        let born = run.jobs.clone();
        // There when the step began, and still there.
        let lives = jobs.values().find(|job| born.iter().any(|(uid, version)| job.uid == *uid && *version < caller.since)).cloned();
        account.settled = number;
        account.is_doubtful |= is_run_doubtful;
        let is_doubtful = is_doubtful || is_run_doubtful;
        let before = (account.once.clone(), account.request.clone());
        account.once.clone_from(&marker.once);
        account.request.clone_from(&marker.request);
        let is_restored = account.restored.is_some();
        self.seen.cancelled += u64::from(marker.outcome == Some(Outcome::Cancelled));
        self.require("I1", number == settled + 1 || is_doubtful, || format!("run {number} is settled after {settled}"));
        let is_true = match marker.outcome {
            Some(Outcome::Succeeded) => is_good == Some(true),
            Some(Outcome::Failed) => is_good == Some(false),
            Some(Outcome::Cancelled) => lives.is_none(),
            Some(Outcome::Unknown) | None => false,
        };
        self.require("I1", is_true, || {
            format!("run {number} ended {is_good:?}, Job there: {}, settled as {:?}", lives.is_some(), marker.outcome)
        });
        if !is_doubtful {
            let is_request_free = is_restored && record.request.is_none();
            self.check_cleared(object, &record, write, before, is_request_free);
        }
    }

    /// A marker is written that settles nothing.
    fn take_baseline(&mut self, object: &QuarksJob, write: Settled<'_>) {
        let Settled { marker, strategy } = write;
        let (account, number) = (self.account(&object.metadata.uid), marker.runs);
        let (settled, is_doubtful) = (account.settled, account.is_doubtful());
        let template = template_of(object);
        let is_once_kept =
            marker.once == account.once || (object.strategy() == Some(Strategy::Done) && marker.once.as_ref() == Some(&template));
        let is_request_kept = marker.request == account.request || (account.restored.is_some() && account.request.is_none());
        if !is_doubtful || number == settled {
            account.once.clone_from(&marker.once);
        }
        self.require("I1", number == settled || is_doubtful, || format!("{settled} runs were settled, now {number}"));
        self.require("I3", strategy.is_none() || is_doubtful, || "a baseline has cleared a trigger".to_owned());
        self.require("I3", is_once_kept && is_request_kept || is_doubtful, || format!("a baseline says {marker:?}"));
    }

    /// What a run consumed is cleared, and nothing else. `before` is what had been consumed: `once` and request.
    fn check_cleared(
        &mut self,
        object: &QuarksJob,
        record: &RunRecord,
        write: Settled<'_>,
        before: (Option<String>, Option<String>),
        is_request_free: bool,
    ) {
        let Settled { marker, strategy } = write;
        let current = object.strategy();
        let expected = match record.strategy {
            Some(Strategy::Now) if current == Some(Strategy::Now) => {
                Some(if before.0.is_some() { Strategy::Done } else { Strategy::Manual })
            }
            Some(Strategy::Once) if current == Some(Strategy::Once) && record.template == Some(template_of(object)) => Some(Strategy::Done),
            _ => None,
        };
        self.require("I3", strategy == expected, || format!("strategy {strategy:?} for {expected:?} after {record:?}"));
        let once = if record.strategy == Some(Strategy::Once) { record.template.clone() } else { before.0 };
        self.require("I3", marker.once == once, || format!("once {:?} for {once:?} after {record:?}", marker.once));
        let request = record.request.clone().or(before.1);
        let is_kept = marker.request == request || is_request_free;
        self.require("I3", is_kept, || format!("request {:?} for {request:?} after {record:?}", marker.request));
    }

    /// A status is sent, whatever will be kept of it.
    pub fn write_status(&mut self, stored: &Stored, status: &QuarksJobStatus) {
        let uid = stored.uid();
        let served = stored.object.metadata.namespace == SERVED;
        self.require("I2", served, || "status where nothing is served".to_owned());
        let account = self.account(uid);
        let (settled, is_doubtful) = (account.settled, account.is_doubtful());
        let known = |run: u64, name: &str| account.runs.get(&run).is_some_and(|run| run.job_name == name);
        let is_active_own = status.active.as_ref().is_none_or(|active| known(active.run, &active.job_name));
        let is_last_own = status.last_run.as_ref().is_none_or(|last| known(last.run, &last.job_name));
        let is_last_true = status.last_run.as_ref().is_none_or(|last| {
            let run = account.runs.get(&last.run);
            run.is_none_or(|run| run.outcome.is_none_or(|outcome| outcome == last.outcome))
        });
        self.require("Identity", is_active_own, || format!("{:?} is no run of {uid}", status.active));
        self.require("Identity", is_last_own, || format!("{:?} is no run of {uid}", status.last_run));
        self.require("I1", is_last_true || is_doubtful, || format!("{:?} was settled otherwise", status.last_run));
        self.require("I1", status.runs == settled || is_doubtful, || format!("status counts {} runs, {settled} are settled", status.runs));
        // Who has set a trigger waits for a status of that generation that says `Running=False`.
        let is_covered = status.observed_generation >= stored.object.metadata.generation;
        let says = |kind: &str, value: &str| status.condition(kind).is_some_and(|condition| condition.status == value);
        let is_over = is_covered && says("Ready", "True") && !says("Running", "True");
        self.require("Generation", !(stored.is_waiting && is_over) || is_doubtful, || {
            format!("generation {} is covered, and its trigger waits", status.observed_generation)
        });
    }

    /// What is kept of it.
    pub fn kept_status(&mut self, stored: &Stored, status: &QuarksJobStatus, version: u64) {
        let account = self.account(stored.uid());
        let active = status.active.as_ref().map_or(0, |active| active.run);
        let is_forgotten = |(number, run): (&u64, &Run)| *number > account.settled && *number != active && run.recorded.is_some();
        account.is_marker_lost |= account.runs.iter().next_back().is_some_and(is_forgotten);
        let own = format!("\"{}\"", stored.uid());
        let has_marker = stored.object.metadata.annotations.get(ANNOTATION_SETTLED).is_some_and(|text| text.contains(&own));
        let is_needed = account.settled > 0 || account.once.is_some() || account.restored.is_some();
        account.is_marker_lost |= !has_marker && status.settled.is_none() && is_needed;
        if let Some(run) = status.active.as_ref().and_then(|active| account.runs.get_mut(&active.run)) {
            run.recorded.get_or_insert(version);
            run.was_written |= status.active.as_ref().is_some_and(|active| active.details.is_some());
        }
        if let Some(last) = &status.last_run {
            account.told = account.told.max(last.run);
            account.runs.get_mut(&last.run).into_iter().for_each(|run| run.is_told = true);
        }
    }

    /// A Job is about to be deleted by an operator that acts for `owner`.
    pub fn delete(&mut self, owner: &QuarksJobView, job: &JobView) {
        let is_owned = job.owner.as_ref().is_some_and(|(_, uid)| *uid == owner.uid) && job.key.namespace == owner.key.namespace;
        self.require("I8", is_owned, || format!("{} is not of {} {}", job.key, owner.key, owner.uid));
        let is_foreign = self.is_foreign(job);
        self.require("I8", !is_foreign, || format!("{} was made by somebody else", job.key));
        if let Some((account, number)) = self.run_of_job(job) {
            let (settled, told, is_doubtful) = (account.settled, account.told, account.is_marker_lost);
            self.require("I8", number <= settled || is_doubtful, || format!("Job of run {number} goes, {settled} is settled"));
            if job.end.is_some() {
                self.require("I8", number <= told || is_doubtful, || format!("Job of run {number} goes, status tells of {told}"));
            }
        }
    }

    /// A failed Job gets the time to live that was held back.
    pub fn release(&mut self, owner: &QuarksJobView, job: &JobView) {
        self.require("I8", job.end.is_some(), || format!("{} goes on and gets a time to live", job.key));
        self.delete(owner, job);
    }

    /// All is quiet: what must always happen has happened.
    pub fn is_served(&mut self, stored: &Stored, jobs: &BTreeMap<ObjectKey, Arc<JobView>>) {
        let view = stored.view();
        let object = &stored.object;
        let uid = stored.uid();
        let own: Vec<Arc<JobView>> = jobs
            .values()
            .filter(|job| job.key.namespace == view.key.namespace && job.owner.as_ref().is_some_and(|(_, owner)| owner == uid))
            .cloned()
            .collect();
        if view.is_being_deleted || object.metadata.namespace != SERVED {
            return;
        }
        let account = self.account(uid);
        // A Job that was deleted before anybody wrote it down has never been, if its trigger is gone too.
        let unsettled = account.runs.iter().find(|(run, state)| **run > account.settled && state.recorded.is_some()).map(|(run, _)| *run);
        let (settled, is_doubtful, unsettled) = (account.settled, account.is_doubtful(), unsettled);
        let is_now = object.strategy() == Some(Strategy::Now);
        let is_waiting = self.is_waiting(object) && (!is_doubtful || is_now);
        let status = &object.status;
        let last = status.last_run.as_ref().map_or(0, |last| last.run);
        self.require("E1", !is_waiting, || format!("a trigger waits: {:?} {:?}", object.strategy(), request_of(object)));
        self.require("E1", unsettled.is_none() || is_doubtful, || format!("run {unsettled:?} is not settled"));
        self.require("E2", status.active.is_none() && last == settled || is_doubtful, || format!("{settled} settled, status {status:?}"));
        self.require("E2", view.is_marker_copied, || format!("marker not copied: {:?}", view.marker));
        let unfinished = own.iter().find(|job| job.end.is_none());
        self.require("E2", unfinished.is_none(), || format!("Job {:?} goes on", unfinished.map(|job| &job.key)));
        // One that came after its run was cancelled, and ended before it was seen, is kept as a failed one is.
        let is_kept = last > 0 && status.last_run.as_ref().is_some_and(|last| last.outcome == Outcome::Cancelled);
        let mut run_of = |job: &JobView| self.run_of_job(job).map_or(0, |(_, run)| run);
        let is_complete = |job: &&Arc<JobView>| matches!(job.end, Some(JobEnd::Complete { .. }));
        let complete = own.iter().filter(is_complete).find(|job| !is_kept || run_of(job) != last).cloned();
        self.require("E2", complete.is_none(), || format!("Job {:?} is not cleaned up", complete.as_ref().map(|job| &job.key)));
        let limit = view.failed_jobs_history_limit as usize;
        self.require("E2", own.len() <= limit, || format!("{} failed Jobs", own.len()));
    }
}
