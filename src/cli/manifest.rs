//! Manifests given with `-f`: read, split into objects.

use std::path::Path;

use serde_json::Value;

use crate::api::KIND;
use crate::yaml;

use super::flag::{Flag, Given};
use super::output::CliError;

/// `--filename`.
pub(super) const FILENAME: Flag = Flag::new("filename", "FILE", "", "", "YAML or JSON file; - for standard input").short('f');

/// An object of a file.
pub(super) struct Object {
    /// File and line of the document, for messages.
    pub place: String,
    /// The object.
    pub value: Value,
    /// Its document as it is in the file; empty if the document is a list.
    pub document: String,
    /// Whether the document has comments.
    pub has_comments: bool,
}

impl Object {
    /// Text at a JSON pointer; empty if there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Kind and name, for messages.
    pub fn title(&self) -> String {
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        format!("{} {}", or(self.text("/kind"), "an object without a kind"), or(self.text("/metadata/name"), "without a name"))
    }

    /// An error about it.
    pub fn error(&self, message: impl std::fmt::Display) -> CliError {
        CliError::Failed(crate::text::one_line(&format!("{}: {}: {message}", self.place, self.title()), 1_000))
    }
}

/// The objects of the file of flag `--filename`; `-` is standard input. Lists of any kinds and of ours are taken apart.
pub(super) fn objects(given: &Given) -> Result<Vec<Object>, CliError> {
    let Some(file) = given.value("filename") else { return Err(CliError::Usage("-f FILE is required".to_owned())) };
    let (file, text) = match file.as_str() {
        "-" => ("standard input", yaml::read_text(std::io::stdin().lock())),
        path => (path, yaml::read_file(Path::new(path))),
    };
    let text = text.map_err(|error| CliError::Failed(format!("{file}: {error}")))?;
    let mut objects = Vec::new();
    for (line, document) in yaml::documents(&text) {
        let mut value = yaml::parse(line, document).map_err(|reason| CliError::Failed(format!("{file}: {reason}")))?;
        octal_modes(&mut value);
        let place = format!("{file}: line {line}");
        let has_comments = document.lines().any(|line| line.trim_start().starts_with('#'));
        match list_items(&mut value) {
            Some(items) => objects.extend(items.into_iter().map(|value| {
                let (place, document) = (place.clone(), String::new());
                Object { place, value, document, has_comments }
            })),
            _ if value.is_null() => {}
            _ if !value.is_object() => return Err(CliError::Failed(format!("{place}: not a Kubernetes object"))),
            _ => objects.push(Object { place, value, document: document.to_owned(), has_comments }),
        }
    }
    Ok(objects)
}

/// The items, if it is such a list. In a list of one kind they need not say theirs.
fn list_items(value: &mut Value) -> Option<Vec<Value>> {
    let kind = value.get("kind")?.as_str()?.strip_suffix("List").filter(|kind| matches!(*kind, "" | "ExtendedJob" | KIND))?.to_owned();
    let version = value.get("apiVersion").cloned();
    let Value::Array(mut items) = value.get_mut("items")?.take() else { return None };
    for item in items.iter_mut().filter_map(Value::as_object_mut).filter(|_| !kind.is_empty()) {
        item.entry("kind").or_insert_with(|| kind.as_str().into());
        item.entry("apiVersion").or_insert_with(|| version.clone().unwrap_or_default());
    }
    Some(items)
}

/// Numbers with a leading zero are octal for kubectl, and text in newer YAML: people write file modes so.
fn octal_modes(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let has_path = fields.contains_key("path");
            for (key, value) in fields {
                let octal = value.as_str().filter(|text| text.len() > 1 && text.starts_with('0') && text.len() < 8);
                match octal.and_then(|text| u32::from_str_radix(text, 8).ok()) {
                    Some(mode) if key == "defaultMode" || (key == "mode" && has_path) => *value = mode.into(),
                    _ => octal_modes(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(octal_modes),
        _ => {}
    }
}
