//! What to do next for one QuarksJob: a pure function of what was seen.
//!
//! One step at a time. After each step the world is looked at again, so a step that was lost to a crash or a conflict
//! is decided anew. The order of the questions is the order of safety: undo strays, finish what runs, record what
//! ended, clean up, and only then start something new.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{Outcome, Strategy, Trigger};
use crate::digest;
use crate::index::{JobView, MISSING_REFERENCE, NamespaceView, QuarksJobView};

use super::config::{Compared, compare, is_of_template};
use super::record::RunRecord;

/// How long a Job that we created may stay unseen by the watch before it is looked up by name.
pub const JOB_UNSEEN_LIMIT: Duration = Duration::from_secs(30);

/// Everything a decision rests on.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// The QuarksJob.
    pub view: &'a QuarksJobView,
    /// Jobs whose controller is this QuarksJob.
    pub jobs: &'a [Arc<JobView>],
    /// Its namespace; `None` if this operator does not serve it.
    pub namespace: Option<&'a NamespaceView>,
    /// What this process remembers of the run it started.
    pub started: Option<&'a StartedRun>,
    /// A start that was refused, and until when it is left alone.
    pub hold: Option<&'a Hold>,
    /// Versions beyond `keepVersions` were not pruned after a run: when to try again.
    pub prune_at: Option<Instant>,
    /// What is known of the ConfigMaps and Secrets that it refers to.
    pub references: ReferencesSeen<'a>,
}

/// What is known of a QuarksJob's references.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferencesSeen<'a> {
    /// Something was missing when they were last looked at, and nothing else in the spec has changed since.
    pub is_missing: bool,
    /// Status says what.
    pub is_missing_said: bool,
    /// Digest of their content when they were last looked at.
    pub config: Option<&'a str>,
    /// Something has happened to them: when to look.
    pub due: Option<Instant>,
}

/// A run that this process created a Job for.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedRun {
    /// Its Job.
    pub job_name: String,
    /// The Job's annotation.
    pub record: RunRecord,
    /// When the create was acknowledged.
    pub at: Instant,
    /// The watch has shown the Job.
    pub is_seen: bool,
}

/// A refused start.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// The generation that was refused; another one may be tried at once.
    pub generation: i64,
    /// The namespace as it was; other labels may mend it.
    pub namespace: NamespaceView,
    /// When to try again.
    pub until: Instant,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing until something changes.
    Nothing,
    /// Nothing for this long, then look again.
    Wait(Duration),
    /// One step, then look again.
    Do(Step),
}

/// One step; each ends in at most one write that matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Undo a create that arrived after its run was settled.
    DeleteStray(Arc<JobView>),
    /// Create the Job of the next run.
    Start(Pending),
    /// Say in status that the run goes on.
    RecordStart(Arc<JobView>),
    /// The Job has ended: settle the run.
    Settle(Arc<JobView>),
    /// The Job has vanished: settle the run as cancelled, if that is true.
    SettleVanished {
        /// Name of the Job.
        job_name: String,
        /// What the run consumes, if it is known.
        record: Option<RunRecord>,
    },
    /// The run is settled: say in status how it ended.
    RecordEnd(Option<Arc<JobView>>),
    /// The run succeeded and status says so: prune versions, let the pods go or keep them, delete the Job.
    CleanUp(Arc<JobView>),
    /// The run failed and status says so: give the Job the time to live that was held back.
    ReleaseTtl(Arc<JobView>),
    /// Prune versions, which did not work after the run.
    Prune,
    /// More failed Jobs than the history limit.
    DeleteOldest(Arc<JobView>),
    /// Look whether references are there and what they say.
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
            Self::DeleteStray(_) => "DeleteStray",
            Self::Start(_) => "Start",
            Self::RecordStart(_) => "RecordStart",
            Self::Settle(_) => "Settle",
            Self::SettleVanished { .. } => "SettleVanished",
            Self::RecordEnd(_) => "RecordEnd",
            Self::CleanUp(_) => "CleanUp",
            Self::ReleaseTtl(_) => "ReleaseTtl",
            Self::Prune => "Prune",
            Self::DeleteOldest(_) => "DeleteOldest",
            Self::LookAtReferences => "LookAtReferences",
            Self::TakeBaseline => "TakeBaseline",
            Self::Report(_) => "Report",
        }
    }
}

/// What condition `Ready` says of a QuarksJob with nothing to run, or that must not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It could run now.
    Ready,
    /// `spec.suspend`.
    Suspended,
    /// `once` applied again over a run with the same template.
    AlreadyRan,
    /// The spec breaks a rule.
    InvalidSpec,
    /// Output needs an account for the sidecar, and the namespace names none.
    NamespaceNotReady,
    /// Something that the template refers to is not there.
    MissingReference,
}

impl Readiness {
    /// Status and reason of condition `Ready`.
    pub fn condition(self) -> (bool, &'static str) {
        match self {
            Self::Ready | Self::AlreadyRan => (true, "Ready"),
            Self::Suspended => (true, "Suspended"),
            Self::InvalidSpec => (false, "InvalidSpec"),
            Self::NamespaceNotReady => (false, "NamespaceNotReady"),
            Self::MissingReference => (false, MISSING_REFERENCE),
        }
    }
}

/// Triggers that wait, taken together: one run consumes them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The one that status and metrics name.
    pub trigger: Trigger,
    /// The strategy that the run consumes.
    pub strategy: Option<Strategy>,
    /// The value of `run-requested` that the run consumes.
    pub request: Option<String>,
}

/// Triggers of this QuarksJob that no settled run has consumed.
pub fn pending(view: &QuarksJobView) -> Option<Pending> {
    let strategy = match view.strategy {
        Some(Strategy::Now) => Some(Strategy::Now),
        Some(Strategy::Once) if !once_has_run(view) => Some(Strategy::Once),
        _ => None,
    };
    let request = view.request.clone().filter(|value| view.marker.request.as_ref() != Some(value));
    let trigger = match (strategy, &request) {
        (Some(Strategy::Now), _) => Trigger::Now,
        (Some(_), _) => Trigger::Once,
        (None, Some(_)) => Trigger::Request,
        (None, None) => return None,
    };
    Some(Pending { trigger, strategy, request })
}

/// `once` means once per template. A digest made by another algorithm cannot be compared and counts as equal.
fn once_has_run(view: &QuarksJobView) -> bool {
    view.marker.once.as_ref().is_some_and(|once| view.template_digest.is(once) || !digest::is_current(once))
}

/// The next step.
pub fn decide(snapshot: &Snapshot<'_>, now: Instant) -> Decision {
    let Some(namespace) = snapshot.namespace.filter(|_| !snapshot.view.is_being_deleted) else { return Decision::Nothing };
    let decision = decide_run(snapshot, namespace, now);
    // Old versions hold up nothing.
    match (&decision, snapshot.prune_at) {
        (Decision::Do(_), _) | (_, None) => decision,
        (_, Some(at)) if at <= now => Decision::Do(Step::Prune),
        (Decision::Wait(duration), Some(at)) => Decision::Wait((*duration).min(at - now)),
        (Decision::Nothing, Some(at)) => Decision::Wait(at - now),
    }
}

fn decide_run(snapshot: &Snapshot<'_>, namespace: &NamespaceView, now: Instant) -> Decision {
    let Snapshot { view, jobs, namespace: _, started, hold, prune_at: _, references } = snapshot;
    let settled = view.marker.runs;
    let ours = || jobs.iter().filter_map(|job| job.record_of(&view.uid).map(|record| (job, record)));

    let is_stray = |job: &JobView, record: &RunRecord| record.run <= settled && job.end.is_none() && !job.is_being_deleted;
    if let Some((job, _)) = ours().find(|(job, record)| is_stray(job, record)) {
        return Decision::Do(Step::DeleteStray(Arc::clone(job)));
    }

    if let Some((job, record)) = ours().filter(|(_, record)| record.run > settled).min_by_key(|(_, record)| record.run) {
        if job.end.is_some() {
            return Decision::Do(Step::Settle(Arc::clone(job)));
        }
        let is_recorded =
            view.active.as_ref().is_some_and(|active| active.run == record.run) && view.observed_generation == view.generation;
        return if is_recorded { Decision::Nothing } else { Decision::Do(Step::RecordStart(Arc::clone(job))) };
    }

    // No Job of an active run is in the index. Was there one?
    if let Some(started) = started.filter(|started| started.record.run > settled) {
        let age = now.saturating_duration_since(started.at);
        if !started.is_seen && age < JOB_UNSEEN_LIMIT {
            return Decision::Wait(JOB_UNSEEN_LIMIT - age);
        }
        return Decision::Do(Step::SettleVanished { job_name: started.job_name.clone(), record: Some(started.record.clone()) });
    }
    if let Some(active) = view.active.as_ref().filter(|active| active.run > settled) {
        let record = active.record.as_deref().and_then(RunRecord::parse).filter(|record| record.run == active.run);
        return Decision::Do(Step::SettleVanished { job_name: active.job_name.clone(), record });
    }

    let last_run = view.last_run.map_or(0, |(run, _)| run);
    if settled > last_run || !view.is_marker_copied || view.active.is_some() {
        let job = ours().find(|(_, record)| record.run == settled).map(|(job, _)| Arc::clone(job));
        return Decision::Do(Step::RecordEnd(job));
    }

    if let Some(step) = clean_up(view, &ours().collect::<Vec<_>>()) {
        return Decision::Do(step);
    }

    let pending = pending(view);
    let has_trigger = pending.is_some();
    let readiness = readiness(view, namespace, has_trigger, references.is_missing);
    let could_run = matches!(readiness, Readiness::Ready | Readiness::AlreadyRan | Readiness::MissingReference);
    // What is missing is looked for as soon as it may be there; there is no burst to wait for.
    let is_due = references.due.is_some_and(|at| at <= now || references.is_missing);
    let step = match pending {
        Some(pending) => (!references.is_missing || is_due).then_some(Step::Start(pending)),
        None => step_for_references(view, references, is_due),
    };
    if let Some(step) = step.filter(|_| could_run) {
        let is_refused = |hold: &&Hold| hold.generation == view.generation && hold.namespace == *namespace && now < hold.until;
        return match hold.filter(is_refused) {
            Some(hold) if step != Step::TakeBaseline => Decision::Wait(hold.until - now),
            _ => Decision::Do(step),
        };
    }
    let (is_true, reason) = readiness.condition();
    let is_said = view.ready.as_ref().is_some_and(|ready| ready.is_true == is_true && ready.reason == reason)
        && (readiness != Readiness::MissingReference || references.is_missing_said);
    // A trigger that waits while Ready is True must not be covered by the generation (see `Readiness::Suspended`).
    let is_observed = view.observed_generation == view.generation || (is_true && has_trigger);
    match references.due {
        _ if !is_said || !is_observed => Decision::Do(Step::Report(readiness)),
        Some(at) if could_run && view.acts_on_config() => Decision::Wait(at.saturating_duration_since(now)),
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
    // Switched off: what is stored would be compared with whatever is there when it is switched on again.
    let is_stale = !acts && stored.is_some();
    let is_new_done = view.strategy == Some(Strategy::Done) && view.marker.once.is_none();
    (is_stale || is_new_done).then_some(Step::TakeBaseline)
}

/// Whether the QuarksJob could run now.
pub fn readiness(view: &QuarksJobView, namespace: &NamespaceView, has_trigger: bool, is_missing: bool) -> Readiness {
    if view.spec_error.is_some() {
        Readiness::InvalidSpec
    } else if view.is_suspended {
        Readiness::Suspended
    } else if view.has_output && namespace.service_account.is_none() {
        Readiness::NamespaceNotReady
    } else if is_missing {
        Readiness::MissingReference
    } else if view.strategy == Some(Strategy::Once) && !has_trigger {
        Readiness::AlreadyRan
    } else {
        Readiness::Ready
    }
}

/// What is left of runs that are over and recorded.
fn clean_up(view: &QuarksJobView, ours: &[(&Arc<JobView>, &RunRecord)]) -> Option<Step> {
    let (last, outcome) = view.last_run?;
    let kept = || ours.iter().filter(|(job, record)| record.run <= last && job.end.is_some() && !job.is_being_deleted);
    if let Some((job, record)) = kept().find(|(_, record)| record.run == last) {
        if outcome == Outcome::Succeeded {
            return Some(Step::CleanUp(Arc::clone(job)));
        }
        if record.ttl.is_some() && !job.has_ttl {
            return Some(Step::ReleaseTtl(Arc::clone(job)));
        }
    }
    let is_over_limit = kept().count() > view.failed_jobs_history_limit as usize;
    kept().min_by_key(|(_, record)| record.run).filter(|_| is_over_limit).map(|(job, _)| Step::DeleteOldest(Arc::clone(job)))
}

#[cfg(test)]
mod tests;
