//! The English of texts that users read: phrases that are unclear, with what to write instead.
//!
//! Texts are the string literals of `src` outside of tests, and the CRD. Not for comments or for the docs.

use super::{code, read, root, sources};

/// Phrases that do not belong in a message, and what says it better.
const REFUSED: [(&str, &str); 16] = [
    ("is no ", "is not a valid ..., must be ..."),
    ("are no ", "none found, no ... exists"),
    ("goes on", "is active, continues, resumed"),
    ("going on", "active"),
    ("whoever", "anyone who"),
    ("told", "reported, logged"),
    ("for ever ", "forever, permanently"),
    ("anew", "again, re-created"),
    ("tried again", "retried, will retry"),
    ("passed over", "skipped"),
    ("is there twice", "duplicate"),
    ("has to be", "must be"),
    ("shall ", "must, will"),
    ("speaks of", "is about, reflects"),
    ("lower case", "lowercase"),
    ("somebody", "a user, something else"),
];

/// The phrases in a text. `is no longer` is plain English.
fn refused(text: &str) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let text = text.to_lowercase().replace("no longer", "");
    REFUSED.iter().filter(move |(phrase, _)| text.contains(phrase))
}

/// What a line has in quotes: the letters that are blank in its code. Empty for a comment and, since its code is empty, in tests.
fn quoted(line: &str, code: &str) -> String {
    if line.trim_start().starts_with("//") {
        return String::new();
    }
    line.chars().zip(code.chars()).map(|(letter, code)| if code == ' ' { letter } else { '\n' }).collect()
}

#[test]
fn texts_are_plain_english() {
    assert_eq!(quoted("f(\"is no a\") // is no b", "f(         )           ").trim(), "\"is no a\"\n // is no b");
    for (text, count) in [("it is no name", 1), ("It is no longer owned", 0), ("the run goes on as told", 2)] {
        assert_eq!(refused(text).count(), count, "{text}");
    }
    let mut found = Vec::new();
    let mut check = |place: String, text: &str| {
        found.extend(refused(text).map(|(phrase, better)| format!("{place}: {phrase:?}; write: {better}")));
    };
    let sources = sources();
    let mut count = 0;
    for (name, code) in code() {
        for (at, (line, code)) in sources[&name].lines().zip(code.lines()).enumerate() {
            let text = quoted(line, code);
            count += usize::from(text.contains('"'));
            check(format!("src/{name}:{}", at + 1), &text);
        }
    }
    assert!(count > 1_000, "only {count} lines with texts are found");
    for (at, line) in read(&root().join("manifests/crd.yaml")).lines().enumerate() {
        check(format!("manifests/crd.yaml:{}", at + 1), line);
    }
    super::assert_none("texts that users read have phrases that are unclear", &found);
}
