//! Nothing to run: what is recorded and said of a QuarksJob that waits.

use std::time::{Duration, Instant};

use log::{info, warn};

use crate::api::{Condition, QuarksJob, QuarksJobStatus, Spec, Strategy};
use crate::clock;
use crate::index::QuarksJobView;

use super::action::Action;
use super::config::LookError;
use super::decide::Readiness;
use super::events::Note;
use super::memory::{Known, Memory, Missing};
use super::pace::Pause;
use super::reconcile::{Context, Failed, Flow, Reconciler};
use super::record::{Marker, REQUEST_MAX};
use super::references;
use super::status::StatusBuilder;
use super::trouble::REFUSAL_BACKOFF;

/// A status that cannot say it all is not written again sooner than this.
const SAME_REPORT: Duration = Duration::from_secs(600);

impl Reconciler {
    pub(super) fn take_baseline(&self, context: &Context<'_>, memory: &mut Memory) -> Result<Flow, Failed> {
        let view = context.view;
        let is_done = matches!(view.strategy, Some(Strategy::Done)) && view.marker.once.is_none();
        // A digest by another algorithm says that the one-off has run, and nothing about the template.
        let has_run = is_done || view.marker.once.is_some();
        let once = has_run.then(|| match &view.marker.once {
            Some(once) if crate::digest::is_current(once) => once.clone(),
            Some(_) | None => view.template_digest.to_string(),
        });
        let config = if view.acts_on_config() { memory.config.clone().or_else(|| view.marker.config.clone()) } else { None };
        info!("baseline taken, nothing runs key={} once={} config={}", context.key, once.is_some(), config.is_some());
        let marker = Marker { once, config, ..view.marker.clone() };
        let action = Action::Settle { key: context.key, version: &view.resource_version, uid: &view.uid, marker: &marker, strategy: None };
        let object: QuarksJob = self.client.call(&action.request())?;
        memory.learn(&context.view.resource_version, &object);
        if memory.known().is_some_and(|known| known.view.marker == marker) {
            memory.record = None;
        } else {
            memory.record = Some(Pause::after(memory.record, REFUSAL_BACKOFF, Instant::now()));
            warn!(
                "written and not kept, will be tried again: does a mutating webhook change quarksjobs? key={} field=metadata.annotations[{}]",
                context.key,
                crate::api::ANNOTATION_SETTLED
            );
        }
        Ok(Flow::Continue)
    }

    pub(super) fn report(&self, context: &Context<'_>, readiness: Readiness, memory: &mut Memory) -> Result<Flow, Failed> {
        let Known { status, view, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
        let mut readiness = readiness;
        let own = match readiness {
            Readiness::Ready | Readiness::AlreadyRan | Readiness::InvalidRequest => self.check_references(context, memory)?,
            Readiness::MissingReference => memory.missing.as_ref().map(|missing| missing.own.clone()).unwrap_or_default(),
            Readiness::Suspended | Readiness::InvalidSpec | Readiness::NamespaceNotReady => Vec::new(),
        };
        if memory.missing.is_some() && readiness.could_run() {
            readiness = Readiness::MissingReference;
        }
        if status.observed_generation != view.generation {
            self.warn_about_own(context, &own);
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
            // Told when it is kept.
            _ if memory.record.is_some() => {}
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
                memory.learn_missing(context.view.generation, &looked);
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
        Readiness::MissingReference => missing.map(missing_message).unwrap_or_default(),
        Readiness::NamespaceNotReady => no_account_message(&view.key.namespace),
        Readiness::InvalidRequest => format!(
            "annotation {} is longer than {REQUEST_MAX} bytes, so it does not count as a request; set a shorter value; all other triggers work",
            crate::api::ANNOTATION_RUN_REQUESTED
        ),
    }
}

fn missing_message(missing: &Missing) -> String {
    let text = format!("missing: {}; a run that waits starts when the last of them appears", missing.names.join(", "));
    if missing.missing_own.is_empty() {
        return text;
    }
    let own = missing.missing_own.join(", ");
    format!("{text}; Secret {own} is output of this QuarksJob, which can never start by itself: make the reference optional, or create it")
}

fn no_account_message(namespace: &str) -> String {
    format!(
        "spec.output needs an account for the sidecar; run: kubectl apply -n {namespace} -f manifests/monitored-namespace.yaml && \
         kubectl label namespace {namespace} quarks.cloudfoundry.org/qjob-service-account=quarks-job-sidecar"
    )
}
