//! The reader of the pages itself: what it takes for a table and for a block.

use crate::pages::{Page, blocks, cells, find_table, outside_of_blocks};

fn made(name: &str, text: &str) -> Page {
    Page { name: name.to_owned(), text: text.to_owned() }
}

#[test]
fn a_table_is_found_by_its_head_on_one_page_alone() {
    const HEAD: &str = "| a | `b` |";
    let one = made("one.md", "# One\n\n| a | `b` |\n|---|---|\n| 1 | x \\| y |\n| 2 | |\n\n| a | c |\n|---|---|\n| no | no |\n");
    let in_a_block = made("block.md", "```\n| a | `b` |\n```\n");
    let uneven = made("uneven.md", "| a | `b` |\n|---|---|\n| 1 |\n");
    let table = find_table(&[in_a_block.clone(), one.clone()], HEAD).expect("one table");
    assert_eq!((table.rows, table.place.as_str()), (vec![cells("|1|x \\| y|"), cells("| 2 | |")], "one.md:3: table | a | `b` |"));
    for (pages, error) in [
        (vec![in_a_block], "no page has the table | a | `b` |"),
        (vec![one.clone(), one.clone()], "more than one table | a | `b` |: one.md:3, one.md:3"),
        (vec![uneven], "uneven.md:1: table | a | `b` | has a row with another number of cells: [\"1\"]"),
    ] {
        assert_eq!(find_table(&pages, HEAD).map(|table| table.rows), Err(error.to_owned()));
    }
}

#[test]
fn blocks_end_where_their_own_fence_says() {
    let text = "a\n```sh run\none\n  two\n```\n- in a list\n  ````\n  ```\n  three\n  ````\n```code``` in a line\nb\n";
    let found = blocks(&made("a.md", text)).expect("all are closed");
    let seen: Vec<_> = found.iter().map(|block| (block.info.as_str(), block.line, block.body.as_str())).collect();
    assert_eq!(seen, [("sh run", 2, "one\n  two\n"), ("", 7, "```\nthree\n")]);
    let lines: Vec<usize> = outside_of_blocks(text).iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 6, 11, 12]);
    let open = blocks(&made("a.md", "a\n```\nb\n")).map(|blocks| blocks.len());
    assert_eq!(open, Err("a.md:2: this block has no end".to_owned()));
}
