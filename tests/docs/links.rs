//! Every link of every page: its file and its anchor exist, and every page can be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use crate::pages::{Page, outside_of_blocks};
use crate::{all_pages, assert_none, root};

/// Text without its code, which may go on in the next line: nothing in there is a link. Lines stay lines.
fn without_code(text: &str) -> String {
    let marks = |text: &str| text.len() - text.trim_start_matches('`').len();
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        kept.push_str(&rest[..start]);
        let open = marks(&rest[start..]);
        let inner = &rest[start + open..];
        // As many marks as at the start end it; others belong to it.
        let mut at = 0;
        while let Some(next) = inner[at..].find('`').map(|next| at + next).filter(|next| marks(&inner[*next..]) != open) {
            at = next + marks(&inner[next..]);
        }
        let Some(end) = inner[at..].find('`').map(|end| at + end) else {
            kept.push_str(&rest[start..start + open]);
            rest = inner;
            continue;
        };
        kept.push_str("code");
        kept.extend(inner[..end].chars().filter(|letter| *letter == '\n'));
        rest = &inner[end + open..];
    }
    kept + rest
}

/// The lines of a page outside of blocks, without code.
fn prose(page: &Page) -> Vec<(usize, String)> {
    let is_numbered = |line: &str| line.trim_start_matches(|letter: char| letter.is_ascii_digit()).starts_with(". ");
    let starts_anew = |line: &str| {
        line.is_empty() || line.starts_with(['|', '#']) || line.starts_with("- ") || line.starts_with("* ") || is_numbered(line)
    };
    let mut parts: Vec<Vec<(usize, &str)>> = Vec::new();
    for (at, line) in outside_of_blocks(&page.text) {
        match parts.last_mut().filter(|part| part.last().is_some_and(|(last, _)| last + 1 == at) && !starts_anew(line.trim_start())) {
            Some(part) => part.push((at, line)),
            None => parts.push(vec![(at, line)]),
        }
    }
    let of_part = |part: &Vec<(usize, &str)>| {
        let text = without_code(&part.iter().map(|(_, line)| *line).collect::<Vec<_>>().join("\n"));
        part.iter().map(|(at, _)| *at).zip(text.split('\n').map(str::to_owned)).collect::<Vec<_>>()
    };
    parts.iter().flat_map(of_part).collect()
}

/// Targets of the links on a page, with their lines; or what cannot be read.
fn links(page: &Page) -> Result<Vec<(usize, String)>, String> {
    let mut found = Vec::new();
    for (at, text) in prose(page) {
        let problem = |what: &str| format!("{}:{at}: {what}", page.name);
        if text.contains("][") {
            return Err(problem("a link by reference; write its target in place"));
        }
        for (start, marks) in text.match_indices("](") {
            let target = &text[start + marks.len()..];
            let end = target.find(')').ok_or_else(|| problem("a link has no end on its line"))?;
            found.push((at, target[..end].to_owned()));
        }
        let definition = text.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).filter(|(label, _)| !label.contains(']'));
        found.extend(definition.map(|(_, target)| (at, target.trim().to_owned())));
        let addresses = text.split('<').skip(1).filter_map(|rest| rest.split_once('>')).filter(|(inner, _)| inner.contains("://"));
        found.extend(addresses.map(|(address, _)| (at, address.to_owned())));
    }
    Ok(found)
}

/// The anchor that GitHub makes of a heading, without the number that tells equal ones apart.
fn slug(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading.trim();
    // Of a link only its text is seen.
    while let Some((before, after)) = rest.split_once('[') {
        let Some((inner, after)) = after.split_once("](").and_then(|(inner, target)| Some((inner, target.split_once(')')?.1))) else {
            break;
        };
        text.extend([before, inner]);
        rest = after;
    }
    text.push_str(rest);
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (_, line) in outside_of_blocks(text) {
        let level = line.len() - line.trim_start_matches('#').len();
        let Some(heading) = line[level..].strip_prefix(' ').filter(|_| (1..=6).contains(&level)) else { continue };
        let slug = slug(heading);
        let count = counts.entry(slug.clone()).or_default();
        found.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    found
}

/// The path below the root that a link of this page leads to; none if it leads out of the repository.
fn resolve(page: &str, target: &str) -> Option<String> {
    let path = Path::new(page).parent()?.join(target);
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::ParentDir => parts.pop().map(|_| ())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn is_address(target: &str) -> bool {
    let rest = target.strip_prefix("https://").or_else(|| target.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '#', '?']).next()).unwrap_or_default();
    host.contains('.') && host.chars().all(|letter| letter.is_ascii_alphanumeric() || ".-".contains(letter)) && !target.contains(' ')
}

/// What is wrong with a link; `read` gives the text of a file, and nothing of one that does not exist.
fn problem(page: &str, target: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if target.contains(':') {
        return (!is_address(target)).then(|| "is not an http(s) address".to_owned());
    }
    if target.starts_with('/') || target.contains(' ') {
        return Some("must be a relative path without blanks".to_owned());
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let file = if path.is_empty() { Some(page.to_owned()) } else { resolve(page, path) };
    let Some(file) = file else { return Some("leads out of the repository".to_owned()) };
    let Some(text) = read(&file) else { return Some(format!("{file} does not exist")) };
    let anchor = anchor?;
    if !file.ends_with(".md") {
        return Some(format!("{file} has no anchors"));
    }
    (!anchors(&text).contains(anchor)).then(|| format!("{file} has no heading #{anchor}"))
}

fn read(file: &str) -> Option<String> {
    let path = root().join(file);
    if path.is_dir() { Some(String::new()) } else { std::fs::read_to_string(path).ok() }
}

#[test]
fn anchors_are_as_github_makes_them() {
    let text =
        "# A `b-c` d\n## What's *new*, and (why)?\n### A_b / c – d\n## [Link](x.md) it\n## Same\n```\n# no\n```\n## Same\n#no\n## Größe\n";
    let expected = ["a-b-c-d", "whats-new-and-why", "a_b--c--d", "link-it", "same", "same-1", "größe"];
    assert_eq!(anchors(text), expected.iter().map(|slug| (*slug).to_owned()).collect());
}

#[test]
fn links_are_found_outside_of_code() {
    let text = "[a](b.md) and [`c`](d.md#e) `[f](g)`\n```\n[h](i)\n```\n<https://j.k>\n[l]: m\n[`n\no`](p) and ````` ````[q](r) `````\n- one ` mark\n- `[s](t)`\n";
    let page = |text: &str| Page { name: "a.md".to_owned(), text: text.to_owned() };
    let found = links(&page(text)).expect("readable");
    let expected = [(1, "b.md"), (1, "d.md#e"), (5, "https://j.k"), (6, "m"), (8, "p")];
    assert_eq!(found, expected.map(|(line, target)| (line, target.to_owned())));
    assert_eq!(links(&page("a\n[b](c\nd)\n")), Err("a.md:2: a link has no end on its line".to_owned()));
    assert_eq!(links(&page("[b][c]\n")), Err("a.md:1: a link by reference; write its target in place".to_owned()));
}

#[test]
fn a_wrong_link_is_named() {
    let read = |file: &str| match file {
        "docs/a.md" | "b.md" => Some("# Title\n## One\n".to_owned()),
        "src/c.rs" => Some(String::new()),
        _ => None,
    };
    for (target, wrong) in [
        ("#one", None),
        ("../b.md#one", None),
        ("../src/c.rs", None),
        ("https://kubernetes.io/docs/x#y", None),
        ("#two", Some("docs/a.md has no heading #two")),
        ("../b.md#two", Some("b.md has no heading #two")),
        ("b.md", Some("docs/b.md does not exist")),
        ("../src/c.rs#L1", Some("src/c.rs has no anchors")),
        ("/docs/a.md", Some("must be a relative path without blanks")),
        ("../../x.md", Some("leads out of the repository")),
        ("https://kubernetes", Some("is not an http(s) address")),
        ("mailto:a@b.c", Some("is not an http(s) address")),
    ] {
        assert_eq!(problem("docs/a.md", target, &read).as_deref(), wrong, "{target}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in all_pages() {
        match links(&page) {
            Err(error) => wrong.push(error),
            Ok(links) => wrong.extend(links.iter().filter_map(|(line, target)| {
                problem(&page.name, target, &read).map(|problem| format!("{}:{line}: {target}: {problem}", page.name))
            })),
        }
    }
    assert_none("links", &wrong);
}

#[test]
fn every_page_of_the_docs_is_linked_from_a_start() {
    let pages = all_pages();
    let starts = pages.iter().filter(|page| matches!(page.name.as_str(), "README.md" | "docs/README.md"));
    let mut linked = BTreeSet::new();
    for start in starts {
        let links = links(start).unwrap_or_else(|error| panic!("{error}"));
        linked.extend(links.iter().filter_map(|(_, target)| resolve(&start.name, target.split('#').next()?)));
    }
    let is_alone = |page: &&Page| page.name.starts_with("docs/") && page.name != "docs/README.md" && !linked.contains(&page.name);
    let alone: Vec<String> = pages.iter().filter(is_alone).map(|page| page.name.clone()).collect();
    assert_none("pages that neither README.md nor docs/README.md links", &alone);
}
