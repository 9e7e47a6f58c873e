//! Log lines: time, level, where, a constant message and `key=value` pairs. Never Secret data, never whole objects.
//! As text, or with the same parts as one JSON object a line.

use std::fmt::Write as _;
use std::io::Write as _;

use env_logger::{Builder, Target};
use log::{LevelFilter, Record};

use crate::clock;

/// Levels, as `--log-level` takes them.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// How a line looks; `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// The format of this name.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Starts logging to standard error, panics included. Call once.
pub fn start(level: LevelFilter, format: Format) {
    let mut builder = Builder::new();
    // ureq logs requests at debug level, headers included: nothing of other crates below warn.
    builder.filter_level(LevelFilter::Warn.min(level)).filter_module("quarks_job", level).target(Target::Stderr);
    builder.format(move |out, record| {
        let (time, target) = (clock::now_micros(), record.target().trim_start_matches("quarks_job::"));
        match format {
            Format::Text => writeln!(out, "{time} {:5} {target} {}", record.level(), record.args()),
            Format::Json => out.write_all(json_line(&time, target, record).as_bytes()),
        }
    });
    if builder.try_init().is_err() {
        // Only a test starts logging twice.
        log::debug!("logging runs already");
    }
    std::panic::set_hook(Box::new(|info| {
        // A panic's message may hold anything; its place does not.
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        log::error!("panicked: thread={} place={place}", thread.name().unwrap_or("unnamed"));
    }));
}

/// What every object has.
const RESERVED: [&str; 4] = ["ts", "level", "target", "msg"];

fn json_line(time: &str, target: &str, record: &Record<'_>) -> String {
    let text = record.args().to_string();
    let mut line = String::with_capacity(text.len() + 160);
    line.push('{');
    field(&mut line, "ts", time);
    field(&mut line, "level", LEVELS[record.level() as usize - 1]);
    field(&mut line, "target", target);
    let (message, mut rest) = split_message(&text);
    field(&mut line, "msg", message);
    let mut seen = RESERVED.to_vec();
    while let Some((key, value, after)) = next_pair(rest, &seen) {
        match unquoted(value) {
            Some(value) => field(&mut line, key, &value),
            None => field(&mut line, key, value),
        }
        seen.push(key);
        rest = after;
    }
    line.push_str("}\n");
    line
}

/// The constant message, without the colon that some end in, and from the first pair on.
fn split_message(text: &str) -> (&str, &str) {
    let at = find_pair(text, &RESERVED).unwrap_or(text.len());
    (text[..at].trim_end_matches([' ', ':', ',']), &text[at..])
}

/// The pair at the beginning of `text`: key, value as it stands there, and what follows. A key that was there before is
/// part of a value: it came with a foreign text, and no object may have two values for a key.
fn next_pair<'a>(text: &'a str, seen: &[&str]) -> Option<(&'a str, &'a str, &'a str)> {
    let (key, rest) = text.split_once('=')?;
    let mut known = seen.to_vec();
    known.push(key);
    // What is in quotes holds no pairs.
    let quoted = quoted_length(rest);
    let end = find_pair(&rest[quoted..], &known).map_or(rest.len(), |at| quoted + at);
    Some((key, rest[..end].trim_end_matches(' '), &rest[end..]))
}

/// Where the first `key=` stands that begins a word and whose key is none of these.
fn find_pair(text: &str, without: &[&str]) -> Option<usize> {
    text.match_indices('=').find_map(|(equals, _)| {
        let start = text[..equals].rfind(' ').map_or(0, |space| space + 1);
        let key = &text[start..equals];
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !without.contains(&key);
        is_key.then_some(start)
    })
}

/// Bytes up to the closing quote; 0 if `text` does not begin with a quote, or does not close it.
fn quoted_length(text: &str) -> usize {
    if !text.starts_with('"') {
        return 0;
    }
    let mut is_escaped = false;
    let end = text.bytes().enumerate().skip(1).find(|(_, byte)| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(0, |(at, _)| at + 1)
}

/// What a text in Rust's quotes means; `None` if it is none. An escape that we do not know stays as it is.
fn unquoted(value: &str) -> Option<String> {
    if quoted_length(value) != value.len() || value.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = &value[1..value.len() - 1];
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (letter, length) = match escape.as_bytes().first() {
            Some(b'n') => (Some('\n'), 1),
            Some(b't') => (Some('\t'), 1),
            Some(b'r') => (Some('\r'), 1),
            Some(b'0') => (Some('\0'), 1),
            Some(quote @ (b'"' | b'\'' | b'\\')) => (Some(char::from(*quote)), 1),
            Some(b'u') => {
                let digits = escape[1..].strip_prefix('{').and_then(|digits| digits.split_once('}')).map_or("", |(digits, _)| digits);
                (u32::from_str_radix(digits, 16).ok().and_then(char::from_u32), digits.len() + 3)
            }
            _ => (None, 0),
        };
        match letter {
            Some(letter) => text.push(letter),
            None => text.push('\\'),
        }
        rest = if letter.is_some() { &escape[length..] } else { escape };
    }
    text.push_str(rest);
    Some(text)
}

/// Adds `"key":"value"`; the key needs no escapes.
fn field(line: &mut String, key: &str, value: &str) {
    if !line.ends_with('{') {
        line.push(',');
    }
    line.push('"');
    line.push_str(key);
    line.push_str("\":\"");
    for letter in value.chars() {
        match letter {
            '"' | '\\' => {
                line.push('\\');
                line.push(letter);
            }
            // Writing to a String cannot fail.
            letter if letter.is_control() => _ = write!(line, "\\u{:04x}", u32::from(letter)),
            letter => line.push(letter),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The object of a line without time, level and target.
    fn fields(text: &str) -> Value {
        let args = format_args!("{text}").to_string();
        let line = json_line("T", "a::b", &Record::builder().level(log::Level::Warn).args(format_args!("{args}")).build());
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "one line: {line:?}");
        // serde_json would take the last of two values for a key.
        let mut value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let object = value.as_object_mut().expect("an object");
        for (key, expected) in [("ts", "T"), ("level", "warn"), ("target", "a::b")] {
            assert_eq!(object.remove(key), Some(json!(expected)), "{line}");
            assert_eq!(line.matches(&format!("\"{key}\":")).count(), 1, "{line}");
        }
        value
    }

    #[test]
    fn pairs_become_fields() {
        for (line, expected) in [
            ("operator stops", json!({"msg": "operator stops"})),
            ("run settled key=ns/q run=1 reason=", json!({"msg": "run settled", "key": "ns/q", "run": "1", "reason": ""})),
            ("watch failing: watch=watch-jobs", json!({"msg": "watch failing", "watch": "watch-jobs"})),
            (r#"no run message="a \"b\" c=d" e=f"#, json!({"msg": "no run", "message": r#"a "b" c=d"#, "e": "f"})),
            (
                "failed, will be tried again key=ns/q error=create jobs: 500 try again remedy=\"kubectl apply\"",
                json!({"msg": "failed, will be tried again", "key": "ns/q", "error": "create jobs: 500 try again", "remedy": "kubectl apply"}),
            ),
            ("flag has no effect flag=--a", json!({"msg": "flag has no effect", "flag": "--a"})),
            ("key=ns/q", json!({"msg": "", "key": "ns/q"})),
            ("", json!({"msg": ""})),
        ] {
            assert_eq!(fields(line), expected, "{line}");
        }
    }

    #[test]
    fn quotes_are_undone_and_escapes_that_nobody_knows_stay() {
        for (quoted, expected) in [
            (format!("{:?}", "tab\t quote\" back\\ \u{1b} ä \u{200b} \n'"), "tab\t quote\" back\\ \u{1b} ä \u{200b} \n'"),
            (r#""\x41 \u{110000} \u{} \u{41" "#.trim_end().to_owned(), r"\x41 \u{110000} \u{} \u{41"),
            (r#""open"#.to_owned(), r#""open"#),
            (r#""ends in \""#.to_owned(), r#""ends in \""#),
            (r#""a"b"#.to_owned(), r#""a"b"#),
            ("\"\"".to_owned(), ""),
            ("\"".to_owned(), "\""),
        ] {
            assert_eq!(fields(&format!("m v={quoted}")), json!({"msg": "m", "v": expected}), "{quoted}");
        }
    }

    #[test]
    fn a_foreign_text_can_neither_break_a_line_nor_forge_a_field() {
        let text = "failed key=ns/q error=no level=error ts=0 msg=x target=y key=ns/other \"} \u{0} \u{85}\r\n{ \\";
        let expected = json!({"msg": "failed", "key": "ns/q", "error": text.split_once("error=").expect("there").1});
        assert_eq!(fields(text), expected);
        assert_eq!(fields("level=error ts=0")["msg"], "level=error ts=0");
    }

    #[test]
    fn any_text_is_one_valid_line() {
        let pieces = ["a", "=", " ", "\"", "\\", "key", "u{", "41}", "\n", "ä", "\u{1}", "n", "x=", " v=\"", "level="];
        let mut state: u32 = 1;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..state % 12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(pieces[(state >> 16) as usize % pieces.len()]);
            }
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            fields(&text);
        }
    }
}
