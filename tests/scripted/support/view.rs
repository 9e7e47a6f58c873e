//! What a reader sees of the store: selectors, metadata-only form, list and watch frames.
//! Field selectors know `metadata.*` everywhere and a few fields of pods and Jobs, as the real server does.

use serde_json::{Value, json};

use super::api::{Answer, Target, bad_request, text};
use super::http::Request;
use super::store::Change;

enum Test {
    Equal(bool),
    Exists(bool),
    In(bool),
}

pub(super) struct View {
    pub target: Target,
    partial: bool,
    labels: Vec<(String, Test, Vec<String>)>,
    fields: Vec<(String, bool, String)>,
}

impl View {
    pub fn new(target: &Target, request: &Request) -> Answer<View> {
        let mut fields = Vec::new();
        for part in request.parameter("fieldSelector").split(',') {
            if part.is_empty() {
                continue;
            }
            let (path, equal, value) = comparison(part);
            let known = matches!(
                (target.plural(), path),
                (_, "metadata.name" | "metadata.namespace") | ("pods", "status.phase" | "spec.nodeName") | ("secrets", "type")
            );
            let Some(equal) = equal.filter(|_| known) else {
                return Err(bad_request(&format!("field label not supported: {path}")));
            };
            fields.push((format!("/{}", path.replace('.', "/")), equal, value));
        }
        Ok(View {
            target: target.clone(),
            partial: request.header("accept").contains("PartialObjectMetadata"),
            labels: label_terms(request.parameter("labelSelector")),
            fields,
        })
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let by_label = |(key, test, values): &(String, Test, Vec<String>)| {
            let found = labels.get(key).and_then(Value::as_str);
            let listed = found.is_some_and(|value| values.iter().any(|v| v == value));
            match test {
                Test::Equal(wanted) | Test::In(wanted) => listed == *wanted,
                Test::Exists(wanted) => found.is_some() == *wanted,
            }
        };
        self.labels.iter().all(by_label) && self.fields.iter().all(|(pointer, equal, value)| (text(object, pointer) == value) == *equal)
    }

    /// The object, or its metadata when the request accepts only that.
    pub fn show(&self, object: &Value) -> Value {
        if !self.partial {
            return object.clone();
        }
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"]})
    }

    pub fn list(&self, items: Vec<Value>, metadata: &Value) -> Value {
        let (kind, version) = if self.partial {
            let kind = "PartialObjectMetadata".to_owned();
            (kind, "meta.k8s.io/v1".to_owned())
        } else {
            (self.target.kind(), self.target.api_version())
        };
        json!({"kind": kind + "List", "apiVersion": version, "metadata": metadata, "items": items})
    }

    /// Items of built-in kinds come without `kind` and `apiVersion`, as from the real server.
    pub fn item(&self, object: &Value) -> Value {
        let mut item = self.show(object);
        let custom = self.target.group().starts_with("quarks.");
        if let (false, false, Some(map)) = (self.partial, custom, item.as_object_mut()) {
            map.remove("kind");
            map.remove("apiVersion");
        }
        item
    }

    /// What a watcher with this view is told of a change: leaving the selection is a deletion.
    pub fn frame(&self, change: &Change) -> Option<Vec<u8>> {
        let (key, wanted) = (&change.key, &self.target.key);
        if key.resource != wanted.resource || (!wanted.namespace.is_empty() && key.namespace != wanted.namespace) {
            return None;
        }
        let before = change.old.as_ref().is_some_and(|old| self.matches(old));
        let after = !change.deleted && self.matches(&change.new);
        let kind = match (before, after) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(line(kind, &self.show(&change.new)))
    }

    pub fn bookmark(&self, version: u64, initial_end: bool) -> Vec<u8> {
        let mut object = json!({"kind": self.target.kind(), "apiVersion": self.target.api_version(),
            "metadata": {"resourceVersion": version.to_string()}});
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        line("BOOKMARK", &self.show(&object))
    }
}

/// One watch frame with its newline.
pub fn line(kind: &str, object: &Value) -> Vec<u8> {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into_bytes()
}

/// Left side, whether equality or inequality is asked (`None`: neither), right side.
fn comparison(part: &str) -> (&str, Option<bool>, String) {
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((left, right)) = part.split_once(sign) {
            return (left.trim(), Some(equal), right.trim().to_owned());
        }
    }
    (part.trim(), None, String::new())
}

fn label_terms(selector: &str) -> Vec<(String, Test, Vec<String>)> {
    let mut terms = Vec::new();
    let mut depth = 0;
    let parts = selector.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        if let Some((left, values)) = part.trim_end_matches(')').split_once('(') {
            let mut words = left.split_whitespace();
            let key = words.next().unwrap_or("").to_owned();
            let values = values.split(',').map(|value| value.trim().to_owned());
            let test = Test::In(words.next() == Some("in"));
            terms.push((key, test, values.collect()));
            continue;
        }
        let (key, equal, value) = comparison(part);
        terms.push(match equal {
            Some(equal) => (key.to_owned(), Test::Equal(equal), vec![value]),
            None => {
                let bare = key.trim_start_matches('!');
                (bare.to_owned(), Test::Exists(bare == key), Vec::new())
            }
        });
    }
    terms
}
