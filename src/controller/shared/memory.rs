//! What this process remembers about one QuarksJob between two turns. Losing it costs a read, never correctness: everything that
//! must survive is in the API server.
//!
//! Promises: all of it belongs to one UID; one controller at a time has it in hand; a controller that asks for it in the meantime
//! is woken when it is returned.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::api::{ActiveRun, ObjectKey, QuarksJob, QuarksJobStatus, ResourceVersion, Spec, Uid};
use crate::contract::record::RunRecord;
use crate::controller::claims::Controller;
use crate::planted::{Defect, is_planted};
use crate::rules::own_status::own_status;
use crate::rules::verdict::Verdict;
use crate::views::identity::StartedRun;
use crate::views::{JobView, NamespaceView, QuarksJobView};

use super::pace::{ConfigLoop, PACE_MAX, Pace, Pause};

/// Versions remembered to distinguish "the watch is behind" from "someone else wrote". A run creates four.
const VERSIONS_MAX: usize = 16;

/// A QuarksJob as an answer of the API server showed it, without its template.
#[derive(Clone, Debug)]
pub struct Known {
    /// The extract.
    pub view: Arc<QuarksJobView>,
    /// Its whole status, if it was written for it.
    pub status: QuarksJobStatus,
}

/// A rejected start.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// The generation that was refused; another one may be tried at once.
    pub generation: i64,
    /// The namespace as it was; other labels may help.
    pub namespace: NamespaceView,
    /// When to try again.
    pub until: Instant,
}

/// What the template references and does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The generation of the QuarksJob that this was found for.
    pub generation: i64,
    /// Kind and name of each.
    pub names: Vec<String>,
    /// Secrets that the QuarksJob itself writes, existing or not.
    pub own: Vec<String>,
    /// Those of them that are missing: they must come from elsewhere.
    pub missing_own: Vec<String>,
    /// Status says so.
    pub is_said: bool,
}

/// What is remembered about an idle one.
#[derive(Debug, Default)]
pub struct Waiting {
    /// A rejected start.
    pub hold: Option<Hold>,
    /// Refusals in a row.
    pub refusals: u32,
    /// What was missing when references were last checked.
    pub missing: Option<Missing>,
    /// Digest of the references' content when they were last checked.
    pub config: Option<String>,
    /// Since when a trigger has been waiting for its Job, as this process has seen it.
    pub trigger_seen: Option<Instant>,
    /// Runs that config changes have started.
    pub config_loop: ConfigLoop,
}

/// What is remembered about a run that is ending.
#[derive(Debug, Default)]
pub struct Ending {
    /// Number and verdict of the run that was settled but is not in status yet.
    pub verdict: Option<(u64, Verdict)>,
    /// A rejected settle.
    pub settle: Option<Pause>,
    /// The run that it was rejected for.
    pub settle_run: u64,
    /// Strays that were deleted, and the version at which: the watch has not shown it yet.
    pub strays: Vec<Acted>,
}

/// A Job that was written to, at this version.
pub type Acted = (Uid, ResourceVersion);

/// The memory of one key.
#[derive(Debug, Default)]
pub struct Memory {
    uid: Uid,
    known: Option<Known>,
    /// Versions that our reads and writes have shown, oldest first.
    versions: VecDeque<ResourceVersion>,
    /// The run that this process started.
    pub started: Option<StartedRun>,
    /// When this process created the Job of a run whose start status does not report yet.
    pub starting: Option<Instant>,
    /// The run whose start was reported last.
    pub told_start: u64,
    /// While it is idle.
    pub waiting: Waiting,
    /// Of the run that is ending.
    pub ending: Ending,
    /// A right to clean up is missing, and `Ready` says so.
    pub is_clean_up_denied: bool,
    /// Writes to the QuarksJob that were accepted but not stored.
    pub record: Option<Pause>,
    /// Consecutive failures that may be the network's, a webhook's or a load balancer's.
    pub trouble: u32,
    /// Counts writes that change nothing.
    pub pace: Pace<PACE_MAX>,
}

impl Memory {
    /// Which object is this memory for? With another object in the index it starts empty, unless the index is behind: our
    /// own read has shown this one. After a read in the same step `is_fresh` says that nothing in the index can be newer.
    pub fn identify(&mut self, indexed: &QuarksJobView, is_fresh: bool) {
        let is_behind = self.versions.contains(&indexed.resource_version);
        if self.uid.is_empty() {
            self.uid = indexed.uid.clone();
        } else if self.uid != indexed.uid && !is_behind && !is_fresh && !is_planted(Defect::MemoryOfAnotherUid) {
            *self = Self { uid: indexed.uid.clone(), ..Self::default() };
        }
    }

    /// Takes in what the index shows, and drops what is outdated by it.
    pub fn observe(&mut self, indexed: &Arc<QuarksJobView>, jobs: &[Arc<JobView>], is_fresh: bool) {
        self.identify(indexed, is_fresh);
        let is_behind = self.versions.contains(&indexed.resource_version);
        if let Some(known) = &self.known
            && known.view.resource_version != indexed.resource_version
            && !is_behind
            && !is_fresh
        {
            // Someone else wrote. What we know may be old; the index decides, and the next write reads first.
            self.known = None;
            self.versions.clear();
        }
        if let Some(started) = &mut self.started
            && jobs.iter().any(|job| *job.key.name == *started.job_name)
        {
            started.unseen_since = None;
        }
        if self.started.is_none() {
            self.started = self.view(indexed).active.as_ref().and_then(|active| lost_record(active, jobs));
        }
        if !self.view(indexed).acts_on_config() {
            // It would be old when it acts on them again.
            self.waiting.config = None;
        }
        let settled = self.view(indexed).marker.runs;
        if self.ending.settle_run <= settled {
            self.ending.settle = None;
        }
        let is_needed = |started: &StartedRun| {
            // Its Job no longer says what is left to do for it.
            let has_lost = |job: &Arc<JobView>| *job.key.name == *started.job_name && job.record.as_deref() != Some(&started.record);
            started.record.run > settled || jobs.iter().any(has_lost)
        };
        if self.started.as_ref().is_some_and(|started| !is_needed(started)) {
            self.started = None;
        }
        self.ending.strays.retain(|acted| jobs.iter().any(|job| is_acted_on(job, acted)));
    }

    /// The newer extract of the two.
    pub fn view(&self, indexed: &Arc<QuarksJobView>) -> Arc<QuarksJobView> {
        Arc::clone(self.known.as_ref().map_or(indexed, |known| &known.view))
    }

    /// What the last answer showed, if nothing else has written since.
    pub fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Remembers the answer to a read or write that was made when `before` was the newest version known: an index that
    /// still shows `before` is behind this answer.
    /// Returns the checked spec; `None` if it breaks a rule.
    pub fn learn(&mut self, before: &ResourceVersion, object: &QuarksJob) -> Option<Spec> {
        let (view, spec) = QuarksJobView::with_spec(object);
        self.learn_view(before, Known { view: Arc::new(view), status: own_status(&object.metadata, &object.status).into_owned() });
        spec
    }

    /// The same, for an answer that is already an extract.
    pub fn learn_view(&mut self, before: &ResourceVersion, known: Known) {
        let view = &known.view;
        if self.uid.is_empty() {
            self.uid = view.uid.clone();
        } else if self.uid != view.uid && !is_planted(Defect::MemoryOfAnotherUid) {
            *self = Self { uid: view.uid.clone(), ..Self::default() };
        }
        if !self.versions.contains(before) {
            self.versions.push_back(before.clone());
        }
        self.versions.push_back(view.resource_version.clone());
        while self.versions.len() > VERSIONS_MAX {
            self.versions.pop_front();
        }
        self.known = Some(known);
    }

    /// The Jobs whose current state the index shows.
    pub fn current_jobs(&self, jobs: Vec<Arc<JobView>>) -> Vec<Arc<JobView>> {
        jobs.into_iter().filter(|job| !self.ending.strays.iter().any(|acted| is_acted_on(job, acted))).collect()
    }

    /// True if forgetting all of it changes nothing: the index has caught up and no run is active.
    fn is_idle(&self, indexed: Option<&QuarksJobView>) -> bool {
        let Self {
            uid: _,
            known,
            versions: _,
            started,
            waiting,
            ending,
            is_clean_up_denied,
            record,
            trouble,
            pace,
            starting,
            told_start: _,
        } = self;
        let Waiting { hold, refusals: _, missing, config, trigger_seen, config_loop } = waiting;
        let Ending { verdict, settle, settle_run: _, strays } = ending;
        let is_caught_up = match (known, indexed) {
            (Some(known), Some(indexed)) => known.view.resource_version == indexed.resource_version,
            (None, _) | (Some(_), None) => true,
        };
        // A run that the index shows, in status and as a Job, needs no other memory.
        let is_started_shown = started.as_ref().is_none_or(|started| {
            let active = indexed.and_then(|view| view.active.as_ref());
            // A CRD that is older than the record prunes it.
            started.unseen_since.is_none() && active.is_some_and(|active| active.run == started.record.run && active.details.is_some())
        });
        // A digest that the marker holds is found there.
        let is_config_settled = config.is_none() || indexed.is_some_and(|view| view.marker.config == *config);
        is_caught_up
            && is_started_shown
            && is_config_settled
            && starting.is_none()
            && hold.is_none()
            && verdict.is_none()
            && missing.is_none()
            && trigger_seen.is_none()
            && [settle, record].into_iter().all(Option::is_none)
            && !is_clean_up_denied
            && *trouble == 0
            && !pace.is_needed()
            && config_loop.is_empty()
            && strays.is_empty()
    }
}

/// True if the index shows the Job as it was when it was written to.
pub fn is_acted_on(job: &JobView, (uid, version): &Acted) -> bool {
    job.uid == *uid && job.resource_version == *version
}

/// Wakes a controller for a key.
pub type Wake = Box<dyn Fn(Controller, &ObjectKey) + Send + Sync>;

/// The memories of all keys. Each is in one controller's hand at a time.
pub struct Memories {
    slots: Mutex<HashMap<ObjectKey, Slot>>,
    wake: Wake,
}

#[derive(Debug, Default)]
struct Slot {
    /// `None` while it is in hand.
    memory: Option<Box<Memory>>,
    hand: Option<Controller>,
    /// The other controller has requested it in the meantime.
    is_wanted: bool,
}

/// A memory in the hand of a controller. Goes back when dropped; then it is forgotten, unless it was put back before.
pub struct InHand {
    memories: Arc<Memories>,
    key: ObjectKey,
    controller: Controller,
    /// What is remembered.
    pub memory: Box<Memory>,
    /// Keep it.
    is_kept: bool,
    /// The other controller must continue.
    is_handed_over: bool,
}

impl Memories {
    /// None remembered. `wake` is called without a lock.
    pub fn new(wake: Wake) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::default(), wake })
    }

    /// Takes the memory of `key` in hand; `None` if the other controller has it: that one is going to hand it over.
    pub fn take(self: &Arc<Self>, key: &ObjectKey, controller: Controller) -> Option<InHand> {
        let mut slots = self.lock();
        let slot = slots.entry(key.clone()).or_default();
        if slot.hand.is_some_and(|hand| hand != controller) && !is_planted(Defect::TwoHands) {
            slot.is_wanted = true;
            return None;
        }
        slot.hand = Some(controller);
        let memory = slot.memory.take().unwrap_or_default();
        drop(slots);
        Some(InHand { memories: Arc::clone(self), key: key.clone(), controller, memory, is_kept: false, is_handed_over: false })
    }

    /// Drops the memory of `key` if it says nothing that the index does not. In a burst a key waits long for its next turn, and
    /// thousands of memories would be most of what the process holds.
    pub fn tidy(&self, key: &ObjectKey, indexed: &QuarksJobView) {
        let mut slots = self.lock();
        let is_idle = |slot: &Slot| slot.memory.as_ref().is_some_and(|memory| memory.is_idle(Some(indexed)));
        if slots.get(key).is_some_and(is_idle) {
            slots.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Slot>> {
        // Taken out and put in whole: a panic elsewhere does not spoil them.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InHand {
    /// Puts the memory back, unless it says nothing that the index does not. With `hands_over` the other controller continues with the key.
    pub fn put(mut self, indexed: Option<&QuarksJobView>, hands_over: bool) {
        self.is_kept = !self.memory.is_idle(indexed);
        self.is_handed_over = hands_over;
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut slots = self.memories.lock();
        let slot = slots.remove(&self.key).unwrap_or_default();
        if self.is_kept {
            let memory = Some(std::mem::take(&mut self.memory));
            slots.insert(self.key.clone(), Slot { memory, hand: None, is_wanted: false });
        }
        drop(slots);
        if (slot.is_wanted || self.is_handed_over) && !is_planted(Defect::HandOverLost) {
            (self.memories.wake)(self.controller.other(), &self.key);
        }
    }
}

/// The active run according to status, if its Job says something else by now: what is left to do for it when status no longer names it.
fn lost_record(active: &ActiveRun, jobs: &[Arc<JobView>]) -> Option<StartedRun> {
    let job = jobs.iter().find(|job| *job.key.name == *active.job_name)?;
    let record = RunRecord::of_active(active)?;
    let is_lost = job.record.as_deref() != Some(&record);
    is_lost.then(|| StartedRun { job_name: active.job_name.clone(), record, unseen_since: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Trigger;
    use crate::contract::record::{Marker, RunRecord};
    use serde_json::{Value, json};

    fn object(version: &str, uid: &str) -> QuarksJob {
        serde_json::from_value(json!({"metadata": {"name": "q", "namespace": "n", "uid": uid, "resourceVersion": version}}))
            .expect("decodes")
    }

    fn indexed(version: &str) -> Arc<QuarksJobView> {
        Arc::new(QuarksJobView::from(&object(version, "u")))
    }

    #[test]
    fn an_index_that_is_behind_our_own_writes_is_not_believed() {
        let mut memory = Memory::default();
        memory.learn(&"4".into(), &object("5", "u"));
        memory.learn(&"5".into(), &object("6", "u"));
        for behind in ["4", "5"] {
            memory.observe(&indexed(behind), &[], false);
            assert_eq!(memory.view(&indexed(behind)).resource_version.as_str(), "6");
            assert!(!memory.is_idle(Some(&indexed(behind))));
        }
        memory.observe(&indexed("6"), &[], false);
        assert!(memory.is_idle(Some(&indexed("6"))));
    }

    #[test]
    fn a_memory_goes_when_the_index_has_caught_up_and_not_before() {
        let (memories, key) = (Memories::new(Box::new(|_, _| {})), ObjectKey::new("n", "q"));
        let mut hand = memories.take(&key, Controller::Job).expect("nobody has it");
        hand.memory.learn(&"4".into(), &object("5", "u"));
        hand.put(Some(&indexed("4")), false);
        for (version, left) in [("4", 1), ("5", 0), ("6", 0)] {
            memories.tidy(&key, &indexed(version));
            assert_eq!(memories.lock().len(), left, "{version}");
        }
    }

    #[test]
    fn a_key_is_in_one_hand_at_a_time_and_whoever_wants_it_is_woken() {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&woken);
        let memories = Memories::new(Box::new(move |controller, key| told.lock().expect("no panic").push((controller, key.clone()))));
        let woken = || std::mem::take(&mut *woken.lock().expect("no panic"));
        let (key, other) = (ObjectKey::new("n", "q"), ObjectKey::new("n", "other"));
        let take = |key: &ObjectKey, controller| memories.take(key, controller);
        let (errand, job) = (Controller::Errand, Controller::Job);

        let hand = take(&key, errand).expect("nobody has it");
        assert!(take(&key, job).is_none() && take(&other, job).is_some());
        assert_eq!(woken(), []);
        hand.put(None, false);
        assert_eq!(woken(), [(job, key.clone())], "it was asked for");
        take(&key, job).expect("nobody has it").put(None, true);
        assert_eq!(woken(), [(errand, key.clone())], "it is the other's now");
        take(&key, job).expect("nobody has it").put(None, false);
        assert_eq!(woken(), []);

        // A worker that panics lets go of it and forgets.
        let mut hand = take(&key, errand).expect("nobody has it");
        hand.memory.waiting.refusals = 3;
        assert!(take(&key, job).is_none());
        assert!(
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _hand = hand;
                panic!("in the middle of a turn");
            }))
            .is_err()
        );
        assert_eq!(woken(), [(job, key.clone())]);
        assert_eq!(take(&key, job).map(|hand| hand.memory.waiting.refusals), Some(0));
    }

    #[test]
    fn a_started_run_is_remembered_until_status_says_what_it_consumes() {
        let record = RunRecord::of_run(1, Trigger::Now);
        let started = StartedRun { job_name: "j".into(), record, unseen_since: None };
        let memory = Memory { started: Some(started), ..Memory::default() };
        let shown = |status: Value| {
            let mut object = object("5", "u");
            object.status = serde_json::from_value(status).expect("decodes");
            QuarksJobView::from(&object)
        };
        let active = |run: u64, details: Option<Value>| json!({"active": {"run": run, "jobName": "j", "trigger": "now", "uid": "u", "details": details}});
        for (status, is_idle) in
            [(json!({}), false), (active(2, Some(json!({}))), false), (active(1, None), false), (active(1, Some(json!({}))), true)]
        {
            assert_eq!(memory.is_idle(Some(&shown(status.clone()))), is_idle, "{status}");
        }
    }

    #[test]
    fn what_status_said_of_a_run_is_remembered_if_its_job_says_something_else() {
        let ours = RunRecord { ttl: Some(9), ..RunRecord::of_run(1, Trigger::Now) };
        let shown = |status: Value| {
            let mut object = object("5", "u");
            object.status = serde_json::from_value(status).expect("decodes");
            Arc::new(QuarksJobView::from(&object))
        };
        let running = shown(json!({"active": ours.active(&"u".into(), "j", None)}));
        let marker = Marker { runs: 1, ..Marker::default() }.encode(&"u".into());
        let recorded = shown(json!({"settled": marker, "lastRun": {"run": 1, "jobName": "j", "outcome": "Failed"}}));
        let forged = [RunRecord::of_run(2, Trigger::Now), RunRecord { ttl: Some(600), ..ours.clone() }, RunRecord::of_run(1, Trigger::Now)];
        for (annotation, is_kept) in
            forged.iter().map(|record| (Some(record.encode()), true)).chain([(None, true), (Some(ours.encode()), false)])
        {
            let job: crate::api::Job = serde_json::from_value(
                json!({"metadata": {"name": "j", "namespace": "n", "uid": "j", "annotations": annotation.as_ref().map(|text| json!({crate::api::ANNOTATION_RUN: text}))}}),
            )
            .expect("decodes");
            let jobs = [Arc::new(JobView::from(job))];
            let mut memory = Memory::default();
            memory.observe(&running, &jobs, false);
            assert!(memory.is_idle(Some(&running)), "status says it: {annotation:?}");
            memory.observe(&recorded, &jobs, false);
            assert_eq!(memory.started.as_ref().map(|started| started.record.ttl), is_kept.then_some(Some(9)), "{annotation:?}");
            assert_eq!(memory.is_idle(Some(&recorded)), !is_kept, "{annotation:?}");
            memory.observe(&recorded, &[], false);
            assert!(memory.is_idle(Some(&recorded)), "its Job is gone: {annotation:?}");
        }
    }

    #[test]
    fn right_after_a_read_no_index_is_newer() {
        let mut memory = Memory::default();
        memory.learn(&"4".into(), &object("7", "u"));
        memory.observe(&indexed("5"), &[], true);
        assert_eq!(memory.view(&indexed("5")).resource_version.as_str(), "7");
    }

    #[test]
    fn a_foreign_write_makes_the_next_step_read() {
        let mut memory = Memory::default();
        memory.learn(&"4".into(), &object("5", "u"));
        memory.observe(&indexed("9"), &[], false);
        assert!(memory.known().is_none());
        assert_eq!(memory.view(&indexed("9")).resource_version.as_str(), "9");
    }

    fn busy() -> Memory {
        let mut memory = Memory::default();
        memory.learn(&"4".into(), &object("5", "u"));
        memory.waiting.refusals = 3;
        memory.started = Some(StartedRun { job_name: "j".into(), record: RunRecord::of_run(1, Trigger::Once), unseen_since: None });
        memory
    }

    #[test]
    fn a_refused_settle_is_forgotten_when_somebody_else_has_settled_the_run() {
        let pause = Pause { until: Instant::now(), failures: 4 };
        let of_settled = |runs: u64| {
            let mut object = object("5", "u");
            let marker = Marker { runs, ..Marker::default() };
            object.metadata.annotations.insert(crate::api::ANNOTATION_SETTLED.to_owned(), marker.encode(&"u".into()));
            Arc::new(QuarksJobView::from(&object))
        };
        for (runs, is_left) in [(2, true), (3, false), (4, false)] {
            let mut memory =
                Memory { uid: "u".into(), ending: Ending { settle: Some(pause), settle_run: 3, ..Ending::default() }, ..Memory::default() };
            memory.observe(&of_settled(runs), &[], false);
            assert_eq!(memory.ending.settle.is_some(), is_left, "{runs}");
        }
    }

    #[test]
    fn another_object_of_the_same_name_starts_afresh() {
        // The read shows it first.
        let mut memory = busy();
        memory.learn(&"5".into(), &object("8", "v"));
        assert_eq!((memory.waiting.refusals, memory.started.is_none()), (0, true));
        assert_eq!(memory.known().map(|known| known.view.uid.as_str().to_owned()).as_deref(), Some("v"));
        // The index is still at the old object: it is behind, and the new one's memory stays.
        memory.waiting.refusals = 1;
        memory.observe(&indexed("5"), &[], false);
        assert_eq!((memory.waiting.refusals, memory.view(&indexed("5")).uid.as_str()), (1, "v"));
        // The index shows it first.
        let mut memory = busy();
        let other = Arc::new(QuarksJobView::from(&object("8", "v")));
        memory.observe(&other, &[], false);
        assert_eq!((memory.waiting.refusals, memory.started.is_none(), memory.known().is_none()), (0, true, true));
        assert_eq!(memory.view(&other).uid.as_str(), "v");
        // One that was never read or written.
        let mut memory = Memory { started: busy().started, uid: "u".into(), ..Memory::default() };
        memory.observe(&other, &[], false);
        assert!(memory.started.is_none());
    }
}
