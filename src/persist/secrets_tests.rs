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
fn only_our_own_is_touched() {
    let ours = json!({LABEL_CONTAINER_NAME: "main"});
    for (labels, annotations, is_ours) in [
        (json!({}), json!({ANNOTATION_WRITTEN_BY: "q"}), true),
        (json!({LABEL_CONTAINER_NAME: "other"}), json!({ANNOTATION_WRITTEN_BY: "q"}), true),
        (ours.clone(), json!({ANNOTATION_WRITTEN_BY: "q"}), true),
        (ours.clone(), json!({}), true),
        (ours.clone(), Value::Null, true),
        (ours, json!({ANNOTATION_WRITTEN_BY: "p"}), false),
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
