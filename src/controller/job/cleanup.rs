//! What is left to do for a run that is settled and recorded: versions beyond `keepVersions` are pruned, pods are kept for their
//! logs or deleted, Jobs are deleted.
//!
//! Pruning comes before the deletion of the succeeded Job, whose existence makes a restarted operator clean up: after a crash in
//! between it prunes again. A failure blocks nothing: it is retried from memory, and after the next success at the latest, because
//! each clean-up considers all versions of an output, not only those of the last run.

use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::api::{ObjectKey, ObjectMeta, Outcome, OwnerReference, PodReport, Spec, Uid};
use crate::controller::shared::action::Action;
use crate::controller::shared::decision::Failed;
use crate::controller::shared::pace::Pause;
use crate::controller::shared::turn::Tools;
use crate::kube::{Answer, Error, Propagation};
use crate::queue::Backoff;
use crate::rules::names::run_of_job_name;
use crate::rules::outputs::is_of_output;
use crate::rules::versions::{Version, is_own, surplus};
use crate::views::identity::OwnJob;
use crate::views::{JobView, QuarksJobView};

use super::judge::{each_pod, is_pod_of, judge, selector_of_quarks_job};
use super::leftovers::Leftovers;
use super::tidy::Step;

/// Pruning that did not work: how long until the next try.
const PRUNE_BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(300) };

/// What came of pruning.
enum Pruned {
    /// There are no surplus versions, except referenced ones.
    Done,
    /// A Job that may refer to one is just being made.
    NotNow,
}

/// What clean-up works with: not the key's memory, since it may be in the other controller's hand.
pub struct CleanUp<'a> {
    /// To the API server.
    pub tools: &'a Tools,
    /// The QuarksJob, as it was last seen.
    pub view: &'a QuarksJobView,
    /// What is remembered of what is left.
    pub leftovers: &'a mut Leftovers,
}

impl CleanUp<'_> {
    /// Takes one step.
    pub fn execute(&mut self, step: &Step) -> Result<(), Failed> {
        match step {
            Step::CleanUp(job) => self.clean_up(job),
            Step::JudgeOld(job) => self.judge_old(job),
            Step::ReleaseTtl(job) => self.release_ttl(job),
            Step::DeleteOldest(job) => self.delete_job(&job.view),
            Step::Prune => {
                self.prune_or_postpone();
                Ok(())
            }
        }
    }

    /// A Job of an older run with output: it is cleaned up if the run succeeded, and kept as failed otherwise.
    fn judge_old(&mut self, job: &OwnJob) -> Result<(), Failed> {
        if judge(&self.tools.client, &self.view.key, job)?.outcome == Outcome::Succeeded {
            return self.clean_up(job);
        }
        self.leftovers.kept.push(job.view.uid.clone());
        Ok(())
    }

    fn clean_up(&mut self, job: &OwnJob) -> Result<(), Failed> {
        if self.view.prunes_versions {
            self.prune_or_postpone();
        }
        if !job.record.delete_pods {
            self.keep_pods(job)?;
        }
        // Pods that have the QuarksJob as an owner stay, whatever becomes of the Job; what else hangs on the Job goes.
        self.delete_job(&job.view)
    }

    /// Lets the pods of the run outlive their Job, and deletes those of older runs that are too many.
    fn keep_pods(&self, job: &OwnJob) -> Result<(), Failed> {
        let view = self.view;
        let key = &view.key;
        let client = &self.tools.client;
        let mut pods = Vec::new();
        each_pod(client, key, &selector_of_quarks_job(key), &mut |listed| match listed {
            None => pods.clear(),
            Some(pod) => pods.extend(RunPod::of(pod, &view.uid, job)),
        })?;
        let owner = OwnerReference {
            api_version: crate::api::API_VERSION.to_owned(),
            kind: crate::api::KIND.to_owned(),
            name: key.name.to_string(),
            uid: view.uid.clone(),
            controller: false,
            block_owner_deletion: true,
        };
        let Retained { new, beyond } = retained(&pods, job.record.run, view.pod_history_limit);
        for (RunPod { key, uid, .. }, owners) in new {
            let owners: Vec<OwnerReference> = owners.iter().cloned().chain([owner.clone()]).collect();
            ignore_gone(client.call_unit(&Action::SetPodOwners { key, uid, owners: &owners }.request()))?;
        }
        for RunPod { key, uid, .. } in beyond {
            ignore_gone(client.call_unit(&Action::DeletePod { key, uid }.request()))?;
        }
        Ok(())
    }

    /// Prunes versions; if that does not work, not all of it or not now, it is retried later.
    fn prune_or_postpone(&mut self) {
        let failures = self.leftovers.prune.map_or(0, |retry| retry.failures).saturating_add(1);
        self.leftovers.prune = match self.prune() {
            Ok(Pruned::Done) => None,
            Ok(Pruned::NotNow) => Some(Pause { until: Instant::now() + PRUNE_BACKOFF.first, failures: failures - 1 }),
            Err(error) => {
                let wait = PRUNE_BACKOFF.delay(failures, 0.0);
                if !error.is_shutdown() {
                    warn!(key:% = self.view.key, error:%, retry_seconds:% = wait.as_secs(); "versions not pruned; will retry");
                }
                Some(Pause { until: Instant::now() + wait, failures })
            }
        };
    }

    fn prune(&self) -> Result<Pruned, Error> {
        let Self { tools, view, .. } = self;
        let key = &view.key;
        // The current limit, and no deletion for a QuarksJob that no longer exists.
        let Some(object) = tools.read(key)?.filter(|object| object.metadata.uid == view.uid && !object.metadata.is_being_deleted()) else {
            return Ok(Pruned::Done);
        };
        let Ok(spec) = Spec::parse(&object.spec) else { return Ok(Pruned::Done) };
        let Some((output, keep)) = spec.output.as_ref().and_then(|output| Some((output, output.keep_versions?))) else {
            return Ok(Pruned::Done);
        };
        let is_ours = |metadata: &ObjectMeta, version: &Version| {
            is_own(metadata, key, &view.uid) && is_of_output(output, spec.is_indexed(), &version.base)
        };
        let versions = tools.versions(&key.namespace, &is_ours)?;
        if surplus(&versions, keep, &[]).is_empty() {
            return Ok(Pruned::Done);
        }
        // In this order: a start that is not seen here chooses after the list above or has its Job in the list below.
        if tools.choices.is_any_in(&key.namespace) {
            return Ok(Pruned::NotNow);
        }
        let referenced = tools.references_of_active_jobs(&key.namespace)?;
        for version in surplus(&versions, keep, &referenced) {
            let secret = ObjectKey::new(key.namespace.clone(), version.name());
            match tools.client.call_unit(&Action::DeleteVersion { key: &secret, uid: &version.uid }.request()) {
                Ok(()) => info!(key:%, secret:% = secret.name, keep:%; "version deleted"),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Pruned::Done)
    }

    fn delete_job(&mut self, job: &JobView) -> Result<(), Failed> {
        let action = Action::DeleteJob { key: &job.key, uid: &job.uid, version: None, propagation: Propagation::Background };
        ignore_gone(self.tools.client.call_unit(&action.request()))?;
        self.leftovers.acted_on(job);
        Ok(())
    }

    fn release_ttl(&mut self, OwnJob { view: job, record }: &OwnJob) -> Result<(), Failed> {
        if let Some(seconds) = record.ttl {
            ignore_gone(self.tools.client.call_unit(&Action::ReleaseTtl { key: &job.key, uid: &job.uid, seconds }.request()))?;
        }
        self.leftovers.acted_on(job);
        Ok(())
    }
}

/// What clean-up needs to know of a pod. There may be thousands.
struct RunPod {
    key: ObjectKey,
    uid: Uid,
    /// The run that it is of, if it is kept for its logs already.
    kept: Option<u64>,
    /// Its owners, if it is of the run that is cleaned up and the QuarksJob is not among them yet.
    owners: Option<Vec<OwnerReference>>,
}

impl RunPod {
    /// `None` for a pod that is of no interest.
    fn of(pod: PodReport, quarks_job: &Uid, job: &OwnJob) -> Option<Self> {
        let is_kept = pod.metadata.owner_references.iter().any(|owner| owner.uid == *quarks_job);
        let is_of_job = is_pod_of(&pod, &job.view.uid);
        let run = if is_of_job { Some(job.record.run) } else { run_of_job_name(&pod.metadata.labels.job_name) };
        let metadata = pod.metadata;
        (is_kept || is_of_job).then(|| Self {
            key: ObjectKey::new(job.view.key.namespace.clone(), metadata.name.as_str()),
            uid: metadata.uid,
            kept: run.filter(|_| is_kept),
            owners: (!is_kept).then_some(metadata.owner_references),
        })
    }
}

/// What becomes of pods.
struct Retained<'a> {
    /// These are kept from now on, and have other owners so far.
    new: Vec<(&'a RunPod, &'a [OwnerReference])>,
    /// These were kept, and are of runs older than the newest `limit`.
    beyond: Vec<&'a RunPod>,
}

/// Keeps the pods of the newest `limit` runs. `run` is cleaned up now; a newer one may have been before.
fn retained(pods: &[RunPod], run: u64, limit: u32) -> Retained<'_> {
    let mut runs = vec![run];
    for kept in pods.iter().filter_map(|pod| pod.kept) {
        if !runs.contains(&kept) {
            runs.push(kept);
        }
    }
    let is_within = |run: u64| runs.iter().filter(|other| **other > run).count() < limit as usize;
    Retained {
        // The others go with their Job.
        new: pods.iter().filter_map(|pod| Some((pod, pod.owners.as_deref()?))).filter(|_| is_within(run)).collect(),
        beyond: pods.iter().filter(|pod| pod.kept.is_some_and(|run| !is_within(run))).collect(),
    }
}

/// A write to an object that is gone, or is another one by now, has nothing left to do.
fn ignore_gone(result: Result<(), Error>) -> Result<(), Failed> {
    match result.map_err(|error| (error.answer(), error)) {
        Err((Answer::Gone | Answer::OtherObject, error)) => {
            debug!(error:%; "object no longer exists; nothing to write");
            Ok(())
        }
        // What is refused is not gone.
        Err((_, error)) => Err(Failed::Api(error)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Trigger;
    use crate::contract::record::RunRecord;

    #[test]
    fn pods_of_the_newest_runs_are_kept() {
        let pod = |name: &str, kept: Option<u64>| {
            let owners = kept.is_none().then(Vec::new);
            RunPod { key: ObjectKey::new("ns", name), uid: "u".into(), kept, owners }
        };
        // What is kept now, and what goes.
        let check = |pods: &[RunPod], run: u64, expected: [&str; 6]| {
            for (limit, expected) in (0..).zip(expected) {
                let Retained { new, beyond } = retained(pods, run, limit);
                let names =
                    |pods: &mut dyn Iterator<Item = &RunPod>| pods.map(|pod| pod.key.name.to_string()).collect::<Vec<_>>().join(" ");
                let found = format!("{} / {}", names(&mut new.into_iter().map(|(pod, _)| pod)), names(&mut beyond.into_iter()));
                assert_eq!(found.trim(), expected, "run {run}, limit {limit}");
            }
        };
        let kept = || vec![pod("1", Some(1)), pod("2", Some(2)), pod("2b", Some(2)), pod("6", Some(6))];
        let with = |own: RunPod| kept().into_iter().chain([own]).collect::<Vec<_>>();
        check(&with(pod("7", None)), 7, ["/ 1 2 2b 6", "7 / 1 2 2b 6", "7 / 1 2 2b", "7 / 1", "7 /", "7 /"]);
        // A newer run was cleaned up before this one.
        check(&with(pod("4", None)), 4, ["/ 1 2 2b 6", "/ 1 2 2b", "4 / 1 2 2b", "4 / 1", "4 /", "4 /"]);
        // Its pods have got their owner already, and the Job could not be deleted.
        check(&with(pod("4", Some(4))), 4, ["/ 1 2 2b 6 4", "/ 1 2 2b 4", "/ 1 2 2b", "/ 1", "/", "/"]);
    }

    #[test]
    fn pods_are_known_by_their_owners() {
        let job: crate::api::Job =
            serde_json::from_value(json!({"metadata": {"name": "q-x-4", "namespace": "ns", "uid": "job"}})).expect("a Job");
        let record = RunRecord::of_run(4, Trigger::Now);
        let job = OwnJob { view: JobView::from(job).into(), record };
        let owner = |kind: &str, uid: &str, is_controller: bool| json!({"apiVersion": "v", "kind": kind, "name": "n", "uid": uid, "controller": is_controller});
        let of = |owners: serde_json::Value| {
            let pod = json!({"metadata": {"name": "p", "uid": "p", "labels": {"batch.kubernetes.io/job-name": "q-x-3"}, "ownerReferences": owners}});
            let pod: PodReport = serde_json::from_value(pod).expect("a pod");
            RunPod::of(pod, &"u".into(), &job).map(|pod| (pod.kept, pod.owners.map(|owners| owners.len())))
        };
        assert_eq!(of(json!([owner("Job", "job", true)])), Some((None, Some(1))), "of the run");
        assert_eq!(of(json!([owner("Job", "job", true), owner("QuarksJob", "u", false)])), Some((Some(4), None)), "has its owner already");
        assert_eq!(of(json!([owner("QuarksJob", "u", false)])), Some((Some(3), None)), "kept");
        assert_eq!(of(json!([owner("Job", "older", true), owner("QuarksJob", "u", false)])), Some((Some(3), None)), "its Job just goes");
        for foreign in [json!([]), json!(null), json!([owner("Job", "other", true)]), json!([owner("Job", "job", false)])] {
            assert_eq!(of(foreign.clone()), None, "{foreign}");
        }
    }
}
