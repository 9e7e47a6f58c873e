//! What did not work: what is said, where, what helps, and when it is tried again.
//!
//! The operator may list QuarksJobs and write their status in the whole cluster; all else takes a binding in each namespace. So it
//! can say on the QuarksJob itself that the binding, or a rule of it, is missing. Where even the status may not be written only the
//! log tells. It is tried again with backoff: nothing tells us of a new binding, or of a policy that is gone.

use std::time::{Duration, Instant};

use log::{debug, warn};

use crate::api::{ObjectKey, QuarksJob, Resource, Uid};
use crate::clock;
use crate::index::SharedIndex;
use crate::kube::{Answer, Error, Request};
use crate::queue::Backoff;
use crate::watch::{Listed, list_all};

use super::decide::API_UNAVAILABLE;
use super::events::Note;
use super::memory::{Known, Memory};
use super::reconcile::{Context, Failed, Next, Reconciler};
use super::report::ready_of;
use super::status::StatusBuilder;

/// Time until the next try in a namespace that is being deleted. Usually its QuarksJobs are gone by then.
pub(super) const TERMINATING_RETRY: Duration = Duration::from_secs(60);
/// What somebody else refuses (quota, admission, rights): how long until the next try.
pub(super) const REFUSAL_BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(60) };
/// Failures in a row that may pass by themselves, until somebody is told.
const TROUBLE_TRIES: u32 = 3;

/// The command that gives the operator its rights: in a namespace, or, without one, in the cluster.
pub fn remedy(index: &SharedIndex, namespace: &str) -> String {
    if namespace.is_empty() {
        return "kubectl apply -f manifests/operator.yaml".to_owned();
    }
    let manifest = if index.read().is_fixed() { "fixed-namespaces/namespace.yaml" } else { "monitored-namespace.yaml" };
    format!("kubectl apply -n {namespace} -f manifests/{manifest}")
}

impl Memory {
    /// True if the failure that just came is one too many to be silent about.
    pub(super) fn is_trouble_to_tell(&self) -> bool {
        self.trouble + 1 >= TROUBLE_TRIES
    }
}

impl Reconciler {
    /// A call for this key failed, and it was not about something that a policy may refuse: that is said where it is asked for.
    pub(super) fn trouble(&self, key: &ObjectKey, memory: &mut Memory, error: Error) -> Next {
        let is_served = self.index.read().monitored(&key.namespace).is_some();
        match error.answer() {
            Answer::Terminating => return self.leave_alone(key, &error),
            Answer::MissingRight | Answer::Refused if !is_served => return self.leave_alone(key, &error),
            Answer::MissingRight => {
                let message = self.missing_right_message(key, &error);
                warn!("not allowed, will be tried again key={key} error={message:?}");
                self.say(key, "NamespaceNotReady", &message, memory);
            }
            Answer::Refused => self.refused(key, memory, &error),
            Answer::OnTheWay | Answer::TimedOut | Answer::WebhookFailed | Answer::Unreadable => {
                if memory.is_trouble_to_tell() {
                    let message = format!("the API server, or what is on the way to it, does not answer as it should: {}", error.message());
                    self.say(key, API_UNAVAILABLE, &message, memory);
                }
                memory.trouble = memory.trouble.saturating_add(1);
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
        Next::Retry(error)
    }

    /// A policy refuses what is next. If that is the status itself, an Event has to do.
    fn refused(&self, key: &ObjectKey, memory: &mut Memory, error: &Error) {
        let is_status = error.resource() == Some(Resource::QUARKS_JOB_STATUS);
        let what = if is_status { "the status of this QuarksJob" } else { "what is next for this QuarksJob" };
        let message = format!("{what} cannot be written, and no run starts until it can: {}", error.message());
        if !is_status {
            return self.say(key, "SettleRefused", &message, memory);
        }
        if let Some(view) = self.index.read().quarks_job(key) {
            self.events.send(key, &view.uid, Note::warning("SettleRefused", "Observe", message));
        }
    }

    fn leave_alone(&self, key: &ObjectKey, error: &Error) -> Next {
        debug!("left alone in a namespace that goes key={key} error={error}");
        Next::After(TERMINATING_RETRY)
    }

    /// What is missing, and the command that helps.
    pub(super) fn missing_right_message(&self, key: &ObjectKey, error: &Error) -> String {
        let right = error.unnamed_right().map(|right| format!(" ({right})")).unwrap_or_default();
        format!("{}{right}; run: {}", error.message(), remedy(&self.index, &key.namespace))
    }

    /// Clean-up failed: it holds up nothing, and is tried again later.
    pub(super) fn postpone_clean_up(&self, context: &Context<'_>, job: Uid, memory: &mut Memory, error: &Error) {
        let now = Instant::now();
        let pause = memory.clean_up_refused(job, now, error.retry_after().unwrap_or_default());
        let seconds = (pause.until - now).as_secs();
        memory.is_clean_up_denied = error.answer() == Answer::MissingRight;
        match error.answer() {
            Answer::Shutdown => debug!("stopped in the middle of a clean-up key={}", context.key),
            Answer::MissingRight => {
                let message = self.missing_right_message(context.key, error);
                warn!("not allowed to clean up, will be tried again key={} error={message:?} retry_seconds={seconds}", context.key);
                self.say(context.key, "NamespaceNotReady", &format!("Jobs or pods of runs that are over stay: {message}"), memory);
            }
            _ => warn!("not cleaned up, will be tried again key={} error={error} retry_seconds={seconds}", context.key),
        }
    }

    /// Says in condition `Ready` why nothing moves. What cannot be said is in the log already.
    fn say(&self, key: &ObjectKey, reason: &'static str, message: &str, memory: &mut Memory) {
        match self.try_to_say(key, reason, message, memory) {
            Err(Failed::Api(error)) if !error.is_shutdown() => warn!("condition not written key={key} reason={reason} error={error}"),
            // Somebody was faster, which makes the key dirty again.
            Ok(()) | Err(_) => {}
        }
    }

    fn try_to_say(&self, key: &ObjectKey, reason: &'static str, message: &str, memory: &mut Memory) -> Result<(), Failed> {
        if memory.known().is_none() {
            self.find(key, memory)?;
        }
        let Some(Known { view, status }) = memory.known().cloned() else { return Ok(()) };
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
