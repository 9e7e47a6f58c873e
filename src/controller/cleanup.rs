//! What is left to do for a run that is settled and recorded: versions beyond `keepVersions` are pruned, pods are kept for
//! their logs or go, Jobs are deleted.
//!
//! Pruning comes before the deletion of the succeeded Job, whose presence is what makes a restarted operator clean up: a crash
//! in between prunes again. A failure holds nothing up: it is tried again from memory, and after the next success at the latest,
//! since all versions of an output are looked at each time, not only those of the last run.

use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::api::{ObjectKey, ObjectMeta, OwnerReference, Pod, Spec, Uid};
use crate::index::JobView;
use crate::kube::{Error, Propagation};
use crate::queue::Backoff;

use super::action::Action;
use super::memory::{Memory, PruneRetry};
use super::names::run_of_job_name;
use super::reconcile::{Context, Failed, Flow, Reconciler};
use super::settle::is_pod_of;
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
    pub(super) fn clean_up(&self, context: &Context<'_>, job: &JobView, memory: &mut Memory) -> Result<Flow, Failed> {
        if context.view.prunes_versions {
            self.prune_or_postpone(context, memory);
        }
        let is_deleting_pods = job.record.as_ref().is_some_and(|record| record.delete_pods);
        if is_deleting_pods {
            memory.pods = None;
            return self.delete_job(job, Propagation::Background, memory);
        }
        let pods = match memory.pods.take() {
            Some(pods) => pods,
            None => self.pods(context.key)?,
        };
        let owner = OwnerReference {
            api_version: crate::api::API_VERSION.to_owned(),
            kind: crate::api::KIND.to_owned(),
            name: context.key.name.to_string(),
            uid: context.view.uid.clone(),
            controller: false,
        };
        let limit = context.view.pod_history_limit;
        for pod in pods.iter().filter(|pod| limit > 0 && is_pod_of(pod, &job.uid)) {
            if pod.metadata.owner_references.iter().any(|known| known.uid == owner.uid) {
                continue;
            }
            let mut owners = pod.metadata.owner_references.clone();
            owners.push(owner.clone());
            let action = Action::SetPodOwners { key: &pod.metadata.key(), uid: &pod.metadata.uid, owners: &owners };
            ignore_gone(self.client.call_unit(&action.request()))?;
        }
        for pod in pods_beyond(&pods, &context.view.uid, &job.key.name, limit) {
            ignore_gone(self.client.call_unit(&Action::DeletePod { key: &pod.metadata.key(), uid: &pod.metadata.uid }.request()))?;
        }
        self.delete_job(job, if limit > 0 { Propagation::Orphan } else { Propagation::Background }, memory)
    }

    /// Prunes versions; if that does not work, not all of it or not now, it is tried again later.
    pub(super) fn prune_or_postpone(&self, context: &Context<'_>, memory: &mut Memory) {
        let failures = memory.prune.map_or(0, |retry| retry.failures).saturating_add(1);
        memory.prune = match self.prune(context) {
            Ok(Pruned::Done) => None,
            Ok(Pruned::NotNow) => Some(PruneRetry { at: Instant::now() + PRUNE_BACKOFF.first, failures: failures - 1 }),
            Err(error) => {
                let wait = PRUNE_BACKOFF.delay(failures, 0.0);
                if !error.is_shutdown() {
                    warn!("versions not pruned, will be tried again key={} error={error} retry_seconds={}", context.key, wait.as_secs());
                }
                Some(PruneRetry { at: Instant::now() + wait, failures })
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

    pub(super) fn delete_job(&self, job: &JobView, propagation: Propagation, memory: &mut Memory) -> Result<Flow, Failed> {
        let action = Action::DeleteJob { key: &job.key, uid: &job.uid, version: None, propagation };
        ignore_gone(self.client.call_unit(&action.request()))?;
        memory.acted_on(job);
        Ok(Flow::Continue)
    }

    pub(super) fn release_ttl(&self, job: &JobView, memory: &mut Memory) -> Result<Flow, Failed> {
        if let Some(seconds) = job.record.as_ref().and_then(|record| record.ttl) {
            ignore_gone(self.client.call_unit(&Action::ReleaseTtl { key: &job.key, uid: &job.uid, seconds }.request()))?;
        }
        memory.acted_on(job);
        Ok(Flow::Continue)
    }
}

/// Pods kept for their logs, of runs older than the newest `limit`; `newest_job` is the run that is cleaned up now.
fn pods_beyond<'a>(pods: &'a [Pod], quarks_job: &Uid, newest_job: &str, limit: u32) -> Vec<&'a Pod> {
    let kept: Vec<(u64, &Pod)> = pods
        .iter()
        .filter(|pod| pod.metadata.controller().is_none() && pod.metadata.owner_references.iter().any(|owner| owner.uid == *quarks_job))
        .filter_map(|pod| Some((run_of_job_name(pod.metadata.labels.get("batch.kubernetes.io/job-name")?)?, pod)))
        .collect();
    let mut runs: Vec<u64> = run_of_job_name(newest_job).into_iter().collect();
    for (run, _) in &kept {
        if !runs.contains(run) {
            runs.push(*run);
        }
    }
    let is_beyond = |run: u64| runs.iter().filter(|other| **other > run).count() >= limit as usize;
    kept.into_iter().filter(|(run, _)| is_beyond(*run)).map(|(_, pod)| pod).collect()
}

/// A write to an object that is gone, or is another one by now, has nothing left to do.
fn ignore_gone(result: Result<(), Error>) -> Result<(), Failed> {
    match result {
        // 422 is what a patch for another UID answers. A delete answers 409, but so may a busy server: that is tried again.
        Err(error) if error.is_not_found() || error.is_invalid() => {
            debug!("nothing left to write to error={error}");
            Ok(())
        }
        Err(error) => Err(Failed::Api(error)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_of_the_newest_runs_are_kept() {
        let pod = |run: u64| -> Pod {
            serde_json::from_value(json!({"metadata": {
                "name": format!("p{run}"),
                "labels": {"batch.kubernetes.io/job-name": format!("q-x-{run}")},
                "ownerReferences": [{"apiVersion": "v", "kind": "QuarksJob", "name": "q", "uid": "u"}]
            }}))
            .expect("decodes")
        };
        let pods = [pod(1), pod(2), pod(3), pod(2)];
        let beyond = |limit| {
            let mut names: Vec<_> =
                pods_beyond(&pods, &Uid::from("u"), "q-x-4", limit).iter().map(|pod| pod.metadata.name.clone()).collect();
            names.sort();
            names.join(" ")
        };
        let expected = ["p1 p2 p2 p3", "p1 p2 p2 p3", "p1 p2 p2", "p1", "", ""];
        assert_eq!([beyond(0), beyond(1), beyond(2), beyond(3), beyond(4), beyond(9)], expected);
    }
}
