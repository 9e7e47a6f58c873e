//! The real operator and what an answer means, against the scripted API server: a status code alone says little. Load balancers,
//! admission webhooks, policies and quotas in the way of the read, the create, the settle and the clean-up of a run.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::faults::Rule;
use crate::support::play::{self, End, path};
use crate::support::probe::{Samples, listening};
use crate::support::scene::{NAMESPACE, Scene, condition, message, name, own_job, reason, uid};
use crate::support::{Command, Fault, Request, Response, When, wait_for_within};

const SETTLED: &str = "quarks.cloudfoundry.org/settled";
/// Longer than any backoff (1 min) and what it took to get there.
const HEALS: Duration = Duration::from_secs(180);

/// Until `check` holds, which may take a whole backoff.
#[track_caller]
fn wait_healed<T>(scene: &Scene, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    wait_for_within(HEALS, what, || {
        let found = check();
        assert!(found.is_some() || scene.operator.is_running(), "{what}: the operator is gone\n{}", scene.operator.log());
        found
    })
}

fn wait_run_healed(scene: &Scene, run: u64) -> Value {
    wait_healed(scene, &format!("run {run} in status"), || {
        let object = scene.quarks_job("q");
        (object["status"]["lastRun"]["run"] == run && object["status"]["active"].is_null()).then_some(object)
    })
}

fn wait_reason(scene: &Scene, kind: &str, expected: &str) -> Value {
    scene.operator.wait_for(&format!("{kind} with reason {expected}"), || {
        let object = scene.quarks_job("q");
        (reason(&object, kind) == expected).then_some(object)
    })
}

/// What something between us and the API server says when it cannot find its back end.
fn not_the_api_server(html: bool) -> Fault {
    Fault::Answer(if html {
        Response::new(404, "text/html", b"<html><head><title>404 Not Found</title></head><body>nginx</body></html>".to_vec())
    } else {
        Response::new(404, "text/plain; charset=utf-8", b"404 page not found\n".to_vec())
    })
}

fn refusal(code: u16, reason: &str, message: &str, details: Value) -> Fault {
    Fault::Answer(Response::failure(code, reason, message, details))
}

const POLICY: &str = "ValidatingAdmissionPolicy 'guard' with binding 'guard' denied request: no such change on Fridays";

/// As the API server says that a ValidatingAdmissionPolicy has refused: causes without a field.
fn by_policy(code: u16) -> Fault {
    let message = format!("quarksjobs.quarks.cloudfoundry.org \"q\" is forbidden: {POLICY}");
    let details = json!({"name": "q", "group": "quarks.cloudfoundry.org", "kind": "quarksjobs", "causes": [{"message": POLICY}]});
    match code {
        403 => refusal(403, "Forbidden", &message, details),
        422 => refusal(422, "Invalid", &message, details),
        _ => refusal(400, "BadRequest", &format!("admission webhook \"guard.example.com\" denied the request: {POLICY}"), Value::Null),
    }
}

// --- trouble on the way ----------------------------------------------------------------------------------------

#[test]
fn a_404_that_is_not_the_api_servers_loses_no_trigger() {
    for html in [false, true] {
        for times in [1, 2] {
            for (method, part) in
                [("GET", "/quarksjobs/q"), ("POST", "/jobs"), ("PATCH", "/quarksjobs/q/status"), ("PATCH", "/quarksjobs/q")]
            {
                let what = format!("{method} {part}, {times} times, html: {html}");
                let scene = Scene::new(&format!("way-{method}-{}-{times}-{html}", part.replace('/', "")));
                let _jobs = play::auto_complete(scene.server.api());
                scene.create("q", "manual", |_| {});
                scene.operator.start();
                scene.wait_quiet();
                // The trigger is the only thing that makes it look.
                let rule = scene.server.fault(When::request(method, part).times(times), not_the_api_server(html));
                scene.patch("q", json!({"spec": {"trigger": {"strategy": "once"}}}));
                let object = scene.operator.wait_for(&format!("the run, {what}"), || {
                    let object = scene.quarks_job("q");
                    (object["status"]["lastRun"]["run"] == 1).then_some(object)
                });
                scene.wait_quiet();
                assert_eq!(rule.hits(), times, "{what}");
                assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{what}");
                assert_eq!(scene.created().len(), 1, "{what}");
            }
        }
    }
}

/// The watch says that the Job is gone, the GET of it is not answered by the API server: nobody knows.
#[test]
fn a_404_that_is_not_the_api_servers_cancels_no_run() {
    for html in [false, true] {
        for is_restarted in [false, true] {
            let what = format!("html: {html}, restarted: {is_restarted}");
            let scene = Scene::new(&format!("way-job-{html}-{is_restarted}"));
            scene.create("q", "once", |_| {});
            scene.operator.start();
            scene.wait_running("q");
            scene.wait_quiet();
            let job = scene.wait_jobs(1).remove(0);
            let rule = scene.server.fault(When::request("GET", "/jobs/").times(2), not_the_api_server(html));
            if is_restarted {
                scene.operator.kill9();
                // A first list that does not know the Job, as from a cache that is behind.
                let empty = json!({"kind": "JobList", "apiVersion": "batch/v1", "metadata": {"resourceVersion": "1"}, "items": []});
                let lists = |request: &Request| request.method == "GET" && request.path.ends_with("/batch/v1/jobs") && !request.is_watch();
                let version = job["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
                let mut known = empty;
                known["metadata"]["resourceVersion"] = json!(version);
                scene.server.fault(When::matching(lists), Fault::Answer(Response::json(200, &known)));
                scene.operator.start();
            } else {
                let mut line = json!({"type": "DELETED", "object": job}).to_string();
                line.push('\n');
                assert!(scene.server.command("/batch/v1/jobs", &Command::Inject(line.into_bytes())) > 0, "no watch of Jobs takes the line");
            }
            scene.operator.wait_for(&format!("its look at the Job, {what}"), || {
                (rule.hits() == 2 || !scene.quarks_job("q")["status"]["lastRun"].is_null()).then_some(())
            });
            scene.wait_quiet();
            let object = scene.quarks_job("q");
            assert!(object["status"]["lastRun"].is_null(), "{what}: {object:#}\n{}", scene.operator.log());
            assert_eq!(object["spec"]["trigger"]["strategy"], "once", "{what}");
            // Its end is a change, which the watch shows.
            scene.finish(&name(&job), End::Complete);
            let object = wait_run_healed(&scene, 1);
            assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{what}");
            assert_eq!(scene.created().len(), 1, "{what}");
        }
    }
}

#[test]
fn trouble_on_the_way_that_lasts_is_said_and_heals() {
    for (method, part) in [("GET", "/quarksjobs/q"), ("POST", "/jobs")] {
        let what = format!("{method} {part}");
        let scene = Scene::new(&format!("way-lasts-{method}"));
        let _jobs = play::auto_complete(scene.server.api());
        let rule = scene.server.fault(When::request(method, part).every(), not_the_api_server(method == "POST"));
        scene.create("q", "now", |_| {});
        scene.operator.start();
        let object = scene.operator.wait_for(&format!("APIUnavailable, {what}"), || {
            let object = scene.quarks_job("q");
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["reason"] == "APIUnavailable").then_some(object)
        });
        assert!(rule.hits() >= 3, "{what}: after three in a row, not after {}", rule.hits());
        assert_eq!(object["spec"]["trigger"]["strategy"], "now", "{what}: the trigger is not lost");
        rule.cancel();
        let object = wait_run_healed(&scene, 1);
        assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{what}");
        wait_healed(&scene, "Ready=True", || (condition(&scene.quarks_job("q"), "Ready") == "True").then_some(()));
        assert!(!scene.quarks_job("q")["status"]["conditions"].to_string().contains("APIUnavailable"), "{what}: it heals");
        assert_eq!(scene.created().len(), 1, "{what}");
    }
}

// --- a start that is refused ------------------------------------------------------------------------------------

/// The Job is refused, says `Ready`, with this sentence; tried again soon; and runs when it is let.
fn refused(what: &str, fault: Fault, sentence: &str, tries_before_it_is_said: usize) {
    let scene = Scene::new(&format!("refused-{what}"));
    let _jobs = play::auto_complete(scene.server.api());
    let rule = scene.server.fault(When::request("POST", "/jobs").every(), fault);
    scene.create("q", "now", |_| {});
    scene.operator.start();
    let object = wait_reason(&scene, "Ready", "JobRefused");
    let tries = rule.hits();
    assert!(tries >= tries_before_it_is_said, "{what}: said after {tries} tries");
    assert_eq!(condition(&object, "Ready"), "False", "{what}");
    assert_eq!(condition(&object, "Running"), "False", "{what}");
    assert!(message(&object, "Ready").contains(sentence), "{what}: {}", message(&object, "Ready"));
    assert!(scene.wait_event("q", "JobRefused").contains(sentence), "{what}");
    assert_eq!(object["spec"]["trigger"]["strategy"], "now", "{what}: the trigger waits");
    scene.operator.wait_for(&format!("more tries, {what}"), || (rule.hits() >= tries + 2).then_some(()));
    assert_eq!(reason(&scene.quarks_job("q"), "Ready"), "JobRefused", "{what}");
    rule.cancel();
    let object = wait_run_healed(&scene, 1);
    assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{what}");
    assert_eq!((condition(&object, "Ready").as_str(), scene.created().len()), ("True", 1), "{what}");
}

#[test]
fn a_webhook_that_denies_without_a_code_refuses_the_job_for_now() {
    let sentence = "admission webhook \"deny.example.com\" denied the request: not today";
    refused("denied", refusal(400, "BadRequest", sentence, Value::Null), sentence, 1);
    // The API server leaves the reason empty if the webhook did.
    refused("denied-without-reason", refusal(400, "", sentence, Value::Null), sentence, 1);
    let causes = json!({"causes": [{"message": "not today"}]});
    refused("denied-with-cause", refusal(400, "BadRequest", sentence, causes), sentence, 1);
}

#[test]
fn a_webhook_that_cannot_be_called_refuses_the_job_after_three_tries() {
    let sentence = "failed calling webhook \"w.example.com\": failed to call webhook: Post \"https://10.0.0.1:9443/\": connection refused";
    let message = format!("Internal error occurred: {sentence}");
    let details = json!({"causes": [{"message": sentence}]});
    refused("not-callable", refusal(500, "InternalError", &message, details), sentence, 3);
}

#[test]
fn a_webhook_that_hangs_refuses_the_job_after_three_time_outs() {
    // Longer than the client waits (2 s), and never answered.
    refused("hangs", Fault::BlackHole, "", 3);
    let sentence = "failed calling webhook \"w.example.com\": failed to call webhook: context deadline exceeded";
    refused("hangs-shortly", refusal(500, "InternalError", &format!("Internal error occurred: {sentence}"), Value::Null), sentence, 3);
    let sentence = "Timeout: request did not complete within requested timeout - context deadline exceeded";
    refused("server-times-out", refusal(504, "Timeout", sentence, Value::Null), sentence, 3);
}

#[test]
fn a_quota_and_a_policy_refuse_the_job_for_now() {
    let sentence = "exceeded quota: jobs, requested: count/jobs.batch=1, used: count/jobs.batch=3, limited: count/jobs.batch=3";
    let details = json!({"name": "q-1", "group": "batch", "kind": "jobs"});
    refused("quota", refusal(403, "Forbidden", &format!("jobs.batch \"q-1\" is forbidden: {sentence}"), details), sentence, 1);
    for code in [403, 422] {
        refused(&format!("policy-{code}"), by_policy(code), POLICY, 1);
    }
}

#[test]
fn a_template_that_is_wrong_is_told_from_a_refusal() {
    let cause = json!({"reason": "FieldValueInvalid", "field": "spec.template.spec.containers[0].image", "message": "Required value"});
    let field = json!({"causes": [cause]});
    let undecodable = "Job in version \"v1\" cannot be handled as a Job: json: cannot unmarshal string into Go struct field";
    for (what, code, word, details) in [("field", 422, "Invalid", field.clone()), ("field-400", 400, "BadRequest", field)] {
        let scene = Scene::new(&format!("wrong-{what}"));
        let rule = scene.server.fault(When::request("POST", "/jobs").every(), refusal(code, word, undecodable, details));
        scene.create("q", "now", |_| {});
        scene.operator.start();
        scene.operator.wait_for("Ready=False", || (condition(&scene.quarks_job("q"), "Ready") == "False").then_some(()));
        if what == "field" {
            assert_eq!(reason(&scene.quarks_job("q"), "Ready"), "InvalidTemplate");
            scene.wait_quiet();
            assert_eq!(rule.hits(), 1, "only a change of the spec helps");
        }
        // In this order: what is refused for the new spec waits for the next one.
        rule.cancel();
        scene.patch("q", json!({"spec": {"template": {"spec": {"backoffLimit": 1}}}}));
        scene.wait_jobs(1);
    }
}

// --- a settle that is refused -----------------------------------------------------------------------------------

/// Every settle of `q` is answered like this.
fn refuse_settle(scene: &Scene, fault: Fault) -> Rule {
    let is_settle = |request: &Request| {
        let body = String::from_utf8_lossy(&request.body);
        request.method == "PATCH" && request.path.ends_with("/quarksjobs/q") && body.contains(SETTLED)
    };
    scene.server.fault(When::matching(is_settle).every(), fault)
}

fn job_deletions(scene: &Scene) -> usize {
    scene.asked("DELETE", "/jobs/")
}

fn refused_settle(what: &str, fault: Fault, end: &str, is_restarted: bool) {
    let scene = listening(Scene::new(&format!("settle-{what}-{end}-{is_restarted}")));
    let what = format!("{what}, {end}, restarted: {is_restarted}");
    let rule = refuse_settle(&scene, fault);
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.wait_running("q");
    let job = name(&scene.wait_jobs(1)[0]);
    let failing = end == "Failed";
    scene.finish(&job, if failing { End::Failed { reason: "BackoffLimitExceeded" } } else { End::Complete });
    let object = wait_reason(&scene, "Ready", "SettleRefused");
    let status = &object["status"];
    assert_eq!(condition(&object, "Ready"), "False", "{what}");
    assert!(message(&object, "Ready").contains("Fridays"), "what the server says, {what}: {}", message(&object, "Ready"));
    let said = (condition(&object, "Running"), condition(&object, "Succeeded"), text(&status["lastRun"]["outcome"]));
    let (succeeded, outcome) = if failing { ("False", "Failed") } else { ("True", "Succeeded") };
    assert_eq!(said, ("False".to_owned(), succeeded.to_owned(), outcome.to_owned()), "{what}: {status:#}");
    assert_eq!(status["lastRun"]["run"], 1, "{what}: {status:#}");
    assert_eq!(object["spec"]["trigger"]["strategy"], "once", "{what}");
    let told = if failing { "RunFailed" } else { "RunSucceeded" };
    let ends_told = |object: &Value| {
        let of_first = |(reason, note): &(String, String)| reason == told && note.contains(&job);
        scene.events_of(&uid(object)).iter().filter(|event| of_first(event)).count()
    };
    scene.operator.wait_for("the Event of its end", || (ends_told(&object) > 0).then_some(()));
    if is_restarted {
        scene.operator.kill9();
        scene.operator.start();
        let before = rule.hits();
        scene.operator.wait_for("another try", || (rule.hits() > before).then_some(()));
    }
    // A new trigger waits, the Job stays.
    scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
    let before = rule.hits();
    scene.operator.wait_for("another try", || (rule.hits() > before).then_some(()));
    scene.wait_quiet();
    assert_eq!(scene.created(), std::slice::from_ref(&job), "no second Job, {what}");
    let left: Vec<String> = scene.jobs().iter().map(name).collect();
    assert_eq!((left, job_deletions(&scene)), (vec![job.clone()], 0), "no clean-up, {what}");
    assert_eq!(reason(&scene.quarks_job("q"), "Ready"), "SettleRefused", "{what}");
    // The policy goes.
    let _jobs = play::auto_complete(scene.server.api());
    rule.cancel();
    let object = wait_run_healed(&scene, 2);
    assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{what}");
    assert_eq!((&object["status"]["runs"], &object["spec"]["trigger"]["strategy"]), (&json!(2), &json!("done")), "{what}");
    assert_eq!(condition(&object, "Ready"), "True", "{what}");
    wait_healed(&scene, "the clean-up", || (scene.jobs().len() == usize::from(failing)).then_some(()));
    scene.wait_quiet();
    assert_eq!(scene.created().len(), 2, "{what}");
    let counted: f64 = Samples::scrape(&scene.operator).moved("quarksjob_runs_total").values().sum();
    assert!(counted <= 2.0 && (is_restarted || counted > 1.5), "each run is counted once, {what}: {counted}");
    // One Event for the end of the first run, not one a try.
    assert_eq!(ends_told(&object), 1, "{what}: {:?}", scene.events_of(&uid(&object)));
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_settle_that_a_policy_refuses_is_said_and_nothing_goes_on_until_it_heals() {
    for code in [422, 403, 400] {
        refused_settle(&format!("{code}"), by_policy(code), "Complete", false);
    }
}

#[test]
fn a_refused_settle_of_a_failed_run_and_after_a_restart_is_the_same() {
    for (code, end, is_restarted) in [(422, "Failed", false), (403, "Complete", true), (422, "Failed", true)] {
        refused_settle(&format!("{code}"), by_policy(code), end, is_restarted);
    }
}

#[test]
fn a_settle_that_the_schema_refuses_is_no_other_case() {
    // An object stored before a rule of the CRD may not be written any more: 422 with a field.
    let details = json!({"name": "q", "causes": [{"reason": "FieldValueInvalid", "field": "spec.template", "message": "not on Fridays"}]});
    refused_settle(
        "field",
        refusal(422, "Invalid", "QuarksJob \"q\" is invalid: spec.template: not on Fridays", details),
        "Complete",
        false,
    );
}

#[test]
fn a_job_deleted_while_its_settle_is_refused_is_still_the_run_that_ended() {
    let scene = Scene::new("settle-deleted");
    let rule = refuse_settle(&scene, by_policy(422));
    scene.create("q", "once", |_| {});
    scene.operator.start();
    scene.wait_running("q");
    let job = name(&scene.wait_jobs(1)[0]);
    scene.finish(&job, End::Complete);
    wait_reason(&scene, "Ready", "SettleRefused");
    scene.server.api().delete(&path("jobs", NAMESPACE, &job), "Background");
    let before = rule.hits();
    scene.operator.wait_for("another try", || (rule.hits() > before).then_some(()));
    assert_eq!(scene.created().len(), 1);
    rule.cancel();
    let object = wait_healed(&scene, "the settle", || {
        let object = scene.quarks_job("q");
        (object["spec"]["trigger"]["strategy"] == "done").then_some(object)
    });
    scene.wait_quiet();
    let object = if object["status"]["active"].is_null() { object } else { wait_run_healed(&scene, 1) };
    assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{}", scene.operator.log());
    assert_eq!(scene.created().len(), 1);
}

// --- a clean-up that is refused ---------------------------------------------------------------------------------

fn keeps_pods(object: &mut Value) {
    object["spec"]["template"]["spec"]["template"]["metadata"]["labels"] = json!({"app": "q"});
}

/// Jobs of `q` complete with one pod each.
fn complete_with_a_pod(scene: &Scene) -> play::Auto {
    play::auto(scene.server.api(), |api, job| {
        let name = name(job);
        play::create_pod_for_job(api, NAMESPACE, &name, &[("main", 0, "")]);
        play::finish_job(api, NAMESPACE, &name, End::Complete);
    })
}

fn pods(scene: &Scene) -> Vec<Value> {
    scene.server.api().list(&path("pods", NAMESPACE, ""))
}

/// A pod that is kept for its log goes with the QuarksJob.
fn is_kept(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    !owners.is_empty() && owners.iter().all(|owner| owner["kind"] == "QuarksJob")
}

fn pod_policy(code: u16) -> Fault {
    let message = format!("pods \"p\" is forbidden: {POLICY}");
    let details = json!({"name": "p", "kind": "pods", "causes": [{"message": POLICY}]});
    refusal(code, if code == 403 { "Forbidden" } else { "Invalid" }, &message, details)
}

#[test]
fn a_clean_up_that_is_refused_holds_up_no_start_and_is_done_later() {
    for code in [403, 422] {
        for (method, part) in [("PATCH", "/pods/"), ("DELETE", "/jobs/")] {
            let what = format!("{method} {part} {code}");
            let scene = Scene::new(&format!("cleanup-{method}-{code}"));
            let _jobs = complete_with_a_pod(&scene);
            let rule = scene.server.fault(When::request(method, part).every(), pod_policy(code));
            scene.create("q", "now", keeps_pods);
            scene.operator.start();
            scene.wait_settled("q", 1);
            scene.operator.wait_for(&format!("the refusal, {what}"), || (rule.hits() > 0).then_some(()));
            for run in 2..=4 {
                scene.patch("q", json!({"spec": {"trigger": {"strategy": "now"}}}));
                let object = scene.wait_settled("q", run);
                assert_eq!(object["status"]["lastRun"]["outcome"], "Succeeded", "{what}");
                assert_eq!(object["spec"]["trigger"]["strategy"], "manual", "{what}");
            }
            if method == "PATCH" {
                assert!(pods(&scene).iter().all(|pod| !is_kept(pod)), "{what}: {:#?}", pods(&scene));
                assert_eq!(scene.jobs().len(), 4, "a Job whose pods would go with it stays, {what}");
            }
            rule.cancel();
            wait_healed(&scene, &format!("the clean-up, {what}"), || scene.jobs().is_empty().then_some(()));
            // `podHistoryLimit` is 3.
            wait_healed(&scene, &format!("three pods kept, {what}"), || {
                let pods = pods(&scene);
                (pods.len() == 3 && pods.iter().all(is_kept)).then_some(())
            });
            assert_eq!(scene.created().len(), 4, "{what}");
        }
    }
}

#[test]
fn a_refused_clean_up_is_tried_with_backoff() {
    let scene = Scene::new("cleanup-backoff");
    let _jobs = complete_with_a_pod(&scene);
    let rule = scene.server.fault(When::request("PATCH", "/pods/").every(), pod_policy(422));
    scene.create("q", "now", keeps_pods);
    scene.operator.start();
    scene.wait_settled("q", 1);
    scene.operator.wait_for("a second try", || (rule.hits() >= 2).then_some(()));
    let start = std::time::Instant::now();
    let window = Duration::from_secs(20);
    let before = rule.hits();
    // Ends early if there are too many.
    scene.operator.wait_for("the window to pass", || (start.elapsed() >= window || rule.hits() - before > 20).then_some(()));
    assert!(rule.hits() - before <= 7, "20 writes a minute at most: {} in {window:?}", rule.hits() - before);
}

#[test]
fn a_pod_that_is_another_by_now_is_gone_for_us() {
    let scene = Scene::new("cleanup-uid");
    let _jobs = complete_with_a_pod(&scene);
    let details = json!({"name": "p", "kind": "Pod", "causes": [
        {"reason": "FieldValueInvalid", "field": "metadata.uid", "message": "Invalid value: field is immutable"}]});
    let rule = scene.server.fault(When::request("PATCH", "/pods/").every(), refusal(422, "Invalid", "Pod \"p\" is invalid", details));
    scene.create("q", "now", keeps_pods);
    scene.operator.start();
    scene.wait_settled("q", 1);
    scene.wait_jobs(0);
    assert_eq!(rule.hits(), 1, "{}", scene.operator.log());
}

#[test]
fn after_a_success_dependents_of_the_job_go_and_its_pods_stay() {
    let scene = Scene::new("background");
    let _jobs = complete_with_a_pod(&scene);
    scene.create("q", "now", keeps_pods);
    scene.operator.start();
    let own = own_job("q", &scene.quarks_job("q"), 1);
    let job = scene.operator.wait_for("the Job", || {
        let posted = scene.server.mutations().into_iter().find(|entry| entry.is("POST", "/jobs"))?;
        Some(posted.request.json())
    });
    let owner = &job["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["controller"], &owner["blockOwnerDeletion"], &owner["kind"]), (&json!(true), &json!(true), &json!("QuarksJob")));
    scene.wait_settled("q", 1);
    scene.wait_jobs(0);
    let writes = scene.server.mutations();
    let at = |method: &str, part: &str| writes.iter().position(|entry| entry.is(method, part)).unwrap_or_else(|| panic!("{method} {part}"));
    let (patched, deleted) = (at("PATCH", "/pods/"), at("DELETE", &format!("/jobs/{own}")));
    assert!(patched < deleted, "the pods first");
    let options = writes[deleted].request.json();
    let policy = options["propagationPolicy"].as_str().unwrap_or_else(|| writes[deleted].request.parameter("propagationPolicy"));
    assert_eq!(policy, "Background", "else what others made for the Job stays without an owner");
    let pods = pods(&scene);
    assert!(pods.len() == 1 && is_kept(&pods[0]), "{pods:#?}");
    assert_ne!(pods[0]["metadata"]["ownerReferences"][0]["controller"], true);
}
