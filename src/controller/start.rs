//! The start of a run: everything up to the answer to the Job's create, and what is said if there is no Job.

use std::time::{Duration, Instant};

use log::{debug, info, warn};
use serde_json::Value;

use crate::api::{Job, ObjectKey, Spec, Trigger};
use crate::clock;
use crate::kube::{Answer, Error};

use super::action::Action;
use super::config::{Compared, compare};
use super::credential::{CredentialError, Run};
use super::decide::{Hold, Pending, StartedRun};
use super::events::Note;
use super::identity::run_of;
use super::lookup::may_not_list_message;
use super::memory::{Known, Memory};
use super::names::job_name;
use super::reconcile::{Context, Failed, Flow, Reconciler};
use super::record::RunRecord;
use super::references;
use super::status::StatusBuilder;
use super::template::{build_job, has_delete_pod_label, ignored_fields, ttl_seconds};
use super::trouble::{REFUSAL_BACKOFF, TERMINATING_RETRY, remedy};

/// A template that the API server refuses is tried again after this long, besides on every change of the spec.
const INVALID_TEMPLATE_RETRY: Duration = Duration::from_secs(600);

impl Reconciler {
    pub(super) fn start(&self, context: &Context<'_>, pending: Pending, memory: &mut Memory) -> Result<Flow, Failed> {
        let Context { key, view, .. } = context;
        let object = context.object.ok_or(Failed::Stale)?;
        let mut spec = Spec::parse(&object.spec).map_err(|_| Failed::Stale)?;
        let _choice = match self.use_highest_versions(&key.namespace, &mut spec.template) {
            Ok(choice) => choice,
            Err(error) if error.is_forbidden() => {
                let message = may_not_list_message(&remedy(&self.index, &key.namespace), &error);
                return self.refuse(context, memory, "NamespaceNotReady", &message, None);
            }
            Err(error) => return Err(error.into()),
        };
        let due = self.config.due(key);
        let looked = match self.look(key, &references::of_spec(&spec), Some(&view.template_digest).filter(|_| view.acts_on_config())) {
            Ok(looked) => looked,
            Err(error) => return self.cannot_look(context, memory, error),
        };
        self.config.looked(key, due);
        memory.config.clone_from(&looked.config);
        memory.learn_missing(view.generation, &looked);
        let is_unchanged = |config: &String| compare(view.marker.config.as_deref(), config) != Compared::Changed;
        if memory.missing.is_some() || (pending.trigger == Trigger::Config && looked.config.as_ref().is_none_or(is_unchanged)) {
            // Decided anew on what was found: nothing can start, or what had changed is as it was.
            return Ok(Flow::Continue);
        }
        self.warn_about_own(context, &looked.own);
        let record = RunRecord {
            run: view.marker.runs + 1,
            trigger: pending.trigger,
            strategy: pending.strategy,
            template: Some(view.template_digest.to_string()),
            config: looked.config,
            request: pending.request,
            ttl: ttl_seconds(&spec.template),
            output: spec.has_output(),
            delete_pods: has_delete_pod_label(&spec.template),
        };
        let name = job_name(&key.name, &view.uid, record.run);
        let run = Run { quarks_job: (*key).clone(), owner: view.uid.clone(), number: record.run, job: name.clone() };
        if record.output
            && let Some(account) = context.namespace.and_then(|namespace| namespace.service_account.as_deref())
            && let Err(error) = self.credentials.ensure(&self.client, &self.index, &run, account)
        {
            return match error {
                CredentialError::Api(error) if error.answer() == Answer::Refused => {
                    let message = format!("the sidecar's token cannot be stored: {}", error.message());
                    self.refuse(context, memory, "JobRefused", &message, None)
                }
                CredentialError::Api(error) => Err(Failed::Api(error)),
                CredentialError::NotReady(message) => self.refuse(context, memory, "NamespaceNotReady", &message, None),
            };
        }
        let assigns_users = context.namespace.is_some_and(|namespace| namespace.assigns_users);
        let job = build_job(key, &view.uid, &name, &spec, &record, &self.sidecar, assigns_users);
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
                if record.trigger == Trigger::Config {
                    self.watch_for_loop(context, memory);
                }
                self.remember_start(memory, name, record);
                Ok(Flow::Continue)
            }
            Err(error) => self.not_created(context, &name, record.run, error, memory),
        }
    }

    /// No Job was created, or its answer did not come: what now?
    fn not_created(&self, context: &Context<'_>, name: &str, run: u64, error: Error, memory: &mut Memory) -> Result<Flow, Failed> {
        let refused = || format!("the API server refuses the Job for now: {}", error.message());
        match error.answer() {
            Answer::Exists => self.take_over(context, name, run, memory),
            Answer::FieldError => {
                let message = format!("the API server refuses the Job of this template: {}", error.message());
                self.refuse(context, memory, "InvalidTemplate", &message, Some(INVALID_TEMPLATE_RETRY))
            }
            Answer::Refused => self.refuse(context, memory, "JobRefused", &refused(), None),
            Answer::WebhookFailed | Answer::TimedOut if memory.is_trouble_to_tell() => {
                self.refuse(context, memory, "JobRefused", &refused(), None)
            }
            Answer::Terminating => {
                debug!("no run started, the namespace is being deleted key={}", context.key);
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

    fn remember_start(&self, memory: &mut Memory, job_name: String, record: RunRecord) {
        self.trigger_served(memory);
        memory.hold = None;
        memory.refusals = 0;
        memory.trouble = 0;
        memory.started = Some(StartedRun { job_name, record, unseen_since: Some(Instant::now()) });
    }

    /// One-offs that feed each other would run for ever.
    fn watch_for_loop(&self, context: &Context<'_>, memory: &mut Memory) {
        if let Some(pause) = memory.config_loop.started(Instant::now()) {
            let text = format!(
                "config changes make this run again and again, so the next ones wait for {} s; does a run write a ConfigMap or Secret that it \
                 or another QuarksJob refers to?",
                pause.as_secs()
            );
            warn!("config loop key={} pause_seconds={}", context.key, pause.as_secs());
            self.tell(context, Note::warning("ConfigLoop", "CreateJob", text));
        }
    }

    /// The name is taken: by an earlier try of ours, then the run goes on with what that Job says; or by someone else.
    fn take_over(&self, context: &Context<'_>, name: &str, run: u64, memory: &mut Memory) -> Result<Flow, Failed> {
        let job_key = ObjectKey::new(context.key.namespace.clone(), name);
        let Some(job) = self.read_job(&job_key)? else { return Err(Failed::Stale) };
        match run_of(&job, context.view, None).filter(|record| record.run == run) {
            Some(record) => {
                debug!("job of an earlier try found key={} job={name}", context.key);
                self.remember_start(memory, name.to_owned(), record);
                Ok(Flow::Continue)
            }
            None => {
                let message = format!("a Job named {name} exists and is not of this QuarksJob; delete or rename it");
                self.refuse(context, memory, "NameConflict", &message, None)
            }
        }
    }

    /// Says why nothing starts, and when it is tried again. `retry` of `None` backs off.
    pub(super) fn refuse(
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
}
