//! The form of the pages: one title, short lines, and paths that exist.

use crate::pages::{Page, blocks, cells, outside_of_blocks, page};
use crate::{all_pages, assert_none, root};

/// Longest line of prose, in characters. A table's line and a block's may be longer.
const WIDTH_MAX: usize = 120;
/// Longest README.md, in lines: a person has five minutes for it.
const README_LINES_MAX: usize = 200;
/// Folders of the repository that pages name files of.
const FOLDERS: [&str; 7] = ["benches/", "docs/", "manifests/", "scripts/", "src/", "tests/", ".ci/"];
/// What opens a block that a test runs on a cluster, and what only looks like it.
const RUN: &str = "sh run";
/// The kinds of blocks that pages have; another one is likely misspelled.
const KINDS: [&str; 7] = ["", "console", "json", "mermaid", "sh", RUN, "yaml"];

fn is_table(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

fn title_problem(page: &Page) -> Option<String> {
    let lines = outside_of_blocks(&page.text);
    let titles: Vec<usize> = lines.iter().filter(|(_, line)| line.starts_with("# ")).map(|(at, _)| *at).collect();
    (titles != [1]).then(|| format!("{}: must start with its only title; lines that start with \"# \": {titles:?}", page.name))
}

fn long_lines(page: &Page) -> Vec<String> {
    let is_long = |line: &str| line.chars().count() > WIDTH_MAX && !is_table(line);
    outside_of_blocks(&page.text)
        .into_iter()
        .filter(|(_, line)| is_long(line))
        .map(|(at, line)| format!("{}:{at}: {} characters", page.name, line.chars().count()))
        .collect()
}

/// Rows with another number of cells than the head of their table: a viewer drops the surplus.
fn uneven_rows(page: &Page) -> Vec<String> {
    let mut columns = None;
    let mut found = Vec::new();
    for (at, line) in outside_of_blocks(&page.text) {
        if !is_table(line) {
            columns = None;
        } else if cells(line).len() != *columns.get_or_insert(cells(line).len()) {
            found.push(format!("{}:{at}: not as many cells as the head", page.name));
        }
    }
    found
}

fn block_problems(page: &Page) -> Vec<String> {
    match blocks(page) {
        Err(error) => vec![error],
        Ok(blocks) => {
            let strange = blocks.iter().filter(|block| !KINDS.contains(&block.info.as_str()));
            strange.map(|block| format!("{}:{}: a block of kind {:?}", page.name, block.line, block.info)).collect()
        }
    }
}

/// Paths of the repository that the page names, also in blocks, with their lines.
fn paths(text: &str) -> Vec<(usize, &str)> {
    let is_path = |letter: char| letter.is_ascii_alphanumeric() || "_-./".contains(letter);
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut rest = line;
        while let Some(start) = rest.find(is_path) {
            let word = &rest[start..];
            let end = word.find(|letter| !is_path(letter)).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            // What goes on with one of these is a pattern.
            let is_whole = !after.starts_with(['*', '{', '$', '<', '…']);
            if is_whole && FOLDERS.iter().any(|folder| word.starts_with(folder)) {
                found.push((at + 1, word.trim_end_matches(['.', '/'])));
            }
            rest = after;
        }
    }
    found
}

#[test]
fn each_page_starts_with_its_only_title() {
    for (text, is_right) in
        [("# A\n\nb\n```\n# c\n```\n", true), ("\n# A\n", false), ("A\n", false), ("# A\n\n# B\n", false), ("## A\n", false)]
    {
        let page = Page { name: "a.md".to_owned(), text: text.to_owned() };
        assert_eq!(title_problem(&page).is_none(), is_right, "{text}");
    }
    assert_none("titles", &all_pages().iter().filter_map(title_problem).collect::<Vec<_>>());
}

#[test]
fn lines_are_short() {
    let long = "a".repeat(WIDTH_MAX) + "b";
    let text = format!("{}\n{long}\n| {long} |\n```\n{long}\n```\n", "ä".repeat(WIDTH_MAX));
    assert_eq!(long_lines(&Page { name: "a.md".to_owned(), text }), ["a.md:2: 121 characters"]);
    assert_none("long lines", &all_pages().iter().flat_map(long_lines).collect::<Vec<_>>());
    let lines = page("README.md").text.lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

#[test]
fn rows_of_a_table_have_as_many_cells_as_its_head() {
    let text = "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 |\n\n| a |\n|---|\n| 1 | 2 |\n";
    let page = Page { name: "a.md".to_owned(), text: text.to_owned() };
    assert_eq!(uneven_rows(&page), ["a.md:4: not as many cells as the head", "a.md:8: not as many cells as the head"]);
    assert_none("tables", &all_pages().iter().flat_map(uneven_rows).collect::<Vec<_>>());
}

#[test]
fn blocks_are_of_a_known_kind() {
    let problems = |text: &str| block_problems(&Page { name: "a.md".to_owned(), text: text.to_owned() });
    assert_eq!(problems("```sh run\na\n```\n```yaml\n```\n"), [""; 0]);
    assert_eq!(problems("```sh runs\na\n```\n"), ["a.md:1: a block of kind \"sh runs\""]);
    assert_eq!(problems("```sh run\na\n"), ["a.md:1: this block has no end"]);
    assert_none("blocks", &all_pages().iter().flat_map(block_problems).collect::<Vec<_>>());
}

#[test]
fn paths_that_pages_name_exist() {
    let text = "see `scripts/test --fast`, docs/a.md.\n`x/docs/b`, https://a.b/docs/c, `manifests/*.yaml` manifests/$file.yaml\n";
    assert_eq!(paths(text), [(1, "scripts/test"), (1, "docs/a.md")]);
    let mut missing = Vec::new();
    // CHANGELOG.md may name what is gone by now.
    for page in all_pages().iter().filter(|page| page.name != "CHANGELOG.md") {
        let gone = paths(&page.text).into_iter().filter(|(_, path)| !root().join(path).exists());
        missing.extend(gone.map(|(line, path)| format!("{}:{line}: {path}", page.name)));
    }
    assert_none("paths that do not exist", &missing);
}
