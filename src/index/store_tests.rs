use serde_json::json;

use super::*;
use crate::api::{Job, Namespace, QuarksJob};

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
    names(&index.apply(scope, Change::QuarksJob(WatchEvent::Replaced(views))))
}

fn replaced_jobs(index: &mut Index, scope: &str, objects: &[(&str, &str, &str)]) -> String {
    let views = objects.iter().map(|(namespace, name, owner)| job(namespace, name, owner)).collect();
    names(&index.apply(scope, Change::Job(WatchEvent::Replaced(views))))
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
