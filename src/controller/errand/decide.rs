//! Why and when a Job starts: what to do next for a QuarksJob without an active run. Pure: a function of what was observed.

use std::time::Instant;

use crate::api::{Strategy, Trigger};
use crate::contract::reason::Reason;
use crate::controller::claims::Snapshot;
use crate::controller::shared::decision::Decision;
use crate::controller::shared::memory::Hold;
use crate::controller::shared::ready::{Readiness, readiness};
use crate::digest;
use crate::views::QuarksJobView;
use crate::views::triggers::{Pending, pending};

use super::config::{Compared, compare, is_of_template};

/// What is known of a QuarksJob that waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// A start that was refused, and until when it is left alone.
    pub hold: Option<&'a Hold>,
    /// What is known of the ConfigMaps and Secrets that it refers to.
    pub references: ReferencesSeen<'a>,
    /// Config changes have made it run again and again: until when they wait.
    pub config_paused_until: Option<Instant>,
    /// A right to clean up is missing, which condition `Ready` says until it is back.
    pub is_clean_up_denied: bool,
}

/// What is known of a QuarksJob's references.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferencesSeen<'a> {
    /// Something was missing when they were last checked, and nothing else in the spec has changed since.
    pub is_missing: bool,
    /// Status says what.
    pub is_missing_said: bool,
    /// Digest of their content when they were last checked.
    pub config: Option<&'a str>,
    /// Something has happened to them: when to look.
    pub due: Option<Instant>,
}

/// One step; each ends in at most one write that matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the Job of the next run.
    Start(Pending),
    /// Check whether references exist, and their content.
    LookAtReferences,
    /// Record without a run: that a one-off first seen as `done` counts as having run, and what its references say now.
    TakeBaseline,
    /// Nothing to run: bring status up to date.
    Report(Readiness),
}

impl Step {
    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "Start",
            Self::LookAtReferences => "LookAtReferences",
            Self::TakeBaseline => "TakeBaseline",
            Self::Report(_) => "Report",
        }
    }

    /// True if it writes the QuarksJob, and nothing starts by it.
    pub fn is_record(&self) -> bool {
        match self {
            Self::TakeBaseline | Self::Report(_) => true,
            Self::Start(_) | Self::LookAtReferences => false,
        }
    }
}

/// No run is active: does one start, and if not, what is said?
pub fn decide(snapshot: &Snapshot<'_>, known: &Known<'_>, now: Instant) -> Decision<Step> {
    let Some(namespace) = snapshot.served() else { return Decision::Nothing };
    let view = snapshot.view;
    let Known { hold, references, config_paused_until, is_clean_up_denied } = known;
    let pending = pending(view);
    let has_trigger = pending.is_some();
    let readiness = readiness(view, namespace, has_trigger, references.is_missing);
    // What is missing is checked as soon as it may exist; there is no burst to wait for.
    let is_due = references.due.is_some_and(|at| at <= now || references.is_missing);
    let step = match pending {
        Some(pending) => (!references.is_missing || is_due).then_some(Step::Start(pending)),
        None => step_for_references(view, references, is_due),
    };
    if let Some(step) = step.filter(|_| readiness.could_run()) {
        let is_refused = |hold: &&Hold| hold.generation == view.generation && hold.namespace == *namespace && now < hold.until;
        let is_config_run = matches!(&step, Step::Start(Pending { trigger: Trigger::Config, .. }));
        let paused = config_paused_until.filter(|until| is_config_run && now < *until);
        let held = hold.filter(is_refused).map(|hold| hold.until).filter(|_| !matches!(step, Step::TakeBaseline));
        return match paused.max(held) {
            Some(until) => Decision::Wait(until - now),
            None => Decision::Do(step),
        };
    }
    let (is_true, reason) = readiness.condition();
    let says =
        |is_true: bool, reason: Reason| view.ready.as_ref().is_some_and(|ready| ready.is_true == is_true && ready.reason == Some(reason));
    let is_denial_said = *is_clean_up_denied && says(false, Reason::NamespaceNotReady);
    let is_said = (is_denial_said || says(is_true, reason)) && (readiness != Readiness::MissingReference || references.is_missing_said);
    // A trigger that waits while Ready is True must not be covered by the generation (see `StatusBuilder::observe`).
    let is_observed = view.observed_generation == view.generation || (is_true && has_trigger);
    match references.due {
        _ if !is_said || !is_observed => Decision::Do(Step::Report(readiness)),
        Some(at) if readiness.could_run() && view.acts_on_config() => Decision::Wait(at.saturating_duration_since(now)),
        _ => Decision::Nothing,
    }
}

/// What to do about references while no trigger waits.
fn step_for_references(view: &QuarksJobView, seen: &ReferencesSeen<'_>, is_due: bool) -> Option<Step> {
    let acts = view.acts_on_config();
    if is_due && (acts || seen.is_missing) {
        return Some(Step::LookAtReferences);
    }
    let stored = view.marker.config.as_deref();
    // What was seen for another template says nothing about this one.
    let config = seen.config.filter(|config| acts && is_of_template(config, &view.template_digest));
    let has_baseline = stored.is_some_and(|stored| is_of_template(stored, &view.template_digest));
    match config.map(|config| compare(stored, config)) {
        Some(Compared::Changed) => return Some(Step::Start(Pending { trigger: Trigger::Config, strategy: None, request: None })),
        Some(Compared::Unrelated) => return Some(Step::TakeBaseline),
        None if acts && !has_baseline && !seen.is_missing => return Some(Step::LookAtReferences),
        Some(Compared::Same) | None => {}
    }
    // Disabled: the stored digest would be compared with arbitrary content when it is enabled again.
    let is_stale = !acts && stored.is_some();
    let is_new_done = view.strategy == Some(Strategy::Done) && view.marker.once.is_none();
    // Made by another algorithm: with it no change of the template would ever be seen.
    let is_old = view.marker.once.as_ref().is_some_and(|once| !digest::is_current(once));
    (is_stale || is_new_done || is_old).then_some(Step::TakeBaseline)
}
