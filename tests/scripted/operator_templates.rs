//! The real operator and what templates say, against the scripted API server: one template spelled in many ways, digests of another
//! algorithm, and references to the QuarksJob's own output.

use serde_json::{Value, json};

use crate::support::play::{self, path};
use crate::support::scene::{NAMESPACE, Scene, message, reason, uid};

const SETTLED: &str = "quarks.cloudfoundry.org/settled";

fn pod_spec(object: &mut Value) -> &mut Value {
    &mut object["spec"]["template"]["spec"]["template"]["spec"]
}

fn replaced(scene: &Scene, change: impl FnOnce(&mut Value)) {
    let mut object = scene.quarks_job("q");
    object["spec"]["trigger"]["strategy"] = json!("once");
    change(&mut object);
    scene.server.api().replace(&path("quarksjobs", NAMESPACE, "q"), object);
    scene.operator.wait_for("the generation observed", || {
        let object = scene.quarks_job("q");
        (object["status"]["observedGeneration"] == object["metadata"]["generation"]).then_some(())
    });
    scene.wait_quiet();
}

type Change = fn(&mut Value);

/// What an API server, a client or a template engine makes of one and the same template.
const SPELLINGS: [(&str, Change); 10] = [
    ("creationTimestamp", |object| {
        object["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
        object["spec"]["template"]["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    }),
    ("cpu as a number", |object| pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": 1, "memory": "1Gi"}})),
    ("cpu in thousandths", |object| pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": "1000m", "memory": "1Gi"}})),
    ("memory in other units", |object| {
        pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "1024Mi"}})
    }),
    ("empty requests", |object| {
        pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {}});
    }),
    ("empty lists", |object| {
        pod_spec(object)["containers"][0]["env"] = json!([]);
        pod_spec(object)["volumes"] = json!([]);
        pod_spec(object)["initContainers"] = json!([]);
    }),
    ("nulls", |object| {
        pod_spec(object)["volumes"] = Value::Null;
        pod_spec(object)["containers"][0]["args"] = Value::Null;
        object["spec"]["template"]["spec"]["backoffLimit"] = Value::Null;
    }),
    ("empty maps", |object| {
        pod_spec(object)["nodeSelector"] = json!({});
        pod_spec(object)["securityContext"] = json!({});
        object["spec"]["template"]["metadata"] = json!({"labels": {}, "annotations": {}});
    }),
    ("metadata with nothing in it", |object| object["spec"]["template"]["metadata"] = json!({"creationTimestamp": null})),
    ("empty maps and lists of a container", |object| {
        pod_spec(object)["containers"][0]["securityContext"] = json!({});
        pod_spec(object)["containers"][0]["envFrom"] = json!([]);
    }),
];

fn with_resources(object: &mut Value) {
    pod_spec(object)["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
}

#[test]
fn the_same_template_spelled_otherwise_does_not_run_once_again() {
    for is_backwards in [false, true] {
        for (what, spell) in SPELLINGS {
            let scene = Scene::new(&format!("spelling-{}-{is_backwards}", what.replace(' ', "-")));
            let _jobs = play::auto_complete(scene.server.api());
            scene.create("q", "once", |object| {
                with_resources(object);
                if is_backwards {
                    spell(object);
                }
            });
            let plain = {
                let mut object = scene.quarks_job("q");
                object = play_again(object);
                with_resources(&mut object);
                object["spec"]["template"].clone()
            };
            scene.operator.start();
            scene.wait_settled("q", 1);
            replaced(&scene, |object| {
                object["spec"]["template"] = plain.clone();
                if !is_backwards {
                    spell(object);
                }
            });
            assert_eq!(scene.created().len(), 1, "{what}, backwards: {is_backwards}");
            assert_eq!(scene.quarks_job("q")["spec"]["trigger"]["strategy"], "once", "left as it is, {what}");
            scene.wait_event("q", "AlreadyRan");
        }
    }
}

/// The object as `Scene::create` makes it, with this one's metadata.
fn play_again(object: Value) -> Value {
    let mut plain = play::quarks_job("q", "once");
    plain["spec"]["template"]["spec"]["template"]["metadata"]["labels"]["delete"] = json!("pod");
    plain["metadata"] = object["metadata"].clone();
    plain
}

#[test]
fn a_template_that_means_something_else_does_run_once_again() {
    let changes: [(&str, Change); 8] = [
        ("another quantity", |object| pod_spec(object)["containers"][0]["resources"]["limits"]["cpu"] = json!("2")),
        ("another unit", |object| pod_spec(object)["containers"][0]["resources"]["limits"]["memory"] = json!("1G")),
        ("an argument that looks like a quantity", |object| pod_spec(object)["containers"][0]["args"] = json!(["1000m"])),
        ("a label that looks like a quantity", |object| {
            object["spec"]["template"]["spec"]["template"]["metadata"]["labels"]["cpu"] = json!("1000m");
        }),
        ("another order", |object| pod_spec(object)["containers"][0]["command"] = json!(["b", "a"])),
        ("an empty directory", |object| pod_spec(object)["volumes"] = json!([{"name": "v", "emptyDir": {"medium": "Memory"}}])),
        ("a variable", |object| pod_spec(object)["containers"][0]["env"] = json!([{"name": "limits", "value": "1000m"}])),
        ("a field that is false", |object| pod_spec(object)["enableServiceLinks"] = json!(false)),
    ];
    let scene = Scene::new("meaning");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "once", |object| {
        with_resources(object);
        pod_spec(object)["containers"][0]["args"] = json!(["1"]);
        pod_spec(object)["containers"][0]["command"] = json!(["a", "b"]);
        pod_spec(object)["containers"][0]["env"] = json!([{"name": "limits", "value": "1"}]);
        object["spec"]["template"]["spec"]["template"]["metadata"]["labels"]["cpu"] = json!("1");
    });
    scene.operator.start();
    scene.wait_settled("q", 1);
    for (runs, (what, change)) in (2..).zip(changes) {
        let mut object = scene.quarks_job("q");
        object["spec"]["trigger"]["strategy"] = json!("once");
        change(&mut object);
        scene.server.api().replace(&path("quarksjobs", NAMESPACE, "q"), object);
        scene
            .operator
            .wait_for(&format!("another run: {what}"), || (scene.quarks_job("q")["status"]["lastRun"]["run"] == runs).then_some(()));
        scene.wait_settled("q", runs);
    }
}

#[test]
fn a_digest_of_another_algorithm_takes_a_baseline_and_runs_nothing() {
    let scene = Scene::new("upgrade");
    let _jobs = play::auto_complete(scene.server.api());
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.wait_settled("q", 1);
    scene.wait_jobs(0);
    scene.operator.kill9();
    let digest = "sha256:00112233445566778899aabbccddeeff";
    // As the version before has left it.
    let own = uid(&scene.quarks_job("q"));
    let old = json!({"uid": own, "runs": 1, "once": digest, "outcome": "Succeeded", "reason": "Completed",
        "trigger": "once"})
    .to_string();
    scene.patch("q", json!({"metadata": {"annotations": {SETTLED: old}}, "spec": {"trigger": {"strategy": "once"}}}));
    scene.server.api().patch(&(path("quarksjobs", NAMESPACE, "q") + "/status"), &json!({"status": {"settled": old}}));
    scene.operator.start();
    scene.operator.wait_for("a new baseline", || {
        let object = scene.quarks_job("q");
        let marker: Value = serde_json::from_str(object["metadata"]["annotations"][SETTLED].as_str()?).ok()?;
        let once = marker["once"].as_str()?;
        (once != digest && marker["runs"] == 1).then_some(())
    });
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 1, "{}", scene.operator.log());
    let object = scene.quarks_job("q");
    assert_eq!((&object["status"]["runs"], &object["status"]["lastRun"]["run"]), (&json!(1), &json!(1)));
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "once"}, "template": {"spec": {"backoffLimit": 1}}}}));
    scene.wait_settled("q", 2);
    assert_eq!(scene.created().len(), 2);
}

// --- its own output -----------------------------------------------------------------------------------------

/// A one-off that refers to its own output.
fn uses_its_own(object: &mut Value, is_optional: bool) {
    object["spec"]["output"] = json!({"outputMap": {"main": {"output.json": {"name": "result"}}}});
    pod_spec(object)["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "result", "optional": is_optional}}]);
}

#[test]
fn a_reference_to_its_own_output_is_told_before_the_first_run() {
    for on_change in [false, true] {
        let scene = Scene::new(&format!("own-optional-{on_change}"));
        scene.create("q", "once", |object| {
            uses_its_own(object, true);
            object["spec"]["updateOnConfigChange"] = json!(on_change);
        });
        scene.operator.start();
        scene.wait_jobs(1);
        // Nobody finishes the Job: it is told now or never.
        assert!(scene.wait_event("q", "SelfReference").contains("result"), "Event SelfReference does not name the Secret");
        assert!(scene.quarks_job("q")["status"]["lastRun"].is_null(), "it ran: {}", scene.quarks_job("q")["status"]["lastRun"]);
    }
}

#[test]
fn an_errand_that_refers_to_its_own_output_is_told_before_it_is_asked() {
    let scene = Scene::new("own-errand");
    scene.create("q", "manual", |object| uses_its_own(object, true));
    scene.operator.start();
    assert!(scene.wait_event("q", "SelfReference").contains("result"), "Event SelfReference does not name the Secret");
    assert_eq!(scene.created().len(), 0);
}

#[test]
fn one_that_waits_for_its_own_output_is_told_that_it_waits_for_ever() {
    let scene = Scene::new("own-missing");
    scene.create("q", "once", |object| uses_its_own(object, false));
    scene.operator.start();
    scene.operator.wait_for("the missing reference", || (reason(&scene.quarks_job("q"), "Ready") == "MissingReference").then_some(()));
    let said = message(&scene.quarks_job("q"), "Ready");
    assert!(said.contains("result"), "{said}");
    assert!(["never", "itself", "own output"].iter().any(|word| said.contains(word)), "it never comes by itself: {said}");
    assert_eq!(scene.created().len(), 0);
    // It does start when somebody makes the Secret.
    scene.server.api().create(&path("secrets", NAMESPACE, ""), json!({"metadata": {"name": "result"}, "data": {"a": "YQ=="}}));
    scene.wait_jobs(1);
}
