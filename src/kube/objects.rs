//! What the server sends: objects and frames of a watch, decoded. Pure.
//!
//! An object that cannot be decoded is skipped and named; it does not break the rest. An object that is not ours is dropped at
//! once; in a watch it means that the object must be removed if it was ours before.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::{ObjectKey, Resource, ResourceVersion, Status};
use crate::text::{describe_decode, one_line};

/// An object that cannot be decoded.
#[derive(Debug, PartialEq)]
pub(crate) struct Skipped {
    /// Empty if not even that can be read.
    pub(crate) key: ObjectKey,
    /// Holds no value of the object.
    pub(crate) reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object={} reason={:?}", one_line(&self.key.to_string(), 300), self.reason)
    }
}

/// A frame of a watch.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame<T> {
    /// `ADDED` or `MODIFIED`.
    Applied(T, Option<ResourceVersion>),
    /// `DELETED`, or an object that is not ours, perhaps no longer.
    Deleted(ObjectKey, Option<ResourceVersion>),
    /// `BOOKMARK`.
    Bookmark(Option<ResourceVersion>),
    /// `ERROR`.
    Error(Box<Status>),
    /// An object that cannot be decoded.
    Skipped(Skipped, Option<ResourceVersion>),
    /// A type that we do not know.
    Unknown(String),
}

#[derive(Deserialize)]
struct RawFrame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

/// The little that every object has, read even if the rest makes no sense.
#[derive(Default, Deserialize)]
struct AnyObject {
    #[serde(default)]
    metadata: AnyMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyMeta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    resource_version: Option<ResourceVersion>,
}

/// An object of the kind that is watched. The machinery of a watch is compiled once for all kinds, and an object stays
/// where it was decoded.
pub(crate) type Object = Arc<dyn Any + Send + Sync>;
/// Decodes an object of one kind from its JSON; `None` if it is not ours.
pub(crate) type Decode<T> = Box<dyn Fn(&[u8]) -> serde_json::Result<Option<T>> + Send>;

/// What became of an object.
#[derive(Debug, PartialEq)]
pub(crate) enum Decoded<T> {
    Ours(T),
    NotOurs,
    Skipped(Skipped),
}

/// Decodes an item of a list. An error means that the list as a whole is none.
pub(crate) fn parse_item<T>(json: &[u8], resource: Resource, decode: &Decode<T>) -> serde_json::Result<Decoded<T>> {
    match decode(json) {
        Ok(Some(object)) => Ok(Decoded::Ours(object)),
        Ok(None) => Ok(Decoded::NotOurs),
        // Its brackets match, and yet it is not JSON: the rest of the page cannot be trusted.
        Err(error) if !error.is_data() => Err(error),
        Err(error) => Ok(Decoded::Skipped(skipped(json, resource, &error))),
    }
}

/// Decodes a frame. An error means that the line is not a frame.
pub(crate) fn parse_frame<T>(line: &[u8], resource: Resource, decode: &Decode<T>) -> Result<Frame<T>, String> {
    let describe = |error: serde_json::Error| one_line(&describe_decode(&error), 300);
    let RawFrame { kind, object } = crate::json::from_slice(line).map_err(describe)?;
    let Some(object) = object else { return Err(format!("{} without object", one_line(&kind, 40))) };
    let json = object.get().as_bytes();
    let version = || read_any(json).metadata.resource_version;
    Ok(match &*kind {
        "ADDED" | "MODIFIED" => match decode(json) {
            Ok(Some(item)) => Frame::Applied(item, version()),
            Ok(None) => Frame::Deleted(key_of(json), version()),
            Err(error) => Frame::Skipped(skipped(json, resource, &error), version()),
        },
        // Its last state does not matter, nor whether it can be decoded.
        "DELETED" => Frame::Deleted(key_of(json), version()),
        "BOOKMARK" => Frame::Bookmark(version()),
        "ERROR" => Frame::Error(crate::json::from_slice(json).map_err(describe)?),
        other => Frame::Unknown(one_line(other, 40)),
    })
}

fn skipped(json: &[u8], resource: Resource, error: &serde_json::Error) -> Skipped {
    let reason = if resource == Resource::SECRETS { "unexpected content".to_owned() } else { one_line(&describe_decode(error), 300) };
    Skipped { key: key_of(json), reason }
}

/// Empty if not even that can be read.
fn key_of(json: &[u8]) -> ObjectKey {
    let AnyMeta { name, namespace, resource_version: _ } = read_any(json).metadata;
    ObjectKey::new(namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn read_any(json: &[u8]) -> AnyObject {
    crate::json::from_slice(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Job;

    const JOBS: Resource = Resource::JOBS;

    fn job_decoder() -> Decode<Job> {
        Box::new(|json| serde_json::from_slice::<Job>(json).map(|job| (job.metadata.name != "foreign").then_some(job)))
    }

    #[test]
    fn an_item_is_ours_or_not_or_passed_over_and_what_is_no_json_spoils_the_list() {
        let parse = |json: &str| parse_item(json.as_bytes(), JOBS, &job_decoder()).map_err(|_| ());
        assert!(
            matches!(parse(r#"{"metadata": {"name": "a"}, "status": {"conditions": null}}"#), Ok(Decoded::Ours(job)) if job.metadata.name == "a")
        );
        assert_eq!(parse(r#"{"metadata": {"name": "foreign"}}"#), Ok(Decoded::NotOurs));
        for (json, told) in [
            (
                r#"{"metadata": {"name": "b", "namespace": "ns"}, "status": {"conditions": "canary"}}"#,
                "object=ns/b reason=\"invalid type: string (hidden), expected a sequence",
            ),
            (r#""canary""#, "object= reason="),
        ] {
            let Ok(Decoded::Skipped(skipped)) = parse(json) else { panic!("{json}") };
            assert!(skipped.to_string().starts_with(told) && !skipped.to_string().contains("canary"), "{skipped}");
        }
        for json in ["", "{", r#"{"a":}"#, r#"{"a" 1}"#] {
            assert_eq!(parse(json), Err(()), "{json}");
        }
    }

    #[test]
    fn frames() {
        let job = |name: &str| {
            let mut job = Job::default();
            job.metadata.name = name.to_owned();
            job.metadata.resource_version = "9".into();
            job
        };
        let version = Some(ResourceVersion::from("9"));
        let status = Status { code: 410, reason: "Expired".to_owned(), ..Status::default() };
        let cases = [
            (r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}"#, Frame::Applied(job("a"), version.clone())),
            (r#"{"object":{"metadata":{"name":"a","resourceVersion":"9"}},"type":"MODIFIED"}"#, Frame::Applied(job("a"), version.clone())),
            (
                r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}"#,
                Frame::Deleted(ObjectKey::new("", "a"), version.clone()),
            ),
            (
                r#"{"type":"DELETED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"9"},"status":7}}"#,
                Frame::Deleted(ObjectKey::new("n", "a"), version.clone()),
            ),
            (
                r#"{"type":"MODIFIED","object":{"metadata":{"name":"foreign","namespace":"n","resourceVersion":"9"}}}"#,
                Frame::Deleted(ObjectKey::new("n", "foreign"), version.clone()),
            ),
            (r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#, Frame::Bookmark(version.clone())),
            (r#"{"type":"ERROR","object":{"code":410,"reason":"Expired"}}"#, Frame::Error(Box::new(status))),
            (r#"{"type":"NEWS","object":{}}"#, Frame::Unknown("NEWS".to_owned())),
            (
                r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"9"},"status":7}}"#,
                Frame::Skipped(
                    Skipped {
                        key: ObjectKey::new("n", "a"),
                        reason: "invalid type: integer (hidden), expected struct JobStatus at line 1 column 73".to_owned(),
                    },
                    version,
                ),
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(parse_frame(line.as_bytes(), JOBS, &job_decoder()).expect(line), expected);
        }
        for line in ["x", "{}", r#"{"type":"ADDED"}"#, r#"{"type":"ERROR","object":7}"#] {
            assert!(parse_frame(line.as_bytes(), JOBS, &job_decoder()).is_err(), "{line}");
        }
    }
}
