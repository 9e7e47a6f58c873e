use serde_json::json;

use crate::api::{Job, Namespace, QuarksJob};

use super::*;

fn qjob(namespace: &str, name: &str) -> Arc<QuarksJobView> {
    let object = json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}")}});
    Arc::new(QuarksJobView::from(&serde_json::from_value::<QuarksJob>(object).expect("decodes")))
}

fn job(namespace: &str, name: &str, owner: &str) -> Arc<JobView> {
    let owner = json!([{"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob", "name": owner, "uid": format!("{namespace}-{owner}"), "controller": true}]);
    let object = json!({"metadata": {"namespace": namespace, "name": name, "uid": "u", "ownerReferences": owner}});
    Arc::new(JobView::from(serde_json::from_value::<Job>(object).expect("decodes")))
}

fn namespace(name: &str, id: &str) -> Arc<NamespaceView> {
    let object = json!({"metadata": {"name": name, "labels": {"quarks.cloudfoundry.org/monitored": id}}});
    Arc::new(NamespaceView::from(serde_json::from_value::<Namespace>(object).expect("decodes")))
}

fn names(keys: &[ObjectKey]) -> String {
    let mut names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    names.join(" ")
}

fn replaced_qjobs(index: &mut Index, scope: &str, objects: &[(&str, &str)]) -> String {
    let views = objects.iter().map(|(namespace, name)| qjob(namespace, name)).collect();
    names(&index.apply(scope, Change::QuarksJob(WatchEvent::Replaced(views))).dirty)
}

fn replaced_jobs(index: &mut Index, scope: &str, objects: &[(&str, &str, &str)]) -> String {
    let views = objects.iter().map(|(namespace, name, owner)| job(namespace, name, owner)).collect();
    names(&index.apply(scope, Change::Job(WatchEvent::Replaced(views))).dirty)
}

fn fixed() -> Index {
    Index::fixed(&["a".to_owned(), "b".to_owned()], "s")
}

#[test]
fn nothing_is_in_before_all_three_kinds_of_all_namespaces() {
    let mut index = Index::new("default");
    replaced_qjobs(&mut index, "", &[("a", "q")]);
    replaced_jobs(&mut index, "", &[]);
    assert!(!index.is_in("a") && !index.is_any_in() && index.monitored("a").is_none());
    index.apply("", Change::Namespace(WatchEvent::Replaced(vec![namespace("a", "default"), namespace("b", "other")])));
    assert!(index.is_in("a") && index.is_any_in() && index.is_synced());
    assert!(index.monitored("a").is_some() && index.monitored("b").is_none());
    assert!(!index.is_out_of_reach("a") && index.is_out_of_reach("b") && index.is_out_of_reach("c"));
}

#[test]
fn a_fixed_namespace_is_in_by_itself_and_its_keys_are_looked_at_then() {
    let mut index = fixed();
    assert!(!index.is_any_in() && index.monitored("a").is_none());
    assert_eq!(replaced_qjobs(&mut index, "a", &[("a", "q")]), "a/q");
    assert!(!index.is_in("a"));
    assert_eq!(replaced_jobs(&mut index, "a", &[]), "a/q", "what came first is looked at again");
    assert!(index.is_in("a") && index.is_any_in() && !index.is_in("b") && !index.is_synced());
    assert_eq!(index.monitored("a").and_then(|found| found.service_account.as_deref()), Some("s"));
    assert!(index.monitored("b").is_none() && index.monitored("c").is_none() && !index.is_out_of_reach("b"));
    assert_eq!(index.monitored_with_account(), [("a".to_owned(), "s".to_owned())]);
    replaced_jobs(&mut index, "b", &[]);
    replaced_qjobs(&mut index, "b", &[]);
    assert!(index.is_synced() && index.monitored("b").is_some());
}

#[test]
fn a_fresh_list_of_a_namespace_leaves_the_others_alone() {
    let mut index = fixed();
    replaced_qjobs(&mut index, "a", &[("a", "q"), ("a", "r")]);
    replaced_qjobs(&mut index, "b", &[("b", "q")]);
    replaced_jobs(&mut index, "a", &[("a", "j", "q")]);
    replaced_jobs(&mut index, "b", &[("b", "j", "q")]);
    let has_job = |index: &Index, owner: &str| !index.jobs_of(&owner[..1], &Uid::from(owner)).is_empty();

    assert_eq!(replaced_qjobs(&mut index, "a", &[("a", "q")]), "a/q a/r");
    assert!(index.quarks_job(&ObjectKey::new("a", "r")).is_none() && index.quarks_job(&ObjectKey::new("b", "q")).is_some());
    assert_eq!(replaced_jobs(&mut index, "a", &[]), "a/q");
    assert!(!has_job(&index, "a-q") && has_job(&index, "b-q"));
    assert_eq!(index.sizes(), (2, 1));
    // Without scopes a list is all there is.
    let mut index = Index::new("default");
    replaced_jobs(&mut index, "", &[("a", "j", "q"), ("b", "j", "q")]);
    assert_eq!(replaced_jobs(&mut index, "", &[("b", "j", "q")]), "a/q b/q");
    assert!(!has_job(&index, "a-q") && has_job(&index, "b-q"));
}

#[test]
fn a_namespace_that_comes_to_be_served_is_in_when_its_objects_were_listed_after_that() {
    let mut index = Index::new("default");
    let serve =
        |index: &mut Index, name: &str, id: &str| index.apply("", Change::Namespace(WatchEvent::Applied(namespace(name, id)))).list_all_for;
    let first = vec![namespace("a", "default"), namespace("b", "other")];
    assert_eq!(index.apply("", Change::Namespace(WatchEvent::Replaced(first))).list_all_for, Some(1), "QuarksJobs wait for it");
    replaced_qjobs(&mut index, "", &[("a", "q")]);
    replaced_jobs(&mut index, "", &[]);
    assert!(index.has_listed(1).is_empty() && index.is_in("a"), "the first lists have all");

    assert_eq!(serve(&mut index, "b", "default"), Some(2));
    assert!(index.monitored("b").is_none() && !index.is_in("b") && index.monitored("a").is_some() && index.is_synced());
    assert!(!index.is_out_of_reach("b"), "not known yet");
    assert_eq!(serve(&mut index, "a", "default"), None, "no news");
    assert_eq!(serve(&mut index, "c", "default"), Some(3));
    // A list that was begun too early is none.
    assert!(index.has_listed(1).is_empty() && !index.is_in("b"));
    replaced_qjobs(&mut index, "", &[("a", "q"), ("b", "q"), ("c", "q")]);
    assert_eq!(names(&index.has_listed(2)), "b/q");
    assert!(index.monitored("b").is_some() && index.monitored("c").is_none());
    assert_eq!(names(&index.has_listed(3)), "c/q");

    // Away, and back before it was listed.
    assert_eq!(serve(&mut index, "b", "other"), None);
    assert!(index.is_in("b") && index.is_out_of_reach("b"));
    assert_eq!(serve(&mut index, "b", "default"), Some(4));
    assert_eq!(serve(&mut index, "b", "other"), None);
    assert_eq!(serve(&mut index, "b", "default"), Some(5));
    assert!(index.has_listed(4).is_empty() && !index.is_in("b"));
    assert_eq!(names(&index.has_listed(5)), "b/q");
    // The same in a fresh list of Namespaces.
    let fresh = vec![namespace("a", "default"), namespace("b", "default"), namespace("d", "default")];
    let changed = index.apply("", Change::Namespace(WatchEvent::Replaced(fresh)));
    assert_eq!((changed.list_all_for, names(&changed.dirty)), (Some(6), "c/q".to_owned()));
    assert!(!index.is_in("d") && index.is_out_of_reach("c"));
}

#[test]
fn a_key_that_stands_for_another_object_or_none_is_said_to() {
    let mut index = Index::new("default");
    let with_uid = |name: &str, uid: &str| {
        let object = json!({"metadata": {"namespace": "a", "name": name, "uid": uid}});
        Arc::new(QuarksJobView::from(&serde_json::from_value::<QuarksJob>(object).expect("decodes")))
    };
    let mut renewed = |event| names(&index.apply("", Change::QuarksJob(event)).renewed);
    assert_eq!(renewed(WatchEvent::Replaced(vec![with_uid("p", "1"), with_uid("q", "1"), with_uid("r", "1")])), "", "nothing was known");
    assert_eq!(renewed(WatchEvent::Applied(with_uid("q", "1"))), "");
    assert_eq!(renewed(WatchEvent::Applied(with_uid("q", "2"))), "a/q", "in one event");
    assert_eq!(renewed(WatchEvent::Deleted(ObjectKey::new("a", "q"))), "a/q");
    assert_eq!(renewed(WatchEvent::Deleted(ObjectKey::new("a", "q"))), "", "it is not ours any more");
    assert_eq!(renewed(WatchEvent::Applied(with_uid("q", "3"))), "", "said before");
    assert_eq!(renewed(WatchEvent::Replaced(vec![with_uid("p", "1"), with_uid("q", "4")])), "a/q a/r");
}

#[test]
fn jobs_are_found_by_namespace_and_uid() {
    let mut index = Index::new("default");
    let owner = Uid::from("a-q");
    let stranger = JobView { key: ObjectKey::new("b", "j"), ..(*job("a", "j", "q")).clone() };
    index.apply("", Change::Job(WatchEvent::Replaced(vec![job("a", "j", "q"), Arc::new(stranger)])));
    assert_eq!(index.jobs_of("a", &owner).len(), 1);
    assert!(index.jobs_of("c", &owner).is_empty());
    index.apply("", Change::Job(WatchEvent::Deleted(ObjectKey::new("a", "j"))));
    assert!(index.jobs_of("a", &owner).is_empty());
}

#[test]
fn only_needs_that_may_have_changed_are_told() {
    let waiting = |name: &str, is_needed: bool| {
        let mut view = (*qjob("a", name)).clone();
        if is_needed {
            view.ready = Some(crate::views::ReadyView { is_true: false, reason: Some(crate::contract::reason::Reason::MissingReference) });
            view.references = [Reference { kind: ReferenceKind::Secret, name: "s".into(), is_optional: false, is_own: false }].into();
        }
        Change::QuarksJob(WatchEvent::Applied(Arc::new(view)))
    };
    let told = |index: &mut Index| -> Vec<(String, bool)> {
        assert_eq!(index.has_changed_needs(), !index.needs_changed.is_empty());
        index.take_changed_needs().into_iter().map(|((namespace, kind), is_needed)| (format!("{namespace} {kind:?}"), is_needed)).collect()
    };
    let secrets = |is_needed: bool| vec![("a Secret".to_owned(), is_needed)];
    let mut index = Index::new("default");
    index.apply("", waiting("q", true));
    assert_eq!(told(&mut index), secrets(false), "not yet served");
    index.apply("", Change::Namespace(WatchEvent::Replaced(vec![namespace("a", "default")])));
    replaced_jobs(&mut index, "", &[]);
    index.apply("", Change::QuarksJob(WatchEvent::Replaced(Vec::new())));
    told(&mut index);
    index.apply("", waiting("q", true));
    assert_eq!(told(&mut index), secrets(true));
    for change in [waiting("q", true), waiting("r", true), waiting("r", false), waiting("s", false)] {
        index.apply("", change);
        assert_eq!(told(&mut index), []);
    }
    index.apply("", Change::Namespace(WatchEvent::Applied(namespace("a", "other"))));
    assert_eq!(told(&mut index), secrets(false));
    index.apply("", Change::Namespace(WatchEvent::Applied(namespace("a", "default"))));
    assert_eq!(told(&mut index), secrets(false), "its objects are listed first");
    index.has_listed(2);
    assert_eq!(told(&mut index), secrets(true));
    index.apply("", waiting("q", false));
    assert_eq!(told(&mut index), secrets(false));
}
