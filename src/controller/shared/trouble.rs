//! What failed: what is reported, where, which remedy is named, and when it is retried.
//!
//! The operator may list QuarksJobs and write their status in the whole cluster; everything else requires a binding in each
//! namespace. So it can report on the QuarksJob itself that the binding, or one of its rules, is missing. Where it may not even
//! write the status, only the log reports it. It retries with backoff, because nothing notifies it of a new binding or of a removed
//! policy.

use std::time::Duration;

use log::{debug, warn};

use crate::api::{ObjectKey, QuarksJob, Resource};
use crate::contract::reason::Reason;
use crate::index::SharedIndex;
use crate::kube::pages::{Listed, list_all};
use crate::kube::{Answer, Error, Request};

use super::decision::{Failed, Outcome};
use super::memory::{Known, Memory};
use super::note::Note;
use super::ready::ready_of;
use super::turn::{Tools, Turn};

/// Time until the next try in a namespace that is being deleted. Usually its QuarksJobs are gone by then.
pub const TERMINATING_RETRY: Duration = Duration::from_secs(60);
/// Consecutive failures that may be temporary, until they are reported.
const TROUBLE_TRIES: u32 = 3;

/// The command that gives the operator its rights: in a namespace, or, without one, in the cluster.
pub fn remedy(index: &SharedIndex, namespace: &str) -> String {
    let index = index.read();
    let mut command = if namespace.is_empty() {
        "kubectl apply -f manifests/operator.yaml".to_owned()
    } else {
        let manifest = if index.is_fixed() { "fixed-namespaces/namespace.yaml" } else { "monitored-namespace.yaml" };
        format!("kubectl apply -n {namespace} -f manifests/{manifest}")
    };
    if let Some(home) = index.other_home() {
        command += " with namespace: ";
        command += home;
        command += " for the operator's account";
    }
    command
}

impl Memory {
    /// True if the failure that just came is one too many to be silent about.
    pub fn is_trouble_to_tell(&self) -> bool {
        self.trouble + 1 >= TROUBLE_TRIES
    }
}

impl Tools {
    /// What is missing, and the command that helps.
    pub fn missing_right_message(&self, key: &ObjectKey, error: &Error) -> String {
        let right = error.unnamed_right().map(|right| format!(" ({right})")).unwrap_or_default();
        format!("{}{right}; run: {}", error.message(), remedy(&self.index, &key.namespace))
    }
}

impl Turn<'_> {
    /// A call failed, and it was not about something that a policy may refuse: that is reported by the caller.
    pub fn trouble(&mut self, error: Error) -> Outcome {
        let is_served = self.tools.index.read().monitored(&self.key.namespace).is_some();
        match error.answer() {
            Answer::Terminating => return self.leave_alone(&error),
            Answer::MissingRight | Answer::Refused if !is_served => return self.leave_alone(&error),
            Answer::MissingRight => {
                let message = self.tools.missing_right_message(self.key, &error);
                warn!(key:% = self.key, error:% = message; "not allowed; will retry");
                self.say(Reason::NamespaceNotReady, &message);
            }
            Answer::Refused => self.refused(&error),
            Answer::OnTheWay | Answer::TimedOut | Answer::WebhookFailed | Answer::Unreadable => {
                if self.memory().is_trouble_to_tell() {
                    let message = format!("no usable answer from the API server or a proxy in between; will retry: {}", error.message());
                    self.say(Reason::APIUnavailable, &message);
                }
                let trouble = &mut self.memory().trouble;
                *trouble = trouble.saturating_add(1);
            }
            Answer::Gone
            | Answer::Exists
            | Answer::Conflict
            | Answer::FieldError
            | Answer::OtherObject
            | Answer::Expired
            | Answer::Busy
            | Answer::Unavailable
            | Answer::Unauthorized
            | Answer::Shutdown => {}
        }
        Outcome::Retry(error)
    }

    /// A policy refuses what is next. If that is the status itself, an Event has to do.
    fn refused(&mut self, error: &Error) {
        let is_status = error.resource() == Some(Resource::QUARKS_JOB_STATUS);
        let what = if is_status { "the status update" } else { "an update of this QuarksJob" };
        let message = format!("{what} was rejected; no new run starts until it is accepted; will retry: {}", error.message());
        if !is_status {
            return self.say(Reason::SettleRefused, &message);
        }
        self.tell(Note::new(Reason::SettleRefused, "Observe", message));
    }

    fn leave_alone(&self, error: &Error) -> Outcome {
        debug!(key:% = self.key, error:%; "skipped; the namespace is being deleted or no longer served");
        Outcome::RequeueAfter(TERMINATING_RETRY)
    }

    /// Says in condition `Ready` why nothing moves. What cannot be said is in the log already.
    pub fn say(&mut self, reason: Reason, message: &str) {
        match self.try_to_say(reason, message) {
            Err(Failed::Api(error)) if !error.is_shutdown() => {
                warn!(key:% = self.key, reason:%, error:%; "condition not written");
            }
            // Somebody was faster, which makes the key dirty again.
            Ok(()) | Err(_) => {}
        }
    }

    fn try_to_say(&mut self, reason: Reason, message: &str) -> Result<(), Failed> {
        if !self.is_known() {
            self.find()?;
        }
        let Ok(Known { view, status }) = self.known() else { return Ok(()) };
        self.view = view;
        let new = self.status(&status, &self.now()).refused(reason, message);
        self.write_status(&status, &new)?;
        if ready_of(&status) != ready_of(&new) {
            self.tell(Note::new(reason, "Observe", message.to_owned()));
        }
        Ok(())
    }

    /// Reads the QuarksJob with the right to list, which does not take a binding in its namespace.
    fn find(&mut self) -> Result<(), Error> {
        let key = self.key;
        let Some(before) = self.tools.index.read().quarks_job(key).map(|view| view.resource_version.clone()) else { return Ok(()) };
        let selector = format!("metadata.name={}", key.name);
        let request = Request::list(Resource::QUARKS_JOBS, &key.namespace).field_selector(&selector);
        list_all(&self.tools.client, request, &mut |listed| {
            if let Listed::Object(json) = listed {
                self.memory().learn(&before, &crate::json::from_slice::<QuarksJob>(json)?);
            }
            Ok(())
        })
    }
}
