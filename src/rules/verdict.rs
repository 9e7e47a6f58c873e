//! From a Job's end and the sidecars' reports to the outcome of a run. Pure.
//!
//! A termination message is written inside a pod that runs the user's containers: it may be missing, cut or hostile.
//! What cannot be read never counts as stored.

use crate::api::{JobEnd, LastRun, NAME_MAX, Outcome, PodReport, StoredOutput};
use crate::contract::reason::Reason;
use crate::contract::report::{OutputError, Report, StoredSecret};

use super::names::cut;

/// Outputs listed in status; a run with more says so in its message.
const OUTPUTS_MAX: usize = 100;
/// Errors quoted in a message.
const ERRORS_MAX: usize = 3;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The word in status.
    pub outcome: Outcome,
    /// CamelCase, for programs.
    pub reason: String,
    /// Sentence for people; never Secret data.
    pub message: String,
    /// Secrets written.
    pub outputs: Vec<StoredOutput>,
}

impl Verdict {
    /// How status says that the run ended.
    pub fn of_last_run(last: LastRun) -> Self {
        let LastRun { outcome, reason, message, outputs, .. } = last;
        Self { outcome, reason, message, outputs }
    }

    /// A Job of that name exists, but is not, or no longer, the QuarksJob's.
    pub fn taken(job_name: &str) -> Self {
        let message = format!("Job {job_name} is no longer owned by this QuarksJob; the run is not repeated");
        Self { message, ..Self::cancelled(job_name) }
    }

    /// Someone deleted the Job.
    pub fn cancelled(job_name: &str) -> Self {
        Self {
            outcome: Outcome::Cancelled,
            reason: Reason::JobDeleted.to_string(),
            message: format!("Job {job_name} was deleted before it finished; the run is not repeated"),
            outputs: Vec::new(),
        }
    }
}

/// The verdict on a Job whose pods are all there. `pods` is `None` if the run has no output.
#[cfg(test)]
pub fn verdict(end: &JobEnd, succeeded: u32, pods: Option<&[PodReport]>) -> Verdict {
    let Some(pods) = pods else { return Verdict::of_job(end) };
    let mut tally = Tally::default();
    pods.iter().for_each(|pod| tally.take(pod));
    tally.verdict(end, succeeded)
}

impl Verdict {
    /// The verdict on a run without output: the Job alone decides.
    pub fn of_job(end: &JobEnd) -> Self {
        let (outcome, reason, message) = match end {
            JobEnd::Failed { reason, message, .. } => {
                let reason = if reason.is_empty() { Reason::JobFailed.as_str() } else { reason };
                (Outcome::Failed, reason, message.clone())
            }
            JobEnd::Complete { .. } => (Outcome::Succeeded, Reason::Completed.as_str(), "the Job completed".to_owned()),
        };
        Self { outcome, reason: reason.to_owned(), message, outputs: Vec::new() }
    }
}

/// What the pods' reports say, taken together, one pod after the other. Its size does not grow with their number.
#[derive(Debug, Default)]
pub struct Tally {
    /// The first ones, each once.
    outputs: Vec<StoredOutput>,
    /// All that were reported, those included for which a report had no room. Two pods may report the same Secret.
    stored: u64,
    /// Pods that reported any.
    storers: u32,
    /// There were more than are known by name.
    is_cut: bool,
    /// Of pods that ended well.
    errors: Errors,
    /// Of all pods: they explain a failure.
    all_errors: Errors,
    /// Pods that ended well and whose report can be read.
    well: u32,
    /// Why the report of the first pod that ended well and whose report cannot be read.
    unreadable: Option<String>,
    is_unstored: bool,
}

/// The first errors, and how many there are in all.
#[derive(Debug, Default)]
struct Errors {
    first: Vec<OutputError>,
    count: u64,
}

impl Errors {
    fn add(&mut self, errors: &[OutputError], omitted: u32) {
        let room = ERRORS_MAX.saturating_sub(self.first.len());
        self.first.extend(errors.iter().take(room).cloned());
        self.count = self.count.saturating_add(errors.len() as u64).saturating_add(u64::from(omitted));
    }

    fn describe(&self, message: &mut String) {
        for error in &self.first {
            if !message.is_empty() {
                message.push_str("; ");
            }
            message.push_str(&describe(error));
        }
        let more = self.count.saturating_sub(self.first.len() as u64);
        if more > 0 {
            message.push_str(&format!("; and {more} more"));
        }
    }
}

impl Tally {
    /// Takes one pod of the run into account.
    pub fn take(&mut self, pod: &PodReport) {
        let PodReport { metadata, status } = pod;
        let is_well = status.phase == "Succeeded";
        match read_report(status.sidecar.0.as_deref()) {
            Ok(report) => {
                let Report { secrets, errors, secrets_omitted, errors_omitted, stored } = report;
                let count = (secrets.len() as u64).saturating_add(u64::from(secrets_omitted));
                self.stored = self.stored.saturating_add(count);
                self.storers = self.storers.saturating_add(u32::from(count > 0));
                self.is_cut |= secrets_omitted > 0;
                secrets.into_iter().for_each(|secret| self.add_output(secret));
                self.all_errors.add(&errors, errors_omitted);
                // A pod that failed was retried, or made the Job fail: its errors explain a failure, they do not cause one.
                if is_well {
                    self.well = self.well.saturating_add(1);
                    self.is_unstored |= !stored || errors_omitted > 0;
                    self.errors.add(&errors, errors_omitted);
                }
            }
            Err(why) if is_well && self.unreadable.is_none() => self.unreadable = Some(format!("pod {}: {why}", metadata.name)),
            Err(_) => {}
        }
    }

    fn add_output(&mut self, secret: StoredSecret) {
        let StoredSecret { name, version, container, file } = secret;
        // The sidecar writes no longer ones, but whatever runs in the pod might.
        let [secret, container, file] = [name, container, file].map(|text| cut(&text, NAME_MAX).to_owned());
        let output = StoredOutput { secret, container, file, version };
        if self.outputs.contains(&output) {
            return;
        }
        if self.outputs.len() < OUTPUTS_MAX { self.outputs.push(output) } else { self.is_cut = true }
    }

    /// How many Secrets hold the output: each counts once, where all are known by name or come from one pod.
    fn count(&self) -> String {
        let is_first = |(at, output): &(usize, &StoredOutput)| self.outputs[..*at].iter().all(|other| other.secret != output.secret);
        let (up_to, count) = if self.is_cut {
            (if self.storers > 1 { "up to " } else { "" }, self.stored)
        } else {
            ("", self.outputs.iter().enumerate().filter(is_first).count() as u64)
        };
        let plural = if count == 1 { "" } else { "s" };
        format!("{up_to}{count} Secret{plural}")
    }

    /// The verdict, when all pods have been taken into account.
    pub fn verdict(self, end: &JobEnd, succeeded: u32) -> Verdict {
        let count = self.count();
        let Self { outputs, errors, all_errors, well, unreadable, is_unstored, .. } = self;
        let mut verdict = Verdict { outputs, ..Verdict::of_job(end) };
        if matches!(end, JobEnd::Failed { .. }) {
            all_errors.describe(&mut verdict.message);
            return verdict;
        }
        let expected = succeeded.max(1);
        let (outcome, reason, message) = if let Some(first) = errors.first.first() {
            (Outcome::Failed, Reason::from(first.reason), String::new())
        } else if is_unstored {
            (Outcome::Failed, Reason::OutputNotStored, "not all output was stored".to_owned())
        } else if let Some(why) = unreadable {
            (Outcome::Unknown, Reason::OutputUnverified, why)
        } else if well < expected {
            (
                Outcome::Unknown,
                Reason::OutputUnverified,
                format!("only {well} of {expected} succeeded pods still exist; the other output cannot be verified"),
            )
        } else {
            (Outcome::Succeeded, Reason::Completed, format!("the Job completed; output stored in {count}"))
        };
        (verdict.outcome, verdict.reason, verdict.message) = (outcome, reason.to_string(), message);
        errors.describe(&mut verdict.message);
        verdict
    }
}

fn describe(error: &OutputError) -> String {
    let OutputError { container, file, message, .. } = error;
    match (container.is_empty(), file.is_empty()) {
        (true, _) => message.clone(),
        (false, true) => format!("container {container}: {message}"),
        (false, false) => format!("container {container}, file {file}: {message}"),
    }
}

/// The report in a termination message; `None` is a sidecar that has not ended.
fn read_report(message: Option<&str>) -> Result<Report, String> {
    let message = message.ok_or("its output-persist container has not terminated")?;
    Report::parse(message).map_err(|error| format!("no valid report: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{PodReportMeta, PodReportStatus, SidecarReport};
    use serde_json::json;

    fn pod(phase: &str, report: Option<&str>) -> PodReport {
        let statuses = report.map(|text| json!([{"name": "output-persist", "state": {"terminated": {"exitCode": 0, "message": text}}}]));
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": statuses}}))
            .expect("decodes")
    }

    const STORED: &str = r#"{"secrets":[{"name":"s","container":"c","file":"f"}],"errors":[],"stored":true}"#;
    const INVALID: &str = r#"{"secrets":[],"errors":[{"reason":"OutputInvalid","container":"c","file":"f","message":"key \"k\" is a number"}],"stored":false}"#;

    fn ask(end: &JobEnd, succeeded: u32, pods: &[PodReport]) -> (Outcome, String, usize) {
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

    fn report(name: &str, phase: &str, message: &str) -> PodReport {
        PodReport {
            metadata: PodReportMeta { name: name.to_owned(), ..PodReportMeta::default() },
            status: PodReportStatus { phase: phase.to_owned(), sidecar: SidecarReport(Some(message.to_owned())) },
        }
    }

    #[test]
    fn a_stream_of_reports_and_a_list_of_pods_have_one_verdict() {
        let complete = JobEnd::Complete { time: None };
        for (phase, message) in [("Succeeded", STORED), ("Succeeded", INVALID), ("Failed", INVALID), ("Succeeded", "{"), ("Succeeded", "")]
        {
            let mut tally = Tally::default();
            tally.take(&report("p", phase, message));
            assert_eq!(tally.verdict(&complete, 1), verdict(&complete, 1, Some(&[pod(phase, Some(message))])), "{phase} {message}");
        }
    }

    #[test]
    fn what_is_kept_does_not_grow_with_the_pods() {
        // As large as a report may be, with names as no sidecar writes them.
        let long = "n".repeat(1_900);
        let message = |number: u32| {
            format!(
                r#"{{"secrets":[{{"name":"s-{number}-{long}","container":"c","file":"f"}}],"errors":[{{"reason":"OutputInvalid","message":"{long}"}}],"secretsOmitted":2,"errorsOmitted":1,"stored":true}}"#
            )
        };
        let mut tally = Tally::default();
        for number in 0..5_000 {
            tally.take(&report("p", "Succeeded", &message(number)));
        }
        let texts = |outputs: &[StoredOutput]| {
            outputs.iter().map(|output| output.secret.len() + output.container.len() + output.file.len()).sum::<usize>()
        };
        assert!(tally.outputs.len() == OUTPUTS_MAX && texts(&tally.outputs) < 30_000);
        assert_eq!((tally.errors.first.len(), tally.all_errors.first.len()), (ERRORS_MAX, ERRORS_MAX));
        assert_eq!((tally.stored, tally.errors.count, tally.well), (15_000, 10_000, 5_000));
        let verdict = tally.verdict(&JobEnd::Complete { time: None }, 5_000);
        assert_eq!((verdict.outcome, verdict.reason.as_str()), (Outcome::Failed, "OutputInvalid"));
        assert!(verdict.message.ends_with("; and 9997 more") && verdict.message.len() < 4 * 1_900, "{}", verdict.message);
    }

    #[test]
    fn each_secret_counts_once() {
        let one = |name: &str, omitted: u32| {
            format!(r#"{{"secrets":[{{"name":"{name}","container":"c","file":"f"}}],"secretsOmitted":{omitted},"stored":true}}"#)
        };
        let of_container =
            |container: &str| format!(r#"{{"secrets":[{{"name":"s","container":"{container}","file":"f"}}],"stored":true}}"#);
        let none = || r#"{"secrets":[],"stored":true}"#.to_owned();
        let many = |count: u32| (0..count).map(|number| one(&format!("s-{number}"), 0)).collect::<Vec<_>>();
        for (reports, expected) in [
            (vec![none()], "0 Secrets"),
            (vec![one("s", 0)], "1 Secret"),
            // The second pod stored the same content, or a first one failed after it had stored.
            (vec![one("s", 0), one("s", 0), none()], "1 Secret"),
            (vec![of_container("c"), of_container("d")], "1 Secret"),
            (vec![one("s-0", 0), one("s-1", 0), one("s-0", 0), one("s-2", 0)], "3 Secrets"),
            (vec![one("s", 999), none()], "1000 Secrets"),
            (vec![one("s", 999), one("s", 999)], "up to 2000 Secrets"),
            (many(100), "100 Secrets"),
            ([many(100), many(100)].concat(), "100 Secrets"),
            (many(101), "up to 101 Secrets"),
        ] {
            let mut tally = Tally::default();
            reports.iter().for_each(|message| tally.take(&report("p", "Succeeded", message)));
            let message = tally.verdict(&JobEnd::Complete { time: None }, reports.len() as u32).message;
            assert_eq!(message, format!("the Job completed; output stored in {expected}"), "{reports:?}");
        }
    }

    #[test]
    fn a_report_that_is_too_long_is_not_readable() {
        let fill = |length: usize| format!("{STORED}{}", " ".repeat(length - STORED.len()));
        for (length, outcome) in [(4_096, Outcome::Succeeded), (4_097, Outcome::Unknown)] {
            let mut tally = Tally::default();
            tally.take(&report("p", "Succeeded", &fill(length)));
            let verdict = tally.verdict(&JobEnd::Complete { time: None }, 1);
            assert_eq!(verdict.outcome, outcome, "{}", verdict.message);
        }
    }

    #[test]
    fn the_first_that_cannot_be_read_is_named_and_outputs_are_counted() {
        let mut tally = Tally::default();
        for (name, message) in [("a", STORED), ("b", "x"), ("c", "{")] {
            tally.take(&report(name, "Succeeded", message));
        }
        let complete = JobEnd::Complete { time: None };
        let why = "pod b: no valid report: the output-persist container's report is malformed";
        assert_eq!(tally.verdict(&complete, 3).message, why);
        let mut tally = Tally::default();
        tally.take(&report("a", "Succeeded", STORED));
        tally.take(&report("b", "Succeeded", STORED));
        let verdict = tally.verdict(&complete, 2);
        assert_eq!((verdict.message.as_str(), verdict.outputs.len()), ("the Job completed; output stored in 1 Secret", 1));
        let mut tally = Tally::default();
        tally.take(&report("a", "Failed", r#"{"errors":[{"reason":"OutputInvalid","message":"m"}],"errorsOmitted":4,"stored":false}"#));
        let failed = JobEnd::Failed { reason: String::new(), message: String::new(), time: None };
        let verdict = tally.verdict(&failed, 0);
        assert_eq!((verdict.reason.as_str(), verdict.message.as_str()), ("JobFailed", "m; and 4 more"));
        assert_eq!(
            Tally::default().verdict(&complete, 3).message,
            "only 0 of 3 succeeded pods still exist; the other output cannot be verified"
        );
    }
}
