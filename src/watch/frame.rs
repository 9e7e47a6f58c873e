//! What the server sends: pages of a list and frames of a watch, decoded object by object. Pure.
//!
//! One object that cannot be decoded is passed over and named, it does not break the rest.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::{ObjectKey, Resource, ResourceVersion, Status};
use crate::kube::error::{describe_decode, one_line};

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

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) version: ResourceVersion,
    pub(crate) token: Option<String>,
    pub(crate) items: Vec<T>,
    pub(crate) skipped: Vec<Skipped>,
}

/// A frame of a watch.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame<T> {
    /// `ADDED` or `MODIFIED`.
    Applied(T, Option<ResourceVersion>),
    /// `DELETED`.
    Deleted(T, Option<ResourceVersion>),
    /// `BOOKMARK`.
    Bookmark(Option<ResourceVersion>),
    /// `ERROR`.
    Error(Box<Status>),
    /// An object that cannot be decoded.
    Skipped(Skipped, Option<ResourceVersion>),
    /// A type that we do not know.
    Unknown(String),
}

/// A page of a list, its objects not yet decoded.
#[derive(Deserialize)]
pub(crate) struct RawPage<'a> {
    #[serde(default)]
    pub(crate) metadata: PageMeta,
    #[serde(borrow, default)]
    pub(crate) items: Option<Vec<&'a RawValue>>,
}

/// `metadata` of a list.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMeta {
    #[serde(default)]
    resource_version: ResourceVersion,
    #[serde(default, rename = "continue")]
    pub(crate) token: Option<String>,
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
/// Decodes an object of one kind from its JSON.
pub(crate) type Decode<T> = fn(&[u8]) -> serde_json::Result<T>;

/// The [`Decode`] of a kind whose objects are shared.
pub(crate) fn decode_shared<T: DeserializeOwned + Send + Sync + 'static>(json: &[u8]) -> serde_json::Result<Object> {
    crate::json::from_slice::<T>(json).map(|object| Arc::new(object) as Object)
}

/// Decodes a page. An error means that the page as a whole is no list.
pub(crate) fn parse_page<T>(body: &[u8], resource: Resource, decode: Decode<T>) -> Result<Page<T>, String> {
    let RawPage { metadata, items } = crate::json::from_slice(body).map_err(|error| one_line(&describe_decode(&error), 300))?;
    let mut page = Page { version: metadata.resource_version, token: metadata.token, items: Vec::new(), skipped: Vec::new() };
    for raw in items.unwrap_or_default() {
        match parse_object(raw, resource, decode) {
            Ok(item) => page.items.push(item),
            Err(skipped) => page.skipped.push(skipped),
        }
    }
    Ok(page)
}

/// Decodes a frame. An error means that the line is no frame.
pub(crate) fn parse_frame<T>(line: &[u8], resource: Resource, decode: Decode<T>) -> Result<Frame<T>, String> {
    let describe = |error: serde_json::Error| one_line(&describe_decode(&error), 300);
    let RawFrame { kind, object } = crate::json::from_slice(line).map_err(describe)?;
    let Some(object) = object else { return Err(format!("{} without object", one_line(&kind, 40))) };
    let version = || read_any(object).metadata.resource_version;
    Ok(match &*kind {
        "ADDED" | "MODIFIED" => match parse_object(object, resource, decode) {
            Ok(item) => Frame::Applied(item, version()),
            Err(skipped) => Frame::Skipped(skipped, version()),
        },
        "DELETED" => match parse_object(object, resource, decode) {
            Ok(item) => Frame::Deleted(item, version()),
            Err(skipped) => Frame::Skipped(skipped, version()),
        },
        "BOOKMARK" => Frame::Bookmark(version()),
        "ERROR" => Frame::Error(crate::json::from_slice(object.get().as_bytes()).map_err(describe)?),
        other => Frame::Unknown(one_line(other, 40)),
    })
}

fn parse_object<T>(raw: &RawValue, resource: Resource, decode: Decode<T>) -> Result<T, Skipped> {
    decode(raw.get().as_bytes()).map_err(|error| {
        let AnyMeta { name, namespace, resource_version: _ } = read_any(raw).metadata;
        let reason = if resource == Resource::SECRETS { "not as expected".to_owned() } else { one_line(&describe_decode(&error), 300) };
        Skipped { key: ObjectKey::new(namespace.unwrap_or_default(), name.unwrap_or_default()), reason }
    })
}

fn read_any(raw: &RawValue) -> AnyObject {
    crate::json::from_slice(raw.get().as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Job;

    const JOBS: Resource = Resource::JOBS;

    #[test]
    fn a_page_passes_over_objects_that_cannot_be_decoded() {
        let body = br#"{"kind": "JobList", "metadata": {"resourceVersion": "9", "continue": "t", "remainingItemCount": 3}, "items": [
            {"metadata": {"name": "a"}},
            {"metadata": {"name": "b", "namespace": "ns"}, "status": {"conditions": "canary"}},
            "canary",
            {"metadata": {"name": "c"}, "status": {"conditions": null}}]}"#;
        let page = parse_page(body, JOBS, |json| serde_json::from_slice::<Job>(json)).expect("a page");
        assert_eq!((page.version.as_str(), page.token.as_deref()), ("9", Some("t")));
        assert_eq!(page.items.iter().map(|job| job.metadata.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        let told: Vec<_> = page.skipped.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with("object=ns/b reason=\"invalid type: string (hidden), expected a sequence"), "{told:?}");
        assert!(told.len() == 2 && told[1].starts_with("object= reason="), "{told:?}");
        assert!(!told.concat().contains("canary"));
    }

    #[test]
    fn pages_of_nothing() {
        for (body, version) in [(r#"{"metadata": {"resourceVersion": "1"}, "items": null}"#, "1"), (r#"{"items": []}"#, ""), ("{}", "")] {
            let page = parse_page(body.as_bytes(), JOBS, |json| serde_json::from_slice::<Job>(json)).expect(body);
            assert_eq!((page.version.as_str(), page.token, page.items.len()), (version, None, 0));
        }
        for body in ["", "[", "<html>", r#"{"items": {}}"#, r#"{"items": [{}"#] {
            assert!(parse_page(body.as_bytes(), JOBS, |json| serde_json::from_slice::<Job>(json)).is_err(), "{body}");
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
            (r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}"#, Frame::Deleted(job("a"), version.clone())),
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
            assert_eq!(parse_frame(line.as_bytes(), JOBS, |json| serde_json::from_slice::<Job>(json)).expect(line), expected);
        }
        for line in ["x", "{}", r#"{"type":"ADDED"}"#, r#"{"type":"ERROR","object":7}"#] {
            assert!(parse_frame(line.as_bytes(), JOBS, |json| serde_json::from_slice::<Job>(json)).is_err(), "{line}");
        }
    }
}
