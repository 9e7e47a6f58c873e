//! The sidecar's report: its termination message, which the operator turns into the run's outcome.
//!
//! Promises: never longer than the limit, always valid JSON, never a value of an output. Secrets come first, then errors; when
//! space runs out, messages are shortened, then entries are left out and counted. Parsing is safe for hostile input.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api::NAME_MAX;

/// What the kubelet keeps of a container's termination message, in bytes.
pub const REPORT_LIMIT: usize = 4096;
/// What the kubelet keeps of the termination messages of one pod, in bytes; each container gets an equal share.
const POD_MESSAGES_LIMIT: usize = 12 * 1024;
/// Room for the braces and counts around the entries, in bytes: with both counts at their longest.
const FRAME: usize = 96;
/// What messages are shortened to, step by step, before entries are left out; in bytes as encoded.
const MESSAGE_LIMITS: [usize; 4] = [1024, 256, 120, 60];

/// What became of a run's output in one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Secrets that hold the output now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<StoredSecret>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<OutputError>,
    /// Secrets for which there was no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub secrets_omitted: u32,
    /// Errors for which there was no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors_omitted: u32,
    /// True if everything that had to be stored is stored.
    pub stored: bool,
}

/// One Secret that holds output of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredSecret {
    /// Full name of the Secret.
    pub name: String,
    /// Version, for a versioned Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Container that wrote the file.
    #[serde(default)]
    pub container: String,
    /// File it came from; empty for a log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
}

/// Why an output is not stored. Never holds a value of an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputError {
    /// Word for programs.
    pub reason: OutputErrorReason,
    /// Container; empty if the error is not about one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// File; empty if the error is not about one, but about a log for example.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The kinds of [`OutputError`]; also reasons of Events and conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputErrorReason {
    /// The file is missing, unreadable or invalid; running the container again may help.
    OutputInvalid,
    /// A Secret of that name is not this QuarksJob's, or cannot change.
    OutputConflict,
    /// The API server did not take it.
    OutputNotStored,
    /// The QuarksJob is gone, being deleted, or another one of the same name.
    OwnerGone,
}

impl OutputErrorReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::OutputInvalid, Self::OutputConflict, Self::OutputNotStored, Self::OwnerGone];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutputInvalid => "OutputInvalid",
            Self::OutputConflict => "OutputConflict",
            Self::OutputNotStored => "OutputNotStored",
            Self::OwnerGone => "OwnerGone",
        }
    }
}

impl fmt::Display for OutputErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a termination message is not a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportError {
    /// There is none: the sidecar never ran or did not get to write it.
    Empty,
    /// Longer than the kubelet keeps.
    TooLong,
    /// Not the JSON we write; perhaps cut.
    Malformed,
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the output-persist container wrote no report",
            Self::TooLong => "the output-persist container's report is too long",
            Self::Malformed => "the output-persist container's report is malformed",
        })
    }
}

impl std::error::Error for ReportError {}

impl Report {
    /// True if everything is stored and nothing went wrong, entries left out included.
    pub fn is_success(&self) -> bool {
        self.stored && self.errors.is_empty() && self.errors_omitted == 0
    }

    /// Bytes that the kubelet keeps of one message in a pod with this many containers of all kinds, the sidecar included.
    pub fn limit_for(containers: usize) -> usize {
        (POD_MESSAGES_LIMIT / containers.max(1)).min(REPORT_LIMIT)
    }

    /// JSON of at most [`REPORT_LIMIT`] bytes.
    pub fn encode(&self) -> String {
        self.encode_within(REPORT_LIMIT)
    }

    /// JSON of at most `limit` bytes, but never less than the counts and `stored` (under 100 bytes).
    pub fn encode_within(&self, limit: usize) -> String {
        let whole = json(self);
        if whole.len() <= limit {
            return whole;
        }
        let mut short = self.clone();
        for message_limit in MESSAGE_LIMITS {
            short.shorten(message_limit);
            let text = json(&short);
            if text.len() <= limit {
                return text;
            }
        }
        short.leave_out(limit);
        json(&short)
    }

    /// Reads what [`Report::encode`] wrote. Unknown fields are skipped.
    pub fn parse(text: &str) -> Result<Self, ReportError> {
        if text.len() > REPORT_LIMIT {
            return Err(ReportError::TooLong);
        }
        if text.trim_ascii().is_empty() {
            return Err(ReportError::Empty);
        }
        crate::json::from_slice(text.as_bytes()).map_err(|_| ReportError::Malformed)
    }

    fn shorten(&mut self, message_limit: usize) {
        for error in &mut self.errors {
            // A longer name comes of a hostile plan.
            clip(&mut error.container, NAME_MAX);
            clip(&mut error.file, NAME_MAX);
            clip(&mut error.message, message_limit);
        }
        for secret in &mut self.secrets {
            clip(&mut secret.name, NAME_MAX);
            clip(&mut secret.container, NAME_MAX);
            clip(&mut secret.file, NAME_MAX);
        }
    }

    /// Keeps one error at least if any fits, since its reason decides what is reported; errors get a quarter of the room before
    /// Secrets, and whatever Secrets leave.
    fn leave_out(&mut self, limit: usize) {
        let mut room = limit.saturating_sub(FRAME);
        let mut errors = std::mem::take(&mut self.errors).into_iter().peekable();
        let quarter = room - room / 4;
        while let Some(error) = errors.next_if(|error| {
            let size = size(error);
            size <= room && (self.errors.is_empty() || room - size >= quarter)
        }) {
            room -= size(&error);
            self.errors.push(error);
        }
        for secret in std::mem::take(&mut self.secrets) {
            if size(&secret) <= room {
                room -= size(&secret);
                self.secrets.push(secret);
            } else {
                self.secrets_omitted = self.secrets_omitted.saturating_add(1);
            }
        }
        for error in errors {
            if size(&error) <= room {
                room -= size(&error);
                self.errors.push(error);
            } else {
                self.errors_omitted = self.errors_omitted.saturating_add(1);
            }
        }
    }
}

/// Bytes of an entry with its comma.
fn size<T: Serialize>(entry: &T) -> usize {
    json(entry).len() + 1
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists always have a JSON form")
}

/// Cuts at a character's border so that the JSON form, without quotes, has at most `limit` bytes.
fn clip(text: &mut String, limit: usize) {
    const MARK: &str = "...";
    let mut used = 0;
    let mut keep = 0;
    for (at, letter) in text.char_indices() {
        used += encoded_len(letter);
        if used > limit {
            text.truncate(keep);
            text.push_str(MARK);
            return;
        }
        if used <= limit - MARK.len() {
            keep = at + letter.len_utf8();
        }
    }
}

fn encoded_len(letter: char) -> usize {
    match letter {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\u{0}'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str) -> StoredSecret {
        StoredSecret { name: name.into(), version: None, container: "main".into(), file: "output.json".into() }
    }

    fn error(message: &str) -> OutputError {
        OutputError {
            reason: OutputErrorReason::OutputInvalid,
            container: "main".into(),
            file: "output.json".into(),
            message: message.into(),
        }
    }

    #[test]
    fn names_come_before_counts() {
        let report = Report {
            secrets: vec![StoredSecret { version: Some(2), ..secret("a-v2") }],
            errors: vec![error("m")],
            secrets_omitted: 1,
            errors_omitted: 2,
            stored: false,
        };
        let text = r#"{"secrets":[{"name":"a-v2","version":2,"container":"main","file":"output.json"}],"errors":[{"reason":"OutputInvalid","container":"main","file":"output.json","message":"m"}],"secretsOmitted":1,"errorsOmitted":2,"stored":false}"#;
        assert_eq!(report.encode(), text);
        assert_eq!(Report::parse(text), Ok(report));
    }

    #[test]
    fn nothing_to_store_is_short() {
        let report = Report { stored: true, ..Report::default() };
        assert_eq!(report.encode(), r#"{"stored":true}"#);
        assert!(report.is_success());
    }

    #[test]
    fn hostile_messages_are_refused() {
        let deep = "[".repeat(4000);
        let long = " ".repeat(REPORT_LIMIT + 1);
        for (text, expected) in [
            ("", ReportError::Empty),
            (" \n", ReportError::Empty),
            (long.as_str(), ReportError::TooLong),
            ("panicked at", ReportError::Malformed),
            ("{}", ReportError::Malformed),
            (r#"{"stored":"true"}"#, ReportError::Malformed),
            (r#"{"stored":true}{"stored":false}"#, ReportError::Malformed),
            (r#"{"stored":true,"stored":false}"#, ReportError::Malformed),
            (r#"{"stored":true,"secretsOmitted":-1}"#, ReportError::Malformed),
            (r#"{"stored":true,"secretsOmitted":4294967296}"#, ReportError::Malformed),
            (r#"{"stored":true,"secrets":[{}]}"#, ReportError::Malformed),
            (r#"{"stored":true,"errors":[{"reason":"Other"}]}"#, ReportError::Malformed),
            (r#"{"stored":true,"secrets":[{"name":"#, ReportError::Malformed),
            (deep.as_str(), ReportError::Malformed),
        ] {
            assert_eq!(Report::parse(text), Err(expected), "{text:.40}");
        }
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let report = Report::parse(r#"{"new":[1,{}],"secrets":[{"name":"a","colour":"red"}],"stored":true}"#).unwrap();
        assert_eq!(report.secrets, [StoredSecret { name: "a".into(), ..StoredSecret::default() }]);
    }

    #[test]
    fn errors_and_what_is_left_out_are_no_success() {
        for report in [
            Report { stored: false, ..Report::default() },
            Report { stored: true, errors: vec![error("m")], ..Report::default() },
            Report { stored: true, errors_omitted: 1, ..Report::default() },
        ] {
            assert!(!report.is_success());
        }
        assert!(Report { stored: true, secrets_omitted: 9, ..Report::default() }.is_success());
    }

    #[test]
    fn messages_are_shortened_before_entries_go() {
        let report = Report {
            secrets: (0..10).map(|n| secret(&format!("secret-{n}"))).collect(),
            errors: (0..5).map(|_| error(&"é\"\u{1}".repeat(1000))).collect(),
            ..Report::default()
        };
        let read = Report::parse(&report.encode()).unwrap();
        assert_eq!(read.secrets, report.secrets);
        assert_eq!((read.errors.len(), read.errors_omitted), (5, 0));
        assert!(read.errors.iter().all(|error| error.message.ends_with("...")));
    }

    #[test]
    fn the_first_error_survives_many_secrets() {
        let report = Report {
            secrets: (0..200).map(|n| secret(&format!("{}-{n}", "s".repeat(240)))).collect(),
            errors: vec![error("m"); 50],
            ..Report::default()
        };
        let read = Report::parse(&report.encode()).unwrap();
        assert!(!read.errors.is_empty() && !read.secrets.is_empty());
        assert_eq!(read.secrets.len() + read.secrets_omitted as usize, 200);
        assert_eq!(read.errors.len() + read.errors_omitted as usize, 50);
    }

    /// Small deterministic generator, enough to vary shapes.
    fn next(seed: &mut u64) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize
    }

    #[test]
    fn any_report_fits_and_counts_everything() {
        let alphabet = ['a', 'Z', '-', '"', '\\', '\n', '\u{0}', '\u{1f}', '\u{7f}', 'é', '漢', '🦀', '\u{2028}'];
        for case in 0..90_u64 {
            let mut seed = case;
            let mut word = |longest: usize| -> String {
                let length = next(&mut seed) % (longest + 1);
                (0..length).map(|_| alphabet[next(&mut seed) % alphabet.len()]).collect()
            };
            let report = Report {
                secrets: (0..case % 90)
                    .map(|n| StoredSecret {
                        name: word(300),
                        version: (n % 2 == 0).then_some(u64::MAX - n),
                        container: word(63),
                        file: word(300),
                    })
                    .collect(),
                errors: (0..case % 41)
                    .map(|_| OutputError {
                        reason: OutputErrorReason::OutputConflict,
                        container: word(63),
                        file: word(300),
                        message: word(1500),
                    })
                    .collect(),
                secrets_omitted: 0,
                errors_omitted: 0,
                stored: case % 3 == 0,
            };
            for limit in [REPORT_LIMIT, Report::limit_for(5), Report::limit_for(100)] {
                let text = report.encode_within(limit);
                assert!(text.len() <= limit, "case {case}: {} > {limit}", text.len());
                let read = Report::parse(&text).expect("own report");
                assert_eq!(read.stored, report.stored);
                assert_eq!(read.secrets.len() + read.secrets_omitted as usize, report.secrets.len(), "case {case}");
                assert_eq!(read.errors.len() + read.errors_omitted as usize, report.errors.len(), "case {case}");
            }
        }
    }

    #[test]
    fn a_pod_of_many_containers_shares_the_room() {
        for (containers, limit) in [(0, 4096), (1, 4096), (3, 4096), (4, 3072), (5, 2457), (100, 122)] {
            assert_eq!(Report::limit_for(containers), limit);
        }
    }
}
