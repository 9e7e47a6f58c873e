//! Seeded nonsense for what reads text of others: output files, logs and termination messages.
//!
//! Each run takes a new seed and the kept ones; a failure names its seed. `FUZZ_SEED=N` runs that one alone, `FUZZ_CASES=N` so many
//! cases of each seed.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::api::{JobEnd, Outcome, PodReport};
use crate::contract::report::{OutputError, OutputErrorReason, REPORT_LIMIT, Report, ReportError, StoredSecret};
use crate::rules::verdict::verdict;

use super::input::document::{DocumentError, is_secret_key, parse, parse_fan_out};
use super::secret::data::Data;

/// Seeds that found something once, and two more. 1: a report that counts errors and names none was a success to the operator.
const KEPT: [u64; 3] = [1, 2, 0x5eed];
/// Cases of each seed: a second or two in a debug build.
const CASES: u64 = 5000;
/// The same for reports, which take longer to make.
const REPORT_CASES: u64 = 300;
const CANARY: &str = "CANARY-s3cr3t";

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 16) as usize % below.max(1)
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.next(number) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.next(from.len())]
    }
}

/// Runs the cases of every seed; `case` panics on what must not be.
fn fuzz(name: &str, cases: u64, case: impl Fn(&mut Random) + std::panic::RefUnwindSafe) {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let seeds = number("FUZZ_SEED").map_or_else(|| [&KEPT[..], &[now()]].concat(), |seed| vec![seed]);
    for seed in seeds {
        for number in 0..number("FUZZ_CASES").unwrap_or(cases) {
            let run = || case(&mut Random(seed.wrapping_add(number << 40)));
            if let Err(panic) = std::panic::catch_unwind(run) {
                eprintln!("{name}: FUZZ_SEED={seed}, case {number}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// A document as its writer means it: keys and values, null for what is no text.
type Model = Vec<(String, Option<String>)>;

fn model(random: &mut Random) -> Model {
    let keys = ["a", "b", "c", "a.b-c_D9", ".hidden", "..", "", "a/b", "é", "k\n"];
    let values = ["", CANARY, "\"\\/\n\t\u{8}\u{c}\r\u{1}\u{7f}", "é漢🦀\u{2028}\u{feff}", "{\"a\":\"b\"}", "{}", "{\"a\":1}", "{} {}"];
    (0..random.next(5))
        .map(|_| {
            // Mostly keys that are fine.
            let key = if random.one_in(8) { random.pick(&keys) } else { random.pick(&keys[..5]) };
            let value = (!random.one_in(10)).then(|| random.pick(&values).to_owned());
            (key.to_owned(), value)
        })
        .collect()
}

fn space(random: &mut Random, text: &mut String) {
    while random.one_in(4) {
        text.push_str(random.pick(&[" ", "\n", "\t", "\r"]));
    }
}

/// A JSON string of `content`, in one of the many ways to write it.
fn quoted(random: &mut Random, content: &str, text: &mut String) {
    text.push('"');
    for letter in content.chars() {
        let mut units = [0; 2];
        match letter {
            _ if random.one_in(5) => {
                for unit in letter.encode_utf16(&mut units) {
                    write!(text, "\\u{unit:04x}").unwrap();
                }
            }
            '"' | '\\' => text.extend(['\\', letter]),
            '\n' => text.push_str("\\n"),
            '\u{0}'..='\u{1f}' => write!(text, "\\u{:04X}", u32::from(letter)).unwrap(),
            other => text.push(other),
        }
    }
    text.push('"');
}

fn write_document(random: &mut Random, model: &Model, text: &mut String) {
    let odd = ["1", "-0.5e3", "null", "true", "[]", "[\"CANARY-s3cr3t\",{}]", "{\"a\":\"CANARY-s3cr3t\"}", "{}"];
    text.push('{');
    for (number, (key, value)) in model.iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        space(random, text);
        quoted(random, key, text);
        space(random, text);
        text.push(':');
        space(random, text);
        match value {
            Some(value) => quoted(random, value, text),
            None => text.push_str(random.pick(&odd)),
        }
        space(random, text);
    }
    text.push('}');
    space(random, text);
}

/// What the last document has to become; an error of any kind is `None`.
fn expected(model: &Model) -> Option<Data> {
    let mut entries: Vec<(&str, &str)> = Vec::new();
    for (key, value) in model {
        if !is_secret_key(key) || entries.iter().any(|(other, _)| other == key) {
            return None;
        }
        entries.push((key, value.as_deref()?));
    }
    Some(Data::of(&entries))
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.next(3) {
        let at = random.next(bytes.len() + 1);
        let end = (at + random.next(8)).min(bytes.len());
        match random.next(5) {
            0 => drop(bytes.drain(at..end)),
            1 => bytes.truncate(at),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => bytes.insert(at, random.next(256) as u8),
            _ => {
                let token = random.pick(&["{", "}", "[", "]", "\"", "\\", ",", ":", "null", "1e999", "\\ud800", "\0", "\u{feff}", "{}"]);
                bytes.splice(at..at, token.bytes());
            }
        }
    }
}

/// No error shows a value. A broken text may make a key of what was a value; keys are shown.
fn check_silent(error: &DocumentError) {
    use DocumentError::{Duplicate, Entry, Key, WrongType};
    let mut inner = Some(error);
    while let Some(error) = inner {
        match error {
            Duplicate(key) | Key(key) | WrongType { key, .. } | Entry { key, .. } if key.contains("CANARY") || key.contains("s3cr3t") => {
                return;
            }
            _ => {}
        }
        inner = if let Entry { error, .. } = error { Some(error) } else { None };
    }
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("CANARY") && !shown.contains("s3cr3t"), "{shown}");
    assert!(shown.len() < 4000, "{} bytes", shown.len());
}

/// All values of a text, read by another reader; none if it does not like it.
fn values(bytes: &[u8]) -> Option<Vec<Value>> {
    serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().collect::<Result<_, _>>().ok()
}

fn data_of(value: &Value) -> Option<Data> {
    let entries: Option<Vec<(&str, &str)>> = value.as_object()?.iter().map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
    entries.map(|entries| Data::of(&entries))
}

#[test]
fn a_document_becomes_what_its_writer_meant() {
    fuzz("meant", CASES, |random| {
        let models: Vec<Model> = (0..=random.next(3)).map(|_| model(random)).collect();
        let mut text = String::new();
        for model in &models {
            space(random, &mut text);
            write_document(random, model, &mut text);
        }
        for documents in 1..=models.len() + 1 {
            let read = parse(text.as_bytes(), documents);
            if documents < models.len() {
                assert!(matches!(read, Err(DocumentError::Trailing { .. })), "{text}");
            } else {
                assert_eq!(read.as_ref().ok(), expected(models.last().expect("one at least")).as_ref(), "{text}");
            }
            let _ = read.inspect_err(check_silent);
        }
    });
}

#[test]
fn broken_documents_are_errors_that_say_nothing_or_read_alike_elsewhere() {
    fuzz("broken", CASES, |random| {
        let mut text = String::new();
        for _ in 0..=random.next(2) {
            let model = model(random);
            write_document(random, &model, &mut text);
        }
        let mut bytes = text.into_bytes();
        mutate(random, &mut bytes);
        let documents = 1 + random.next(3);
        let shown = || String::from_utf8_lossy(&bytes);
        match (parse(&bytes, documents), values(&bytes)) {
            (Ok(data), Some(values)) => {
                assert!(values.len() <= documents, "{}", shown());
                assert_eq!(values.last().and_then(data_of), Some(data), "{}", shown());
            }
            // What is skipped is not checked closely; a single document is.
            (Ok(_), None) => assert!(documents > 1, "{}", shown()),
            (Err(error), _) => check_silent(&error),
        }
        match parse_fan_out(&bytes, documents) {
            Ok(entries) => {
                for (number, (key, data)) in entries.iter().enumerate() {
                    assert!(entries[..number].iter().all(|(other, _)| other != key) && data.iter().all(|(key, _)| is_secret_key(key)));
                }
            }
            Err(error) => check_silent(&error),
        }
    });
}

#[test]
fn fan_out_becomes_what_its_writer_meant() {
    fuzz("fan-out", CASES, |random| {
        let entries: Vec<(String, Model, bool)> =
            (0..random.next(4)).map(|number| (format!("e{number}"), model(random), random.one_in(2))).collect();
        let mut text = String::from("{");
        for (number, (key, model, is_text)) in entries.iter().enumerate() {
            text.push_str(if number > 0 { "," } else { "" });
            quoted(random, key, &mut text);
            text.push(':');
            let mut inner = String::new();
            write_document(random, model, &mut inner);
            if *is_text { quoted(random, &inner, &mut text) } else { text.push_str(&inner) }
        }
        text.push('}');
        let wanted: Option<Vec<(String, Data)>> =
            entries.iter().map(|(key, model, _)| expected(model).map(|data| (key.clone(), data))).collect();
        let read = parse_fan_out(text.as_bytes(), 1);
        assert_eq!(read.as_ref().ok(), wanted.as_ref(), "{text}");
        let _ = read.inspect_err(check_silent);
    });
}

fn report(random: &mut Random) -> Report {
    let word = |random: &mut Random| -> String {
        let pieces = ["a", "output.json", "\"", "\\", "\n", "\u{0}", "\u{1f}", "é", "🦀", "{\"stored\":true}"];
        (0..random.next(60)).map(|_| random.pick(&pieces)).collect()
    };
    let reasons = [
        OutputErrorReason::OutputInvalid,
        OutputErrorReason::OutputConflict,
        OutputErrorReason::OutputNotStored,
        OutputErrorReason::OwnerGone,
    ];
    Report {
        secrets: (0..random.next(30))
            .map(|number| StoredSecret {
                name: word(random),
                version: random.one_in(2).then_some(number as u64),
                container: word(random),
                file: word(random),
            })
            .collect(),
        errors: (0..random.next(6))
            .map(|_| OutputError { reason: reasons[random.next(4)], container: word(random), file: word(random), message: word(random) })
            .collect(),
        secrets_omitted: random.next(3) as u32,
        errors_omitted: random.next(3) as u32,
        stored: random.one_in(2),
    }
}

#[test]
fn a_broken_report_never_counts_for_more_than_it_says() {
    fuzz("report", REPORT_CASES, |random| {
        let limit = if random.one_in(2) { REPORT_LIMIT } else { 100 + random.next(4000) };
        let mut bytes = report(random).encode_within(limit).into_bytes();
        assert!(bytes.len() <= limit);
        if !random.one_in(5) {
            mutate(random, &mut bytes);
        }
        let message = String::from_utf8_lossy(&bytes).into_owned();
        let read = Report::parse(&message);
        assert_eq!(read == Err(ReportError::TooLong), message.len() > REPORT_LIMIT);
        if let Ok(report) = &read {
            assert_eq!(Report::parse(&report.encode()).as_ref().map(Report::is_success), Ok(report.is_success()), "{message}");
        }
        let pod: PodReport = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "status": {"phase": "Succeeded",
            "containerStatuses": [{"name": "output-persist", "state": {"terminated": {"exitCode": 0, "message": message}}}]}}))
        .expect("a pod");
        let said = verdict(&JobEnd::Complete { time: None }, 1, Some(&[pod]));
        let is_success = read.as_ref().is_ok_and(Report::is_success);
        assert_eq!(said.outcome == Outcome::Succeeded, is_success, "{message}");
        assert_eq!(said.outcome == Outcome::Unknown, read.is_err(), "{message}");
    });
}
