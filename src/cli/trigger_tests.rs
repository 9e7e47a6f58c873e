use serde_json::Value;

use super::*;

#[test]
fn durations() {
    for (text, expected) in [
        ("90s", Some(90)),
        ("5m", Some(300)),
        ("1h30m", Some(5_400)),
        ("0s", None),
        ("", None),
        ("5", None),
        ("s", None),
        ("5d", None),
        ("1.5h", None),
        ("-1s", None),
        ("5 m", None),
        ("5é", None),
        ("99999999999999999999s", None),
        ("9999999999999999h", None),
    ] {
        assert_eq!(duration(text), expected.map(Duration::from_secs), "{text}");
    }
}

#[test]
fn values_differ_each_time() {
    let values: std::collections::BTreeSet<String> = (0..100).map(|_| fresh_value()).collect();
    assert_eq!(values.len(), 100);
}

fn object(value: &str, status: Value) -> QuarksJob {
    let mut metadata = json!({"name": "q", "uid": "u", "annotations": {}});
    if !value.is_empty() {
        metadata["annotations"][ANNOTATION_RUN_REQUESTED] = value.into();
    }
    serde_json::from_value(json!({"metadata": metadata, "status": status})).expect("decodes")
}

fn settled(runs: u64, request: &str) -> Value {
    json!({"settled": json!({"uid": "u", "runs": runs, "request": request}).to_string()})
}

fn ended(runs: u64, request: &str, last: u64) -> Value {
    let mut status = settled(runs, request);
    status["lastRun"] = json!({"run": last, "jobName": format!("j-{last}"), "outcome": "Succeeded"});
    status
}

fn active(run: u64, request: Value) -> Value {
    let record = json!({"run": run, "trigger": "request", "request": request}).to_string();
    json!({"active": {"run": run, "jobName": format!("j-{run}"), "trigger": "request", "uid": "u", "record": record}})
}

fn ready(reason: &str) -> Value {
    json!({"conditions": [{"type": "Ready", "status": if reason == "Suspended" { "True" } else { "False" }, "reason": reason, "message": "m"}]})
}

/// What each look says, in a word or by what is told.
fn looks(before: &str, is_list: bool, objects: &[QuarksJob]) -> Vec<String> {
    looks_after(&object("mine", json!({})), before, is_list, objects)
}

/// The same with what was there when the request was made.
fn looks_after(asked: &QuarksJob, before: &str, is_list: bool, objects: &[QuarksJob]) -> Vec<String> {
    let mut asked = asked.clone();
    asked.metadata.resource_version = "asked".into();
    let mut followed = Followed::new(&asked, "mine".to_owned(), Some(before.to_owned()).filter(|value| !value.is_empty()));
    // As where the request changed nothing: the watch has shown that state already.
    followed.is_seen = before == "mine";
    let word = |look| match look {
        Look::Waiting(news) => news.join("; "),
        Look::Over(last) => format!("over {}", last.run),
        Look::Unserved(why) => format!("unserved: {why}"),
        Look::Lost(why) => format!("lost: {why}"),
    };
    objects.iter().map(|object| word(followed.look(object, is_list))).collect()
}

const OVER: &str = "another request replaced this one; its run serves both";

/// The request before ours, what is checked, and what each look says.
type Case = (&'static str, Vec<QuarksJob>, &'static [&'static str]);

fn followed(cases: &[Case]) {
    for (number, (before, objects, expected)) in cases.iter().enumerate() {
        let expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(looks(before, false, objects), expected, "case {number}");
    }
}

#[test]
fn a_request_is_followed_to_the_end_of_the_run_that_serves_it() {
    followed(&[
        (
            "",
            vec![
                object("mine", json!({})),
                object("mine", active(1, json!("mine"))),
                object("mine", settled(1, "mine")),
                object("mine", ended(1, "mine", 1)),
            ],
            &["", "run 1 is active as Job j-1", "", "over 1"],
        ),
        // What the watch still shows of the time before; and an outcome of the run before is not ours.
        (
            "old",
            vec![
                object("old", ended(3, "old", 3)),
                object("mine", ended(3, "old", 3)),
                object("mine", settled(4, "mine")),
                object("mine", ended(4, "mine", 4)),
            ],
            &["", "", "", "over 4"],
        ),
        ("", vec![object("mine", ended(5, "mine", 5))], &["over 5"]),
        // Status is behind the marker, or a later run has ended already.
        ("", vec![object("mine", ended(5, "mine", 4)), object("mine", ended(6, "mine", 6))], &["", "over 6"]),
        (
            "",
            vec![object("mine", active(2, Value::Null)), object("mine", active(2, Value::Null)), object("mine", active(3, json!("mine")))],
            &["waiting for run 2 to end", "", "run 3 is active as Job j-3"],
        ),
        // The state of before is still shown, with a value that came between the first list and ours.
        (
            "older",
            vec![object("old", ended(3, "old", 3)), object("mine", ended(3, "old", 3)), object("mine", ended(4, "mine", 4))],
            &["", "", "over 4"],
        ),
        (
            "",
            vec![
                object("mine", ready("Suspended")),
                object("mine", ready("Suspended")),
                object("mine", ready("InvalidSpec")),
                object("mine", active(1, json!("mine"))),
                object("", active(1, json!("mine"))),
            ],
            &["no run starts now: Suspended: m", "", "no run starts now: InvalidSpec: m", "run 1 is active as Job j-1", ""],
        ),
    ]);
}

#[test]
fn a_request_that_is_overwritten_is_served_with_the_later_one() {
    followed(&[
        // Before it was served: the later request's run serves both.
        (
            "old",
            vec![
                object("mine", json!({})),
                object("theirs", json!({})),
                object("theirs", active(7, json!("theirs"))),
                object("theirs", ended(7, "theirs", 7)),
            ],
            &["", OVER, "run 7 is active as Job j-7", "over 7"],
        ),
        // While it is served.
        (
            "",
            vec![
                object("mine", active(7, json!("mine"))),
                object("theirs", active(7, json!("mine"))),
                object("theirs", ended(7, "mine", 7)),
            ],
            &["run 7 is active as Job j-7", OVER, "over 7"],
        ),
    ]);
    // A fresh list may not show ours at all.
    let objects = [object("old", json!({})), object("theirs", json!({})), object("more", ended(8, "more", 8))];
    assert_eq!(looks("old", true, &objects), ["", OVER, "over 8"]);
}

const REPLACED: &str = "another request replaced this one";
const SERVED: &str = "unserved: another request replaced it, with a value that had been served before";

/// Nothing waits any more, and the run that has served that value is not ours.
#[test]
fn a_request_that_is_overwritten_with_a_served_value_is_not_served() {
    let both = |mut one: Value, other: Value| {
        one.as_object_mut().expect("a status").extend(other.as_object().expect("a status").clone());
        one
    };
    // Nothing else is active.
    let asked = object("mine", ended(1, "first", 1));
    let over = object("first", ended(1, "first", 1));
    let by_now = object("first", ended(2, "first", 2));
    assert_eq!(looks_after(&asked, "first", false, &[asked.clone(), over.clone(), by_now]), ["", SERVED, SERVED]);
    // Somebody asks for a run after all, and then with that value again.
    let later = object("theirs", ended(1, "first", 1));
    assert_eq!(
        looks_after(&asked, "first", false, &[asked.clone(), over.clone(), later, object("theirs", ended(2, "theirs", 2))]).last().unwrap(),
        "over 2"
    );
    // A run that has begun before: what is served when it has ended is its value.
    let active_two = |value: &str| object(value, both(ended(1, "one", 1), active(2, json!("two"))));
    let asked = active_two("mine");
    let overwritten = [asked.clone(), active_two("one"), object("one", ended(2, "two", 2)), object("one", ended(3, "one", 3))];
    assert_eq!(looks_after(&asked, "two", false, &overwritten), ["waiting for run 2 to end", REPLACED, "", "over 3"]);
    let overwritten = [asked.clone(), active_two("two"), object("two", ended(2, "two", 2)), object("two", ended(3, "two", 3))];
    assert_eq!(looks_after(&asked, "two", false, &overwritten), ["waiting for run 2 to end", REPLACED, SERVED, SERVED]);
}

/// Its request changes nothing, so no state of the watch is its own.
#[test]
fn a_second_caller_with_the_same_value_sees_what_becomes_of_it() {
    let asked = object("mine", ended(2, "old", 2));
    let replaced = [object("theirs", ended(2, "old", 2)), object("theirs", ended(3, "theirs", 3))];
    assert_eq!(looks_after(&asked, "mine", false, &replaced), [OVER, "over 3"]);
    assert_eq!(looks_after(&asked, "mine", false, &[object("", ended(2, "old", 2))]), ["unserved: the request was withdrawn"]);
}

#[test]
fn a_request_is_lost_when_it_is_taken_back_or_its_quarksjob_goes() {
    followed(&[("old", vec![object("mine", json!({})), object("", json!({}))], &["", "unserved: the request was withdrawn"])]);
    let mut other = object("mine", json!({}));
    other.metadata.uid = "u2".into();
    assert_eq!(looks("", false, &[other]), ["lost: it was deleted and re-created"]);
    let mut going = object("mine", json!({}));
    going.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".to_owned());
    assert_eq!(looks("", false, &[going]), ["lost: it is being deleted"]);
}

#[test]
fn an_outcome_is_a_line_and_its_secrets_another() {
    let mut last: LastRun = serde_json::from_value(json!({"run": 7, "jobName": "e-7", "outcome": "Succeeded",
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:12Z", "reason": "x", "message": "y"}))
    .expect("decodes");
    assert_eq!(outcome("e", &last), "e: run 7 Succeeded (Job e-7, 12 s)\n");
    let stored = |secret: &str| crate::api::StoredOutput { secret: secret.to_owned(), ..Default::default() };
    last.outputs = vec![stored("a"), stored("b-v2")];
    (last.outcome, last.message, last.completion_time) = (Outcome::Failed, "two\nlines".to_owned(), None);
    assert_eq!(outcome("e", &last), "e: run 7 Failed (Job e-7): x: two lines\ne: stored a, b-v2\n");
}
