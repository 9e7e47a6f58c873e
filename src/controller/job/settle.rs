//! The end of a run: the verdict and the commit point. Also strays: Jobs that are active although their run ended earlier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::api::{ObjectKey, QuarksJob, Strategy};
use crate::clock;
use crate::contract::reason::Reason;
use crate::contract::record::{Marker, RunRecord};
use crate::controller::shared::action::Action;
use crate::controller::shared::decision::{Failed, Flow};
use crate::controller::shared::memory::Known;
use crate::controller::shared::note::Note;
use crate::controller::shared::pace::Pause;
use crate::controller::shared::pace::REFUSAL_BACKOFF;
use crate::controller::shared::ready::ready_of;
use crate::controller::shared::turn::Turn;
use crate::digest;
use crate::kube::{Answer, Error, Propagation};
use crate::rules::verdict::Verdict;
use crate::views::identity::{OwnJob, run_of};
use crate::views::{JobView, QuarksJobView};

use super::judge::judge;
use super::record::{RunTimes, last_run, tell_end};

/// A Job that the index does not show but the API server does: how long until the next look.
const UNSEEN_JOB_RETRY: Duration = Duration::from_secs(5);
/// Why a settle that was answered with success did not settle.
const NOT_KEPT: &str =
    "the API server accepted annotation quarks.cloudfoundry.org/settled but did not store it; check for a mutating webhook on quarksjobs";

/// A run that is over, and how it ended.
struct Ended<'a> {
    record: &'a RunRecord,
    /// Its Job, if it is still there.
    job: Option<&'a JobView>,
    verdict: Verdict,
}

/// The Job has ended.
pub fn settle_ended(turn: &mut Turn<'_>, job: &OwnJob) -> Result<Flow, Failed> {
    // As for `record_start`, which a short run never sees.
    turn.trigger_served();
    let verdict = judge(&turn.tools.client, turn.key, job)?;
    settle(turn, Ended { record: &job.record, job: Some(&job.view), verdict })
}

/// The index shows no Job: does it really not exist?
pub fn settle_vanished(turn: &mut Turn<'_>, job_name: &str, record: &RunRecord) -> Result<Flow, Failed> {
    let job_key = ObjectKey::new(turn.key.namespace.clone(), job_name);
    let job = turn.tools.read_job(&job_key)?;
    let is_there = job.is_some();
    let view = Arc::clone(&turn.view);
    if job.is_some_and(|job| run_of(&job, &view, turn.memory().started.as_ref()).is_some()) {
        debug!(key:% = turn.key, job:% = job_name; "Job exists; the watch is behind");
        return Ok(Flow::Wait(UNSEEN_JOB_RETRY));
    }
    let verdict = match view.last_run {
        // It had ended before its Job went, and could not be settled.
        Some((run, _)) if run == record.run => turn.known()?.status.last_run.map(Verdict::of_last_run).ok_or(Failed::Stale)?,
        Some(_) | None if is_there => Verdict::taken(job_name),
        Some(_) | None => Verdict::cancelled(job_name),
    };
    settle(turn, Ended { record, job: None, verdict })
}

/// The commit point: marker and strategy in one write.
fn settle(turn: &mut Turn<'_>, ended: Ended<'_>) -> Result<Flow, Failed> {
    let Ended { record, job, verdict } = &ended;
    let view = Arc::clone(&turn.view);
    let RunTimes { start_time, completion_time } = RunTimes::of(record.run, view.active.as_deref(), *job, &view.marker);
    let marker = Marker { start_time, completion_time, ..view.marker.after(record, verdict.outcome, &verdict.reason) };
    let strategy = strategy_after(&view, record, &marker);
    let action = Action::Settle { key: turn.key, version: &view.resource_version, uid: &view.uid, marker: &marker, strategy };
    let refusal = match turn.tools.client.call::<QuarksJob>(&action.request()) {
        Ok(object) => {
            turn.memory().learn(&view.resource_version, &object);
            let is_kept = turn.memory().known().is_some_and(|known| known.view.marker.runs >= marker.runs);
            (!is_kept).then(|| (Reason::SettleRefused, NOT_KEPT.to_owned()))
        }
        Err(error) => Some(settle_refusal(turn, error)?),
    };
    if let Some((reason, why)) = refusal {
        return settle_later(turn, ended, reason, &why);
    }
    info!(key:% = turn.key, run:% = record.run, outcome:% = verdict.outcome.as_str(), reason:% = verdict.reason; "run settled");
    turn.tools.metrics.settled(record.trigger, verdict.outcome);
    let memory = turn.memory();
    memory.trouble = 0;
    memory.ending.settle = None;
    memory.ending.verdict = Some((record.run, ended.verdict));
    Ok(Flow::Continue)
}

/// Reason and message, if someone must act before the run can be settled.
fn settle_refusal(turn: &mut Turn<'_>, error: Error) -> Result<(Reason, String), Failed> {
    match error.answer() {
        Answer::MissingRight => Ok((Reason::NamespaceNotReady, turn.tools.missing_right_message(turn.key, &error))),
        Answer::Refused | Answer::FieldError | Answer::Exists => Ok((Reason::SettleRefused, error.message())),
        Answer::WebhookFailed | Answer::TimedOut if turn.memory().is_trouble_to_tell() => Ok((Reason::SettleRefused, error.message())),
        Answer::WebhookFailed
        | Answer::TimedOut
        | Answer::Gone
        | Answer::Conflict
        | Answer::OtherObject
        | Answer::Expired
        | Answer::Terminating
        | Answer::Busy
        | Answer::OnTheWay
        | Answer::Unavailable
        | Answer::Unreadable
        | Answer::Unauthorized
        | Answer::Shutdown => Err(error.into()),
    }
}

/// The run has ended and cannot be settled: reports that, and how it ended. Nothing that can remove its Job happens, and no run starts.
fn settle_later(turn: &mut Turn<'_>, ended: Ended<'_>, reason: Reason, why: &str) -> Result<Flow, Failed> {
    let Ended { record, job, verdict } = ended;
    // The status to write it into must be known; the second time it is.
    let Known { status, view } = turn.known()?;
    let at = Instant::now();
    let ending = &mut turn.memory().ending;
    let pause = Pause::after(ending.settle, REFUSAL_BACKOFF, at);
    (ending.settle, ending.settle_run) = (Some(pause), record.run);
    let message = format!("run {} ended but cannot be settled; no new run starts until it is; will retry: {why}", record.run);
    warn!(key:% = turn.key, reason:%, retry_seconds:% = (pause.until - at).as_secs(), message:%; "run not settled");
    let is_news = status.last_run.as_ref().is_none_or(|last| last.run != record.run);
    let last = last_run(&view, record.run, Some(record.trigger), job, verdict, &status);
    let active = record.active(&view.uid, &last.job_name, last.start_time.clone());
    turn.view = view;
    let new = turn.status(&status, &clock::now_seconds()).ended_unsettled(last.clone(), active, reason, &message);
    let is_said = ready_of(&status) == ready_of(&new);
    turn.write_status(&status, &new)?;
    let is_kept = turn.memory().record.is_none();
    if is_news && is_kept {
        tell_end(turn, &status, &last);
    }
    if !is_said && is_kept {
        turn.tell(Note::new(reason, "SettleRun", message));
    }
    Ok(Flow::Wait(pause.until - at))
}

/// A Job whose run is settled already, and that still runs: a create that arrived late.
pub fn delete_stray(turn: &mut Turn<'_>, OwnJob { view: job, .. }: &OwnJob) -> Result<Flow, Failed> {
    // The index may be behind: only a Job that runs now is a stray.
    match turn.tools.read_job(&job.key)? {
        Some(fresh) if fresh.uid == job.uid && fresh.end.is_none() && !fresh.is_being_deleted => {
            warn!(key:% = turn.key, job:% = job.key.name; "stray Job deleted");
            let action = Action::DeleteJob {
                key: &job.key,
                uid: &fresh.uid,
                version: Some(&fresh.resource_version),
                propagation: Propagation::Background,
            };
            turn.tools.client.call_unit(&action.request())?;
        }
        _ => debug!(key:% = turn.key, job:% = job.key.name; "stray Job already ended or deleted"),
    }
    turn.memory().ending.strays.push((job.uid.clone(), job.resource_version.clone()));
    Ok(Flow::Continue)
}

/// The strategy to write when `record`'s run is over, if it changes: only what the run consumed is cleared.
pub fn strategy_after(view: &QuarksJobView, record: &RunRecord, marker: &Marker) -> Option<Strategy> {
    match (record.strategy?, view.strategy?) {
        (Strategy::Now, Strategy::Now) => Some(if marker.once.is_some() { Strategy::Done } else { Strategy::Manual }),
        // Another template since: `once` means that one too.
        (Strategy::Once, Strategy::Once) if record.template.as_ref().is_some_and(|template| is_of_template(view, template)) => {
            Some(Strategy::Done)
        }
        _ => None,
    }
}

/// A digest by another algorithm cannot be compared: the run was started before an upgrade.
fn is_of_template(view: &QuarksJobView, stored: &str) -> bool {
    view.template_digest.is(stored) || !digest::is_current(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Trigger;
    use crate::controller::job::record::tests::view;

    #[test]
    fn only_what_a_run_consumed_is_cleared() {
        let template = view("once").template_digest.to_string();
        let after = |current: &str, consumed: Option<Strategy>, digest: &str, once_ran: bool| {
            let record = RunRecord { strategy: consumed, template: Some(digest.to_owned()), ..RunRecord::of_run(1, Trigger::Now) };
            let marker = Marker { once: once_ran.then(|| "t".to_owned()), ..Marker::default() };
            strategy_after(&view(current), &record, &marker)
        };
        let cases = [
            ("now", Some(Strategy::Now), &*template, false, Some(Strategy::Manual)),
            ("now", Some(Strategy::Now), &template, true, Some(Strategy::Done)),
            ("now", Some(Strategy::Once), &template, true, None),
            ("now", None, &template, false, None),
            ("once", Some(Strategy::Once), &template, true, Some(Strategy::Done)),
            ("once", Some(Strategy::Once), "sha256-canonical:older", true, None),
            ("once", Some(Strategy::Once), "sha256:by-another-algorithm", true, Some(Strategy::Done)),
            ("once", None, &template, true, None),
            ("manual", Some(Strategy::Now), &template, false, None),
            ("bogus", Some(Strategy::Now), &template, false, None),
        ];
        for (current, consumed, digest, once_ran, expected) in cases {
            assert_eq!(after(current, consumed, digest, once_ran), expected, "{current} {consumed:?} {digest} {once_ran}");
        }
    }
}
