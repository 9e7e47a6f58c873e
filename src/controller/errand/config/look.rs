//! Checks what a QuarksJob references: whether it exists, and the digest of its content. Reads only what is not known already.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;

use crate::api::{ANNOTATION_WRITTEN_BY, ObjectKey, ObjectMeta, Resource, StringMap, null_as_default};
use crate::contract::reason::Reason;
use crate::controller::errand::ErrandController;
use crate::controller::shared::decision::{Failed, Flow};
use crate::controller::shared::memory::{Missing, Waiting};
use crate::controller::shared::note::Note;
use crate::controller::shared::turn::Turn;
use crate::digest::Digest;
use crate::kube::{Answer, Error, Request};
use crate::rules::references::{Reference, ReferenceKind};
use crate::rules::versions::{bases_of, resolve_references};
use crate::views::QuarksJobView;

use super::digest::ConfigKey;
use super::error::LookError;
use super::key;
use super::store::Seen;

/// What was found.
#[derive(Debug, Default)]
pub struct Looked {
    /// References that are missing and not optional, for messages.
    pub missing: Vec<String>,
    /// Digest of all content, if it was requested and nothing is missing.
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

impl Waiting {
    /// Remembers the content digest of this generation's references, and which were missing.
    pub fn learn(&mut self, generation: i64, looked: &Looked) {
        self.config.clone_from(&looked.config);
        self.learn_missing(generation, looked);
    }

    /// Remembers which references of this generation were missing.
    pub fn learn_missing(&mut self, generation: i64, looked: &Looked) {
        let Looked { missing, own, missing_own, config: _ } = looked;
        let is_known = |known: &Missing| known.is_said && known.generation == generation && known.names == *missing;
        let is_said = self.missing.as_ref().is_some_and(is_known);
        let missing = Missing { generation, names: missing.clone(), own: own.clone(), missing_own: missing_own.clone(), is_said };
        self.missing = Some(missing).filter(|missing| !missing.names.is_empty());
    }
}

impl ErrandController {
    /// Looks at `references`, whose versions are resolved. With `digest_for` (the template's) their content is read, too.
    pub fn look(&self, quarks_job: &ObjectKey, references: &[Reference], digest_for: Option<&Digest>) -> Result<Looked, LookError> {
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
        let (key, version) = key::obtain(&self.tools.client, namespace)?;
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
        let seen = match self.tools.client.call::<Content>(&request) {
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
    pub fn look_again(&self, turn: &mut Turn<'_>) -> Result<Flow, Failed> {
        let due = self.config.due(turn.key);
        match self.look_at_view(&turn.view) {
            Ok(looked) => {
                self.config.looked(turn.key, due);
                let generation = turn.view.generation;
                turn.memory().waiting.learn(generation, &looked);
                Ok(Flow::Continue)
            }
            Err(error) => self.cannot_look(turn, error),
        }
    }

    fn look_at_view(&self, view: &QuarksJobView) -> Result<Looked, LookError> {
        let mut references = view.references.to_vec();
        let bases = bases_of(&references);
        if !bases.is_empty() {
            let versions = self.tools.versions(&view.key.namespace, &|_, version| bases.contains(&version.base))?;
            references = resolve_references(references, &versions);
        }
        self.look(&view.key, &references, Some(&view.template_digest).filter(|_| view.acts_on_config()))
    }

    /// Says what stands in the way, if someone has to do something about it.
    pub fn cannot_look(&self, turn: &mut Turn<'_>, error: LookError) -> Result<Flow, Failed> {
        let (reason, message) = match error {
            LookError::NotReady(message) => (Reason::NamespaceNotReady, message),
            LookError::Api(error) if error.answer() == Answer::Refused => {
                (Reason::JobRefused, format!("cannot create the key for config digests; will retry: {}", error.message()))
            }
            LookError::Api(error) => return Err(Failed::Api(error)),
        };
        // The status to write it into must be known; the second time it is.
        if !turn.is_known() {
            return Err(Failed::Stale);
        }
        self.refuse(turn, reason, &message, None)
    }

    /// A QuarksJob's own output does not make it run again; who refers to it may not expect that.
    pub fn warn_about_own(&self, turn: &Turn<'_>, own: &[String]) {
        if !own.is_empty() {
            let text =
                format!("the template references Secrets that this QuarksJob writes ({}); their changes trigger no run", own.join(", "));
            turn.tell(Note::new(Reason::SelfReference, "LookAtReferences", text));
        }
    }
}

fn is_written_by(seen: &Seen, reference: &Reference, quarks_job: &ObjectKey) -> bool {
    reference.kind == ReferenceKind::Secret && seen.written_by.as_deref() == Some(&*quarks_job.name)
}
