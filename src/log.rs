//! Log lines: time, level, target, a constant message and `key=value` pairs. Never Secret data, never whole objects.
//!
//! Pairs are passed as such (`info!(key:%, run:% = 1; "job created")`), so text and JSON are two ways to write the same parts.

use std::fmt::Write as _;
use std::io::Write as _;

use env_logger::{Builder, Target};
use log::kv::{self, Key, Value, VisitSource};
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
        out.write_all(line(format, &time, target, record).as_bytes())
    });
    if builder.try_init().is_err() {
        // Only a test starts logging twice.
        log::debug!("logging already started");
    }
    std::panic::set_hook(Box::new(|info| {
        // A panic's message may hold anything; its place does not.
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        log::error!(thread:% = thread.name().unwrap_or("unnamed"), place:%; "panicked");
    }));
}

/// One line: the message, and the pairs that were given with it.
fn line(format: Format, time: &str, target: &str, record: &Record<'_>) -> String {
    let mut line = String::with_capacity(256);
    // Writing to a String cannot fail, here and below.
    match format {
        Format::Text => _ = write!(line, "{time} {:5} {target} {}", record.level(), record.args()),
        Format::Json => {
            line.push('{');
            field(&mut line, "ts", time);
            field(&mut line, "level", LEVELS[record.level() as usize - 1]);
            field(&mut line, "target", target);
            field(&mut line, "msg", &record.args().to_string());
        }
    }
    let _ = record.key_values().visit(&mut Pairs { format, line: &mut line });
    line.push_str(match format {
        Format::Text => "\n",
        Format::Json => "}\n",
    });
    line
}

struct Pairs<'a> {
    format: Format,
    line: &'a mut String,
}

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = value.to_string();
        match self.format {
            Format::Text if is_plain(&value) => _ = write!(self.line, " {key}={value}"),
            Format::Text => _ = write!(self.line, " {key}={value:?}"),
            Format::Json => field(self.line, key.as_str(), &value),
        }
        Ok(())
    }
}

/// Can be separated from what follows without quotes.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '"')
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
    use serde_json::{Value as Json, json};

    /// The line of a message with these pairs.
    fn written(format: Format, message: &str, pairs: &[(&str, &str)]) -> String {
        line(format, "T", "a::b", &Record::builder().level(log::Level::Warn).key_values(&pairs).args(format_args!("{message}")).build())
    }

    #[test]
    fn text_has_quotes_where_a_value_would_not_end() {
        for (value, expected) in [
            ("ns/q", "ns/q"),
            ("a=b", "a=b"),
            ("", r#""""#),
            ("create jobs: 500", r#""create jobs: 500""#),
            ("a \"b\" c=d", r#""a \"b\" c=d""#),
            ("two\nlines\u{1b}", r#""two\nlines\u{1b}""#),
            ("\u{85}", r#""\u{85}""#),
        ] {
            assert_eq!(
                written(Format::Text, "m", &[("key", value), ("e", "f")]),
                format!("T WARN  a::b m key={expected} e=f\n"),
                "{value:?}"
            );
        }
        assert_eq!(written(Format::Text, "operator stopping", &[]), "T WARN  a::b operator stopping\n");
    }

    #[test]
    fn json_has_the_same_parts_as_one_object() {
        let expected =
            r#"{"ts":"T","level":"warn","target":"a::b","msg":"no run, again","key":"ns/q","reason":"","message":"a \"b\" c=d"}"#;
        let pairs = [("key", "ns/q"), ("reason", ""), ("message", "a \"b\" c=d")];
        assert_eq!(written(Format::Json, "no run, again", &pairs), format!("{expected}\n"));
    }

    #[test]
    fn any_text_is_one_valid_line_and_comes_back_as_it_was() {
        let pieces =
            ["a", "=", " ", "\"", "\\", "key", "u{", "41}", "\n", "ä", "\u{1}", "\u{85}", "n", "x=", " v=\"", "level=", "\"}", "\r"];
        let mut state: u32 = 1;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..state % 12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(pieces[(state >> 16) as usize % pieces.len()]);
            }
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let json = written(Format::Json, &text, &[("key", &text)]);
            let read: Json = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
            assert_eq!(read, json!({"ts": "T", "level": "warn", "target": "a::b", "msg": text, "key": text}));
            let plain = written(Format::Text, "m", &[("key", &text)]);
            assert_eq!((json.lines().count(), plain.lines().count()), (1, 1), "{json}{plain}");
        }
    }

    #[test]
    fn a_value_is_whatever_can_be_displayed() {
        let (key, error) = ("ns/q", std::io::Error::other("no \"x\""));
        let pairs: &[(&str, kv::Value<'_>)] =
            &[("key", kv::Value::from_display(&key)), ("error", kv::Value::from_display(&error)), ("run", kv::Value::from(7))];
        let record = Record::builder().level(log::Level::Info).key_values(&pairs).args(format_args!("failed")).build();
        assert_eq!(line(Format::Text, "T", "t", &record), "T INFO  t failed key=ns/q error=\"no \\\"x\\\"\" run=7\n");
    }
}
