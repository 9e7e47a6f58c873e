use std::sync::Arc;

use serde_json::{Value, json};

use crate::index::passed_over::PASSED_OVER;
use crate::index::{Change, Changed};
use crate::watch::WatchEvent;

use super::*;

const GROUP_VERSION: &str = "quarks.cloudfoundry.org/v1alpha1";

/// Serves `team`; `former` was served; `foreign` never was. All lists are in.
struct Rig(SharedIndex);

impl Rig {
    fn new() -> Self {
        let rig = Self(SharedIndex::new(Index::new("here")));
        let views = [("team", Some("here")), ("former", Some("here"))].map(|(name, id)| rig.namespace(name, id).expect("ours"));
        let changed = rig.apply(Change::Namespace(WatchEvent::Replaced(views.into())));
        assert_eq!(changed.list_all_for, Some(1), "QuarksJobs wait for the Namespaces");
        let views =
            [("team", "q", "u1"), ("former", "f", "u2")].map(|(namespace, name, uid)| rig.quarks_job(namespace, name, uid).expect("ours"));
        rig.apply(Change::QuarksJob(WatchEvent::Replaced(views.into())));
        let job = rig.job("former", "f1", &owned("f", "u2")).expect("ours");
        rig.apply(Change::Job(WatchEvent::Replaced(vec![job])));
        let view = rig.namespace("former", None).expect("it was ours");
        assert_eq!(rig.apply(Change::Namespace(WatchEvent::Applied(view))).list_all_for, None);
        rig
    }

    fn apply(&self, change: Change) -> Changed {
        self.0.write().apply("", change)
    }

    fn namespace(&self, name: &str, id: Option<&str>) -> Option<Arc<NamespaceView>> {
        let object = json!({"metadata": {"name": name, "labels": id.map(|id| json!({"quarks.cloudfoundry.org/monitored": id}))}});
        self.0.decode_namespace(object.to_string().as_bytes()).expect("decodes").map(Arc::new)
    }

    fn quarks_job(&self, namespace: &str, name: &str, uid: &str) -> Option<Arc<QuarksJobView>> {
        let object = json!({"metadata": {"namespace": namespace, "name": name, "uid": uid}});
        self.0.decode_quarks_job(object.to_string().as_bytes()).expect("decodes").map(Arc::new)
    }

    fn job(&self, namespace: &str, name: &str, owners: &Value) -> Option<Arc<JobView>> {
        let object = json!({"metadata": {"namespace": namespace, "name": name, "uid": name, "ownerReferences": owners}});
        self.0.decode_job(object.to_string().as_bytes()).expect("decodes").map(Arc::new)
    }
}

fn reference(api_version: &str, kind: &str, name: &str, uid: &str, controller: bool) -> Value {
    json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": controller}])
}

fn owned(name: &str, uid: &str) -> Value {
    reference(GROUP_VERSION, "QuarksJob", name, uid, true)
}

#[test]
fn of_annotations_of_a_namespace_only_that_it_gives_pods_their_users_is_kept() {
    let rig = Rig::new();
    for (annotations, expected) in [
        (Value::Null, false),
        (json!({"a": "b"}), false),
        (json!({"openshift.io/sa.scc.uid-range": "1000690000/10000"}), true),
        (json!({"openshift.io/sa.scc.uid-range": ""}), true),
    ] {
        let object = json!({"metadata": {"name": "team", "annotations": annotations}});
        let view = rig.0.decode_namespace(object.to_string().as_bytes()).expect("decodes").expect("it was ours");
        assert_eq!(view.assigns_users, expected, "{object}");
    }
}

#[test]
fn of_jobs_only_those_of_known_quarks_jobs_in_the_same_served_namespace_are_kept() {
    let rig = Rig::new();
    let cases = [
        ("team", owned("q", "u1"), true),
        ("team", reference("quarks.cloudfoundry.org/v2", "QuarksJob", "q", "u1", true), true),
        // Nobody's, or others'.
        ("team", Value::Null, false),
        ("team", json!([]), false),
        ("team", reference("batch/v1", "CronJob", "q", "u1", true), false),
        ("team", reference(GROUP_VERSION, "QuarksJob", "q", "u1", false), false),
        // A group that only begins like ours.
        ("team", reference("quarks.cloudfoundry.org.evil/v1", "QuarksJob", "q", "u1", true), false),
        ("team", reference("quarks.cloudfoundry.org", "QuarksJob", "q", "u1", true), false),
        // Claims.
        ("team", owned("q", "unknown"), false),
        ("team", owned("other", "u1"), false),
        ("foreign", owned("q", "u1"), false),
        ("former", owned("q", "u1"), false),
        // Nothing new where the label is gone.
        ("former", owned("f", "u2"), false),
    ];
    for (namespace, owners, kept) in cases {
        assert_eq!(rig.job(namespace, "j", &owners).is_some(), kept, "{namespace} {owners}");
    }
    assert!(rig.job("former", "f1", &owned("f", "u2")).is_some(), "it was kept before");
    assert!(rig.job("former", "f1", &Value::Null).is_none(), "it has lost its owner");
}

#[test]
fn of_quarks_jobs_only_those_of_served_namespaces_are_kept_and_known_ones() {
    let rig = Rig::new();
    let cases = [
        ("team", "new", "u9", true),
        ("foreign", "q", "u1", false),
        ("former", "f", "u2", true),
        ("former", "f", "u9", false),
        ("former", "new", "u9", false),
    ];
    for (namespace, name, uid, kept) in cases {
        assert_eq!(rig.quarks_job(namespace, name, uid).is_some(), kept, "{namespace}/{name} {uid}");
    }
    assert!(rig.namespace("foreign", None).is_none() && rig.namespace("foreign", Some("there")).is_none());
    assert!(rig.namespace("foreign", Some("here")).is_some() && rig.namespace("former", Some("there")).is_some());
}

#[test]
fn a_long_annotation_is_as_good_as_none() {
    let rig = Rig::new();
    for (filler, kept) in [(0, true), (20_000, false)] {
        let record = format!(r#"{{"run":1,"trigger":"now"{}}}"#, " ".repeat(filler));
        let object = json!({"metadata": {"namespace": "team", "name": "j", "uid": "j", "ownerReferences": owned("q", "u1"),
            "annotations": {"quarks.cloudfoundry.org/run": record}}});
        let view = rig.0.decode_job(object.to_string().as_bytes()).expect("decodes").expect("ours");
        assert_eq!(view.record.is_some(), kept);
    }
}

#[test]
fn a_quarks_job_whose_jobs_were_passed_over_asks_for_them_once() {
    let rig = Rig::new();
    assert!(rig.job("team", "j", &owned("late", "u5")).is_none());
    assert!(rig.job("foreign", "j", &owned("stray", "u6")).is_none());
    let applied = |name: &str, uid: &str| {
        let view = rig.quarks_job("team", name, uid).expect("ours");
        rig.apply(Change::QuarksJob(WatchEvent::Applied(view))).list_jobs
    };
    assert!(!applied("other", "u7"), "nobody claimed it");
    assert!(applied("late", "u5"));
    assert!(!applied("late", "u5"), "not twice");
    assert!(!applied("stray", "u6"), "what is elsewhere is not its own");
    // In a list, too.
    assert!(rig.job("team", "j", &owned("listed", "u8")).is_none());
    let views = vec![rig.quarks_job("team", "listed", "u8").expect("ours")];
    assert!(rig.apply(Change::QuarksJob(WatchEvent::Replaced(views))).list_jobs);
}

#[test]
fn jobs_that_are_kept_or_not_served_are_not_asked_for_again() {
    let rig = Rig::new();
    assert!(rig.job("team", "j", &owned("q", "u1")).is_some());
    assert!(rig.job("former", "f1", &owned("x", "u9")).is_none(), "kept before, and now another's");
    rig.apply(Change::QuarksJob(WatchEvent::Deleted(ObjectKey::new("team", "q"))));
    let back = rig.quarks_job("team", "q", "u1").expect("ours");
    assert!(!rig.apply(Change::QuarksJob(WatchEvent::Applied(back))).list_jobs, "its Job was not passed over");
    assert!(!rig.0.write().passed_over.take("former", "u9"));
}

#[test]
fn of_what_is_passed_over_only_the_newest_is_known() {
    let rig = Rig::new();
    for number in 0..=PASSED_OVER {
        assert!(rig.job("team", "j", &owned("x", &format!("x{number}"))).is_none());
        assert!(rig.job("team", "j", &owned("x", &format!("x{number}"))).is_none());
    }
    let mut index = rig.0.write();
    assert_eq!(index.passed_over.len(), PASSED_OVER);
    assert!(!index.passed_over.take("team", "x0") && index.passed_over.take("team", "x1"));
}
