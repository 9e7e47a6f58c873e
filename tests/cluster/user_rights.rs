//! What the optional roles and the policy for users grant, tried as these users: `view`, `edit`, and who may only trigger.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::admission::PROBE;
use crate::case::{Case, MANIFESTS, cluster, names_of_the_manifests, quarks_job, run, text, until};
use crate::files::{Folder, kubeconfig_with};
use crate::granted::binding;

const REQUESTED: &str = "quarks.cloudfoundry.org/run-requested";
const PARAMETERS: &str = "quarks.cloudfoundry.org/run-parameters";
const GROUP: &str = "quarks.cloudfoundry.org";
/// What each refusal of the policy says.
const POLICY: &str = "ValidatingAdmissionPolicy 'quarks-job-trigger-only'";
/// Which of its rules says so: what one forbids, another may forbid too.
const SPEC: &str = "of the spec it may set";
const STRATEGY: &str = "it may set trigger.strategy from manual or done to now";
const ANNOTATIONS: &str = "of the annotations it may set";
const LENGTH: &str = "must have 1 to 1,024 bytes";
const PARAMETERS_WITH: &str = "may change only with a new value";
const METADATA: &str = "of the metadata it may change";
const PARAMETERS_LENGTH: &str = "must have at most 16,384 bytes";
const ALL_LENGTH: &str = "must have at most 245,760 bytes";
const SERVED: &str = "must have another value than that of the last run";
const FIELDS: &str = "nobody may get or lose other fields";
const TIMES: &str = "no time may change";
/// And each refusal for a missing right.
const RBAC: &str = "system:serviceaccount:";

/// An account of the case's namespace.
struct Account<'a> {
    case: &'a Case,
    name: &'static str,
}

impl<'a> Account<'a> {
    /// With these ClusterRoles in the namespace.
    fn new(case: &'a Case, name: &'static str, roles: &[&str]) -> Self {
        case.kubectl(&["create", "serviceaccount", name]);
        for role in roles {
            case.apply(&binding("RoleBinding", "ClusterRole", &format!("{name}-{role}"), role, (&case.namespace, name)));
        }
        Self { case, name }
    }

    fn kubectl(&self, args: &[&str], input: Option<&Value>) -> Result<String, String> {
        let user = format!("--as=system:serviceaccount:{}:{}", self.case.namespace, self.name);
        self.case.try_kubectl(&[args, &[&user]].concat(), input)
    }

    fn patch(&self, name: &str, kind: &str, patch: &Value) -> Result<String, String> {
        self.kubectl(&["patch", "qjob", name, "--type", kind, "-p", &patch.to_string()], None)
    }

    fn may(&self, verb: &str, resource: &str) -> bool {
        self.kubectl(&["auth", "can-i", "--quiet", verb, resource], None).is_ok()
    }
}

// ------------------------------------------------------------------------------------------------------- view and edit

/// Taken away with the test. Nobody else may have made it.
struct Applied {
    file: &'static str,
    _turn: MutexGuard<'static, ()>,
}

/// One at a time: all have the same names.
static TURN: Mutex<()> = Mutex::new(());

impl Applied {
    fn new(file: &'static str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let _names = names_of_the_manifests();
        cluster(&["create", "-f", &format!("{MANIFESTS}/{file}")]);
        Self { file, _turn: turn }
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        let path = format!("{MANIFESTS}/{}", self.file);
        let _names = names_of_the_manifests();
        if let Err(error) = run(&["delete", "--ignore-not-found", "-f", &path], None) {
            eprintln!("{path} is left: {error}");
        }
    }
}

/// Verbs on resources of our group, also by a star.
fn verbs_of(role: &str) -> BTreeSet<(String, String)> {
    let role: Value = serde_json::from_str(&cluster(&["get", "clusterrole", role, "-o", "json"])).expect("JSON");
    let list = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };
    let rules = role["rules"].as_array().cloned().unwrap_or_default();
    let ours = rules.iter().filter(|rule| list(&rule["apiGroups"]).iter().any(|group| group == GROUP || group == "*"));
    ours.flat_map(|rule| {
        let (resources, verbs) = (list(&rule["resources"]), list(&rule["verbs"]));
        resources.into_iter().flat_map(move |resource| verbs.clone().into_iter().map(move |verb| (verb, resource.clone())))
    })
    .collect()
}

#[test]
fn view_and_edit_have_quarksjobs_and_view_writes_nothing() {
    let case = Case::new("user-roles");
    let reads: BTreeSet<(String, String)> = ["quarksjobs", "quarksjobs/status"]
        .into_iter()
        .flat_map(|resource| ["get", "list", "watch"].map(|verb| (verb.to_owned(), resource.to_owned())))
        .collect();
    let writes = ["create", "update", "patch", "delete", "deletecollection"];
    let viewer = Account::new(&case, "viewer", &["view"]);
    let editor = Account::new(&case, "editor", &["edit"]);
    assert!(!viewer.may("get", "quarksjobs") && !editor.may("create", "quarksjobs"), "granted by something else");
    let applied = Applied::new("components/user-roles/user-roles.yaml");
    until("the roles to be aggregated", || {
        (viewer.may("watch", "quarksjobs") && ["edit", "admin"].iter().all(|role| verbs_of(role).len() > reads.len())).then_some(())
    });
    assert_eq!(verbs_of("view"), reads);
    let all: BTreeSet<(String, String)> =
        reads.iter().cloned().chain(writes.map(|verb| (verb.to_owned(), "quarksjobs".to_owned()))).collect();
    for role in ["edit", "admin"] {
        assert_eq!(verbs_of(role), all, "{role}");
    }

    case.apply(&quarks_job("q", "manual", "true"));
    let note = json!({"metadata": {"annotations": {"a": "b"}}});
    let status = ["patch", "qjob", "q", "--subresource=status", "--type=merge", "-p", r#"{"status":{"runs":7}}"#];
    viewer.kubectl(&["get", "qjob", "q"], None).expect("it sees one");
    viewer.kubectl(&["get", "qjob"], None).expect("it lists");
    for (what, tried) in [
        ("create", viewer.kubectl(&["create", "-f", "-"], Some(&quarks_job("other", "manual", "true")))),
        ("patch", viewer.patch("q", "merge", &note)),
        ("annotate", viewer.kubectl(&["annotate", "qjob", "q", "--overwrite", &format!("{REQUESTED}=1")], None)),
        ("delete", viewer.kubectl(&["delete", "qjob", "q"], None)),
        ("delete all", viewer.kubectl(&["delete", "qjob", "--all"], None)),
        ("status", viewer.kubectl(&status, None)),
        ("status by edit", editor.kubectl(&status, None)),
    ] {
        let error = tried.expect_err(what);
        assert!(error.contains(RBAC) && error.contains("cannot"), "{what}: {error}");
    }
    editor.kubectl(&["apply", "-f", "-"], Some(&quarks_job("mine", "manual", "true"))).expect("it creates");
    editor.kubectl(&["annotate", "qjob", "mine", &format!("{REQUESTED}=1")], None).expect("it requests a run");
    assert_eq!(case.wait_runs("mine", 1)["outcome"], "Succeeded");
    editor.kubectl(&["delete", "qjob", "--all"], None).expect("it deletes");
    drop(applied);
    until("the roles to be as before", || (!viewer.may("get", "quarksjobs") && verbs_of("edit").is_empty()).then_some(()));
}

// -------------------------------------------------------------------------------------------------------- trigger only

const TRIGGER_ONLY: &str = "policies/trigger-only.yaml";

/// In force when this returns.
fn trigger_only(case: &Case) -> Applied {
    let applied = Applied::new(TRIGGER_ONLY);
    let probe = Account::new(case, "probe", &["quarks-job-trigger"]);
    case.apply(&quarks_job("probe", "manual", "true"));
    until("the policy to be in force", || {
        let tried = probe.kubectl(&["label", "qjob", "probe", "--overwrite", "a=b", "--dry-run=server"], None);
        tried.is_err_and(|error| error.contains(POLICY)).then_some(())
    });
    applied
}

/// All of the object but what the account may change, what follows from it, and the operator's part.
fn rest(case: &Case, name: &str) -> Value {
    let mut object = case.qjob(name);
    object.as_object_mut().expect("an object").remove("status");
    let meta = object["metadata"].as_object_mut().expect("metadata");
    for field in ["resourceVersion", "generation", "managedFields"] {
        meta.remove(field);
    }
    if let Some(notes) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        for note in [REQUESTED, PARAMETERS, "quarks.cloudfoundry.org/settled"] {
            notes.remove(note);
        }
    }
    if meta.get("annotations").is_some_and(|notes| notes == &json!({})) {
        meta.remove("annotations");
    }
    object["spec"]["trigger"].as_object_mut().expect("a trigger").remove("strategy");
    object
}

/// Who owns what of it, for server-side apply, but for the operator's part.
fn owners(case: &Case, name: &str) -> Vec<Value> {
    let mut all = all_owners(case, name);
    all.retain(|owner| !text(&owner["manager"]).starts_with("quarks-job"));
    all
}

fn all_owners(case: &Case, name: &str) -> Vec<Value> {
    let object: Value = serde_json::from_str(&case.kubectl(&["get", "qjob", name, "-o", "json", "--show-managed-fields"])).expect("JSON");
    object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default()
}

/// A refusal by this rule of the policy.
fn assert_refused(what: &str, rule: &str, tried: Result<String, String>) {
    let error = tried.expect_err(what);
    assert!(error.contains(POLICY) && error.contains(rule) && error.contains("(Forbidden)"), "{what}: {error}");
}

/// Server-side apply under this name.
fn apply_as(manager: &str) -> [String; 7] {
    ["apply", "--server-side", "--force-conflicts", "--field-manager", manager, "-f", "-"].map(ToOwned::to_owned)
}

/// Each value of a trigger is another one, so that each is one run.
fn merge_annotations(pairs: &[(&str, Value)]) -> Value {
    let notes: serde_json::Map<String, Value> = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    json!({"metadata": {"annotations": notes}})
}

/// A manifest for server-side apply: names alone, and these parts.
fn part(name: &str, parts: &Value) -> Value {
    let mut object = json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "QuarksJob", "metadata": {"name": name}});
    for (key, value) in parts.as_object().expect("fields") {
        match value.as_object().filter(|_| key == "metadata") {
            Some(fields) => object[key].as_object_mut().expect("metadata").extend(fields.clone()),
            None => object[key] = value.clone(),
        }
    }
    object
}

/// A case with the QuarksJobs that the attempts are about; suspended, so that the operator changes nothing meanwhile.
fn prepared(name: &str) -> Case {
    let case = Case::new(name);
    for (name, strategy) in [("q", "manual"), ("one", "once"), ("applied", "manual")] {
        let mut object = quarks_job(name, strategy, "true");
        object["spec"]["suspend"] = json!(true);
        object["metadata"]["labels"] = json!({"mine": "yes"});
        object["metadata"]["annotations"] = json!({REQUESTED: "waits", PARAMETERS: "{}", "mine": "yes"});
        // One of them belongs to a GitOps tool.
        let args =
            if name == "applied" { &["apply", "--server-side", "--field-manager=gitops", "-f", "-"][..] } else { &["apply", "-f", "-"] };
        case.try_kubectl(args, Some(&object)).unwrap_or_else(|error| panic!("{error}"));
        case.wait_condition(name, "Ready", "True", "Suspended");
    }
    case
}

#[test]
fn the_trigger_only_account_can_do_nothing_else() {
    let case = prepared("trigger-only");
    let _policy = trigger_only(&case);
    let account = Account::new(&case, "cron", &["quarks-job-trigger"]);
    let names = ["q", "one", "applied"];
    let before: Vec<(Value, Vec<Value>, Value)> =
        names.iter().map(|name| (rest(&case, name), owners(&case, name), case.qjob(name)["spec"].clone())).collect();

    // By the policy.
    let spec = |value: Value| json!({"spec": value});
    let meta = |value: Value| json!({"metadata": value});
    let template = json!({"template": {"spec": {"template": {"spec": {"serviceAccountName": "admin"}}}}});
    let container = "/spec/template/spec/template/spec/containers/0";
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "0a0a0a0a-0000-4000-8000-000000000000"}]);
    let forged = json!([{"manager": "gitops", "operation": "Update", "apiVersion": format!("{GROUP}/v1alpha1"), "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:template": {}}}}]);
    let with_request = |mut patch: Value| {
        patch["metadata"]["annotations"] = json!({REQUESTED: "new"});
        patch
    };
    let merges: Vec<(&str, &str, Value)> = vec![
        ("another account for the pod", SPEC, spec(template.clone())),
        ("the same with a request", SPEC, with_request(spec(template.clone()))),
        (
            "the same with now",
            SPEC,
            spec({
                let mut both = template;
                both["trigger"] = json!({"strategy": "now"});
                both
            }),
        ),
        ("output", SPEC, spec(json!({"output": {"outputMap": {"main": {"output.json": {"name": "s"}}}}}))),
        ("suspend", SPEC, spec(json!({"suspend": false}))),
        ("updateOnConfigChange", SPEC, spec(json!({"updateOnConfigChange": true}))),
        ("history", SPEC, spec(json!({"failedJobsHistoryLimit": 0}))),
        ("strategy once", STRATEGY, spec(json!({"trigger": {"strategy": "once"}}))),
        ("strategy done", STRATEGY, spec(json!({"trigger": {"strategy": "done"}}))),
        ("a label", METADATA, meta(json!({"labels": {"quarks.cloudfoundry.org/monitored": "x"}}))),
        ("a label less", METADATA, meta(json!({"labels": {"mine": null}}))),
        ("no labels", METADATA, meta(json!({"labels": null}))),
        ("a finalizer", METADATA, meta(json!({"finalizers": ["example.com/stays"]}))),
        ("an owner", METADATA, meta(json!({"ownerReferences": owner}))),
        ("another annotation", ANNOTATIONS, merge_annotations(&[("other", json!("x"))])),
        ("another annotation with a request", ANNOTATIONS, merge_annotations(&[("other", json!("x")), (REQUESTED, json!("new"))])),
        ("the value of another annotation", ANNOTATIONS, merge_annotations(&[("mine", json!("no"))])),
        ("an annotation less", ANNOTATIONS, merge_annotations(&[("mine", Value::Null)])),
        ("the operator's record", ANNOTATIONS, merge_annotations(&[("quarks.cloudfoundry.org/settled", json!("{}"))])),
        ("no annotations", ANNOTATIONS, meta(json!({"annotations": null}))),
        ("the request withdrawn", ANNOTATIONS, merge_annotations(&[(REQUESTED, Value::Null)])),
        ("an empty request", LENGTH, merge_annotations(&[(REQUESTED, json!(""))])),
        ("a request of two lines", LENGTH, merge_annotations(&[(REQUESTED, json!("a\nb"))])),
        (
            "parameters that are too long",
            PARAMETERS_LENGTH,
            merge_annotations(&[(REQUESTED, json!("new")), (PARAMETERS, json!("é".repeat(8192) + "x"))]),
        ),
        ("a request that is too long", LENGTH, merge_annotations(&[(REQUESTED, json!("é".repeat(513)))])),
        ("parameters of the request of another", PARAMETERS_WITH, merge_annotations(&[(PARAMETERS, json!("{\"a\":1}"))])),
        ("parameters withdrawn", PARAMETERS_WITH, merge_annotations(&[(PARAMETERS, Value::Null)])),
        ("a prefix for names", METADATA, meta(json!({"generateName": "x-"}))),
        ("no owners of fields", FIELDS, meta(json!({"managedFields": [{}]}))),
        ("other owners of fields", FIELDS, meta(json!({"managedFields": forged}))),
    ];
    let jsons: Vec<(&str, &str, Value)> = vec![
        ("an image", SPEC, json!([{"op": "replace", "path": format!("{container}/image"), "value": "other"}])),
        (
            "a container",
            SPEC,
            json!([{"op": "add", "path": "/spec/template/spec/template/spec/containers/-", "value": {"name": "b", "image": "b"}}]),
        ),
        ("the command less", SPEC, json!([{"op": "remove", "path": format!("{container}/command")}])),
        ("a copy", SPEC, json!([{"op": "copy", "from": format!("{container}/name"), "path": format!("{container}/workingDir")}])),
        ("all annotations", ANNOTATIONS, json!([{"op": "replace", "path": "/metadata/annotations", "value": {REQUESTED: "new"}}])),
        ("all of the spec", SPEC, json!([{"op": "replace", "path": "/spec", "value": quarks_job("q", "now", "false")["spec"]}])),
        ("a test first", SPEC, json!([{"op": "test", "path": "/spec/suspend", "value": true}, {"op": "remove", "path": "/spec/suspend"}])),
    ];
    let tries = Cell::new(0);
    let refused_by_policy = |what: &str, rule: &str, name: &str, tried: Result<String, String>| {
        tries.set(tries.get() + 1);
        let error = tried.expect_err(&format!("{what} of {name}"));
        // Where OwnerReferencesPermissionEnforcement is on, it asks first for a right that the account does not have.
        let is_owner = what == "an owner" && error.contains("cannot set an ownerRef on a resource you can't delete");
        assert!((error.contains(POLICY) && error.contains(rule) || is_owner) && error.contains("(Forbidden)"), "{what} of {name}: {error}");
    };
    for name in names {
        for (what, rule, patch) in &merges {
            // It has it already.
            if name == "one" && *what == "strategy once" {
                continue;
            }
            refused_by_policy(what, rule, name, account.patch(name, "merge", patch));
        }
        for (what, rule, patch) in &jsons {
            refused_by_policy(what, rule, name, account.patch(name, "json", patch));
        }
        // Server-side apply, of other values and of the same ones: it would own them, too.
        let same = json!({"spec": {"suspend": true, "trigger": case.qjob(name)["spec"]["trigger"], "template": case.qjob(name)["spec"]["template"]}});
        for (what, rule, parts) in [
            ("a label", METADATA, json!({"metadata": {"labels": {"a": "b"}}})),
            ("the same label", FIELDS, json!({"metadata": {"labels": {"mine": "yes"}}})),
            ("the same annotation", FIELDS, json!({"metadata": {"annotations": {"mine": "yes"}}})),
            ("the same spec", FIELDS, same),
            ("another spec", SPEC, json!({"spec": quarks_job(name, "manual", "false")["spec"]})),
        ] {
            let args = ["apply", "--server-side", "--force-conflicts", "--field-manager=cron", "-f", "-"];
            refused_by_policy(what, rule, name, account.kubectl(&args, Some(&part(name, &parts))));
        }
    }
    // As the GitOps tool, with a part of what it has applied: the API server would take the rest away.
    let args = ["apply", "--server-side", "--force-conflicts", "--field-manager=gitops", "-f", "-"];
    let fewer = part("applied", &json!({"metadata": {"annotations": {REQUESTED: "new"}}, "spec": {"trigger": {"strategy": "now"}}}));
    let error = account.kubectl(&args, Some(&fewer)).expect_err("a part of the object");
    assert!(error.contains(POLICY) || error.contains("spec.template: Required value"), "{error}");
    // A one-off that has not run would be an errand afterwards.
    refused_by_policy("now", STRATEGY, "one", account.patch("one", "merge", &spec(json!({"trigger": {"strategy": "now"}}))));
    // kubectl apply, which wants to patch, and kubectl edit and replace in their way.
    let mut changed = quarks_job("q", "manual", "false");
    changed["spec"]["suspend"] = json!(true);
    refused_by_policy("apply", SPEC, "q", account.kubectl(&["apply", "-f", "-"], Some(&changed)));
    refused_by_policy("backoffLimit", SPEC, "q", account.patch("q", "merge", &spec(json!({"template": {"spec": {"backoffLimit": 3}}}))));

    // By RBAC: no right was granted.
    let status = json!({"status": {"runs": 7}}).to_string();
    let mut current = case.qjob("q");
    current["spec"]["suspend"] = json!(false);
    let new = quarks_job("new", "once", "true");
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox:1.36"}]}}}});
    let attempts: [(&str, &[&str], Option<&Value>); 13] = [
        ("status", &["patch", "qjob", "q", "--subresource=status", "--type=merge", "-p", &status], None),
        ("replace", &["replace", "-f", "-"], Some(&current)),
        ("replace by force", &["replace", "--force", "-f", "-"], Some(&current)),
        ("create", &["create", "-f", "-"], Some(&new)),
        ("apply of a new one", &["apply", "-f", "-"], Some(&new)),
        ("server-side apply of a new one", &["apply", "--server-side", "-f", "-"], Some(&new)),
        ("delete", &["delete", "qjob", "q"], None),
        ("delete all", &["delete", "qjob", "--all"], None),
        ("delete the collection", &["delete", "--raw", &format!("/apis/{GROUP}/v1alpha1/namespaces/{}/quarksjobs", case.namespace)], None),
        ("a Job", &["create", "-f", "-"], Some(&job)),
        ("Secrets", &["get", "secrets"], None),
        ("a token", &["create", "token", "quarks-job-sidecar"], None),
        (
            "more rights",
            &["create", "rolebinding", "more", "--clusterrole=edit", &format!("--serviceaccount={}:cron", case.namespace)],
            None,
        ),
    ];
    for (what, args, input) in attempts {
        let error = account.kubectl(args, input).expect_err(what);
        // Before 1.32 the API server gives no reason where a server-side apply would create.
        let is_unexplained = what == "server-side apply of a new one" && error.trim_end().ends_with("is forbidden:");
        assert!(error.contains(RBAC) && error.contains("cannot") || is_unexplained, "{what}: {error}");
        tries.set(tries.get() + 1);
    }
    assert_eq!(case.kubectl(&["get", "qjob", "new", "--ignore-not-found"]), "");
    // Not a change: the API server drops the status of a patch of the object, and what the schema does not have.
    for patch in [json!({"status": {"runs": 7}}), json!({"extra": 1})] {
        account.patch("q", "merge", &patch).expect("no change");
    }
    // Elsewhere it has no right at all.
    let elsewhere = case.bare_beside("trigger-else");
    elsewhere.apply(&quarks_job("q", "manual", "true"));
    let user = format!("--as=system:serviceaccount:{}:cron", case.namespace);
    let error = elsewhere.try_kubectl(&["annotate", "qjob", "q", &format!("{REQUESTED}=1"), &user], None).expect_err("elsewhere");
    assert!(error.contains(RBAC) && error.contains("cannot"), "{error}");

    for (name, (rest_before, owners_before, spec_before)) in names.iter().zip(before) {
        assert_eq!(rest(&case, name), rest_before, "{name}");
        assert_eq!(case.qjob(name)["spec"], spec_before, "{name}");
        assert_eq!(owners(&case, name), owners_before, "{name}");
        assert_eq!(case.qjob(name)["metadata"]["annotations"][REQUESTED], "waits", "{name}");
    }
    assert_eq!(case.qjob("q")["status"]["runs"].as_u64().unwrap_or_default(), 0);
    println!("{} attempts refused", tries.get());
}

/// Whatever is in the annotations, the operator can record the run, and an administrator can add one.
#[test]
fn the_trigger_only_account_cannot_fill_the_annotations() {
    let case = Case::new("trigger-full");
    let _policy = trigger_only(&case);
    let account = Account::new(&case, "cron", &["quarks-job-trigger"]);
    case.apply(&quarks_job("q", "manual", "true"));
    // Too much for an argument.
    let patch = ["patch", "qjob", "q", "--type=merge", "--patch-file=/dev/stdin"];
    let request = |value: &str, parameters: Option<usize>| {
        let parameters = parameters.map_or(Value::Null, |length| json!("p".repeat(length)));
        account.kubectl(&patch, Some(&merge_annotations(&[(REQUESTED, json!(value)), (PARAMETERS, parameters)])))
    };
    let fill = |length: usize| {
        case.try_kubectl(&patch, Some(&merge_annotations(&[("big", json!("x".repeat(length)))]))).expect("the administrator may");
    };
    let longest = "r".repeat(1024);
    for length in [16_385, 240_000] {
        assert_refused(&format!("{length} bytes"), PARAMETERS_LENGTH, request("too-much", Some(length)));
    }
    request("most", Some(16_384)).expect("the most that is allowed");
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    // An administrator has filled most of it.
    fill(229_000);
    assert_refused("parameters and the longest request", ALL_LENGTH, request(&longest, Some(16_384)));
    request("another", Some(16_000)).expect("it fits in");
    assert_eq!(case.wait_runs("q", 2)["outcome"], "Succeeded");
    request("bare", None).expect("no parameters");
    assert_eq!(case.wait_runs("q", 3)["outcome"], "Succeeded");
    fill(244_900);
    assert_refused("the longest request", ALL_LENGTH, request(&longest, None));
    // What takes no more room than the last one is still a request.
    fill(250_000);
    request("same", None).expect("as long as before");
    assert_eq!(case.wait_runs("q", 4)["outcome"], "Succeeded");
    case.kubectl(&["annotate", "qjob", "q", "more=x"]);
}

/// The value that was served last, or that an active run serves, would take the place of a request that waits, and request nothing.
#[test]
fn the_trigger_only_account_cannot_withdraw_a_waiting_request() {
    let case = Case::new("trigger-waits");
    let _policy = trigger_only(&case);
    let account = Account::new(&case, "cron", &["quarks-job-trigger"]);
    let suspend = |name: &str, is_suspended: bool| {
        case.kubectl(&["patch", "qjob", name, "--type=merge", "-p", &json!({"spec": {"suspend": is_suspended}}).to_string()]);
    };
    let request = |value: &str| merge_annotations(&[(REQUESTED, json!(value))]);
    let as_admin = |name: &str, value: &str| case.kubectl(&["patch", "qjob", name, "--type=merge", "-p", &request(value).to_string()]);
    let is_refused = |name: &str, value: &str| assert_refused(value, SERVED, account.patch(name, "merge", &request(value)));
    case.apply(&quarks_job("q", "manual", "true"));
    let served = ["12", r#"1","runs":"1"#, r#"C:\new "é" \\u0031 \""#, "plain"];
    for (number, value) in (1..).zip(served) {
        as_admin("q", value);
        case.wait_qjob("q", "the run to be settled", |qjob| qjob["status"]["runs"] == number && qjob["status"]["active"].is_null());
        suspend("q", true);
        as_admin("q", "waits");
        is_refused("q", value);
        // Also where only the copy of the record is left.
        case.kubectl(&["annotate", "qjob", "q", "quarks.cloudfoundry.org/settled-"]);
        is_refused("q", value);
        // Others, as like as can be, are requests as any.
        for innocent in ["1", "2", "123", "", r#"""#, r"\", "request", "Succeeded", r#"request":"12"#, &format!("{value}x"), &value[1..]] {
            if !innocent.is_empty() && innocent != value {
                account.patch("q", "merge", &request(innocent)).unwrap_or_else(|error| panic!("{innocent} after {value}: {error}"));
            }
        }
        as_admin("q", value);
        suspend("q", false);
    }
    // That of an active run is not settled yet.
    case.apply(&quarks_job("active", "manual", "sleep 3600"));
    as_admin("active", r#"a "run""#);
    case.wait_qjob("active", "a run", |qjob| qjob["status"]["active"].is_object());
    as_admin("active", "waits");
    is_refused("active", r#"a "run""#);
    account.patch("active", "merge", &request("a run")).expect("another one");
}

/// Which fields belong to whom: each attempt changes no more than that, for the GitOps tool to conflict, or to lose a field.
#[test]
fn the_trigger_only_account_cannot_change_who_owns_what() {
    let case = prepared("trigger-owns");
    let _policy = trigger_only(&case);
    let account = Account::new(&case, "cron", &["quarks-job-trigger"]);
    let before = owners(&case, "applied");
    let with_owners =
        |owners: Vec<Value>, request: &str| json!({"metadata": {"managedFields": owners, "annotations": {REQUESTED: request}}});
    // With a request and without: `waits` is there already.
    let tries = |what: &str, rule: &str, change: &dyn Fn(&mut Vec<Value>)| {
        for request in ["waits", "new"] {
            let mut changed = all_owners(&case, "applied");
            change(&mut changed);
            assert_refused(&format!("{what}, {request}"), rule, account.patch("applied", "merge", &with_owners(changed, request)));
        }
    };
    fn gitops(all: &mut [Value]) -> &mut Value {
        all.iter_mut().find(|owner| owner["manager"] == "gitops").expect("the GitOps tool")
    }
    tries("another subresource", FIELDS, &|all| gitops(all)["subresource"] = json!("status"));
    tries("another operation", FIELDS, &|all| gitops(all)["operation"] = json!("Update"));
    tries("another version", FIELDS, &|all| gitops(all)["apiVersion"] = json!(format!("{GROUP}/v1")));
    tries("another manager", FIELDS, &|all| gitops(all)["manager"] = json!("gitops2"));
    // Where it is the only change, the API server leaves it out.
    let mut older = all_owners(&case, "applied");
    gitops(&mut older)["time"] = json!("2020-01-01T00:00:00Z");
    assert_refused("another time", TIMES, account.patch("applied", "merge", &with_owners(older, "new")));
    tries("a part less", FIELDS, &|all| drop(gitops(all)["fieldsV1"]["f:spec"].as_object_mut().expect("fields").remove("f:suspend")));
    tries("none", FIELDS, &|all| all.retain(|owner| owner["manager"] != "gitops"));
    tries("a second one", FIELDS, &|all| {
        let mut other = gitops(all).clone();
        other["manager"] = json!("evil");
        all.push(other);
    });
    let evil = |fields: Value| {
        json!({"manager": "evil", "operation": "Update", "apiVersion": format!("{GROUP}/v1alpha1"), "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    for fields in [
        json!({"f:spec": {"f:trigger": {"f:strategy": {}}}}),
        json!({"f:spec": {"f:trigger": {}}}),
        json!({"f:spec": {}}),
        json!({"f:spec": {".": {}}}),
        json!({"f:metadata": {"f:annotations": {}}}),
        json!({"f:metadata": {"f:annotations": {".": {}}}}),
        json!({"f:metadata": {"f:annotations": {"f:quarks.cloudfoundry.org/run-parameters": {}}}}),
    ] {
        tries(&format!("evil has {fields}"), FIELDS, &|all| all.push(evil(fields.clone())));
    }
    // By server-side apply, of what it is already: the account would own it, too, and another name each time would fill the list.
    for (what, parts) in [
        ("the same strategy", json!({"spec": {"trigger": {"strategy": "manual"}}})),
        (
            "the same strategy, with a request",
            json!({"metadata": {"annotations": {REQUESTED: "new"}}, "spec": {"trigger": {"strategy": "manual"}}}),
        ),
        ("the trigger", json!({"spec": {"trigger": {}}})),
        ("the same request", json!({"metadata": {"annotations": {REQUESTED: "waits"}}})),
        ("the annotations", json!({"metadata": {"annotations": {}}})),
        ("the same parameters", json!({"metadata": {"annotations": {REQUESTED: "new", PARAMETERS: "{}"}}})),
    ] {
        assert_refused(what, FIELDS, account.kubectl(&apply_as("cron").each_ref().map(String::as_str), Some(&part("applied", &parts))));
    }

    // Ten that update, the most that the API server keeps before it merges the oldest.
    for number in 0..10 {
        let note = format!("note-{number}=x");
        case.kubectl(&["annotate", "qjob", "applied", "--field-manager", &format!("manager-{number}"), &note]);
    }
    let is_update = |owner: &Value| owner["operation"] == "Update";
    let is_of = |owner: &Value, number: u8| owner["manager"] == format!("manager-{number}");
    let updating = all_owners(&case, "applied").iter().filter(|owner| is_update(owner)).count();
    assert_eq!(updating, 10, "as many as there can be");
    let template = || json!({"f:spec": {"f:template": {}}});
    let ancient = |fields: Value| {
        let mut owner = evil(fields);
        owner["manager"] = json!("ancient-changes");
        owner
    };
    tries("evil has the template, nine are gone", FIELDS, &|all| {
        all.retain(|owner| !is_update(owner) || is_of(owner, 9));
        all.push(evil(template()));
    });
    tries("nine are gone", FIELDS, &|all| all.retain(|owner| !is_update(owner) || is_of(owner, 9)));
    tries("one is gone", FIELDS, &|all| all.retain(|owner| !is_of(owner, 9)));
    tries("evil has the template", FIELDS, &|all| all.push(evil(template())));
    tries("one that was there has it", FIELDS, &|all| {
        all.iter_mut().find(|owner| is_of(owner, 9)).expect("the last one")["fieldsV1"]["f:spec"] = template()["f:spec"].clone();
    });
    tries("the merged ones have it", FIELDS, &|all| {
        all.retain(|owner| !is_of(owner, 8));
        all.push(ancient(json!({"f:metadata": {"f:annotations": {"f:note-8": {}}}, "f:spec": {"f:template": {}}})));
    });
    tries("an annotation is lost when two are merged", FIELDS, &|all| {
        all.retain(|owner| !is_of(owner, 7) && !is_of(owner, 8));
        all.push(ancient(json!({"f:metadata": {"f:annotations": {"f:note-8": {}}}})));
    });
    tries("the GitOps tool's fields are merged", FIELDS, &|all| {
        let fields = gitops(all)["fieldsV1"].clone();
        all.retain(|owner| owner["manager"] != "gitops" && !is_of(owner, 8));
        all.push(ancient(fields));
    });

    let mut after = owners(&case, "applied");
    after.retain(|owner| !text(&owner["manager"]).starts_with("manager-") && owner["manager"] != "ancient-changes");
    assert_eq!(after, before);
    assert_eq!(case.qjob("applied")["metadata"]["annotations"][REQUESTED], "waits");
    // It still can: the API server merges the oldest at each of these, and owners of a part of the template are among them.
    let change = |number: u8| {
        let labels = json!({"metadata": {"labels": {format!("label-{number}"): "x"}}});
        let patch = json!({"spec": {"template": {"spec": {"template": labels}}}}).to_string();
        let manager = format!("--field-manager=template-{number}");
        case.kubectl(&["patch", "qjob", "applied", "--type=merge", "-p", &patch, &manager]);
    };
    for number in 0..14 {
        change(number);
        let (request, manager) = (format!("{REQUESTED}=many-{number}"), format!("--field-manager=cron-{number}"));
        account.kubectl(&["annotate", "qjob", "applied", "--overwrite", &request, &manager], None).expect("one of many");
    }
    assert!(all_owners(&case, "applied").iter().any(|owner| owner["manager"] == "ancient-changes"), "nothing was merged");
}

/// The API server calculates what a policy costs, and refuses what costs too much.
#[test]
fn the_largest_quarksjob_can_be_triggered_by_the_trigger_only_account() {
    let case = Case::new("trigger-large");
    let _policy = trigger_only(&case);
    let account = Account::new(&case, "cron", &["quarks-job-trigger"]);
    let mut large = quarks_job("q", "manual", "true");
    large["spec"]["suspend"] = json!(true);
    let env: Vec<Value> = (0..5000).map(|number| json!({"name": format!("VARIABLE_{number}"), "value": "x"})).collect();
    *large
        .pointer_mut("/spec/template/spec/template/spec/containers/0")
        .expect("a container")
        .as_object_mut()
        .expect("one")
        .entry("env")
        .or_insert(Value::Null) = json!(env);
    case.try_kubectl(&["apply", "--server-side", "--field-manager=gitops", "-f", "-"], Some(&large)).expect("a large one");
    // Managers that apply are not merged.
    for number in 0..15 {
        let note = |kind: &str| part("q", &json!({"metadata": {"annotations": {format!("{kind}-{number}"): "x"}}}));
        let apply = apply_as(&format!("applier-{number}"));
        case.try_kubectl(&apply.each_ref().map(String::as_str), Some(&note("applied"))).expect("a part");
        case.kubectl(&["annotate", "qjob", "q", "--field-manager", &format!("updater-{number}"), &format!("updated-{number}=x")]);
    }
    assert!(all_owners(&case, "q").len() >= 26);
    for number in 0..4 {
        let request = format!("{REQUESTED}=large-{number}");
        account
            .kubectl(&["annotate", "qjob", "q", "--overwrite", &request, &format!("--field-manager=cron-{number}")], None)
            .expect("annotate");
    }
    account.patch("q", "merge", &json!({"spec": {"trigger": {"strategy": "now"}}})).expect("now");
}

/// A kubeconfig with a token of the account, for the command line.
struct Kubeconfig {
    file: String,
    _folder: Folder,
}

impl Kubeconfig {
    fn new(account: &Account) -> Self {
        let Account { case, name } = account;
        let folder = Folder::new(&format!("{}-{name}", case.namespace));
        let token = case.kubectl(&["create", "token", name, "--duration=1h"]);
        Self { file: folder.write("kubeconfig", kubeconfig_with(&token).to_string()), _folder: folder }
    }

    /// `quarks-job trigger NAME ...`: its output.
    fn trigger(&self, case: &Case, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quarks-job"));
        command.arg("trigger").args(args).args(["--namespace", &case.namespace, "--kubeconfig", &self.file]);
        let output = command.env_remove("KUBECONFIG").stdin(Stdio::null()).output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

#[test]
fn the_trigger_only_account_triggers_in_every_way() {
    let case = Case::new("trigger-may");
    let _policy = trigger_only(&case);
    let account = Account::new(&case, "cron", &["quarks-job-trigger"]);
    case.apply(&quarks_job("q", "manual", "true"));
    case.apply(&quarks_job("one", "once", "true"));
    let gitops = ["apply", "--server-side", "--field-manager=gitops", "-f", "-"];
    case.try_kubectl(&gitops, Some(&quarks_job("applied", "manual", "true"))).expect("applied");
    case.wait_runs("one", 1);
    let before: Vec<Value> = ["q", "one", "applied"].iter().map(|name| rest(&case, name)).collect();
    let now = json!({"spec": {"trigger": {"strategy": "now"}}});
    let mut runs = std::collections::BTreeMap::from([("q", 0), ("one", 1), ("applied", 0)]);
    let mut ran = |name: &'static str, strategy: &str, what: &str| {
        let number = runs.get_mut(name).expect("one of them");
        *number += 1;
        assert_eq!(case.wait_runs(name, *number)["outcome"], "Succeeded", "{what} of {name}");
        assert_eq!(case.qjob(name)["spec"]["trigger"]["strategy"], strategy, "{what} of {name}");
    };
    for (name, strategy) in [("q", "manual"), ("one", "done"), ("applied", "manual")] {
        account.kubectl(&["annotate", "qjob", name, "--overwrite", &format!("{REQUESTED}=first")], None).expect("annotate");
        ran(name, strategy, "annotate");
        account.patch(name, "merge", &now).expect("now");
        ran(name, strategy, "now");
        let request = json!([{"op": "add", "path": "/metadata/annotations/quarks.cloudfoundry.org~1run-requested", "value": "second"}]);
        account.patch(name, "json", &request).expect("a JSON patch");
        ran(name, strategy, "a JSON patch");
        let both = merge_annotations(&[(REQUESTED, json!("third")), (PARAMETERS, json!("{\"request\":\"third\"}"))]);
        account.patch(name, "merge", &both).expect("with parameters");
        ran(name, strategy, "with parameters");
        let without = merge_annotations(&[(REQUESTED, json!("x".repeat(1024))), (PARAMETERS, Value::Null)]);
        account.patch(name, "merge", &without).expect("without parameters");
        ran(name, strategy, "without parameters");
        let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=cron", "-f", "-"];
        account
            .kubectl(&apply, Some(&part(name, &json!({"metadata": {"annotations": {REQUESTED: "fourth"}}}))))
            .expect("server-side apply");
        ran(name, strategy, "server-side apply");
        let apply = apply_as("cron-now");
        account.kubectl(&apply.each_ref().map(String::as_str), Some(&part(name, &now))).expect("server-side apply of now");
        ran(name, strategy, "server-side apply of now");
    }
    let kubeconfig = Kubeconfig::new(&account);
    let said = kubeconfig.trigger(&case, &["q", "--wait", "--timeout=5m"]).expect("trigger");
    assert!(said.contains("Succeeded"), "{said}");
    ran("q", "manual", "trigger");
    for (name, before) in ["q", "one", "applied"].iter().zip(before) {
        assert_eq!(rest(&case, name), before, "{name}");
    }
    // The GitOps tool still owns what it has applied, and applies it without a conflict.
    let mut again = quarks_job("applied", "manual", "true");
    again["spec"]["suspend"] = json!(true);
    case.try_kubectl(&gitops, Some(&again)).expect("no conflict");

    // Many have changed it, so many that the API server merges the oldest; the account still triggers.
    for number in 0..12 {
        let note = format!("note-{number}=x");
        case.kubectl(&["annotate", "qjob", "q", "--field-manager", &format!("manager-{number}"), &note]);
        account.kubectl(&["annotate", "qjob", "q", "--overwrite", &format!("{REQUESTED}=many-{number}")], None).expect("one of many");
    }
}

#[test]
fn the_policy_is_for_nobody_else() {
    let case = Case::new("trigger-others");
    let _policy = trigger_only(&case);
    case.apply(&quarks_job("q", "manual", "true"));
    let label = |value: &str| ["label".to_owned(), "qjob".to_owned(), "q".to_owned(), "--overwrite".to_owned(), format!("a={value}")];
    // Rights add up: one that may update may do so.
    let rights = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "all"}, "rules": [
        {"apiGroups": [GROUP], "resources": ["quarksjobs"], "verbs": ["create", "update", "patch", "delete"]}]});
    case.apply(&rights);
    let both = Account::new(&case, "both", &["quarks-job-trigger"]);
    let try_label = |account: &Account, value: &str| {
        let args = label(value);
        account.kubectl(&args.iter().map(String::as_str).collect::<Vec<_>>(), None)
    };
    assert!(try_label(&both, "1").is_err_and(|error| error.contains(POLICY)));
    case.apply(&binding("RoleBinding", "Role", "both-all", "all", (&case.namespace, "both")));
    until("the second role to count", || try_label(&both, "2").ok());
    both.patch("q", "merge", &json!({"spec": {"failedJobsHistoryLimit": 3}})).expect("it may");
    // One that may patch and was never given the verb: as before.
    case.apply(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "patch"}, "rules": [
        {"apiGroups": [GROUP], "resources": ["quarksjobs"], "verbs": ["get", "patch"]}]}));
    let patches = Account::new(&case, "patches", &[]);
    case.apply(&binding("RoleBinding", "Role", "patches", "patch", (&case.namespace, "patches")));
    until("the role to count", || try_label(&patches, "3").ok());
    // Administrators, whose star includes the verb, and the operator, which settles.
    let [user, group] = PROBE;
    case.kubectl(&["label", "qjob", "q", "--overwrite", "a=4", user, group]);
    case.set_now("q");
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
}

/// The CronJob of the example, with the policy in force; what its account may not do.
#[test]
fn the_account_of_the_scheduled_errand_can_only_trigger_it() {
    let case = Case::new("trigger-cron");
    let _policy = trigger_only(&case);
    case.apply_with_image("scheduled-errand.yaml");
    case.kubectl(&["patch", "cronjob", "scheduled-errand", "-p", r#"{"spec":{"suspend":true}}"#]);
    case.kubectl(&["create", "job", "by-hand", "--from=cronjob/scheduled-errand"]);
    case.wait_qjob("scheduled-errand", "the run that the pod requested", |qjob| {
        qjob["metadata"]["annotations"][REQUESTED] == "by-hand"
            && qjob["status"]["lastRun"]["outcome"] == "Succeeded"
            && qjob["status"]["active"].is_null()
    });
    let account = Account { case: &case, name: "scheduled-errand" };
    case.apply(&quarks_job("other", "manual", "true"));
    // It has no `get`, so these are raw requests of the API, as the program makes them: kubectl would read first.
    let kubeconfig = Kubeconfig::new(&account);
    let error = kubeconfig.trigger(&case, &["other"]).expect_err("another QuarksJob");
    assert!(error.contains("cannot patch"), "{error}");
    kubeconfig.trigger(&case, &["scheduled-errand"]).expect("its own");
    for (what, parts) in [
        ("a label", json!({"metadata": {"labels": {"a": "b"}}})),
        ("an annotation", json!({"metadata": {"annotations": {"a": "b"}}})),
        ("suspend", json!({"spec": {"suspend": true}})),
    ] {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let error = account.kubectl(&args, Some(&part("scheduled-errand", &parts))).expect_err(what);
        assert!(error.contains(POLICY), "{what}: {error}");
    }
}
