//! Admission webhooks that deny, hang, cannot be called, or change what we write. Namespaces are called `denied-...`: the refusals of
//! these cases are wanted (see `report`).

use serde_json::{Value, json};

use crate::admission::{Answer, PROBE, Requests, SENTENCE, Webhook, wait_asked};
use crate::audit::Entry;
use crate::case::{Case, log_about, quarks_job, until};

const SETTLED: &str = "quarks.cloudfoundry.org/settled";

fn tries(case: &Case) -> usize {
    case.audit().iter().filter(|entry| entry.is_operator() && entry.verb == "create" && entry.resource == "jobs").count()
}

/// The Job is refused in these words, tried again soon, and runs when it may.
fn refused(case: &Case, words: &str, tries_before: usize, webhook: Webhook) {
    case.apply(&quarks_job("q", "once", "true"));
    let message = case.wait_condition("q", "Ready", "False", "JobRefused");
    let so_far = tries(case);
    assert!(so_far >= tries_before, "said after {so_far} tries");
    assert!(message.contains(words), "{message}");
    case.wait_event("q", "JobRefused");
    until("two more tries", || (tries(case) >= so_far + 2).then_some(()));
    assert_eq!(case.jobs_created(), 0);
    drop(webhook);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    case.wait("q", "condition=Ready");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn a_denial_without_a_code_is_a_refusal_and_not_a_wrong_template() {
    let case = Case::new("denied-webhook");
    let webhook = Webhook::start(&case, Requests::JOB_CREATE, false, |_| Answer::Deny);
    wait_asked(&case, Requests::JOB_CREATE, |error| error.contains(SENTENCE));
    refused(&case, SENTENCE, 1, webhook);
}

#[test]
fn a_webhook_that_cannot_be_called_is_named() {
    let case = Case::new("denied-unreachable");
    let webhook = Webhook::unreachable(&case, Requests::JOB_CREATE);
    wait_asked(&case, Requests::JOB_CREATE, |error| error.contains("failed calling webhook"));
    refused(&case, "failed calling webhook", 3, webhook);
}

#[test]
fn a_webhook_that_hangs_is_named() {
    let case = Case::new("denied-hangs");
    let webhook = Webhook::start(&case, Requests::JOB_CREATE, false, |_| Answer::Hang);
    wait_asked(&case, Requests::JOB_CREATE, |error| error.contains("failed calling webhook"));
    refused(&case, "failed calling webhook", 3, webhook);
}

#[test]
fn a_webhook_that_denies_the_settle_without_a_code_is_said() {
    let case = Case::new("denied-settle-hook");
    let webhook = Webhook::start(&case, Requests::SETTLE, false, |_| Answer::Deny);
    case.apply(&quarks_job("probe", "manual", "true"));
    let [user, group] = PROBE;
    let patch = r#"{"metadata":{"annotations":{"example.com/probe":"yes"}}}"#;
    until("the webhook to be in force", || {
        let tried = case.try_kubectl(&["patch", "--dry-run=server", user, group, "qjob", "probe", "--type=merge", "-p", patch], None);
        tried.is_err_and(|error| error.contains(SENTENCE)).then_some(())
    });
    case.apply(&quarks_job("q", "once", "true"));
    let message = case.wait_condition("q", "Ready", "False", "SettleRefused");
    assert!(message.contains(SENTENCE), "{message}");
    case.wait("q", "condition=Running=false");
    assert_eq!(case.qjob("q")["status"]["lastRun"]["outcome"], "Succeeded");
    drop(webhook);
    case.wait_qjob("q", "the settle", |qjob| qjob["spec"]["trigger"]["strategy"] == "done" && qjob["status"]["runs"] == 1);
    case.wait_no_jobs();
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn a_webhook_that_strips_our_annotation_is_named_and_nothing_spins() {
    let case = Case::new("denied-strips");
    let strips = |asked: &Value| {
        if asked["object"]["metadata"]["annotations"][SETTLED].is_string() {
            let pointer = format!("/metadata/annotations/{}", SETTLED.replace('/', "~1"));
            Answer::Patch(json!([{"op": "remove", "path": pointer}]))
        } else {
            Answer::Allow
        }
    };
    let webhook = Webhook::start(&case, Requests::SETTLE, true, strips);
    case.apply(&quarks_job("probe", "manual", "true"));
    let [user, group] = PROBE;
    let patch = json!({"metadata": {"annotations": {SETTLED: "probe"}}}).to_string();
    until("the webhook to be in force", || {
        let args = ["patch", "--dry-run=server", user, group, "qjob", "probe", "--type=merge", "-p", &patch, "-o", "json"];
        let shown: Value = serde_json::from_str(&case.try_kubectl(&args, None).ok()?).ok()?;
        shown["metadata"]["annotations"][SETTLED].is_null().then_some(())
    });
    case.apply(&quarks_job("q", "now", "true"));
    until("the likely cause in the log", || {
        let lines = log_about(&case.namespace);
        lines.iter().any(|line| line.contains("/q") && line.to_lowercase().contains("webhook")).then_some(())
    });
    let writes = || {
        case.audit()
            .iter()
            .filter(|entry| entry.is_operator() && !entry.is_read() && !entry.is_event() && entry.name.starts_with('q'))
            .count()
    };
    // Something that happened later elsewhere shows that time has passed: three runs take some.
    let before = writes();
    let elsewhere = case.beside("denied-strips-elsewhere");
    elsewhere.label();
    for name in ["one", "two", "three"] {
        elsewhere.apply(&quarks_job(name, "once", "true"));
        elsewhere.wait(name, "condition=Succeeded");
    }
    let since = writes() - before;
    assert!(since <= 20, "{since} writes while three runs went by");
    assert_eq!(case.jobs_created(), 1);
    drop(webhook);
    let qjob = case.wait_qjob("q", "the run over", |qjob| qjob["status"]["lastRun"]["run"] == 1 && qjob["status"]["active"].is_null());
    assert_eq!((&qjob["status"]["lastRun"]["outcome"], &qjob["spec"]["trigger"]["strategy"]), (&json!("Succeeded"), &json!("manual")));
    case.wait_no_jobs();
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn a_webhook_that_changes_its_mind_is_served_at_once_afterwards() {
    let case = Case::new("denied-mind");
    let webhook = Webhook::start(&case, Requests::JOB_CREATE, false, |_| Answer::Deny);
    wait_asked(&case, Requests::JOB_CREATE, |error| error.contains(SENTENCE));
    case.apply(&quarks_job("q", "now", "true"));
    case.wait_condition("q", "Ready", "False", "JobRefused");
    webhook.set(|_| Answer::Allow);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.jobs_created(), 1);
}

/// Seconds from `now` to the create of its Job, and from the Job's last change to the settle; the middle ones of some runs of `q`.
fn speed(case: &Case, runs: std::ops::RangeInclusive<u64>) -> (f64, f64) {
    let mut found: Vec<(f64, f64)> = Vec::new();
    for run in runs {
        let before = case.audit().len();
        case.set_now("q");
        case.wait_runs("q", run);
        case.wait_no_jobs();
        let audit = case.audit();
        let at = |what: &str, is_it: &dyn Fn(&Entry) -> bool| {
            audit[before..].iter().rfind(|entry| is_it(entry)).unwrap_or_else(|| panic!("no {what} in the audit log")).seconds()
        };
        let asked = at("now", &|entry| !entry.is_operator() && entry.what() == "patch quarksjobs");
        let created = at("create", &|entry| entry.is_job_created());
        let ended = at("end", &|entry| entry.user.ends_with(":job-controller") && entry.what() == "update jobs/status");
        let settled = at("settle", &|entry| entry.is_operator() && entry.what() == "patch quarksjobs");
        found.push((created - asked, settled - ended));
    }
    let middle = |of: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = found.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    (middle(|found| found.0), middle(|found| found.1))
}

#[test]
fn a_namespace_whose_webhook_hangs_holds_up_no_other() {
    const HANGING: usize = 40;
    let case = Case::new("denied-crowd-hangs");
    let other = case.beside("denied-crowd-other");
    other.label();
    other.apply(&quarks_job("q", "manual", "true"));
    let control = speed(&other, 1..=5);
    let _webhook = Webhook::start(&case, Requests::JOB_CREATE, false, |_| Answer::Hang);
    wait_asked(&case, Requests::JOB_CREATE, |error| error.contains("failed calling webhook"));
    let all = (0..HANGING).map(|number| quarks_job(&format!("h{number}"), "once", "true")).collect::<Vec<_>>();
    case.apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}));
    until("creates that hang", || (tries(&case) >= 2).then_some(()));
    let before = tries(&case);
    let beside = speed(&other, 6..=10);
    let hung = tries(&case) - before;
    println!(
        "now to Job {:.3} s, end to settled {:.3} s; beside {hung} creates that hung {:.3} s, {:.3} s",
        control.0, control.1, beside.0, beside.1
    );
    assert!(hung > 0, "nothing hung meanwhile");
    // One that waited for a worker would wait for seconds.
    for (what, alone, beside) in [("now to Job", control.0, beside.0), ("end to settled", control.1, beside.1)] {
        assert!(beside < 10.0 * alone.max(0.05), "{what}: {alone:.3} s alone, {beside:.3} s beside Jobs that hang");
    }
    assert_eq!(case.jobs_created(), 0);
}
