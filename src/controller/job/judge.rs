//! How a run ended, according to its Job and, with output, the sidecars' reports. The pods are read page by page.

use crate::api::{LABEL_JOB_UID, LABEL_QJOB_NAME, ObjectKey, PodReport, Resource, Uid};
use crate::controller::shared::decision::Failed;
use crate::kube::pages::{Listed, list_all};
use crate::kube::{Client, Request};
use crate::rules::names::label_value;
use crate::rules::verdict::{Tally, Verdict};
use crate::views::JobView;
use crate::views::identity::OwnJob;

/// With output the sidecars' reports decide: one pod at a time, however many there are.
pub fn judge(client: &Client, key: &ObjectKey, job: &OwnJob) -> Result<Verdict, Failed> {
    let OwnJob { view, record } = job;
    let end = view.end.as_ref().ok_or(Failed::Stale)?;
    if !record.output {
        return Ok(Verdict::of_job(end));
    }
    let mut tally = Tally::default();
    each_pod(client, key, &selector_of_job(key, view), &mut |listed| match listed {
        None => tally = Tally::default(),
        Some(pod) if is_pod_of(&pod, &view.uid) => tally.take(&pod),
        Some(_) => {}
    })?;
    Ok(tally.verdict(end, view.succeeded))
}

/// Reports each pod that the selector finds; `None` if the list restarts.
pub fn each_pod(client: &Client, key: &ObjectKey, selector: &str, tell: &mut dyn FnMut(Option<PodReport>)) -> Result<(), Failed> {
    let request = Request::list(Resource::PODS, &key.namespace).label_selector(selector);
    list_all(client, request, &mut |listed| {
        match listed {
            Listed::Begin => tell(None),
            Listed::Object(json) => tell(Some(crate::json::from_slice(json)?)),
        }
        Ok(())
    })
    .map_err(Failed::Api)
}

/// The pods of a Job, by a label that the Job controller puts on them; and ours where it puts none.
pub fn selector_of_job(key: &ObjectKey, job: &JobView) -> String {
    if job.has_manual_selector { selector_of_quarks_job(key) } else { format!("{LABEL_JOB_UID}={}", job.uid) }
}

/// The pods of all runs.
pub fn selector_of_quarks_job(key: &ObjectKey) -> String {
    format!("{LABEL_QJOB_NAME}={}", label_value(&key.name))
}

pub fn is_pod_of(pod: &PodReport, job: &Uid) -> bool {
    pod.metadata.controller().is_some_and(|owner| owner.uid == *job)
}
