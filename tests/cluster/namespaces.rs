//! Only namespaces with the label are served, from the moment they have it, and by one operator at a time.

use serde_json::json;

use crate::audit::Entry;
use crate::case::{Case, MONITORED, cluster, log_about, map, quarks_job, text, until, with_output};
use crate::granted::rights;
use crate::second::Second;

const WAITS: &str = r#"until [ -e /tmp/go ]; do sleep 0.1; done; echo '{"a": "b"}' >> /mnt/quarks/output.json"#;

fn unlabel(case: &Case) {
    cluster(&["label", "namespace", &case.namespace, &format!("{MONITORED}-")]);
}

fn open_gate(case: &Case, pod: &str) {
    case.kubectl(&["exec", pod, "-c", "main", "--", "touch", "/tmp/go"]);
}

fn requests(case: &Case) -> usize {
    case.audit().iter().filter(|entry| entry.is_operator()).count()
}

#[test]
fn nothing_happens_without_the_label_and_everything_when_it_is_back() {
    let case = Case::new("label");
    case.apply(&quarks_job("first", "once", "true"));
    case.wait("first", "condition=Succeeded");
    case.wait_no_jobs();
    unlabel(&case);
    // Something that happened later elsewhere shows that the operator has had its time.
    let elsewhere = case.beside("label-elsewhere");
    settle(&elsewhere, "barrier-1");
    let before = requests(&case);
    case.apply(&quarks_job("second", "once", "true"));
    settle(&elsewhere, "barrier-2");
    assert_eq!(before, requests(&case), "requests in a namespace without the label");
    case.label();
    case.wait("second", "condition=Succeeded");
    assert_eq!(case.jobs_created(), 2);
}

/// One whole run in the other namespace.
fn settle(case: &Case, name: &str) {
    case.label();
    case.apply(&quarks_job(name, "once", "true"));
    case.wait(name, "condition=Succeeded");
    case.wait_no_jobs();
}

#[test]
fn a_trigger_from_before_the_label_is_served() {
    let case = Case::unlabelled("label-later");
    case.apply(&quarks_job("q", "now", "true"));
    case.label();
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn a_run_that_ends_without_the_label_is_settled_when_it_is_back() {
    let case = Case::new("label-run");
    case.apply(&with_output("q", "now", WAITS, "s"));
    let pod = case.wait_running_pod("q");
    case.wait_qjob("q", "the run in status", |qjob| qjob["status"]["active"]["run"] == 1);
    unlabel(&case);
    let elsewhere = case.beside("label-run-elsewhere");
    settle(&elsewhere, "barrier-1");
    open_gate(&case, &pod);
    // The sidecar works on: what a run has begun with stays its own.
    until("the Job to be complete", || (case.jobs().first()?["status"]["succeeded"] == 1).then_some(()));
    assert_eq!(case.secret("s"), map(&[("a", "b")]));
    settle(&elsewhere, "barrier-2");
    assert_eq!(case.qjob("q")["spec"]["trigger"]["strategy"], "now");
    case.label();
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    case.wait_no_jobs();
    assert_eq!((case.jobs_created(), text(&case.qjob("q")["spec"]["trigger"]["strategy"])), (1, "manual".to_owned()));
}

#[test]
fn in_a_namespace_that_is_being_deleted_nothing_is_started() {
    let case = Case::unlabelled("going");
    let going = case.beside("denied-going");
    let mut held = quarks_job("held", "manual", "true");
    held["metadata"]["finalizers"] = json!(["quarks-job.test/held"]);
    going.label();
    going.apply(&held);
    going.wait("held", "condition=Ready");
    cluster(&["delete", "namespace", &going.namespace, "--wait=false"]);
    until("the deletion to begin", || {
        let namespace: serde_json::Value =
            serde_json::from_str(&cluster(&["get", "namespace", &going.namespace, "-o", "json"])).expect("JSON");
        namespace["metadata"]["deletionTimestamp"].is_string().then_some(())
    });
    going.set_now("held");
    settle(&case, "barrier-1");
    settle(&case, "barrier-2");
    let entries = going.audit();
    let asked: Vec<&Entry> = entries.iter().filter(|entry| entry.is_operator() && !entry.is_read()).collect();
    assert!(asked.iter().all(|entry| entry.resource == "quarksjobs/status" || entry.is_event()), "{asked:#?}");
    let warned: Vec<String> =
        log_about(&going.namespace).into_iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(warned.is_empty(), "{warned:#?}");
    going.patch("held", &json!({"metadata": {"finalizers": null}}));
}

#[test]
fn two_operators_share_a_cluster_and_hand_over_a_namespace_in_the_middle_of_a_run() {
    let case = Case::new("shared");
    let (other, home) = (case.beside("shared-other"), case.bare_beside("shared-home"));
    let rights: Vec<_> = ["quarks-job", "quarks-job-status"].into_iter().flat_map(rights).collect();
    let second = Second::start(&home, &home.namespace, &rights, None);
    second.bind(&case);
    second.bind(&other);
    let label = format!("{MONITORED}={}", home.namespace);
    other.label_namespace(&[&label, crate::case::SIDECAR_ACCOUNT]);

    // Each serves its own.
    for served in [&case, &other] {
        served.apply(&quarks_job("own", "once", "true"));
        served.wait("own", "condition=Succeeded");
        served.wait_event("own", "RunSucceeded");
        served.wait_no_jobs();
    }
    let users = |case: &Case| {
        let mut users: Vec<String> =
            case.audit().into_iter().filter(|entry| entry.is_operator() || entry.user == second.user()).map(|entry| entry.user).collect();
        users.sort();
        users.dedup();
        users
    };
    assert_eq!((users(&case), users(&other)), (vec![crate::audit::OPERATOR.to_owned()], vec![second.user()]));

    // A run changes hands.
    case.apply(&with_output("q", "now", WAITS, "s"));
    let pod = case.wait_running_pod("q");
    case.wait_qjob("q", "the run in status", |qjob| qjob["status"]["active"]["run"] == 1);
    case.label_namespace(&[&label]);
    settle(&case.beside("shared-barrier"), "barrier");
    open_gate(&case, &pod);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("s"), map(&[("a", "b")]));
    let settled = |user: &str| {
        let is_settle = |entry: &&Entry| entry.user == user && entry.what() == "patch quarksjobs" && entry.name == "q" && entry.code == 200;
        case.audit().iter().filter(is_settle).count()
    };
    assert_eq!((settled(crate::audit::OPERATOR), settled(&second.user())), (0, 1));
    case.wait_qjob("q", "its strategy", |qjob| qjob["spec"]["trigger"]["strategy"] == "manual");
    // And back.
    case.label();
    settle(&case.beside("shared-barrier-2"), "barrier");
    case.set_now("q");
    let pod = until("the second run's pod", || {
        let next = case.wait_running_pod("q");
        (next != pod).then_some(next)
    });
    open_gate(&case, &pod);
    assert_eq!(case.wait_runs("q", 2)["outcome"], "Succeeded");
    let created = case.audit().iter().filter(|entry| entry.verb == "create" && entry.resource == "jobs" && entry.code == 201).count();
    assert_eq!(created, 3, "one Job a run");
}
