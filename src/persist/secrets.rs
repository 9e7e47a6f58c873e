//! From documents to Secrets, and whether a Secret that is already there may be changed (pure).
//!
//! Promises: a Secret that is not this QuarksJob's is never changed; labels, annotations and other metadata that others put on
//! one of ours stay. Not for versions: see `versions`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::{
    ANNOTATION_WRITTEN_BY, LABEL_CONTAINER_NAME, LABEL_REMOTE_ID, LABEL_SECRET_KIND, LABEL_SECRET_VERSION, LONGEST_VERSION, OwnerReference,
    ResourceVersion, StringMap, Uid, is_reserved_secret, null_as_default, split_version,
};
use crate::contract::plan::{ContainerPlan, Plan, SecretPlan, merged};
use crate::contract::version::version_name;

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

/// Name of the Secret of a file, or what comes before `-<key>` with fan-out.
pub fn base_name(secret_plan: &SecretPlan, index: Option<u32>) -> String {
    match index {
        Some(index) => format!("{}-{index}", secret_plan.name),
        None => secret_plan.name.clone(),
    }
}

/// Whether an output may have this name at all: the operator's own Secrets are not for outputs, and a key of a fan-out must not lead to
/// what a pod of another index stores for another entry of the plan. Each pod knows its own keys only, so that entry has the name whether
/// the other pod uses it or not. Of two entries whose names could meet, the longer one always keeps its own;
/// a version of one may meet a Secret of another that is none.
pub fn check_free(source: &Source<'_>, index: Option<u32>, name: &str) -> Result<(), String> {
    let Source { plan, secret_plan, .. } = *source;
    if is_reserved_secret(name) {
        return Err(format!("Secret {name} is the operator's own"));
    }
    let Some(index) = index else { return Ok(()) };
    // Which version it is makes no difference.
    let name = if secret_plan.versioned { &version_name(name, 1) } else { name };
    let could_meet = |other: &&SecretPlan| other.name.len() > secret_plan.name.len();
    let owner = plan.outputs().filter(could_meet).find_map(|other| {
        let base = if other.versioned { split_version(name)?.0 } else { name };
        let rest = base.strip_prefix(&*other.name)?.strip_prefix('-')?;
        let digits = if other.fan_out { rest.split_once('-')?.0 } else { rest };
        let theirs: u32 = digits.parse().ok()?;
        (theirs != index && theirs.to_string() == digits).then_some((&other.name, theirs))
    });
    match owner {
        Some((other, theirs)) => Err(format!("Secret {name} belongs to the output {other:?} of the pod with index {theirs}")),
        None => Ok(()),
    }
}

/// The body of a create.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct NewSecret<'a> {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: NewMeta<'a>,
    #[serde(rename = "type")]
    pub secret_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    pub data: &'a Data,
}

/// Metadata of a [`NewSecret`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct NewMeta<'a> {
    pub name: Cow<'a, str>,
    pub labels: Cow<'a, StringMap>,
    pub annotations: Cow<'a, StringMap>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// A Secret as the API server has it, with everything in its metadata, so that an update loses nothing.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveSecret {
    /// Its metadata.
    pub metadata: LiveMeta,
    /// Keys and values.
    #[serde(default, deserialize_with = "null_as_default")]
    pub data: Data,
    /// Never changes.
    #[serde(default, rename = "type")]
    pub secret_type: String,
    /// True if its data can never change.
    #[serde(default)]
    pub immutable: Option<bool>,
}

/// The body of an update: a [`LiveSecret`] with other data.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ChangedSecret<'a> {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: &'a LiveMeta,
    #[serde(rename = "type")]
    pub secret_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    pub data: &'a Data,
}

impl LiveSecret {
    /// This Secret with other data.
    pub fn with_data<'a>(&'a self, data: &'a Data) -> ChangedSecret<'a> {
        let Self { metadata, data: _, secret_type, immutable } = self;
        ChangedSecret { api_version: "v1", kind: "Secret", metadata, secret_type, immutable: *immutable, data }
    }
}

/// Metadata of a [`LiveSecret`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveMeta {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "Uid::is_empty")]
    pub uid: Uid,
    /// Sent back with an update, which fails if someone was faster.
    #[serde(default)]
    pub resource_version: ResourceVersion,
    /// Set while it is being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Labels, of whomever.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: StringMap,
    /// Annotations, of whomever.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: StringMap,
    /// The server's own notes; it keeps them if they are not sent.
    #[serde(default, skip_serializing)]
    managed_fields: IgnoredAny,
    /// Everything else.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl fmt::Debug for LiveSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSecret").field("metadata", &self.metadata).field("keys", &self.data.len()).finish_non_exhaustive()
    }
}

/// What to do when a Secret of the wanted name is already there.
#[derive(Debug, PartialEq)]
pub enum Existing {
    /// It already is what it has to be.
    Same,
    /// It is ours: send this back with the wanted data.
    Update(Box<LiveSecret>),
    /// It must stay as it is; the text says why.
    Conflict(String),
    /// It is ours and being deleted: wait.
    BeingDeleted,
}

/// Decides about a Secret that is already there.
pub fn decide_existing(live: LiveSecret, desired: &Desired, quarks_job: &str, container: &str) -> Existing {
    let LiveMeta { labels, annotations, .. } = &live.metadata;
    if labels.contains_key(LABEL_SECRET_KIND) {
        return Existing::Conflict(format!("Secret {} is a version of another output", desired.name));
    }
    if let Some(text) = foreign_writer(&live.metadata, quarks_job) {
        return Existing::Conflict(text);
    }
    if !annotations.contains_key(ANNOTATION_WRITTEN_BY) && labels.get(LABEL_CONTAINER_NAME).map(String::as_str) != Some(container) {
        return Existing::Conflict(format!("Secret {} exists and was not written by this QuarksJob", desired.name));
    }
    if live.metadata.deletion_timestamp.is_some() {
        return Existing::BeingDeleted;
    }
    if desired.is_held_by(&live) {
        return Existing::Same;
    }
    if live.immutable == Some(true) && live.data != desired.data {
        return Existing::Conflict(format!("Secret {} is immutable and has other content", desired.name));
    }
    let mut update = Box::new(live);
    // Not needed any more, and it may be large.
    update.data = Data::default();
    let Marks { labels, annotations } = (*desired.marks).clone();
    update.metadata.labels.extend(labels);
    update.metadata.annotations.extend(annotations);
    Existing::Update(update)
}

/// Says so if another QuarksJob wrote it. Without the annotation it is the original's, or nobody's.
pub fn foreign_writer(live: &LiveMeta, quarks_job: &str) -> Option<String> {
    let writer = live.annotations.get(ANNOTATION_WRITTEN_BY).filter(|writer| *writer != quarks_job)?;
    Some(format!("Secret {} belongs to the QuarksJob {writer:?}", live.name))
}

/// True if every entry is in the other map.
pub fn is_within(part: &StringMap, whole: &StringMap) -> bool {
    part.iter().all(|(key, value)| whole.get(key) == Some(value))
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
