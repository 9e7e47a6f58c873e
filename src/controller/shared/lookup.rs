//! What is read from a namespace besides the object itself: versioned Secrets, and the references of active Jobs.

use serde::Deserialize;
use serde_json::Value;

use crate::api::{JobStatus, ObjectMeta, Resource, null_as_default};
use crate::kube::pages::{Listed, list_all};
use crate::kube::{Error, Request};
use crate::persist::each_version;
use crate::rules::references::{Reference, collect};
use crate::rules::versions::{Version, referenced_bases, resolve};

use super::choices::Choice;
use super::turn::Tools;

/// A Job of any owner.
#[derive(Deserialize)]
struct AnyJob {
    #[serde(default)]
    spec: Value,
    #[serde(default, deserialize_with = "null_as_default")]
    status: JobStatus,
}

impl Tools {
    /// Resolves references to versioned Secrets to the newest ones. The choice, if there was one, must live until the Job exists.
    pub fn use_highest_versions(&self, namespace: &str, template: &mut Value) -> Result<Option<Choice<'_>>, Error> {
        let Some(job_spec) = template.get_mut("spec") else { return Ok(None) };
        let bases = referenced_bases(job_spec);
        if bases.is_empty() {
            return Ok(None);
        }
        let choice = self.choices.begin(namespace);
        let found = self.versions(namespace, &|_, version| bases.contains(&version.base))?;
        resolve(job_spec, &found);
        Ok(Some(choice))
    }

    /// The versioned Secrets of a namespace that `is_wanted`. No content comes over the wire.
    pub fn versions(&self, namespace: &str, is_wanted: &dyn Fn(&ObjectMeta, &Version) -> bool) -> Result<Vec<Version>, Error> {
        let mut found = Vec::new();
        each_version(&self.client, namespace, &mut |metadata| match metadata {
            None => found.clear(),
            Some(metadata) => found.extend(Version::of(metadata).filter(|version| is_wanted(metadata, version))),
        })?;
        Ok(found)
    }

    /// The references of Jobs that have not ended, of any owner.
    pub fn references_of_active_jobs(&self, namespace: &str) -> Result<Vec<Reference>, Error> {
        let mut found = Vec::new();
        list_all(&self.client, Request::list(Resource::JOBS, namespace), &mut |listed| {
            match listed {
                Listed::Begin => found.clear(),
                Listed::Object(json) => {
                    let AnyJob { spec, status } = crate::json::from_slice(json)?;
                    if status.end().is_none() {
                        found.append(&mut collect(&spec));
                    }
                }
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// What to do when the right is missing.
pub fn may_not_list_message(remedy: &str, error: &Error) -> String {
    format!("the operator may not list Secrets to find the newest version of one in the template: {}; run: {remedy}", error.message())
}
