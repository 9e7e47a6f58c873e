//! The items of a list, framed one at a time as the bytes of its page arrive. Pure: no I/O.
//!
//! Promises: no more than one item is held, and nothing of one that is longer than the limit; bytes may be split anywhere; a
//! truncated page is never taken for a whole one. The caller decodes the items.

use serde::Deserialize;

use crate::api::ResourceVersion;

/// Length of the longest key that means something, quotes included.
const KEY_MAX: usize = 64;
/// Largest `metadata` of a page. A token is a few hundred bytes.
const METADATA_MAX: usize = 64 * 1024;

/// `metadata` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMeta {
    #[serde(default)]
    pub(crate) resource_version: ResourceVersion,
    #[serde(default, rename = "continue")]
    pub(crate) token: Option<String>,
}

/// An item as it comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// Its JSON, as long as its brackets match.
    Json(&'a [u8]),
    /// It is longer than the limit, and nothing of it was kept.
    TooLong,
}

/// The answer is not a page of a list, or not all of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoList(pub(crate) String);

/// Where the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the opening brace.
    Start,
    /// Before a key, or the closing brace of an empty object.
    FirstKey,
    /// Before a key.
    Key,
    InKey,
    /// After a key, before its colon.
    Colon,
    /// Before a value.
    Value,
    InValue,
    AfterValue,
    /// Before an item, or the closing bracket of an empty list.
    FirstItem,
    /// Before an item.
    Item,
    InItem,
    AfterItem,
    /// After the closing brace.
    End,
}

/// Which value of the page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Items,
    Metadata,
    Other,
}

/// Frames the items of one page.
#[derive(Debug)]
pub(crate) struct Items {
    place: Place,
    member: Member,
    value: Value,
    /// What is kept of the key, value or item at hand.
    buffer: Vec<u8>,
    is_too_long: bool,
    limit: usize,
    metadata: Vec<u8>,
    has_items: bool,
}

impl Items {
    /// Items of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            place: Place::Start,
            member: Member::Other,
            value: Value::default(),
            buffer: Vec::new(),
            is_too_long: false,
            limit,
            metadata: Vec::new(),
            has_items: false,
        }
    }

    /// Takes bytes as they came, and hands out each item that they complete.
    pub(crate) fn push<E: From<NoList>>(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        while let Some(byte) = bytes.first().copied() {
            match self.place {
                Place::InKey | Place::InValue | Place::InItem => {
                    let (amount, is_over) = self.value.advance(bytes);
                    let (piece, rest) = bytes.split_at(amount);
                    self.keep(piece);
                    bytes = rest;
                    if is_over {
                        self.end_value(each)?;
                    }
                }
                _ if byte.is_ascii_whitespace() => bytes = &bytes[1..],
                place => {
                    self.place = self.turn(place, byte)?;
                    // The first byte of a value is part of it.
                    if !matches!(self.place, Place::InKey | Place::InValue | Place::InItem) {
                        bytes = &bytes[1..];
                    }
                }
            }
        }
        Ok(())
    }

    /// What the page says of itself, if it came whole. A load balancer's `{"status":"ok"}` is not an empty list: without items or a version
    /// it is none.
    pub(crate) fn finish(self) -> Result<PageMeta, NoList> {
        if self.place != Place::End {
            return Err(NoList("the answer is truncated".to_owned()));
        }
        if !self.has_items || self.metadata.is_empty() {
            return Err(NoList("not a list: it has no items or no metadata".to_owned()));
        }
        let meta: PageMeta = crate::json::from_slice(&self.metadata).map_err(|error| NoList(crate::text::describe_decode(&error)))?;
        if meta.resource_version.is_empty() { Err(NoList("not a list: it has no resourceVersion".to_owned())) } else { Ok(meta) }
    }

    /// What follows at a byte between values.
    fn turn(&mut self, place: Place, byte: u8) -> Result<Place, NoList> {
        let next = match (place, byte) {
            (Place::Start, b'{') => Place::FirstKey,
            (Place::FirstKey | Place::Key, b'"') => Place::InKey,
            (Place::FirstKey | Place::AfterValue, b'}') => Place::End,
            (Place::Colon, b':') => Place::Value,
            (Place::Value, b'[') if self.member == Member::Items => Place::FirstItem,
            // Go writes `null` for an empty list.
            (Place::Value, b'n') => Place::InValue,
            (Place::Value, _) if self.member != Member::Items && is_start(byte) => Place::InValue,
            (Place::AfterValue, b',') => Place::Key,
            (Place::FirstItem | Place::AfterItem, b']') => Place::AfterValue,
            (Place::FirstItem | Place::Item, _) if is_start(byte) => Place::InItem,
            (Place::AfterItem, b',') => Place::Item,
            _ => return Err(NoList("not a Kubernetes list".to_owned())),
        };
        self.has_items |= self.member == Member::Items;
        if matches!(next, Place::InKey | Place::InValue | Place::InItem) {
            self.value = Value::default();
            self.buffer.clear();
            self.is_too_long = false;
        }
        Ok(next)
    }

    fn keep(&mut self, piece: &[u8]) {
        let limit = match (self.place, self.member) {
            (Place::InKey, _) => KEY_MAX,
            (Place::InItem, _) => self.limit,
            (_, Member::Metadata) => METADATA_MAX,
            (_, Member::Items | Member::Other) => 0,
        };
        self.is_too_long = self.is_too_long || piece.len() > limit.saturating_sub(self.buffer.len());
        if self.is_too_long {
            // Nothing is kept of what will not be used, not even its room.
            self.buffer = Vec::new();
        } else {
            self.buffer.extend_from_slice(piece);
        }
    }

    fn end_value<E: From<NoList>>(&mut self, each: &mut dyn FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        self.place = match self.place {
            Place::InKey => {
                self.member = match self.buffer.as_slice() {
                    b"\"items\"" => Member::Items,
                    b"\"metadata\"" => Member::Metadata,
                    _ => Member::Other,
                };
                Place::Colon
            }
            Place::InItem => {
                each(if self.is_too_long { Item::TooLong } else { Item::Json(&self.buffer) })?;
                Place::AfterItem
            }
            _ => {
                match self.member {
                    Member::Metadata if self.is_too_long => return Err(NoList("its metadata is too long".to_owned()).into()),
                    Member::Metadata => self.metadata = std::mem::take(&mut self.buffer),
                    Member::Items | Member::Other => {}
                }
                Place::AfterValue
            }
        };
        Ok(())
    }
}

/// True for a byte that a value may begin with.
fn is_start(byte: u8) -> bool {
    matches!(byte, b'{' | b'[' | b'"' | b'-' | b't' | b'f' | b'n' | b'0'..=b'9')
}

/// How far a value has come: brackets and strings, and nothing else of its grammar.
#[derive(Debug, Default)]
struct Value {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Value {
    /// How many of `bytes` still belong to the value, and whether it is over with them.
    fn advance(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < bytes.len() {
            if self.is_escaped {
                self.is_escaped = false;
                at += 1;
                continue;
            }
            if self.is_in_string {
                // Nearly all bytes of what is large.
                let Some(offset) = bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')) else { return (bytes.len(), false) };
                at += offset + 1;
                self.is_escaped = bytes[at - 1] == b'\\';
                self.is_in_string = self.is_escaped;
                if !self.is_in_string && self.depth == 0 {
                    return (at, true);
                }
                continue;
            }
            match bytes[at] {
                b'"' => self.is_in_string = true,
                b'{' | b'[' => self.depth += 1,
                // What ends a number or a word is not part of it.
                b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => return (at, true),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        (at, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 40;

    /// The items in order, and then version and token, or what is wrong.
    fn read(body: &str, size: usize) -> (Vec<String>, Result<String, String>) {
        let mut items = Items::new(LIMIT);
        let mut found = Vec::new();
        for piece in body.as_bytes().chunks(size) {
            let pushed = items.push::<NoList>(piece, &mut |item| {
                found.push(match item {
                    Item::Json(json) => String::from_utf8(json.to_vec()).expect("text"),
                    Item::TooLong => "too long".to_owned(),
                });
                Ok(())
            });
            if let Err(NoList(reason)) = pushed {
                return (found, Err(reason));
            }
        }
        let end = items.finish().map(|meta| format!("{} {}", meta.resource_version, meta.token.unwrap_or_default()));
        (found, end.map_err(|NoList(reason)| reason))
    }

    #[test]
    fn items_come_out_whole_however_the_bytes_are_split() {
        let item = r#"{"a": "}]\\\"{[,", "b": [1, {"c": []}]}"#;
        let bodies = [
            (
                format!(r#" {{"kind": "JobList", "metadata": {{"resourceVersion": "9", "continue": "t"}}, "items": [{item} , 7,"x" ]}} "#),
                "9 t",
            ),
            (format!(r#"{{"items":[{item},7,"x"],"x":{{"items":[1]}},"metadata":{{"resourceVersion":"9"}},"y":[null]}}"#), "9 "),
            (format!("{{\"items\":\n[{item}\n,7\n,\"x\"\n]\n,\"metadata\":{{\"resourceVersion\":\"8\"}}}}"), "8 "),
        ];
        for (body, meta) in &bodies {
            for size in 1..=body.len() {
                let (found, end) = read(body, size);
                assert_eq!(found, [item, "7", r#""x""#], "pieces of {size}");
                assert_eq!(end.as_deref(), Ok(*meta), "pieces of {size}");
            }
        }
    }

    #[test]
    fn lists_of_nothing() {
        for (body, meta) in [
            (r#"{"metadata": {"resourceVersion": "1"}, "items": null}"#, "1 "),
            (r#"{"items": null, "metadata": {"resourceVersion": "1"}}"#, "1 "),
            (r#"{"items": [ ], "metadata": {"resourceVersion": "1"}}"#, "1 "),
            // What others answer with success is not an empty list.
            ("{ }", "an error"),
            (r#"{"status": "ok"}"#, "an error"),
            (r#"{"items": [ ]}"#, "an error"),
            (r#"{"items": null, "metadata": {}}"#, "an error"),
            (r#"{"items": null, "metadata": null}"#, "an error"),
            (r#"{"items": [], "metadata": {"resourceVersion": ""}}"#, "an error"),
            (r#"{"metadata": {"resourceVersion": "1"}}"#, "an error"),
            (r#"{"x": {"items": []}, "metadata": {"resourceVersion": "1"}}"#, "an error"),
            (r#"{"metadata": null}"#, "an error"),
        ] {
            let (found, end) = read(body, 3);
            assert_eq!((found.len(), end.unwrap_or_else(|_| "an error".to_owned()).as_str()), (0, meta), "{body}");
        }
    }

    #[test]
    fn a_page_that_is_cut_anywhere_is_no_page() {
        let body = r#"{"metadata": {"resourceVersion": "9"}, "items": [{"a": 1}, 2]}"#;
        for length in 0..body.len() {
            assert!(read(&body[..length], 5).1.is_err(), "{}", &body[..length]);
        }
        assert!(read(body, 5).1.is_ok());
    }

    #[test]
    fn what_is_no_list_is_said_to_be_none() {
        let page = |items: &str| format!(r#"{{"metadata": {{"resourceVersion": "9"}}, {items}}}"#);
        assert_eq!(read(&page(r#""items": [1, 2]"#), 2).1.as_deref(), Ok("9 "));
        let bodies = ["<html>", "[", "[]"].map(str::to_owned).into_iter().chain(
            [
                r#""items": {}"#,
                r#""items": 7"#,
                r#""items": x"#,
                r#""items": "#,
                r#""items": [}"#,
                r#""items": [x]"#,
                r#""items": [1 2]"#,
                r#""items": [1,]"#,
                r#""items": [,1]"#,
                r#""items": [1}"#,
                r#""items": [1]]"#,
                r#""items" []"#,
                r#"items: []"#,
                r#""items": [],"#,
                r#""items": []} x"#,
                r#""items": []}{"#,
                r#""items": [], "other": "#,
                r#""items": [], "other": x"#,
            ]
            .map(page),
        );
        for body in bodies {
            assert_eq!(read(&body, 2).1, Err("not a Kubernetes list".to_owned()), "{body}");
        }
    }

    #[test]
    fn metadata_of_a_page_may_be_long_and_not_too_long() {
        for (length, is_taken) in [(65_536, true), (65_537, false)] {
            let around = r#"{"resourceVersion":"9","continue":""}"#.len();
            let token = "t".repeat(length - around);
            let body = format!(r#"{{"metadata": {{"resourceVersion":"9","continue":"{token}"}}, "items": []}}"#);
            let expected = if is_taken { Ok(format!("9 {token}")) } else { Err("its metadata is too long".to_owned()) };
            assert!(read(&body, 5_000).1 == expected, "{length}");
        }
    }

    #[test]
    fn an_item_over_the_limit_is_left_out_and_the_others_come() {
        let just = format!("\"{}\"", "x".repeat(LIMIT - 2));
        let long = format!("\"{}\"", "x".repeat(LIMIT - 1));
        let body = format!(r#"{{"items": [{just}, {long}, {{"a": {long}}}, 1], "metadata": {{"resourceVersion": "9"}}}}"#);
        for size in [1, 7, body.len()] {
            let (found, end) = read(&body, size);
            assert_eq!(found, [just.as_str(), "too long", "too long", "1"]);
            assert_eq!(end.as_deref(), Ok("9 "));
        }
    }

    #[test]
    fn nothing_is_kept_of_what_does_not_count() {
        let mut items = Items::new(LIMIT);
        let filler = "x".repeat(100_000);
        for piece in ["{\"", &filler, "\": {\"a\": \"", &filler, "\"}, \"items\": [\"", &filler, "\""] {
            items.push::<NoList>(piece.as_bytes(), &mut |_| Ok(())).expect("a list so far");
            assert!(items.buffer.capacity() <= 2 * KEY_MAX, "{}", items.buffer.capacity());
        }
    }
}
