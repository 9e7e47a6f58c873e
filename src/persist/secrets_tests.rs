//! Tables for `secrets`.

use serde_json::json;

use super::*;

fn plan() -> Plan {
    serde_json::from_value(json!({
        "quarksJob": "q", "uid": "u", "run": 1,
        "containers": {"main": {"remoteId": "r1", "files": {"output.json": {
            "name": "s", "labels": {"mine": "1", LABEL_CONTAINER_NAME: "forged", LABEL_SECRET_KIND: "forged", LABEL_SECRET_VERSION: "7"}, "annotations": {"note": "x", ANNOTATION_WRITTEN_BY: "forged"},
        }}}},
    }))
    .unwrap()
}

fn build(plan: &Plan, name: &str) -> Result<Desired, String> {
    let container_plan = &plan.containers["main"];
    let source = Source { plan, container: "main", container_plan, secret_plan: &container_plan.files["output.json"] };
    Desired::build(&source, &Marks::build(&source)?, name.to_owned(), Data::of(&[("k", "välue")]))
}

fn live(value: Value) -> LiveSecret {
    serde_json::from_value(value).unwrap()
}

fn desired() -> Desired {
    build(&plan(), "s").unwrap()
}

#[test]
fn a_new_secret_has_our_marks_over_the_users() {
    let text = serde_json::to_value(desired().to_new()).unwrap();
    assert_eq!(
        text,
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"k": "dsOkbHVl"},
            "metadata": {
                "name": "s",
                "labels": {"mine": "1", LABEL_CONTAINER_NAME: "main", LABEL_REMOTE_ID: "r1"},
                "annotations": {"note": "x", ANNOTATION_WRITTEN_BY: "q"},
            },
        })
    );
}

#[test]
fn rules_are_checked_before_any_request() {
    assert!(build(&plan(), "s_1").unwrap_err().contains("no name of a Secret"));
    let of_length = |length: usize, versioned: bool| {
        let mut plan = plan();
        plan.containers.get_mut("main").unwrap().files.get_mut("output.json").unwrap().versioned = versioned;
        build(&plan, &"s".repeat(length)).is_ok()
    };
    assert_eq!([of_length(253, false), of_length(254, false), of_length(242, true), of_length(243, true)], [true, false, true, false]);
    let mut bad_label = plan();
    let file = |plan: &mut Plan| plan.containers.get_mut("main").unwrap().files.get_mut("output.json").unwrap().clone();
    let mut secret_plan = file(&mut bad_label);
    secret_plan.labels.insert("a b".into(), "c".into());
    bad_label.containers.get_mut("main").unwrap().files.insert("output.json".into(), secret_plan);
    assert!(build(&bad_label, "s").unwrap_err().contains("not a label key"));
}

#[test]
fn names_of_indexed_jobs_end_in_the_index() {
    let secret_plan = SecretPlan { name: "s".into(), ..SecretPlan::default() };
    assert_eq!(base_name(&secret_plan, None), "s");
    assert_eq!(base_name(&secret_plan, Some(12)), "s-12");
}

#[test]
fn a_name_has_one_output_and_one_index() {
    let entry = |name: &str, fan_out, versioned| json!({"name": name, "fanOut": fan_out, "versioned": versioned});
    let plan: Plan = serde_json::from_value(json!({"quarksJob": "q", "uid": "u", "run": 1, "indexed": true, "containers": {
        "c": {"files": {"f": entry("a", true, false), "g": entry("a-1", false, false), "h": entry("a-1-b", true, false)}},
        "d": {"files": {"f": entry("v", true, true), "g": entry("v-1", false, false), "h": entry("v-2", false, true)},
            "log": entry("a-d", false, false)},
        "e": {"files": {"f": entry("i0", true, false), "g": entry("i0-1", false, true), "h": entry("w", true, true), "i": entry("w-1-b", true, false)}},
    }}))
    .unwrap();
    let [c, d, e] = ["c", "d", "e"].map(|container| &plan.containers[container].files);
    for (secret_plan, index, key, is_free) in [
        // The keys of `a`, by index: what `a-1` is at the other indexes is not theirs.
        (&c["f"], 1, "0", false),
        (&c["f"], 1, "12", false),
        // In one pod both names are known, and are compared elsewhere.
        (&c["f"], 1, "1", true),
        (&c["f"], 0, "0", true),
        (&c["f"], 1, "k", true),
        (&c["f"], 1, "00", true),
        (&c["f"], 1, "4294967296", true),
        // `a-1-b` is a fan-out, `a-d` a log.
        (&c["f"], 1, "b-0-k", false),
        (&c["f"], 1, "b-0", true),
        (&c["f"], 1, "b-1-k", true),
        // The longer name keeps its own.
        (&c["h"], 0, "k", true),
        // A version has another name than what is not versioned, but for keys that end like one.
        (&d["f"], 1, "0", true),
        (&d["f"], 2, "0", false),
        (&e["f"], 1, "0", true),
        (&e["f"], 1, "0-v1", false),
        (&e["f"], 1, "0-v7", false),
        (&e["f"], 1, "1-v7", true),
        (&e["f"], 1, "0-v07", true),
        (&e["f"], 1, "b-0-k-v1", true),
        (&e["h"], 1, "b-0", false),
        (&e["h"], 1, "b-1", true),
    ] {
        let source = Source { plan: &plan, container: "c", container_plan: &plan.containers["c"], secret_plan };
        let name = format!("{}-{index}-{key}", secret_plan.name);
        assert_eq!(check_free(&source, Some(index), &name).is_ok(), is_free, "{name}");
        assert_eq!(check_free(&source, None, &name), Ok(()), "not Indexed");
    }
}

/// All that three entries of any kind can make at three indexes: no name comes from two pods.
#[test]
fn no_name_comes_from_two_pods() {
    let keys = ["0", "1", "2", "0-0", "1-2", "b-0", "b-1", "b-0-0", "b-2-1", "v1", "0-v1", "1-v2", "b-v1", "b-0-v1", "b-1-v2", "b-0-k-v1"];
    for kinds in 0..64 {
        let entry =
            |at: u32, name: &str| json!({"name": name, "fanOut": kinds >> (2 * at) & 1 == 1, "versioned": kinds >> (2 * at) & 2 == 2});
        let files = json!({"f": entry(0, "a"), "g": entry(1, "a-1"), "h": entry(2, "a-1-b")});
        let plan = json!({"quarksJob": "q", "uid": "u", "run": 1, "indexed": true, "containers": {"c": {"files": files}}});
        let plan: Plan = serde_json::from_value(plan).unwrap();
        let mut made: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
        let container_plan = &plan.containers["c"];
        for (secret_plan, index) in container_plan.files.values().flat_map(|secret_plan| [0, 1, 2].map(|index| (secret_plan, index))) {
            let source = Source { plan: &plan, container: "c", container_plan, secret_plan };
            let base = base_name(secret_plan, Some(index));
            let names = if secret_plan.fan_out { keys.map(|key| format!("{base}-{key}")).to_vec() } else { vec![base] };
            for name in names.into_iter().filter(|name| check_free(&source, Some(index), name).is_ok()) {
                let versions = [1, 2].map(|version| version_name(&name, version)).to_vec();
                for name in if secret_plan.versioned { versions } else { vec![name] } {
                    let other = made.insert(name.clone(), index);
                    assert!(other.is_none_or(|other| other == index), "{kinds}: {name} by {other:?} and {index}");
                }
            }
        }
    }
}

#[test]
fn the_operators_own_secrets_are_no_outputs() {
    for (name, versioned, is_free) in [
        ("quarks-job-sidecar-token", false, false),
        ("quarks-job-config-key", false, false),
        ("quarks-job-config-key", true, false),
        ("quarks-job-config-keys", false, true),
    ] {
        let secret_plan = SecretPlan { name: "quarks-job-config".into(), fan_out: true, versioned, ..SecretPlan::default() };
        let (plan, container_plan) = (Plan::default(), ContainerPlan::default());
        let source = Source { plan: &plan, container: "c", container_plan: &container_plan, secret_plan: &secret_plan };
        assert_eq!(check_free(&source, None, name).is_ok(), is_free, "{name}");
    }
}

#[test]
fn only_our_own_is_touched() {
    let ours = json!({LABEL_CONTAINER_NAME: "main"});
    for (labels, annotations, is_ours) in [
        (json!({}), json!({ANNOTATION_WRITTEN_BY: "q"}), true),
        (json!({LABEL_CONTAINER_NAME: "other"}), json!({ANNOTATION_WRITTEN_BY: "q"}), true),
        (ours.clone(), json!({ANNOTATION_WRITTEN_BY: "q"}), true),
        (ours.clone(), json!({}), true),
        (ours.clone(), Value::Null, true),
        (ours, json!({ANNOTATION_WRITTEN_BY: "p"}), false),
        (json!({LABEL_CONTAINER_NAME: "main", LABEL_SECRET_KIND: "versionedSecret"}), json!({}), false),
        (json!({LABEL_SECRET_KIND: "versionedSecret"}), json!({ANNOTATION_WRITTEN_BY: "q"}), false),
        (json!({LABEL_CONTAINER_NAME: "other"}), json!({}), false),
        (json!({}), json!({}), false),
        (Value::Null, json!({ANNOTATION_WRITTEN_BY: ""}), false),
    ] {
        let found = live(json!({"metadata": {"name": "s", "labels": labels, "annotations": annotations}, "data": {"k": "eA=="}}));
        let question = format!("{found:?}");
        let decision = decide_existing(found, &desired(), "q", "main");
        assert_eq!(matches!(decision, Existing::Update(_)), is_ours, "{question}");
        assert_eq!(matches!(decision, Existing::Conflict(_)), !is_ours, "{question}");
    }
}

#[test]
fn an_update_keeps_what_others_put_there() {
    let found = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "example.com/own", "data": {"old": "eA==", "k": "eA=="},
        "metadata": {
            "name": "s", "namespace": "ns", "uid": "1", "resourceVersion": "7", "creationTimestamp": "t", "finalizers": ["f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "2", "blockOwnerDeletion": true}],
            "labels": {"theirs": "2", "mine": "0"}, "annotations": {"theirs": "3", ANNOTATION_WRITTEN_BY: "q"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:data": {}}}],
        },
    });
    let Existing::Update(update) = decide_existing(live(found), &desired(), "q", "main") else { panic!("an update") };
    assert_eq!(
        serde_json::to_value(update.with_data(&desired().data)).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "example.com/own", "data": {"k": "dsOkbHVl"},
            "metadata": {
                "name": "s", "namespace": "ns", "uid": "1", "resourceVersion": "7", "creationTimestamp": "t", "finalizers": ["f"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "2", "blockOwnerDeletion": true}],
                "labels": {"theirs": "2", "mine": "1", LABEL_CONTAINER_NAME: "main", LABEL_REMOTE_ID: "r1"},
                "annotations": {"theirs": "3", "note": "x", ANNOTATION_WRITTEN_BY: "q"},
            },
        })
    );
}

#[test]
fn equal_content_is_no_write_and_immutable_is_a_conflict() {
    let mut value = serde_json::to_value(desired().to_new()).unwrap();
    value["metadata"]["labels"]["theirs"] = json!("2");
    assert_eq!(decide_existing(live(value.clone()), &desired(), "q", "main"), Existing::Same);
    value["immutable"] = json!(true);
    assert_eq!(decide_existing(live(value.clone()), &desired(), "q", "main"), Existing::Same);
    value["data"]["k"] = json!("eA==");
    assert!(
        matches!(decide_existing(live(value.clone()), &desired(), "q", "main"), Existing::Conflict(text) if text.contains("immutable"))
    );
    value["metadata"]["deletionTimestamp"] = json!("t");
    assert_eq!(decide_existing(live(value), &desired(), "q", "main"), Existing::BeingDeleted);
}

#[test]
fn debug_shows_no_data() {
    let shown = format!("{:?} {:?}", desired(), live(serde_json::to_value(desired().to_new()).unwrap()));
    assert!(!shown.contains("dsOkbHVl") && !shown.contains("lue"), "{shown}");
}
