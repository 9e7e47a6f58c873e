//! Each right that the manifests grant is taken away in turn, in a namespace of its own, and somebody says which one is missing.
//! When it is back the work goes on, so each right is also used at least once (see `report`).

use std::thread;

use serde_json::{Value, json};

use crate::audit::Entry;
use crate::case::{
    Case, MONITORED_DEFAULT, SIDECAR_ACCOUNT, cluster, condition, log_about, many_pods, quarks_job, text, until, with_output,
};
use crate::granted::{Right, binding, rights, role_without};
use crate::second::Second;

const OPERATOR: (&str, &str) = ("quarks-job", "quarks-job");
const SIDECAR: &str = "quarks-job-sidecar";
/// Namespaces at a time: each has a pod or two. All rights of the sidecar: a minute passes until it gives up.
const AT_ONCE: usize = 8;
const WRITES: &str = r#"echo '{"a": "b"}' >> /mnt/quarks/output.json"#;
/// Other content each time.
const WRITES_TIME: &str = r#"echo "{\"a\": \"$(date +%s%N)\"}" >> /mnt/quarks/output.json"#;

/// How to come to need a right.
type Need = fn(&Case);

/// What needs the right, if there is something; the QuarksJob is called `q`.
fn needs_of_operator(right: &str) -> Option<Need> {
    Some(match right {
        "get quarksjobs" | "patch quarksjobs" | "create jobs" | "delete jobs" | "create events" | "update quarksjobs/finalizers" => {
            |case| case.apply(&quarks_job("q", "once", "true"))
        }
        "get jobs" => |case| {
            case.apply(&quarks_job("q", "once", "sleep 300"));
            let qjob = case.wait_qjob("q", "a run", |qjob| qjob["status"]["active"]["jobName"].is_string());
            case.kubectl(&["delete", "job", &text(&qjob["status"]["active"]["jobName"])]);
        },
        "patch jobs" => |case| {
            let mut qjob = quarks_job("q", "once", "false");
            qjob["spec"]["template"]["spec"]["ttlSecondsAfterFinished"] = json!(600);
            case.apply(&qjob);
        },
        "list pods" | "patch pods" => |case| case.apply(&with_pods_kept(3)),
        "delete pods" => |case| {
            // The admission plugin OwnerReferencesPermissionEnforcement asks for it already when a pod gets an owner.
            case.apply(&with_pods_kept(1));
            case.wait_runs("q", 1);
            case.set_now("q");
        },
        "patch events" => |case| {
            case.apply(&quarks_job("q", "once", "true"));
            case.wait_runs("q", 1);
            for _ in 0..2 {
                // The same as in a manifest that is applied again and again.
                case.patch("q", &json!({"spec": {"trigger": {"strategy": "done"}}}));
                case.patch("q", &json!({"spec": {"trigger": {"strategy": "once"}}}));
                let generation = case.qjob("q")["metadata"]["generation"].clone();
                case.wait_qjob("q", "it to be observed", |qjob| qjob["status"]["observedGeneration"] == generation);
            }
        },
        "create serviceaccounts/token quarks-job-sidecar" | "create secrets" | "get secrets" | "patch secrets quarks-job-sidecar-token" => {
            |case| case.apply(&with_output("q", "once", WRITES, "s"))
        }
        "list secrets" | "watch secrets" => |case| case.apply(&with_references("secretRef")),
        "get configmaps" | "list configmaps" | "watch configmaps" => |case| case.apply(&with_references("configMapRef")),
        "delete secrets" => |case| {
            let mut qjob = with_output("q", "once", WRITES_TIME, "s");
            qjob["spec"]["output"]["versioned"] = json!(true);
            qjob["spec"]["output"]["keepVersions"] = json!(1);
            case.apply(&qjob);
            case.wait_runs("q", 1);
            case.set_now("q");
        },
        _ => return None,
    })
}

/// Runs again when what it refers to changes, or when a newer version of it appears.
fn with_references(kind: &str) -> Value {
    let mut qjob = quarks_job("q", "once", "true");
    let container = &mut qjob["spec"]["template"]["spec"]["template"]["spec"]["containers"][0];
    container["envFrom"] = json!([{kind: {"name": "settings-v1", "optional": true}}]);
    qjob["spec"]["updateOnConfigChange"] = json!(true);
    qjob
}

fn with_pods_kept(limit: u32) -> Value {
    let mut qjob = quarks_job("q", "once", "true");
    qjob["spec"]["podHistoryLimit"] = json!(limit);
    qjob["spec"]["template"]["spec"]["template"]["metadata"] = Value::Null;
    qjob
}

/// The same for the sidecar, and how many runs it takes.
fn needs_of_sidecar(right: &str) -> Option<(u64, Need)> {
    Some(match right {
        "watch pods" | "get quarksjobs" | "create secrets" => (1, |case| case.apply(&with_output("q", "once", WRITES, "s"))),
        "get pods/log" => (1, |case| {
            let mut qjob = quarks_job("q", "once", r#"echo '{"a": "b"}'"#);
            qjob["spec"]["output"] = json!({"namePrefix": "s"});
            case.apply(&qjob);
        }),
        "list secrets" => (1, |case| {
            let mut qjob = with_output("q", "once", WRITES, "s");
            qjob["spec"]["output"]["versioned"] = json!(true);
            case.apply(&qjob);
        }),
        "get secrets" | "update secrets" => (2, |case| {
            case.apply(&with_output("q", "once", WRITES_TIME, "s"));
            assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
            case.set_now("q");
        }),
        _ => return None,
    })
}

/// The verb and the resource, as the API server or as we name them.
fn names(line: &str, right: &Right) -> bool {
    let Right { verb, resource, .. } = right;
    let line = line.replace('\\', "");
    line.contains(&format!("cannot {verb} resource \"{resource}\"")) || line.contains(&format!("{verb} {resource}: 403"))
}

/// What the condition, the Events and the log say about a namespace.
fn told(case: &Case) -> Vec<String> {
    let qjob = case.qjob("q");
    let ready = condition(&qjob, "Ready").map(|ready| text(&ready["message"]));
    let events = case.events("q").into_iter().map(|(_, note)| note);
    ready.into_iter().chain(events).chain(log_about(&case.namespace)).collect()
}

/// Runs `act` in a namespace for each right, some at a time.
fn each(all: Vec<Right>, act: impl Fn(&Right) + Sync) {
    for some in all.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for right in some {
                scope.spawn(|| act(right));
            }
        });
    }
}

fn is_known<T>(rights: &[Right], need: impl Fn(&str) -> Option<T>) {
    let unknown: Vec<String> = rights.iter().map(ToString::to_string).filter(|right| need(right).is_none()).collect();
    assert!(unknown.is_empty(), "granted, and nothing here needs it: {unknown:?}");
}

#[test]
fn each_right_of_the_operator_in_a_namespace_is_named_when_it_is_missing() {
    let all = rights("quarks-job-namespace");
    is_known(&all, needs_of_operator);
    let _turn = many_pods();
    let first = Case::unlabelled("denied");
    each(all.clone(), |right| {
        let name = format!("denied-{}", right.to_string().replace([' ', '/'], "-").replace("quarks-job-sidecar", "own"));
        let case = first.bare_beside(&name);
        case.prepare();
        case.kubectl(&["delete", "rolebinding", "quarks-job"]);
        case.apply(&role_without("Role", "quarks-job", &all, Some(right)));
        case.apply(&binding("RoleBinding", "Role", "quarks-job", "quarks-job", OPERATOR));
        case.label();
        needs_of_operator(&right.to_string()).expect("known")(&case);
        until(&format!("a message that names {right}"), || told(&case).iter().any(|line| names(line, right)).then_some(()));
        // It heals by itself.
        case.apply(&role_without("Role", "quarks-job", &all, None));
        case.wait_qjob("q", "the end of the run", |qjob| {
            let is_over = qjob["status"]["lastRun"]["run"].is_u64() && qjob["status"]["active"].is_null();
            is_over && condition(qjob, "Ready").is_some_and(|ready| ready["status"] == "True")
        });
        // An Event is not tried again by itself, and the first pods may be beyond the limit by now.
        match (right.verb.as_str(), right.resource.as_str()) {
            (_, "events") => needs_of_operator("patch events").expect("known")(&case),
            ("delete", "pods") => case.set_now("q"),
            _ => {}
        }
        // The admission plugin asks for this one, and no request of ours has it: the Job above shows that it was there.
        if right.is_asked_by_admission() {
            return;
        }
        let is_use = |entry: &Entry| entry.is_operator() && entry.is_allowed() && right.covers(entry);
        until(&format!("{right} to be used"), || case.audit().iter().any(is_use).then_some(()));
    });
}

#[test]
fn each_right_of_the_sidecar_is_named_when_it_is_missing() {
    let all = rights(SIDECAR);
    is_known(&all, needs_of_sidecar);
    let first = Case::unlabelled("denied");
    each(all.clone(), |right| {
        let case = first.bare_beside(&format!("denied-sidecar-{}", right.to_string().replace([' ', '/'], "-")));
        case.prepare();
        case.kubectl(&["delete", "rolebinding", SIDECAR]);
        case.apply(&role_without("Role", SIDECAR, &all, Some(right)));
        case.apply(&binding("RoleBinding", "Role", SIDECAR, SIDECAR, (&case.namespace, SIDECAR)));
        case.label();
        let (runs, need) = needs_of_sidecar(&right.to_string()).expect("known");
        need(&case);
        let run = case.wait_runs("q", runs);
        assert_eq!((text(&run["outcome"]), text(&run["reason"])), ("Failed".to_owned(), "OutputNotStored".to_owned()), "{right}: {run}");
        assert!(names(&text(&run["message"]), right), "{right}: {run}");
        case.apply(&role_without("Role", SIDECAR, &all, None));
        case.set_now("q");
        assert_eq!(case.wait_runs("q", runs + 1)["outcome"], "Succeeded", "{right}");
    });
}

/// Rights in the whole cluster cannot be taken from the operator that all cases share: another one has to do.
#[test]
fn each_right_of_the_operator_in_the_cluster_is_named_when_it_is_missing() {
    let all: Vec<Right> = ["quarks-job", "quarks-job-status"].into_iter().flat_map(rights).collect();
    let first = Case::unlabelled("denied");
    each(all.clone(), |right| {
        let home = first.bare_beside("denied-home");
        let second = Second::start(&home, &home.namespace, &all, Some(right));
        // There until the line is: a namespace that goes is left alone.
        let _served = (right.resource == "quarksjobs/status").then(|| {
            let case = first.bare_beside("denied-status");
            second.bind(&case);
            case.label_namespace(&[&format!("quarks.cloudfoundry.org/monitored={}", home.namespace)]);
            case.apply(&quarks_job("q", "once", "true"));
            case
        });
        let Right { verb, resource, .. } = right;
        second.wait_line(&["WARN", &format!("cannot {verb} resource \"{resource}\"")]);
    });
}

#[test]
fn a_namespace_without_an_account_label_is_named_with_the_command() {
    let case = Case::unlabelled("denied-no-label");
    case.label_namespace(&[MONITORED_DEFAULT]);
    case.apply(&quarks_job("plain", "once", "true"));
    case.apply(&with_output("q", "once", WRITES, "s"));
    let message = case.wait_condition("q", "Ready", "False", "NamespaceNotReady");
    assert!(message.contains(&format!("kubectl label namespace {} {SIDECAR_ACCOUNT}", case.namespace)), "{message}");
    assert_eq!(case.wait_event("q", "NamespaceNotReady"), message);
    // Without output no account is needed.
    case.wait("plain", "condition=Succeeded");
    // An account that is not there.
    case.label_namespace(&["quarks.cloudfoundry.org/qjob-service-account=nobody"]);
    let message = until("the message to change", || {
        let message = case.wait_condition("q", "Ready", "False", "NamespaceNotReady");
        message.contains("nobody").then_some(message)
    });
    assert!(message.contains("set it to quarks-job-sidecar"), "{message}");
    assert!(message.contains(&format!("kubectl apply -n {} -f manifests/monitored-namespace.yaml", case.namespace)), "{message}");
    case.label_namespace(&[SIDECAR_ACCOUNT]);
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.jobs_created(), 2);
}

#[test]
fn a_missing_account_is_named_with_the_command() {
    let case = Case::unlabelled("denied-no-account");
    case.kubectl(&["delete", "serviceaccount", SIDECAR]);
    case.label();
    case.apply(&with_output("q", "once", WRITES, "s"));
    let message = case.wait_condition("q", "Ready", "False", "NamespaceNotReady");
    let command = format!("kubectl apply -n {} -f manifests/monitored-namespace.yaml", case.namespace);
    assert!(message.contains(&format!("{SIDECAR:?}")) && message.contains("does not exist") && message.ends_with(&command), "{message}");
    case.prepare();
    case.wait("q", "condition=Succeeded");
    assert_eq!(case.jobs_created(), 1);
}

#[test]
fn a_sidecar_without_its_binding_says_what_it_may_not_do() {
    let case = Case::unlabelled("denied-sidecar");
    case.kubectl(&["delete", "rolebinding", SIDECAR]);
    case.label();
    case.apply(&with_output("q", "once", WRITES, "s"));
    let run = case.wait_runs("q", 1);
    assert_eq!((text(&run["outcome"]), text(&run["reason"])), ("Failed".to_owned(), "OutputNotStored".to_owned()), "{run}");
    assert!(text(&run["message"]).contains("cannot watch resource \"pods\""), "{run}");
    assert_eq!(case.output_secrets(), [""; 0]);
}

#[test]
fn a_missing_binding_is_a_condition_with_the_command_and_heals_by_itself() {
    let case = Case::unlabelled("denied-binding");
    case.kubectl(&["delete", "rolebinding", "quarks-job"]);
    case.label();
    case.apply(&quarks_job("q", "once", "true"));
    case.apply(&quarks_job("errand", "manual", "true"));
    let command = format!("kubectl apply -n {} -f manifests/monitored-namespace.yaml", case.namespace);
    for name in ["q", "errand"] {
        let message = case.wait_condition(name, "Ready", "False", "NamespaceNotReady");
        assert!(message.contains("cannot get resource \"quarksjobs\"") && message.ends_with(&format!("run: {command}")), "{message}");
    }
    case.wait("q", "condition=Running=false");
    assert_eq!(case.jobs_created(), 0);
    assert!(
        log_about(&case.namespace).iter().any(|line| line.contains("not allowed") && line.contains(&command)),
        "the log of the operator does not say the command {command:?}"
    );
    case.prepare();
    case.wait("q", "condition=Succeeded");
    case.wait("errand", "condition=Ready");
    assert_eq!(case.jobs_created(), 1);
    let writes = case
        .audit()
        .iter()
        .filter(|entry| entry.is_operator() && entry.what() == "patch quarksjobs/status" && entry.name == "errand")
        .count();
    assert_eq!(writes, 2, "once when it was missing, once when it was there");
    cluster(&["label", "namespace", &case.namespace, "quarks.cloudfoundry.org/monitored-"]);
}
