//! What is left to do for finished runs: a decision about Jobs and pods only, so it delays nothing else. Pure.

use std::time::Instant;

use crate::api::{JobEnd, Outcome, Uid};
use crate::controller::claims::Snapshot;
use crate::controller::shared::decision::Decision;
use crate::views::JobView;
use crate::views::identity::OwnJob;

/// Jobs of one QuarksJob for which a refused clean-up is tried before it pauses.
const REFUSED_MAX: usize = 3;

/// What is left alone until a moment because it did not work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pauses<'a> {
    /// Something refused to clean up after runs that are over.
    pub clean_up: Option<Instant>,
    /// UIDs of the Jobs that it was refused for: until then the others have their turn.
    pub refused: &'a [Uid],
    /// Versions beyond `keepVersions` were not pruned after a run: then it is retried.
    pub prune: Option<Instant>,
    /// UIDs of ended Jobs of older runs that were judged: they are kept as failed.
    pub kept: &'a [Uid],
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The run succeeded and status says so: prune versions, delete or keep the pods, delete the Job.
    CleanUp(OwnJob),
    /// The same for a run with output that is no longer the last one: first judge whether it succeeded.
    JudgeOld(OwnJob),
    /// The run failed and status says so: set the Job's TTL, which was held back.
    ReleaseTtl(OwnJob),
    /// Prune versions, which did not work after the run.
    Prune,
    /// More failed Jobs than the history limit.
    DeleteOldest(OwnJob),
}

impl Step {
    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CleanUp(_) => "CleanUp",
            Self::JudgeOld(_) => "JudgeOld",
            Self::ReleaseTtl(_) => "ReleaseTtl",
            Self::Prune => "Prune",
            Self::DeleteOldest(_) => "DeleteOldest",
        }
    }

    /// The Job that it is about.
    pub fn job(&self) -> Option<&JobView> {
        match self {
            Self::CleanUp(job) | Self::JudgeOld(job) | Self::ReleaseTtl(job) | Self::DeleteOldest(job) => Some(&job.view),
            Self::Prune => None,
        }
    }
}

/// What is left of runs that are over and recorded. Whether a newer run is active does not matter.
pub fn decide(snapshot: &Snapshot<'_>, pauses: &Pauses<'_>, now: Instant) -> Decision<Step> {
    if snapshot.served().is_none() {
        return Decision::Nothing;
    }
    let waiting = |until: Option<Instant>| until.filter(|until| now < *until);
    if pauses.prune.is_some() && waiting(pauses.prune).is_none() {
        return Decision::Do(Step::Prune);
    }
    let paused = waiting(pauses.clean_up);
    // While it is refused for one Job it is tried for a few others: what refuses may be about that Job alone.
    let refused = if paused.is_some() { pauses.refused } else { &[] };
    match clean_up(snapshot, pauses, refused).filter(|_| refused.len() < REFUSED_MAX) {
        Some(step) => Decision::Do(step),
        None => {
            let paused = paused.filter(|_| clean_up(snapshot, pauses, &[]).is_some());
            [paused, waiting(pauses.prune)].into_iter().flatten().min().map_or(Decision::Nothing, |until| Decision::Wait(until - now))
        }
    }
}

/// What is to do for the Jobs that are over, but for those that it was refused for.
fn clean_up(snapshot: &Snapshot<'_>, pauses: &Pauses<'_>, refused: &[Uid]) -> Option<Step> {
    let Snapshot { view, jobs, .. } = snapshot;
    let (last, outcome) = view.last_run?;
    let is_over = |job: &&OwnJob| {
        job.record.run <= last.min(view.marker.runs)
            && job.view.end.is_some()
            && !job.view.is_being_deleted
            && !refused.contains(&job.view.uid)
    };
    let over = || jobs.iter().filter(is_over);
    let holds_ttl = |job: &&OwnJob| job.record.ttl.is_some() && !job.view.has_ttl;
    if let Some(job) = over().find(|job| job.record.run == last) {
        if outcome == Outcome::Succeeded {
            return Some(Step::CleanUp(job.clone()));
        }
        if holds_ttl(&job) {
            return Some(Step::ReleaseTtl(job.clone()));
        }
    }
    // Of older runs only those are left that failed, and those that could not be cleaned up before the next one ended.
    let is_complete = |job: &&OwnJob| matches!(job.view.end, Some(JobEnd::Complete { .. })) && job.record.run < last;
    if let Some(job) = over().filter(is_complete).find(|job| !pauses.kept.contains(&job.view.uid)) {
        return Some(if job.record.output { Step::JudgeOld(job.clone()) } else { Step::CleanUp(job.clone()) });
    }
    if let Some(job) = over().find(holds_ttl) {
        return Some(Step::ReleaseTtl(job.clone()));
    }
    let is_over_limit = over().count() > view.failed_jobs_history_limit as usize;
    over().min_by_key(|job| job.record.run).filter(|_| is_over_limit).map(|job| Step::DeleteOldest(job.clone()))
}
