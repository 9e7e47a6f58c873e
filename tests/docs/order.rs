//! Which commands of the pages are run on a cluster, and in which order (`tests/cluster/docs.rs` does it).

/// A part of a page: its `sh run` blocks are run from top to bottom.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub page: &'static str,
    /// A `## ` heading of the page, up to the next one; empty is all of the page.
    pub section: &'static str,
}

const fn part(page: &'static str, section: &'static str) -> Part {
    Part { page, section }
}

/// On a cluster without the operator.
pub const INSTALL: Part = part("docs/install.md", "Install");
/// With the README's example in the namespace.
pub const USE: [Part; 3] = [part("docs/triggers.md", ""), part("docs/status.md", ""), part("docs/commands.md", "")];
pub const UPGRADE: Part = part("docs/install.md", "Upgrade");
pub const REMOVE: Part = part("docs/install.md", "Remove");
/// On a cluster with the original operator.
pub const MIGRATE: Part = part("docs/migration.md", "The way there");
pub const MIGRATE_BACK: Part = part("docs/migration.md", "The way back");

/// Lines of the part in a page of this text, counted from 1: first, and the one after its last.
pub fn lines(text: &str, part: Part) -> Option<(usize, usize)> {
    let all = text.lines().count();
    if part.section.is_empty() {
        return Some((1, all + 1));
    }
    let heading = format!("## {}", part.section);
    let first = text.lines().position(|line| line == heading)? + 1;
    let length = text.lines().skip(first).position(|line| line.starts_with("## ")).unwrap_or(all - first);
    Some((first, first + length + 1))
}
