//! An output file's content: bytes to keys and values, or an error that names key and type, never a value.
//!
//! A file holds one flat JSON object of strings. A container restarted in place appends another document each time, so up to
//! `documents` of them may follow each other and the last one counts. No value tree is built: text goes straight into the Secret's
//! data. Not for reading files, nor for the rules about names of Secrets.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::api::NAME_MAX;
use crate::persist::secret::data::{Append, Data, encode};
use crate::persist::secret::rules::Quoted;

/// What Kubernetes takes in one Secret: the sum of its values' lengths, in bytes.
pub const SECRET_LIMIT: usize = 1024 * 1024;
/// What etcd takes in one request by default, in bytes.
const ETCD_LIMIT: usize = 1536 * 1024;
/// Least that one key costs in etcd beside the value and twice the key (in the data and in `managedFields`), in bytes.
const ENTRY_COST: usize = 14;
/// Secrets that one file may become by fan-out. With [`KEYS_LIMIT`] it keeps the sidecar within its memory limit.
const FAN_OUT_LIMIT: usize = 1000;
/// Keys that these Secrets may have together.
const KEYS_LIMIT: usize = 50_000;

/// What is wrong with the content of a file. `Display` never shows a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// Nothing but white space.
    Empty,
    /// A byte order mark at the start.
    ByteOrderMark,
    /// A NUL byte.
    Nul {
        /// Bytes before it.
        offset: usize,
    },
    /// Not UTF-8.
    NotUtf8 {
        /// Bytes before the first wrong one.
        offset: usize,
    },
    /// Not JSON; the text is one of the parser's constants with line and column.
    Syntax(String),
    /// JSON, but no object.
    NotObject(JsonType),
    /// A key appears twice.
    Duplicate(String),
    /// A value is not a string (fan-out: not an object).
    WrongType {
        /// The value's key.
        key: String,
        /// What it is.
        found: JsonType,
        /// What it must be.
        expected: &'static str,
    },
    /// A key that Kubernetes does not take in a Secret.
    Key(String),
    /// More than one Secret takes.
    TooLarge,
    /// Fan-out: more Secrets, or more keys in all of them, than one file may have.
    TooMany,
    /// Something after the last document that may be there.
    Trailing {
        /// Line where it starts or becomes invalid.
        line: usize,
        /// Column where it starts or becomes invalid.
        column: usize,
        /// Documents that may be there: restarts + 1.
        documents: usize,
    },
    /// Fan-out: an entry's own object is wrong.
    Entry {
        /// The entry's key.
        key: String,
        /// What is wrong with it.
        error: Box<DocumentError>,
    },
}

impl DocumentError {
    /// True if more of the same text could make it right: it is empty or ends too early.
    pub fn is_cut(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Syntax(text) => text.starts_with("EOF"),
            _ => false,
        }
    }
}

/// The types of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum JsonType {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty; must be a JSON object of strings"),
            Self::ByteOrderMark => f.write_str("starts with a byte order mark; must be plain UTF-8"),
            Self::Nul { offset } => write!(f, "NUL byte at offset {offset}"),
            Self::NotUtf8 { offset } => write!(f, "not valid UTF-8 at offset {offset}"),
            Self::Syntax(text) => write!(f, "not valid JSON: {text}"),
            Self::NotObject(found) => write!(f, "must be a JSON object of strings, not {found}"),
            Self::Duplicate(key) => write!(f, "duplicate key {}", Quoted(key)),
            Self::WrongType { key, found, expected } => write!(f, "key {} must be {expected}, not {found}", Quoted(key)),
            Self::Key(key) => {
                write!(
                    f,
                    "key {} is not a valid Secret key: 1 to {NAME_MAX} letters, digits, '-', '_' or '.', not starting with '..'",
                    Quoted(key)
                )
            }
            Self::TooLarge => f.write_str("too large: a Secret holds at most 1 MiB of values, 1.5 MiB with its keys"),
            Self::TooMany => write!(f, "too large: a file must produce at most {FAN_OUT_LIMIT} Secrets with {KEYS_LIMIT} keys in total"),
            Self::Trailing { line, column, documents } => {
                write!(f, "trailing data at line {line} column {column}; expected at most {documents} JSON objects (restarts + 1)")
            }
            Self::Entry { key, error } => write!(f, "key {}: {error}", Quoted(key)),
        }
    }
}

impl std::error::Error for DocumentError {}

/// Reads a file for one Secret.
pub fn parse(bytes: &[u8], documents: usize) -> Result<Data, DocumentError> {
    parse_as::<Flat>(bytes, documents)
}

/// Reads a file for one Secret per top-level key. An entry may be an object of strings, or such an object as a string.
pub fn parse_fan_out(bytes: &[u8], documents: usize) -> Result<Vec<(String, Data)>, DocumentError> {
    parse_as::<FanOut>(bytes, documents)
}

/// What Kubernetes demands of a key of a Secret.
pub fn is_secret_key(key: &str) -> bool {
    (1..=NAME_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && key != "."
        && !key.starts_with("..")
}

fn parse_as<S: Sink>(bytes: &[u8], documents: usize) -> Result<S::Output, DocumentError> {
    let text = check_text(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_slice(text.as_bytes());
    let mut last = read_document::<S>(&mut deserializer).map_err(|error| match error {
        ParseError::Json(error) => syntax(&error),
        ParseError::NotObject(found) => DocumentError::NotObject(found),
    })?;
    let mut count = 1;
    while let Err(more) = deserializer.end() {
        // The previous document is dropped before the next one is read: only one is in memory.
        drop(last);
        let trailing = |error: &serde_json::Error| DocumentError::Trailing { line: error.line(), column: error.column(), documents };
        if count >= documents {
            return Err(trailing(&more));
        }
        last = read_document::<S>(&mut deserializer).map_err(|error| match error {
            ParseError::Json(error) => trailing(&error),
            ParseError::NotObject(_) => trailing(&more),
        })?;
        count += 1;
    }
    last.finish()
}

fn check_text(bytes: &[u8]) -> Result<&str, DocumentError> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(DocumentError::ByteOrderMark);
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(DocumentError::Nul { offset });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| DocumentError::NotUtf8 { offset: error.valid_up_to() })?;
    if text.trim_ascii().is_empty() { Err(DocumentError::Empty) } else { Ok(text) }
}

/// The parser's own messages are constants with a position; anything else could quote the file and is not shown.
fn syntax(error: &serde_json::Error) -> DocumentError {
    DocumentError::Syntax(if error.is_syntax() || error.is_eof() {
        error.to_string()
    } else {
        format!("unexpected content at line {} column {}", error.line(), error.column())
    })
}

enum ParseError {
    Json(serde_json::Error),
    NotObject(JsonType),
}

type JsonText<'de> = serde_json::Deserializer<serde_json::de::SliceRead<'de>>;

fn read_document<S: Sink>(deserializer: &mut JsonText<'_>) -> Result<S, ParseError> {
    let mut sink = S::default();
    match deserializer.deserialize_any(ValueVisitor { object: Some(&mut sink), text: Text::Nowhere }) {
        Ok(Value::Object) => Ok(sink),
        Ok(Value::Text(_)) => Err(ParseError::NotObject(JsonType::String)),
        Ok(Value::Other(found)) => Err(ParseError::NotObject(found)),
        Err(error) => Err(ParseError::Json(error)),
    }
}

/// Takes the members of an object. After the first wrong one it only skips: the document may not be the last, and then its
/// content does not count.
trait Sink: Default {
    type Output;
    fn is_wrong(&self) -> bool;
    /// Takes one member; false if there is none left.
    fn take<'de, A: MapAccess<'de>>(&mut self, access: &mut A) -> Result<bool, A::Error>;
    fn finish(self) -> Result<Self::Output, DocumentError>;
}

#[derive(Default)]
struct Flat {
    data: Data,
    bytes: usize,
    cost: usize,
    error: Option<DocumentError>,
}

impl Flat {
    /// Checks what was appended to the data from `start` on, a key and from `split` on its value.
    fn check(&mut self, start: usize, split: usize, value: &Value) -> Result<(), DocumentError> {
        let key = &self.data.text()[start..split];
        if !is_secret_key(key) {
            return Err(DocumentError::Key(key.to_owned()));
        }
        let length = match value {
            Value::Text(length) => *length,
            Value::Object => return Err(wrong_type(key, JsonType::Object, "a string")),
            Value::Other(found) => return Err(wrong_type(key, *found, "a string")),
        };
        self.bytes += length;
        self.cost += length + 2 * key.len() + ENTRY_COST;
        if self.bytes > SECRET_LIMIT || self.cost > ETCD_LIMIT {
            return Err(DocumentError::TooLarge);
        }
        self.data.close(start, split).ok_or(DocumentError::TooLarge)
    }
}

fn wrong_type(key: &str, found: JsonType, expected: &'static str) -> DocumentError {
    DocumentError::WrongType { key: key.to_owned(), found, expected }
}

impl Sink for Flat {
    type Output = Data;

    fn is_wrong(&self) -> bool {
        self.error.is_some()
    }

    fn take<'de, A: MapAccess<'de>>(&mut self, access: &mut A) -> Result<bool, A::Error> {
        let start = self.data.text().len();
        if access.next_key_seed(Append(self.data.text()))?.is_none() {
            return Ok(false);
        }
        let split = self.data.text().len();
        let value = access.next_value_seed(ValueVisitor::<Flat> { object: None, text: Text::Encoded(self.data.text()) })?;
        if let Err(error) = self.check(start, split, &value) {
            self.error = Some(error);
            self.data = Data::default();
        }
        Ok(true)
    }

    fn finish(mut self) -> Result<Data, DocumentError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if let Some(key) = self.data.sort() {
            return Err(DocumentError::Duplicate(key.to_owned()));
        }
        Ok(self.data)
    }
}

#[derive(Default)]
struct FanOut {
    entries: Vec<(String, Data)>,
    keys: usize,
    error: Option<DocumentError>,
}

impl FanOut {
    fn add(&mut self, key: String, value: &Value, text: String, object: Flat) -> Result<(), DocumentError> {
        let document = match value {
            Value::Object => object.finish(),
            Value::Text(_) => parse(text.as_bytes(), 1),
            Value::Other(found) => return Err(wrong_type(&key, *found, "an object of strings")),
        };
        drop(text);
        let data = match document {
            Ok(data) => data,
            Err(error) => return Err(DocumentError::Entry { key, error: Box::new(error) }),
        };
        // They are few, so looking at all of them costs nothing.
        if self.entries.iter().any(|(other, _)| *other == key) {
            return Err(DocumentError::Duplicate(key));
        }
        self.keys += data.len();
        if self.entries.len() >= FAN_OUT_LIMIT || self.keys > KEYS_LIMIT {
            return Err(DocumentError::TooMany);
        }
        self.entries.push((key, data));
        Ok(())
    }
}

impl Sink for FanOut {
    type Output = Vec<(String, Data)>;

    fn is_wrong(&self) -> bool {
        self.error.is_some()
    }

    fn take<'de, A: MapAccess<'de>>(&mut self, access: &mut A) -> Result<bool, A::Error> {
        let (mut key, mut text, mut object) = (String::new(), String::new(), Flat::default());
        if access.next_key_seed(Append(&mut key))?.is_none() {
            return Ok(false);
        }
        let value = access.next_value_seed(ValueVisitor { object: Some(&mut object), text: Text::Plain(&mut text) })?;
        if let Err(error) = self.add(key, &value, text, object) {
            self.error = Some(error);
            self.entries = Vec::new();
        }
        Ok(true)
    }

    fn finish(self) -> Result<Self::Output, DocumentError> {
        self.error.map_or(Ok(self.entries), Err)
    }
}

/// A value, as far as anyone wants to know it.
enum Value {
    /// A text of so many bytes, which went where it should.
    Text(usize),
    /// Its members went to the sink, or nowhere.
    Object,
    Other(JsonType),
}

/// Where a text goes.
enum Text<'t> {
    Nowhere,
    Plain(&'t mut String),
    /// In base64.
    Encoded(&'t mut String),
}

struct ValueVisitor<'s, S> {
    object: Option<&'s mut S>,
    text: Text<'s>,
}

impl<'de, S: Sink> DeserializeSeed<'de> for ValueVisitor<'_, S> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Sink> Visitor<'de> for ValueVisitor<'_, S> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other(JsonType::Null))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other(JsonType::Boolean))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other(JsonType::Number))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other(JsonType::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other(JsonType::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        match self.text {
            Text::Nowhere => {}
            Text::Plain(to) => to.push_str(text),
            Text::Encoded(to) => encode(text, to),
        }
        Ok(Value::Text(text.len()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other(JsonType::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        if let Some(sink) = self.object {
            while !sink.is_wrong() {
                if !sink.take(&mut access)? {
                    return Ok(Value::Object);
                }
            }
        }
        skip(access)?;
        Ok(Value::Object)
    }
}

fn skip<'de, A: MapAccess<'de>>(mut access: A) -> Result<(), A::Error> {
    while access.next_key::<IgnoredAny>()?.is_some() {
        access.next_value::<IgnoredAny>()?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
