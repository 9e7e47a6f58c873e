//! Tables for `desired`.

use serde_json::{Value, json};

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

pub fn live(value: Value) -> LiveSecret {
    serde_json::from_value(value).unwrap()
}

pub fn desired() -> Desired {
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
    assert!(build(&plan(), "s_1").unwrap_err().contains("not a valid Secret name"));
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
    assert!(build(&bad_label, "s").unwrap_err().contains("not a valid label key"));
}

#[test]
fn debug_shows_no_data() {
    let shown = format!("{:?} {:?}", desired(), live(serde_json::to_value(desired().to_new()).unwrap()));
    assert!(!shown.contains("dsOkbHVl") && !shown.contains("lue"), "{shown}");
}
