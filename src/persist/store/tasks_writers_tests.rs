//! The store against a scripted API server: other writers of the same names, and runs that are over.

use super::*;

/// The QuarksJob's status after so many runs.
fn settled(runs: u64) -> Value {
    json!({"settled": json!({"uid": "u", "runs": runs}).to_string()})
}

#[test]
fn an_older_run_writes_nothing() {
    for (runs, is_over) in [(0, false), (1, true), (7, true)] {
        for versioned in [false, true] {
            let mut bench = if versioned { Bench::versioned("older") } else { Bench::one("older") };
            bench.server.borrow_mut().status = settled(runs);
            let events = bench.run();
            assert_eq!(bench.server.borrow().secrets.is_empty(), is_over);
            if is_over {
                let (reason, message) = failure(&events);
                assert_eq!(reason, OutputErrorReason::OwnerGone);
                assert!(message.starts_with("run 1 of QuarksJob q is over"), "{message}");
                assert_eq!(bench.calls(), "get quarksjob");
            }
        }
    }
}

#[test]
fn after_an_outage_it_is_asked_again_and_after_a_short_one_not() {
    // Tries that fail: waits of 0.25, 0.5, 1, 2, 4, 8, 15, 15 s and so on, each a little more or less.
    for (tries, is_asked) in [(4, false), (9, true)] {
        for (what, expected) in [("nothing", None), ("marker", Some("OwnerGone")), ("pod", Some("OutputNotStored"))] {
            let mut bench = Bench::one("outage");
            bench.server.borrow_mut().trouble.extend(vec![("create", Trouble::Unsent); tries]);
            // Until it is asked again nothing shows.
            let first = bench.run_for(false, Duration::ZERO);
            assert_eq!(first, []);
            bench.server.borrow_mut().status = settled(u64::from(what == "marker"));
            bench.server.borrow_mut().is_pod_gone = what == "pod";
            let events = bench.go_on(Duration::from_secs(3600));
            let reason = if is_asked { expected } else { None };
            match reason {
                None => assert_eq!(events, [stored("s", None, "f"), finished()], "{tries} {what}"),
                Some(reason) => assert_eq!(failure(&events).0.as_str(), reason, "{tries} {what}"),
            }
            let looks = |call: &str| bench.server.borrow().calls.iter().filter(|other| *other == call).count();
            assert_eq!(looks("get quarksjob") > 1, is_asked, "{}", bench.calls());
            assert_eq!(looks("watch pod") > 0, is_asked && what != "marker", "{}", bench.calls());
            assert_eq!(bench.server.borrow().secrets.is_empty(), reason.is_some());
        }
    }
}

#[test]
fn for_a_container_that_ends_later_it_is_asked_again() {
    for (seconds, looks) in [(0, 1), (1, 2), (20, 2)] {
        let mut bench = Bench::new("later", &[]);
        for name in ["a", "b"] {
            fs::create_dir_all(bench.root.join(name)).unwrap();
            fs::write(bench.root.join(name).join("f"), r#"{"k":"v"}"#).unwrap();
        }
        let containers = json!({"a": {"files": {"f": {"name": "s-a"}}}, "b": {"files": {"f": {"name": "s-b"}}}});
        let plan = json!({"quarksJob": "q", "uid": "u", "run": 1, "containers": containers});
        bench.store = Store::new(Fake(Rc::clone(&bench.server)), &Environment::for_tests(plan, &bench.root), 7);
        let end = |bench: &mut Bench, name: &str| {
            let mut events = bench.store.accept(EndedContainer { container: name.into(), lenient: false, documents: 1 }, bench.now);
            events.extend(bench.go_on(Duration::from_secs(3600)));
            events.into_iter().find_map(|event| if let StoreEvent::Failed(error) = event { Some(error.reason) } else { None })
        };
        assert_eq!(end(&mut bench, "a"), None);
        bench.server.borrow_mut().clock += Duration::from_secs(seconds);
        bench.server.borrow_mut().status = settled(1);
        let is_over = looks > 1;
        assert_eq!(end(&mut bench, "b"), is_over.then_some(OutputErrorReason::OwnerGone), "{seconds}");
        assert_eq!(bench.server.borrow().secrets.contains_key("s-b"), !is_over, "{seconds}");
        assert_eq!(bench.calls().matches("get quarksjob").count(), looks, "{}", bench.calls());
    }
}

#[test]
fn an_outage_before_the_first_look_counts_too() {
    let mut bench = Bench::one("first-look");
    bench.server.borrow_mut().trouble.extend(vec![("get", Trouble::Unsent); 9]);
    bench.server.borrow_mut().is_pod_gone = true;
    assert_eq!(failure(&bench.run()).0, OutputErrorReason::OutputNotStored);
    assert!(bench.server.borrow().secrets.is_empty());
}

#[test]
fn no_write_leaves_when_the_look_is_too_old_within_one_attempt() {
    // Each answer takes 40 s: the look is too old for the update that follows the refused create.
    let mut bench = Bench::one("slow").secret("s", json!({"metadata": {"name": "s", "annotations": {ANNOTATION_WRITTEN_BY: "q"}}}));
    bench.server.borrow_mut().slow = Duration::from_secs(40);
    assert_eq!(bench.run(), [stored("s", None, "f"), finished()]);
    assert_eq!(bench.calls(), "get quarksjob, create s, get s, get quarksjob, watch pod, get s, update s");
}

fn version_by(writer: &str, name: &str, version: u64, content: &str) -> Value {
    json!({"metadata": {"name": format!("{name}-v{version}"), "annotations": {ANNOTATION_WRITTEN_BY: writer}, "labels": {
        LABEL_SECRET_KIND: "versionedSecret", LABEL_SECRET_VERSION: version.to_string(), LABEL_CONTAINER_NAME: "main"}},
        "data": {"k": content}})
}

#[test]
fn versions_have_an_owner() {
    // Of the highest version: its writer, and whether ours comes next.
    for (writer, is_ours) in [("q", true), ("team-a", false), ("", false)] {
        for content in ["eA==", "Q0FOQVJZLXMzY3IzdA=="] {
            let mut bench = Bench::versioned("owner").secret("s-v1", version_by("q", "s", 1, "eQ=="));
            bench = bench.secret("s-v2", version_by(writer, "s", 2, content));
            let before = bench.server.borrow().secrets.clone();
            let events = bench.run();
            if is_ours {
                assert!(matches!(&events[0], StoreEvent::Stored(_)), "{events:?}");
            } else {
                assert_eq!(failure(&events).0, OutputErrorReason::OutputConflict);
                assert_eq!(bench.server.borrow().secrets, before, "{writer}");
            }
        }
    }
    // A lower one by another does not matter.
    let mut bench = Bench::versioned("owner").secret("s-v1", version_by("p", "s", 1, "eQ=="));
    bench = bench.secret("s-v2", version_by("q", "s", 2, "eA=="));
    assert_eq!(bench.run(), [stored("s-v3", Some(3), "f"), finished()]);
}

#[test]
fn the_faster_of_two_owners_has_the_name() {
    let mut bench = Bench::versioned("race");
    // It comes after the list: as if it were there when the create is refused.
    bench.server.borrow_mut().late = Some(("s-v1".to_owned(), version_by("p", "s", 1, "eA==")));
    assert_eq!(failure(&bench.run()).0, OutputErrorReason::OutputConflict);
    assert_eq!(bench.calls(), "get quarksjob, list s, create s-v1, get s-v1");
}

#[test]
fn one_list_is_for_all_entries_of_a_file() {
    let content = |value: &str| format!(r#"{{"a":{{"k":"{value}"}},"b":{{"k":"{value}"}}}}"#);
    let plan = json!({"name": "s", "fanOut": true, "versioned": true});
    let mut bench = Bench::new("one-list", &[("f", plan, Some(&content("1")))]);
    bench.run();
    assert_eq!(bench.calls(), "get quarksjob, list s-a+s-b, create s-a-v1, create s-b-v1");
    fs::write(bench.root.join("main/f"), content("2")).unwrap();
    bench.store.claimed.clear();
    bench.server.borrow_mut().calls.clear();
    bench.server.borrow_mut().trouble.extend([("create", Trouble::Unsent), ("create", Trouble::ReplyLost)]);
    let mut events = bench.run();
    events.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(events, [finished(), stored("s-a-v2", Some(2), "f"), stored("s-b-v2", Some(2), "f")]);
    // What failed is listed for again, once for all that failed until then.
    let lists = "list s-a+s-b, get s-a-v1, create s-a-v2, get s-b-v1, create s-b-v2, list s-a+s-b, get s-";
    assert!(bench.calls().starts_with(lists), "{}", bench.calls());
    assert_eq!(bench.calls().matches("list").count(), 2);
}

#[test]
fn a_number_that_makes_the_name_of_another_output_is_skipped() {
    let version = |number: u32| {
        let labels = json!({LABEL_SECRET_KIND: "versionedSecret", LABEL_SECRET_VERSION: number.to_string()});
        json!({"metadata": {"name": format!("s-v{number}"), "labels": labels}})
    };
    let (plain, versioned) = (|name: &str| json!({"name": name}), json!({"name": "s", "versioned": true}));
    // Files in the order in which they are stored; versions that are there.
    for (name, files, there, number) in [
        ("plain-after", [("a", versioned.clone()), ("b", plain("s-v1")), ("c", plain("s-v2"))], vec![], 3),
        ("plain-before", [("a", plain("s-v1")), ("b", plain("s-v2")), ("c", versioned.clone())], vec![], 3),
        ("plain-above", [("a", versioned.clone()), ("b", plain("s-v20")), ("c", plain("s-v22"))], vec![18, 19], 21),
        ("plain-far", [("a", versioned.clone()), ("b", plain("s-v20")), ("c", plain("t-v1"))], vec![], 1),
        ("plain-other", [("a", versioned.clone()), ("b", plain("s-v01")), ("c", json!({"name": "s-v1", "versioned": true}))], vec![], 1),
        ("plain-fan-out", [("a", versioned.clone()), ("b", json!({"name": "s-v1", "fanOut": true})), ("c", plain("x"))], vec![], 1),
    ] {
        let files = files.map(|(file, plan)| (file, plan, Some(r#"{"k":"{}"}"#)));
        let mut bench = Bench::new(name, &files);
        for number in there {
            bench = bench.secret(&format!("s-v{number}"), version(number));
        }
        let events = bench.run();
        let is_version = |event: &&StoreEvent| matches!(event, StoreEvent::Stored(secret) if secret.name == format!("s-v{number}") && secret.version == Some(number));
        assert_eq!(events.iter().filter(is_version).count(), 1, "{name}: {events:?}");
        assert!(!events.iter().any(|event| matches!(event, StoreEvent::Failed(_))), "{name}: {events:?}");
        assert!(!bench.calls().contains("all"), "{name}: {}", bench.calls());
    }
}

#[test]
fn a_number_that_others_have_just_taken_does_not_lead_to_the_name_of_another_output() {
    let files =
        [("a", json!({"name": "s", "versioned": true}), Some(r#"{"k":"x"}"#)), ("b", json!({"name": "s-v2"}), Some(r#"{"k":"x"}"#))];
    let mut bench = Bench::new("late-beside-plain", &files);
    let labels = json!({LABEL_SECRET_KIND: "versionedSecret", LABEL_SECRET_VERSION: "1"});
    bench.server.borrow_mut().late = Some(("s-v1".into(), json!({"metadata": {"name": "s-v1", "labels": labels}})));
    assert_eq!(bench.run(), [stored("s-v3", Some(3), "a"), stored("s-v2", None, "b"), finished()]);
}

#[test]
fn a_version_that_is_there_is_never_another_output() {
    let labels = json!({LABEL_SECRET_KIND: "versionedSecret", LABEL_SECRET_VERSION: "2"});
    let files =
        [("a", json!({"name": "s", "versioned": true}), Some(r#"{"k":"x"}"#)), ("b", json!({"name": "s-v2"}), Some(r#"{"k":"x"}"#))];
    let mut bench = Bench::new("version-before", &files).secret("s-v2", json!({"metadata": {"name": "s-v2", "labels": labels}}));
    let events = bench.run();
    assert_eq!((&events[0], &events[2]), (&stored("s-v3", Some(3), "a"), &finished()));
    assert_eq!(
        failure(&events[1..]),
        (OutputErrorReason::OutputConflict, "Secret s-v2 is a version of another output; use another output name".into())
    );
}
