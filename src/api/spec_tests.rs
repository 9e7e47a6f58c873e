//! Tables for `spec`.

use serde_json::json;

use super::*;

fn spec() -> Value {
    json!({
        "trigger": {"strategy": "once"},
        "template": {"spec": {"template": {"spec": {"containers": [{"name": "main"}, {"name": "other"}]}}}},
        "output": {
            "outputMap": {"main": {"a.json": {"name": "a", "secretLabels": {"x": "file", "z": "file"}}}},
            "secretLabels": {"x": "all", "y": "all"}
        }
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut spec = spec();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
    spec.pointer_mut(parent).and_then(Value::as_object_mut).expect("the parent is an object").insert(name.to_owned(), value);
    spec
}

#[test]
fn a_good_spec_gets_defaults_and_keeps_labels_where_they_are() {
    let parsed = Spec::parse(&spec()).expect("valid");
    assert_eq!((parsed.failed_jobs_history_limit, parsed.pod_history_limit, parsed.suspend), (10, 3, false));
    let output = parsed.output.expect("has output");
    let text = |labels: &StringMap| labels.iter().map(|(k, v)| format!("{k}={v} ")).collect::<String>();
    assert_eq!((text(&output.files["main"]["a.json"].labels), text(&output.labels)), ("x=file z=file ".into(), "x=all y=all ".into()));
}

#[test]
fn each_broken_rule_names_its_field() {
    let containers = "/template/spec/template/spec/containers";
    let cases = [
        (with("/trigger/strategy", json!("sometimes")), "spec.trigger.strategy"),
        (with("/trigger/strategy", json!(1)), "spec.trigger.strategy"),
        (with("/template", json!({"spec": {}})), "spec.template.spec.template.spec"),
        (with(containers, json!([])), "spec.template.spec.template.spec.containers"),
        (with(containers, json!([{"name": "main"}, {"name": "output-persist"}])), "spec.template.spec.template.spec.containers"),
        (
            with(containers, json!([{"name": "main", "volumeMounts": [{"mountPath": "/mnt/quarks/"}]}])),
            "spec.template.spec.template.spec.containers[main].volumeMounts",
        ),
        (with("/template/metadata", json!("x")), "spec.template.metadata"),
        (with("/template/spec/template/metadata", json!({"labels": 1})), "spec.template.spec.template.metadata.labels"),
        (with("/template/spec/completions", json!(2)), "spec.output"),
        (with("/template/spec/parallelism", json!(2)), "spec.output"),
        (with("/suspend", json!("yes")), "spec.suspend"),
        (with("/failedJobsHistoryLimit", json!(-1)), "spec.failedJobsHistoryLimit"),
        (with("/podHistoryLimit", json!(1.5)), "spec.podHistoryLimit"),
        (with("/output/outputType", json!("yaml")), "spec.output.outputType"),
        (with("/output/keepVersions", json!(0)), "spec.output.keepVersions"),
        (with("/output/outputMap", json!({"nobody": {"a": {"name": "a"}}})), "spec.output.outputMap[nobody]"),
        (with("/output/outputMap", json!({"main": {"../a": {"name": "a"}}})), "spec.output.outputMap[main][../a]"),
        (with("/output/outputMap", json!({"main": {"a": {"name": "A"}}})), "spec.output.outputMap[main][a].name"),
        (with("/output/outputMap", json!({"main": {"a": {}}})), "spec.output.outputMap[main][a].name"),
        (
            with("/output/outputMap", json!({"main": {"a": {"name": "s"}}, "other": {"b": {"name": "s"}}})),
            "spec.output.outputMap[other][b].name",
        ),
        (
            with("/output/outputMap", json!({"main": {"a": {"name": "a", "persistencemethod": "x"}}})),
            "spec.output.outputMap[main][a].persistencemethod",
        ),
        (with("/output/namePrefix", json!("X")), "spec.output.namePrefix"),
        (with("/output/namePrefix", json!("p.")), "spec.output.namePrefix"),
        (with("/output/namePrefix", json!("-")), "spec.output.namePrefix"),
        (with("/output/namePrefix", json!("p".repeat(248))), "spec.output.namePrefix"),
        (with("/output", json!({"outputMap": {"main": {"a": {"name": "p-other"}}}, "namePrefix": "p-"})), "spec.output.namePrefix"),
        (with("/output", json!({"outputMap": {"main": {"a": {"name": "p-other"}}}, "namePrefix": "p"})), "spec.output.namePrefix"),
        (with("/output", json!("all")), "spec.output"),
    ];
    for (spec, field) in cases {
        let error = Spec::parse(&spec).expect_err(field);
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn an_output_may_have_the_name_of_a_version_of_another() {
    let entry = |name: &str, versioned: bool| json!({"name": name, "versioned": versioned});
    for (one, other) in [("s-v1", "s"), ("s", "s-v20")] {
        let map = json!({"main": {"a": entry(one, one == "s")}, "other": {"b": entry(other, other == "s")}});
        assert_eq!(Spec::parse(&with("/output/outputMap", map)).err(), None, "{one} {other}");
    }
}

#[test]
fn names_leave_room_for_what_follows_them() {
    let (file, log) = ("spec.output.outputMap[main][a].name", "spec.output.namePrefix");
    for (versioned, method, completions, most) in [
        (false, "one-to-one", None, 253),
        (true, "one-to-one", None, 242),
        (false, "fan-out", None, 251),
        (true, "fan-out", None, 240),
        (false, "one-to-one", Some(1), 251),
        (false, "one-to-one", Some(10), 251),
        (false, "one-to-one", Some(11), 250),
        (true, "fan-out", Some(1_000), 236),
    ] {
        let parse = |output: Value| {
            let mut spec = with("/output", output);
            if let Some(completions) = completions {
                spec["template"]["spec"]["completionMode"] = json!("Indexed");
                spec["template"]["spec"]["completions"] = json!(completions);
            }
            Spec::parse(&spec).err().map(|error| error.field)
        };
        let of_map = |length: usize| {
            parse(json!({"outputMap": {"main": {"a": {"name": "n".repeat(length), "versioned": versioned, "persistencemethod": method}}}}))
        };
        // The longer one of the two containers is `-other`.
        let of_log = |length: usize| parse(json!({"namePrefix": "n".repeat(length - 6), "versioned": versioned}));
        assert_eq!((of_map(most), of_map(most + 1).as_deref()), (None, Some(file)), "{versioned} {method} {completions:?}");
        if method == "one-to-one" {
            assert_eq!((of_log(most), of_log(most + 1).as_deref()), (None, Some(log)), "{versioned} {completions:?}");
        }
    }
    let spec = with("/output/outputMap", json!({"main": {"a": {"name": "n".repeat(243), "versioned": true}}}));
    let expected = "has 243 characters, must have at most 242: index, key and version are appended, and a Secret name has at most 253";
    assert!(Spec::parse(&spec).expect_err("too long").message.ends_with(expected));
}

#[test]
fn names_of_our_own_secrets_are_refused_but_as_a_beginning() {
    let prefixed = |prefix: &str, container: &str, versioned: bool| {
        let mut spec = with("/output", json!({"namePrefix": prefix, "versioned": versioned}));
        spec["template"]["spec"]["template"]["spec"]["containers"] = json!([{"name": container}]);
        spec
    };
    let mapped = |name: &str, method: &str, versioned: bool| {
        with("/output/outputMap", json!({"main": {"a": {"name": name, "persistencemethod": method, "versioned": versioned}}}))
    };
    let field = "spec.output.outputMap[main][a].name";
    for (spec, refused) in [
        (mapped("quarks-job-sidecar-token", "one-to-one", false), Some(field)),
        (mapped("quarks-job-config-key", "one-to-one", false), Some(field)),
        (mapped("quarks-job-config-key", "", true), Some(field)),
        (mapped("quarks-job-config-key", "fan-out", false), None),
        (mapped("quarks-job-config", "one-to-one", false), None),
        (prefixed("quarks-job-sidecar-", "token", false), Some("spec.output.namePrefix")),
        (prefixed("quarks-job-config", "key", false), Some("spec.output.namePrefix")),
        (prefixed("quarks-job-config", "key", true), Some("spec.output.namePrefix")),
        (prefixed("quarks-job-config", "keys", false), None),
    ] {
        let parsed = Spec::parse(&spec);
        assert_eq!(parsed.as_ref().err().map(|error| error.field.as_str()), refused, "{parsed:?}");
    }
}

#[test]
fn a_name_in_the_map_that_is_no_container_is_told_with_a_hint() {
    for (name, expected) in [
        ("setup", "spec.output.outputMap[setup]: is an init container; init containers cannot have output"),
        ("mian", "spec.output.outputMap[mian]: is not a container of the template; must be one of: main, other"),
    ] {
        let mut spec = with("/output/outputMap", json!({name: {"a": {"name": "a"}}}));
        spec["template"]["spec"]["template"]["spec"]["initContainers"] = json!([{"name": "setup"}]);
        assert_eq!(Spec::parse(&spec).expect_err("refused").to_string(), expected);
    }
}

#[test]
fn what_the_pod_template_must_not_have_names_its_field() {
    let pod = "/template/spec/template/spec";
    let mounts = |field: &str, paths: &str, path: &str| {
        with(&format!("{pod}/containers"), json!([{"name": "main", field: [{"name": "v", paths: path}]}, {"name": "other"}]))
    };
    let at = |path: &str| mounts("volumeMounts", "mountPath", path);
    let manual = |labels: Value| {
        let mut spec = with("/template/spec/manualSelector", json!(true));
        spec["template"]["spec"]["template"]["metadata"] = json!({"labels": labels});
        spec
    };
    let no_output = |mut spec: Value| {
        spec["output"] = Value::Null;
        spec
    };
    let share = || with(&format!("{pod}/shareProcessNamespace"), json!(true));
    let mount = "spec.template.spec.template.spec.containers[main].volumeMounts";
    for (spec, refused) in [
        (share(), Some("spec.template.spec.template.spec.shareProcessNamespace")),
        (with(&format!("{pod}/shareProcessNamespace"), json!(false)), None),
        (no_output(share()), None),
        (with(&format!("{pod}/hostPID"), json!(true)), None),
        (manual(json!({"app": "a"})), Some("spec.template.spec.manualSelector")),
        (no_output(manual(json!(null))), Some("spec.template.spec.manualSelector")),
        (manual(json!({"delete": "no"})), Some("spec.template.spec.manualSelector")),
        (manual(json!({"delete": "pod"})), None),
        (with("/template/spec/manualSelector", json!(false)), None),
        (at("/mnt/quarks"), Some(mount)),
        (at("/mnt//./x/../quarks/"), Some(mount)),
        (at("mnt/quarks"), Some(mount)),
        (at("/mnt/quarks/a.json"), Some(mount)),
        (at("/mnt/quarks/a.json/below"), Some(mount)),
        (at("/mnt/quarks/b.json"), None),
        (at("/mnt"), None),
        (at("/mnt/quarks2"), None),
        (mounts("volumeDevices", "devicePath", "/mnt/quarks"), Some("spec.template.spec.template.spec.containers[main].volumeDevices")),
        (
            with(&format!("{pod}/initContainers"), json!([{"name": "output-persist", "restartPolicy": "Always"}])),
            Some("spec.template.spec.template.spec.initContainers"),
        ),
    ] {
        let parsed = Spec::parse(&spec);
        assert_eq!(parsed.as_ref().err().map(|error| error.field.as_str()), refused, "{spec}: {parsed:?}");
    }
}

#[test]
fn output_that_the_sidecar_cannot_be_told_of_is_named_with_its_size() {
    let with_length = |length: usize| {
        let mut output = json!({"namePrefix": "p", "secretAnnotations": {"a": ""}});
        output["secretAnnotations"]["a"] = json!("x".repeat(length - output.to_string().len()));
        Spec::parse(&with("/output", output))
    };
    with_length(OUTPUT_MAX).expect("allowed");
    let error = with_length(OUTPUT_MAX + 1).expect_err("too long");
    assert_eq!(error.to_string(), "spec.output: must be at most 1048576 bytes of JSON, not 1048577");
}

#[test]
fn several_pods_may_write_by_index_or_version() {
    for (pointer, value) in [("/template/spec/completionMode", json!("Indexed")), ("/output/versioned", json!(true))] {
        let mut spec = with(pointer, value);
        spec["template"]["spec"]["completions"] = json!(3);
        Spec::parse(&spec).expect("allowed");
    }
}

#[test]
fn logs_of_containers_that_are_not_in_the_map_are_output() {
    let logs = |output: Value| Spec::parse(&with("/output", output)).expect("valid").output.expect("has output").logs;
    let names = |output| logs(output).into_iter().map(|(container, log)| (container, log.name)).collect::<Vec<_>>();
    let pair = |container: &str, name: &str| (container.to_owned(), name.to_owned());
    assert_eq!(names(json!({"namePrefix": "p"})), [pair("main", "p-main"), pair("other", "p-other")]);
    assert_eq!(names(json!({"namePrefix": "p-"})), [pair("main", "p-main"), pair("other", "p-other")]);
    assert_eq!(names(json!({"namePrefix": "p--"}))[0].1, "p--main");
    assert_eq!(names(json!({"outputMap": {"main": {"a": {"name": "a"}}}, "namePrefix": "p"})), [pair("other", "p-other")]);
    assert_eq!(names(json!({"outputMap": {"main": {"a": {"name": "a"}}}})), []);
    let log =
        logs(json!({"namePrefix": "p", "versioned": true, "secretLabels": {"l": "1"}, "secretAnnotations": {"a": "2"}})).remove("main");
    let log = log.expect("has a log");
    assert!(log.versioned && log.labels.is_empty() && log.annotations.is_empty(), "{log:?}");
}
