//! ConfigMaps and Secrets that QuarksJobs use: what is missing is waited for, what changes makes them run.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::case::{Case, quarks_job, text, until, with_output};
use crate::proxy::Proxy;
use crate::stops;

/// How long nothing may be written after a burst. Five minutes where there is time for it.
fn quiet_time() -> Duration {
    Duration::from_secs(std::env::var("QUARKS_QUIET_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60))
}

fn container(qjob: &mut Value) -> &mut Value {
    &mut qjob["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]
}

/// A one-off that runs when ConfigMap `settings` changes and stores its key `value` in the Secret `seen`.
fn stores_settings(name: &str) -> Value {
    let script = r#"echo "{\"value\": \"$value\"}" >> /mnt/quarks/output.json"#;
    let mut qjob = with_output(name, "once", script, "seen");
    container(&mut qjob)["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    qjob["spec"]["updateOnConfigChange"] = json!(true);
    qjob
}

fn set(case: &Case, value: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"value": value}});
    case.apply(&object);
}

fn runs(case: &Case, name: &str) -> u64 {
    case.qjob(name)["status"]["runs"].as_u64().unwrap_or(0)
}

/// Until the operator has served a trigger that was set after all that came before.
fn wait_served(case: &Case) {
    case.apply(&quarks_job("sentinel", "now", "true"));
    case.wait("sentinel", "condition=Succeeded");
    case.kubectl(&["delete", "qjob", "sentinel"]);
}

#[test]
fn a_burst_of_100_edits_is_one_or_two_runs_and_then_there_is_quiet() {
    let case = Case::new("config-burst");
    set(&case, "before");
    case.apply(&stores_settings("q"));
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("seen")["value"], "before");
    let proxy = Proxy::start();
    let path = format!("/api/v1/namespaces/{}/configmaps/settings", case.namespace);
    let start = Instant::now();
    // On a machine that stands still for a second the edits are more than one burst.
    let (mut last, mut pauses) = (start, 0);
    for edit in 1..=100 {
        let (status, answer) = proxy.patch(&path, &json!({"data": {"value": format!("edit {edit}")}}));
        assert_eq!(status, 200, "{answer}");
        pauses += u64::from(last.elapsed() > Duration::from_millis(800));
        last = Instant::now();
        until_after(start + Duration::from_millis(50) * edit);
    }
    let took = start.elapsed();
    println!("100 edits took {took:?}, with {pauses} pauses");
    until("the last content to be used", || (case.secret("seen")["value"] == "edit 100").then_some(()));
    case.wait("q", "condition=Running=false");
    case.wait_no_jobs();
    // The token of the sidecar goes after half a minute; that is the last that there is to do. A run that began before the last edit, and
    // whose pod came after it, is followed by another one until then.
    until("the token to be gone", || case.try_kubectl(&["get", "secret", "quarks-job-sidecar-token"], None).is_err().then_some(()));
    let created = case.jobs_created();
    println!("{} runs after the first", created - 1);
    // One each 10 s, and after each pause.
    let most = 3 + took.as_secs() / 10 + pauses;
    assert!((2..=most).contains(&u64::try_from(created).expect("a number")), "{created} Jobs, at most {most}: {took:?}, {pauses} pauses");
    assert_eq!(case.qjob("q")["status"]["lastRun"]["trigger"], "config");
    let writes =
        || case.audit().iter().filter(|entry| entry.is_operator() && !entry.is_read()).map(ToString::to_string).collect::<Vec<_>>();
    let before = writes();
    let quiet = Instant::now();
    until_after(quiet + quiet_time());
    assert_eq!(writes(), before, "writes in {:?} without a change", quiet.elapsed());
    assert_eq!(case.jobs_created(), created);
}

/// What must not happen can only be seen by waiting for it.
fn until_after(deadline: Instant) {
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

#[test]
fn what_changes_while_the_operator_is_away_is_one_run() {
    let case = Case::alone("config-away");
    set(&case, "A");
    case.apply(&stores_settings("q"));
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    case.wait_no_jobs();
    stops::scale("0");
    set(&case, "B");
    set(&case, "A");
    stops::scale("1");
    wait_served(&case);
    assert_eq!(runs(&case, "q"), 1, "A, B, A is no change");
    stops::scale("0");
    set(&case, "B");
    stops::scale("1");
    assert_eq!(case.wait_runs("q", 2)["trigger"], "config");
    assert_eq!(case.secret("seen")["value"], "B");
    wait_served(&case);
    assert_eq!(runs(&case, "q"), 2);
}

#[test]
fn every_place_that_names_a_config_map_or_secret_counts() {
    let case = Case::new("config-places");
    let mut places = Vec::new();
    for (kind, plain, reference, volume) in
        [("configmap", "configMap", "configMapRef", "name"), ("secret", "secret", "secretRef", "secretName")]
    {
        for place in ["env", "from", "volume", "projected", "init"] {
            places.push((kind, plain, reference, volume, place, format!("{kind}-{place}")));
        }
    }
    let mut qjob = quarks_job("q", "once", "true");
    let mut init = container(&mut qjob).clone();
    init["name"] = json!("init");
    init["envFrom"] = json!([]);
    let (mut env, mut env_from, mut volumes, mut sources) = (vec![], vec![], vec![], vec![]);
    for (kind, plain, reference, volume, place, name) in &places {
        match *place {
            "env" => env.push(
                json!({"name": format!("E_{}", kind.to_uppercase()), "valueFrom": {format!("{plain}KeyRef"): {"name": name, "key": "k"}}}),
            ),
            "from" => env_from.push(json!({*reference: {"name": name}})),
            "volume" => volumes.push(json!({"name": name, *plain: {*volume: name}})),
            "projected" => sources.push(json!({*plain: {"name": name}})),
            _ => init["envFrom"].as_array_mut().expect("a list").push(json!({*reference: {"name": name}})),
        }
        put(&case, kind, name, "1");
    }
    volumes.push(json!({"name": "projected", "projected": {"sources": sources}}));
    container(&mut qjob)["env"] = json!(env);
    container(&mut qjob)["envFrom"] = json!(env_from);
    let pod = &mut qjob["spec"]["template"]["spec"]["template"]["spec"];
    pod["volumes"] = json!(volumes);
    pod["initContainers"] = json!([init]);
    qjob["spec"]["updateOnConfigChange"] = json!(true);
    // The fifth change in a short time would have to wait: it could be a loop.
    let mut expected = 0;
    for places in places.chunks(4) {
        case.kubectl(&["delete", "quarksjob", "q", "--ignore-not-found"]);
        case.apply(&qjob);
        assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
        expected = 1;
        for (kind, .., name) in places {
            put(&case, kind, name, "2");
            expected += 1;
            let run = case.wait_runs("q", expected);
            assert_eq!((text(&run["trigger"]), text(&run["outcome"])), ("config".to_owned(), "Succeeded".to_owned()), "{name}");
        }
    }
    // binaryData counts as data does; a label does not.
    case.kubectl(&["label", "configmap", "configmap-env", "a=b"]);
    case.kubectl(&["patch", "configmap", "configmap-from", "--type", "merge", "-p", r#"{"binaryData": {"b": "AAEC"}}"#]);
    expected += 1;
    case.wait_runs("q", expected);
    // Deleted and made anew with the same content: what is missing is said, and nothing runs.
    let content = case.get("secret", "secret-env")["data"].clone();
    case.kubectl(&["delete", "secret", "secret-env"]);
    let message = case.wait_condition("q", "Ready", "False", "MissingReference");
    assert!(message.contains("secret/secret-env"), "{message}");
    case.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret-env"}, "data": content}));
    case.wait_condition("q", "Ready", "True", "Ready");
    wait_served(&case);
    assert_eq!(runs(&case, "q"), expected);
}

fn put(case: &Case, kind: &str, name: &str, value: &str) {
    let (api_kind, field) = if kind == "secret" { ("Secret", "stringData") } else { ("ConfigMap", "data") };
    case.apply(&json!({"apiVersion": "v1", "kind": api_kind, "metadata": {"name": name}, field: {"k": value}}));
}

#[test]
fn a_newer_version_is_a_change_and_mydb_is_not_db() {
    let case = Case::new("config-versions");
    let version = |base: &str, number: u32| {
        case.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "immutable": true, "stringData": {"number": number.to_string()},
            "metadata": {"name": format!("{base}-v{number}"), "labels": {
                "quarks.cloudfoundry.org/secret-kind": "versionedSecret", "quarks.cloudfoundry.org/secret-version": number.to_string()
            }},
        }));
    };
    version("db", 1);
    let mut qjob = with_output("q", "once", r#"echo "{\"number\": \"$number\"}" >> /mnt/quarks/output.json"#, "seen");
    container(&mut qjob)["envFrom"] = json!([{"secretRef": {"name": "db-v1"}}]);
    qjob["spec"]["updateOnConfigChange"] = json!(true);
    case.apply(&qjob);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    version("mydb", 2);
    wait_served(&case);
    assert_eq!(runs(&case, "q"), 1);
    version("db", 2);
    assert_eq!(case.wait_runs("q", 2)["trigger"], "config");
    assert_eq!(case.secret("seen")["number"], "2");
}

#[test]
fn a_missing_reference_is_named_and_served_when_it_appears() {
    let case = Case::new("missing-reference");
    let mut qjob = quarks_job("q", "once", "test \"$WORD\" = hello -a \"$OTHER\" = there");
    container(&mut qjob)["envFrom"] = json!([
        {"configMapRef": {"name": "words"}}, {"secretRef": {"name": "others"}}, {"secretRef": {"name": "never", "optional": true}}
    ]);
    case.apply(&qjob);
    let message = case.wait_condition("q", "Ready", "False", "MissingReference");
    assert!(message.contains("configmap/words") && message.contains("secret/others") && !message.contains("never"), "{message}");
    assert!(case.wait_event("q", "MissingReference").contains("words"), "Event MissingReference does not name what is missing");
    case.kubectl(&["create", "configmap", "words", "--from-literal=WORD=hello"]);
    case.wait_qjob("q", "one of them gone from the message", |qjob| {
        let text = qjob["status"]["conditions"].to_string();
        text.contains("secret/others") && !text.contains("configmap/words")
    });
    assert_eq!(case.jobs_created(), 0);
    case.kubectl(&["create", "secret", "generic", "others", "--from-literal=OTHER=there"]);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn two_hundred_that_use_one_secret_all_run_and_delay_no_other() {
    const MANY: usize = 200;
    let case = Case::new("config-many");
    put(&case, "secret", "shared", "1");
    case.apply(&quarks_job("urgent", "manual", "true"));
    // Suspended Jobs make no pods: what counts is here who gets a Job, and when.
    let mut list = json!({"apiVersion": "v1", "kind": "List", "items": []});
    for number in 0..MANY {
        let mut qjob = quarks_job(&format!("q{number}"), "done", "true");
        container(&mut qjob)["envFrom"] = json!([{"secretRef": {"name": "shared"}}]);
        qjob["spec"]["updateOnConfigChange"] = json!(true);
        qjob["spec"]["template"]["spec"]["suspend"] = json!(true);
        list["items"].as_array_mut().expect("a list").push(qjob);
    }
    case.apply(&list);
    let qjobs = || case.list("qjob", "");
    until("200 baselines", || {
        let with_baseline = qjobs().iter().filter(|qjob| qjob["status"]["settled"].to_string().contains("hmac-sha256:")).count();
        (with_baseline == MANY).then_some(())
    });
    assert_eq!(case.jobs_created(), 0);
    put(&case, "secret", "shared", "2");
    until("the first of them", || (case.jobs_created() > 0).then_some(()));
    case.set_now("urgent");
    until("201 runs", || (case.jobs_created() > MANY).then_some(()));
    assert_eq!(case.wait_runs("urgent", 1)["outcome"], "Succeeded");
    let active = || qjobs().iter().filter(|qjob| qjob["status"]["active"]["trigger"] == "config").count();
    until("200 in status", || (active() == MANY).then_some(()));
    wait_served(&case);
    assert_eq!(case.jobs_created(), MANY + 2, "and one of the sentinel");
    // How many of the others went before it says how fast its watch event came; that it goes before all that wait is shown where creates can
    // be held (`operator_config`).
    let audit = case.audit();
    let is_patch = |entry: &crate::audit::Entry| entry.verb == "patch" && entry.resource == "quarksjobs" && entry.name == "urgent";
    let set = audit.iter().position(is_patch).expect("patched");
    let created: Vec<_> = audit[set..].iter().filter(|entry| entry.is_job_created()).collect();
    let between = created.iter().position(|entry| entry.name.starts_with("urgent")).expect("it has its Job");
    let after_patch = |entry: &crate::audit::Entry| entry.seconds() - audit[set].seconds();
    let (waited, all) = (after_patch(created[between]), created.iter().map(|entry| after_patch(entry)).fold(0.0, f64::max));
    println!("{between} Jobs of others were made before that of a trigger in between: {waited:.3} s of {all:.3} s");
}
