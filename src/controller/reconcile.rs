//! What a worker does with a key: look, decide, do one step, look again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::api::{ActiveRun, Condition, Job, ObjectKey, QuarksJob, QuarksJobStatus, Resource, Spec, Strategy};
use crate::clock;
use crate::index::{JobView, NamespaceView, QuarksJobView, SharedIndex};
use crate::kube::{Client, Error, Propagation, Request};
use crate::metrics::Metrics;
use crate::queue::Lane;

use super::action::Action;
use super::choices::Choices;
use super::config::{ConfigStore, LookError};
use super::credential::Credentials;
use super::decide::{Decision, Readiness, Snapshot, Step, decide, pending, readiness};
use super::events::{EventSender, Note};
use super::memory::{Known, Memories, Memory, Missing};
use super::record::Marker;
use super::references;
use super::status::StatusBuilder;
use super::template::SidecarSettings;

/// Steps for one key before others get their turn. A whole run takes fewer.
const STEPS_MAX: usize = 16;
/// A status that cannot say it all is not written again sooner than this.
const SAME_REPORT: Duration = Duration::from_secs(600);

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
        let indexed = self.index.read().quarks_job(key);
        match indexed {
            Some(indexed) => self.memories.put(key, memory, Some(&indexed)),
            None => self.config.forget(key),
        }
        next
    }

    fn steps(&self, key: &ObjectKey, lane: Lane, memory: &mut Memory) -> Next {
        let mut object: Option<QuarksJob> = None;
        let mut must_read = false;
        for _ in 0..STEPS_MAX {
            if must_read {
                let Some(before) = self.index.read().quarks_job(key).map(|view| view.resource_version.clone()) else { return Next::Done };
                match self.read(key) {
                    Ok(Some(read)) => {
                        memory.learn(&before, &read);
                        object = Some(read);
                        must_read = false;
                    }
                    // The watch will say so too; nothing is done for an object that is gone.
                    Ok(None) => return Next::Done,
                    Err(error) if error.is_forbidden() => return self.blocked(key, memory, error),
                    Err(error) => return Next::Retry(error),
                }
            }
            let (view, jobs, namespace) = {
                let index = self.index.read();
                let Some(indexed) = index.quarks_job(key) else { return Next::Done };
                let jobs = index.jobs_of(&key.namespace, &memory.view(&indexed).uid);
                memory.observe(&indexed, &jobs, object.is_some());
                let view = memory.view(&indexed);
                (view, memory.current_jobs(jobs), index.monitored(&key.namespace).cloned())
            };
            let (prune_at, due) = (memory.prune.map(|retry| retry.at), self.config.due(key).map(|due| due.at));
            let snapshot = Snapshot {
                view: &view,
                jobs: &jobs,
                namespace: namespace.as_ref(),
                started: memory.started.as_ref(),
                hold: memory.hold.as_ref(),
                prune_at,
                references: memory.references(&view, due),
            };
            let now = Instant::now();
            let decision = decide(&snapshot, now);
            let is_start = matches!(decision, Decision::Do(Step::Start(_)));
            match decision {
                Decision::Do(Step::Start(_)) => _ = memory.trigger_seen.get_or_insert(now),
                // Nothing waits, or for something else than us; but after a refusal the trigger still does.
                Decision::Nothing => memory.trigger_seen = None,
                Decision::Wait(_) if memory.hold.is_none() => memory.trigger_seen = None,
                Decision::Do(_) | Decision::Wait(_) => {}
            }
            let step = match decision {
                Decision::Nothing => return Next::Done,
                Decision::Wait(duration) => return Next::After(duration),
                Decision::Do(step) => step,
            };
            if lane == Lane::Urgent && !is_start {
                return Next::Later;
            }
            // A start is decided on an object read just now; whatever writes a status needs to know the old one.
            let needs_object = is_start || matches!(step, Step::Report(_));
            let needs_status = matches!(step, Step::RecordStart(_) | Step::RecordEnd(_) | Step::Report(_));
            if (needs_object && object.is_none()) || (needs_status && memory.known().is_none()) {
                must_read = true;
                continue;
            }
            debug!("step key={key} step={}", step.name());
            let context = Context { key, view: &view, namespace: namespace.as_ref(), object: object.as_ref() };
            let done = self.execute(step, &context, memory);
            object = None;
            match done {
                Ok(Flow::Wait(duration)) => return Next::After(duration),
                Ok(Flow::Continue) if is_start => return Next::Later,
                Ok(Flow::Continue) => {}
                Err(Failed::Stale) => must_read = true,
                Err(Failed::Api(error)) if error.is_forbidden() => return self.blocked(key, memory, error),
                Err(Failed::Api(error)) => return Next::Retry(error),
            }
        }
        Next::Later
    }

    fn execute(&self, step: Step, context: &Context<'_>, memory: &mut Memory) -> Result<Flow, Failed> {
        match step {
            Step::DeleteStray(job) => self.delete_stray(context, &job, memory),
            Step::Start(pending) => self.start(context, pending, memory),
            Step::RecordStart(job) => self.record_start(context, &job, memory),
            Step::Settle(job) => self.settle_ended(context, &job, memory),
            Step::SettleVanished { job_name, record } => self.settle_vanished(context, &job_name, record, memory),
            Step::RecordEnd(job) => self.record_end(context, job.as_deref(), memory),
            Step::CleanUp(job) => self.clean_up(context, &job, memory),
            Step::ReleaseTtl(job) => self.release_ttl(&job, memory),
            Step::Prune => {
                self.prune_or_postpone(context, memory);
                Ok(Flow::Continue)
            }
            Step::DeleteOldest(job) => self.delete_job(&job, Propagation::Background, memory),
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
        let object: QuarksJob = self.client.call(&action.request())?;
        memory.learn(&context.view.resource_version, &object);
        Ok(())
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

    fn record_start(&self, context: &Context<'_>, job: &JobView, memory: &mut Memory) -> Result<Flow, Failed> {
        // If the answer to its create was lost, the watch has brought it.
        self.trigger_served(memory);
        let record = job.record_of(&context.view.uid).ok_or(Failed::Stale)?;
        let Known { status, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
        let active = ActiveRun {
            run: record.run,
            job_name: job.key.name.to_string(),
            trigger: record.trigger,
            record: Some(record.encode()),
            start_time: job.created.clone(),
        };
        let now = clock::now_seconds();
        let new = StatusBuilder::new(context.view, &status, &now).running(active, context.ready());
        self.write_status(context, &status, &new, memory)?;
        Ok(Flow::Continue)
    }

    /// A Job whose run is settled already, and that still runs: a create that arrived late.
    fn delete_stray(&self, context: &Context<'_>, job: &JobView, memory: &mut Memory) -> Result<Flow, Failed> {
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

    // --- nothing to run ----------------------------------------------------------------------------------------

    fn take_baseline(&self, context: &Context<'_>, memory: &mut Memory) -> Result<Flow, Failed> {
        let view = context.view;
        let is_new_done = view.strategy == Some(Strategy::Done) && view.marker.once.is_none();
        let once = if is_new_done { Some(view.template_digest.to_string()) } else { view.marker.once.clone() };
        let config = if view.acts_on_config() { memory.config.clone().or_else(|| view.marker.config.clone()) } else { None };
        info!("baseline taken, nothing runs key={} once={is_new_done} config={}", context.key, config.is_some());
        let marker = Marker { once, config, ..view.marker.clone() };
        let action = Action::Settle { key: context.key, version: &view.resource_version, uid: &view.uid, marker: &marker, strategy: None };
        let object: QuarksJob = self.client.call(&action.request())?;
        memory.learn(&context.view.resource_version, &object);
        Ok(Flow::Continue)
    }

    fn report(&self, context: &Context<'_>, readiness: Readiness, memory: &mut Memory) -> Result<Flow, Failed> {
        let Known { status, view, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
        let mut readiness = readiness;
        if matches!(readiness, Readiness::Ready | Readiness::AlreadyRan) {
            let own = self.check_references(context, memory)?;
            if memory.missing.is_some() {
                readiness = Readiness::MissingReference;
            }
            if status.observed_generation != view.generation {
                self.warn_about_own(context, &own);
            }
        }
        let message = ready_message(readiness, &view, memory.missing.as_ref());
        let now = clock::now_seconds();
        let new = StatusBuilder::new(&view, &status, &now).idle(readiness, &message);
        let is_new_generation = status.observed_generation != new.observed_generation;
        let is_news = is_new_generation || ready_of(&status) != ready_of(&new) || readiness == Readiness::MissingReference && status != new;
        self.write_status(context, &status, &new, memory)?;
        if let Some(missing) = &mut memory.missing {
            missing.is_said = true;
        }
        match readiness {
            Readiness::AlreadyRan if is_new_generation => {
                let note = "once has run for this template and does not run again; to run it again set spec.trigger.strategy to now, or set the annotation quarks.cloudfoundry.org/run-requested to a new value";
                self.tell(context, Note::normal("AlreadyRan", "Observe", note.to_owned()));
            }
            Readiness::InvalidSpec | Readiness::NamespaceNotReady | Readiness::MissingReference if is_news => {
                self.tell(context, Note::warning(readiness.condition().1, "Observe", message));
            }
            _ => {}
        }
        // Whether the status could say it all or not: the same decision would only write the same again.
        Ok(if new == status { Flow::Wait(SAME_REPORT) } else { Flow::Continue })
    }

    /// Looks whether what the template refers to is there. Gives the references to own output.
    fn check_references(&self, context: &Context<'_>, memory: &mut Memory) -> Result<Vec<String>, Failed> {
        let Some(spec) = context.object.and_then(|object| Spec::parse(&object.spec).ok()) else { return Ok(Vec::new()) };
        let mut template = spec.template.clone();
        let due = self.config.due(context.key);
        let looked = self
            .use_highest_versions(&context.key.namespace, &mut template)
            .map_err(LookError::from)
            .and_then(|_choice| self.look(context.key, &references::of_spec(&Spec { template, ..spec }), None));
        match looked {
            Ok(looked) => {
                if !context.view.acts_on_config() {
                    self.config.looked(context.key, due);
                }
                memory.learn_missing(context.view.generation, looked.missing);
                Ok(looked.own)
            }
            // Whether they are there is not for us to see; a start will say so.
            Err(LookError::Api(error)) if error.is_forbidden() => Ok(Vec::new()),
            Err(LookError::Api(error)) => Err(Failed::Api(error)),
            Err(LookError::NotReady(_)) => Ok(Vec::new()),
        }
    }
}

pub(super) fn ready_of(status: &QuarksJobStatus) -> Option<(&str, &str)> {
    status.condition("Ready").map(|Condition { status, reason, .. }| (status.as_str(), reason.as_str()))
}

pub(super) fn ready_message(readiness: Readiness, view: &QuarksJobView, missing: Option<&Missing>) -> String {
    match readiness {
        Readiness::Ready => "can run".to_owned(),
        Readiness::AlreadyRan => "has run once for this template".to_owned(),
        Readiness::Suspended => "spec.suspend is true: no run starts; triggers wait".to_owned(),
        Readiness::InvalidSpec => view.spec_error.as_ref().map(ToString::to_string).unwrap_or_default(),
        Readiness::MissingReference => {
            let names = missing.map(|missing| missing.names.join(", ")).unwrap_or_default();
            format!("not there: {names}; a run that waits starts when the last of them appears")
        }
        Readiness::NamespaceNotReady => no_account_message(&view.key.namespace),
    }
}

fn no_account_message(namespace: &str) -> String {
    format!(
        "spec.output needs an account for the sidecar; run: kubectl apply -n {namespace} -f manifests/monitored-namespace.yaml && \
         kubectl label namespace {namespace} quarks.cloudfoundry.org/qjob-service-account=quarks-job-sidecar"
    )
}
