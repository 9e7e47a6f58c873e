//! What a worker of `errand` does with a key: look, decide, take one step, look again.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use log::debug;

use crate::api::{ObjectKey, Spec};
use crate::controller::claims::{Controller, Stage};
use crate::controller::shared::decision::{Decision, Failed, Flow, Outcome};
use crate::controller::shared::memory::Memory;
use crate::controller::shared::turn::{STEPS_MAX, Turn, grounds};
use crate::views::QuarksJobView;

use super::ErrandController;
use super::decide::{Known, ReferencesSeen, Step, decide};

impl ErrandController {
    /// Brings the QuarksJob as far as it goes now, unless it is `job`'s. It waited since `since`.
    pub fn reconcile(&self, key: &ObjectKey, since: Instant) -> Outcome {
        let mut turn = match Turn::begin(&self.tools, key, Controller::Errand) {
            Ok(Some(turn)) => turn,
            Ok(None) => {
                self.config.forget(key);
                return Outcome::Done;
            }
            Err(_) => return Outcome::NotMine,
        };
        let outcome = (0..STEPS_MAX).find_map(|_| self.look_and_act(&mut turn, since).break_value());
        let outcome = outcome.unwrap_or(Outcome::RequeueAfter(Duration::ZERO));
        turn.end(Controller::Errand, &outcome);
        outcome
    }

    fn look_and_act(&self, turn: &mut Turn<'_>, since: Instant) -> ControlFlow<Outcome> {
        let seen = match turn.observe() {
            Ok(seen) => seen,
            Err(outcome) => return ControlFlow::Break(outcome),
        };
        let now = Instant::now();
        let due = self.config.due(turn.key).map(|due| due.at);
        let memory = turn.memory();
        let snapshot = seen.snapshot(memory);
        if Stage::of(&snapshot).controller() != Controller::Errand {
            return ControlFlow::Break(Outcome::Done);
        }
        let (decision, grounds) = (decide(&snapshot, &known(memory, &seen.view, due), now), grounds(&snapshot, &memory.waiting));
        note_trigger(memory, &decision, since);
        let step = match decision {
            Decision::Nothing => {
                memory.record = None;
                return ControlFlow::Break(memory.waiting.config_loop.rest(now).map_or(Outcome::Done, Outcome::RequeueAfter));
            }
            Decision::Wait(duration) => return ControlFlow::Break(Outcome::RequeueAfter(duration)),
            Decision::Do(step) => step,
        };
        let held = memory.hold_back(step.is_record(), grounds, now).filter(|_| step != Step::LookAtReferences);
        if let Some(until) = held {
            return ControlFlow::Break(Outcome::RequeueAfter(until.saturating_duration_since(now)));
        }
        // A start is decided on an object read just now; whatever writes a status needs to know the old one.
        let needs_object = matches!(step, Step::Start(_) | Step::Report(_));
        if needs_object && (turn.fresh.is_none() || !turn.is_known()) {
            turn.must_read = true;
            return ControlFlow::Continue(());
        }
        self.act(turn, step, now)
    }

    fn act(&self, turn: &mut Turn<'_>, step: Step, now: Instant) -> ControlFlow<Outcome> {
        debug!(key:% = turn.key, step:% = step.name(); "step");
        let spec = turn.fresh.take().and_then(|fresh| fresh.spec);
        let is_look = step == Step::LookAtReferences;
        let result = self.execute(turn, spec, step);
        turn.follow(result, !is_look, now)
    }

    fn execute(&self, turn: &mut Turn<'_>, spec: Option<Spec>, step: Step) -> Result<Flow, Failed> {
        match step {
            Step::Start(pending) => self.start(turn, spec, pending),
            Step::LookAtReferences => self.look_again(turn),
            Step::TakeBaseline => self.take_baseline(turn),
            Step::Report(readiness) => self.report(turn, spec, readiness),
        }
    }
}

/// What is known of one that waits. Its references are `due` to be checked.
pub fn known<'a>(memory: &'a Memory, view: &QuarksJobView, due: Option<Instant>) -> Known<'a> {
    let waiting = &memory.waiting;
    let missing = waiting.missing.as_ref().filter(|missing| missing.generation == view.generation);
    Known {
        hold: waiting.hold.as_ref(),
        references: ReferencesSeen {
            is_missing: missing.is_some(),
            is_missing_said: missing.is_none_or(|missing| missing.is_said),
            config: waiting.config.as_deref(),
            due,
        },
        config_paused_until: waiting.config_loop.until(),
        is_clean_up_denied: memory.is_clean_up_denied,
    }
}

/// Remembers since when a trigger could have had its Job: it is what made the key wait.
fn note_trigger(memory: &mut Memory, decision: &Decision<Step>, since: Instant) {
    let waiting = &mut memory.waiting;
    match decision {
        Decision::Do(Step::Start(_)) => _ = waiting.trigger_seen.get_or_insert(since),
        // Nothing waits, or for something else than us; but after a refusal the trigger still does.
        Decision::Nothing => waiting.trigger_seen = None,
        Decision::Wait(_) if waiting.hold.is_none() => waiting.trigger_seen = None,
        Decision::Do(_) | Decision::Wait(_) => {}
    }
}
