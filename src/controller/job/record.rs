//! What status says about a run: that it is active, and how it ended. Each end is reported and counted once.

use crate::api::{ActiveRun, LastRun, Outcome, QuarksJobStatus, Trigger};
use crate::clock;
use crate::contract::reason::Reason;
use crate::contract::record::Marker;
use crate::controller::shared::decision::{Failed, Flow};
use crate::controller::shared::note::Note;
use crate::controller::shared::ready::{Readiness, ready_message};
use crate::controller::shared::turn::Turn;
use crate::rules::names::job_name;
use crate::rules::verdict::Verdict;
use crate::views::identity::OwnJob;
use crate::views::{JobView, QuarksJobView};

use super::judge::judge;

/// The run is active.
pub fn record_start(turn: &mut Turn<'_>, OwnJob { view: job, record }: &OwnJob) -> Result<Flow, Failed> {
    // If the answer to its create was lost, the watch has brought it.
    turn.trigger_served();
    let status = turn.known()?.status;
    let active = record.active(&turn.view.uid, &job.key.name, job.created.clone());
    let new = turn.status(&status, &clock::now_seconds()).running(active, turn.ready());
    turn.write_status(&status, &new)?;
    tell_start(turn, &status, record.run, &job.key.name, record.trigger);
    Ok(Flow::Continue)
}

/// The run is settled.
pub fn record_end(turn: &mut Turn<'_>, job: Option<&OwnJob>) -> Result<Flow, Failed> {
    let status = turn.known()?.status;
    let marker = turn.view.marker.clone();
    let recorded = recorded_end(&status, &marker);
    // Else the answer to our own settle was lost, or another process settled it and is gone.
    let own_verdict = turn.memory().ending.verdict.clone().filter(|(run, _)| *run == marker.runs).map(|(_, verdict)| verdict);
    let is_counted = own_verdict.is_some();
    let is_news = recorded.is_none() && (is_counted || !is_copied(&status, &turn.view));
    let last = match recorded {
        None if marker.runs > 0 => {
            let verdict = own_verdict.map_or_else(|| remembered_verdict(turn, job), Ok)?;
            Some(last_run(&turn.view, marker.runs, marker.trigger, job.map(|job| &*job.view), verdict, &status))
        }
        recorded => recorded,
    };
    let now = clock::now_seconds();
    let builder = turn.status(&status, &now);
    let new = match last {
        Some(last) => builder.ended(last, turn.ready()),
        None => builder.idle(Readiness::Ready, &ready_message(Readiness::Ready, &turn.view, None)),
    };
    turn.write_status(&status, &new)?;
    if turn.memory().record.is_some() {
        // Told and counted when it is kept.
        return Ok(Flow::Continue);
    }
    turn.memory().ending.verdict = None;
    if let Some(last) = new.last_run.filter(|_| is_news) {
        if let (false, Some(trigger)) = (is_counted, last.trigger) {
            turn.tools.metrics.settled(trigger, last.outcome);
        }
        tell_end(turn, &status, &last);
    }
    Ok(Flow::Continue)
}

/// The verdict after a restart: outcome and reason from the marker, details from what is still there.
fn remembered_verdict(turn: &Turn<'_>, job: Option<&OwnJob>) -> Result<Verdict, Failed> {
    let marker = &turn.view.marker;
    let judged = job.filter(|job| job.view.end.is_some()).map(|job| judge(&turn.tools.client, turn.key, job)).transpose()?;
    let (message, outputs) = judged
        .map(|verdict| (verdict.message, verdict.outputs))
        .unwrap_or_else(|| ("the Job no longer exists; details are not available".to_owned(), Vec::new()));
    Ok(Verdict { outcome: marker.outcome.unwrap_or(Outcome::Unknown), reason: marker.reason.clone(), message, outputs })
}

/// The Event of the start of a run, unless `status`, as it was before, or this process has reported the start already.
fn tell_start(turn: &mut Turn<'_>, status: &QuarksJobStatus, run: u64, job_name: &str, trigger: Trigger) {
    let memory = turn.memory();
    memory.starting = None;
    let is_told = std::mem::replace(&mut memory.told_start, run) == run;
    if !is_told && status.active.as_ref().is_none_or(|active| active.run != run) {
        let text = format!("run {run}: created Job {job_name} (trigger: {})", trigger.as_str());
        turn.tell(Note::new(Reason::JobCreated, "CreateJob", text));
    }
}

/// Events of the end of a run, and of its start if that is not reported yet. `status` is what it was before.
pub fn tell_end(turn: &mut Turn<'_>, status: &QuarksJobStatus, last: &LastRun) {
    if let Some(trigger) = last.trigger {
        tell_start(turn, status, last.run, &last.job_name, trigger);
    }
    let (LastRun { run, job_name, message, reason, .. }, outcome) = (last, last.outcome);
    let action = "SettleRun";
    if !last.outputs.is_empty() {
        let names: Vec<&str> = last.outputs.iter().map(|output| output.secret.as_str()).collect();
        turn.tell(Note::new(Reason::OutputStored, action, format!("run {run}: stored {}", names.join(", "))));
    }
    match outcome {
        Outcome::Succeeded => turn.tell(Note::new(Reason::RunSucceeded, action, format!("run {run}: Job {job_name} succeeded"))),
        Outcome::Cancelled => turn.tell(Note::new(Reason::RunCancelled, action, format!("run {run}: {message}"))),
        Outcome::Failed | Outcome::Unknown => {
            if let Some(output) = Reason::of_run(reason).filter(|reason| reason.event().is_some()) {
                turn.tell(Note::new(output, action, format!("run {run}: {message}")));
            }
            turn.tell(Note::new(Reason::RunFailed, action, format!("run {run}: Job {job_name}: {reason}: {message}")));
        }
    }
}

/// The end of the settled run, if status says it already, and as it was settled: before that a Job that came late may have changed it.
pub fn recorded_end(status: &QuarksJobStatus, marker: &Marker) -> Option<LastRun> {
    let is_settled = |outcome: Outcome| marker.outcome.is_none_or(|settled| settled == outcome);
    status.last_run.clone().filter(|last| last.run > marker.runs || (last.run == marker.runs && is_settled(last.outcome)))
}

/// Status has the marker of this run, so its end was reported before: something has removed it.
fn is_copied(status: &QuarksJobStatus, view: &QuarksJobView) -> bool {
    Marker::in_status(&view.uid, status).map_or(0, |copy| copy.runs) >= view.marker.runs
}

/// When a run started and ended, RFC 3339.
pub struct RunTimes {
    /// Of its Job.
    pub start_time: Option<String>,
    /// The same.
    pub completion_time: Option<String>,
}

impl RunTimes {
    /// The Job says it, then what was written down while it ran, then what was written down when it was settled.
    pub fn of(run: u64, active: Option<&ActiveRun>, job: Option<&JobView>, marker: &Marker) -> Self {
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

/// What status says of a run that has ended.
pub fn last_run(
    view: &QuarksJobView,
    run: u64,
    trigger: Option<Trigger>,
    job: Option<&JobView>,
    verdict: Verdict,
    status: &QuarksJobStatus,
) -> LastRun {
    let RunTimes { start_time, completion_time } = RunTimes::of(run, status.active.as_ref(), job, &view.marker);
    LastRun {
        run,
        job_name: job.map_or_else(|| job_name(&view.key.name, &view.uid, run), |job| job.key.name.to_string()),
        trigger,
        start_time,
        completion_time,
        outcome: verdict.outcome,
        reason: verdict.reason,
        message: verdict.message,
        outputs: verdict.outputs,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::{QuarksJob, Uid};
    use crate::contract::record::RunRecord;
    use serde_json::json;

    pub fn view(strategy: &str) -> QuarksJobView {
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
}
