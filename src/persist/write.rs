//! One attempt to store one Secret: create, or read what is in the way and decide.
//!
//! Promises: a create or update whose reply was lost is never sent again blindly, the Secret is read first; an update carries the
//! resourceVersion of what was read; a version is only ever created. Not for retries: see `store`.

use super::api::Api;
use super::plan::Plan;
use super::secrets::{Desired, Existing, decide_existing};
use super::versions;
use crate::kube::{Answer, Error};

/// Rounds of read and write within one attempt, when others keep changing the same Secret.
const ROUNDS: u32 = 8;

/// Where an attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is known: create it (a version: look for the highest first).
    Create,
    /// It is there, or may be: read it first.
    Read,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempt {
    /// The content is there, under this name.
    Stored {
        /// Full name.
        name: String,
        /// Version, if it has one.
        version: Option<u64>,
    },
    /// It can never be stored under this name.
    Conflict(String),
    /// Perhaps later.
    Failed(Failure),
}

/// Why an attempt did not get through.
#[derive(Debug)]
pub enum Failure {
    /// The API server's answer, or none.
    Call(Error),
    /// Something in the way that may go.
    InTheWay(String),
}

/// Tries to store one Secret. `step` is where the next attempt has to begin.
pub fn attempt(api: &dyn Api, plan: &Plan, container: &str, desired: &Desired, step: &mut Step) -> Attempt {
    if desired.versioned { create_version(api, plan, desired) } else { create_or_update(api, plan, container, desired, step) }
}

fn create_or_update(api: &dyn Api, plan: &Plan, container: &str, desired: &Desired, step: &mut Step) -> Attempt {
    let stored = || Attempt::Stored { name: desired.name.clone(), version: None };
    for _ in 0..ROUNDS {
        if *step == Step::Create {
            match api.create(&desired.to_new()) {
                Ok(()) => return stored(),
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    if error.maybe_applied() {
                        *step = Step::Read;
                    }
                    return Attempt::Failed(Failure::Call(error));
                }
            }
            *step = Step::Read;
        }
        let live = match api.read(&desired.name) {
            Ok(live) => live,
            Err(error) if error.is_not_found() => {
                *step = Step::Create;
                continue;
            }
            Err(error) => return Attempt::Failed(Failure::Call(error)),
        };
        match decide_existing(live, desired, &plan.quarks_job, container) {
            Existing::Same => return stored(),
            Existing::Conflict(text) => return Attempt::Conflict(text),
            Existing::BeingDeleted => return Attempt::Failed(Failure::InTheWay(format!("Secret {} is being deleted", desired.name))),
            Existing::Update(update) => match api.update(&update.with_data(&desired.data)) {
                Ok(()) => return stored(),
                // Whatever is under this name by now: it is read again.
                Err(error) if matches!(error.answer(), Answer::Conflict | Answer::OtherObject | Answer::Gone) => {}
                Err(error) => return Attempt::Failed(Failure::Call(error)),
            },
        }
    }
    Attempt::Failed(Failure::InTheWay(format!("Secret {} changes all the time", desired.name)))
}

/// Looks for the highest version each time, so an attempt whose reply was lost finds its own work.
fn create_version(api: &dyn Api, plan: &Plan, desired: &Desired) -> Attempt {
    let stored = |version| Attempt::Stored { name: versions::version_name(&desired.name, version), version: Some(version) };
    // Names above the highest that are taken by something that is no version: skipped.
    let mut taken = 0;
    for _ in 0..ROUNDS {
        let highest = match api.highest_version(&desired.name) {
            Ok(highest) => highest,
            Err(error) => return Attempt::Failed(Failure::Call(error)),
        };
        if let Some(version) = highest {
            match api.read(&versions::version_name(&desired.name, version)) {
                Ok(live) if versions::is_same(desired, &live) => return stored(version),
                Ok(_) => {}
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Attempt::Failed(Failure::Call(error)),
            }
        }
        let Some(mut version) = highest.unwrap_or(0).max(taken).checked_add(1) else {
            return Attempt::Conflict(format!("Secret {} has no further version numbers", desired.name));
        };
        loop {
            let new = match versions::build_version(desired, plan, version) {
                Ok(new) => new,
                Err(text) => return Attempt::Conflict(text),
            };
            match api.create(&new) {
                Ok(()) => return stored(version),
                Err(error) if !error.is_already_exists() => return Attempt::Failed(Failure::Call(error)),
                Err(_) => {}
            }
            // Either someone was faster, then the search begins anew, or the name is taken by something else.
            match api.read(&versions::version_name(&desired.name, version)) {
                Ok(live) if versions::version_of(&desired.name, &live.metadata.name, &live.metadata.labels).is_none() => {
                    taken = version;
                    let Some(next) = version.checked_add(1) else { break };
                    version = next;
                }
                Ok(_) => break,
                Err(error) if error.is_not_found() => break,
                Err(error) => return Attempt::Failed(Failure::Call(error)),
            }
        }
    }
    Attempt::Failed(Failure::InTheWay(format!("others create versions of Secret {} all the time", desired.name)))
}
