//! Was a write stored? A server that answers with success may have stored something else: an older CRD prunes fields, a webhook
//! changes them. Pure.

use crate::api::QuarksJobStatus;

/// The first field of status that decisions rest on and that came back other than it was written.
///
/// What is only for people (messages, times) may come back changed: the next write would be the same.
pub fn lost_field(written: &QuarksJobStatus, stored: &QuarksJobStatus) -> Option<&'static str> {
    let active = |status: &QuarksJobStatus| status.active.as_ref().map(|active| (active.run, active.job_name.clone()));
    let last = |status: &QuarksJobStatus| status.last_run.as_ref().map(|last| (last.run, last.outcome));
    let ready = |status: &QuarksJobStatus| status.condition("Ready").map(|ready| (ready.status.clone(), ready.reason.clone()));
    [
        ("settled", written.settled == stored.settled),
        ("lastRun", last(written) == last(stored)),
        ("active", active(written) == active(stored)),
        ("conditions", ready(written) == ready(stored)),
        ("observedGeneration", written.observed_generation == stored.observed_generation),
    ]
    .into_iter()
    .find(|(_, is_kept)| !is_kept)
    .map(|(field, _)| field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_decisions_rest_on_has_to_come_back() {
        let written = json!({
            "observedGeneration": 3, "completed": true, "runs": 2, "settled": "{}",
            "active": {"run": 3, "jobName": "q-3", "trigger": "now", "uid": "u", "details": {}, "startTime": "t"},
            "lastRun": {"run": 2, "jobName": "q-2", "outcome": "Failed", "reason": "R", "message": "m"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "ready to run", "lastTransitionTime": "t"}],
        });
        let status = |value: &Value| serde_json::from_value::<QuarksJobStatus>(value.clone()).expect("decodes");
        assert_eq!(lost_field(&status(&written), &status(&written)), None);
        for (pointer, value, field) in [
            ("/settled", Value::Null, Some("settled")),
            ("/lastRun", Value::Null, Some("lastRun")),
            ("/lastRun/outcome", json!("Succeeded"), Some("lastRun")),
            ("/active", Value::Null, Some("active")),
            ("/active/jobName", json!("other"), Some("active")),
            ("/conditions", json!([]), Some("conditions")),
            ("/conditions/0/reason", json!("Other"), Some("conditions")),
            ("/observedGeneration", json!(0), Some("observedGeneration")),
            ("/active/uid", Value::Null, None),
            ("/lastRun/message", json!(""), None),
            ("/conditions/0/lastTransitionTime", Value::Null, None),
        ] {
            let mut stored = written.clone();
            *stored.pointer_mut(pointer).expect("is there") = value;
            assert_eq!(lost_field(&status(&written), &status(&stored)), field, "{pointer}");
        }
        assert_eq!(lost_field(&status(&written), &QuarksJobStatus::default()), Some("settled"), "all of it is pruned");
    }
}
