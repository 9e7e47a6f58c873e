//! Every file in `manifests/examples` keeps the promise in its head.

use std::collections::BTreeSet;
use std::iter;
use std::panic::catch_unwind;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde_json::Value;

use crate::case::{Case, LIMIT, example, image_filter, map, text, until};

/// Any value, but not none.
const ANY: &str = "<any>";

/// Name, and its data, decoded. A value `=SECRET/KEY` is the one of another Secret.
type Promised = (&'static str, &'static [(&'static str, &'static str)]);

/// The output Secrets that are there when the commands in the head of the file have run: these and no others.
const PROMISES: [(&str, &[Promised]); 19] = [
    ("config-change.yaml", &[("said", &[("word", "goodbye")])]),
    ("errand-output.yaml", &[("errand-output", &[("pod", ANY)])]),
    ("errand.yaml", &[]),
    ("failing-write-on-failure.yaml", &[("failure-report", &[("passed", "2"), ("failed", "1")])]),
    ("fan-out-output.yaml", &[("team-alpha", &[("user", "ann"), ("quota", "10")]), ("team-beta", &[("user", "bob")])]),
    ("indexed-output.yaml", &[("part-0", &[("index", "0")]), ("part-1", &[("index", "1")]), ("part-2", &[("index", "2")])]),
    ("keep-versions.yaml", &[("session-key-v2", &[("key", ANY)]), ("session-key-v3", &[("key", ANY)])]),
    ("labelled-output.yaml", &[("labelled-admin", &[("user", "admin")]), ("labelled-reader", &[("user", "reader")])]),
    ("log-output.yaml", &[("log-output-place", &[("city", "Berlin"), ("country", "Germany")]), ("log-output-user", &[("user", "admin")])]),
    (
        "multi-container-output.yaml",
        &[
            ("database-admin", &[("user", "admin"), ("database", "shop")]),
            ("database-reader", &[("user", "reader"), ("database", "shop")]),
            ("web-session", &[("key", ANY)]),
        ],
    ),
    (
        "newest-version.yaml",
        &[
            ("database-v1", &[("password", ANY)]),
            ("database-v2", &[("password", ANY)]),
            ("seen", &[("from-env", "=database-v2/password"), ("from-volume", "=database-v2/password")]),
        ],
    ),
    ("one-off-output.yaml", &[("one-off-output", &[("user", "admin"), ("password", "not a good one")])]),
    ("one-off.yaml", &[]),
    (
        "parallel-versioned-output.yaml",
        &[("found-v1", &[("pod", ANY)]), ("found-v2", &[("pod", ANY)]), ("found-v3", &[("pod", ANY)]), ("found-v4", &[("pod", ANY)])],
    ),
    ("parallel-completions.yaml", &[]),
    ("restart-output.yaml", &[("restart-output", &[("attempt", "2")])]),
    ("scheduled-errand.yaml", &[]),
    ("versioned-output.yaml", &[("signing-key-v1", &[("key", ANY)]), ("signing-key-v2", &[("key", ANY)])]),
    ("work-queue.yaml", &[]),
];

#[test]
fn every_example_keeps_its_promise() {
    let files: BTreeSet<String> = std::fs::read_dir(example(""))
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    let promised: BTreeSet<String> = PROMISES.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(files, promised, "each file needs a line in PROMISES");
    let queue = Mutex::new(PROMISES.iter());
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let failed: Vec<String> = thread::scope(|scope| {
        // Some at a time: their pods share one node with all the other cases.
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let check = |(file, secrets): &(&str, &[Promised])| {
                        catch_unwind(|| keeps_its_promise(file, secrets)).is_err().then(|| (*file).to_owned())
                    };
                    iter::from_fn(take).filter_map(check).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("panics are caught")).collect()
    });
    assert!(failed.is_empty(), "{failed:?}; the reasons are above");
}

fn keeps_its_promise(file: &str, promised: &[Promised]) {
    let case = Case::new(&format!("example-{}", file.trim_end_matches(".yaml")));
    case.label_namespace(&["pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted"]);
    run_head(&case, file);
    let qjobs = case.list("qjob", "");
    assert!(!qjobs.is_empty(), "{file} makes no QuarksJob");
    for qjob in &qjobs {
        let name = text(&qjob["metadata"]["name"]);
        case.wait(&name, "condition=Running=false");
        let warnings: Vec<_> = case.events(&name).into_iter().filter(|(reason, _)| reason == "TemplateWarning").collect();
        assert!(warnings.is_empty(), "{file}: {warnings:?}");
    }
    let names: Vec<&str> = promised.iter().map(|(name, _)| *name).collect();
    // Versions that are too many go after the run.
    until(&format!("{file}: the Secrets {names:?}"), || (case.output_secrets() == names).then_some(()));
    for (name, data) in promised {
        let mut stored = case.secret(name);
        for (key, expected) in *data {
            let value = stored.remove(*key).unwrap_or_else(|| panic!("{file}: Secret {name} has no key {key}"));
            match expected.strip_prefix('=').and_then(|other| other.split_once('/')) {
                Some((other, key)) => assert_eq!(value, case.secret(other)[key], "{file}: Secret {name}"),
                None if *expected == ANY => assert!(!value.is_empty(), "{file}: Secret {name}, key {key}"),
                None => assert_eq!(value, *expected, "{file}: Secret {name}, key {key}"),
            }
        }
        assert!(stored.is_empty(), "{file}: Secret {name} has more keys than promised: {:?}", stored.keys());
    }
}

/// Runs the first block of commands in the head of the file as it stands there, in the folder of the examples.
fn run_head(case: &Case, file: &str) {
    let manifest = std::fs::read_to_string(example(file)).expect("readable");
    let lines = manifest.lines().skip_while(|line| !line.starts_with("#   "));
    let commands: Vec<&str> = lines.map_while(|line| line.strip_prefix("#   ")).collect();
    assert_eq!(commands.first(), Some(&format!("kubectl apply -f {file}").as_str()), "the first command in {file}");
    let script = format!(
        r#"kubectl() {{
            case $1 in
            wait) command kubectl --namespace {0} "$@" --timeout={1}s ;;
            apply) sed '{3}' "$3" | command kubectl --namespace {0} apply -f - ;;
            *) command kubectl --namespace {0} "$@" ;;
            esac
        }}
        {2}"#,
        case.namespace,
        LIMIT.as_secs(),
        commands.join("\n"),
        image_filter(),
    );
    let output = Command::new("/bin/sh").args(["-e", "-c", &script]).current_dir(example("")).output().expect("a shell");
    assert!(output.status.success(), "the commands in {file}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn errand_runs_when_asked_and_waits_again() {
    let case = Case::new("errand");
    case.apply_example("errand.yaml");
    case.wait("errand1", "condition=Ready");
    assert_eq!(case.jobs_created(), 0, "manual never runs by itself");
    for run in 1..=2 {
        case.set_now("errand1");
        case.wait("errand1", "condition=Running=false");
        let qjob = case.qjob("errand1");
        assert_eq!(qjob["spec"]["trigger"]["strategy"], "manual");
        assert_eq!(
            (&qjob["status"]["lastRun"]["outcome"], &qjob["status"]["runs"]),
            (&Value::from("Succeeded"), &Value::from(run)),
            "run {run}: {qjob}"
        );
        assert_eq!(case.jobs_created(), run, "run {run}: a Job each time it is asked for");
    }
    case.wait_no_jobs();
    let selector = "quarks.cloudfoundry.org/qjob-name=errand1";
    assert_eq!(case.list("pods", selector).len(), 2, "the pods are kept for their logs");
    assert_eq!(case.kubectl(&["logs", "-l", selector]), "the errand has run\nthe errand has run\n");
}

#[test]
fn one_off_runs_once_and_not_again_when_replaced() {
    let case = Case::new("one-off");
    case.apply_example("one-off.yaml");
    case.wait("one-off", "condition=Succeeded");
    let qjob = case.qjob("one-off");
    assert_eq!((&qjob["spec"]["trigger"]["strategy"], &qjob["status"]["completed"]), (&Value::from("done"), &Value::from(true)));
    case.wait_no_jobs();
    // Takes every annotation away, so that only the status knows.
    case.kubectl(&["replace", "-f", &example("one-off.yaml")]);
    case.wait_event("one-off", "AlreadyRan");
    assert_eq!(case.jobs_created(), 1);
    assert_eq!(case.qjob("one-off")["status"]["runs"], 1);
}

#[test]
fn one_off_output_becomes_a_secret_that_outlives_the_quarksjob() {
    let case = Case::new("one-off-output");
    case.apply_example("one-off-output.yaml");
    case.wait("one-off-output", "condition=Succeeded");
    let secret = case.get("secret", "one-off-output");
    assert_eq!(crate::case::decoded(&secret), map(&[("user", "admin"), ("password", "not a good one")]));
    assert_eq!(secret["metadata"]["labels"]["example"], "one-off-output");
    assert_eq!(case.qjob("one-off-output")["status"]["lastRun"]["outputs"].as_array().map(Vec::len), Some(1));
    case.wait_event("one-off-output", "OutputStored");
    assert_eq!(case.jobs_created(), 1);
    case.kubectl(&["delete", "qjob", "one-off-output", "--cascade=foreground"]);
    assert_eq!(case.get("secret", "one-off-output")["data"], secret["data"]);
}

#[test]
fn errand_output_is_written_anew_by_each_run() {
    let case = Case::new("errand-output");
    case.apply_example("errand-output.yaml");
    let mut pods = Vec::new();
    for run in 1..=2 {
        case.set_now("errand-output");
        case.wait("errand-output", "condition=Running=false");
        assert_eq!(case.wait_runs("errand-output", run)["outcome"], "Succeeded");
        pods.push(case.secret("errand-output").remove("pod").expect("a pod's name"));
    }
    assert!(pods[0] != pods[1], "{pods:?}");
    assert_eq!(case.output_secrets(), ["errand-output"]);
    assert_eq!(case.jobs_created(), 2);
}

#[test]
fn multi_container_output_becomes_one_secret_a_file() {
    let case = Case::new("multi-container");
    case.apply_example("multi-container-output.yaml");
    case.wait("multi-container-output", "condition=Succeeded");
    assert_eq!(case.output_secrets(), ["database-admin", "database-reader", "web-session"]);
    assert_eq!(case.list("secrets", "example=multi-container-output").len(), 3);
    assert_eq!(case.secret("database-admin"), map(&[("user", "admin"), ("database", "shop")]));
    assert_eq!(case.secret("database-reader"), map(&[("user", "reader"), ("database", "shop")]));
    assert_eq!(case.secret("web-session")["key"].len(), 32);
    for (secret, container, access) in
        [("database-admin", "database", ""), ("database-reader", "database", "read-only"), ("web-session", "web", "")]
    {
        let labels = &case.get("secret", secret)["metadata"]["labels"];
        assert_eq!(labels["quarks.cloudfoundry.org/container-name"], container);
        assert_eq!(labels["access"].as_str().unwrap_or_default(), access);
    }
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn failing_job_is_kept_and_its_output_stored() {
    let case = Case::new("write-on-failure");
    case.apply_example("failing-write-on-failure.yaml");
    case.wait("failing-write-on-failure", "condition=Succeeded=false");
    let qjob = case.qjob("failing-write-on-failure");
    assert_eq!(
        (&qjob["status"]["lastRun"]["outcome"], &qjob["spec"]["trigger"]["strategy"]),
        (&Value::from("Failed"), &Value::from("done"))
    );
    assert_eq!(case.secret("failure-report"), map(&[("passed", "2"), ("failed", "1")]));
    case.wait_event("failing-write-on-failure", "RunFailed");
    let jobs = case.list("jobs", "quarks.cloudfoundry.org/qjob-name=failing-write-on-failure");
    let names: Vec<String> = jobs.iter().map(|job| text(&job["metadata"]["name"])).collect();
    assert_eq!(names, [text(&qjob["status"]["lastRun"]["jobName"])]);
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn parallel_completions_are_one_run() {
    let case = Case::new("parallel");
    case.apply_example("parallel-completions.yaml");
    case.wait("parallel-completions", "condition=Succeeded");
    assert_eq!(case.qjob("parallel-completions")["status"]["runs"], 1);
    let pods = case.list("pods", "quarks.cloudfoundry.org/qjob-name=parallel-completions");
    assert_eq!(pods.iter().filter(|pod| pod["status"]["phase"] == "Succeeded").count(), 6);
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn work_queue_is_one_run() {
    let case = Case::new("work-queue");
    case.apply_example("work-queue.yaml");
    case.wait("work-queue", "condition=Succeeded");
    assert_eq!(case.qjob("work-queue")["status"]["runs"], 1);
    let pods = case.list("pods", "quarks.cloudfoundry.org/qjob-name=work-queue");
    assert_eq!(pods.iter().filter(|pod| pod["status"]["phase"] == "Succeeded").count(), 3);
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn labels_and_annotations_of_a_file_win_over_those_of_the_output() {
    let case = Case::new("labelled-output");
    case.apply_example("labelled-output.yaml");
    case.wait("labelled-output", "condition=Succeeded");
    for (name, tier, rotate) in [("labelled-admin", "backend", "daily"), ("labelled-reader", "frontend", "monthly")] {
        let metadata = &case.get("secret", name)["metadata"];
        assert_eq!((&metadata["labels"]["team"], &metadata["labels"]["tier"]), (&Value::from("shop"), &Value::from(tier)), "{name}");
        assert_eq!(metadata["annotations"]["example.com/rotate"], rotate, "{name}");
        assert_eq!(metadata["labels"]["quarks.cloudfoundry.org/remote-id"], "zone-1-shop", "{name}");
    }
}
