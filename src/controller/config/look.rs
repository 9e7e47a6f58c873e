//! Looking at what a QuarksJob refers to: is it there, and what does its content say? Reads only what is not known already.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;

use crate::api::{ANNOTATION_WRITTEN_BY, ObjectKey, ObjectMeta, Resource, StringMap, null_as_default};
use crate::controller::events::Note;
use crate::controller::memory::Memory;
use crate::controller::reconcile::{Context, Failed, Flow, Reconciler};
use crate::controller::references::{Reference, ReferenceKind};
use crate::controller::versions::{bases_of, resolve_references};
use crate::digest::Digest;
use crate::index::QuarksJobView;
use crate::kube::{Answer, Error, Request};

use super::digest::ConfigKey;
use super::key;
use super::store::Seen;

/// Why it could not be looked.
#[derive(Debug)]
pub enum LookError {
    /// For now; trying again may help.
    Api(Error),
    /// Someone has to do something: what, in one sentence.
    NotReady(String),
}

impl From<Error> for LookError {
    fn from(error: Error) -> Self {
        Self::Api(error)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Looked {
    /// References that are not there and not optional, for messages.
    pub missing: Vec<String>,
    /// Digest of all content, if it was asked for and nothing is missing.
    pub config: Option<String>,
    /// Secrets that this QuarksJob itself writes, there or not.
    pub own: Vec<String>,
    /// Those of them that are missing.
    pub missing_own: Vec<String>,
}

/// A ConfigMap or a Secret; or its metadata alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "null_as_default")]
    data: StringMap,
    #[serde(default, deserialize_with = "null_as_default")]
    binary_data: StringMap,
}

impl Reconciler {
    /// Looks at `references`, whose versions are resolved. With `digest_for` (the template's) their content is read, too.
    pub(in crate::controller) fn look(
        &self,
        quarks_job: &ObjectKey,
        references: &[Reference],
        digest_for: Option<&Digest>,
    ) -> Result<Looked, LookError> {
        let key = digest_for.map(|template| Ok::<_, LookError>((self.config_key(&quarks_job.namespace)?, template))).transpose()?;
        let mut looked = Looked::default();
        let mut present = Vec::new();
        for reference in references {
            let seen = self.see(&quarks_job.namespace, reference, key.as_ref().map(|(key, _)| key))?;
            let is_own = reference.is_own || seen.as_ref().is_some_and(|seen| is_written_by(seen, reference, quarks_job));
            looked.own.extend(is_own.then(|| reference.name.clone()));
            match seen {
                None if reference.is_optional => {}
                None => {
                    looked.missing.push(reference.to_string());
                    looked.missing_own.extend(is_own.then(|| reference.name.clone()));
                }
                Some(_) if is_own => {}
                Some(seen) => present.extend(seen.content.map(|content| (reference, content))),
            }
        }
        if looked.missing.is_empty() {
            looked.config = key.map(|(key, template)| key.combine(template, present.into_iter()));
        }
        Ok(looked)
    }

    fn config_key(&self, namespace: &Arc<str>) -> Result<ConfigKey, LookError> {
        let now = Instant::now();
        if let Some(key) = self.config.key(namespace, now) {
            return Ok(key);
        }
        let (key, version) = key::obtain(&self.client, namespace)?;
        self.config.remember_key(namespace, &key, version, now);
        Ok(key)
    }

    fn see(&self, namespace: &Arc<str>, reference: &Reference, key: Option<&ConfigKey>) -> Result<Option<Seen>, Error> {
        let Reference { kind, name, .. } = reference;
        let epoch = match self.config.known(namespace, *kind, name, key) {
            Ok(seen) => return Ok(seen),
            Err(epoch) => epoch,
        };
        let resource = match kind {
            ReferenceKind::ConfigMap => Resource::CONFIG_MAPS,
            ReferenceKind::Secret => Resource::SECRETS,
        };
        let request = Request::get(resource, &ObjectKey::new(Arc::clone(namespace), name.as_str()));
        let request = if key.is_some() { request } else { request.metadata_only() };
        let seen = match self.client.call::<Content>(&request) {
            Ok(Content { mut metadata, data, binary_data }) => Some(Seen {
                written_by: metadata.annotations.remove(ANNOTATION_WRITTEN_BY),
                version: metadata.resource_version,
                content: key.map(|key| key.content(&data, &binary_data)),
            }),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        self.config.remember(namespace, *kind, name, seen.clone(), epoch, key);
        Ok(seen)
    }

    /// Something may have changed: looks, and remembers what was found.
    pub(in crate::controller) fn look_again(&self, context: &Context<'_>, memory: &mut Memory) -> Result<Flow, Failed> {
        let view = context.view;
        let due = self.config.due(context.key);
        match self.look_at_view(view) {
            Ok(looked) => {
                self.config.looked(context.key, due);
                memory.config.clone_from(&looked.config);
                memory.learn_missing(view.generation, &looked);
                Ok(Flow::Continue)
            }
            Err(error) => self.cannot_look(context, memory, error),
        }
    }

    fn look_at_view(&self, view: &QuarksJobView) -> Result<Looked, LookError> {
        let mut references = view.references.to_vec();
        let bases = bases_of(&references);
        if !bases.is_empty() {
            let versions = self.versions(&view.key.namespace, &|_, version| bases.contains(&version.base))?;
            references = resolve_references(references, &versions);
        }
        self.look(&view.key, &references, Some(&view.template_digest).filter(|_| view.acts_on_config()))
    }

    /// Says what stands in the way, if someone has to do something about it.
    pub(in crate::controller) fn cannot_look(&self, context: &Context<'_>, memory: &mut Memory, error: LookError) -> Result<Flow, Failed> {
        let (reason, message) = match error {
            LookError::NotReady(message) => ("NamespaceNotReady", message),
            LookError::Api(error) if error.answer() == Answer::Refused => {
                ("JobRefused", format!("the key of config digests cannot be made: {}", error.message()))
            }
            LookError::Api(error) => return Err(Failed::Api(error)),
        };
        // The status to write it into has to be known; the second time it is.
        if memory.known().is_none() {
            return Err(Failed::Stale);
        }
        self.refuse(context, memory, reason, &message, None)
    }

    /// A QuarksJob's own output does not make it run again; who refers to it may not expect that.
    pub(in crate::controller) fn warn_about_own(&self, context: &Context<'_>, own: &[String]) {
        if !own.is_empty() {
            let text = format!("the template refers to Secrets that this QuarksJob writes ({}); they never make it run", own.join(", "));
            self.tell(context, Note::warning("SelfReference", "LookAtReferences", text));
        }
    }
}

fn is_written_by(seen: &Seen, reference: &Reference, quarks_job: &ObjectKey) -> bool {
    reference.kind == ReferenceKind::Secret && seen.written_by.as_deref() == Some(&*quarks_job.name)
}
