//! Tables for `existing`.

use serde_json::{Value, json};

use crate::api::LABEL_REMOTE_ID;

use super::super::desired::tests::{desired, live};
use super::*;

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
