//! One attempt to store one Secret: create it, or read the existing one and decide.
//!
//! Promises: a create or update whose reply was lost is never repeated blindly, the Secret is read first; an update carries the
//! resourceVersion of what was read; a version is only ever created. Not for retries: see `tasks`.

use crate::contract::plan::Plan;
use crate::contract::version::{version_name, version_of};
use crate::kube::Answer;
use crate::persist::retry::AttemptError;
use crate::persist::secret::desired::Desired;
use crate::persist::secret::existing::{Existing, decide_existing, foreign_writer};
use crate::persist::secret::versions;

use super::api::Api;

/// Rounds of read and write within one attempt, when others keep changing the same Secret.
const ROUNDS: u32 = 8;
/// Versions by others that one attempt goes past: each other pod of the run may have one.
const VERSIONS: u32 = 64;

/// What is known about a name: where an attempt starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteState {
    /// Nothing is known: create it (a version: the highest is looked for first).
    Create,
    /// A version whose number another Secret has: all names are checked first, so that the next number is free.
    Occupied,
    /// A version: a list was made.
    Listed(ListedVersions),
    /// It exists, or may exist: read it first.
    Read,
}

/// What a list says of the versions of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedVersions {
    /// The highest; 0: there is none.
    pub highest: u64,
    /// The number that comes next, if there is any left.
    pub next: Option<u64>,
    /// Secrets that are not versions were listed too.
    pub all: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempt {
    /// The content is stored under this name.
    Stored {
        /// Full name.
        name: String,
        /// Version, if it has one.
        version: Option<u64>,
    },
    /// It can never be stored under this name.
    Conflict(String),
    /// The number of a version belongs to something else: at once again, with a list of all names.
    Occupied,
    /// Perhaps later.
    Failed(AttemptError),
}

/// Tries to store one Secret. `state` is where the next attempt has to begin.
pub fn attempt(api: &dyn Api, plan: &Plan, container: &str, desired: &Desired, state: &mut WriteState) -> Attempt {
    match (desired.versioned, *state) {
        (true, WriteState::Listed(listed)) => {
            let tried = create_version(api, plan, desired, listed);
            // Whatever the result, the next attempt starts with a list.
            *state = if matches!(tried, Attempt::Occupied) { WriteState::Occupied } else { WriteState::Create };
            tried
        }
        (true, WriteState::Create | WriteState::Occupied | WriteState::Read) => {
            Attempt::Failed(AttemptError::InTheWay("its versions have not been listed".to_owned()))
        }
        (false, _) => create_or_update(api, plan, container, desired, state),
    }
}

fn create_or_update(api: &dyn Api, plan: &Plan, container: &str, desired: &Desired, state: &mut WriteState) -> Attempt {
    let stored = || Attempt::Stored { name: desired.name.clone(), version: None };
    for _ in 0..ROUNDS {
        if *state != WriteState::Read {
            match api.create(&desired.to_new()) {
                Ok(()) => return stored(),
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    if error.maybe_applied() {
                        *state = WriteState::Read;
                    }
                    return Attempt::Failed(AttemptError::Call(error));
                }
            }
            *state = WriteState::Read;
        }
        let live = match api.read(&desired.name) {
            Ok(live) => live,
            Err(error) if error.is_not_found() => {
                *state = WriteState::Create;
                continue;
            }
            Err(error) => return Attempt::Failed(AttemptError::Call(error)),
        };
        match decide_existing(live, desired, &plan.quarks_job, container) {
            Existing::Same => return stored(),
            Existing::Conflict(text) => return Attempt::Conflict(text),
            Existing::BeingDeleted => return Attempt::Failed(AttemptError::InTheWay(format!("Secret {} is being deleted", desired.name))),
            Existing::Update(update) => match api.update(&update.with_data(&desired.data)) {
                Ok(()) => return stored(),
                // Whatever is under this name by now: it is read again.
                Err(error) if matches!(error.answer(), Answer::Conflict | Answer::OtherObject | Answer::Gone) => {}
                Err(error) => return Attempt::Failed(AttemptError::Call(error)),
            },
        }
    }
    Attempt::Failed(AttemptError::InTheWay(format!("Secret {} keeps changing", desired.name)))
}

/// Begins at the highest version that a list has shown, and goes up from there. A number that something else has is skipped, but without
/// having seen all names not one by one: there may be hundreds. So is one that makes the name of another output of the plan, whether that is
/// exists yet or not. A version with the same content is used as it is, so an
/// attempt whose reply was lost finds its own work; one that another QuarksJob wrote ends it.
fn create_version(api: &dyn Api, plan: &Plan, desired: &Desired, listed: ListedVersions) -> Attempt {
    let Desired { name, .. } = desired;
    let stored = |version| Attempt::Stored { name: version_name(name, version), version: Some(version) };
    let ListedVersions { highest: mut version, mut next, all } = listed;
    let (mut is_taken, mut met) = (version > 0, 0);
    loop {
        if is_taken {
            match api.read(&version_name(name, version)) {
                // Its name is taken by something else: skipped.
                Ok(live) if version_of(name, &live.metadata.name, &live.metadata.labels).is_none() => {
                    if !all {
                        return Attempt::Occupied;
                    }
                }
                Ok(live) => {
                    if let Some(text) = foreign_writer(&live.metadata, &plan.quarks_job) {
                        return Attempt::Conflict(text);
                    }
                    if versions::is_same(desired, &live) {
                        return stored(version);
                    }
                    met += 1;
                    if met > VERSIONS {
                        return Attempt::Failed(AttemptError::InTheWay(format!("other writers keep creating versions of Secret {name}")));
                    }
                }
                // Gone by now. Its number is not used again.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Attempt::Failed(AttemptError::Call(error)),
            }
        }
        while let Some(number) = next.filter(|number| plan.has_plain(&version_name(name, *number))) {
            next = number.checked_add(1);
        }
        let Some(number) = next else {
            return Attempt::Conflict(format!("Secret {name} has no version numbers left"));
        };
        let new = match versions::build_version(desired, plan, number) {
            Ok(new) => new,
            Err(text) => return Attempt::Conflict(text),
        };
        match api.create(&new) {
            Ok(()) => return stored(number),
            Err(error) if error.is_already_exists() => (version, next, is_taken) = (number, number.checked_add(1), true),
            Err(error) => return Attempt::Failed(AttemptError::Call(error)),
        }
    }
}
