//! What a versioned fan-out asks of the API server: at most three requests an entry, and one list in pages for the whole file.

use std::collections::BTreeMap;

use serde_json::json;

use super::scene::{CANARY, Scene};

/// Secrets in one page of a list.
const PAGE: usize = 100;

/// One run of so many entries; gives the numbers of its pages of lists, its reads and its creates.
fn run(scene: &Scene, entries: usize, content: &str) -> [usize; 3] {
    scene.server.forget_requests();
    let map: BTreeMap<String, _> = (0..entries).map(|number| (format!("e{number}"), json!({"k": format!("{CANARY}{content}")}))).collect();
    let plan = json!({"containers": {"main": {"files": {"f": {"name": "s", "fanOut": true, "versioned": true}}}}});
    scene.ended_well(plan, &json!(map).to_string()).finish_stored();
    let requests = scene.requests();
    let count = |is: &dyn Fn(&str) -> bool| requests.iter().filter(|request| is(request)).count();
    let lists = count(&|request| request == "GET secrets");
    let reads = count(&|request| request.starts_with("GET secrets/"));
    let creates = count(&|request| request == "POST secrets");
    let looks = count(&|request| request == "GET quarksjobs/q" || request.starts_with("WATCH"));
    assert_eq!(lists + reads + creates + looks, requests.len());
    [lists, reads, creates]
}

fn check(entries: usize) {
    let scene = Scene::new(&format!("requests-{entries}"));
    for (number, content) in ["1", "2", "3", "3"].into_iter().enumerate() {
        let found = run(&scene, entries, content);
        let [lists, reads, creates] = found;
        println!("{entries} entries, run {}: {lists} pages, {reads} reads, {creates} creates: {}", number + 1, lists + reads + creates);
        // The versions of the earlier runs are in the list.
        let pages = (entries * number).div_ceil(PAGE).max(1);
        let expected = [pages, if number == 0 { 0 } else { entries }, if number == 3 { 0 } else { entries }];
        assert_eq!(found, expected, "{entries} entries, run {}", number + 1);
    }
    assert_eq!(scene.secrets().len(), 3 * entries);
}

#[test]
fn of_10_entries() {
    check(10);
}

#[test]
fn of_100_entries() {
    check(100);
}

#[test]
fn of_300_entries() {
    check(300);
}

#[test]
fn of_1000_entries() {
    check(1000);
}

#[test]
fn numbers_that_other_secrets_have_are_skipped_in_one_list() {
    let scene = Scene::new("requests-occupied");
    for number in 1..=250 {
        scene.put_secret(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("s-e0-v{number}")}}));
    }
    // Of the versions, and of all Secrets.
    assert_eq!(run(&scene, 1, "1"), [1 + 3, 1, 2]);
    assert!(scene.secret("s-e0-v251").is_some(), "the first Secret of the entry is not there");
    assert_eq!(run(&scene, 1, "2"), [1, 1, 1]);
    assert!(scene.secret("s-e0-v252").is_some(), "the next version of the entry is not there");
}
