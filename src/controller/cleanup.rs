//! What is left to do for a run that is settled and recorded: versions beyond `keepVersions` are pruned, pods are kept for
//! their logs or go, Jobs are deleted.
//!
//! Pruning comes before the deletion of the succeeded Job, whose presence is what makes a restarted operator clean up: a crash
//! in between prunes again. A failure holds nothing up: it is tried again from memory, and after the next success at the latest,
//! since all versions of an output are looked at each time, not only those of the last run.

use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::api::{ObjectKey, ObjectMeta, Outcome, OwnerReference, PodReport, Spec, Uid};
use crate::index::JobView;
use crate::kube::{Answer, Error, Propagation};
use crate::queue::Backoff;

use super::action::Action;
use super::identity::OwnJob;
use super::memory::Memory;
use super::names::run_of_job_name;
use super::pace::Pause;
use super::reconcile::{Context, Failed, Flow, Reconciler};
use super::settle::{is_pod_of, selector_of_quarks_job};
use super::versions::{Version, is_of_output, is_own, surplus};

/// Pruning that did not work: how long until the next try.
const PRUNE_BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(300) };

/// What came of pruning.
enum Pruned {
    /// There are no more versions than wanted, but for referenced ones.
    Done,
    /// A Job that may refer to one is just being made.
    NotNow,
}

impl Reconciler {
    /// A Job of an older run with output: it is cleaned up if the run succeeded, and kept as failed otherwise.
    pub(super) fn judge_old(&self, context: &Context<'_>, job: &OwnJob, memory: &mut Memory) -> Result<Flow, Failed> {
        if self.judge(context, job)?.outcome == Outcome::Succeeded {
            return self.clean_up(context, job, memory);
        }
        memory.kept.push(job.view.uid.clone());
        Ok(Flow::Continue)
    }

    pub(super) fn clean_up(&self, context: &Context<'_>, job: &OwnJob, memory: &mut Memory) -> Result<Flow, Failed> {
        if context.view.prunes_versions {
            self.prune_or_postpone(context, memory);
        }
        if !job.record.delete_pods {
            self.keep_pods(context, job)?;
        }
        // Pods that have the QuarksJob as an owner stay, whatever becomes of the Job; what else hangs on the Job goes.
        self.delete_job(&job.view, memory)
    }

    /// Lets the pods of the run outlive their Job, and deletes those of older runs that are too many.
    fn keep_pods(&self, context: &Context<'_>, job: &OwnJob) -> Result<(), Failed> {
        let Context { key, view, .. } = context;
        let mut pods = Vec::new();
        self.pods(key, &selector_of_quarks_job(key), &mut |listed| match listed {
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
            ignore_gone(self.client.call_unit(&Action::SetPodOwners { key, uid, owners: &owners }.request()))?;
        }
        for RunPod { key, uid, .. } in beyond {
            ignore_gone(self.client.call_unit(&Action::DeletePod { key, uid }.request()))?;
        }
        Ok(())
    }

    /// Prunes versions; if that does not work, not all of it or not now, it is tried again later.
    pub(super) fn prune_or_postpone(&self, context: &Context<'_>, memory: &mut Memory) {
        let failures = memory.prune.map_or(0, |retry| retry.failures).saturating_add(1);
        memory.prune = match self.prune(context) {
            Ok(Pruned::Done) => None,
            Ok(Pruned::NotNow) => Some(Pause { until: Instant::now() + PRUNE_BACKOFF.first, failures: failures - 1 }),
            Err(error) => {
                let wait = PRUNE_BACKOFF.delay(failures, 0.0);
                if !error.is_shutdown() {
                    warn!("versions not pruned, will be tried again key={} error={error} retry_seconds={}", context.key, wait.as_secs());
                }
                Some(Pause { until: Instant::now() + wait, failures })
            }
        };
    }

    fn prune(&self, context: &Context<'_>) -> Result<Pruned, Error> {
        let Context { key, view, .. } = context;
        // The limit as it is now, and no deletion for a QuarksJob that is gone.
        let Some(object) = self.read(key)?.filter(|object| object.metadata.uid == view.uid && !object.metadata.is_being_deleted()) else {
            return Ok(Pruned::Done);
        };
        let Ok(spec) = Spec::parse(&object.spec) else { return Ok(Pruned::Done) };
        let Some((output, keep)) = spec.output.as_ref().and_then(|output| Some((output, output.keep_versions?))) else {
            return Ok(Pruned::Done);
        };
        let is_ours = |metadata: &ObjectMeta, version: &Version| {
            is_own(metadata, key, &view.uid) && is_of_output(output, spec.is_indexed(), &version.base)
        };
        let versions = self.versions(&key.namespace, &is_ours)?;
        if surplus(&versions, keep, &[]).is_empty() {
            return Ok(Pruned::Done);
        }
        // In this order: a start that is not seen here chooses after the list above or has its Job in the list below.
        if self.choices.is_any_in(&key.namespace) {
            return Ok(Pruned::NotNow);
        }
        let referenced = self.references_of_active_jobs(&key.namespace)?;
        for version in surplus(&versions, keep, &referenced) {
            let secret = ObjectKey::new(key.namespace.clone(), version.name());
            match self.client.call_unit(&Action::DeleteVersion { key: &secret, uid: &version.uid }.request()) {
                Ok(()) => info!("version deleted key={key} secret={} keep={keep}", secret.name),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Pruned::Done)
    }

    pub(super) fn delete_job(&self, job: &JobView, memory: &mut Memory) -> Result<Flow, Failed> {
        let action = Action::DeleteJob { key: &job.key, uid: &job.uid, version: None, propagation: Propagation::Background };
        ignore_gone(self.client.call_unit(&action.request()))?;
        memory.acted_on(job);
        Ok(Flow::Continue)
    }

    pub(super) fn release_ttl(&self, OwnJob { view: job, record }: &OwnJob, memory: &mut Memory) -> Result<Flow, Failed> {
        if let Some(seconds) = record.ttl {
            ignore_gone(self.client.call_unit(&Action::ReleaseTtl { key: &job.key, uid: &job.uid, seconds }.request()))?;
        }
        memory.acted_on(job);
        Ok(Flow::Continue)
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
            debug!("nothing left to write to error={error}");
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
    use crate::controller::record::RunRecord;

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
