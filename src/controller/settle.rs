//! The end of a run: the verdict, the commit point, the status.

use std::time::Duration;

use log::{debug, info};

use crate::api::{LABEL_QJOB_NAME, LastRun, List, ObjectKey, Outcome, Pod, QuarksJob, QuarksJobStatus, Resource, Strategy, Trigger, Uid};
use crate::clock;
use crate::index::{JobView, QuarksJobView};
use crate::kube::{Error, Request};

use super::action::Action;
use super::decide::Readiness;
use super::events::Note;
use super::memory::{Known, Memory};
use super::names::{job_name, label_value};
use super::reconcile::{Context, Failed, Flow, Reconciler, ready_message};
use super::record::{Marker, RunRecord};
use super::status::StatusBuilder;
use super::verdict::{Verdict, verdict};

/// A Job that the index does not show but the API server does: how long until the next look.
const UNSEEN_JOB_RETRY: Duration = Duration::from_secs(5);

impl Reconciler {
    pub(super) fn settle_ended(&self, context: &Context<'_>, job: &JobView, memory: &mut Memory) -> Result<Flow, Failed> {
        // As for `record_start`, which a short run never sees.
        self.trigger_served(memory);
        let record = job.record_of(&context.view.uid).ok_or(Failed::Stale)?;
        let verdict = self.judge(context, job, record, memory)?;
        self.settle(context, record, verdict, memory)
    }

    fn judge(&self, context: &Context<'_>, job: &JobView, record: &RunRecord, memory: &mut Memory) -> Result<Verdict, Failed> {
        let end = job.end.as_ref().ok_or(Failed::Stale)?;
        if !record.output {
            return Ok(verdict(end, job.succeeded, None));
        }
        let pods = self.pods(context.key).map_err(Failed::Api)?;
        let own: Vec<Pod> = pods.iter().filter(|pod| is_pod_of(pod, &job.uid)).cloned().collect();
        memory.pods = Some(pods);
        Ok(verdict(end, job.succeeded, Some(&own)))
    }

    pub(super) fn pods(&self, key: &ObjectKey) -> Result<Vec<Pod>, Error> {
        let selector = format!("{LABEL_QJOB_NAME}={}", label_value(&key.name));
        self.client.call::<List<Pod>>(&Request::list(Resource::PODS, &key.namespace).label_selector(&selector)).map(|list| list.items)
    }

    pub(super) fn settle_vanished(
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
        self.metrics.settled(record.trigger, verdict.outcome);
        memory.verdict = Some((record.run, verdict));
        memory.learn(&context.view.resource_version, &object);
        Ok(Flow::Continue)
    }

    pub(super) fn record_end(&self, context: &Context<'_>, job: Option<&JobView>, memory: &mut Memory) -> Result<Flow, Failed> {
        let Known { status, .. } = memory.known().cloned().ok_or(Failed::Stale)?;
        let marker = &context.view.marker;
        let now = clock::now_seconds();
        let builder = StatusBuilder::new(context.view, &status, &now);
        let recorded = status.last_run.clone().filter(|last| last.run >= marker.runs);
        let is_news = recorded.is_none() && marker.runs > 0;
        // Else the answer to our own settle was lost, or another process settled it and is gone.
        let is_counted = memory.verdict.as_ref().is_some_and(|(run, _)| *run == marker.runs);
        let new = match recorded {
            Some(last) => builder.ended(last, context.ready()),
            None if marker.runs == 0 => builder.idle(Readiness::Ready, &ready_message(Readiness::Ready, context.view, None)),
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
            if let (false, Some(trigger)) = (is_counted, last.trigger) {
                self.metrics.settled(trigger, last.outcome);
            }
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
