//! The API server of the model: what it stores, what it answers, what its watches will say. Faults are set from outside.
//!
//! It asks the ledger at every write of an operator, and is as strict about preconditions as the real one.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{
    ANNOTATION_RUN, ANNOTATION_SETTLED, Job, JobEnd, KIND, ObjectKey, ObjectMeta, OwnerReference, QuarksJob, QuarksJobStatus,
    ResourceVersion, Strategy, Uid,
};
use crate::contract::record::{Marker, RunRecord};
use crate::controller::shared::action::Action;
use crate::controller::shared::memory::Known;
use crate::rules::own_status::own_status;
use crate::views::{JobView, QuarksJobView};

use super::acts::Act;
use super::ledger::{Caller, Ledger, Settled};

/// The namespace that the operators serve.
pub const SERVED: &str = "served";
/// One that they do not.
pub const OTHER: &str = "other";

/// One version of a QuarksJob.
pub struct Stored {
    pub object: QuarksJob,
    pub version: u64,
    /// True if a trigger of it waited, as far as it is known what runs have consumed.
    pub is_waiting: bool,
    view: OnceCell<Arc<QuarksJobView>>,
}

impl Stored {
    pub fn view(&self) -> Arc<QuarksJobView> {
        Arc::clone(self.view.get_or_init(|| Arc::new(QuarksJobView::from(&self.object))))
    }

    /// What `Memory::learn` makes of it. The extract is made once.
    pub fn known(&self) -> Known {
        Known { view: self.view(), status: own_status(&self.object.metadata, &self.object.status).into_owned() }
    }

    pub fn uid(&self) -> &Uid {
        &self.object.metadata.uid
    }
}

/// What a watch says.
pub enum Event<T> {
    Applied(T),
    Deleted(ObjectKey),
}

/// Why a call did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// No answer. Whether the write was done is not known.
    Answer,
    Gone,
    Conflict,
    Exists,
    OtherObject,
    /// By a policy.
    Refused,
}

/// What goes wrong next. A number counts calls until then.
#[derive(Default)]
pub struct Faults {
    /// A call does not arrive.
    pub cut: Option<u8>,
    /// A call is carried out, and its answer is lost.
    pub lose: Option<u8>,
    /// The next create arrives later than its caller waits.
    pub is_create_late: bool,
    pub is_settle_refused: bool,
    pub is_clean_up_refused: bool,
    /// Status loses all that an older CRD does not know.
    pub is_status_pruned: bool,
    /// Status loses everything.
    pub is_status_dropped: bool,
    /// What others do in the middle of an operator's step.
    pub meanwhile: Vec<(u8, Act)>,
}

pub struct World {
    pub now: Instant,
    version: u64,
    uid: u64,
    pub quarks_jobs: BTreeMap<ObjectKey, Rc<Stored>>,
    pub jobs: BTreeMap<ObjectKey, Arc<JobView>>,
    pub quarks_job_events: Vec<Event<Rc<Stored>>>,
    pub job_events: Vec<Event<Arc<JobView>>>,
    pub faults: Faults,
    /// Creates that are still on their way.
    late: Vec<Arc<JobView>>,
    pub ledger: Ledger,
    /// Writes of operators that changed something.
    pub writes: u64,
    /// The bodies of requests are checked, too.
    pub is_thorough: bool,
}

impl World {
    pub fn new(base: Instant) -> Self {
        Self {
            now: base,
            version: 0,
            uid: 0,
            quarks_jobs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            quarks_job_events: Vec::new(),
            job_events: Vec::new(),
            faults: Faults::default(),
            late: Vec::new(),
            ledger: Ledger::default(),
            writes: 0,
            is_thorough: false,
        }
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub fn new_uid(&mut self) -> Uid {
        self.uid += 1;
        Uid(format!("uid-{}", self.uid))
    }

    /// The newest version of anything.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    // --- what users and others do ------------------------------------------------------------------------------

    pub fn put(&mut self, key: &ObjectKey, mut object: QuarksJob) {
        let version = self.next_version();
        object.metadata.resource_version = ResourceVersion(version.to_string());
        let is_waiting = self.ledger.is_waiting(&object);
        let stored = Rc::new(Stored { object, version, is_waiting, view: OnceCell::new() });
        self.quarks_job_events.push(Event::Applied(Rc::clone(&stored)));
        self.quarks_jobs.insert(key.clone(), stored);
    }

    pub fn remove(&mut self, key: &ObjectKey) {
        if self.quarks_jobs.remove(key).is_some() {
            self.next_version();
            self.quarks_job_events.push(Event::Deleted(key.clone()));
        }
    }

    pub fn put_job(&mut self, mut job: JobView) {
        job.resource_version = ResourceVersion(self.next_version().to_string());
        let job = Arc::new(job);
        self.job_events.push(Event::Applied(Arc::clone(&job)));
        self.jobs.insert(job.key.clone(), job);
    }

    pub fn remove_job(&mut self, key: &ObjectKey) {
        if self.jobs.remove(key).is_some() {
            self.next_version();
            self.job_events.push(Event::Deleted(key.clone()));
        }
    }

    /// The garbage collector takes Jobs whose owner is not there, or never was in their namespace.
    pub fn collect_garbage(&mut self) {
        let is_owned = |job: &JobView| {
            let owner = job.owner.as_ref().map(|(_, uid)| uid);
            owner.is_none_or(|uid| self.quarks_jobs.iter().any(|(key, stored)| key.namespace == job.key.namespace && stored.uid() == uid))
        };
        let gone: Vec<ObjectKey> = self.jobs.values().filter(|job| !is_owned(job)).map(|job| job.key.clone()).collect();
        gone.iter().for_each(|key| self.remove_job(key));
    }

    /// Creates that were on their way arrive.
    pub fn let_arrive(&mut self) {
        for job in std::mem::take(&mut self.late) {
            _ = self.insert_job(&job);
        }
    }

    /// The Job controller ends what runs, and what was being deleted goes.
    pub fn end_all_jobs(&mut self, is_good: bool) {
        let running: Vec<Arc<JobView>> = self.jobs.values().filter(|job| job.end.is_none() || job.is_being_deleted).cloned().collect();
        for job in running {
            if job.is_being_deleted {
                self.remove_job(&job.key);
                continue;
            }
            let job = JobView { end: Some(job_end(is_good)), ..(*job).clone() };
            self.ledger.job_ended(&job, is_good);
            self.put_job(job);
        }
    }

    pub fn remove_foreign_jobs(&mut self) {
        let foreign: Vec<ObjectKey> = self.jobs.values().filter(|job| self.ledger.is_foreign(job)).map(|job| job.key.clone()).collect();
        foreign.iter().for_each(|key| self.remove_job(key));
    }

    pub fn check_the_end(&mut self) {
        for stored in self.quarks_jobs.values() {
            self.ledger.is_served(stored, &self.jobs);
        }
    }

    // --- what operators ask for --------------------------------------------------------------------------------

    /// A call is about to be made. Others act first.
    fn begin(&mut self) -> Result<(), No> {
        let due: Vec<(u8, Act)> = std::mem::take(&mut self.faults.meanwhile);
        for (calls, act) in due {
            match calls {
                0 => act.act(self),
                _ => self.faults.meanwhile.push((calls - 1, act)),
            }
        }
        if count_down(&mut self.faults.cut) { Err(No::Answer) } else { Ok(()) }
    }

    fn end<T>(&mut self, answer: T) -> Result<T, No> {
        if count_down(&mut self.faults.lose) { Err(No::Answer) } else { Ok(answer) }
    }

    pub fn read(&mut self, key: &ObjectKey) -> Result<Option<Rc<Stored>>, No> {
        self.begin()?;
        Ok(self.quarks_jobs.get(key).cloned())
    }

    pub fn read_job(&mut self, key: &ObjectKey) -> Result<Option<Arc<JobView>>, No> {
        self.begin()?;
        Ok(self.jobs.get(key).cloned())
    }

    /// `read` is what the decision was made on.
    pub fn create_job(&mut self, caller: Caller, read: &Stored, name: &str, record: &RunRecord) -> Result<(), No> {
        let arrival = self.begin();
        let owner = &read.object.metadata;
        let uid = self.new_uid();
        let job = Arc::new(new_job(ObjectKey::new(&*owner.namespace, name), uid, (&owner.name, &owner.uid), Some(record)));
        self.ledger.create(caller, read, &job, record);
        arrival?;
        if std::mem::take(&mut self.faults.is_create_late) {
            self.late.push(job);
            return Err(No::Answer);
        }
        self.insert_job(&job)?;
        self.end(())
    }

    fn insert_job(&mut self, job: &Arc<JobView>) -> Result<(), No> {
        if self.jobs.contains_key(&job.key) {
            return Err(No::Exists);
        }
        self.writes += 1;
        self.ledger.created(job, self.version);
        self.put_job((**job).clone());
        Ok(())
    }

    pub fn settle(
        &mut self,
        caller: Caller,
        key: &ObjectKey,
        version: &ResourceVersion,
        uid: &Uid,
        marker: &Marker,
        strategy: Option<Strategy>,
    ) -> Result<Rc<Stored>, No> {
        self.begin()?;
        let stored = self.at_version(key, version)?;
        if self.faults.is_settle_refused {
            return Err(No::Refused);
        }
        let mut object = stored.object.clone();
        self.ledger.settle(caller, &stored, Settled { marker, strategy }, &self.jobs);
        object.metadata.annotations.insert(ANNOTATION_SETTLED.to_owned(), marker.encode(uid));
        if let Some(strategy) = strategy {
            object.spec["trigger"]["strategy"] = strategy.as_str().into();
            object.metadata.generation += 1;
        }
        if self.is_thorough {
            self.ledger.patched(&stored.object, &object, &Action::Settle { key, version, uid, marker, strategy });
        }
        self.changed(key, object)
    }

    pub fn write_status(&mut self, key: &ObjectKey, version: &ResourceVersion, status: &QuarksJobStatus) -> Result<Rc<Stored>, No> {
        self.begin()?;
        let stored = self.at_version(key, version)?;
        self.ledger.write_status(&stored, status);
        if self.is_thorough {
            let new = QuarksJob { status: status.clone(), ..stored.object.clone() };
            self.ledger.patched(&stored.object, &new, &Action::WriteStatus { key, version, status });
        }
        let mut kept = status.clone();
        if self.faults.is_status_pruned {
            kept.settled = None;
            kept.active.iter_mut().for_each(|active| (active.uid, active.details) = (None, None));
        }
        if self.faults.is_status_dropped {
            kept = QuarksJobStatus::default();
        }
        self.ledger.kept_status(&stored, &kept, self.version);
        if kept == stored.object.status {
            return self.end(stored);
        }
        let mut object = stored.object.clone();
        object.status = kept;
        self.changed(key, object)
    }

    fn at_version(&self, key: &ObjectKey, version: &ResourceVersion) -> Result<Rc<Stored>, No> {
        let stored = self.quarks_jobs.get(key).ok_or(No::Gone)?;
        if stored.object.metadata.resource_version == *version { Ok(Rc::clone(stored)) } else { Err(No::Conflict) }
    }

    fn changed(&mut self, key: &ObjectKey, object: QuarksJob) -> Result<Rc<Stored>, No> {
        self.writes += 1;
        self.put(key, object);
        let stored = Rc::clone(&self.quarks_jobs[key]);
        self.end(stored)
    }

    pub fn delete_job(&mut self, owner: &QuarksJobView, key: &ObjectKey, uid: &Uid, version: Option<&ResourceVersion>) -> Result<(), No> {
        self.begin()?;
        let job = self.of_uid(key, uid)?;
        if version.is_some_and(|version| *version != job.resource_version) {
            return Err(No::Conflict);
        }
        if self.faults.is_clean_up_refused && job.end.is_some() {
            return Err(No::Refused);
        }
        self.ledger.delete(owner, &job);
        self.writes += 1;
        self.remove_job(key);
        self.end(())
    }

    pub fn release_ttl(&mut self, owner: &QuarksJobView, key: &ObjectKey, uid: &Uid) -> Result<(), No> {
        self.begin()?;
        let mut job = (*self.of_uid(key, uid)?).clone();
        if self.faults.is_clean_up_refused {
            return Err(No::Refused);
        }
        self.ledger.release(owner, &job);
        if !job.has_ttl {
            job.has_ttl = true;
            self.writes += 1;
            self.put_job(job);
        }
        self.end(())
    }

    fn of_uid(&self, key: &ObjectKey, uid: &Uid) -> Result<Arc<JobView>, No> {
        let job = self.jobs.get(key).ok_or(No::Gone)?;
        if job.uid == *uid { Ok(Arc::clone(job)) } else { Err(No::OtherObject) }
    }
}

fn count_down(left: &mut Option<u8>) -> bool {
    match left {
        Some(0) => left.take().is_some(),
        Some(calls) => {
            *calls -= 1;
            false
        }
        None => false,
    }
}

/// A Job as its extract shows it. The annotation goes through its text.
pub fn new_job(key: ObjectKey, uid: Uid, (owner, owner_uid): (&str, &Uid), record: Option<&RunRecord>) -> JobView {
    let mut metadata = ObjectMeta { name: key.name.to_string(), namespace: key.namespace.to_string(), uid, ..ObjectMeta::default() };
    metadata.annotations.extend(record.map(|record| (ANNOTATION_RUN.to_owned(), record.encode())));
    metadata.owner_references.push(OwnerReference {
        api_version: crate::api::API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        name: owner.to_owned(),
        uid: owner_uid.clone(),
        controller: true,
        block_owner_deletion: true,
    });
    JobView::from(Job { metadata, ..Job::default() })
}

pub fn job_end(is_good: bool) -> JobEnd {
    match is_good {
        true => JobEnd::Complete { time: None },
        false => JobEnd::Failed { reason: "BackoffLimitExceeded".to_owned(), message: String::new(), time: None },
    }
}
