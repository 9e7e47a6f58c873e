//! Nothing to run: what is recorded and reported for an idle QuarksJob.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::api::{QuarksJob, Spec, Strategy};
use crate::contract::reason::Reason;
use crate::contract::record::Marker;
use crate::controller::shared::action::Action;
use crate::controller::shared::decision::{Failed, Flow};
use crate::controller::shared::memory::Known;
use crate::controller::shared::note::Note;
use crate::controller::shared::pace::Pause;
use crate::controller::shared::pace::REFUSAL_BACKOFF;
use crate::controller::shared::ready::{Readiness, ready_message, ready_of};
use crate::controller::shared::turn::Turn;
use crate::rules::references;

use super::ErrandController;
use super::config::LookError;

/// A status that cannot say it all is not written again sooner than this.
const SAME_REPORT: Duration = Duration::from_secs(600);

impl ErrandController {
    pub fn take_baseline(&self, turn: &mut Turn<'_>) -> Result<Flow, Failed> {
        let view = Arc::clone(&turn.view);
        let is_done = matches!(view.strategy, Some(Strategy::Done)) && view.marker.once.is_none();
        // A digest by another algorithm says that the one-off has run, and nothing about the template.
        let has_run = is_done || view.marker.once.is_some();
        let once = has_run.then(|| match &view.marker.once {
            Some(once) if crate::digest::is_current(once) => once.clone(),
            Some(_) | None => view.template_digest.to_string(),
        });
        let config = if view.acts_on_config() { turn.memory().waiting.config.clone().or_else(|| view.marker.config.clone()) } else { None };
        info!(key:% = turn.key, once:% = once.is_some(), config:% = config.is_some(); "baseline taken; no run started");
        let marker = Marker { once, config, ..view.marker.clone() };
        let action = Action::Settle { key: turn.key, version: &view.resource_version, uid: &view.uid, marker: &marker, strategy: None };
        let object: QuarksJob = self.tools.client.call(&action.request())?;
        turn.memory().learn(&view.resource_version, &object);
        if turn.memory().known().is_some_and(|known| known.view.marker == marker) {
            turn.memory().record = None;
        } else {
            turn.memory().record = Some(Pause::after(turn.memory().record, REFUSAL_BACKOFF, Instant::now()));
            warn!(
                key:% = turn.key, field:% = format_args!("metadata.annotations[{}]", crate::api::ANNOTATION_SETTLED);
                "write accepted but not stored; will retry; check for a mutating webhook on quarksjobs"
            );
        }
        Ok(Flow::Continue)
    }

    pub fn report(&self, turn: &mut Turn<'_>, spec: Option<Spec>, readiness: Readiness) -> Result<Flow, Failed> {
        let Known { status, view } = turn.known()?;
        let mut readiness = readiness;
        let own = match readiness {
            Readiness::Ready | Readiness::AlreadyRan | Readiness::InvalidRequest => self.check_references(turn, spec)?,
            Readiness::MissingReference => turn.memory().waiting.missing.as_ref().map(|missing| missing.own.clone()).unwrap_or_default(),
            Readiness::Suspended | Readiness::InvalidSpec | Readiness::NamespaceNotReady => Vec::new(),
        };
        if turn.memory().waiting.missing.is_some() && readiness.could_run() {
            readiness = Readiness::MissingReference;
        }
        if status.observed_generation != view.generation {
            self.warn_about_own(turn, &own);
        }
        let message = ready_message(readiness, &view, turn.memory().waiting.missing.as_ref());
        turn.view = view;
        let new = turn.status(&status, &turn.now()).idle(readiness, &message);
        let is_new_generation = status.observed_generation != new.observed_generation;
        let is_news = is_new_generation || ready_of(&status) != ready_of(&new) || readiness == Readiness::MissingReference && status != new;
        turn.write_status(&status, &new)?;
        if let Some(missing) = &mut turn.memory().waiting.missing {
            missing.is_said = true;
        }
        match readiness {
            // Told when it is kept.
            _ if turn.memory().record.is_some() => {}
            Readiness::AlreadyRan if is_new_generation => {
                let note = "already ran once for this template and does not run again; to run it again, set spec.trigger.strategy to now or annotation quarks.cloudfoundry.org/run-requested to a new value";
                turn.tell(Note::new(Reason::AlreadyRan, "Observe", note.to_owned()));
            }
            Readiness::InvalidSpec | Readiness::NamespaceNotReady | Readiness::MissingReference if is_news => {
                turn.tell(Note::new(readiness.condition().1, "Observe", message));
            }
            _ => {}
        }
        // Whether the status could say it all or not: the same decision would only write the same again.
        Ok(if new == status { Flow::Wait(SAME_REPORT) } else { Flow::Continue })
    }

    /// Checks whether what the template references exists. Returns the references to own output.
    fn check_references(&self, turn: &mut Turn<'_>, spec: Option<Spec>) -> Result<Vec<String>, Failed> {
        let Some(mut spec) = spec else { return Ok(Vec::new()) };
        let due = self.config.due(turn.key);
        let looked = self
            .tools
            .use_highest_versions(&turn.key.namespace, &mut spec.template)
            .map_err(LookError::from)
            .and_then(|_choice| self.look(turn.key, &references::of_spec(&spec), None));
        match looked {
            Ok(looked) => {
                if !turn.view.acts_on_config() {
                    self.config.looked(turn.key, due);
                }
                let generation = turn.view.generation;
                turn.memory().waiting.learn_missing(generation, &looked);
                Ok(looked.own)
            }
            // We may not see whether they exist; a start will report it.
            Err(LookError::Api(error)) if error.is_forbidden() => Ok(Vec::new()),
            Err(LookError::Api(error)) => Err(Failed::Api(error)),
            Err(LookError::NotReady(_)) => Ok(Vec::new()),
        }
    }
}
