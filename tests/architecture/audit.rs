//! `docs/audit.md` against the crates: which are in the program, which run while it is built, and what their sources have in them. And
//! the tests that its table of threats names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{assert_none, is_word_letter, pages, read, root};

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];
/// At most so many times `unsafe`, and what the page calls it.
const UNSAFE: [(usize, &str); 4] = [(0, "none"), (20, "few"), (100, "some"), (usize::MAX, "much")];
/// Names without which no crate opens a connection, but by system calls of its own.
const NETWORK: [&str; 7] = ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener", "UnixDatagram", "ToSocketAddrs"];
/// The same for files.
const FILES: [&str; 6] = ["std::fs", "fs::File", "File::open", "File::create", "OpenOptions", "fs::read"];
const PROCESSES: [&str; 2] = ["process::Command", "Command::new"];
/// Folders with tests.
const TESTS: [&str; 2] = ["src", "tests"];

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(arguments).arg("--locked").current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Names of the crates that these edges lead to, on any of the architectures.
fn crates(edges: &str) -> BTreeSet<String> {
    let tree = |target: &&str| cargo(&["tree", "--target", target, "--edges", edges, "--prefix", "none", "--format", "{p}"]);
    let lines = TARGETS.iter().map(tree).collect::<String>();
    let names = lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    names.filter(|name| name != "quarks-job").collect()
}

fn linked() -> BTreeSet<String> {
    crates("normal,no-proc-macro")
}

/// What a row says, and the sources show.
#[derive(Debug, PartialEq)]
struct Facts {
    unsafety: String,
    network: String,
    files: String,
    c: String,
}

/// How often these words are in the sources, outside of comments.
fn count(sources: &str, words: &[&str]) -> usize {
    let is_word = |at: usize, word: &str| {
        let before = sources[..at].chars().next_back();
        let after = sources[at + word.len()..].chars().next();
        !before.is_some_and(is_word_letter) && !after.is_some_and(is_word_letter)
    };
    words.iter().map(|word| sources.match_indices(word).filter(|(at, _)| is_word(*at, word)).count()).sum()
}

/// All Rust files below this folder, without the lines that are comments.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of a crate can be listed") {
            let path = entry.expect("an entry of it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.extend(read(&path).lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]));
            }
        }
    }
    text
}

/// Each crate by name: the folder with its sources, and whether its build script calls a C compiler.
fn packages() -> BTreeMap<String, (PathBuf, bool)> {
    let text = cargo(&["metadata", "--format-version", "1", "--filter-platform", TARGETS[0]]);
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    let mut names = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let folder = manifest.parent().expect("a file is in a folder").join("src");
        names.insert(package["id"].as_str().expect("an ID"), (package["name"].as_str().expect("a name"), folder));
    }
    let mut found = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().expect("nodes") {
        let (name, folder) = &names[node["id"].as_str().expect("an ID")];
        let calls_cc = node["deps"].as_array().expect("dependencies").iter().any(|dependency| {
            let kinds = dependency["dep_kinds"].as_array().expect("kinds");
            dependency["name"] == "cc" && kinds.iter().any(|kind| kind["kind"] == "build")
        });
        found.insert((*name).to_owned(), (folder.clone(), calls_cc));
    }
    found
}

fn facts(sources: &str, calls_cc: bool) -> Facts {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let times = count(sources, &["unsafe"]);
    Facts {
        unsafety: UNSAFE.iter().find(|(most, _)| times <= *most).expect("the last takes all").1.to_owned(),
        network: yes(count(sources, &NETWORK) > 0),
        files: yes(count(sources, &FILES) > 0),
        c: yes(calls_cc),
    }
}

/// The rows of a table: what is in quotes in its first cell, and the others.
fn rows(head: &str) -> BTreeMap<String, Vec<String>> {
    let table = pages::table(head);
    assert!(table.place.starts_with("docs/audit.md:"), "{}", table.place);
    let count = table.rows.len();
    let rows: BTreeMap<_, _> = table.rows.into_iter().map(|mut row| (row.remove(0).replace('`', ""), row)).collect();
    assert_eq!(rows.len(), count, "{head}: a crate twice");
    rows
}

fn differences(what: &str, page: &BTreeSet<String>, real: &BTreeSet<String>) {
    let missing = real.difference(page).map(|name| format!("{name} is missing: add its row, with its reason"));
    let gone = page.difference(real).map(|name| format!("{name} is not one of them any more: delete its row"));
    assert_none(&format!("docs/audit.md, {what}"), &missing.chain(gone).collect::<Vec<_>>());
}

#[test]
fn each_crate_is_on_the_page_and_no_other() {
    let linked = linked();
    assert!(linked.contains("ring") && !linked.contains("rcgen"), "not the crates of the program: {linked:?}");
    let page = rows("| crate | what for | unsafe | network | files | C |");
    differences("crates in the program", &page.into_keys().collect(), &linked);
    let building: BTreeSet<String> = crates("normal,build").difference(&linked).cloned().collect();
    let page = rows("| crate that runs while it is built | what for |");
    differences("crates that run while it is built", &page.into_keys().collect(), &building);
}

#[test]
fn what_a_crate_may_do_is_what_its_sources_have() {
    let text = "unsafe { a() }\n// unsafe\nis_unsafe();\nstd::fs::read();\nTcpStreams\n";
    let text: String = text.lines().filter(|line| !line.starts_with("//")).collect::<Vec<_>>().join("\n");
    let expected = Facts { unsafety: "few".to_owned(), network: "no".to_owned(), files: "yes".to_owned(), c: "no".to_owned() };
    assert_eq!(facts(&text, false), expected);

    let packages = packages();
    let mut problems = Vec::new();
    for (name, row) in rows("| crate | what for | unsafe | network | files | C |") {
        let Some((folder, calls_cc)) = packages.get(&name) else { continue }; // the test above says so
        let sources = sources(folder);
        let found = facts(&sources, *calls_cc);
        let said = Facts { unsafety: row[1].clone(), network: row[2].clone(), files: row[3].clone(), c: row[4].clone() };
        if found != said {
            problems.push(format!("{name}: the sources have {found:?}, the page says {said:?}"));
        }
        if count(&sources, &PROCESSES) > 0 {
            problems.push(format!("{name}: starts processes, which the page denies"));
        }
    }
    assert_none("docs/audit.md", &problems);
}

#[test]
fn each_test_that_a_threat_names_is_there() {
    let tests = TESTS.map(|folder| sources(&root().join(folder))).concat();
    let mut problems = Vec::new();
    let mut count = 0;
    for row in pages::table("| who | wants what | what stops them | shown by |").rows {
        let names: Vec<&str> = row[3].split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            problems.push(format!("{}, {}: names no test", row[0], row[1]));
        }
        for name in names.into_iter().filter(|name| !name.contains('/')) {
            count += 1;
            if !tests.contains(&format!("fn {name}()")) {
                problems.push(format!("{}, {}: there is no test {name}", row[0], row[1]));
            }
        }
    }
    assert!(count > 15, "the table of threats has another form than this test knows");
    assert_none("docs/audit.md, threats", &problems);
}
