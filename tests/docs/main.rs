//! The Markdown pages of the repository: their form, their links and their diagrams.
//!
//! What the pages say of the program is compared with it where that is tested: `tests/architecture/words.rs`, `src/cli/docs_tests.rs`,
//! and by `tests/cluster/docs.rs`, which runs their commands. `pages.rs` reads them for all of these.
#![forbid(unsafe_code)]

#[allow(dead_code)]
mod pages;

mod commands;
mod form;
mod links;
mod mermaid;
mod order;
mod reader;

use std::path::Path;

use pages::{Page, page};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file of the repository, wherever it is.
fn all_pages() -> Vec<Page> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
            let path = entry.expect("an entry can be read").path();
            let name = path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8").to_owned();
            if path.is_dir() && !name.starts_with(".git") && name != "target" {
                walk(&path, found);
            } else if name.ends_with(".md") {
                found.push(name);
            }
        }
    }
    let mut names = Vec::new();
    walk(root(), &mut names);
    names.sort();
    names.iter().map(|name| page(name)).collect()
}

/// Everything that is wrong, in one message.
fn assert_none(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{what}:\n{}", problems.join("\n"));
}
