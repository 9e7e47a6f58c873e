//! From documents to Secrets (pure). Not for existing Secrets: see `existing`; nor for versions: see `versions`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::api::{
    ANNOTATION_WRITTEN_BY, LABEL_CONTAINER_NAME, LABEL_REMOTE_ID, LABEL_SECRET_KIND, LABEL_SECRET_VERSION, LONGEST_VERSION, StringMap,
};
use crate::contract::plan::{ContainerPlan, Plan, SecretPlan, merged};

use super::bodies::{LiveSecret, NewMeta, NewSecret};
use super::data::Data;
use super::rules;

/// The Secret that a document has to become. `Debug` does not print the data.
#[derive(Clone, PartialEq, Eq)]
pub struct Desired {
    /// Full name; versioned, `-v<N>` follows.
    pub name: String,
    /// Whether each content gets a Secret of its own.
    pub versioned: bool,
    /// Shared by all that come from one file: there may be a thousand.
    pub marks: Arc<Marks>,
    /// Keys and values.
    pub data: Data,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// All labels but those of a version.
    pub labels: StringMap,
    /// All annotations.
    pub annotations: StringMap,
}

impl Marks {
    /// The user's, and ours over them; checks the rules for both.
    pub fn build(source: &Source<'_>) -> Result<Arc<Self>, String> {
        let Source { plan, container, container_plan, secret_plan } = *source;
        let mut labels = merged(&plan.labels, &secret_plan.labels);
        for ours in [LABEL_REMOTE_ID, LABEL_SECRET_KIND, LABEL_SECRET_VERSION] {
            labels.remove(ours);
        }
        labels.insert(LABEL_CONTAINER_NAME.to_owned(), container.to_owned());
        if let Some(remote_id) = &container_plan.remote_id {
            labels.insert(LABEL_REMOTE_ID.to_owned(), remote_id.clone());
        }
        let mut annotations = merged(&plan.annotations, &secret_plan.annotations);
        annotations.insert(ANNOTATION_WRITTEN_BY.to_owned(), plan.quarks_job.clone());
        rules::check_labels(&labels)?;
        rules::check_annotations(&annotations)?;
        Ok(Arc::new(Self { labels, annotations }))
    }
}

impl fmt::Debug for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desired").field("name", &self.name).field("keys", &self.data.len()).finish_non_exhaustive()
    }
}

impl Desired {
    /// Builds it and checks the rule for its name, whatever its version.
    pub fn build(source: &Source<'_>, marks: &Arc<Marks>, name: String, data: Data) -> Result<Self, String> {
        let version = if source.secret_plan.versioned { LONGEST_VERSION } else { "" };
        rules::check_name(&format!("{name}{version}"))?;
        Ok(Self { name, versioned: source.secret_plan.versioned, marks: Arc::clone(marks), data })
    }

    /// The body of a create, one-to-one.
    pub fn to_new(&self) -> NewSecret<'_> {
        let (labels, annotations) = (Cow::Borrowed(&self.marks.labels), Cow::Borrowed(&self.marks.annotations));
        self.new_secret(NewMeta { name: Cow::Borrowed(&self.name), labels, annotations, owner_references: Vec::new() }, None)
    }

    /// The body of a create with the given metadata.
    pub fn new_secret<'a>(&'a self, metadata: NewMeta<'a>, immutable: Option<bool>) -> NewSecret<'a> {
        NewSecret { api_version: "v1", kind: "Secret", metadata, secret_type: "Opaque", immutable, data: &self.data }
    }

    /// True if the Secret holds this content, whatever else others put on it.
    pub fn is_held_by(&self, live: &LiveSecret) -> bool {
        let Marks { labels, annotations } = &*self.marks;
        live.data == self.data && is_within(labels, &live.metadata.labels) && is_within(annotations, &live.metadata.annotations)
    }
}

/// Where in the plan a document comes from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'p> {
    /// The whole plan.
    pub plan: &'p Plan,
    /// Name of the container.
    pub container: &'p str,
    /// The container's part of the plan.
    pub container_plan: &'p ContainerPlan,
    /// The file's part of the plan.
    pub secret_plan: &'p SecretPlan,
}

/// True if every entry is in the other map.
pub fn is_within(part: &StringMap, whole: &StringMap) -> bool {
    part.iter().all(|(key, value)| whole.get(key) == Some(value))
}

#[cfg(test)]
#[path = "desired_tests.rs"]
pub(super) mod tests;
