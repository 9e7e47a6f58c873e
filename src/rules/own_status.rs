//! Which part of a status was written for this object: a restored or forged one is ignored. Pure.

use std::borrow::Cow;

use crate::api::{ActiveRun, LastRun, ObjectMeta, QuarksJobStatus};
use crate::contract::record::Marker;
use crate::planted::{Defect, is_planted};

use super::names::job_name;

/// A Job's run number counts up to so many above the settled ones. Without any marker (both copies are lost) the Jobs that are left say the
/// number, so it is more than a QuarksJob makes in its life.
pub const RUNS_AHEAD: u64 = 1 << 20;

/// The status, as far as it was written for the object with this metadata, and without run numbers that cannot be.
pub fn own_status<'a>(metadata: &ObjectMeta, status: &'a QuarksJobStatus) -> Cow<'a, QuarksJobStatus> {
    let mut own = status_of(metadata, status);
    let is_far = |run: u64| run > RUNS_AHEAD && run > Marker::in_force(metadata, status, None).runs.saturating_add(RUNS_AHEAD);
    if own.active.as_ref().is_some_and(|active| is_far(active.run)) {
        own.to_mut().active = None;
    }
    if own.last_run.as_ref().is_some_and(|last| is_far(last.run)) {
        own.to_mut().last_run = None;
    }
    own
}

fn status_of<'a>(metadata: &ObjectMeta, status: &'a QuarksJobStatus) -> Cow<'a, QuarksJobStatus> {
    if is_planted(Defect::StatusOfAnotherUid) {
        return Cow::Borrowed(status);
    }
    let settled = status.settled.as_deref().and_then(Marker::uid_in);
    let is_own_run = |name: &str, run: u64| *name == job_name(&metadata.name, &metadata.uid, run);
    let is_own_active = status.active.as_ref().is_none_or(|ActiveRun { uid, job_name, run, .. }| match uid {
        Some(uid) => *run > 0 && *uid == metadata.uid,
        // Written before `active` said its UID: the Job's name does, by a hash.
        None => is_own_run(job_name, *run),
    });
    let is_own_last = status.last_run.as_ref().is_none_or(|LastRun { job_name, run, .. }| is_own_run(job_name, *run));
    match settled {
        Some(uid) if uid == metadata.uid && is_own_active => Cow::Borrowed(status),
        Some(uid) if uid == metadata.uid => Cow::Owned(QuarksJobStatus { active: None, ..status.clone() }),
        None if is_own_active && is_own_last => Cow::Borrowed(status),
        Some(_) | None => Cow::Owned(QuarksJobStatus::default()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::{QuarksJob, Uid};
    use serde_json::{Value, json};

    pub fn object(change: impl FnOnce(&mut Value)) -> QuarksJob {
        let mut object = json!({
            "metadata": {"name": "q", "namespace": "ns", "uid": "u1", "generation": 1},
            "spec": {"trigger": {"strategy": "now"}, "template": {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}},
        });
        change(&mut object);
        serde_json::from_value(object).expect("decodes")
    }

    pub fn marker(uid: &str, runs: u64) -> String {
        Marker { runs, ..Marker::default() }.encode(&Uid::from(uid))
    }

    pub fn name(uid: &str, run: u64) -> String {
        job_name("q", &Uid::from(uid), run)
    }

    #[test]
    fn a_run_without_a_number_is_none() {
        let active = json!({"run": 0, "jobName": name("u1", 0), "trigger": "once", "uid": "u1"});
        let object = object(|object| object["status"] = json!({"active": active}));
        assert_eq!(own_status(&object.metadata, &object.status).active, None);
    }

    #[test]
    fn a_status_of_another_uid_is_none() {
        let last = |job: &str| json!({"run": 5, "jobName": job, "outcome": "Succeeded"});
        let active = |job: &str, uid: Option<&str>| json!({"run": 5, "jobName": job, "trigger": "now", "uid": uid});
        let (mine, others) = (name("u1", 5), name("u0", 5));
        // settled, lastRun, active; what is left of them.
        let cases = [
            (Some(marker("u1", 5)), Some(last(&mine)), Some(active(&mine, Some("u1"))), (true, true, true)),
            (Some(marker("u0", 5)), Some(last(&others)), None, (false, false, false)),
            (Some(marker("u0", 5)), Some(last(&mine)), Some(active(&mine, Some("u1"))), (false, false, false)),
            (Some(marker("u0", 5)), None, None, (false, false, false)),
            (None, Some(last(&others)), None, (false, false, false)),
            (None, Some(last(&mine)), None, (false, true, false)),
            (None, None, Some(active(&others, None)), (false, false, false)),
            (None, None, Some(active(&others, Some("u0"))), (false, false, false)),
            (None, None, Some(active(&mine, Some("u0"))), (false, false, false)),
            (None, None, Some(active(&mine, None)), (false, false, true)),
            (None, None, Some(active("any", Some("u1"))), (false, false, true)),
            (Some(marker("u1", 4)), Some(last("any")), Some(active(&others, None)), (true, true, false)),
            (Some("{".to_owned()), Some(last(&mine)), None, (true, true, false)),
        ];
        for (settled, last_run, active, left) in cases {
            let status = json!({"observedGeneration": 1, "settled": settled, "lastRun": last_run, "active": active,
                "conditions": [{"type": "Ready", "status": "True"}]});
            let object = object(|object| object["status"] = status.clone());
            let own = own_status(&object.metadata, &object.status);
            assert_eq!((own.settled.is_some(), own.last_run.is_some(), own.active.is_some()), left, "{status}");
            let is_any = left != (false, false, false);
            assert_eq!((own.observed_generation, own.conditions.len()), if is_any { (1, 1) } else { (0, 0) }, "{status}");
        }
    }

    #[test]
    fn a_run_number_far_above_the_settled_ones_is_none() {
        let check = |run: u64, is_believed: bool| {
            let active = json!({"run": run, "jobName": name("u1", run), "trigger": "now", "uid": "u1"});
            let last = json!({"run": run, "jobName": name("u1", run), "outcome": "Succeeded"});
            for settled in [Some(marker("u1", 5)), None] {
                let ahead = if settled.is_some() { 5 } else { 0 };
                let object = object(|object| object["status"] = json!({"settled": settled, "active": active, "lastRun": last}));
                let own = own_status(&object.metadata, &object.status);
                assert_eq!(
                    (own.active.is_some(), own.last_run.is_some()),
                    (is_believed && run <= RUNS_AHEAD + ahead, is_believed && run <= RUNS_AHEAD + ahead),
                    "{run} {settled:?}"
                );
            }
        };
        check(6, true);
        check(RUNS_AHEAD, true);
        check(RUNS_AHEAD + 5, true);
        check(RUNS_AHEAD + 6, false);
        check(u64::MAX, false);
    }
}
