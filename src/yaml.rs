//! YAML in and out: kubeconfig files, and manifests on the command line.
//!
//! Input is not trusted: size, depth and growth by aliases are limited, a duplicate key is an error, and no error quotes a value.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::text::{hide_values, one_line};

/// Largest file in bytes.
const FILE_MAX: usize = 8 * 1024 * 1024;
/// Largest document in bytes: what the API server stores of one object. The parser needs about 70 times as much.
const DOCUMENT_MAX: usize = 1_500_000;
/// What a document may grow to by aliases, in bytes, roughly.
const GROWN_MAX: usize = 64 * 1024 * 1024;
/// What an element counts for besides its text.
const ELEMENT: usize = 64;
/// Brackets open at a time. The parser would take long over deeper nesting before it refuses it.
const OPEN_MAX: usize = 1_000;

/// The text of a file.
pub fn read_file(path: &Path) -> io::Result<String> {
    read_text(File::open(path)?)
}

/// All that can be read, as text, without a byte order mark.
pub fn read_text(source: impl Read) -> io::Result<String> {
    let bytes = read_bytes(source)?;
    std::str::from_utf8(without_mark(&bytes)).map(str::to_owned).map_err(|_| io::Error::other("not valid UTF-8"))
}

/// Without the byte order mark that editors of Windows put before UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// All that can be read.
pub fn read_bytes(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(u64::try_from(FILE_MAX).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_MAX {
        return Err(io::Error::other(format!("larger than {} MiB", FILE_MAX / 1024 / 1024)));
    }
    Ok(bytes)
}

/// The documents of a text, each with the number of its first line; empty ones are left out.
pub fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        // Nothing else may begin a line like this, not even a line of a text block.
        if line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) && at > 0 {
            found.push((first, &text[start..at]));
            (start, first) = (at, number + 1);
        }
        at += line.len();
    }
    found.push((first, &text[start..]));
    let has_content = |line: &str| !matches!(line.trim(), "" | "---") && !line.trim_start().starts_with('#');
    found.retain(|(_, document)| document.lines().any(has_content));
    found
}

/// One document, whose first line is the file's `first`; the error is one line and quotes no value.
pub fn parse(first: usize, document: &str) -> Result<Value, String> {
    parse_within(first, document, DOCUMENT_MAX)
}

/// The same for a document of at most so many bytes.
pub fn parse_within(first: usize, document: &str, max: usize) -> Result<Value, String> {
    if document.len() > max {
        return Err(format!("line {first}: the document is larger than {max} bytes"));
    }
    let (mut open, mut deepest) = (0_usize, 0);
    for byte in document.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = open.max(deepest);
    }
    if deepest > OPEN_MAX {
        return Err(format!("line {first}: more than {OPEN_MAX} open brackets"));
    }
    let left = Cell::new(GROWN_MAX);
    Node(&left).deserialize(serde_yaml::Deserializer::from_str(document)).map_err(|error| {
        let text = error.to_string();
        // The parser's own lines count from the document's start.
        let reason = one_line(&hide_values(text.split(" at line ").next().unwrap_or_default()), 200);
        match error.location() {
            Some(place) => format!("line {}: {reason}", first + place.line().saturating_sub(1)),
            None => reason,
        }
    })
}

/// Any value; counts what it makes.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Cell<usize>);

impl Node<'_> {
    fn count<E: serde::de::Error>(self, length: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(ELEMENT + length).ok_or_else(|| E::custom("too large with its aliases expanded"))?;
        self.0.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.count(0).map(|()| Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.count(0).map(|()| Value::from(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.count(0).map(|()| Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.count(0)?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that JSON cannot represent"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.count(value.len()).map(|()| Value::from(value))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.count(0).map(|()| Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.count(0)?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.count(0)?;
        let mut fields = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            self.count(key.len())?;
            let value = access.next_value_seed(self)?;
            if key == "<<" {
                merged.push(value);
                continue;
            }
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {}", one_line(&key, 60))));
            }
            fields.insert(key, value);
        }
        for source in merged {
            let sources = if let Value::Array(items) = source { items } else { vec![source] };
            for source in sources {
                let Value::Object(source) = source else { return Err(A::Error::custom("<< must be followed by a mapping")) };
                for (key, value) in source {
                    fields.entry(key).or_insert(value);
                }
            }
        }
        Ok(Value::Object(fields))
    }
}

/// The value as a document.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    write_block(&mut out, value, 0);
    out
}

/// Entries of a map or list, each from the start of its line, which is indented already for the first one.
fn write_block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (at, (key, value)) in fields.iter().enumerate() {
                if at > 0 {
                    margin(out, indent);
                }
                write_scalar(out, key);
                out.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        out.push('\n');
                        margin(out, indent + 2);
                        write_block(out, value, indent + 2);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        out.push('\n');
                        margin(out, indent);
                        write_block(out, value, indent);
                    }
                    _ => {
                        out.push(' ');
                        write_block(out, value, indent + 2);
                    }
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    margin(out, indent);
                }
                out.push_str("- ");
                write_block(out, item, indent + 2);
            }
        }
        Value::String(text) => {
            if !write_literal(out, text, indent) {
                write_scalar(out, text);
                out.push('\n');
            }
        }
        // Empty maps and lists too: JSON is YAML.
        other => {
            let _ = writeln!(out, "{other}");
        }
    }
}

fn margin(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Several lines as they are, where that is safe: a script is to be read.
fn write_literal(out: &mut String, text: &str, indent: usize) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let is_plain = |c: char| c == '\n' || c == '\t' || !needs_escape(c);
    if !body.contains('\n') || body.ends_with('\n') || body.starts_with([' ', '\t', '\n']) || !body.chars().all(is_plain) {
        return false;
    }
    out.push_str(if body.len() == text.len() { "|-\n" } else { "|\n" });
    for line in body.split('\n') {
        if !line.is_empty() {
            margin(out, indent.max(2));
            out.push_str(line);
        }
        out.push('\n');
    }
    true
}

fn write_scalar(out: &mut String, text: &str) {
    const WORDS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':'))
        && !text.ends_with(':')
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            _ if needs_escape(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Not printable in YAML, or a line break in one of its versions.
fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, String> {
        parse(1, text)
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let text = |bytes: &[u8]| read_text(bytes).map_err(|error| error.to_string());
        assert_eq!(text(b"\xef\xbb\xbfa: b"), Ok("a: b".to_owned()));
        assert_eq!(text(b"a: \xef\xbb\xbf"), Ok("a: \u{feff}".to_owned()), "only at the start");
        assert_eq!(text(b"\xef\xbb"), Err("not valid UTF-8".to_owned()));
    }

    const TEXTS: [&str; 61] = [
        "",
        "a",
        "A b",
        " a",
        "a ",
        "1",
        "-1",
        "0x1",
        "1e3",
        "true",
        "Yes",
        "no",
        "null",
        "~",
        "-",
        "- a",
        "a: b",
        "a #b",
        "#",
        "'",
        "\"",
        "\\",
        "@",
        "%",
        "a\nb",
        "a\nb\n",
        "a\n\nb",
        "\na",
        " a\nb",
        "a\n b\n\tc",
        "a\n",
        "\n",
        "a\n\n",
        "a\r\nb",
        "\t",
        "\u{0}",
        "\u{7f}",
        "\u{85}x",
        "\u{2028}",
        "\u{feff}",
        "é",
        "日本",
        "🙂",
        "---",
        "...",
        "a\n---\nb",
        "a\n...\nb",
        "[a]",
        "{a}",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "?",
        ",",
        "=",
        ".inf",
        "0755",
        "2001-01-01",
        "if [ -f x ]; then\n  echo \"y: $z\"\nfi\n",
    ];

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        for text in TEXTS {
            for value in [json!(text), json!({"k": text}), json!([text, {text: text, "z": [text]}]), json!([[text], [[text, text]]])] {
                let written = write(&value);
                assert_eq!(read(&written).as_ref(), Ok(&value), "{text:?}\n{written}");
            }
        }
        let value = json!({"a": {}, "b": [], "c": null, "d": [1, -2, 1.5, true, [], {}], "e": {"f": {"g": ["h"]}}, "18446744073709551615": u64::MAX});
        assert_eq!(read(&write(&value)), Ok(value));
    }

    #[test]
    fn it_reads_well() {
        let value = json!({"kind": "Job", "spec": {"args": ["-c", "echo a\nexit 1\n"], "list": [{"name": "x", "value": "1"}], "none": []}});
        let expected =
            "kind: Job\nspec:\n  args:\n  - \"-c\"\n  - |\n    echo a\n    exit 1\n  list:\n  - name: x\n    value: \"1\"\n  none: []\n";
        assert_eq!(write(&value), expected);
    }

    #[test]
    fn documents_are_told_apart() {
        let text = "# head\n---\na: 1\n--- # two\nb: |\n  ---\n  x\n---\n# nothing\n---\n---c: 3\n";
        let found = documents(text);
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 10]);
        assert_eq!(parse(found[0].0, found[0].1), Ok(json!({"a": 1})));
        assert_eq!(parse(found[1].0, found[1].1), Ok(json!({"b": "---\nx\n"})));
        assert_eq!((documents(""), documents("\n# a\n---\n")), (vec![], vec![]));
        assert_eq!(documents("---\na: 1"), [(1, "---\na: 1")]);
    }

    #[test]
    fn merge_keys_and_aliases_are_written_out() {
        let text = "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nuse2: {<<: [*b, {z: 4}]}\n1: &s text\ntrue: *s\n";
        let expected =
            json!({"base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 3}, "use2": {"x": 1, "y": 2, "z": 4}, "1": "text", "true": "text"});
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn what_cannot_be_trusted_is_refused_in_one_line() {
        let aliases = |levels: usize| {
            let mut text = "a0: &a0 [canary,canary,canary,canary,canary,canary,canary,canary,canary]\n".to_owned();
            for level in 1..levels {
                let item = format!("*a{}", level - 1);
                let _ = writeln!(text, "a{level}: &a{level} [{}]", [item.as_str(); 9].join(","));
            }
            text
        };
        let large = format!("a: &a {}\nb: [{}]\n", "canary".repeat(100_000), "*a,".repeat(1_000));
        let cases = [
            ("a: 1\nb: canary\na: 2\n".to_owned(), "duplicate key a"),
            ("a: [canary".to_owned(), "did not find"),
            ("a:\n\t- canary".to_owned(), "line 2: "),
            ("a: !canary x".to_owned(), "without a tag"),
            ("a: .nan".to_owned(), "JSON cannot represent"),
            ("<<: canary".to_owned(), "<< must be followed by a mapping"),
            ("a: *canary".to_owned(), "unknown anchor"),
            ("a\u{0}: canary".to_owned(), "line 1: "),
            ("[".repeat(1_400_000), "open brackets"),
            ("- ".repeat(700_000), "recursion limit"),
            (format!("a: {}", "x".repeat(DOCUMENT_MAX)), "larger than"),
            (aliases(12), "repetition limit"),
            (large, "too large with its aliases"),
            ("? [a]\n: canary".to_owned(), "line 1: "),
            ("a: 1\n...\nb: canary".to_owned(), "more than one document"),
        ];
        for (text, expected) in cases {
            let error = read(&text).expect_err(expected);
            assert!(error.contains(expected), "{error}");
            assert!(error.len() < 300 && !error.contains('\n') && !error.contains("canary"), "{error}");
        }
        assert!(parse(10, "a: 1\na: 2\n").expect_err("an error").starts_with("line 1"), "lines of the file are counted");
    }
}
