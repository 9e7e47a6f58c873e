//! A right is missing: what is said, where, and what helps.
//!
//! The operator may list QuarksJobs and write their status in the whole cluster; all else takes a binding in each namespace. So it
//! can say on the QuarksJob itself that the binding, or a rule of it, is missing. Where even the status may not be written only the
//! log tells. It is tried again with backoff: nothing tells us of a new binding.

use std::time::Duration;

use log::{debug, warn};

use crate::api::{ObjectKey, QuarksJob, Resource};
use crate::clock;
use crate::index::SharedIndex;
use crate::kube::{Error, Request};
use crate::watch::{Listed, list_all};

use super::events::Note;
use super::memory::{Known, Memory};
use super::reconcile::{Context, Failed, Next, Reconciler, ready_of};
use super::status::StatusBuilder;

/// A namespace that is being deleted takes its QuarksJobs with it; if it does not, it is looked at again after this long.
pub(super) const TERMINATING_RETRY: Duration = Duration::from_secs(60);

/// The command that gives the operator its rights: in a namespace, or, without one, in the cluster.
pub fn remedy(index: &SharedIndex, namespace: &str) -> String {
    if namespace.is_empty() {
        return "kubectl apply -f manifests/operator.yaml".to_owned();
    }
    let manifest = if index.read().is_fixed() { "fixed-namespaces/namespace.yaml" } else { "monitored-namespace.yaml" };
    format!("kubectl apply -n {namespace} -f manifests/{manifest}")
}

impl Reconciler {
    /// The API server has forbidden what was next for this key.
    pub(super) fn blocked(&self, key: &ObjectKey, memory: &mut Memory, error: Error) -> Next {
        let is_served = self.index.read().monitored(&key.namespace).is_some();
        if error.is_namespace_terminating() || !is_served {
            debug!("left alone in a namespace that goes key={key} error={error}");
            return Next::After(TERMINATING_RETRY);
        }
        let mut message = error.message();
        if error.is_missing_right() {
            message = format!("{message}; run: {}", remedy(&self.index, &key.namespace));
        }
        warn!("not allowed, will be tried again key={key} error={message:?}");
        match self.say_blocked(key, &message, memory) {
            Err(Failed::Api(error)) if !error.is_shutdown() => warn!("condition not written key={key} error={error}"),
            // Whoever was faster makes the key dirty again.
            Ok(()) | Err(_) => {}
        }
        Next::Retry(error)
    }

    fn say_blocked(&self, key: &ObjectKey, message: &str, memory: &mut Memory) -> Result<(), Failed> {
        if memory.known().is_none() {
            self.find(key, memory)?;
        }
        let Some(Known { view, status }) = memory.known().cloned() else { return Ok(()) };
        let reason = "NamespaceNotReady";
        let now = clock::now_seconds();
        let new = StatusBuilder::new(&view, &status, &now).refused(reason, message);
        let context = Context { key, view: &view, namespace: None, object: None };
        self.write_status(&context, &status, &new, memory)?;
        if ready_of(&status) != ready_of(&new) {
            self.tell(&context, Note::warning(reason, "Observe", message.to_owned()));
        }
        Ok(())
    }

    /// Reads the QuarksJob with the right to list, which does not take a binding in its namespace.
    fn find(&self, key: &ObjectKey, memory: &mut Memory) -> Result<(), Error> {
        let Some(before) = self.index.read().quarks_job(key).map(|view| view.resource_version.clone()) else { return Ok(()) };
        let selector = format!("metadata.name={}", key.name);
        list_all(&self.client, Request::list(Resource::QUARKS_JOBS, &key.namespace).field_selector(&selector), &mut |listed| {
            if let Listed::Object(json) = listed {
                memory.learn(&before, &crate::json::from_slice::<QuarksJob>(json)?);
            }
            Ok(())
        })
    }
}
