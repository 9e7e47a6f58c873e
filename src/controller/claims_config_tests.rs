//! What the two controllers decide when what a one-off refers to has changed, or may have.

use super::*;

const CONTENT_A: &str = "aaaa";
const CONTENT_B: &str = "bbbb";

/// A one-off that uses ConfigMap `c`, with `strategy` and what its last run used.
fn uses_config(strategy: &str, updates: bool, stored: Option<&str>) -> QuarksJobView {
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "c"}}]}]}}}});
    let digest = digest::Digest::of_template(&template);
    let marker =
        Marker { runs: 1, once: Some(digest.to_string()), config: stored.map(|content| config(&digest, content)), ..Marker::default() };
    let text = marker.encode(&UID.into());
    view(json!({
        "metadata": {"annotations": {"quarks.cloudfoundry.org/settled": text}},
        "spec": {"trigger": {"strategy": strategy}, "updateOnConfigChange": updates, "template": template},
        "status": {"settled": text, "lastRun": {"run": 1, "jobName": "j", "outcome": "Succeeded"}}
    }))
}

fn config(template: &digest::Digest, content: &str) -> String {
    format!("hmac-sha256:key1:{}:{content}", template.hex())
}

#[test]
fn config_changes() {
    let run = Decision::Errand(E::Start(Pending { trigger: Trigger::Config, strategy: None, request: None }));
    let (look, baseline) = (Decision::Errand(E::LookAtReferences), Decision::Errand(E::TakeBaseline));
    let (a, b) = (Some(CONTENT_A), Some(CONTENT_B));
    // Strategy, updateOnConfigChange, what the last run used, what was seen, is it due.
    let cases = [
        ("nothing has happened", "done", true, a, None, false, Decision::Nothing),
        ("something has", "done", true, a, None, true, look.clone()),
        ("it looked, and nothing has changed", "done", true, a, a, false, Decision::Nothing),
        ("it has changed", "done", true, a, b, false, run.clone()),
        ("a one-off that still says once", "once", true, a, b, false, run),
        ("there is no baseline", "done", true, None, None, false, look.clone()),
        ("a new baseline", "done", true, None, a, false, baseline.clone()),
        ("errands never run by themselves", "manual", true, None, b, true, Decision::Nothing),
        ("switched off", "done", false, None, b, true, Decision::Nothing),
        ("switched off, and the baseline goes", "done", false, a, b, true, baseline.clone()),
        ("an errand needs none", "manual", true, a, b, true, baseline),
        ("changed again since it looked", "done", true, a, b, true, look),
    ];
    let now = Instant::now();
    for (name, strategy, updates, stored, seen, is_due, expected) in cases {
        let view = uses_config(strategy, updates, stored);
        let seen = seen.map(|content| config(&view.template_digest, content));
        let references = ReferencesSeen { config: seen.as_deref(), due: is_due.then_some(now), ..ReferencesSeen::default() };
        assert_eq!(decide(&Snapshot { references, ..snapshot(&view, &namespace()) }, now), expected, "{name}");
    }
}

#[test]
fn a_digest_of_another_template_or_key_is_a_new_baseline_and_no_run() {
    let now = Instant::now();
    let other = digest::Digest::of_template(&json!("other"));
    let mut view = uses_config("done", true, Some(CONTENT_A));
    let seen = config(&view.template_digest, CONTENT_B);
    let ask = |view: &QuarksJobView, config: Option<&str>| {
        let references = ReferencesSeen { config, ..ReferencesSeen::default() };
        decide(&Snapshot { references, ..snapshot(view, &namespace()) }, now)
    };
    for stored in [config(&other, CONTENT_A), seen.replace("key1", "key2"), "md5:1".to_owned()] {
        view.marker.config = Some(stored.clone());
        assert_eq!(ask(&view, Some(&seen)), Decision::Errand(E::TakeBaseline), "{stored}");
    }
    view.marker.config = Some(config(&other, CONTENT_A));
    assert_eq!(ask(&view, None), Decision::Errand(E::LookAtReferences));
    assert_eq!(ask(&view, Some(&config(&other, CONTENT_B))), Decision::Errand(E::LookAtReferences), "seen before the template changed");
}

#[test]
fn a_burst_is_waited_out_but_holds_up_no_other_trigger() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let references = ReferencesSeen { due: Some(later), ..ReferencesSeen::default() };
    let view = uses_config("done", true, Some(CONTENT_A));
    let at = |view: &QuarksJobView, now| decide(&Snapshot { references, ..snapshot(view, &namespace()) }, now);
    assert_eq!(at(&view, now), Decision::Wait(Duration::from_secs(1)));
    assert_eq!(at(&view, later), Decision::Errand(E::LookAtReferences));
    let suspended = QuarksJobView { is_suspended: true, ..view.clone() };
    assert_eq!(at(&suspended, later), Decision::Errand(E::Report(Readiness::Suspended)));
    let asked = QuarksJobView { request: Some("r".into()), ..view };
    assert!(matches!(at(&asked, now), Decision::Errand(E::Start(Pending { trigger: Trigger::Request, .. }))));
}

#[test]
fn a_config_loop_waits_and_other_triggers_do_not() {
    let now = Instant::now();
    let until = now + Duration::from_secs(20);
    let pauses = Pauses { config_paused_until: Some(until), ..Pauses::default() };
    let mut view = uses_config("done", true, Some(CONTENT_A));
    let seen = config(&view.template_digest, CONTENT_B);
    let references = ReferencesSeen { config: Some(&seen), ..ReferencesSeen::default() };
    let ask = |view: &QuarksJobView, at| decide(&Snapshot { references, pauses, ..snapshot(view, &namespace()) }, at);
    assert_eq!(ask(&view, now), Decision::Wait(Duration::from_secs(20)));
    assert!(matches!(ask(&view, until), Decision::Errand(E::Start(_))));
    view.request = Some("r".into());
    assert!(matches!(ask(&view, now), Decision::Errand(E::Start(_))));
}
