//! How many requests a run costs, and that nobody polls.

use std::collections::BTreeMap;

use crate::audit::Entry;
use crate::case::{Case, quarks_job, with_output};

fn count(entries: &[Entry], wanted: impl Fn(&Entry) -> bool) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in entries.iter().filter(|entry| wanted(entry)) {
        *counts.entry(entry.what()).or_default() += 1;
    }
    counts
}

/// What the operator does for runs: without Events, and without the one look for a token's Secret that an earlier
/// operator may have left in a namespace.
fn of_runs(entries: &[Entry]) -> BTreeMap<String, usize> {
    let looks = entries.iter().filter(|entry| entry.is_operator() && entry.name == "quarks-job-sidecar-token").count();
    assert!(looks <= 1, "{looks} looks for the token's Secret, without output");
    count(entries, |entry| entry.is_operator() && !entry.is_event() && entry.name != "quarks-job-sidecar-token")
}

fn expect(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(what, number)| ((*what).to_owned(), *number)).collect()
}

#[test]
fn a_run_without_output_is_one_read_and_five_writes() {
    let case = Case::new("budget");
    case.apply(&quarks_job("q", "once", "true"));
    case.wait_runs("q", 1);
    case.wait_event("q", "RunSucceeded");
    case.wait_no_jobs();
    let entries = case.audit();
    let requests = of_runs(&entries);
    let expected = [("get quarksjobs", 1), ("create jobs", 1), ("patch quarksjobs/status", 2), ("patch quarksjobs", 1), ("delete jobs", 1)];
    assert_eq!(requests, expect(&expected));
    assert_eq!(count(&entries, Entry::is_sidecar), expect(&[]));
}

#[test]
fn keeping_the_pods_costs_one_list_and_one_patch_a_pod() {
    let case = Case::new("budget-pods");
    let mut qjob = quarks_job("q", "once", "true");
    qjob["spec"]["template"]["spec"]["template"]["metadata"] = serde_json::Value::Null;
    case.apply(&qjob);
    case.wait_runs("q", 1);
    case.wait_event("q", "RunSucceeded");
    case.wait_no_jobs();
    let requests = of_runs(&case.audit());
    let expected = [
        ("get quarksjobs", 1),
        ("create jobs", 1),
        ("patch quarksjobs/status", 2),
        ("patch quarksjobs", 1),
        ("list pods", 1),
        ("patch pods", 1),
        ("delete jobs", 1),
    ];
    assert_eq!(requests, expect(&expected));
}

#[test]
fn the_sidecar_watches_and_does_not_poll() {
    let case = Case::new("budget-output");
    // Long enough for anybody who polls to be seen.
    case.apply(&with_output("q", "once", r#"sleep 5; echo '{"a": "b"}' >> /mnt/quarks/output.json"#, "s"));
    case.wait_runs("q", 1);
    case.wait_event("q", "RunSucceeded");
    case.wait_no_jobs();
    let entries = case.audit();
    let sidecar = count(&entries, Entry::is_sidecar);
    let reads: usize = entries.iter().filter(|entry| entry.is_sidecar() && entry.is_read()).count();
    assert!(reads <= 4, "{sidecar:?}");
    assert_eq!(sidecar.get("create secrets"), Some(&1), "{sidecar:?}");
    let writes = entries.iter().filter(|entry| entry.is_sidecar() && !entry.is_read()).count();
    assert_eq!(writes, 1, "{sidecar:?}");
    let operator = count(&entries, |entry| entry.is_operator() && entry.is_read());
    assert_eq!(operator.get("get quarksjobs"), Some(&1), "{operator:?}");
}
