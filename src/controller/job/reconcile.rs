//! What a worker of `job` does with a key: with the key in hand it brings its run to an end; then it cleans up after finished runs,
//! for which it does not need the key in hand.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, warn};

use crate::api::{ObjectKey, Uid};
use crate::contract::reason::Reason;
use crate::controller::claims::{Controller, Snapshot, Stage};
use crate::controller::shared::decision::{Decision, Failed, Outcome};
use crate::controller::shared::memory::Waiting;
use crate::controller::shared::turn::{STEPS_MAX, Turn, grounds};
use crate::kube::{Answer, Error};
use crate::views::QuarksJobView;
use crate::views::identity::{StartedRun, own_jobs};

use super::JobController;
use super::cleanup::CleanUp;
use super::decide::{Step, decide};
use super::leftovers::Leftovers;
use super::record::{record_end, record_start};
use super::settle::{delete_stray, settle_ended, settle_vanished};
use super::tidy;

/// A Job that was not as clean-up took it for is checked again after this long.
const STALE_RETRY: Duration = Duration::from_secs(2);

impl JobController {
    /// Brings the run of the QuarksJob as far as it goes now, and cleans up.
    pub fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let mut leftovers = self.leftovers.take(key);
        let outcome = self.with_hand(key, &mut leftovers);
        self.leftovers.put(key, leftovers);
        outcome
    }

    fn with_hand(&self, key: &ObjectKey, leftovers: &mut Leftovers) -> Outcome {
        let mut turn = match Turn::begin(&self.tools, key, Controller::Job) {
            Ok(Some(turn)) => turn,
            Ok(None) => {
                *leftovers = Leftovers::default();
                return Outcome::Done;
            }
            Err(_) => return Outcome::NotMine,
        };
        let outcome = (0..STEPS_MAX).find_map(|_| look_and_act(&mut turn).break_value()).unwrap_or(Outcome::RequeueAfter(Duration::ZERO));
        leftovers.identify(&turn.view.uid);
        say_denial(&mut turn, leftovers);
        let (view, started, is_gone) = (Arc::clone(&turn.view), turn.memory().started.clone(), turn.is_gone);
        turn.end(Controller::Job, &outcome);
        let wait = match outcome {
            // What it has left belongs to the garbage collector, or to no one.
            Outcome::Done if is_gone => return outcome,
            Outcome::Done => None,
            Outcome::RequeueAfter(wait) => Some(wait),
            Outcome::Retry(_) | Outcome::NotMine => return outcome,
        };
        let other = self.tidy_up(&view, started.as_ref(), leftovers);
        wait.into_iter().chain(other).min().map_or(Outcome::Done, Outcome::RequeueAfter)
    }

    /// One step of the clean-up, which delays nothing. It never fails: what fails is postponed. Returns the time until the key is
    /// checked again: after a step at once, when what is more urgent has had its turn.
    fn tidy_up(&self, view: &QuarksJobView, started: Option<&StartedRun>, leftovers: &mut Leftovers) -> Option<Duration> {
        let (jobs, namespace) = {
            let index = self.tools.index.read();
            index.quarks_job(&view.key).filter(|indexed| indexed.uid == view.uid && !indexed.is_being_deleted)?;
            (index.jobs_of(&view.key.namespace, &view.uid), index.monitored(&view.key.namespace).cloned())
        };
        let jobs = leftovers.observe(&view.uid, own_jobs(view, &jobs, started));
        let snapshot = Snapshot { view, jobs: &jobs, namespace: namespace.as_ref(), started };
        let now = Instant::now();
        let step = match tidy::decide(&snapshot, &leftovers.pauses(), now) {
            Decision::Nothing => {
                // That is taken back with the key in hand.
                let was_denied = leftovers.is_denied();
                leftovers.rest();
                return was_denied.then_some(Duration::ZERO);
            }
            Decision::Wait(duration) => return Some(duration),
            Decision::Do(step) => step,
        };
        if let Some(until) = leftovers.pace.until(grounds(&snapshot, &Waiting::default()), now) {
            return Some(until.saturating_duration_since(now));
        }
        debug!(key:% = view.key, step:% = step.name(); "step");
        match (CleanUp { tools: &self.tools, view, leftovers: &mut *leftovers }.execute(&step), step.job()) {
            (Ok(()), job) => {
                leftovers.pace.wrote(now);
                if job.is_some() {
                    leftovers.cleaned_up(now);
                }
            }
            (Err(Failed::Api(error)), Some(job)) => self.postpone(view, &job.uid, leftovers, &error),
            (Err(_), _) => return Some(STALE_RETRY),
        }
        Some(Duration::ZERO)
    }

    /// Clean-up failed: it blocks nothing, and is retried later.
    fn postpone(&self, view: &QuarksJobView, job: &Uid, leftovers: &mut Leftovers, error: &Error) {
        let now = Instant::now();
        let is_denied = error.answer() == Answer::MissingRight;
        let message = is_denied.then(|| self.tools.missing_right_message(&view.key, error));
        let denial = message.as_ref().map(|message| format!("cannot clean up Jobs or pods of finished runs: {message}"));
        let pause = leftovers.refused(job.clone(), now, error.retry_after().unwrap_or_default(), denial);
        let (key, seconds) = (&view.key, (pause.until - now).as_secs());
        match message {
            Some(message) => warn!(key:%, error:% = message, retry_seconds:% = seconds; "not allowed to clean up; will retry"),
            None if error.is_shutdown() => debug!(key:%; "clean-up interrupted by shutdown"),
            None => warn!(key:%, error:%, retry_seconds:% = seconds; "clean-up failed; will retry"),
        }
    }
}

/// Condition `Ready` says that a right to clean up is missing, until it is back; `errand` takes it back.
fn say_denial(turn: &mut Turn<'_>, leftovers: &mut Leftovers) {
    let is_denied = leftovers.is_denied();
    if std::mem::replace(&mut turn.memory().is_clean_up_denied, is_denied) != is_denied {
        turn.has_acted = true;
    }
    if let Some(message) = leftovers.unsaid.take() {
        turn.say(Reason::NamespaceNotReady, &message);
    }
}

fn look_and_act(turn: &mut Turn<'_>) -> ControlFlow<Outcome> {
    let seen = match turn.observe() {
        Ok(seen) => seen,
        Err(outcome) => return ControlFlow::Break(outcome),
    };
    let now = Instant::now();
    let started = turn.memory().starting;
    let burst = turn.tools.bursts.wait(&turn.key.namespace, started, now);
    let memory = turn.memory();
    let snapshot = seen.snapshot(memory);
    if snapshot.served().is_none() {
        return ControlFlow::Break(Outcome::Done);
    }
    let settle = memory.ending.settle.map(|pause| pause.until);
    let stage = Stage::of(&snapshot);
    let is_own = stage.controller() == Controller::Job;
    let (decision, grounds) = (decide(&seen.view, stage, settle, burst, now), grounds(&snapshot, &memory.waiting));
    let step = match decision {
        Decision::Nothing => {
            if is_own {
                memory.record = None;
            }
            return ControlFlow::Break(Outcome::Done);
        }
        Decision::Wait(duration) => return ControlFlow::Break(Outcome::RequeueAfter(duration)),
        Decision::Do(step) => step,
    };
    let is_record = step.is_record();
    if let Some(until) = memory.hold_back(is_record, grounds, now) {
        return ControlFlow::Break(Outcome::RequeueAfter(until.saturating_duration_since(now)));
    }
    // Whatever writes a status needs to know the old one.
    if is_record && !turn.is_known() {
        turn.must_read = true;
        return ControlFlow::Continue(());
    }
    act(turn, step, now)
}

fn act(turn: &mut Turn<'_>, step: Step, now: Instant) -> ControlFlow<Outcome> {
    debug!(key:% = turn.key, step:% = step.name(); "step");
    turn.fresh = None;
    let result = match step {
        Step::DeleteStray(job) => delete_stray(turn, &job),
        Step::RecordStart(job) => record_start(turn, &job),
        Step::Settle(job) => settle_ended(turn, &job),
        Step::SettleVanished { job_name, record } => settle_vanished(turn, &job_name, &record),
        Step::RecordEnd(job) => record_end(turn, job.as_ref()),
    };
    turn.follow(result, true, now)
}
