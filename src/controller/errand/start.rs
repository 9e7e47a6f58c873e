//! The start of a run: everything up to the answer to the Job's create, and what is reported if there is no Job.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use serde_json::Value;

use crate::api::{Job, ObjectKey, Spec, Trigger};
use crate::contract::reason::Reason;
use crate::contract::record::RunRecord;
use crate::controller::credential::{CredentialError, Run};
use crate::controller::shared::action::Action;
use crate::controller::shared::decision::{Failed, Flow};
use crate::controller::shared::lookup::may_not_list_message;
use crate::controller::shared::memory::Hold;
use crate::controller::shared::note::Note;
use crate::controller::shared::pace::REFUSAL_BACKOFF;
use crate::controller::shared::trouble::{TERMINATING_RETRY, remedy};
use crate::controller::shared::turn::Turn;
use crate::kube::{Answer, Error};
use crate::rules::names::job_name;
use crate::rules::references;
use crate::rules::template::{build_job, has_delete_pod_label, ignored_fields, ttl_seconds};
use crate::views::QuarksJobView;
use crate::views::identity::{StartedRun, run_of};
use crate::views::triggers::Pending;

use super::ErrandController;
use super::config::{Compared, compare};

/// A template that the API server refuses is retried after this long, besides on every change of the spec.
const INVALID_TEMPLATE_RETRY: Duration = Duration::from_secs(600);

impl ErrandController {
    pub fn start(&self, turn: &mut Turn<'_>, spec: Option<Spec>, pending: Pending) -> Result<Flow, Failed> {
        let key = turn.key;
        let mut spec = spec.ok_or(Failed::Stale)?;
        let _choice = match self.tools.use_highest_versions(&key.namespace, &mut spec.template) {
            Ok(choice) => choice,
            Err(error) if error.is_forbidden() => {
                let message = may_not_list_message(&remedy(&self.tools.index, &key.namespace), &error);
                return self.refuse(turn, Reason::NamespaceNotReady, &message, None);
            }
            Err(error) => return Err(error.into()),
        };
        let config = match self.look_at_references(turn, &spec, pending.trigger)? {
            ControlFlow::Continue(config) => config,
            ControlFlow::Break(flow) => return Ok(flow),
        };
        let record = record_of(&turn.view, &spec, pending, config);
        let name = job_name(&key.name, &turn.view.uid, record.run);
        if let Some(flow) = self.ensure_token(turn, &record, &name)? {
            return Ok(flow);
        }
        let assigns_users = turn.namespace.as_ref().is_some_and(|namespace| namespace.assigns_users);
        let job = build_job(key, &turn.view.uid, &name, &spec, &record, &self.sidecar, assigns_users);
        let action = Action::CreateJob { namespace: &key.namespace, job: &job };
        match self.tools.client.call_with_warnings::<Job>(&action.request()) {
            Ok((_, warnings)) => {
                created(turn, name, record, &spec.template, &warnings);
                Ok(Flow::Continue)
            }
            Err(error) => self.not_created(turn, &name, record.run, error),
        }
    }

    /// Checks whether what the template references exists. Continues with the digest of its content; breaks if nothing can start, or if
    /// what had changed is as it was.
    fn look_at_references(&self, turn: &mut Turn<'_>, spec: &Spec, trigger: Trigger) -> Result<ControlFlow<Flow, Option<String>>, Failed> {
        let (key, view) = (turn.key, Arc::clone(&turn.view));
        let due = self.config.due(key);
        let looked = match self.look(key, &references::of_spec(spec), Some(&view.template_digest).filter(|_| view.acts_on_config())) {
            Ok(looked) => looked,
            Err(error) => return self.cannot_look(turn, error).map(ControlFlow::Break),
        };
        self.config.looked(key, due);
        turn.memory().waiting.learn(view.generation, &looked);
        let is_unchanged = |config: &String| compare(view.marker.config.as_deref(), config) != Compared::Changed;
        let is_as_before = trigger == Trigger::Config && looked.config.as_ref().is_none_or(is_unchanged);
        if turn.memory().waiting.missing.is_some() || is_as_before {
            // Decided again with what was found.
            return Ok(ControlFlow::Break(Flow::Continue));
        }
        self.warn_about_own(turn, &looked.own);
        Ok(ControlFlow::Continue(looked.config))
    }

    /// Sees to the sidecar's token, if the run has output. Returns how the turn ends if there is none.
    fn ensure_token(&self, turn: &mut Turn<'_>, record: &RunRecord, job: &str) -> Result<Option<Flow>, Failed> {
        let account = turn.namespace.as_ref().and_then(|namespace| namespace.service_account.clone());
        let Some(account) = account.filter(|_| record.output) else { return Ok(None) };
        let run = Run { quarks_job: turn.key.clone(), owner: turn.view.uid.clone(), number: record.run, job: job.to_owned() };
        match self.credentials.ensure(&self.tools.client, &self.tools.index, &run, &account) {
            Ok(()) => Ok(None),
            Err(CredentialError::Api(error)) if error.answer() == Answer::Refused => {
                let message = format!("cannot store the sidecar's token; will retry: {}", error.message());
                self.refuse(turn, Reason::JobRefused, &message, None).map(Some)
            }
            Err(CredentialError::Api(error)) => Err(Failed::Api(error)),
            Err(CredentialError::NotReady(message)) => self.refuse(turn, Reason::NamespaceNotReady, &message, None).map(Some),
        }
    }

    /// No Job was created, or its answer did not come: what now?
    fn not_created(&self, turn: &mut Turn<'_>, name: &str, run: u64, error: Error) -> Result<Flow, Failed> {
        let refused = || format!("Job rejected; will retry: {}", error.message());
        match error.answer() {
            Answer::Exists => self.take_over(turn, name, run),
            Answer::FieldError => {
                let message = format!("Job rejected as invalid; fix spec.template: {}", error.message());
                self.refuse(turn, Reason::InvalidTemplate, &message, Some(INVALID_TEMPLATE_RETRY))
            }
            Answer::Refused => self.refuse(turn, Reason::JobRefused, &refused(), None),
            Answer::WebhookFailed | Answer::TimedOut if turn.memory().is_trouble_to_tell() => {
                self.refuse(turn, Reason::JobRefused, &refused(), None)
            }
            Answer::Terminating => {
                debug!(key:% = turn.key; "no run started; the namespace is being deleted");
                Ok(Flow::Wait(TERMINATING_RETRY))
            }
            // A quota that is being counted answers with a conflict.
            Answer::Conflict
            | Answer::OtherObject
            | Answer::WebhookFailed
            | Answer::TimedOut
            | Answer::MissingRight
            | Answer::Gone
            | Answer::Expired
            | Answer::Busy
            | Answer::OnTheWay
            | Answer::Unavailable
            | Answer::Unreadable
            | Answer::Unauthorized
            | Answer::Shutdown => Err(Failed::Api(error)),
        }
    }

    /// The name is taken: by an earlier try of ours, then the run continues with that Job's record; or by something else.
    fn take_over(&self, turn: &mut Turn<'_>, name: &str, run: u64) -> Result<Flow, Failed> {
        let job_key = ObjectKey::new(turn.key.namespace.clone(), name);
        let Some(job) = self.tools.read_job(&job_key)? else { return Err(Failed::Stale) };
        match run_of(&job, &turn.view, None).filter(|record| record.run == run) {
            Some(record) => {
                debug!(key:% = turn.key, job:% = name; "found Job of an earlier try");
                remember_start(turn, name.to_owned(), record);
                Ok(Flow::Continue)
            }
            None => {
                let message = format!(
                    "Job {name} exists and is not owned by this QuarksJob; delete it if nobody needs it, or give the QuarksJob another name"
                );
                self.refuse(turn, Reason::NameConflict, &message, None)
            }
        }
    }

    /// Says why nothing starts, and when it is retried. `retry` of `None` backs off.
    pub fn refuse(&self, turn: &mut Turn<'_>, reason: Reason, message: &str, retry: Option<Duration>) -> Result<Flow, Failed> {
        let (generation, namespace) = (turn.view.generation, turn.namespace.clone().unwrap_or_default());
        let waiting = &mut turn.memory().waiting;
        waiting.refusals = waiting.refusals.saturating_add(1);
        let wait = retry.unwrap_or_else(|| REFUSAL_BACKOFF.delay(waiting.refusals, 0.0));
        waiting.hold = Some(Hold { generation, namespace, until: Instant::now() + wait });
        warn!(key:% = turn.key, reason:%, retry_seconds:% = wait.as_secs(), message:%; "no run started");
        let status = turn.known()?.status;
        let new = turn.status(&status, &turn.now()).refused(reason, message);
        if new != status {
            turn.tell(Note::new(reason, "CreateJob", message.to_owned()));
        }
        turn.write_status(&status, &new)?;
        Ok(Flow::Wait(wait))
    }
}

/// What the next run is, and what it consumes.
fn record_of(view: &QuarksJobView, spec: &Spec, pending: Pending, config: Option<String>) -> RunRecord {
    RunRecord {
        run: view.marker.runs + 1,
        trigger: pending.trigger,
        strategy: pending.strategy,
        template: Some(view.template_digest.to_string()),
        config,
        request: pending.request,
        ttl: ttl_seconds(&spec.template),
        output: spec.has_output(),
        delete_pods: has_delete_pod_label(&spec.template),
    }
}

/// The API server has made the Job.
fn created(turn: &mut Turn<'_>, name: String, record: RunRecord, template: &Value, warnings: &[String]) {
    let (key, run, trigger) = (turn.key, record.run, record.trigger.as_str());
    info!(key:%, job:% = name, run:%, trigger:%; "job created");
    let now = Instant::now();
    turn.memory().starting = Some(now);
    turn.tools.bursts.started(&key.namespace, now);
    warn_about_template(turn, template, warnings);
    if record.trigger == Trigger::Config {
        watch_for_loop(turn);
    }
    remember_start(turn, name, record);
}

fn remember_start(turn: &mut Turn<'_>, job_name: String, record: RunRecord) {
    turn.trigger_served();
    let memory = turn.memory();
    memory.waiting.hold = None;
    memory.waiting.refusals = 0;
    memory.trouble = 0;
    memory.started = Some(StartedRun { job_name, record, unseen_since: Some(Instant::now()) });
}

/// One-offs that trigger each other would run forever.
fn watch_for_loop(turn: &mut Turn<'_>) {
    if let Some(pause) = turn.memory().waiting.config_loop.started(Instant::now()) {
        let text = format!(
            "config changes trigger this QuarksJob repeatedly; the next config run waits {} s; check whether a run writes a ConfigMap or Secret that it \
             or another QuarksJob references",
            pause.as_secs()
        );
        warn!(key:% = turn.key, pause_seconds:% = pause.as_secs(); "config loop");
        turn.tell(Note::new(Reason::ConfigLoop, "CreateJob", text));
    }
}

fn warn_about_template(turn: &Turn<'_>, template: &Value, warnings: &[String]) {
    let mut sentences: Vec<String> = ignored_fields(template).into_iter().collect();
    sentences.extend(warnings.iter().cloned());
    if !sentences.is_empty() {
        turn.tell(Note::new(Reason::TemplateWarning, "CreateJob", sentences.join("; ")));
    }
}
