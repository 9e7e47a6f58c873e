//! What the operator and the sidecars asked for in all cases since the cluster started.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::{self, Entry};
use crate::case::{cluster, log};
use crate::granted::{Right, rights};
use crate::player;

/// Namespaces of cases that take rights away.
const DENIED: &str = "t-denied";

#[derive(Default)]
struct Account {
    runs: usize,
    pods: usize,
    /// Writes of the sidecars that met another one: each costs up to three more looks.
    conflicts: usize,
    /// Reads of what templates refer to, and of the key of the digests.
    looks: usize,
    /// Looks whether the sidecar's token is there: every few seconds, but only while a run with output goes on.
    token_looks: usize,
    /// When the first and the last of them was made.
    times: Option<(String, String)>,
    /// Writes of others to ConfigMaps and Secrets: each may be a reason to look.
    reasons: usize,
    operator: BTreeMap<String, usize>,
    sidecar: BTreeMap<String, usize>,
}

fn line(counts: &BTreeMap<String, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(verb, number)| format!("{verb} {number}")).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

#[test]
fn requests_stay_within_bounds_in_every_case() {
    let entries = audit::entries(|_| true);
    let mut accounts: BTreeMap<&str, Account> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.namespace.starts_with("t-") && !entry.namespace.starts_with(DENIED)) {
        let account = accounts.entry(&entry.namespace).or_default();
        account.runs += usize::from(entry.is_job_created());
        account.pods += usize::from(entry.verb == "create" && entry.resource == "pods" && entry.code == 201);
        account.conflicts += usize::from(entry.is_sidecar() && entry.code == 409);
        let is_content = matches!(entry.resource.as_str(), "configmaps" | "secrets");
        account.reasons += usize::from(is_content && !entry.is_read() && !entry.is_operator());
        if entry.is_operator() && entry.verb == "get" && is_content && entry.name != "quarks-job-sidecar-token" {
            account.looks += 1;
            continue;
        }
        if entry.is_operator() && entry.verb == "get" && entry.name == "quarks-job-sidecar-token" {
            account.token_looks += 1;
            let first = account.times.take().map_or_else(|| entry.time.clone(), |(first, _)| first);
            account.times = Some((first, entry.time.clone()));
            continue;
        }
        let verb = if entry.is_event() { "event".to_owned() } else { entry.verb.clone() };
        if entry.is_operator() {
            *account.operator.entry(verb).or_default() += 1;
        } else if entry.is_sidecar() {
            *account.sidecar.entry(verb).or_default() += 1;
        }
    }
    println!("\n{:<34} {:>4}  requests of the operator | of the sidecars", "namespace", "runs");
    for (namespace, account) in &accounts {
        let (runs, looks) = (account.runs, account.looks);
        println!("{namespace:<34} {runs:>4}  {}, look {looks} | {}", line(&account.operator), line(&account.sidecar));
    }
    for (namespace, account) in &accounts {
        // The read of each run, and some more after conflicts and restarts: no polling has room.
        let gets = account.operator.get("get").copied().unwrap_or(0);
        assert!(gets <= 6 + 4 * account.runs, "{namespace}: {gets} GET for {} runs", account.runs);
        // A look each six seconds from the first to the last, and some more where it was made, deleted or refused.
        let seconds = account.times.as_ref().map_or(0, |(first, last)| {
            let time = |text: &str| humantime::parse_rfc3339_weak(text).expect("a time of the audit log");
            time(last).duration_since(time(first)).map_or(0, |duration| duration.as_secs() as usize)
        });
        let token_looks = account.token_looks;
        assert!(token_looks <= 6 + 2 * account.runs + seconds / 5, "{namespace}: {token_looks} looks at the token in {seconds} s");
        // Each run looks at its references, a dozen at most in these cases, and so does each change of one of them.
        let (looks, reasons) = (account.looks, account.reasons);
        assert!(looks <= 12 + 12 * account.runs + 4 * reasons, "{namespace}: {looks} looks at references for {reasons} changes");
        let reads: usize = ["get", "list", "watch"].iter().filter_map(|verb| account.sidecar.get(*verb)).sum();
        let (pods, conflicts) = (account.pods, account.conflicts);
        assert!(reads <= 5 * pods + 3 * conflicts, "{namespace}: {reads} reads by the sidecars for {pods} pods and {conflicts} conflicts");
    }
}

#[test]
fn nobody_asked_for_what_it_may_not_do() {
    let entries = audit::entries(|namespace| !namespace.starts_with(DENIED));
    let is_deletion = |entry: &&Entry| entry.verb == "delete" && entry.resource == "namespaces";
    // In a namespace that goes, the rights may go first.
    let deleted: BTreeMap<&str, &str> =
        entries.iter().filter(is_deletion).map(|entry| (entry.namespace.as_str(), entry.time.as_str())).collect();
    let refused: BTreeSet<String> = entries
        .iter()
        .filter(|entry| (entry.is_operator() || entry.is_sidecar()) && !entry.is_allowed())
        .filter(|entry| deleted.get(entry.namespace.as_str()).is_none_or(|time| entry.time.as_str() < *time))
        .map(Entry::to_string)
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// What is granted and what was used are the same, right by right: nothing is granted that nobody needs.
#[test]
fn rights_granted_are_rights_used() {
    let entries = audit::entries(|_| true);
    let roles = ["quarks-job", "quarks-job-status", "quarks-job-namespace", "quarks-job-leader-election"];
    let operator: Vec<Right> = roles.into_iter().flat_map(rights).collect();
    for (who, is_it, granted) in [
        ("operator", Entry::is_operator as fn(&Entry) -> bool, operator),
        ("sidecar", Entry::is_sidecar as fn(&Entry) -> bool, rights("quarks-job-sidecar")),
    ] {
        let used: Vec<&Entry> = entries.iter().filter(|entry| is_it(entry) && entry.is_allowed() && !entry.resource.is_empty()).collect();
        assert!(used.len() > granted.len(), "{who}: {} requests", used.len());
        let idle: Vec<String> = granted
            .iter()
            .filter(|right| !right.is_asked_by_admission() && !used.iter().any(|entry| right.covers(entry)))
            .map(ToString::to_string)
            .collect();
        let beyond: BTreeSet<String> = used
            .iter()
            .filter(|entry| !granted.iter().any(|right| right.covers(entry)))
            .map(|entry| format!("{} {}", entry.what(), entry.name))
            .collect();
        assert!(idle.is_empty() && beyond.is_empty(), "{who}: granted and not used: {idle:?}; used and not granted: {beyond:?}");
        println!("{who}: {} rights granted, all of them used in {} requests", granted.len(), used.len());
    }
}

#[test]
fn the_operator_has_not_crashed_and_logs_no_output() {
    let restarts =
        cluster(&["--namespace", "quarks-job", "get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"]);
    // Without a node it is not in its pod, and `scripts/test` fails if the process ends.
    assert_eq!(restarts, if player::is_needed() { "" } else { "0" });
    let log = log();
    for word in ["panic", "not a good one", "hidden-value", "eyJ"] {
        assert!(!log.contains(word), "the log has {word:?}");
    }
}
