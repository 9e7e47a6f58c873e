//! The commands that are run on a cluster: each is in a part that `tests/cluster/docs.rs` runs, and takes its names from the environment.

use crate::order::{INSTALL, MIGRATE, MIGRATE_BACK, Part, REMOVE, UPGRADE, USE, lines};
use crate::pages::{Page, blocks, page};
use crate::{all_pages, assert_none};

fn parts() -> Vec<Part> {
    [INSTALL].into_iter().chain(USE).chain([UPGRADE, REMOVE, MIGRATE, MIGRATE_BACK]).collect()
}

/// The blocks to run of these pages that are in no part, or in more than one.
fn misplaced(pages: &[Page], parts: &[Part]) -> Vec<String> {
    let mut found = Vec::new();
    for page in pages {
        let own: Vec<(usize, usize)> =
            parts.iter().filter(|part| part.page == page.name).filter_map(|part| lines(&page.text, *part)).collect();
        for block in blocks(page).unwrap_or_else(|error| panic!("{error}")).iter().filter(|block| block.info == "sh run") {
            let count = own.iter().filter(|(first, end)| (*first..*end).contains(&block.line)).count();
            if count != 1 {
                found.push(format!("{}:{}: in {count} parts of tests/docs/order.rs", page.name, block.line));
            }
        }
    }
    found
}

#[test]
fn every_block_to_run_is_run_once() {
    let text = "# A\n```sh run\na\n```\n## One\n```sh run\nb\n```\n### Deeper\n```sh run\nc\n```\n## Two\n```sh run\nd\n```\n".to_owned();
    let pages = [Page { name: "a.md".to_owned(), text }];
    let part = |section| Part { page: "a.md", section };
    assert_eq!(misplaced(&pages, &[part("")]), [""; 0]);
    assert_eq!(misplaced(&pages, &[part("One"), part("Two")]), ["a.md:2: in 0 parts of tests/docs/order.rs"]);
    assert_eq!(misplaced(&pages, &[part(""), part("Two")]), ["a.md:14: in 2 parts of tests/docs/order.rs"]);
    assert_none("blocks that tests/docs/order.rs does not have once", &misplaced(&all_pages(), &parts()));
}

#[test]
fn every_part_has_commands() {
    for part in parts() {
        let page = page(part.page);
        let (first, end) = lines(&page.text, part).unwrap_or_else(|| panic!("{part:?} is not there"));
        let blocks = blocks(&page).unwrap_or_else(|error| panic!("{error}"));
        assert!(blocks.iter().any(|block| block.info == "sh run" && (first..end).contains(&block.line)), "nothing to run in {part:?}");
    }
}
