//! Every cell of the table of exit codes in the docs, run with the real binary.

use serde_json::json;

use super::scene::{Scene, document, ended, ended_after, one_file, running};
use crate::pages;

const HEAD: &str = "| exit code | `Never` | `Never`, `writeOnFailure: true` | `OnFailure` | `OnFailure`, `writeOnFailure: true` |";
const EXIT_CODES: [i32; 6] = [0, 1, 2, 126, 137, 143];
/// In the order of the table's columns: restart policy, `writeOnFailure`.
const COLUMNS: [(&str, bool); 4] = [("Never", false), ("Never", true), ("OnFailure", false), ("OnFailure", true)];

/// Exit code and cells of each row.
fn rows() -> Vec<(i32, Vec<String>)> {
    let code = |cell: &str| cell.split(' ').next().and_then(|word| word.parse().ok()).expect("a row starts with an exit code");
    pages::table(HEAD).rows.into_iter().map(|cells| (code(&cells[0]), cells[1..].to_vec())).collect()
}

#[test]
fn the_table_holds_every_exit_code_once() {
    let rows = rows();
    assert_eq!(rows.iter().map(|(code, _)| *code).collect::<Vec<_>>(), EXIT_CODES);
}

fn run_row(code: i32) {
    let (_, cells) = rows().into_iter().find(|(other, _)| *other == code).expect("a row for each code");
    for (cell, (policy, write_on_failure)) in cells.into_iter().zip(COLUMNS) {
        let question = format!("exit code {code}, {policy}, writeOnFailure: {write_on_failure}: {cell}");
        let scene = Scene::new(&format!("matrix-{code}-{policy}-{write_on_failure}"));
        let mut plan = one_file();
        plan["writeOnFailure"] = json!(write_on_failure);
        let sidecar = scene.sidecar(policy, plan);
        sidecar.write("main", "f", document(&[("k", "first")]));
        sidecar.process.start();
        // So that it sees every state and not only the last one.
        scene.wait_watch();
        sidecar.states(&[("main", ended(code))]);
        if cell == "runs again" {
            // The second attempt appends; a Secret with the first content would have been another write.
            sidecar.states(&[("main", json!({"restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}))]);
            sidecar.states(&[("main", running())]);
            sidecar.write("main", "f", document(&[("k", "first")]) + &document(&[("k", "second")]));
            sidecar.states(&[("main", ended_after(1, 0))]);
        }
        let report = sidecar.finish_stored().report;
        let writes = scene.requests().into_iter().filter(|request| request.starts_with('P')).collect::<Vec<_>>();
        match cell.as_str() {
            "stored" => assert_eq!((scene.value("s").as_str(), writes.len()), ("first", 1), "{question}"),
            "not stored" => {
                assert_eq!((scene.secrets().len(), writes.len(), report.get("secrets")), (0, 0, None), "{question}");
            }
            "runs again" => assert_eq!((scene.value("s").as_str(), writes.len()), ("second", 1), "{question}"),
            other => panic!("no such word: {other}"),
        }
    }
}

#[test]
fn row_0() {
    run_row(0);
}

#[test]
fn row_1() {
    run_row(1);
}

#[test]
fn row_2() {
    run_row(2);
}

#[test]
fn row_126() {
    run_row(126);
}

#[test]
fn row_137() {
    run_row(137);
}

#[test]
fn row_143() {
    run_row(143);
}

#[test]
fn of_a_failed_container_only_what_is_there_and_valid_is_stored() {
    let scene = Scene::new("lenient");
    let files = json!({"missing": {"name": "s"}, "wrong": {"name": "t"}, "good": {"name": "u"}});
    let sidecar = scene.sidecar("Never", json!({"writeOnFailure": true, "containers": {"main": {"files": files}}}));
    sidecar.write("main", "wrong", r#"{"k":1}"#);
    sidecar.write("main", "good", document(&[("k", "1")]));
    sidecar.states(&[("main", ended(137))]);
    sidecar.process.start();
    sidecar.finish_stored();
    assert_eq!(scene.secrets(), ["u"]);
}

#[test]
fn under_on_failure_the_pods_own_failure_ends_the_waiting() {
    for write_on_failure in [false, true] {
        let scene = Scene::new(&format!("pod-failed-{write_on_failure}"));
        let mut plan = one_file();
        plan["writeOnFailure"] = json!(write_on_failure);
        let sidecar = scene.sidecar("OnFailure", plan);
        sidecar.write("main", "f", document(&[("k", "1")]));
        sidecar.process.start();
        sidecar.states_in_phase("Failed", &[("main", ended(1))]);
        sidecar.finish_stored();
        assert_eq!(scene.secrets().len(), usize::from(write_on_failure), "writeOnFailure {write_on_failure}: Secrets");
    }
}
