//! The rules of `ARCHITECTURE.md` that a program can check, checked on the source text.
//!
//! Comments, strings and tests do not count unless a rule says so. Not for style: that is rustfmt's and clippy's work.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

mod audit;
mod layers;
#[allow(dead_code)]
#[path = "../docs/pages.rs"]
mod pages;
mod texts;
mod words;

/// Longest file of `src`, tests included, in lines.
const LINES_MAX: usize = 700;
/// Longest function of `src`, tests included, in lines.
const FUNCTION_MAX: usize = 60;
/// Crates of async runtimes, or that cannot do without one. `deny.toml` bans them too.
const ASYNC_RUNTIMES: [&str; 7] = ["async-executor", "async-std", "futures-executor", "hyper", "mio", "smol", "tokio"];
/// Files of which nothing is found out by asking a clock, and that say what they found by their value.
const PURE: [&str; 52] = [
    "canonical.rs",
    "contract/record.rs",
    "contract/version.rs",
    "controller/claims.rs",
    "controller/credential/held.rs",
    "controller/credential/state.rs",
    "controller/errand/config/digest.rs",
    "controller/errand/decide.rs",
    "controller/job/decide.rs",
    "controller/job/leftovers.rs",
    "controller/job/tidy.rs",
    "controller/shared/burst.rs",
    "controller/shared/decision.rs",
    "controller/shared/note.rs",
    "controller/shared/outbox.rs",
    "controller/shared/pace.rs",
    "controller/shared/ready.rs",
    "controller/shared/status.rs",
    "controller/shared/stick.rs",
    "election/lease.rs",
    "kube/answer.rs",
    "kube/items.rs",
    "kube/lines.rs",
    "kube/objects.rs",
    "kube/request.rs",
    "persist/input/document.rs",
    "persist/input/fault.rs",
    "persist/pod/decide.rs",
    "persist/pod/expect.rs",
    "persist/retry.rs",
    "persist/secret/bodies.rs",
    "persist/secret/data.rs",
    "persist/secret/desired.rs",
    "persist/secret/existing.rs",
    "persist/secret/names.rs",
    "persist/secret/rules.rs",
    "persist/secret/versions.rs",
    "queue/backoff.rs",
    "queue/core.rs",
    "rules/names.rs",
    "rules/objects.rs",
    "rules/outputs.rs",
    "rules/references.rs",
    "rules/sidecar.rs",
    "rules/template.rs",
    "rules/verdict.rs",
    "rules/versions.rs",
    "text.rs",
    "views/extract.rs",
    "views/identity.rs",
    "views/triggers.rs",
    "watch/state.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files of `src`: path below it, and text.
fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("a folder of src can be listed") {
            let path = entry.expect("an entry of it can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root().join("src")).expect("below src").display().to_string();
                found.insert(name, read(&path));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root().join("src"), &mut found);
    assert!(found.contains_key("lib.rs") && found.len() > 50, "src is not where it was: {:?}", found.keys());
    found
}

/// The files of `src` that are not only for tests, as code without comments, strings and test modules.
fn code() -> BTreeMap<String, String> {
    let sources = sources();
    let only_tests: BTreeSet<String> = sources.iter().flat_map(|(name, text)| test_files(name, text)).collect();
    for file in &only_tests {
        assert!(sources.contains_key(file), "test module {file} is not found");
    }
    sources
        .into_iter()
        .filter(|(name, _)| !only_tests.contains(name))
        .map(|(name, text)| (name, without_tests(&without_comments_and_strings(&text))))
        .collect()
}

/// Files that `name` declares as modules for tests only.
fn test_files(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let folder = Path::new(name).parent().expect("a file is in a folder");
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).expect("a file has a name");
    let children: PathBuf = if matches!(stem, "mod" | "lib" | "main") { folder.to_owned() } else { folder.join(stem) };
    let mut found = Vec::new();
    for at in (0..lines.len()).filter(|at| lines[*at] == "#[cfg(test)]") {
        let path = lines.get(at + 1).and_then(|line| line.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
        let declaration = lines.get(at + 1 + usize::from(path.is_some())).copied().unwrap_or_default();
        let declared = declaration.strip_suffix(';').and_then(|start| start.split("mod ").nth(1));
        match (path, declared) {
            (Some(path), Some(_)) => found.push(folder.join(path).display().to_string()),
            (None, Some(module)) => found.push(children.join(format!("{module}.rs")).display().to_string()),
            (_, None) => {}
        }
    }
    found
}

/// Blanks comments and what is in quotes; lines stay lines.
fn without_comments_and_strings(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(offset, letter)| letters.get(at + offset) == Some(&letter));
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = if starts(at, "//") {
            (at..letters.len()).find(|at| letters[*at] == '\n').unwrap_or(letters.len())
        } else if starts(at, "/*") {
            (at + 2..letters.len()).find(|at| starts(*at, "*/")).map_or(letters.len(), |at| at + 2)
        } else if letters[at] == 'r' && (starts(at, "r\"") || starts(at, "r#")) && !ends_in_word(&code) {
            let hashes = letters[at + 1..].iter().take_while(|letter| **letter == '#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            if letters.get(at + 1 + hashes) == Some(&'"') {
                (at + 2 + hashes..letters.len()).find(|at| starts(*at, &close)).map_or(letters.len(), |at| at + close.len())
            } else {
                at
            }
        } else if letters[at] == '"' {
            let mut end = at + 1;
            while end < letters.len() && letters[end] != '"' {
                end += if letters[end] == '\\' { 2 } else { 1 };
            }
            end + 1
        } else if letters[at] == '\'' && (starts(at + 1, "\\") || letters.get(at + 2) == Some(&'\'')) {
            // A letter; anything else after the quote is a lifetime.
            (at + 3..letters.len()).find(|at| letters[*at - 1] == '\'').unwrap_or(letters.len()).max(at + 3)
        } else {
            at
        };
        if end == at {
            code.push(letters[at]);
            at += 1;
        } else {
            let end = end.min(letters.len());
            code.extend(letters[at..end].iter().map(|letter| if *letter == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.ends_with(is_word_letter)
}

fn is_word_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Blanks what follows `#[cfg(test)]`: a whole item with its braces, or up to a semicolon.
fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut kept = String::with_capacity(code.len());
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        let mut depth = 0;
        let end = rest[start + "#[cfg(test)]".len()..].char_indices().find_map(|(at, letter)| {
            depth += match letter {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            (depth == 0 && matches!(letter, '}' | ';')).then_some(start + "#[cfg(test)]".len() + at + 1)
        });
        let end = end.unwrap_or(rest.len());
        kept.extend(rest[start..end].chars().filter(|letter| *letter == '\n'));
        rest = &rest[end..];
    }
    kept + rest
}

/// Where `word` stands as a word of its own, in lines counted from 1. It may hold punctuation, as in `thread::spawn`.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let is_alone = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let touches =
            |edge: Option<char>, neighbour: Option<char>| edge.is_some_and(is_word_letter) && neighbour.is_some_and(is_word_letter);
        !touches(word.chars().next(), before) && !touches(word.chars().next_back(), after)
    };
    let has_word = |line: &str| line.match_indices(word).any(|(at, _)| is_alone(line, at));
    code.lines().enumerate().filter(|(_, line)| has_word(line)).map(|(at, _)| at + 1).collect()
}

/// `file:line` of each place where one of the words stands, in the files that `wanted` names.
fn places(words: &[&str], wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, code) in code().iter().filter(|(name, _)| wanted(name)) {
        for word in words {
            found.extend(lines_with(code, word).into_iter().map(|line| format!("src/{name}:{line}: {word}")));
        }
    }
    found
}

fn assert_none(rule: &str, places: &[String]) {
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

#[test]
fn the_checks_see_code_and_nothing_else() {
    let text = r##"
        use ureq::Agent; // not rustls::this
        /* nor tokio::that */ let text = "unsafe \" { hyper"; let raw = r#"a "mio" }"#;
        let letter = '"'; let other = '\''; fn f<'a>(b: &'a str) { g.unwrap(); }
        #[cfg(test)]
        mod tests { fn h() { i.expect("{"); smol(); } }
        #[cfg(test)]
        use smol::x;
        let after = 1;
    "##;
    let code = without_tests(&without_comments_and_strings(text));
    assert_eq!(code.lines().count(), text.lines().count());
    for word in ["rustls", "tokio", "unsafe", "hyper", "mio", "smol", "tests", "ure"] {
        assert_eq!(lines_with(&code, word), [0; 0], "{word}\n{code}");
    }
    for (word, line) in [("ureq", 2), ("raw", 3), ("letter", 4), (".unwrap()", 4), ("after", 9)] {
        assert_eq!(lines_with(&code, word), [line], "{word}\n{code}");
    }
    let declared = "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n#[cfg(test)]\npub(crate) mod c;\n#[cfg(test)]\nmod inline {\n}\n";
    assert_eq!(test_files("a/b.rs", declared), ["a/b_tests.rs", "a/b/c.rs"]);
    assert_eq!(test_files("a/mod.rs", declared), ["a/b_tests.rs", "a/c.rs"]);
}

#[test]
fn only_the_transport_and_tls_name_ureq_and_rustls() {
    let elsewhere = |files: &'static [&'static str]| move |name: &str| !files.iter().any(|file| name == format!("kube/{file}.rs"));
    assert_none("ureq outside of the transport", &places(&["ureq"], elsewhere(&["transport", "tls", "via"])));
    assert_none("rustls outside of TLS", &places(&["rustls"], elsewhere(&["transport", "tls", "crypto", "trust", "identity", "explain"])));
    assert!(!places(&["ureq"], |name| name == "kube/transport.rs").is_empty(), "the check looks at the wrong file");
}

#[test]
fn nothing_is_unsafe() {
    for file in ["lib.rs", "main.rs"] {
        assert!(sources()[file].contains("#![forbid(unsafe_code)]"), "src/{file} does not forbid unsafe code");
    }
    assert_none("unsafe code", &places(&["unsafe"], |_| true));
}

#[test]
fn nothing_is_unwrapped_outside_of_tests() {
    assert_none("unwrap", &places(&[".unwrap()", ".unwrap_err()", "unwrap_unchecked"], |_| true));
}

#[test]
fn no_file_is_too_long() {
    let long = |(name, text): (String, String)| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("src/{name}: {lines} lines"))
    };
    assert_none(&format!("more than {LINES_MAX} lines"), &sources().into_iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn no_function_is_too_long() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let is_function = code
                .strip_prefix("pub")
                .map_or(code, |rest| rest.trim_start_matches(|letter| letter != ' '))
                .trim_start()
                .starts_with("fn ");
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            let length = lines[at..].iter().position(|line| *line == end).map_or(0, |last| last + 1);
            if is_function && !code.ends_with(';') && length > FUNCTION_MAX {
                long.push(format!("src/{name}:{}: {length} lines", at + 1));
            }
        }
    }
    assert_none(&format!("functions of more than {FUNCTION_MAX} lines"), &long);
}

/// What is wrong with the place of the unit tests in this file of `src`, if anything is.
fn misplaced(name: &str, text: &str) -> Option<&'static str> {
    let code = without_comments_and_strings(text);
    let first = code.find("#[test]");
    let is_in =
        |what: fn(&str) -> bool| Path::new(name).parent().is_some_and(|folder| folder.iter().any(|part| part.to_str().is_some_and(what)));
    if name.ends_with("/tests.rs") || is_in(|folder| folder == "tests") {
        return Some("beside its file it would be found by its name: NAME_tests.rs");
    }
    if is_in(|folder| folder.ends_with("_tests")) {
        return first.map(|_| "a folder of a test file has what its tests need, and no tests");
    }
    if name.ends_with("_tests.rs") {
        return first.is_none().then_some("no tests in a file for tests");
    }
    // What other tests need of it may be seen.
    let module = ["", "pub(crate) "].iter().find_map(|seen| code.find(&format!("#[cfg(test)]\n{seen}mod tests {{")));
    first.filter(|first| module.is_none_or(|module| *first < module)).map(|_| "tests outside of `mod tests`")
}

#[test]
fn unit_tests_stand_in_their_file_or_beside_it() {
    let inline = "fn a() {}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\n";
    for (name, text, is_right) in [
        ("a/b.rs", inline, true),
        ("a/b.rs", "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\n", true),
        ("a/b_tests.rs", "#[test]\nfn b() {}\n", true),
        ("a/b_tests/world.rs", "fn b() {}\n", true),
        ("a/b.rs", "#[test]\nfn b() {}\n", false),
        ("a/b.rs", "#[cfg(test)]\nmod b_tests {\n    #[test]\n    fn b() {}\n}\n", false),
        ("a/b/tests.rs", "#[test]\nfn b() {}\n", false),
        ("a/tests/b.rs", "fn b() {}\n", false),
        ("a/b_tests.rs", "fn b() {}\n", false),
        ("a/b_tests/more.rs", "#[test]\nfn b() {}\n", false),
    ] {
        assert_eq!(misplaced(name, text).is_none(), is_right, "{name}\n{text}");
    }
    let wrong = |(name, text): (String, String)| misplaced(&name, &text).map(|what| format!("src/{name}: {what}"));
    assert_none("unit tests in the wrong place", &sources().into_iter().filter_map(wrong).collect::<Vec<_>>());
}

/// `scripts/test --context` leaves out what this data names: a case that was renamed would fail there, or one that works be left out.
#[test]
fn the_cases_that_need_the_projects_own_cluster_are_there() {
    let data = read(&root().join("tests/cluster/needs.txt"));
    let mut count = 0;
    for line in data.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (need, case) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} is no need with a case"));
        let (module, test) = case.split_once("::").unwrap_or_else(|| panic!("{case:?} is no module with a test"));
        let text = read(&root().join(format!("tests/cluster/{module}.rs")));
        let is_there = if test.is_empty() { text.contains("#[test]\n") } else { text.contains(&format!("#[test]\nfn {test}() {{")) };
        assert!(is_there, "tests/cluster/needs.txt: there is no {case}");
        assert!(data.contains(&format!("\n# {need}: ")), "tests/cluster/needs.txt does not say what {need:?} is");
        count += 1;
    }
    assert!(count > 10, "tests/cluster/needs.txt has another form than this test knows");
}

/// The requests that only read; a new one has to be named here.
#[test]
fn in_the_controller_only_actions_write() {
    let mut found = Vec::new();
    for (name, code) in code().iter().filter(|(name, _)| name.starts_with("controller/") && *name != "controller/shared/action.rs") {
        for (at, line) in code.lines().enumerate() {
            let mut calls = line.match_indices("Request::").filter(|(start, _)| !ends_in_word(&line[..*start]));
            let is_read = |call: &str| ["get(", "list("].iter().any(|read| call.starts_with(read));
            if calls.any(|(start, call)| !is_read(&line[start + call.len()..])) {
                found.push(format!("src/{name}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    assert_none("a request that may write, outside of controller/shared/action.rs", &found);
    let methods = ["Method::Post", "Method::Put", "Method::Patch", "Method::Delete"];
    assert_none("a request made by hand", &places(&methods, |name| !name.starts_with("kube/")));
}

#[test]
fn threads_are_started_in_known_places() {
    let mut starters = BTreeSet::new();
    for (name, code) in code() {
        let is_named = ["thread::spawn", "thread::scope", "thread::Builder"].iter().any(|call| !lines_with(&code, call).is_empty());
        let uses = code.split(';').filter(|statement| !lines_with(statement, "use std::thread").is_empty());
        let is_used =
            uses.into_iter().any(|statement| ["spawn", "scope", "Builder"].iter().any(|word| !lines_with(statement, word).is_empty()));
        if is_named || is_used {
            starters.insert(name);
        }
    }
    assert_eq!(starters.into_iter().collect::<Vec<_>>(), ["cli/operator.rs", "threads.rs", "watch/watcher.rs"]);
}

#[test]
fn pure_files_ask_no_clock_and_write_no_log() {
    let words = ["Instant::now", "Moment::now", "SystemTime", "clock", "log::", "elapsed", "std::env", "std::fs", "Client"];
    let found = places(&words, |name| PURE.contains(&name));
    assert_none("a pure file that is not", &found);
    let code = code();
    for file in PURE {
        assert!(code.contains_key(file), "src/{file} is not there");
    }
}

#[test]
fn no_async_runtime_is_among_the_dependencies() {
    let lock = read(&root().join("Cargo.lock"));
    let names: BTreeSet<&str> = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(names.contains("quarks-job"), "Cargo.lock has another form than this test knows");
    let deny = read(&root().join("deny.toml"));
    for name in ASYNC_RUNTIMES {
        assert!(!names.contains(name), "{name} is in Cargo.lock");
        assert!(deny.contains(&format!("crate = \"{name}\"")), "deny.toml does not ban {name}");
    }
}

#[test]
fn every_dependency_has_its_reason_above_it() {
    let manifest = read(&root().join("Cargo.toml"));
    let mut section = "";
    let mut previous = "";
    let mut count = 0;
    let mut without = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies]") && line.contains('=') && !line.starts_with('#') {
            count += 1;
            if !previous.starts_with("# ") {
                without.push(line.to_owned());
            }
        }
        previous = line;
    }
    assert!(count > 10, "Cargo.toml has another form than this test knows");
    assert_none("no comment in the line above", &without);
}
