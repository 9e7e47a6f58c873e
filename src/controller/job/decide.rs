//! What became of a run: what to do next for a QuarksJob with a run that is not settled and recorded. Pure.

use std::time::{Duration, Instant};

use crate::api::ActiveRun;
use crate::contract::reason::Reason;
use crate::contract::record::RunRecord;
use crate::controller::claims::Stage;
use crate::controller::shared::decision::Decision;
use crate::views::QuarksJobView;
use crate::views::identity::OwnJob;

/// A Job that we created and that the watch has not shown after this time is read by its name.
pub const JOB_UNSEEN_LIMIT: Duration = Duration::from_secs(30);

/// One step; each ends in at most one write that matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Undo a create that arrived after its run was settled.
    DeleteStray(OwnJob),
    /// Say in status that the run is active.
    RecordStart(OwnJob),
    /// The Job has ended: settle the run.
    Settle(OwnJob),
    /// The Job has vanished: settle the run as cancelled, if that is true.
    SettleVanished {
        /// Name of the Job.
        job_name: String,
        /// What the run consumes.
        record: RunRecord,
    },
    /// The run is settled: say in status how it ended.
    RecordEnd(Option<OwnJob>),
}

impl Step {
    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DeleteStray(_) => "DeleteStray",
            Self::RecordStart(_) => "RecordStart",
            Self::Settle(_) => "Settle",
            Self::SettleVanished { .. } => "SettleVanished",
            Self::RecordEnd(_) => "RecordEnd",
        }
    }

    /// True if it writes the QuarksJob, and nothing ends by it.
    pub fn is_record(&self) -> bool {
        match self {
            Self::RecordStart(_) | Self::RecordEnd(_) => true,
            Self::DeleteStray(_) | Self::Settle(_) | Self::SettleVanished { .. } => false,
        }
    }
}

/// The next step. `paused` says until when a settle that was refused is left alone, `burst` how long what reports a start waits.
pub fn decide(view: &QuarksJobView, stage: Stage, paused: Option<Instant>, burst: Option<Duration>, now: Instant) -> Decision<Step> {
    let paused = paused.filter(|until| now < *until).map(|until| Decision::Wait(until - now));
    match stage {
        Stage::Stray(job) => Decision::Do(Step::DeleteStray(job)),
        Stage::Active(job) if job.view.end.is_some() => paused.unwrap_or(Decision::Do(Step::Settle(job))),
        Stage::Active(job) => {
            if is_recorded(view, &job) {
                Decision::Nothing
            } else {
                // Once the Job no longer says what it consumes, status must.
                let has_record = job.view.record.as_deref() == Some(&job.record);
                burst.filter(|_| has_record).map_or(Decision::Do(Step::RecordStart(job)), Decision::Wait)
            }
        }
        Stage::Unseen { job_name, record, since } => {
            let age = since.map(|since| now.saturating_duration_since(since));
            match age.filter(|age| *age < JOB_UNSEEN_LIMIT) {
                Some(age) => Decision::Wait(JOB_UNSEEN_LIMIT - age),
                None => paused.unwrap_or(Decision::Do(Step::SettleVanished { job_name, record })),
            }
        }
        Stage::Unrecorded(job) => Decision::Do(Step::RecordEnd(job)),
        Stage::Free => Decision::Nothing,
    }
}

/// Status says that this run is active, and nothing else that is outdated.
fn is_recorded(view: &QuarksJobView, job: &OwnJob) -> bool {
    let is_active = |active: &ActiveRun| active.run == job.record.run;
    // What kept the operator from its work is over: `Ready` must not say so for as long as the run takes.
    let is_outdated = view.ready.as_ref().is_some_and(|ready| ready.reason == Some(Reason::APIUnavailable));
    view.active.as_deref().is_some_and(is_active) && view.observed_generation == view.generation && !is_outdated
}
