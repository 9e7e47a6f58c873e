//! From a Job's end and the sidecars' reports to the outcome of a run. Pure.
//!
//! A termination message is written inside a pod that runs the user's containers: it may be missing, cut or hostile.
//! What cannot be read never counts as stored.

use crate::api::{JobEnd, Outcome, Pod, SIDECAR_CONTAINER, StoredOutput};
use crate::persist::{OutputError, Report};

/// Outputs listed in status; a run with more says so in its message.
const OUTPUTS_MAX: usize = 100;
/// Errors quoted in a message.
const ERRORS_MAX: usize = 3;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The word in status.
    pub outcome: Outcome,
    /// CamelCase word for programs.
    pub reason: String,
    /// Sentence for people; never Secret data.
    pub message: String,
    /// Secrets written.
    pub outputs: Vec<StoredOutput>,
}

impl Verdict {
    /// Someone deleted the Job.
    pub fn cancelled(job_name: &str) -> Self {
        Self {
            outcome: Outcome::Cancelled,
            reason: "JobDeleted".to_owned(),
            message: format!("Job {job_name} was deleted before it ended; it is not run again"),
            outputs: Vec::new(),
        }
    }
}

/// The verdict on a Job. `pods` is `None` if the run has no output.
pub fn verdict(end: &JobEnd, succeeded: u32, pods: Option<&[Pod]>) -> Verdict {
    let mut seen = Seen::default();
    for pod in pods.into_iter().flatten() {
        seen.take(pod);
    }
    let (outcome, reason, mut message) = match end {
        JobEnd::Failed { reason, message, .. } => {
            let reason = if reason.is_empty() { "JobFailed" } else { reason };
            (Outcome::Failed, reason.to_owned(), message.clone())
        }
        JobEnd::Complete { .. } if pods.is_none() => (Outcome::Succeeded, "Completed".to_owned(), "the Job completed".to_owned()),
        JobEnd::Complete { .. } => match seen.errors.first() {
            Some(first) => (Outcome::Failed, first.reason.as_str().to_owned(), String::new()),
            None if seen.is_unstored => (Outcome::Failed, "OutputNotStored".to_owned(), "not all output is stored".to_owned()),
            None if seen.unreadable.is_some() || seen.well < succeeded.max(1) => {
                let why = seen
                    .unreadable
                    .clone()
                    .unwrap_or_else(|| format!("{} of {} pods that ended well are still there to be asked", seen.well, succeeded.max(1)));
                (Outcome::Unknown, "OutputUnverified".to_owned(), why)
            }
            None => {
                let count = seen.outputs.len() + seen.omitted;
                (Outcome::Succeeded, "Completed".to_owned(), format!("the Job completed and its output is in {count} Secret(s)"))
            }
        },
    };
    let errors = if matches!(end, JobEnd::Failed { .. }) { &seen.all_errors } else { &seen.errors };
    for error in errors.iter().take(ERRORS_MAX) {
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&describe(error));
    }
    let more = errors.len().saturating_sub(ERRORS_MAX) + seen.errors_omitted;
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    let mut outputs: Vec<StoredOutput> = Vec::new();
    for output in seen.outputs {
        if outputs.len() < OUTPUTS_MAX && !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    Verdict { outcome, reason, message, outputs }
}

fn describe(error: &OutputError) -> String {
    let OutputError { container, file, message, .. } = error;
    match (container.is_empty(), file.is_empty()) {
        (true, _) => message.clone(),
        (false, true) => format!("container {container}: {message}"),
        (false, false) => format!("container {container}, file {file}: {message}"),
    }
}

/// What the pods' reports say, taken together.
#[derive(Default)]
struct Seen {
    outputs: Vec<StoredOutput>,
    omitted: usize,
    /// Of pods that ended well.
    errors: Vec<OutputError>,
    /// Of all pods: they explain a failure.
    all_errors: Vec<OutputError>,
    errors_omitted: usize,
    /// Pods that ended well and whose report can be read.
    well: u32,
    /// Why the report of a pod that ended well cannot be read.
    unreadable: Option<String>,
    is_unstored: bool,
}

impl Seen {
    fn take(&mut self, pod: &Pod) {
        let is_well = pod.status.phase == "Succeeded";
        match report_of(pod) {
            Ok(report) => {
                let Report { secrets, errors, secrets_omitted, errors_omitted, stored } = report;
                self.omitted += secrets_omitted as usize;
                self.outputs.extend(secrets.into_iter().map(|secret| StoredOutput {
                    secret: secret.name,
                    container: secret.container,
                    file: secret.file,
                    version: secret.version,
                }));
                self.all_errors.extend(errors.iter().cloned());
                // A pod that failed was tried again, or made the Job fail: its errors explain a failure, they do not cause one.
                if is_well {
                    self.well += 1;
                    self.is_unstored |= !stored || errors_omitted > 0;
                    self.errors_omitted += errors_omitted as usize;
                    self.errors.extend(errors);
                }
            }
            Err(why) if is_well => self.unreadable = Some(format!("pod {}: {why}", pod.metadata.name)),
            Err(_) => {}
        }
    }
}

fn report_of(pod: &Pod) -> Result<Report, String> {
    let sidecar = pod.status.container_statuses.iter().find(|container| container.name == SIDECAR_CONTAINER);
    let ended = sidecar.and_then(|container| container.state.terminated.as_ref()).ok_or("it has no ended output-persist container")?;
    Report::parse(&ended.message).map_err(|error| format!("the report of output-persist cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str, report: Option<&str>) -> Pod {
        let statuses = report.map(|text| json!([{"name": "output-persist", "state": {"terminated": {"exitCode": 0, "message": text}}}]));
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": statuses}}))
            .expect("decodes")
    }

    const STORED: &str = r#"{"secrets":[{"name":"s","container":"c","file":"f"}],"errors":[],"stored":true}"#;
    const INVALID: &str = r#"{"secrets":[],"errors":[{"reason":"OutputInvalid","container":"c","file":"f","message":"key \"k\" is a number"}],"stored":false}"#;

    fn ask(end: &JobEnd, succeeded: u32, pods: &[Pod]) -> (Outcome, String, usize) {
        let verdict = verdict(end, succeeded, Some(pods));
        (verdict.outcome, verdict.reason, verdict.outputs.len())
    }

    #[test]
    fn a_complete_job_succeeds_only_if_every_report_says_stored() {
        let complete = JobEnd::Complete { time: None };
        let cases = [
            (vec![pod("Succeeded", Some(STORED))], 1, Outcome::Succeeded, "Completed", 1),
            (vec![pod("Succeeded", Some(INVALID))], 1, Outcome::Failed, "OutputInvalid", 0),
            (vec![pod("Succeeded", Some(STORED)), pod("Succeeded", Some(INVALID))], 2, Outcome::Failed, "OutputInvalid", 1),
            (vec![pod("Failed", Some(INVALID)), pod("Succeeded", Some(STORED))], 1, Outcome::Succeeded, "Completed", 1),
            (vec![pod("Succeeded", None)], 1, Outcome::Unknown, "OutputUnverified", 0),
            (vec![pod("Succeeded", Some("{"))], 1, Outcome::Unknown, "OutputUnverified", 0),
            (vec![pod("Succeeded", Some(""))], 1, Outcome::Unknown, "OutputUnverified", 0),
            (vec![pod("Succeeded", Some(STORED)), pod("Succeeded", Some("x"))], 2, Outcome::Unknown, "OutputUnverified", 1),
            (vec![pod("Succeeded", Some(STORED))], 2, Outcome::Unknown, "OutputUnverified", 1),
            (vec![], 1, Outcome::Unknown, "OutputUnverified", 0),
            (vec![], 0, Outcome::Unknown, "OutputUnverified", 0),
            (vec![pod("Succeeded", Some(r#"{"secrets":[],"errors":[],"stored":false}"#))], 1, Outcome::Failed, "OutputNotStored", 0),
            (vec![pod("Succeeded", Some(r#"{"errorsOmitted":1,"stored":true}"#))], 1, Outcome::Failed, "OutputNotStored", 0),
        ];
        for (pods, succeeded, outcome, reason, outputs) in cases {
            assert_eq!(ask(&complete, succeeded, &pods), (outcome, reason.to_owned(), outputs), "{pods:?}");
        }
    }

    #[test]
    fn a_failed_job_stays_failed_and_names_what_was_written() {
        let failed = JobEnd::Failed { reason: "BackoffLimitExceeded".into(), message: "too often".into(), time: None };
        assert_eq!(ask(&failed, 0, &[pod("Failed", Some(STORED))]), (Outcome::Failed, "BackoffLimitExceeded".into(), 1));
        assert_eq!(ask(&failed, 0, &[]), (Outcome::Failed, "BackoffLimitExceeded".into(), 0));
        let message = verdict(&failed, 0, Some(&[pod("Failed", Some(INVALID))])).message;
        assert_eq!(message, "too often; container c, file f: key \"k\" is a number");
    }

    #[test]
    fn without_output_the_job_alone_decides() {
        assert_eq!(verdict(&JobEnd::Complete { time: None }, 0, None).outcome, Outcome::Succeeded);
    }

    #[test]
    fn messages_name_container_and_file() {
        let verdict = verdict(&JobEnd::Complete { time: None }, 1, Some(&[pod("Succeeded", Some(INVALID))]));
        assert_eq!(verdict.message, "container c, file f: key \"k\" is a number");
    }
}
