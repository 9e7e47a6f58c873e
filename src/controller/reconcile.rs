//! What a worker does with a key: look, decide, do one step, look again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use serde_json::Value;

use crate::api::{
    ActiveRun, Condition, Job, LABEL_QJOB_NAME, LastRun, List, ObjectKey, Outcome, Pod, QuarksJob, QuarksJobStatus, Resource, Spec,
    Strategy, Trigger, Uid,
};
use crate::clock;
use crate::index::{JobView, NamespaceView, QuarksJobView, SharedIndex};
use crate::kube::{Client, Error, Propagation, Request};
use crate::queue::{Backoff, Lane};

use super::action::Action;
use super::choices::Choices;
use super::credential::{CredentialError, Credentials};
use super::decide::{Decision, Hold, Pending, Readiness, Snapshot, StartedRun, Step, decide, pending, readiness};
use super::events::{EventSender, Note};
use super::lookup::may_not_list_message;
use super::memory::{Known, Memories, Memory};
use super::names::{job_name, label_value};
use super::record::{Marker, RunRecord};
use super::status::StatusBuilder;
use super::template::{SidecarSettings, build_job, has_delete_pod_label, ignored_fields, ttl_seconds};
use super::verdict::{Verdict, verdict};

/// Steps for one key before others get their turn. A whole run takes fewer.
const STEPS_MAX: usize = 16;
/// A template that the API server refuses is tried again after this long, besides on every change of the spec.
const INVALID_TEMPLATE_RETRY: Duration = Duration::from_secs(600);
/// Refusals for reasons outside the object (quota, admission, rights): how long until the next try.
const REFUSAL_BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(60) };
/// A Job that the index does not show but the API server does: how long until the next look.
const UNSEEN_JOB_RETRY: Duration = Duration::from_secs(5);

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
    pub memories: Memories,
    /// Starts that are about to name versions.
    pub choices: Choices,
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
    fn ready(&self) -> (Readiness, String) {
        let readiness = self.namespace.map_or(Readiness::Ready, |namespace| readiness(self.view, namespace, pending(self.view).is_some()));
        (readiness, ready_message(readiness, self.view))
    }
}

impl Reconciler {
    /// Brings one QuarksJob as far as it goes now.
    pub fn reconcile(&self, key: &ObjectKey, lane: Lane) -> Next {
        let mut memory = self.memories.take(key);
        let next = self.steps(key, lane, &mut memory);
        let indexed = self.index.read().quarks_job(key);
        if indexed.is_some() {
            self.memories.put(key, memory, indexed.as_deref());
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
                    Err(error) => return Next::Retry(error),
                }
            }
            let (view, jobs, namespace) = {
                let index = self.index.read();
                let Some(indexed) = index.quarks_job(key) else { return Next::Done };
                let jobs = index.jobs_of(&memory.view(&indexed).uid);
                memory.observe(&indexed, &jobs, object.is_some());
                let view = memory.view(&indexed);
                (view, memory.current_jobs(jobs), index.monitored(&key.namespace).cloned())
            };
            let snapshot = Snapshot {
                view: &view,
                jobs: &jobs,
                namespace: namespace.as_ref(),
                started: memory.started.as_ref(),
                hold: memory.hold.as_ref(),
                prune_at: memory.prune.map(|retry| retry.at),
            };
            let step = match decide(&snapshot, Instant::now()) {
                Decision::Nothing => return Next::Done,
                Decision::Wait(duration) => return Next::After(duration),
                Decision::Do(step) => step,
            };
            let is_start = matches!(step, Step::Start(_));
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

    fn read_job(&self, key: &ObjectKey) -> Result<Option<JobView>, Error> {
        match self.client.call::<Job>(&Request::get(Resource::JOBS, key)) {
            Ok(job) => Ok(Some(JobView::from(job))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_status(
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

    fn tell(&self, context: &Context<'_>, note: Note) {
        self.events.send(context.key, &context.view.uid, note);
    }

    // --- start -------------------------------------------------------------------------------------------------

    fn start(&self, context: &Context<'_>, pending: Pending, memory: &mut Memory) -> Result<Flow, Failed> {
        let Context { key, view, .. } = context;
        let object = context.object.ok_or(Failed::Stale)?;
        let mut spec = Spec::parse(&object.spec).map_err(|_| Failed::Stale)?;
        let record = RunRecord {
            run: view.marker.runs + 1,
            trigger: pending.trigger,
            strategy: pending.strategy,
            template: Some(view.template_digest.to_string()),
            config: None,
            request: pending.request,
            ttl: ttl_seconds(&spec.template),
            output: spec.has_output(),
            delete_pods: has_delete_pod_label(&spec.template),
        };
        if record.output
            && let Some(account) = context.namespace.and_then(|namespace| namespace.service_account.as_deref())
            && let Err(error) = self.credentials.ensure(&self.client, &key.namespace, account)
        {
            return match error {
                CredentialError::Api(error) => Err(Failed::Api(error)),
                CredentialError::NotReady(message) => self.refuse(context, memory, "NamespaceNotReady", &message, None),
            };
        }
        let _choice = match self.use_highest_versions(&key.namespace, &mut spec.template) {
            Ok(choice) => choice,
            Err(error) if error.is_forbidden() => {
                return self.refuse(context, memory, "NamespaceNotReady", &may_not_list_message(&key.namespace, &error), None);
            }
            Err(error) => return Err(error.into()),
        };
        let name = job_name(&key.name, &view.uid, record.run);
        let job = build_job(key, &view.uid, &name, &spec, &record, &self.sidecar);
        let action = Action::CreateJob { namespace: &key.namespace, job: &job };
        match self.client.call_with_warnings::<Job>(&action.request()) {
            Ok((_, warnings)) => {
                info!("job created key={key} job={name} run={} trigger={}", record.run, record.trigger.as_str());
                self.tell(
                    context,
                    Note::normal(
                        "JobCreated",
                        "CreateJob",
                        format!("run {}: created Job {name} (trigger: {})", record.run, record.trigger.as_str()),
                    ),
                );
                self.warn_about_template(context, &spec.template, &warnings);
                self.remember_start(memory, name, record);
                Ok(Flow::Continue)
            }
            Err(error) if error.is_already_exists() => self.take_over(context, &name, record.run, memory),
            Err(error) if error.has_field_causes() => {
                let message = format!("the API server refuses the Job of this template: {}", error.message());
                self.refuse(context, memory, "InvalidTemplate", &message, Some(INVALID_TEMPLATE_RETRY))
            }
            // A quota that is being counted answers 409.
            Err(error)
                if error.is_transient()
                    || error.is_conflict()
                    || error.is_not_found()
                    || error.is_unauthorized()
                    || error.is_shutdown() =>
            {
                Err(Failed::Api(error))
            }
            Err(error) => {
                let message = format!("the API server refuses the Job for now: {}", error.message());
                self.refuse(context, memory, "JobRefused", &message, None)
            }
        }
    }

    fn remember_start(&self, memory: &mut Memory, job_name: String, record: RunRecord) {
        memory.hold = None;
        memory.refusals = 0;
        memory.started = Some(StartedRun { job_name, record, at: Instant::now(), is_seen: false });
    }

    /// The name is taken: by an earlier try of ours, then the run goes on with what that Job says; or by someone else.
    fn take_over(&self, context: &Context<'_>, name: &str, run: u64, memory: &mut Memory) -> Result<Flow, Failed> {
        let job_key = ObjectKey::new(context.key.namespace.clone(), name);
        let Some(job) = self.read_job(&job_key)? else { return Err(Failed::Stale) };
        match job.record_of(&context.view.uid).filter(|record| record.run == run) {
            Some(record) => {
                debug!("job of an earlier try found key={} job={name}", context.key);
                self.remember_start(memory, name.to_owned(), record.clone());
                Ok(Flow::Continue)
            }
            None => {
                let message = format!("a Job named {name} exists and is not of this QuarksJob; delete or rename it");
                self.refuse(context, memory, "NameConflict", &message, None)
            }
        }
    }

    /// Says why nothing starts, and when it is tried again. `retry` of `None` backs off.
    fn refuse(
        &self,
        context: &Context<'_>,
        memory: &mut Memory,
        reason: &'static str,
        message: &str,
        retry: Option<Duration>,
    ) -> Result<Flow, Failed> {
        memory.refusals = memory.refusals.saturating_add(1);
        let wait = retry.unwrap_or_else(|| REFUSAL_BACKOFF.delay(memory.refusals, 0.0));
        let namespace = context.namespace.cloned().unwrap_or_default();
        memory.hold = Some(Hold { generation: context.view.generation, namespace, until: Instant::now() + wait });
        warn!("no run started key={} reason={reason} retry_seconds={} message={message:?}", context.key, wait.as_secs());
        let Some(Known { status, .. }) = memory.known().cloned() else { return Err(Failed::Stale) };
        let now = clock::now_seconds();
        let new = StatusBuilder::new(context.view, &status, &now).refused(reason, message);
        if new != status {
            self.tell(context, Note::warning(reason, "CreateJob", message.to_owned()));
        }
        self.write_status(context, &status, &new, memory)?;
        Ok(Flow::Wait(wait))
    }

    fn warn_about_template(&self, context: &Context<'_>, template: &Value, warnings: &[String]) {
        let mut sentences: Vec<String> = ignored_fields(template).into_iter().collect();
        sentences.extend(warnings.iter().cloned());
        if !sentences.is_empty() {
            self.tell(context, Note::warning("TemplateWarning", "CreateJob", sentences.join("; ")));
        }
    }

    // --- during a run ------------------------------------------------------------------------------------------

    fn record_start(&self, context: &Context<'_>, job: &JobView, memory: &mut Memory) -> Result<Flow, Failed> {
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

    // --- the end of a run --------------------------------------------------------------------------------------

    fn settle_ended(&self, context: &Context<'_>, job: &JobView, memory: &mut Memory) -> Result<Flow, Failed> {
        let record = job.record_of(&context.view.uid).ok_or(Failed::Stale)?;
        let verdict = self.judge(context, job, record, memory)?;
        self.settle(context, record, verdict, memory)
    }

    fn judge(&self, context: &Context<'_>, job: &JobView, record: &RunRecord, memory: &mut Memory) -> Result<Verdict, Failed> {
        let end = job.end.as_ref().ok_or(Failed::Stale)?;
        if !record.output {
            return Ok(verdict(end, job.succeeded, None));
        }
        let pods = match self.pods(context.key) {
            Ok(pods) => pods,
            // What may not be read cannot be verified, and no retry changes that.
            Err(error) if error.is_forbidden() => {
                warn!("pods cannot be listed key={} error={error}", context.key);
                Vec::new()
            }
            Err(error) => return Err(Failed::Api(error)),
        };
        let own: Vec<Pod> = pods.iter().filter(|pod| is_pod_of(pod, &job.uid)).cloned().collect();
        memory.pods = Some(pods);
        Ok(verdict(end, job.succeeded, Some(&own)))
    }

    pub(super) fn pods(&self, key: &ObjectKey) -> Result<Vec<Pod>, Error> {
        let selector = format!("{LABEL_QJOB_NAME}={}", label_value(&key.name));
        self.client.call::<List<Pod>>(&Request::list(Resource::PODS, &key.namespace).label_selector(&selector)).map(|list| list.items)
    }

    fn settle_vanished(
        &self,
        context: &Context<'_>,
        job_name: &str,
        record: Option<RunRecord>,
        memory: &mut Memory,
    ) -> Result<Flow, Failed> {
        let job_key = ObjectKey::new(context.key.namespace.clone(), job_name);
        if let Some(job) = self.read_job(&job_key)?
            && job.record_of(&context.view.uid).is_some()
        {
            debug!("job exists, the watch is behind key={} job={job_name}", context.key);
            return Ok(Flow::Wait(UNSEEN_JOB_RETRY));
        }
        let record = record.or_else(|| guessed_record(context.view)).ok_or(Failed::Stale)?;
        self.settle(context, &record, Verdict::cancelled(job_name), memory)
    }

    /// The commit point: marker and strategy in one write.
    fn settle(&self, context: &Context<'_>, record: &RunRecord, verdict: Verdict, memory: &mut Memory) -> Result<Flow, Failed> {
        let view = context.view;
        let marker = view.marker.after(record, verdict.outcome, &verdict.reason);
        let strategy = strategy_after(view, record, &marker);
        let action = Action::Settle { key: context.key, version: &view.resource_version, uid: &view.uid, marker: &marker, strategy };
        let object: QuarksJob = self.client.call(&action.request())?;
        info!("run settled key={} run={} outcome={} reason={}", context.key, record.run, verdict.outcome.as_str(), verdict.reason);
        memory.verdict = Some((record.run, verdict));
        memory.learn(&context.view.resource_version, &object);
        Ok(Flow::Continue)
    }

    fn record_end(&self, context: &Context<'_>, job: Option<&JobView>, memory: &mut Memory) -> Result<Flow, Failed> {
        let Known { status, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
        let marker = &context.view.marker;
        let now = clock::now_seconds();
        let builder = StatusBuilder::new(context.view, &status, &now);
        let recorded = status.last_run.clone().filter(|last| last.run >= marker.runs);
        let is_news = recorded.is_none() && marker.runs > 0;
        let new = match recorded {
            Some(last) => builder.ended(last, context.ready()),
            None if marker.runs == 0 => builder.idle(Readiness::Ready, &ready_message(Readiness::Ready, context.view)),
            None => {
                let verdict = match memory.verdict.clone() {
                    Some((run, verdict)) if run == marker.runs => verdict,
                    _ => self.remembered_verdict(context, job, memory)?,
                };
                builder.ended(last_run(context, marker, job, verdict, &status), context.ready())
            }
        };
        self.write_status(context, &status, &new, memory)?;
        memory.verdict = None;
        if let Some(last) = new.last_run.filter(|_| is_news) {
            self.tell_end(context, &last);
        }
        Ok(Flow::Continue)
    }

    /// The verdict after a restart: outcome and reason from the marker, details from what is still there.
    fn remembered_verdict(&self, context: &Context<'_>, job: Option<&JobView>, memory: &mut Memory) -> Result<Verdict, Failed> {
        let marker = &context.view.marker;
        let judged = match job.and_then(|job| Some((job, job.record_of(&context.view.uid)?))) {
            Some((job, record)) if job.end.is_some() => Some(self.judge(context, job, record, memory)?),
            _ => None,
        };
        let (message, outputs) = judged
            .map(|verdict| (verdict.message, verdict.outputs))
            .unwrap_or_else(|| ("the Job is gone; its details are not known any more".to_owned(), Vec::new()));
        Ok(Verdict { outcome: marker.outcome.unwrap_or(Outcome::Unknown), reason: marker.reason.clone(), message, outputs })
    }

    fn tell_end(&self, context: &Context<'_>, last: &LastRun) {
        let (LastRun { run, job_name, message, reason, .. }, outcome) = (last, last.outcome);
        let action = "SettleRun";
        if !last.outputs.is_empty() {
            let names: Vec<&str> = last.outputs.iter().map(|output| output.secret.as_str()).collect();
            self.tell(context, Note::normal("OutputStored", action, format!("run {run}: stored {}", names.join(", "))));
        }
        match outcome {
            Outcome::Succeeded => self.tell(context, Note::normal("RunSucceeded", action, format!("run {run}: Job {job_name} succeeded"))),
            Outcome::Cancelled => self.tell(context, Note::warning("RunCancelled", action, format!("run {run}: {message}"))),
            Outcome::Failed | Outcome::Unknown => {
                if let Some(output) = output_reason(reason) {
                    self.tell(context, Note::warning(output, action, format!("run {run}: {message}")));
                }
                self.tell(context, Note::warning("RunFailed", action, format!("run {run}: Job {job_name}: {reason}: {message}")));
            }
        }
    }

    // --- nothing to run ----------------------------------------------------------------------------------------

    fn take_baseline(&self, context: &Context<'_>, memory: &mut Memory) -> Result<Flow, Failed> {
        let view = context.view;
        let marker = Marker { once: Some(view.template_digest.to_string()), ..view.marker.clone() };
        let action = Action::Settle { key: context.key, version: &view.resource_version, uid: &view.uid, marker: &marker, strategy: None };
        let object: QuarksJob = self.client.call(&action.request())?;
        memory.learn(&context.view.resource_version, &object);
        Ok(Flow::Continue)
    }

    fn report(&self, context: &Context<'_>, readiness: Readiness, memory: &mut Memory) -> Result<Flow, Failed> {
        let Known { status, view, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
        let message = ready_message(readiness, &view);
        let now = clock::now_seconds();
        let new = StatusBuilder::new(&view, &status, &now).idle(readiness, &message);
        let is_new_generation = status.observed_generation != new.observed_generation;
        let is_news = is_new_generation || ready_of(&status) != ready_of(&new);
        self.write_status(context, &status, &new, memory)?;
        match readiness {
            Readiness::AlreadyRan if is_new_generation => {
                let note = "once has run for this template and does not run again; to run it again set spec.trigger.strategy to now, or set the annotation quarks.cloudfoundry.org/run-requested to a new value";
                self.tell(context, Note::normal("AlreadyRan", "Observe", note.to_owned()));
            }
            Readiness::InvalidSpec | Readiness::NamespaceNotReady if is_news => {
                self.tell(context, Note::warning(readiness.condition().1, "Observe", message));
            }
            _ => {}
        }
        // Whether the status could say it all or not: the same decision would only write the same again.
        Ok(if new == status { Flow::Wait(INVALID_TEMPLATE_RETRY) } else { Flow::Continue })
    }
}

fn ready_of(status: &QuarksJobStatus) -> Option<(&str, &str)> {
    status.condition("Ready").map(|Condition { status, reason, .. }| (status.as_str(), reason.as_str()))
}

fn ready_message(readiness: Readiness, view: &QuarksJobView) -> String {
    match readiness {
        Readiness::Ready => "can run".to_owned(),
        Readiness::AlreadyRan => "has run once for this template".to_owned(),
        Readiness::Suspended => "spec.suspend is true: no run starts; triggers wait".to_owned(),
        Readiness::InvalidSpec => view.spec_error.as_ref().map(ToString::to_string).unwrap_or_default(),
        Readiness::NamespaceNotReady => no_account_message(&view.key.namespace),
    }
}

fn no_account_message(namespace: &str) -> String {
    format!(
        "spec.output needs an account for the sidecar; run: kubectl apply -n {namespace} -f manifests/monitored-namespace.yaml && \
         kubectl label namespace {namespace} quarks.cloudfoundry.org/qjob-service-account=quarks-job-sidecar"
    )
}

/// The strategy to write when `record`'s run is over, if it changes: only what the run consumed is cleared.
fn strategy_after(view: &QuarksJobView, record: &RunRecord, marker: &Marker) -> Option<Strategy> {
    match (record.strategy?, view.strategy?) {
        (Strategy::Now, Strategy::Now) => Some(if marker.once.is_some() { Strategy::Done } else { Strategy::Manual }),
        // Another template since: `once` means that one too.
        (Strategy::Once, Strategy::Once) if record.template.as_ref().is_some_and(|template| view.template_digest.is(template)) => {
            Some(Strategy::Done)
        }
        _ => None,
    }
}

/// What an active run consumed, as far as status tells, if the Job's own record was never written down.
fn guessed_record(view: &QuarksJobView) -> Option<RunRecord> {
    let active = view.active.as_ref()?;
    let strategy = match active.trigger {
        Trigger::Now => Some(Strategy::Now),
        Trigger::Once => Some(Strategy::Once),
        Trigger::Request | Trigger::Config => None,
    };
    Some(RunRecord {
        run: active.run,
        trigger: active.trigger,
        strategy,
        template: Some(view.template_digest.to_string()),
        config: None,
        request: view.request.clone().filter(|_| active.trigger == Trigger::Request),
        ttl: None,
        output: false,
        delete_pods: false,
    })
}

fn last_run(context: &Context<'_>, marker: &Marker, job: Option<&JobView>, verdict: Verdict, status: &QuarksJobStatus) -> LastRun {
    let active = status.active.as_ref().filter(|active| active.run == marker.runs);
    let end_time = job.and_then(|job| job.end.as_ref()).and_then(|end| end.time());
    LastRun {
        run: marker.runs,
        job_name: job.map_or_else(|| job_name(&context.key.name, &context.view.uid, marker.runs), |job| job.key.name.to_string()),
        trigger: marker.trigger,
        start_time: job
            .and_then(|job| job.started.clone().or_else(|| job.created.clone()))
            .or_else(|| active.and_then(|run| run.start_time.clone())),
        completion_time: Some(end_time.map_or_else(clock::now_seconds, str::to_owned)),
        outcome: verdict.outcome,
        reason: verdict.reason,
        message: verdict.message,
        outputs: verdict.outputs,
    }
}

/// Event reason for an outcome that the output decided.
fn output_reason(reason: &str) -> Option<&'static str> {
    ["OutputInvalid", "OutputConflict", "OutputNotStored", "OutputUnverified", "OwnerGone"].into_iter().find(|word| *word == reason)
}

pub(super) fn is_pod_of(pod: &Pod, job: &Uid) -> bool {
    pod.metadata.controller().is_some_and(|owner| owner.uid == *job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(strategy: &str) -> QuarksJobView {
        let object: QuarksJob = serde_json::from_value(json!({
            "metadata": {"name": "q", "namespace": "n", "uid": "u"},
            "spec": {"trigger": {"strategy": strategy}, "template": {}}
        }))
        .expect("decodes");
        QuarksJobView::from(&object)
    }

    #[test]
    fn only_what_a_run_consumed_is_cleared() {
        let template = view("once").template_digest.to_string();
        let after = |current: &str, consumed: Option<Strategy>, digest: &str, once_ran: bool| {
            let record = RunRecord { strategy: consumed, template: Some(digest.to_owned()), ..guessed() };
            let marker = Marker { once: once_ran.then(|| "t".to_owned()), ..Marker::default() };
            strategy_after(&view(current), &record, &marker)
        };
        let cases = [
            ("now", Some(Strategy::Now), &*template, false, Some(Strategy::Manual)),
            ("now", Some(Strategy::Now), &template, true, Some(Strategy::Done)),
            ("now", Some(Strategy::Once), &template, true, None),
            ("now", None, &template, false, None),
            ("once", Some(Strategy::Once), &template, true, Some(Strategy::Done)),
            ("once", Some(Strategy::Once), "sha256:older", true, None),
            ("once", None, &template, true, None),
            ("manual", Some(Strategy::Now), &template, false, None),
            ("bogus", Some(Strategy::Now), &template, false, None),
        ];
        for (current, consumed, digest, once_ran, expected) in cases {
            assert_eq!(after(current, consumed, digest, once_ran), expected, "{current} {consumed:?} {digest} {once_ran}");
        }
    }

    fn guessed() -> RunRecord {
        RunRecord {
            run: 1,
            trigger: Trigger::Now,
            strategy: None,
            template: None,
            config: None,
            request: None,
            ttl: None,
            output: false,
            delete_pods: false,
        }
    }
}
