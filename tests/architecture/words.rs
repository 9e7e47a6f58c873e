//! The words that users see and build on, in the code and in the docs: what stands in one stands in the other.

use std::collections::BTreeSet;

use quarks_job::contract::reason::{Place, Reason};
use quarks_job::metrics::Metrics;

use super::{read, root, sources};

type Words = BTreeSet<String>;

/// Rows of the table in `README.md` that has this head, as their cells.
fn table(head: &str) -> Vec<Vec<String>> {
    let text = read(&root().join("README.md"));
    let (_, rest) = text.split_once(&format!("\n{head}\n")).unwrap_or_else(|| panic!("README.md has no table {head}"));
    let rows = rest.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands in backticks.
fn words(cell: &str) -> Words {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words of a column.
fn column(rows: &[Vec<String>], at: usize) -> Words {
    rows.iter().flat_map(|row| words(&row[at])).collect()
}

/// The row that begins with this word.
fn row(head: &str, word: &str) -> Vec<String> {
    let found = table(head).into_iter().find(|row| words(&row[0]).contains(word));
    found.unwrap_or_else(|| panic!("README.md has no row {word} below {head}"))
}

fn reasons(stand: impl Fn(&[Place]) -> bool) -> Words {
    Reason::ALL.iter().filter(|reason| stand(reason.places())).map(|reason| reason.as_str().to_owned()).collect()
}

fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> Words {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn each_event_is_in_the_docs_and_no_other() {
    let events = reasons(|places| places.contains(&Place::Normal) || places.contains(&Place::Warning));
    assert_eq!(column(&table("| reason | when |"), 0), events, "README.md, Events");
}

#[test]
fn each_reason_of_a_condition_is_in_the_docs_and_no_other() {
    const CONDITIONS: &str = "| condition | `True` | `False` |";
    let at = |place: Place| reasons(|places| places.contains(&place));
    let ready = row(CONDITIONS, "Ready");
    assert_eq!(words(&ready[1]), at(Place::Ready(true)), "README.md, condition Ready is True");
    assert_eq!(words(&ready[2]), at(Place::Ready(false)), "README.md, condition Ready is False");
    assert_eq!(column(&table("| reason | meaning and remedy |"), 0), at(Place::Ready(false)), "README.md, Troubleshooting");
    let running = row(CONDITIONS, "Running");
    assert_eq!(words(&running[1]), at(Place::Running(true)), "README.md, condition Running is True");
    assert_eq!(words(&running[2]), at(Place::Running(false)), "README.md, condition Running is False");
    let succeeded = row(CONDITIONS, "Succeeded");
    assert_eq!(words(&succeeded[1]), at(Place::Succeeded(Some(true))), "README.md, condition Succeeded is True");
    let unknown = set(["Unknown"]).into_iter().chain(at(Place::Succeeded(None))).collect::<Words>();
    assert_eq!(words(&succeeded[2]), unknown, "README.md, condition Succeeded is Unknown");
}

#[test]
fn each_reason_of_a_run_is_in_the_docs_and_no_other() {
    let is_bad = |place: &Place| matches!(place, Place::Succeeded(Some(false) | None));
    let bad = reasons(|places| places.iter().any(is_bad));
    let of_kubernetes = set(["BackoffLimitExceeded", "DeadlineExceeded"]);
    let all: Words = bad.union(&of_kubernetes).cloned().collect();
    assert_eq!(column(&table("| reason | look at |"), 0), all, "README.md, Troubleshooting");
    let of_output = reasons(|places| places.iter().any(is_bad) && places.contains(&Place::Warning));
    assert_eq!(column(&table("| reason | meaning |"), 0), of_output, "README.md, Output");
}

#[test]
fn labels_of_metrics_have_the_words_that_the_docs_say() {
    const METRICS: &str = "| metric | type | labels | what |";
    let page = Metrics::new().text();
    let values = |metric: &str, label: &str| -> Words {
        let lines = page.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
        let value = |line: &str| Some(line.split_once(&format!("{label}=\""))?.1.split_once('"')?.0.to_owned());
        lines.filter_map(value).collect()
    };
    for (metric, labels) in [
        ("quarksjob_runs_total", ["trigger", "outcome"].as_slice()),
        ("controller_runtime_reconcile_total", &["controller", "result"]),
        ("workqueue_depth", &["name"]),
    ] {
        let said = words(&row(METRICS, metric)[2]);
        let all: Words = labels.iter().flat_map(|label| values(metric, label)).chain(set(labels.iter().copied())).collect();
        assert!(all.len() > labels.len(), "{metric} has no values on the page:\n{page}");
        assert_eq!(said, all, "README.md, {metric}");
    }
    // These are there only once they have happened, so the words are those of the function that gives them.
    let sources = sources();
    let state = &sources["watch/state.rs"];
    let (_, function) = state.split_once("fn reason(self)").expect("the function is there");
    let body = function.split_once("\n    }\n").expect("it ends").0;
    let given: Words = body.split('"').skip(1).step_by(2).map(str::to_owned).chain(set(["ended", "resource", "reason"])).collect();
    assert_eq!(words(&row(METRICS, "quarksjob_watch_restarts_total")[2]), given, "README.md, quarksjob_watch_restarts_total");
}
