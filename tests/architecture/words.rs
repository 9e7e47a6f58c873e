//! The words that users see and build on, in the code and in the docs: what stands in one stands in the other.

use std::collections::BTreeSet;

use quarks_job::contract::reason::{Place, Reason};
use quarks_job::contract::report::OutputErrorReason;
use quarks_job::metrics::Metrics;
use serde_yaml::Value;

use super::pages::{Table, page, table};
use super::{code, lines_with, read, root, sources};

type Words = BTreeSet<String>;

/// What stands in backticks.
fn words(cell: &str) -> Words {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words of the first column.
fn first_column(table: &Table) -> Words {
    table.rows.iter().flat_map(|row| words(&row[0])).collect()
}

/// The row whose first cell has this word.
fn row<'a>(table: &'a Table, word: &str) -> &'a [String] {
    let found = table.rows.iter().find(|row| words(&row[0]).contains(word));
    found.unwrap_or_else(|| panic!("{} has no row {word}", table.place))
}

/// The words of the first column of the table with this head are these.
#[track_caller]
fn assert_first_column(head: &str, expected: &Words) {
    let table = table(head);
    assert_same(&table.place, &first_column(&table), expected);
}

fn reasons(stand: impl Fn(&[Place]) -> bool) -> Words {
    Reason::ALL.iter().filter(|reason| stand(reason.places())).map(|reason| reason.as_str().to_owned()).collect()
}

/// Says which words one of them lacks.
#[track_caller]
fn assert_same(place: &str, in_docs: &Words, in_code: &Words) {
    let missing: Vec<_> = in_code.difference(in_docs).collect();
    let extra: Vec<_> = in_docs.difference(in_code).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{place} lacks {missing:?}, and has {extra:?}, which the code has not");
}

fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> Words {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn each_event_is_in_the_docs_and_no_other() {
    let events = reasons(|places| places.contains(&Place::Normal) || places.contains(&Place::Warning));
    assert_first_column("| reason | when |", &events);
}

#[test]
fn each_reason_of_a_condition_is_in_the_docs_and_no_other() {
    let conditions = table("| condition | `True` | `False` |");
    let check = |cell: &str, expected: Words, what: &str| assert_same(&format!("{}: {what}", conditions.place), &words(cell), &expected);
    let at = |place: Place| reasons(|places| places.contains(&place));
    let ready = row(&conditions, "Ready");
    check(&ready[1], at(Place::Ready(true)), "Ready is True");
    check(&ready[2], at(Place::Ready(false)), "Ready is False");
    assert_first_column("| reason | meaning and remedy |", &at(Place::Ready(false)));
    let running = row(&conditions, "Running");
    check(&running[1], at(Place::Running(true)), "Running is True");
    check(&running[2], at(Place::Running(false)), "Running is False");
    let succeeded = row(&conditions, "Succeeded");
    check(&succeeded[1], at(Place::Succeeded(Some(true))), "Succeeded is True");
    let unknown = set(["Unknown"]).into_iter().chain(at(Place::Succeeded(None))).collect::<Words>();
    check(&succeeded[2], unknown, "Succeeded is False");
}

#[test]
fn each_reason_of_a_run_is_in_the_docs_and_no_other() {
    let is_bad = |place: &Place| matches!(place, Place::Succeeded(Some(false) | None));
    let bad = reasons(|places| places.iter().any(is_bad));
    let of_kubernetes = set(["BackoffLimitExceeded", "DeadlineExceeded"]);
    let all: Words = bad.union(&of_kubernetes).cloned().collect();
    assert_first_column("| reason | look at |", &all);
    let of_output = reasons(|places| places.iter().any(is_bad) && places.contains(&Place::Warning));
    assert_first_column("| reason | meaning |", &of_output);
}

#[test]
fn each_reason_is_said_somewhere() {
    let code = code();
    for reason in Reason::ALL {
        let word = format!("Reason::{reason}");
        let is_used = code.iter().any(|(file, code)| file != "contract/reason.rs" && !lines_with(code, &word).is_empty());
        // Those of the sidecar come by its report.
        let is_reported = OutputErrorReason::ALL.iter().any(|reported| Reason::from(*reported) == *reason);
        assert!(is_used || is_reported, "Reason::{reason} of src/contract/reason.rs is used nowhere in src: report it, or delete the line");
    }
}

/// The fields below `schema`, as the docs name them: those of a map by a letter.
fn fields(schema: &Value, path: &str, found: &mut Words) {
    if path == "template" {
        found.insert(path.to_owned());
        return;
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let properties = schema["properties"].as_mapping();
    let of_map = &schema["additionalProperties"];
    for (name, schema) in properties.into_iter().flatten() {
        fields(schema, &below(name.as_str().expect("a name")), found);
    }
    if of_map.get("properties").is_some() || of_map.get("additionalProperties").is_some() {
        found.insert(path.to_owned());
        fields(of_map, &below(if path.ends_with(".C") { "F" } else { "C" }), found);
    } else if properties.is_none() {
        found.insert(path.to_owned());
    }
}

#[test]
fn each_field_of_the_spec_is_in_the_crd_the_docs_and_the_code() {
    let crd: Value = serde_yaml::from_str(&read(&root().join("manifests/crd.yaml"))).expect("YAML");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut in_crd = Words::new();
    fields(spec, "", &mut in_crd);
    in_crd.retain(|path| !path.ends_with(".C"));
    let mut in_docs = Words::new();
    let table = table("| field | type, default | meaning |");
    for row in &table.rows {
        let mut parent = String::new();
        for word in row[0].split('`').skip(1).step_by(2) {
            let path = if word.starts_with('.') { format!("{parent}{word}") } else { word.to_owned() };
            parent = path.rsplit_once('.').map_or_else(String::new, |(parent, _)| parent.to_owned());
            in_docs.insert(path);
        }
    }
    assert_same(&format!("{}, beside manifests/crd.yaml,", table.place), &in_docs, &in_crd);
    let code = &sources()["api/spec.rs"];
    for path in &in_crd {
        let name = path.rsplit('.').next().unwrap_or(path);
        let snake: String =
            name.chars().map(|c| if c.is_ascii_uppercase() { format!("_{}", c.to_ascii_lowercase()) } else { c.to_string() }).collect();
        let is_read = [format!("\"{name}\""), format!("/{name}\""), format!(" {snake}: ")].iter().any(|form| code.contains(form));
        assert!(is_read, "src/api/spec.rs reads no {path}");
    }
}

#[test]
fn each_label_and_annotation_of_ours_is_in_the_docs() {
    let (docs, sources) = (page("docs/names.md").text, sources());
    let names = &sources["api/names.rs"];
    let ours: Words = names.split('"').filter_map(|text| text.strip_prefix("quarks.cloudfoundry.org/")).map(str::to_owned).collect();
    assert!(ours.len() > 10, "names.rs is not as this test reads it: {ours:?}");
    for name in ours.iter().filter(|name| *name != "v1alpha1") {
        assert!(docs.contains(&format!("/{name}`")), "docs/names.md names no quarks.cloudfoundry.org/{name}");
    }
}

#[test]
fn labels_of_metrics_have_the_words_that_the_docs_say() {
    let metrics = table("| metric | type | labels | what |");
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
        let said = words(&row(&metrics, metric)[2]);
        let all: Words = labels.iter().flat_map(|label| values(metric, label)).chain(set(labels.iter().copied())).collect();
        assert!(all.len() > labels.len(), "{metric} has no values on the page:\n{page}");
        assert_same(&format!("{}: {metric}", metrics.place), &said, &all);
    }
    // These are there only once they have happened, so the words are those of the function that gives them.
    let sources = sources();
    let state = &sources["watch/state.rs"];
    let (_, function) = state.split_once("fn reason(self)").expect("the function is there");
    let body = function.split_once("\n    }\n").expect("it ends").0;
    let given: Words = body.split('"').skip(1).step_by(2).map(str::to_owned).chain(set(["ended", "resource", "reason"])).collect();
    let said = words(&row(&metrics, "quarksjob_watch_restarts_total")[2]);
    assert_same(&format!("{}: quarksjob_watch_restarts_total", metrics.place), &said, &given);
}
