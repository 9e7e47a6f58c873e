//! The `data` of a Secret in two allocations, however many keys there are (pure).
//!
//! A file of half a megabyte may hold 50,000 keys; a map of strings takes ten times the file for them. Not for rules about keys.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// Keys with values in base64, in the order of the keys once `sort` was called. `Debug` prints none of them.
#[derive(Clone, Default)]
pub struct Data {
    /// Each key, followed by its value.
    text: String,
    entries: Vec<Entry>,
}

/// Positions in the text: below 4 GiB, since no file and no answer is larger than 16 MiB.
#[derive(Clone, Copy)]
struct Entry {
    key: u32,
    value: u32,
    end: u32,
}

impl Data {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keys and values, in base64.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|entry| (slice(&self.text, entry.key, entry.value), slice(&self.text, entry.value, entry.end)))
    }

    /// Where a new entry is written: its key first, then its value.
    pub fn text(&mut self) -> &mut String {
        &mut self.text
    }

    /// What was written from `key` on is an entry, its value from `value` on. None if there is no room.
    pub fn close(&mut self, key: usize, value: usize) -> Option<()> {
        let position = |at: usize| u32::try_from(at).ok();
        self.entries.push(Entry { key: position(key)?, value: position(value)?, end: position(self.text.len())? });
        Some(())
    }

    /// Sorts the keys; returns a duplicate one.
    pub fn sort(&mut self) -> Option<&str> {
        let text = self.text.as_str();
        let key = |entry: &Entry| slice(text, entry.key, entry.value);
        self.entries.sort_unstable_by(|a, b| key(a).cmp(key(b)));
        self.entries.windows(2).map(|pair| (key(&pair[0]), key(&pair[1]))).find(|(one, next)| one == next).map(|(key, _)| key)
    }
}

fn slice(text: &str, from: u32, to: u32) -> &str {
    &text[from as usize..to as usize]
}

/// Appends a value in base64.
pub fn encode(value: &str, text: &mut String) {
    BASE64.encode_string(value, text);
}

impl PartialEq for Data {
    /// Both must be sorted.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Data {}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} keys)", self.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Data {
    /// From a Secret as the API server sends it; sorted.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Data, A::Error> {
        let mut data = Data::default();
        loop {
            let key = data.text.len();
            if access.next_key_seed(Append(&mut data.text))?.is_none() {
                break;
            }
            let value = data.text.len();
            access.next_value_seed(Append(&mut data.text))?;
            data.close(key, value).ok_or_else(|| A::Error::custom("too large"))?;
        }
        data.sort();
        Ok(data)
    }
}

/// Takes a string and appends it, so that none is in memory twice.
pub struct Append<'t>(pub &'t mut String);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
impl Data {
    /// Of plain values, sorted.
    pub fn of(entries: &[(&str, &str)]) -> Self {
        let mut data = Self::default();
        for (key, value) in entries {
            let start = data.text.len();
            data.text.push_str(key);
            let split = data.text.len();
            encode(value, &mut data.text);
            data.close(start, split).unwrap();
        }
        data.sort();
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Data, serde_json::Error> {
        serde_json::from_slice(text.as_bytes())
    }

    #[test]
    fn it_reads_like_a_map_whatever_the_order() {
        let data = read(r#"{"b":"eA==","a\u0041":"","c":"\u0065A=="}"#).unwrap();
        assert_eq!(data.iter().collect::<Vec<_>>(), [("aA", ""), ("b", "eA=="), ("c", "eA==")]);
        assert_eq!(serde_json::to_string(&data).unwrap(), r#"{"aA":"","b":"eA==","c":"eA=="}"#);
        assert_eq!(data, Data::of(&[("c", "x"), ("b", "x"), ("aA", "")]));
        for other in [&[][..], &[("b", "x"), ("c", "x")], &[("c", "x"), ("b", "y"), ("aA", "")], &[("c", "x"), ("d", "x"), ("aA", "")]] {
            assert_ne!(data, Data::of(other));
        }
        for text in ["[]", "7", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a""#] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_found() {
        for (text, expected) in [("{}", None), (r#"{"a":"","b":""}"#, None), (r#"{"b":"","a":"","b":""}"#, Some("b"))] {
            assert_eq!(read(text).unwrap().sort(), expected);
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Data::of(&[("CANARY", "CANARY")])), "Data(1 keys)");
    }
}
