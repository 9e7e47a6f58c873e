//! Which objects of the cluster are kept. Checked for each object before more of it is decoded than this check needs.
//!
//! Promise: nothing is kept of an object that is not admitted, except hashes of some Jobs whose owner was not known. What was
//! admitted once and is still in the index stays admitted: an active run ends normally although its namespace lost its label.

use std::borrow::Cow;

use serde::Deserialize;

use crate::api::{KIND, ObjectKey, is_our_group};
use crate::views::{JobView, NamespaceView, QuarksJobView};

use super::store::{Index, SharedIndex};

/// What every object says of itself first. Nothing else is even decoded.
#[derive(Debug, Default, Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    metadata: HeadMeta<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMeta<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    owner_references: Option<Vec<HeadOwner<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadOwner<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(default)]
    controller: bool,
}

impl HeadMeta<'_> {
    /// Its controller, if that is a QuarksJob.
    fn owner(&self) -> Option<&HeadOwner<'_>> {
        let controller = self.owner_references.iter().flatten().find(|owner| owner.controller)?;
        (controller.kind == KIND && is_our_group(&controller.api_version)).then_some(controller)
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(&*self.namespace, &*self.name)
    }
}

impl Index {
    /// QuarksJobs of a namespace that we serve, and those that we know already.
    fn admits_quarks_job(&self, head: &HeadMeta<'_>) -> bool {
        self.is_served(&head.namespace) || self.quarks_job(&head.key()).is_some_and(|known| known.uid.as_str() == head.uid)
    }

    /// Jobs whose controller is a QuarksJob that we know in the same namespace. A Job of one that is not known, though it might be ours,
    /// is noted: the two watches do not wait for each other. The index is not written in the meantime, so the note is not missed.
    fn admits_job(&self, head: &HeadMeta<'_>) -> bool {
        let Some(owner) = head.owner() else { return false };
        let is_served = self.is_served(&head.namespace);
        let is_kept = || self.job(&head.key()).is_some_and(|known| known.uid.as_str() == head.uid);
        if !is_served && !is_kept() {
            return false;
        }
        // The cluster's garbage collector checks name and UID too.
        let known = self.quarks_job(&ObjectKey::new(&*head.namespace, &*owner.name));
        let is_known = known.is_some_and(|known| known.uid.as_str() == owner.uid);
        if !is_known && is_served {
            self.passed_over().note(&head.namespace, &owner.uid);
        }
        is_known
    }
}

impl SharedIndex {
    /// The QuarksJob, if this operator serves it.
    pub fn decode_quarks_job(&self, json: &[u8]) -> serde_json::Result<Option<QuarksJobView>> {
        let Head { metadata } = crate::json::from_slice(json)?;
        if !self.read().admits_quarks_job(&metadata) {
            return Ok(None);
        }
        crate::json::from_slice(json).map(Some)
    }

    /// The Job, if it is of a QuarksJob that we serve.
    pub fn decode_job(&self, json: &[u8]) -> serde_json::Result<Option<JobView>> {
        let Head { metadata } = crate::json::from_slice(json)?;
        if !self.read().admits_job(&metadata) {
            return Ok(None);
        }
        crate::json::from_slice(json).map(Some)
    }

    /// The Namespace, if we serve it, or did.
    pub fn decode_namespace(&self, json: &[u8]) -> serde_json::Result<Option<NamespaceView>> {
        let view: NamespaceView = crate::json::from_slice(json)?;
        Ok(self.read().admits_namespace(&view).then_some(view))
    }
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
