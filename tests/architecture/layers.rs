//! Who may use whom: the layers of `src`, and no circles among its files. Read from `use` declarations and paths.

use std::collections::{BTreeMap, BTreeSet};

use super::{assert_none, code, is_word_letter};

/// From top to bottom. What stands in a layer uses what stands below it, and nothing beside it or above. The longest entry that a file's
/// path begins with is the file's; inside of an entry only circles are forbidden.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["http"],
    &["controller/run"],
    &["controller/errand", "controller/job"],
    &["controller/dispatch"],
    &["controller/health", "controller/credential"],
    &["controller/shared"],
    &["controller/claims"],
    &["election", "index", "persist"],
    &["persist/store"],
    &["persist/input", "persist/pod"],
    &["persist/environment", "persist/messages", "persist/retry", "persist/secret"],
    &["metrics", "views"],
    &["queue", "rules", "watch"],
    &["contract", "kube"],
    &["api", "log", "yaml"],
    &["clock", "digest", "json", "planted", "shutdown", "text", "threads", "until"],
    &["canonical", "moment"],
];

/// A module, as its path below the crate.
type Module = Vec<String>;

/// The module that a file is; `None` for the crate's roots.
fn module_of(file: &str) -> Option<Module> {
    let path = file.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (!matches!(path, "main" | "lib")).then(|| path.split('/').map(str::to_owned).collect())
}

/// `a::{b, c::{d, e as f}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.chars().filter(|letter| !letter.is_whitespace()).collect()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let filled = parts.into_iter().filter(|part| !part.trim().is_empty());
    filled.flat_map(expand).map(|path| format!("{}{path}", before.trim())).collect()
}

/// The paths of `use` declarations, with whether they are re-exports, and the code without them.
fn declarations(code: &str) -> (Vec<(String, bool)>, String) {
    let (mut declared, mut rest) = (Vec::new(), String::new());
    for statement in code.split(';') {
        let start = statement.rfind("use ").filter(|at| is_start(&statement[..*at]));
        let (before, tree) = start.map_or((statement, None), |at| (&statement[..at], Some(&statement[at + 4..])));
        let is_public = before.trim_end().ends_with("pub") || before.contains("pub(");
        declared.extend(tree.map(expand).unwrap_or_default().into_iter().map(|path| (path, is_public)));
        rest.push_str(before);
        rest.push(';');
    }
    (declared, rest)
}

/// The paths that a file's code names, with whether they are re-exports; `children` are the modules below it.
fn paths_in(code: &str, children: &[&str]) -> Vec<(String, bool)> {
    let (mut found, rest) = declarations(code);
    let children: Vec<String> = children.iter().map(|child| format!("{child}::")).collect();
    for start in ["crate::", "super::", "self::"].into_iter().chain(children.iter().map(String::as_str)) {
        for (at, _) in rest.match_indices(start).filter(|(at, _)| !rest[..*at].ends_with(|letter| is_word_letter(letter) || letter == ':'))
        {
            let end = rest[at..].find(|letter| !is_word_letter(letter) && letter != ':').map_or(rest.len(), |end| at + end);
            found.push((rest[at..end].to_owned(), false));
        }
    }
    found
}

/// Nothing but the word `pub` stands between the start of the declaration and `use`.
fn is_start(before: &str) -> bool {
    let last = before.rsplit(['\n', '}']).next().unwrap_or_default().trim();
    last.is_empty() || last == "pub" || (last.starts_with("pub(") && last.ends_with(')'))
}

/// A path from within `module`, as one below the crate; `None` if it leads out of the crate.
fn absolute(module: &Module, path: &str, modules: &BTreeMap<Module, String>) -> Option<Module> {
    let mut parts: Vec<String> = path.split("::").map(str::to_owned).collect();
    let mut base = match parts[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        first => {
            let child: Module = module.iter().cloned().chain([first.to_owned()]).collect();
            modules.contains_key(&child).then_some(())?;
            parts.insert(0, "self".to_owned());
            module.clone()
        }
    };
    while parts.first().is_some_and(|part| part == "super") {
        base.pop();
        parts.remove(0);
    }
    if matches!(parts.first().map(String::as_str), Some("crate" | "self")) {
        parts.remove(0);
    }
    base.extend(parts);
    Some(base)
}

/// The module that a path leads into, and the name in it.
fn split(path: &Module, modules: &BTreeMap<Module, String>) -> (Module, Option<String>) {
    let depth = (0..=path.len()).rev().find(|depth| *depth == 0 || modules.contains_key(&path[..*depth])).unwrap_or(0);
    (path[..depth].to_vec(), path.get(depth).cloned())
}

/// For each file the files it uses. A folder's `mod.rs` that only passes on what its children have does not use them.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let code = code();
    let modules: BTreeMap<Module, String> = code.keys().filter_map(|file| Some((module_of(file)?, file.clone()))).collect();
    let mut passed_on = BTreeMap::new();
    let mut named = Vec::new();
    for (module, file) in &modules {
        let is_child = |child: &&Module| child.len() == module.len() + 1 && child.starts_with(module);
        let children: Vec<&str> = modules.keys().filter(is_child).map(|child| child[module.len()].as_str()).collect();
        for (path, is_public) in paths_in(&code[file], &children) {
            let Some(path) = absolute(module, &path, &modules) else { continue };
            let (target, name) = split(&path, &modules);
            if is_public && target.starts_with(module) && target != *module {
                passed_on.extend(name.map(|name| ((module.clone(), name), target)));
            } else {
                named.push((file, target, name));
            }
        }
    }
    let mut uses: BTreeMap<String, BTreeSet<String>> = modules.values().map(|file| (file.clone(), BTreeSet::new())).collect();
    for (file, target, name) in named {
        let origin = name.and_then(|name| passed_on.get(&(target.clone(), name)));
        if let Some(used) = modules.get(origin.unwrap_or(&target)).filter(|used| *used != file) {
            uses.get_mut(file).expect("each file has an entry").insert(used.clone());
        }
    }
    uses
}

/// The layer of a file, and its entry there.
fn layer_of(file: &str) -> Option<(usize, &'static str)> {
    let entries = LAYERS.iter().enumerate().flat_map(|(layer, entries)| entries.iter().map(move |entry| (layer, *entry)));
    let is_in = |entry: &str| file.strip_prefix(entry).is_some_and(|rest| rest.starts_with(['/', '.']));
    entries.filter(|(_, entry)| is_in(entry)).max_by_key(|(_, entry)| entry.len())
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let code =
        "use std::fmt;\nuse crate::a::{B, c::{D, E as F}};\npub use g::H;\nfn f() { super::i::j(); crate::k::l(); m::n; other::o }\n";
    let found: Vec<String> =
        paths_in(code, &["m"]).into_iter().map(|(path, is_public)| format!("{path}{}", if is_public { "!" } else { "" })).collect();
    assert_eq!(found, ["std::fmt", "crate::a::B", "crate::a::c::D", "crate::a::c::E", "g::H!", "crate::k::l", "super::i::j", "m::n"]);
}

#[test]
fn a_layer_uses_only_what_is_below_it() {
    let uses = uses();
    let count: usize = uses.values().map(BTreeSet::len).sum();
    assert!(count > 300, "only {count} uses are seen: the code is written in a way that this test does not read");
    let mut wrong = Vec::new();
    for (file, used) in uses.iter().filter(|(file, _)| !is_facade(file)) {
        let Some((layer, entry)) = layer_of(file) else {
            wrong.push(format!("src/{file} is in no layer"));
            continue;
        };
        for other in used.iter().filter(|other| !is_facade(other)) {
            let is_below = layer_of(other).is_some_and(|(below, other)| below > layer || other == entry);
            if !is_below {
                wrong.push(format!("src/{file} uses src/{other}"));
            }
        }
    }
    assert_none("uses of what is above or beside", &wrong);
}

/// The head of a folder whose files are in layers of their own.
fn is_facade(file: &str) -> bool {
    file == "controller/mod.rs"
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut uses = uses();
    // What uses nothing that is left, or is used by nothing that is left, is in no circle.
    loop {
        let used: BTreeSet<String> = uses.values().flatten().cloned().collect();
        let left: BTreeSet<String> = uses.keys().cloned().collect();
        let before = uses.len();
        uses.retain(|file, uses| used.contains(file) && uses.iter().any(|other| left.contains(other)));
        if uses.len() == before {
            break;
        }
    }
    let files: BTreeSet<String> = uses.keys().cloned().collect();
    let lines = uses.iter().map(|(file, used)| format!("src/{file} uses {:?}", used.intersection(&files).collect::<Vec<_>>()));
    assert_none("circles", &lines.collect::<Vec<_>>());
}
