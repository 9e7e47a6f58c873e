//! What must be stored, and when to retry. Time is an argument.
//!
//! Promises: nothing is written without permission; trouble with one Secret delays no other; the content of one file is in memory
//! once, and only until it is stored. Not for threads: see `thread`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::plan::{ContainerPlan, Plan};
use crate::contract::report::{OutputError, OutputErrorReason, StoredSecret};
use crate::kube::Error;
use crate::persist::environment::Environment;
use crate::persist::input::fault::Fault;
use crate::persist::input::read::{read_file, read_log};
use crate::persist::messages::{EndedContainer, StoreEvent};
use crate::persist::retry::{AttemptError, Backoff, Patience};
use crate::persist::secret::desired::Desired;
use crate::persist::secret::versions::{Found, Numbers};

use super::api::Api;
use super::permission::{NotPermitted, RunOver, WritePermission};
use super::write::{Attempt, ListedVersions, WriteState, attempt};

/// How often a log that ends too early is read again: the node may not have written all of it yet. About 1 s with the waits.
const LOG_LOOKS: u32 = 2;

/// The work of the store.
pub struct Store<A> {
    api: A,
    plan: Plan,
    root: PathBuf,
    index: Option<u32>,
    permission: WritePermission,
    tasks: Vec<Task>,
    /// Names already spoken for, with their origin: fan-out can make the same name twice.
    claimed: BTreeMap<String, Arc<Origin>>,
    open: BTreeMap<String, usize>,
    backoff: Backoff,
    refused_limit: Duration,
    last_try: bool,
}

/// Where output comes from.
struct Origin {
    container: String,
    /// Empty for the log.
    file: String,
}

impl Origin {
    fn error(&self, reason: OutputErrorReason, message: String) -> OutputError {
        OutputError { reason, container: self.container.clone(), file: self.file.clone(), message }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, file } = self;
        if file.is_empty() { write!(f, "the log of container {container}") } else { write!(f, "container {container}, file {file}") }
    }
}

struct Task {
    origin: Arc<Origin>,
    work: Work,
    tries: u32,
    patience: Patience,
    due: Instant,
}

enum Work {
    ReadFile { lenient: bool, documents: usize },
    ReadLog { lenient: bool },
    Write { desired: Desired, state: WriteState },
}

impl Work {
    /// True if versions must be looked for. With `all` a list of all names is made for each version of the file that is to be written.
    fn needs_versions(&self, all: bool) -> bool {
        matches!(self, Self::Write { desired, state } if desired.versioned && (all || *state == WriteState::Create))
    }
}

impl<A: Api> Store<A> {
    /// Nothing to do yet.
    pub fn new(api: A, environment: &Environment, seed: u64) -> Self {
        let Environment { plan, root, index, refused_limit, outage_limit, pod: _, pod_uid: _ } = environment.clone();
        Self {
            api,
            plan,
            root,
            index,
            permission: WritePermission::new(outage_limit),
            tasks: Vec::new(),
            claimed: BTreeMap::new(),
            open: BTreeMap::new(),
            backoff: Backoff::new(seed),
            refused_limit,
            last_try: false,
        }
    }

    /// Takes over the output of a container.
    pub fn accept(&mut self, ended: EndedContainer, now: Instant) -> Vec<StoreEvent> {
        let EndedContainer { container, lenient, documents } = ended;
        self.permission.heard(self.api.now());
        let before = self.tasks.len();
        if let Some(ContainerPlan { files, log, remote_id: _ }) = self.plan.containers.get(&container) {
            let origin = |file: &str| Arc::new(Origin { container: container.clone(), file: file.to_owned() });
            let task = |origin, work| Task { origin, work, tries: 0, patience: Patience::new(self.refused_limit), due: now };
            self.tasks.extend(files.keys().map(|file| task(origin(file), Work::ReadFile { lenient, documents })));
            self.tasks.extend(log.iter().map(|_| task(origin(""), Work::ReadLog { lenient })));
        }
        let new = self.tasks.len() - before;
        if new == 0 {
            return vec![StoreEvent::Finished(container)];
        }
        self.open.insert(container, new);
        Vec::new()
    }

    /// When there is something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        self.tasks.iter().map(|task| task.due).min()
    }

    /// Everything is tried once more, now, and then given up: the pod is being stopped.
    pub fn hurry(&mut self, now: Instant) {
        self.last_try = true;
        for task in &mut self.tasks {
            task.due = now;
        }
    }

    /// Does one thing that is due.
    pub fn step(&mut self, now: Instant) -> Vec<StoreEvent> {
        let Some(at) = self.tasks.iter().position(|task| task.due <= now) else { return Vec::new() };
        let task = self.tasks.remove(at);
        let (plan, index, container) = (&self.plan, self.index, &task.origin.container);
        match task.work {
            Work::ReadFile { lenient, documents } => {
                let read = read_file(&self.root, plan, index, container, &task.origin.file, documents);
                self.take(task.origin, read, lenient, now)
            }
            Work::ReadLog { lenient } => {
                let read = match self.api.log(container) {
                    Ok(bytes) => read_log(plan, index, container, bytes),
                    Err(Error::TooLarge { .. }) => Err(Fault::LogTooLarge),
                    Err(error) => return self.try_again(task, AttemptError::Call(error), "log", now),
                };
                match read {
                    Err(Fault::Log(error)) if error.is_cut() && task.tries < LOG_LOOKS && !self.last_try => {
                        self.try_again(task, AttemptError::InTheWay(error.to_string()), "log", now)
                    }
                    read => self.take(task.origin, read, lenient, now),
                }
            }
            Work::Write { .. } => self.write(task, now),
        }
    }

    /// What was read becomes writes.
    fn take(&mut self, origin: Arc<Origin>, read: Result<Vec<Desired>, Fault>, lenient: bool, now: Instant) -> Vec<StoreEvent> {
        let desired = match read {
            Ok(desired) => desired,
            Err(fault) if lenient => {
                let Origin { container, file } = &*origin;
                log::info!(container:%, file:%, error:% = fault; "output of failed container not stored");
                return self.finish(&origin.container);
            }
            Err(fault) => return self.fail(origin.error(fault.reason(), fault.to_string())),
        };
        if let Some((name, other)) = desired.iter().find_map(|desired| self.claimed.get_key_value(&desired.name)) {
            let message = format!("Secret {name} is already written by {other}");
            return self.fail(origin.error(OutputErrorReason::OutputConflict, message));
        }
        // One task, the read, becomes one for each Secret.
        *self.open.entry(origin.container.clone()).or_default() += desired.len();
        for desired in &desired {
            self.claimed.insert(desired.name.clone(), Arc::clone(&origin));
        }
        let patience = Patience::new(self.refused_limit);
        let writes = desired.into_iter().map(|desired| Task {
            origin: Arc::clone(&origin),
            work: Work::Write { desired, state: WriteState::Create },
            tries: 0,
            patience: patience.clone(),
            due: now,
        });
        // Written before the next file is read, so that contents do not pile up in memory.
        self.tasks.splice(0..0, writes);
        self.finish(&origin.container)
    }

    fn write(&mut self, mut task: Task, now: Instant) -> Vec<StoreEvent> {
        let permitted =
            self.permission.ask(&self.api, &self.plan).and_then(|()| self.find_versions(&mut task).map_err(NotPermitted::Unknown));
        let Work::Write { desired, state } = &mut task.work else { return Vec::new() };
        let tried = match permitted {
            Ok(()) => attempt(&self.api, &self.plan, &task.origin.container, desired, state),
            Err(NotPermitted::Unknown(error)) => Attempt::Failed(AttemptError::Call(error)),
            Err(NotPermitted::Over(RunOver { reason, message })) => return self.fail(task.origin.error(reason, message)),
        };
        match tried {
            Attempt::Stored { name, version } => {
                let Origin { container, file } = &*task.origin;
                log::info!(secret:% = name, container:%, file:%; "output stored");
                let secret = StoredSecret { name, version, container: container.clone(), file: file.clone() };
                let mut events = vec![StoreEvent::Stored(secret)];
                events.extend(self.finish(container));
                events
            }
            Attempt::Conflict(message) => self.fail(task.origin.error(OutputErrorReason::OutputConflict, message)),
            // The look was good for too short a time, or a list is needed that says more: again, at once.
            Attempt::Failed(AttemptError::Call(Error::Fenced)) | Attempt::Occupied => {
                self.tasks.insert(0, task);
                Vec::new()
            }
            Attempt::Failed(failure) => {
                let what = format!("Secret {}", desired.name);
                self.try_again(task, failure, &what, now)
            }
        }
    }

    /// One list for all that is still to be written of the task's file: what it costs does not grow with the file.
    fn find_versions(&mut self, task: &mut Task) -> Result<(), Error> {
        let all = matches!(task.work, Work::Write { state: WriteState::Occupied, .. });
        if !task.work.needs_versions(all) {
            return Ok(());
        }
        let origin = Arc::clone(&task.origin);
        let of_file =
            self.tasks.iter_mut().chain([task]).filter(|task| Arc::ptr_eq(&task.origin, &origin) && task.work.needs_versions(all));
        let mut writes = Vec::new();
        let mut found = Found::new();
        for task in of_file {
            if let Work::Write { desired, state } = &mut task.work {
                found.insert(&desired.name, Numbers::default());
                writes.push((desired.name.as_str(), state));
            }
        }
        self.api.find_versions(&mut found, all)?;
        for (name, state) in writes {
            if let Some(numbers) = found.get(name) {
                *state = WriteState::Listed(ListedVersions { highest: numbers.highest, next: numbers.free(), all });
            }
        }
        Ok(())
    }

    /// Later, unless it has been tried for long enough.
    fn try_again(&mut self, mut task: Task, failure: AttemptError, what: &str, now: Instant) -> Vec<StoreEvent> {
        let message = match &failure {
            AttemptError::Call(error) => error.to_string(),
            AttemptError::InTheWay(text) => text.clone(),
        };
        if self.last_try || task.patience.is_over(&failure, now) {
            return self.fail(task.origin.error(OutputErrorReason::OutputNotStored, format!("{what}: {message}")));
        }
        let wanted = if let AttemptError::Call(error) = &failure { error.retry_after() } else { None };
        let wait: Duration = self.backoff.delay(task.tries, wanted);
        let Origin { container, file } = &*task.origin;
        let error = format_args!("{what}: {message}");
        log::warn!(container:%, file:%, error:%, retry_ms:% = wait.as_millis(); "output not stored; will retry");
        task.tries = task.tries.saturating_add(1);
        task.due = now + wait;
        self.tasks.push(task);
        Vec::new()
    }

    fn fail(&mut self, error: OutputError) -> Vec<StoreEvent> {
        let OutputError { reason, container, file, message } = &error;
        log::error!(reason:%, container:%, file:%, error:% = message; "output not stored");
        let container = container.clone();
        let mut events = vec![StoreEvent::Failed(error)];
        events.extend(self.finish(&container));
        events
    }

    /// One task of the container less.
    fn finish(&mut self, container: &str) -> Vec<StoreEvent> {
        let open = self.open.entry(container.to_owned()).or_insert(1);
        *open = open.saturating_sub(1);
        if *open > 0 {
            return Vec::new();
        }
        self.open.remove(container);
        vec![StoreEvent::Finished(container.to_owned())]
    }
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
