//! What to do next for one QuarksJob: a pure function of what was seen.
//!
//! One step at a time. After each step the world is looked at again, so a step that was lost to a crash or a conflict
//! is decided anew. The order of the questions is the order of safety: undo strays, finish what runs, record what
//! ended, start something new. What is left to tidy up comes last, so that it holds up nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{ActiveRun, JobEnd, Outcome, Strategy, Trigger, Uid};
use crate::digest;
use crate::index::{JobView, MISSING_REFERENCE, NamespaceView, QuarksJobView};

use super::config::{Compared, compare, is_of_template};
use super::identity::{OwnJob, remembered_record, run_of};
use super::names::job_name;
use super::planted::{Defect, is_planted};
use super::record::RunRecord;

/// How long a Job that we created may stay unseen by the watch before it is looked up by name.
pub const JOB_UNSEEN_LIMIT: Duration = Duration::from_secs(30);
/// Jobs of one QuarksJob for which a refused clean-up is tried before it pauses.
const REFUSED_MAX: usize = 3;

/// Reason of condition `Ready` while answers are not the API server's, or come too late.
pub const API_UNAVAILABLE: &str = "APIUnavailable";
/// Reason of `Ready=False`: annotation `run-requested` is too long.
pub const INVALID_REQUEST: &str = "InvalidRequest";

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
    /// What is known of the ConfigMaps and Secrets that it refers to.
    pub references: ReferencesSeen<'a>,
    /// What did not work lately, and until when it is left alone.
    pub pauses: Pauses<'a>,
}

/// What is left alone until a moment because it did not work, or because it comes too often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pauses<'a> {
    /// A policy refused to settle the run.
    pub settle: Option<Instant>,
    /// Something refused to clean up after runs that are over.
    pub clean_up: Option<Instant>,
    /// UIDs of the Jobs that it was refused for: until then the others have their turn.
    pub refused: &'a [Uid],
    /// It was refused because a right is missing, which condition `Ready` says until it is back.
    pub is_clean_up_denied: bool,
    /// Versions beyond `keepVersions` were not pruned after a run: then it is tried again.
    pub prune: Option<Instant>,
    /// Config changes have made it run again and again.
    pub config_run: Option<Instant>,
    /// UIDs of ended Jobs of older runs that were judged: they are kept as failed.
    pub kept: &'a [Uid],
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
    /// When the create was acknowledged, until the watch has shown the Job.
    pub unseen_since: Option<Instant>,
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
    DeleteStray(OwnJob),
    /// Create the Job of the next run.
    Start(Pending),
    /// Say in status that the run goes on.
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
    /// The run succeeded and status says so: prune versions, let the pods go or keep them, delete the Job.
    CleanUp(OwnJob),
    /// The same of a run with output that is not the last any more: first judge whether it succeeded.
    JudgeOld(OwnJob),
    /// The run failed and status says so: give the Job the time to live that was held back.
    ReleaseTtl(OwnJob),
    /// Prune versions, which did not work after the run.
    Prune,
    /// More failed Jobs than the history limit.
    DeleteOldest(OwnJob),
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
            Self::JudgeOld(_) => "JudgeOld",
            Self::ReleaseTtl(_) => "ReleaseTtl",
            Self::Prune => "Prune",
            Self::DeleteOldest(_) => "DeleteOldest",
            Self::LookAtReferences => "LookAtReferences",
            Self::TakeBaseline => "TakeBaseline",
            Self::Report(_) => "Report",
        }
    }

    /// The Job that it tidies up after its run: it must hold up nothing, whatever becomes of it.
    pub fn cleaned(&self) -> Option<&JobView> {
        match self {
            Self::CleanUp(job) | Self::JudgeOld(job) | Self::ReleaseTtl(job) | Self::DeleteOldest(job) => Some(&job.view),
            Self::DeleteStray(_)
            | Self::Start(_)
            | Self::RecordStart(_)
            | Self::Settle(_)
            | Self::SettleVanished { .. }
            | Self::RecordEnd(_)
            | Self::Prune
            | Self::LookAtReferences
            | Self::TakeBaseline
            | Self::Report(_) => None,
        }
    }

    /// True if it writes the QuarksJob, and nothing starts or ends by it.
    pub fn is_record(&self) -> bool {
        match self {
            Self::RecordStart(_) | Self::RecordEnd(_) | Self::TakeBaseline | Self::Report(_) => true,
            Self::DeleteStray(_)
            | Self::Start(_)
            | Self::Settle(_)
            | Self::SettleVanished { .. }
            | Self::CleanUp(_)
            | Self::JudgeOld(_)
            | Self::ReleaseTtl(_)
            | Self::Prune
            | Self::DeleteOldest(_)
            | Self::LookAtReferences => false,
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
    /// Annotation `run-requested` is no request; all other triggers work.
    InvalidRequest,
}

impl Readiness {
    /// True if a trigger leads to a run, or to a look whether what is missing has come.
    pub fn could_run(self) -> bool {
        match self {
            Self::Ready | Self::AlreadyRan | Self::MissingReference | Self::InvalidRequest => true,
            Self::Suspended | Self::InvalidSpec | Self::NamespaceNotReady => false,
        }
    }

    /// Status and reason of condition `Ready`.
    pub fn condition(self) -> (bool, &'static str) {
        match self {
            Self::Ready | Self::AlreadyRan => (true, "Ready"),
            Self::Suspended => (true, "Suspended"),
            Self::InvalidSpec => (false, "InvalidSpec"),
            Self::NamespaceNotReady => (false, "NamespaceNotReady"),
            Self::MissingReference => (false, MISSING_REFERENCE),
            Self::InvalidRequest => (false, INVALID_REQUEST),
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
    let ours = own_jobs(snapshot);
    let decision = decide_run(snapshot, &ours, namespace, now);
    // What is over holds up nothing that starts or ends.
    match decision {
        Decision::Do(_) => decision,
        Decision::Nothing => tidy(snapshot, &ours, now),
        Decision::Wait(duration) => match tidy(snapshot, &ours, now) {
            Decision::Nothing => Decision::Wait(duration),
            Decision::Wait(other) => Decision::Wait(duration.min(other)),
            step @ Decision::Do(_) => step,
        },
    }
}

/// The Jobs of the QuarksJob. First those that have the name of their run: of two that claim one run the other one is a copy.
fn own_jobs(snapshot: &Snapshot<'_>) -> Vec<OwnJob> {
    let QuarksJobView { key, uid, .. } = snapshot.view;
    let own = |job: &Arc<JobView>| run_of(job, snapshot.view, snapshot.started).map(|record| OwnJob { view: Arc::clone(job), record });
    let is_named = |job: &OwnJob| *job.view.key.name == job_name(&key.name, uid, job.record.run);
    let (mut named, others): (Vec<_>, Vec<_>) = snapshot.jobs.iter().filter_map(own).partition(is_named);
    named.extend(others);
    named
}

fn decide_run(snapshot: &Snapshot<'_>, ours: &[OwnJob], namespace: &NamespaceView, now: Instant) -> Decision {
    let Snapshot { view, started, pauses, .. } = snapshot;
    let settled = view.marker.runs;

    let is_stray = |job: &&OwnJob| job.record.run <= settled && job.view.end.is_none() && !job.view.is_being_deleted;
    if let Some(stray) = ours.iter().find(is_stray).filter(|_| !is_planted(Defect::StrayNotFirst)) {
        return Decision::Do(Step::DeleteStray(stray.clone()));
    }

    if let Some(job) = ours.iter().filter(|job| job.record.run > settled).min_by_key(|job| job.record.run) {
        return match pauses.settle.filter(|until| now < *until) {
            Some(until) if job.view.end.is_some() => Decision::Wait(until - now),
            _ => step_for_active(view, job),
        };
    }

    // No Job of an active run is in the index. Was there one?
    if let Some(started) = started.filter(|started| started.record.run > settled && !is_planted(Defect::StartedNotAsked)) {
        let age = started.unseen_since.map(|since| now.saturating_duration_since(since));
        if let Some(age) = age.filter(|age| *age < JOB_UNSEEN_LIMIT) {
            return Decision::Wait(JOB_UNSEEN_LIMIT - age);
        }
        return settle_vanished(started.job_name.clone(), started.record.clone(), pauses, now);
    }
    if let Some(active) = view.active.as_ref().filter(|active| active.run > settled && !is_planted(Defect::ActiveNotAsked)) {
        return settle_vanished(active.job_name.clone(), remembered_record(view, None, active.run), pauses, now);
    }
    let last_run = view.last_run.map_or(0, |(run, _)| run);
    if last_run > settled {
        // Status says how it ended, and it could not be settled before its Job went.
        let name = job_name(&view.key.name, &view.uid, last_run);
        return settle_vanished(name, remembered_record(view, None, last_run), pauses, now);
    }

    let is_copied = view.is_marker_copied || is_planted(Defect::MarkerNotCopied);
    if settled > last_run || !is_copied || view.active.is_some() {
        return Decision::Do(Step::RecordEnd(ours.iter().find(|job| job.record.run == settled).cloned()));
    }
    decide_start(snapshot, namespace, now)
}

/// A run is under way, or has ended and is not settled.
fn step_for_active(view: &QuarksJobView, job: &OwnJob) -> Decision {
    if job.view.end.is_some() {
        return Decision::Do(Step::Settle(job.clone()));
    }
    let is_active = |active: &ActiveRun| active.run == job.record.run;
    // What kept the operator from its work is over: `Ready` must not say so for as long as the run takes.
    let is_outdated = view.ready.as_ref().is_some_and(|ready| ready.reason == API_UNAVAILABLE);
    let is_recorded = view.active.as_deref().is_some_and(is_active) && view.observed_generation == view.generation && !is_outdated;
    if is_recorded { Decision::Nothing } else { Decision::Do(Step::RecordStart(job.clone())) }
}

fn settle_vanished(job_name: String, record: RunRecord, pauses: &Pauses<'_>, now: Instant) -> Decision {
    match pauses.settle.filter(|until| now < *until) {
        Some(until) => Decision::Wait(until - now),
        None => Decision::Do(Step::SettleVanished { job_name, record }),
    }
}

/// No run is active: does one start, and if not, what is said?
fn decide_start(snapshot: &Snapshot<'_>, namespace: &NamespaceView, now: Instant) -> Decision {
    let Snapshot { view, hold, references, pauses, .. } = snapshot;
    let pending = pending(view);
    let has_trigger = pending.is_some();
    let readiness = readiness(view, namespace, has_trigger, references.is_missing);
    // What is missing is looked for as soon as it may be there; there is no burst to wait for.
    let is_due = references.due.is_some_and(|at| at <= now || references.is_missing);
    let step = match pending {
        Some(pending) => (!references.is_missing || is_due).then_some(Step::Start(pending)),
        None => step_for_references(view, references, is_due),
    };
    if let Some(step) = step.filter(|_| readiness.could_run()) {
        let is_refused = |hold: &&Hold| hold.generation == view.generation && hold.namespace == *namespace && now < hold.until;
        let is_config_run = matches!(&step, Step::Start(Pending { trigger: Trigger::Config, .. }));
        let paused = pauses.config_run.filter(|until| is_config_run && now < *until);
        let held = hold.filter(is_refused).map(|hold| hold.until).filter(|_| !matches!(step, Step::TakeBaseline));
        return match paused.max(held) {
            Some(until) => Decision::Wait(until - now),
            None => Decision::Do(step),
        };
    }
    let (is_true, reason) = readiness.condition();
    let says = |is_true: bool, reason: &str| view.ready.as_ref().is_some_and(|ready| ready.is_true == is_true && ready.reason == reason);
    let is_denial_said = pauses.is_clean_up_denied && says(false, "NamespaceNotReady");
    let is_said = (is_denial_said || says(is_true, reason)) && (readiness != Readiness::MissingReference || references.is_missing_said);
    // A trigger that waits while Ready is True must not be covered by the generation (see `Readiness::Suspended`).
    let is_observed = view.observed_generation == view.generation || (is_true && has_trigger);
    match references.due {
        _ if !is_said || !is_observed => Decision::Do(Step::Report(readiness)),
        Some(at) if readiness.could_run() && view.acts_on_config() => Decision::Wait(at.saturating_duration_since(now)),
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
    // Made by another algorithm: with it no change of the template would ever be seen.
    let is_old = view.marker.once.as_ref().is_some_and(|once| !digest::is_current(once));
    (is_stale || is_new_done || is_old).then_some(Step::TakeBaseline)
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
    } else if view.is_request_too_long {
        Readiness::InvalidRequest
    } else if view.strategy == Some(Strategy::Once) && !has_trigger {
        Readiness::AlreadyRan
    } else {
        Readiness::Ready
    }
}

/// What is left of runs that are over and recorded. Whether a newer run is under way does not matter.
fn tidy(snapshot: &Snapshot<'_>, ours: &[OwnJob], now: Instant) -> Decision {
    let pauses = &snapshot.pauses;
    let waiting = |until: Option<Instant>| until.filter(|until| now < *until);
    if pauses.prune.is_some() && waiting(pauses.prune).is_none() {
        return Decision::Do(Step::Prune);
    }
    let paused = waiting(pauses.clean_up);
    // While it is refused for one Job it is tried for a few others: what refuses may be about that Job alone.
    let refused = if paused.is_some() { pauses.refused } else { &[] };
    match clean_up(snapshot, ours, refused).filter(|_| refused.len() < REFUSED_MAX) {
        Some(step) => Decision::Do(step),
        None => {
            let paused = paused.filter(|_| clean_up(snapshot, ours, &[]).is_some());
            [paused, waiting(pauses.prune)].into_iter().flatten().min().map_or(Decision::Nothing, |until| Decision::Wait(until - now))
        }
    }
}

/// What is to do for the Jobs that are over, but for those that it was refused for.
fn clean_up(snapshot: &Snapshot<'_>, ours: &[OwnJob], refused: &[Uid]) -> Option<Step> {
    let Snapshot { view, pauses, .. } = snapshot;
    let (last, outcome) = view.last_run?;
    let is_over = |job: &&OwnJob| {
        job.record.run <= last.min(view.marker.runs)
            && job.view.end.is_some()
            && !job.view.is_being_deleted
            && !refused.contains(&job.view.uid)
    };
    let over = || ours.iter().filter(is_over);
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

#[cfg(test)]
mod tests;
