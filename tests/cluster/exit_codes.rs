//! Every cell of the docs' table of exit codes, on the real node.

use serde_json::{Value, json};

use crate::case::{Case, many_pods, map, with_output};
use crate::pages;

const HEAD: &str = "| exit code | `Never` | `Never`, `writeOnFailure: true` | `OnFailure` | `OnFailure`, `writeOnFailure: true` |";
/// Restart policy and `writeOnFailure`, in the order of the table's columns.
const COLUMNS: [(&str, bool); 4] = [("Never", false), ("Never", true), ("OnFailure", false), ("OnFailure", true)];

/// Exit code and cells of each row.
fn table() -> Vec<(u64, Vec<String>)> {
    let code = |cell: &str| cell.split(' ').next().and_then(|word| word.parse().ok()).expect("a row starts with an exit code");
    pages::table(HEAD).rows.into_iter().map(|cells| (code(&cells[0]), cells[1..].to_vec())).collect()
}

/// Writes which attempt it is, and ends with the code the first time, with 0 the second.
fn script(code: u64) -> String {
    let end = match code {
        // A file that is there and is no program.
        126 => "touch /tmp/no-program; /tmp/no-program",
        // Not process 1 itself, which cannot be killed from inside; lack of memory, which does that, is a case of its own.
        // Kubernetes makes one dollar sign of two.
        137 => "sh -c 'kill -KILL $$$$'; exit $?",
        143 => "sh -c 'kill -TERM $$$$'; exit $?",
        _ => &format!("exit {code}"),
    };
    format!(
        r#"if [ -e /mnt/quarks/been-here ]; then echo '{{"try": "2"}}' >> /mnt/quarks/output.json; exit 0; fi
        touch /mnt/quarks/been-here
        echo '{{"try": "1"}}' >> /mnt/quarks/output.json
        {end}"#
    )
}

fn qjob(name: &str, code: u64, (restart_policy, write_on_failure): (&str, bool)) -> Value {
    let mut qjob = with_output(name, "once", &script(code), name);
    qjob["spec"]["output"]["writeOnFailure"] = json!(write_on_failure);
    // Under OnFailure the limit counts restarts; with Never there shall be none.
    qjob["spec"]["template"]["spec"]["backoffLimit"] = json!(if restart_policy == "Never" { 0 } else { 3 });
    // The ended pod is looked at.
    qjob["spec"]["template"]["spec"]["template"]["metadata"] = Value::Null;
    qjob["spec"]["template"]["spec"]["template"]["spec"]["restartPolicy"] = json!(restart_policy);
    qjob
}

#[test]
fn the_table_of_exit_codes_holds() {
    let table = table();
    assert_eq!(table.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [0, 1, 2, 126, 137, 143]);
    let _turn = many_pods();
    let case = Case::new("exit-codes");
    let mut cells = Vec::new();
    for (code, row) in &table {
        for (column, cell) in COLUMNS.into_iter().zip(row) {
            let name = format!("{}-{code}-{}", column.0.to_lowercase(), if column.1 { "write" } else { "drop" });
            cells.push((name, *code, column, cell.as_str()));
        }
    }
    let items: Vec<Value> = cells.iter().map(|(name, code, column, _)| qjob(name, *code, *column)).collect();
    case.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
    for (name, code, column, cell) in &cells {
        let run = case.wait_runs(name, 1);
        let secret = case.try_kubectl(&["get", "secret", name], None).is_ok().then(|| case.secret(name));
        let expected = match *cell {
            "stored" => Some(map(&[("try", "1")])),
            "not stored" => None,
            "runs again" => Some(map(&[("try", "2")])),
            other => panic!("{other:?} in the table"),
        };
        assert_eq!(secret, expected, "{name}");
        let succeeded = *code == 0 || column.0 == "OnFailure";
        assert_eq!(run["outcome"], if succeeded { "Succeeded" } else { "Failed" }, "{name}: {run}");
        // That the cell is what it says: the container did end with this code.
        let pods = case.list("pods", &format!("quarks.cloudfoundry.org/qjob-name={name}"));
        assert_eq!(pods.len(), 1, "{name}");
        let main = pods[0]["status"]["containerStatuses"].as_array().expect("a list").iter().find(|status| status["name"] == "main");
        let main = main.expect("the container");
        if *cell == "runs again" {
            // The kubelet forgets how it ended before; it was the same script as in the other columns.
            assert!(main["restartCount"].as_u64() >= Some(1), "{name}: {main}");
        } else {
            assert_eq!(main["state"]["terminated"]["exitCode"], *code, "{name}: {main}");
        }
    }
    assert_eq!(case.jobs_created(), cells.len());
}
