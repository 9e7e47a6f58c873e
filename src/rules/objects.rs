//! Editing JSON objects. A value of an unexpected type is replaced: the spec was validated before. Pure.

use serde_json::{Map, Value, json};

/// The value as an object; anything else is replaced by an empty one (the spec was checked before: it is an object or absent).
pub fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made an object just above")
}

/// The object in a field, created if missing.
pub fn object_at<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    as_object(parent.entry(key).or_insert_with(|| json!({})))
}

/// The list in a field, created if missing.
pub fn list_at<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = parent.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("made a list just above")
}
