//! Reads the Markdown pages, for the tests that compare what they say with what the program does.

use std::fs;
use std::path::Path;

/// A Markdown file of the repository.
#[derive(Clone)]
pub struct Page {
    /// Its path below the repository's root.
    pub name: String,
    pub text: String,
}

/// A fenced block.
pub struct Block {
    /// What follows the opening fence, for example `sh run`.
    pub info: String,
    /// Line of the opening fence, counted from 1.
    pub line: usize,
    pub body: String,
}

/// A table, found by its head.
#[derive(Debug)]
pub struct Table {
    /// Where it is: page and head, for messages.
    pub place: String,
    /// Cells of each row below the head.
    pub rows: Vec<Vec<String>>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One page, by its path below the repository's root.
pub fn page(name: &str) -> Page {
    let text = fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    Page { name: name.to_owned(), text }
}

/// The pages that tables are looked for in: `README.md`, `CONTRIBUTING.md`, `ARCHITECTURE.md` and all of `docs/`.
pub fn pages() -> Vec<Page> {
    let entries = fs::read_dir(root().join("docs")).expect("docs/ can be listed");
    let names = entries.map(|entry| entry.expect("an entry can be read").file_name().into_string().expect("UTF-8"));
    let mut docs: Vec<String> = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    docs.sort();
    let top = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(str::to_owned);
    top.into_iter().chain(docs).map(|name| page(&name)).collect()
}

/// The one table of all pages that has this head line.
#[track_caller]
pub fn table(head: &str) -> Table {
    find_table(&pages(), head).unwrap_or_else(|error| panic!("{error}"))
}

/// The same among these pages.
pub fn find_table(pages: &[Page], head: &str) -> Result<Table, String> {
    let mut found = Vec::new();
    for page in pages {
        let lines = outside_of_blocks(&page.text);
        found.extend((0..lines.len()).filter(|at| lines[*at].1.trim() == head).map(|at| (page, lines[at].0, rows(&lines[at + 1..]))));
    }
    match found.len() {
        1 => {
            let (page, line, rows) = found.remove(0);
            let columns = cells(head).len();
            let place = format!("{}:{line}: table {head}", page.name);
            match rows.iter().find(|row| row.len() != columns) {
                Some(row) => Err(format!("{place} has a row with another number of cells: {row:?}")),
                None => Ok(Table { place, rows }),
            }
        }
        0 => Err(format!("no page has the table {head}")),
        _ => {
            let places: Vec<String> = found.iter().map(|(page, line, _)| format!("{}:{line}", page.name)).collect();
            Err(format!("more than one table {head}: {}", places.join(", ")))
        }
    }
}

fn rows(after_head: &[(usize, &str)]) -> Vec<Vec<String>> {
    after_head.iter().skip(1).take_while(|(_, line)| line.trim().starts_with('|')).map(|(_, line)| cells(line)).collect()
}

/// The cells of a table's line; `\|` is part of a cell.
pub fn cells(line: &str) -> Vec<String> {
    let line = line.trim().replace("\\|", "\u{0}");
    let inner = line.strip_prefix('|').unwrap_or(&line);
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// The fence that a line opens or closes.
fn fence(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let end = line.find(|letter| letter != '`').unwrap_or(line.len());
    // Marks with more of them behind are code in a line of text.
    (end >= 3 && !line[end..].contains('`')).then(|| line.split_at(end))
}

/// The lines that are in no fenced block, with their numbers counted from 1.
pub fn outside_of_blocks(text: &str) -> Vec<(usize, &str)> {
    let mut open: Option<&str> = None;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        match (open, fence(line)) {
            (None, Some((marks, _))) => open = Some(marks),
            (Some(marks), Some((close, ""))) if close.len() >= marks.len() => open = None,
            (None, None) => lines.push((at + 1, line)),
            (Some(_), _) => {}
        }
    }
    lines
}

/// The fenced blocks, without the indentation of their fence. One that is not closed is an error.
pub fn blocks(page: &Page) -> Result<Vec<Block>, String> {
    let mut open: Option<(&str, usize, Block)> = None;
    let mut found = Vec::new();
    for (at, line) in page.text.lines().enumerate() {
        match (open.as_mut(), fence(line)) {
            (None, Some((marks, info))) => {
                let block = Block { info: info.trim().to_owned(), line: at + 1, body: String::new() };
                open = Some((marks, line.len() - line.trim_start().len(), block));
            }
            (Some((marks, ..)), Some((close, ""))) if close.len() >= marks.len() => found.extend(open.take().map(|(.., block)| block)),
            (Some((_, indent, block)), _) => {
                let own = line.len() - line.trim_start().len();
                block.body.push_str(&line[own.min(*indent)..]);
                block.body.push('\n');
            }
            (None, None) => {}
        }
    }
    open.map_or(Ok(found), |(_, _, block)| Err(format!("{}:{}: this block has no end", page.name, block.line)))
}
