//! Output of Jobs: what is stored, and what is left alone.

use serde_json::json;

use crate::case::{Case, map, quarks_job, text, with_output};

#[test]
fn output_is_stored_in_a_restricted_namespace() {
    let case = Case::new("restricted");
    case.label_namespace(&["pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted"]);
    case.apply_example("one-off-output.yaml");
    case.wait("one-off-output", "condition=Succeeded");
    assert_eq!(case.secret("one-off-output"), map(&[("user", "admin"), ("password", "not a good one")]));
    let events = case.events("one-off-output");
    assert!(events.iter().all(|(reason, _)| reason != "TemplateWarning"), "{events:?}");
}

#[test]
fn a_secret_of_somebody_else_is_left_as_it_is() {
    let case = Case::new("conflict");
    case.kubectl(&["create", "secret", "generic", "taken", "--from-literal=theirs=1"]);
    let before = case.kubectl(&["get", "secret", "taken", "-o", "yaml"]);
    case.apply(&with_output("q", "once", r#"echo '{"ours": "2"}' >> /mnt/quarks/output.json"#, "taken"));
    case.wait("q", "condition=Succeeded=false");
    let run = case.wait_runs("q", 1);
    assert_eq!((text(&run["outcome"]), text(&run["reason"])), ("Failed".to_owned(), "OutputConflict".to_owned()));
    assert!(text(&run["message"]).contains("taken"), "{run}");
    assert_eq!(case.kubectl(&["get", "secret", "taken", "-o", "yaml"]), before);
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn output_that_is_no_map_of_strings_fails_the_run_and_keeps_the_job() {
    let case = Case::new("not-flat");
    case.apply(&with_output("q", "once", r#"echo '{"a": {"b": "hidden-value"}}' >> /mnt/quarks/output.json"#, "s"));
    case.wait("q", "condition=Succeeded=false");
    let run = case.wait_runs("q", 1);
    assert_eq!((text(&run["outcome"]), text(&run["reason"])), ("Failed".to_owned(), "OutputInvalid".to_owned()));
    let message = text(&run["message"]);
    assert!(message.contains("output.json") && message.contains("\"a\"") && !message.contains("hidden-value"), "{message}");
    assert!(!case.wait_event("q", "OutputInvalid").contains("hidden-value"), "the Event has the value");
    assert_eq!(case.output_secrets(), [""; 0]);
    let jobs = case.jobs();
    assert_eq!(jobs.len(), 1, "the Job is kept");
    assert_eq!(jobs[0]["metadata"]["name"], run["jobName"]);
}

#[test]
fn a_file_that_was_not_written_is_named() {
    let case = Case::new("no-file");
    case.apply(&with_output("q", "once", "true", "s"));
    case.wait("q", "condition=Succeeded=false");
    let run = case.wait_runs("q", 1);
    assert_eq!(text(&run["outcome"]), "Failed");
    assert!(text(&run["message"]).contains("output.json"), "{run}");
}

#[test]
fn a_failed_container_stores_nothing() {
    let case = Case::new("failed");
    case.apply(&with_output("q", "once", r#"echo '{"a": "b"}' >> /mnt/quarks/output.json; exit 1"#, "s"));
    case.wait("q", "condition=Succeeded=false");
    assert_eq!(text(&case.wait_runs("q", 1)["outcome"]), "Failed");
    assert_eq!(case.output_secrets(), [""; 0]);
}

#[test]
fn the_last_of_several_documents_counts_after_a_restart() {
    let case = Case::new("restart");
    let script = r#"
        count=$(cat /mnt/quarks/count 2>/dev/null || echo 0)
        echo $((count + 1)) > /mnt/quarks/count
        echo "{\"try\": \"$count\"}" >> /mnt/quarks/output.json
        test "$count" = 1"#;
    let mut qjob = with_output("q", "once", script, "s");
    qjob["spec"]["template"]["spec"]["backoffLimit"] = json!(3);
    qjob["spec"]["template"]["spec"]["template"]["spec"]["restartPolicy"] = json!("OnFailure");
    case.apply(&qjob);
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.secret("s"), map(&[("try", "1")]));
    assert_eq!(case.jobs_created(), 1);
}

/// A container that its own rule starts again, in a pod whose policy is `Never`: what counts is what it wrote in the end.
fn restarted_by_a_rule(name: &str, action: &str) {
    let case = Case::new(name);
    // The output's volume outlives a restart of the container.
    let script = r#"
        if [ ! -e /mnt/quarks/again ]; then touch /mnt/quarks/again; echo '{"a": "first"}' >> /mnt/quarks/output.json; exit 42; fi
        echo '{"a": "second"}' >> /mnt/quarks/output.json"#;
    let mut qjob = with_output("q", "once", script, "s");
    let container = &mut qjob["spec"]["template"]["spec"]["template"]["spec"]["containers"][0];
    container["restartPolicy"] = json!("Never");
    container["restartPolicyRules"] = json!([{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]);
    case.apply(&qjob);
    let run = case.wait_runs("q", 1);
    assert_eq!(run["outcome"], "Succeeded", "{run}");
    assert_eq!(case.secret("s"), map(&[("a", "second")]));
}

#[test]
fn a_container_that_its_rule_restarts_is_read_when_it_has_ended() {
    restarted_by_a_rule("rule-restart", "Restart");
}

#[test]
fn a_pod_that_a_rule_restarts_is_read_when_it_has_ended() {
    restarted_by_a_rule("rule-restart-all", "RestartAllContainers");
}

#[test]
fn versions_are_counted_and_only_new_content_makes_one() {
    let case = Case::new("versioned");
    case.kubectl(&["create", "configmap", "words", "--from-literal=word=one"]);
    let mut qjob = with_output("q", "manual", r#"echo "{\"word\": \"$WORD\"}" >> /mnt/quarks/output.json"#, "s");
    qjob["spec"]["output"]["versioned"] = json!(true);
    qjob["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "word"}}}]);
    case.apply(&qjob);
    for (run, word, expected) in [(1, "one", &["s-v1"][..]), (2, "one", &["s-v1"]), (3, "two", &["s-v1", "s-v2"])] {
        case.kubectl(&["patch", "configmap", "words", "-p", &json!({"data": {"word": word}}).to_string()]);
        case.set_now("q");
        assert_eq!(text(&case.wait_runs("q", run)["outcome"]), "Succeeded");
        assert_eq!(case.output_secrets(), expected, "after run {run}");
        assert_eq!(case.secret(expected[expected.len() - 1]), map(&[("word", word)]), "after run {run}");
    }
    let secret = case.get("secret", "s-v2");
    assert_eq!(secret["immutable"], true);
    assert_eq!(secret["metadata"]["labels"]["quarks.cloudfoundry.org/secret-version"], "2");
    assert_eq!(secret["metadata"]["ownerReferences"][0]["name"], "q");
}

#[test]
fn fan_out_makes_a_secret_a_key() {
    let case = Case::new("fan-out");
    let script = r#"echo '{"a": {"x": "1"}, "b": "{\"y\": \"2\"}"}' >> /mnt/quarks/output.json"#;
    let mut qjob = with_output("q", "once", script, "part");
    qjob["spec"]["output"]["outputMap"]["main"]["output.json"]["persistencemethod"] = json!("fan-out");
    case.apply(&qjob);
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.output_secrets(), ["part-a", "part-b"]);
    assert_eq!((case.secret("part-a"), case.secret("part-b")), (map(&[("x", "1")]), map(&[("y", "2")])));
}

#[test]
fn pods_of_an_indexed_job_write_one_secret_each() {
    let case = Case::new("indexed");
    let mut qjob = with_output("q", "once", r#"echo "{\"index\": \"$JOB_COMPLETION_INDEX\"}" >> /mnt/quarks/output.json"#, "part");
    qjob["spec"]["template"]["spec"]["completionMode"] = json!("Indexed");
    qjob["spec"]["template"]["spec"]["completions"] = json!(3);
    qjob["spec"]["template"]["spec"]["parallelism"] = json!(3);
    case.apply(&qjob);
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.output_secrets(), ["part-0", "part-1", "part-2"]);
    for index in ["0", "1", "2"] {
        assert_eq!(case.secret(&format!("part-{index}")), map(&[("index", index)]), "pod {index}");
    }
}

#[test]
fn the_log_is_stored_with_a_name_prefix() {
    let case = Case::new("name-prefix");
    let mut qjob = quarks_job("q", "once", r#"echo '{"from": "the log"}'"#);
    qjob["spec"]["output"] = json!({"namePrefix": "log"});
    case.apply(&qjob);
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.secret("log-main"), map(&[("from", "the log")]));
}

#[test]
fn output_of_a_hundred_files_with_long_annotations_is_stored() {
    let case = Case::new("long-plan");
    let script = r#"for i in $(seq 0 99); do echo "{\"k\": \"$i\"}" >> /mnt/quarks/f$i; done"#;
    let mut qjob = quarks_job("q", "once", script);
    let note = "$(POD_NAME) ü ".to_owned() + &"x".repeat(2_300);
    let files = (0..100).map(|at| (format!("f{at}"), json!({"name": format!("s{at}"), "secretAnnotations": {"own": note}})));
    let files: serde_json::Map<_, _> = files.collect();
    qjob["spec"]["output"] = json!({"outputMap": {"main": files}, "secretAnnotations": {"all": note}, "secretLabels": {"l": "1"}});
    // Applied it would not fit into the annotation in which kubectl keeps what it applied.
    case.try_kubectl(&["create", "-f", "-"], Some(&qjob)).expect("created");
    case.wait("q", "condition=Succeeded");
    let secrets = case.list("secrets", "l=1");
    assert_eq!(secrets.len(), 100);
    for secret in secrets {
        let annotations = &secret["metadata"]["annotations"];
        assert!(annotations["all"] == note && annotations["own"] == note, "{annotations}");
    }
    assert_eq!((case.secret("s0"), case.secret("s99")), (map(&[("k", "0")]), map(&[("k", "99")])));
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn names_that_are_taken_are_left_to_the_user() {
    let case = Case::new("volume-names");
    let script = r#"echo '{"k": "v"}' > /data/file; cp /data/file /mnt/quarks/output.json"#;
    let mut qjob = with_output("q", "once", script, "one");
    let pod = &mut qjob["spec"]["template"]["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "output-main", "emptyDir": {}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "output-main", "mountPath": "/data"}]);
    let mut second = pod["containers"][0].clone();
    second["name"] = json!("persist-token");
    pod["containers"].as_array_mut().expect("a list").push(second);
    qjob["spec"]["output"]["outputMap"]["persist-token"] = json!({"output.json": {"name": "two"}});
    case.apply(&qjob);
    case.wait("q", "condition=Succeeded");
    assert_eq!((case.secret("one"), case.secret("two")), (map(&[("k", "v")]), map(&[("k", "v")])));
}
