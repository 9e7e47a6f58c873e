//! Permission to write: whether this run, and this pod of it, still may.
//!
//! A node can be cut off for minutes and come back when the next run has already stored its output. So each read of the QuarksJob
//! permits writes for a short time only, counted from before the request, and the client sends none after that. Not for who owns a
//! Secret: see `secret`.

use std::time::Duration;

use crate::api::QuarksJobHead;
use crate::contract::plan::Plan;
use crate::contract::record::Marker;
use crate::contract::report::OutputErrorReason;
use crate::kube::Error;
use crate::moment::Moment;

use super::api::Api;

/// Containers that end within this time of a look have ended together.
const TOGETHER: Duration = Duration::from_secs(1);

/// What has been seen of the right to write.
#[derive(Debug)]
pub struct WritePermission {
    limit: Duration,
    /// A container was seen to end, so the node was not cut off.
    heard: Option<Moment>,
    looked: Option<Moment>,
    over: Option<RunOver>,
}

/// Nothing more is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOver {
    /// Word for programs.
    pub reason: OutputErrorReason,
    /// Sentence for people.
    pub message: String,
}

/// Why nothing may be written.
#[derive(Debug)]
pub enum NotPermitted {
    /// The API server could not be asked.
    Unknown(Error),
    /// Permanently.
    Over(RunOver),
}

impl WritePermission {
    /// Nothing is known.
    pub fn new(limit: Duration) -> Self {
        Self { limit, heard: None, looked: None, over: None }
    }

    /// A container was seen to end just now. What was asked before that says nothing about its output: another run may have ended since.
    pub fn heard(&mut self, now: Moment) {
        self.heard = Some(now);
        self.looked = self.looked.filter(|looked| now - *looked < TOGETHER);
    }

    /// Asks, unless it was asked lately.
    pub fn ask(&mut self, api: &dyn Api, plan: &Plan) -> Result<(), NotPermitted> {
        if let Some(over) = &self.over {
            return Err(NotPermitted::Over(over.clone()));
        }
        let now = api.now();
        let is_fresh = |at: Option<Moment>| at.is_some_and(|at| now - at < self.limit);
        if is_fresh(self.looked) {
            return Ok(());
        }
        let mut over = match api.owner() {
            Ok(head) => over(plan, &head),
            Err(error) if error.is_not_found() => Some(format!("QuarksJob {} no longer exists", plan.quarks_job)),
            Err(error) => return Err(NotPermitted::Unknown(error)),
        }
        .map(|message| RunOver { reason: OutputErrorReason::OwnerGone, message });
        // While nothing was heard of the node the pod may have been replaced, and its replacement may have stored.
        if over.is_none() && !is_fresh(self.heard) && !api.is_pod_kept().map_err(NotPermitted::Unknown)? {
            let message = "after an outage the pod no longer exists or is being deleted".to_owned();
            over = Some(RunOver { reason: OutputErrorReason::OutputNotStored, message });
        }
        if let Some(over) = over {
            self.over = Some(over.clone());
            return Err(NotPermitted::Over(over));
        }
        (self.heard, self.looked) = (Some(now), Some(now));
        api.allow_writes(now + self.limit);
        Ok(())
    }
}

/// Why a run of this QuarksJob stores nothing, if so.
fn over(plan: &Plan, head: &QuarksJobHead) -> Option<String> {
    let Plan { quarks_job, uid, run, .. } = plan;
    let QuarksJobHead { metadata, status } = head;
    if metadata.uid != *uid {
        return Some(format!("QuarksJob {quarks_job} was re-created after the run started"));
    }
    if metadata.is_being_deleted() {
        return Some(format!("QuarksJob {quarks_job} is being deleted"));
    }
    let settled = Marker::in_force(metadata, status, None).runs;
    (settled >= *run).then(|| format!("run {run} of QuarksJob {quarks_job} is over; {settled} runs have ended"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ANNOTATION_SETTLED;

    #[test]
    fn a_run_stores_until_it_or_a_later_one_is_settled() {
        let plan = Plan { quarks_job: "q".into(), uid: "u".into(), run: 2, ..Plan::default() };
        let marker = |uid: &str, runs: u64| json!({"uid": uid, "runs": runs}).to_string();
        for (annotation, status, text) in [
            (String::new(), json!({}), None),
            (marker("u", 1), json!({"settled": marker("u", 1)}), None),
            (marker("u", 2), json!({}), Some("run 2 of QuarksJob q is over; 2 runs have ended")),
            // A manifest that was replaced has dropped the annotation, or brought an older one back.
            (String::new(), json!({"settled": marker("u", 3)}), Some("run 2 of QuarksJob q is over; 3 runs have ended")),
            (marker("u", 1), json!({"settled": marker("u", 2)}), Some("run 2 of QuarksJob q is over; 2 runs have ended")),
            // What the operator does not believe does not count here either.
            (marker("other", 9), json!({"settled": "{"}), None),
            ("nonsense".to_owned(), json!(7), None),
        ] {
            let metadata = json!({"name": "q", "uid": "u", "annotations": {ANNOTATION_SETTLED: annotation}});
            let head: QuarksJobHead = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
            assert_eq!(over(&plan, &head).as_deref(), text, "{annotation} {status}");
        }
    }
}
