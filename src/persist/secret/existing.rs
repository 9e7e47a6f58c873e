//! Whether a Secret that already exists may be changed (pure).
//!
//! Promises: a Secret that this QuarksJob does not own is never changed; labels, annotations and other metadata that others put on
//! an owned one are kept. Not for versions: see `versions`.

use crate::api::{ANNOTATION_WRITTEN_BY, LABEL_CONTAINER_NAME, LABEL_SECRET_KIND};

use super::bodies::{LiveMeta, LiveSecret};
use super::data::Data;
use super::desired::{Desired, Marks};

/// What to do when a Secret of the wanted name is already there.
#[derive(Debug, PartialEq)]
pub enum Existing {
    /// It is already as desired.
    Same,
    /// It is ours: send this back with the wanted data.
    Update(Box<LiveSecret>),
    /// It must not be changed; the text says why.
    Conflict(String),
    /// It is ours and being deleted: wait.
    BeingDeleted,
}

/// Decides about a Secret that is already there.
pub fn decide_existing(live: LiveSecret, desired: &Desired, quarks_job: &str, container: &str) -> Existing {
    let LiveMeta { labels, annotations, .. } = &live.metadata;
    if labels.contains_key(LABEL_SECRET_KIND) {
        return Existing::Conflict(format!("Secret {} is a version of another output; use another output name", desired.name));
    }
    if let Some(text) = foreign_writer(&live.metadata, quarks_job) {
        return Existing::Conflict(text);
    }
    if !annotations.contains_key(ANNOTATION_WRITTEN_BY) && labels.get(LABEL_CONTAINER_NAME).map(String::as_str) != Some(container) {
        return Existing::Conflict(format!(
            "Secret {} exists and was not written by this QuarksJob; use another output name",
            desired.name
        ));
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Existing::BeingDeleted;
    }
    if desired.is_held_by(&live) {
        return Existing::Same;
    }
    if live.immutable == Some(true) && live.data != desired.data {
        return Existing::Conflict(format!("Secret {} is immutable and has different content; delete it", desired.name));
    }
    let mut update = Box::new(live);
    // No longer needed, and it may be large.
    update.data = Data::default();
    let Marks { labels, annotations } = (*desired.marks).clone();
    update.metadata.labels.extend(labels);
    update.metadata.annotations.extend(annotations);
    Existing::Update(update)
}

/// The message if another QuarksJob wrote it. Without the annotation it is the original's, or has no writer.
pub fn foreign_writer(live: &LiveMeta, quarks_job: &str) -> Option<String> {
    let writer = live.annotations.get(ANNOTATION_WRITTEN_BY).filter(|writer| *writer != quarks_job)?;
    Some(format!("Secret {} was written by QuarksJob {writer:?}; use another output name", live.name))
}

#[cfg(test)]
#[path = "existing_tests.rs"]
mod tests;
