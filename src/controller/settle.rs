//! The end of a run: the verdict, the commit point, the status.

use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::api::{
    ActiveRun, LABEL_JOB_UID, LABEL_QJOB_NAME, LastRun, ObjectKey, Outcome, PodReport, QuarksJob, QuarksJobStatus, Resource, Strategy,
    Trigger, Uid,
};
use crate::clock;
use crate::digest;
use crate::index::{JobView, QuarksJobView};
use crate::kube::{Answer, Error, Request};
use crate::watch::{Listed, list_all};

use super::action::Action;
use super::decide::Readiness;
use super::events::Note;
use super::identity::{OwnJob, run_of};
use super::lookup::PAGE;
use super::memory::{Known, Memory};
use super::names::{job_name, label_value};
use super::pace::Pause;
use super::reconcile::{Context, Failed, Flow, Reconciler};
use super::record::{Marker, RunRecord};
use super::report::{ready_message, ready_of};
use super::status::StatusBuilder;
use super::trouble::REFUSAL_BACKOFF;
use super::verdict::{Tally, Verdict};

/// A Job that the index does not show but the API server does: how long until the next look.
const UNSEEN_JOB_RETRY: Duration = Duration::from_secs(5);
/// Why a settle that was answered with success did not settle.
const NOT_KEPT: &str = "the API server took the write of annotation quarks.cloudfoundry.org/settled and did not keep it; does a mutating webhook change quarksjobs?";

impl Reconciler {
    pub(super) fn settle_ended(&self, context: &Context<'_>, job: &OwnJob, memory: &mut Memory) -> Result<Flow, Failed> {
        // As for `record_start`, which a short run never sees.
        self.trigger_served(memory);
        let verdict = self.judge(context, job)?;
        self.settle(context, &job.record, Some(&job.view), verdict, memory)
    }

    /// With output the sidecars' reports decide: one pod at a time, however many there are.
    pub(super) fn judge(&self, context: &Context<'_>, job: &OwnJob) -> Result<Verdict, Failed> {
        let OwnJob { view, record } = job;
        let end = view.end.as_ref().ok_or(Failed::Stale)?;
        if !record.output {
            return Ok(Verdict::of_job(end));
        }
        let mut tally = Tally::default();
        self.pods(context.key, &selector_of_job(context.key, view), &mut |listed| match listed {
            None => tally = Tally::default(),
            Some(pod) if is_pod_of(&pod, &view.uid) => tally.take(&pod),
            Some(_) => {}
        })?;
        Ok(tally.verdict(end, view.succeeded))
    }

    /// Tells each pod that the selector finds; `None` if the list begins anew.
    pub(super) fn pods(&self, key: &ObjectKey, selector: &str, tell: &mut dyn FnMut(Option<PodReport>)) -> Result<(), Failed> {
        let request = Request::list(Resource::PODS, &key.namespace).label_selector(selector).limit(PAGE);
        list_all(&self.client, request, &mut |listed| {
            match listed {
                Listed::Begin => tell(None),
                Listed::Object(json) => tell(Some(crate::json::from_slice(json)?)),
            }
            Ok(())
        })
        .map_err(Failed::Api)
    }

    pub(super) fn settle_vanished(
        &self,
        context: &Context<'_>,
        job_name: &str,
        record: &RunRecord,
        memory: &mut Memory,
    ) -> Result<Flow, Failed> {
        let job_key = ObjectKey::new(context.key.namespace.clone(), job_name);
        let job = self.read_job(&job_key)?;
        let is_there = job.is_some();
        if job.is_some_and(|job| run_of(&job, context.view, memory.started.as_ref()).is_some()) {
            debug!("job exists, the watch is behind key={} job={job_name}", context.key);
            return Ok(Flow::Wait(UNSEEN_JOB_RETRY));
        }
        let verdict = match context.view.last_run {
            // It had ended before its Job went, and could not be settled.
            Some((run, _)) if run == record.run => {
                let Known { status, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
                status.last_run.map(Verdict::of_last_run).ok_or(Failed::Stale)?
            }
            Some(_) | None if is_there => Verdict::taken(job_name),
            Some(_) | None => Verdict::cancelled(job_name),
        };
        self.settle(context, record, None, verdict, memory)
    }

    /// The commit point: marker and strategy in one write.
    fn settle(
        &self,
        context: &Context<'_>,
        record: &RunRecord,
        job: Option<&JobView>,
        verdict: Verdict,
        memory: &mut Memory,
    ) -> Result<Flow, Failed> {
        let view = context.view;
        let RunTimes { start_time, completion_time } = RunTimes::of(record.run, view.active.as_deref(), job, &view.marker);
        let marker = Marker { start_time, completion_time, ..view.marker.after(record, verdict.outcome, &verdict.reason) };
        let strategy = strategy_after(view, record, &marker);
        let action = Action::Settle { key: context.key, version: &view.resource_version, uid: &view.uid, marker: &marker, strategy };
        let refusal = match self.client.call::<QuarksJob>(&action.request()) {
            Ok(object) => {
                memory.learn(&view.resource_version, &object);
                let is_kept = memory.known().is_some_and(|known| known.view.marker.runs >= marker.runs);
                (!is_kept).then(|| ("SettleRefused", NOT_KEPT.to_owned()))
            }
            Err(error) => Some(self.settle_refusal(context, error, memory)?),
        };
        if let Some((reason, why)) = refusal {
            return self.settle_later(context, record, job, verdict, reason, &why, memory);
        }
        info!("run settled key={} run={} outcome={} reason={}", context.key, record.run, verdict.outcome.as_str(), verdict.reason);
        self.metrics.settled(record.trigger, verdict.outcome);
        memory.settle = None;
        memory.trouble = 0;
        memory.verdict = Some((record.run, verdict));
        Ok(Flow::Continue)
    }

    /// Reason and sentence, if somebody has to do something before the run can be settled.
    fn settle_refusal(&self, context: &Context<'_>, error: Error, memory: &mut Memory) -> Result<(&'static str, String), Failed> {
        match error.answer() {
            Answer::MissingRight => Ok(("NamespaceNotReady", self.missing_right_message(context.key, &error))),
            Answer::Refused | Answer::FieldError | Answer::Exists => Ok(("SettleRefused", error.message())),
            Answer::WebhookFailed | Answer::TimedOut if memory.is_trouble_to_tell() => Ok(("SettleRefused", error.message())),
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

    /// The run has ended and cannot be settled: says so, and how it ended. Nothing that can remove its Job happens, and no run starts.
    #[expect(clippy::too_many_arguments, reason = "all that is known of the end of one run")]
    fn settle_later(
        &self,
        context: &Context<'_>,
        record: &RunRecord,
        job: Option<&JobView>,
        verdict: Verdict,
        reason: &'static str,
        why: &str,
        memory: &mut Memory,
    ) -> Result<Flow, Failed> {
        // The status to write it into has to be known; the second time it is.
        let Known { status, view } = memory.known().cloned().ok_or(Failed::Stale)?;
        let at = Instant::now();
        let pause = Pause::after(memory.settle, REFUSAL_BACKOFF, at);
        (memory.settle, memory.settle_run) = (Some(pause), record.run);
        let message = format!("run {} has ended and cannot be settled; no run starts until it is: {why}", record.run);
        warn!("run not settled key={} reason={reason} retry_seconds={} message={message:?}", context.key, (pause.until - at).as_secs());
        let context = Context { view: &view, ..*context };
        let is_news = status.last_run.as_ref().is_none_or(|last| last.run != record.run);
        let now = clock::now_seconds();
        let last = last_run(&context, record.run, Some(record.trigger), job, verdict, &status);
        let new = StatusBuilder::new(&view, &status, &now).ended_unsettled(
            last.clone(),
            record.active(&view.uid, &last.job_name, last.start_time.clone()),
            reason,
            &message,
        );
        let is_said = ready_of(&status) == ready_of(&new);
        self.write_status(&context, &status, &new, memory)?;
        let is_kept = memory.record.is_none();
        if is_news && is_kept {
            self.tell_end(&context, &last);
        }
        if !is_said && is_kept {
            self.tell(&context, Note::warning(reason, "SettleRun", message));
        }
        Ok(Flow::Wait(pause.until - at))
    }

    pub(super) fn record_end(&self, context: &Context<'_>, job: Option<&OwnJob>, memory: &mut Memory) -> Result<Flow, Failed> {
        let Known { status, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
        let marker = &context.view.marker;
        let now = clock::now_seconds();
        let builder = StatusBuilder::new(context.view, &status, &now);
        let recorded = recorded_end(&status, marker);
        // Else the answer to our own settle was lost, or another process settled it and is gone.
        let is_counted = memory.verdict.as_ref().is_some_and(|(run, _)| *run == marker.runs);
        let is_news = recorded.is_none() && (is_counted || !is_copied(&status, context.view));
        let new = match recorded {
            Some(last) => builder.ended(last, context.ready()),
            None if marker.runs == 0 => builder.idle(Readiness::Ready, &ready_message(Readiness::Ready, context.view, None)),
            None => {
                let verdict = match memory.verdict.clone() {
                    Some((run, verdict)) if run == marker.runs => verdict,
                    _ => self.remembered_verdict(context, job)?,
                };
                let job = job.map(|job| &*job.view);
                builder.ended(last_run(context, marker.runs, marker.trigger, job, verdict, &status), context.ready())
            }
        };
        self.write_status(context, &status, &new, memory)?;
        if memory.record.is_some() {
            // Told and counted when it is kept.
            return Ok(Flow::Continue);
        }
        memory.verdict = None;
        if let Some(last) = new.last_run.filter(|_| is_news) {
            if let (false, Some(trigger)) = (is_counted, last.trigger) {
                self.metrics.settled(trigger, last.outcome);
            }
            self.tell_end(context, &last);
        }
        Ok(Flow::Continue)
    }

    /// The verdict after a restart: outcome and reason from the marker, details from what is still there.
    fn remembered_verdict(&self, context: &Context<'_>, job: Option<&OwnJob>) -> Result<Verdict, Failed> {
        let marker = &context.view.marker;
        let judged = job.filter(|job| job.view.end.is_some()).map(|job| self.judge(context, job)).transpose()?;
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
}

/// The strategy to write when `record`'s run is over, if it changes: only what the run consumed is cleared.
pub(super) fn strategy_after(view: &QuarksJobView, record: &RunRecord, marker: &Marker) -> Option<Strategy> {
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

/// The end of the settled run, if status says it already, and as it was settled: before that a Job that came late may have changed it.
pub(super) fn recorded_end(status: &QuarksJobStatus, marker: &Marker) -> Option<LastRun> {
    let is_settled = |outcome: Outcome| marker.outcome.is_none_or(|settled| settled == outcome);
    status.last_run.clone().filter(|last| last.run > marker.runs || (last.run == marker.runs && is_settled(last.outcome)))
}

/// Status has the marker of this run, so it has told its end before: somebody has taken that away.
fn is_copied(status: &QuarksJobStatus, view: &QuarksJobView) -> bool {
    Marker::in_status(&view.uid, status).map_or(0, |copy| copy.runs) >= view.marker.runs
}

/// When a run started and ended, RFC 3339.
struct RunTimes {
    start_time: Option<String>,
    completion_time: Option<String>,
}

impl RunTimes {
    /// The Job says it, then what was written down while it ran, then what was written down when it was settled.
    fn of(run: u64, active: Option<&ActiveRun>, job: Option<&JobView>, marker: &Marker) -> Self {
        let settled = Some(marker).filter(|marker| marker.runs == run);
        let end = job.and_then(|job| job.end.as_ref()).and_then(|end| end.time()).map(str::to_owned);
        Self {
            start_time: job
                .and_then(|job| job.started.clone().or_else(|| job.created.clone()))
                .or_else(|| active.filter(|active| active.run == run)?.start_time.clone())
                .or_else(|| settled?.start_time.clone()),
            completion_time: end.or_else(|| settled?.completion_time.clone()).or_else(|| Some(clock::now_seconds())),
        }
    }
}

pub(super) fn last_run(
    context: &Context<'_>,
    run: u64,
    trigger: Option<Trigger>,
    job: Option<&JobView>,
    verdict: Verdict,
    status: &QuarksJobStatus,
) -> LastRun {
    let RunTimes { start_time, completion_time } = RunTimes::of(run, status.active.as_ref(), job, &context.view.marker);
    LastRun {
        run,
        job_name: job.map_or_else(|| job_name(&context.key.name, &context.view.uid, run), |job| job.key.name.to_string()),
        trigger,
        start_time,
        completion_time,
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

/// The pods of a Job, by a label that the Job controller puts on them; and ours where it puts none.
pub(super) fn selector_of_job(key: &ObjectKey, job: &JobView) -> String {
    if job.has_manual_selector { selector_of_quarks_job(key) } else { format!("{LABEL_JOB_UID}={}", job.uid) }
}

/// The pods of all runs.
pub(super) fn selector_of_quarks_job(key: &ObjectKey) -> String {
    format!("{LABEL_QJOB_NAME}={}", label_value(&key.name))
}

pub(super) fn is_pod_of(pod: &PodReport, job: &Uid) -> bool {
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
    fn an_end_counts_as_recorded_if_it_is_the_one_that_was_settled() {
        let last = json!({"run": 2, "jobName": "j", "outcome": "Cancelled"});
        let status: QuarksJobStatus = serde_json::from_value(json!({"lastRun": last})).expect("decodes");
        let is_recorded = |runs, outcome| recorded_end(&status, &Marker { runs, outcome, ..Marker::default() }).is_some();
        for (runs, outcome, expected) in [
            (2, Some(Outcome::Cancelled), true),
            (2, Some(Outcome::Succeeded), false),
            (2, None, true),
            (1, Some(Outcome::Succeeded), true),
            (3, Some(Outcome::Cancelled), false),
        ] {
            assert_eq!(is_recorded(runs, outcome), expected, "{runs} {outcome:?}");
        }
        assert_eq!(recorded_end(&QuarksJobStatus::default(), &Marker::default()), None);
    }

    #[test]
    fn an_end_is_told_before_status_has_its_marker() {
        let view = QuarksJobView { marker: Marker { runs: 2, ..Marker::default() }, ..view("manual") };
        for (uid, runs, expected) in [("u", 2, true), ("u", 3, true), ("u", 1, false), ("other", 2, false)] {
            let settled = Marker { runs, ..Marker::default() }.encode(&Uid::from(uid));
            let status = QuarksJobStatus { settled: Some(settled), ..QuarksJobStatus::default() };
            assert_eq!(is_copied(&status, &view), expected, "{uid} {runs}");
        }
        assert!(!is_copied(&QuarksJobStatus::default(), &view));
    }

    #[test]
    fn the_times_of_a_run_come_from_its_job_then_from_what_was_written_down() {
        let job = JobView::from(
            serde_json::from_value::<crate::api::Job>(json!({
                "metadata": {"name": "j", "namespace": "n", "uid": "j", "creationTimestamp": "created"},
                "status": {"startTime": "started", "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "ended"}]}
            }))
            .expect("decodes"),
        );
        let active = RunRecord::of_run(2, Trigger::Now).active(&Uid::from("u"), "j", Some("active".to_owned()));
        let time = |text: &str| Some(text.to_owned());
        let settled = |runs| Marker { runs, start_time: time("settled"), completion_time: time("over"), ..Marker::default() };
        for (run, job, marker, start, end) in [
            (2, Some(&job), settled(2), "started", "ended"),
            (2, None, settled(2), "active", "over"),
            (3, None, settled(3), "settled", "over"),
            (3, None, settled(2), "", ""),
        ] {
            let times = RunTimes::of(run, Some(&active), job, &marker);
            assert_eq!(times.start_time.unwrap_or_default(), start, "{run} {marker:?}");
            let now = clock::now_seconds();
            let is_now = |time: &str| time.len() == now.len() && time[..4] >= *"2025";
            let ended = times.completion_time.expect("always");
            assert!(if end.is_empty() { is_now(&ended) } else { ended == end }, "{run} {marker:?}: {ended}");
        }
    }

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
