//! What this process remembers of one QuarksJob between two steps. Losing it costs a read, never correctness:
//! everything that must survive is in the API server.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{ActiveRun, ObjectKey, QuarksJob, QuarksJobStatus, ResourceVersion, Uid};
use crate::index::{JobView, QuarksJobView};

use super::config::Looked;
use super::decide::{Hold, Pauses, ReferencesSeen, StartedRun};
use super::identity::own_status;
use super::pace::{ConfigLoop, Pace, Pause};
use super::planted::{Defect, is_planted};
use super::record::RunRecord;
use super::trouble::REFUSAL_BACKOFF;
use super::verdict::Verdict;

/// Versions remembered to tell "the watch is behind" from "someone else wrote". A run makes four.
const VERSIONS_MAX: usize = 16;

/// A QuarksJob as an answer of the API server showed it, without its template.
#[derive(Clone, Debug)]
pub struct Known {
    /// The extract.
    pub view: Arc<QuarksJobView>,
    /// Its whole status, as far as it is its own.
    pub status: QuarksJobStatus,
}

/// What the template refers to and is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The generation of the QuarksJob that this was found for.
    generation: i64,
    /// Kind and name of each.
    pub names: Vec<String>,
    /// Secrets that the QuarksJob itself writes, there or not.
    pub own: Vec<String>,
    /// Those of them that are missing: only another one could write them.
    pub missing_own: Vec<String>,
    /// Status says so.
    pub is_said: bool,
}

/// The memory of one key. All of it belongs to one UID.
#[derive(Debug, Default)]
pub struct Memory {
    uid: Uid,
    known: Option<Known>,
    /// Versions that reads and writes of ours have shown, oldest first.
    versions: VecDeque<ResourceVersion>,
    /// The run that this process started.
    pub started: Option<StartedRun>,
    /// A refused start.
    pub hold: Option<Hold>,
    /// Refusals in a row.
    pub refusals: u32,
    /// Number and verdict of the run that was settled but is not in status yet.
    pub verdict: Option<(u64, Verdict)>,
    /// What was missing when references were last looked at.
    pub missing: Option<Missing>,
    /// Digest of what references said when they were last looked at.
    pub config: Option<String>,
    /// Since when a trigger could have had its Job, as far as this process has seen.
    pub trigger_seen: Option<Instant>,
    /// Pruning of versions that did not work.
    pub prune: Option<Pause>,
    /// Settling that was refused.
    pub settle: Option<Pause>,
    /// The run that it was refused for.
    pub settle_run: u64,
    /// Clean-up that was refused.
    pub clean_up: Option<Pause>,
    /// UIDs of the Jobs that it was refused for.
    refused: Vec<Uid>,
    /// A right is missing for it.
    pub is_clean_up_denied: bool,
    /// Writes to the QuarksJob that were taken and did not stick.
    pub record: Option<Pause>,
    /// Failures in a row that may be the network's, a webhook's or a load balancer's.
    pub trouble: u32,
    /// Counts writes that change nothing.
    pub pace: Pace,
    /// Runs that config changes have started.
    pub config_loop: ConfigLoop,
    /// Ended Jobs of older runs that are kept as failed.
    pub kept: Vec<Uid>,
    /// Jobs that were written to, and the version at which: the watch has not shown the result yet.
    acted: Vec<(Uid, ResourceVersion)>,
}

impl Memory {
    /// Whose memory is this? With another object in the index it starts afresh, unless the index is behind: a read, ours, has shown this one.
    /// After a read in the same step `is_fresh` says that nothing in the index can be newer.
    pub fn identify(&mut self, indexed: &QuarksJobView, is_fresh: bool) {
        let is_behind = self.versions.contains(&indexed.resource_version);
        if self.uid.is_empty() {
            self.uid = indexed.uid.clone();
        } else if self.uid != indexed.uid && !is_behind && !is_fresh && !is_planted(Defect::MemoryOfAnotherUid) {
            *self = Self { uid: indexed.uid.clone(), ..Self::default() };
        }
    }

    /// Takes in what the index says, and drops what it has overtaken.
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
            self.config = None;
        }
        if self.settle_run <= self.view(indexed).marker.runs {
            self.settle = None;
        }
        let settled = self.view(indexed).marker.runs;
        let is_needed = |started: &StartedRun| {
            // Its Job does not say any more what is left to do for it.
            let has_lost = |job: &Arc<JobView>| *job.key.name == *started.job_name && job.record.as_deref() != Some(&started.record);
            started.record.run > settled || jobs.iter().any(has_lost)
        };
        if self.started.as_ref().is_some_and(|started| !is_needed(started)) {
            self.started = None;
        }
        self.kept.retain(|uid| jobs.iter().any(|job| job.uid == *uid));
        self.acted.retain(|(uid, version)| jobs.iter().any(|job| job.uid == *uid && job.resource_version == *version));
    }

    /// The newest extract of the two.
    pub fn view(&self, indexed: &Arc<QuarksJobView>) -> Arc<QuarksJobView> {
        Arc::clone(self.known.as_ref().map_or(indexed, |known| &known.view))
    }

    /// What the last answer showed, if nobody else has written since.
    pub fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Remembers the answer to a read or write that was made when `before` was the newest version known: an index that
    /// still shows `before` is behind this answer.
    pub fn learn(&mut self, before: &ResourceVersion, object: &QuarksJob) {
        let view = Arc::new(QuarksJobView::from(object));
        self.learn_view(before, Known { view, status: own_status(&object.metadata, &object.status).into_owned() });
    }

    /// The same, of an answer that is an extract already.
    pub(super) fn learn_view(&mut self, before: &ResourceVersion, known: Known) {
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

    /// There is nothing to do: nothing is held up any more. True if something was said about it that has to be taken back.
    pub fn rest(&mut self) -> bool {
        (self.clean_up, self.record) = (None, None);
        self.refused.clear();
        std::mem::take(&mut self.is_clean_up_denied)
    }

    /// Cleaning up this Job was refused, and the API server asks to wait so long at least. Gives the pause until it is tried again.
    pub fn clean_up_refused(&mut self, job: Uid, now: Instant, wait: Duration) -> Pause {
        let running = self.clean_up.filter(|pause| now < pause.until);
        if running.is_none() {
            self.refused.clear();
        }
        self.refused.push(job);
        let mut pause = running.unwrap_or_else(|| Pause::after(self.clean_up, REFUSAL_BACKOFF, now));
        pause.until = pause.until.max(now + wait);
        self.clean_up = Some(pause);
        pause
    }

    /// A Job was cleaned up.
    pub fn cleaned_up(&mut self, now: Instant) {
        if self.refused.is_empty() || self.clean_up.is_none_or(|pause| now >= pause.until) {
            (self.clean_up, self.is_clean_up_denied) = (None, false);
            self.refused.clear();
        }
    }

    /// Remembers that a write to this Job was acknowledged.
    pub fn acted_on(&mut self, job: &JobView) {
        self.acted.push((job.uid.clone(), job.resource_version.clone()));
    }

    /// Remembers which references of this generation were not there.
    pub fn learn_missing(&mut self, generation: i64, looked: &Looked) {
        let Looked { missing, own, missing_own, config: _ } = looked;
        let is_known = |known: &Missing| known.is_said && known.generation == generation && known.names == *missing;
        let is_said = self.missing.as_ref().is_some_and(is_known);
        let missing = Missing { generation, names: missing.clone(), own: own.clone(), missing_own: missing_own.clone(), is_said };
        self.missing = Some(missing).filter(|missing| !missing.names.is_empty());
    }

    /// What is known of the references of `view`; they are `due` to be looked at.
    pub fn references(&self, view: &QuarksJobView, due: Option<Instant>) -> ReferencesSeen<'_> {
        let missing = self.missing.as_ref().filter(|missing| missing.generation == view.generation);
        let is_missing_said = missing.is_none_or(|missing| missing.is_said);
        ReferencesSeen { is_missing: missing.is_some(), is_missing_said, config: self.config.as_deref(), due }
    }

    /// What is left alone for now.
    pub fn pauses(&self) -> Pauses<'_> {
        let until = |pause: Option<Pause>| pause.map(|pause| pause.until);
        Pauses {
            settle: until(self.settle),
            clean_up: until(self.clean_up),
            refused: &self.refused,
            is_clean_up_denied: self.is_clean_up_denied,
            prune: until(self.prune),
            config_run: self.config_loop.until(),
            kept: &self.kept,
        }
    }

    /// The Jobs whose extract says what is there now.
    pub fn current_jobs(&self, jobs: Vec<Arc<JobView>>) -> Vec<Arc<JobView>> {
        let is_acted_on = |job: &JobView| self.acted.iter().any(|(uid, version)| *uid == job.uid && *version == job.resource_version);
        jobs.into_iter().filter(|job| !is_acted_on(job)).collect()
    }

    /// True if forgetting all of it changes nothing: the index has caught up and no run goes on.
    fn is_idle(&self, indexed: Option<&QuarksJobView>) -> bool {
        let Self {
            uid: _,
            known,
            versions: _,
            started,
            hold,
            refusals: _,
            verdict,
            missing,
            config,
            trigger_seen,
            prune,
            settle,
            settle_run: _,
            clean_up,
            refused: _,
            is_clean_up_denied: _,
            record,
            trouble,
            pace,
            config_loop,
            kept,
            acted,
        } = self;
        let is_caught_up = match (known, indexed) {
            (Some(known), Some(indexed)) => known.view.resource_version == indexed.resource_version,
            (None, _) | (Some(_), None) => true,
        };
        // A run that the index shows, in status and as a Job, needs no other memory.
        let is_started_shown = started.as_ref().is_none_or(|started| {
            let active = indexed.and_then(|view| view.active.as_ref());
            // A CRD that is older than the record prunes it.
            started.unseen_since.is_none() && active.is_some_and(|active| active.run == started.record.run && active.record.is_some())
        });
        // A digest that the marker holds is found there.
        let is_config_settled = config.is_none() || indexed.is_some_and(|view| view.marker.config == *config);
        is_caught_up
            && is_started_shown
            && is_config_settled
            && hold.is_none()
            && verdict.is_none()
            && missing.is_none()
            && trigger_seen.is_none()
            && [prune, settle, clean_up, record].into_iter().all(Option::is_none)
            && *trouble == 0
            && !pace.is_needed()
            && config_loop.is_empty()
            && kept.is_empty()
            && acted.is_empty()
    }
}

/// The memories of all keys. The queue gives a key to one worker at a time; that worker owns its memory.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<ObjectKey, Box<Memory>>>);

impl Memories {
    /// Takes the memory of `key` out.
    pub fn take(&self, key: &ObjectKey) -> Box<Memory> {
        self.lock().remove(key).unwrap_or_default()
    }

    /// Puts it back, unless it says nothing that the index does not.
    pub fn put(&self, key: &ObjectKey, memory: Box<Memory>, indexed: Option<&QuarksJobView>) {
        if !memory.is_idle(indexed) {
            self.lock().insert(key.clone(), memory);
        }
    }

    /// Drops the memory of `key` if it says nothing that the index does not. In a burst a key waits long for its next turn, and
    /// thousands of memories would be most of what the process holds.
    pub fn tidy(&self, key: &ObjectKey, indexed: &QuarksJobView) {
        let mut memories = self.lock();
        if memories.get(key).is_some_and(|memory| memory.is_idle(Some(indexed))) {
            memories.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Box<Memory>>> {
        // Taken out and put in whole: a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The active run as status tells it, if its Job says something else by now: what is left to do for it when status names it no more.
fn lost_record(active: &ActiveRun, jobs: &[Arc<JobView>]) -> Option<StartedRun> {
    let job = jobs.iter().find(|job| *job.key.name == *active.job_name)?;
    let record = active.record.as_deref().and_then(RunRecord::parse).filter(|record| record.run == active.run)?;
    let is_lost = job.record.as_deref() != Some(&record);
    is_lost.then(|| StartedRun { job_name: active.job_name.clone(), record, unseen_since: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Trigger;
    use crate::controller::record::{Marker, RunRecord};
    use serde_json::json;

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
        let (memories, key) = (Memories::default(), ObjectKey::new("n", "q"));
        let mut memory = memories.take(&key);
        memory.learn(&"4".into(), &object("5", "u"));
        memories.put(&key, memory, Some(&indexed("4")));
        for (version, left) in [("4", 1), ("5", 0), ("6", 0)] {
            memories.tidy(&key, &indexed(version));
            assert_eq!(memories.lock().len(), left, "{version}");
        }
    }

    #[test]
    fn a_started_run_is_remembered_until_status_says_what_it_consumes() {
        let record = RunRecord::of_run(1, Trigger::Now);
        let started = StartedRun { job_name: "j".into(), record, unseen_since: None };
        let memory = Memory { started: Some(started), ..Memory::default() };
        let shown = |status: serde_json::Value| {
            let mut object = object("5", "u");
            object.status = serde_json::from_value(status).expect("decodes");
            QuarksJobView::from(&object)
        };
        let active = |run: u64, record: Option<&str>| json!({"active": {"run": run, "jobName": "j", "trigger": "now", "uid": "u", "record": record}});
        for (status, is_idle) in
            [(json!({}), false), (active(2, Some("{}")), false), (active(1, None), false), (active(1, Some("{}")), true)]
        {
            assert_eq!(memory.is_idle(Some(&shown(status.clone()))), is_idle, "{status}");
        }
    }

    #[test]
    fn what_status_said_of_a_run_is_remembered_if_its_job_says_something_else() {
        let ours = RunRecord { ttl: Some(9), ..RunRecord::of_run(1, Trigger::Now) };
        let shown = |status: serde_json::Value| {
            let mut object = object("5", "u");
            object.status = serde_json::from_value(status).expect("decodes");
            Arc::new(QuarksJobView::from(&object))
        };
        let running = shown(json!({"active": {"run": 1, "jobName": "j", "trigger": "now", "uid": "u", "record": ours.encode()}}));
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
        memory.refusals = 3;
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
            let mut memory = Memory { uid: "u".into(), settle: Some(pause), settle_run: 3, kept: vec!["gone".into()], ..Memory::default() };
            memory.observe(&of_settled(runs), &[], false);
            assert_eq!(memory.settle.is_some(), is_left, "{runs}");
            assert_eq!(memory.kept, [""; 0].map(Uid::from), "its Job is gone");
        }
    }

    #[test]
    fn another_object_of_the_same_name_starts_afresh() {
        // The read shows it first.
        let mut memory = busy();
        memory.learn(&"5".into(), &object("8", "v"));
        assert_eq!((memory.refusals, memory.started.is_none()), (0, true));
        assert_eq!(memory.known().map(|known| known.view.uid.as_str().to_owned()).as_deref(), Some("v"));
        // The index is still at the old object: it is behind, and the new one's memory stays.
        memory.refusals = 1;
        memory.observe(&indexed("5"), &[], false);
        assert_eq!((memory.refusals, memory.view(&indexed("5")).uid.as_str()), (1, "v"));
        // The index shows it first.
        let mut memory = busy();
        let other = Arc::new(QuarksJobView::from(&object("8", "v")));
        memory.observe(&other, &[], false);
        assert_eq!((memory.refusals, memory.started.is_none(), memory.known().is_none()), (0, true, true));
        assert_eq!(memory.view(&other).uid.as_str(), "v");
        // One that was never read or written.
        let mut memory = Memory { started: busy().started, uid: "u".into(), ..Memory::default() };
        memory.observe(&other, &[], false);
        assert!(memory.started.is_none());
    }
}
