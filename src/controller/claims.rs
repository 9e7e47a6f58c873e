//! Which of the two controllers may write a QuarksJob, one at a time: `job` while a run is unsettled or unrecorded, otherwise
//! `errand`. Pure: decided by what a snapshot shows.
//!
//! The order of the checks is the order of safety: undo strays, finish what runs, record what ended. Clean-up is not part of it: it
//! touches only Jobs and pods, so it delays no start.

use std::time::Instant;

use crate::contract::record::RunRecord;
use crate::planted::{Defect, is_planted};
use crate::rules::names::job_name;
use crate::views::identity::{OwnJob, StartedRun, remembered_record};
use crate::views::{NamespaceView, QuarksJobView};

/// One of the two controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Why and when a Job starts.
    Errand,
    /// What became of it.
    Job,
}

impl Controller {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Errand => Self::Job,
            Self::Job => Self::Errand,
        }
    }
}

/// What decisions of both controllers rest on.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The QuarksJob.
    pub view: &'a QuarksJobView,
    /// Its Jobs, as [`own_jobs`] orders them.
    pub jobs: &'a [OwnJob],
    /// Its namespace; `None` if this operator does not serve it.
    pub namespace: Option<&'a NamespaceView>,
    /// What this process remembers of the run it started.
    pub started: Option<&'a StartedRun>,
}

impl Snapshot<'_> {
    /// The namespace, if anything may be done in it for this QuarksJob.
    pub fn served(&self) -> Option<&NamespaceView> {
        self.namespace.filter(|_| !self.view.is_being_deleted)
    }
}

/// Where the newest run of a QuarksJob stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// A Job of a run that is settled still runs: a create that arrived late.
    Stray(OwnJob),
    /// A run is active, or has ended and is not settled.
    Active(OwnJob),
    /// A run is active, and no Job of it is shown.
    Unseen {
        /// Name of the Job.
        job_name: String,
        /// What the run consumes.
        record: RunRecord,
        /// When its create was acknowledged, if this process made it.
        since: Option<Instant>,
    },
    /// The run is settled and status does not say so. Its Job, if it is still there.
    Unrecorded(Option<OwnJob>),
    /// No run is active, and status says how the last one ended.
    Free,
}

impl Stage {
    /// Where the newest run stands.
    pub fn of(snapshot: &Snapshot<'_>) -> Self {
        let Snapshot { view, jobs, started, .. } = snapshot;
        let settled = view.marker.runs;
        let is_stray = |job: &&OwnJob| job.record.run <= settled && job.view.end.is_none() && !job.view.is_being_deleted;
        if let Some(stray) = jobs.iter().find(is_stray).filter(|_| !is_planted(Defect::StrayNotFirst)) {
            return Self::Stray(stray.clone());
        }
        if let Some(job) = jobs.iter().filter(|job| job.record.run > settled).min_by_key(|job| job.record.run) {
            return Self::Active(job.clone());
        }
        if let Some(started) = started.filter(|started| started.record.run > settled && !is_planted(Defect::StartedNotAsked)) {
            return Self::Unseen { job_name: started.job_name.clone(), record: started.record.clone(), since: started.unseen_since };
        }
        if let Some(active) = view.active.as_ref().filter(|active| active.run > settled && !is_planted(Defect::ActiveNotAsked)) {
            return Self::Unseen { job_name: active.job_name.clone(), record: remembered_record(view, None, active.run), since: None };
        }
        let last_run = view.last_run.map_or(0, |(run, _)| run);
        if last_run > settled {
            // Status says how it ended, and it could not be settled before its Job went.
            let job_name = job_name(&view.key.name, &view.uid, last_run);
            return Self::Unseen { job_name, record: remembered_record(view, None, last_run), since: None };
        }
        let is_copied = view.is_marker_copied || is_planted(Defect::MarkerNotCopied);
        if settled > last_run || !is_copied || view.active.is_some() {
            return Self::Unrecorded(jobs.iter().find(|job| job.record.run == settled).cloned());
        }
        Self::Free
    }

    /// Who may write the QuarksJob.
    pub fn controller(&self) -> Controller {
        match self {
            Self::Stray(_) | Self::Active(_) | Self::Unseen { .. } | Self::Unrecorded(_) => Controller::Job,
            Self::Free => Controller::Errand,
        }
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
