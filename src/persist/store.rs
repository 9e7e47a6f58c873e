//! What has to be stored, and when to try again. Time is an argument.
//!
//! Promises: nothing is written before the QuarksJob was seen alive; trouble with one Secret holds up no other; one file's content
//! is in memory once, and only until it is stored. Not for threads: see `storer`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::api::Api;
use super::environment::Environment;
use super::plan::Plan;
use super::read::read_file;
use super::report::{OutputError, OutputErrorReason, StoredSecret};
use super::retry::{Backoff, Patience};
use super::secrets::Desired;
use super::write::{Attempt, Failure, Step, attempt};
use crate::kube::Error;

/// What came of it; sent to the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A Secret holds the output.
    Stored(StoredSecret),
    /// An output is not stored and will not be.
    Failed(OutputError),
    /// Nothing is left to do for this container.
    Finished(String),
}

/// Output of a container that has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Name of the container.
    pub container: String,
    /// It failed: what is not there or not valid is no error.
    pub lenient: bool,
    /// Documents that a file may hold.
    pub documents: usize,
}

/// The work of the store.
pub struct Store<A> {
    api: A,
    plan: Plan,
    root: PathBuf,
    index: Option<u32>,
    owner: Owner,
    tasks: Vec<Task>,
    /// Names already spoken for, with container and file: fan-out can make the same name twice.
    claimed: BTreeMap<String, (String, String)>,
    open: BTreeMap<String, usize>,
    backoff: Backoff,
    refused_limit: Duration,
    last_try: bool,
}

enum Owner {
    Unknown,
    Alive,
    Gone(String),
}

struct Task {
    container: String,
    file: String,
    work: Work,
    tries: u32,
    patience: Patience,
    due: Instant,
}

enum Work {
    Read { lenient: bool, documents: usize },
    Write { desired: Desired, step: Step },
}

impl<A: Api> Store<A> {
    /// Nothing to do yet.
    pub fn new(api: A, environment: &Environment, seed: u64) -> Self {
        let Environment { plan, root, index, refused_limit, pod: _, pod_uid: _ } = environment.clone();
        Self {
            api,
            plan,
            root,
            index,
            owner: Owner::Unknown,
            tasks: Vec::new(),
            claimed: BTreeMap::new(),
            open: BTreeMap::new(),
            backoff: Backoff::new(seed),
            refused_limit,
            last_try: false,
        }
    }

    /// Takes over the files of a container.
    pub fn accept(&mut self, ended: Ended, now: Instant) -> Vec<Outcome> {
        let Ended { container, lenient, documents } = ended;
        let files: Vec<String> = self.plan.containers.get(&container).map_or(Vec::new(), |plan| plan.files.keys().cloned().collect());
        if files.is_empty() {
            return vec![Outcome::Finished(container)];
        }
        self.open.insert(container.clone(), files.len());
        self.tasks.extend(files.into_iter().map(|file| Task {
            container: container.clone(),
            file,
            work: Work::Read { lenient, documents },
            tries: 0,
            patience: Patience::new(self.refused_limit),
            due: now,
        }));
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
    pub fn step(&mut self, now: Instant) -> Vec<Outcome> {
        let Some(at) = self.tasks.iter().position(|task| task.due <= now) else { return Vec::new() };
        let task = self.tasks.remove(at);
        let Task { container, file, work, tries, patience, due: _ } = task;
        match work {
            Work::Read { lenient, documents } => self.read(container, file, lenient, documents, now),
            Work::Write { desired, step } => self.write(container, file, desired, step, tries, patience, now),
        }
    }

    fn read(&mut self, container: String, file: String, lenient: bool, documents: usize, now: Instant) -> Vec<Outcome> {
        let desired = match read_file(&self.root, &self.plan, self.index, &container, &file, documents) {
            Ok(desired) => desired,
            Err(fault) if lenient => {
                log::info!("output of failed container not stored: container={container} file={file} error={:?}", fault.to_string());
                return self.finish(container);
            }
            Err(fault) => {
                let error = OutputError { reason: OutputErrorReason::OutputInvalid, container, file, message: fault.to_string() };
                return self.fail(error);
            }
        };
        if let Some((name, (other, file_there))) = desired.iter().find_map(|desired| self.claimed.get_key_value(&desired.name)) {
            let message = format!("Secret {name} is already written from container {other}, file {file_there}");
            return self.fail(OutputError { reason: OutputErrorReason::OutputConflict, container, file, message });
        }
        // One task, the read, becomes one for each Secret.
        *self.open.entry(container.clone()).or_default() += desired.len();
        let claim = || (container.clone(), file.clone());
        self.claimed.extend(desired.iter().map(|desired| (desired.name.clone(), claim())));
        let writes = desired.into_iter().map(|desired| Task {
            container: container.clone(),
            file: file.clone(),
            work: Work::Write { desired, step: Step::Create },
            tries: 0,
            patience: Patience::new(self.refused_limit),
            due: now,
        });
        // Written before the next file is read, so that contents do not pile up in memory.
        self.tasks.splice(0..0, writes);
        self.finish(container)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a task, taken apart")]
    fn write(
        &mut self,
        container: String,
        file: String,
        desired: Desired,
        mut step: Step,
        tries: u32,
        mut patience: Patience,
        now: Instant,
    ) -> Vec<Outcome> {
        let error = |reason, message| OutputError { reason, container: container.clone(), file: file.clone(), message };
        let tried = match self.check_owner() {
            Ok(()) => attempt(&self.api, &self.plan, &container, &desired, &mut step),
            Err(Some(failure)) => Attempt::Failed(Failure::Call(failure)),
            Err(None) => {
                let message = if let Owner::Gone(message) = &self.owner { message.clone() } else { String::new() };
                return self.fail(error(OutputErrorReason::OwnerGone, message));
            }
        };
        let failure = match tried {
            Attempt::Stored { name, version } => {
                log::info!("output stored: secret={name} container={container} file={file}");
                let mut outcomes = vec![Outcome::Stored(StoredSecret { name, version, container: container.clone(), file })];
                outcomes.extend(self.finish(container));
                return outcomes;
            }
            Attempt::Conflict(message) => return self.fail(error(OutputErrorReason::OutputConflict, message)),
            Attempt::Failed(failure) => failure,
        };
        let message = match &failure {
            Failure::Call(error) => error.to_string(),
            Failure::InTheWay(text) => text.clone(),
        };
        if self.last_try || patience.is_over(&failure, now) {
            return self.fail(error(OutputErrorReason::OutputNotStored, format!("Secret {}: {message}", desired.name)));
        }
        let wanted = if let Failure::Call(error) = &failure { error.retry_after() } else { None };
        let wait: Duration = self.backoff.delay(tries, wanted);
        log::warn!("output not stored yet: secret={} error={message:?} retry_ms={}", desired.name, wait.as_millis());
        let (work, tries, due) = (Work::Write { desired, step }, tries.saturating_add(1), now + wait);
        self.tasks.push(Task { container, file, work, tries, patience, due });
        Vec::new()
    }

    /// Asks once, before the first write.
    fn check_owner(&mut self) -> Result<(), Option<Error>> {
        if let Owner::Unknown = self.owner {
            let name = &self.plan.quarks_job;
            self.owner = match self.api.owner() {
                Ok(meta) if meta.uid != self.plan.uid => Owner::Gone(format!("QuarksJob {name} is another one than at the run's start")),
                Ok(meta) if meta.is_being_deleted() => Owner::Gone(format!("QuarksJob {name} is being deleted")),
                Ok(_) => Owner::Alive,
                Err(error) if error.is_not_found() => Owner::Gone(format!("QuarksJob {name} is gone")),
                Err(error) => return Err(Some(error)),
            };
        }
        match self.owner {
            Owner::Gone(_) => Err(None),
            Owner::Alive | Owner::Unknown => Ok(()),
        }
    }

    fn fail(&mut self, error: OutputError) -> Vec<Outcome> {
        let OutputError { reason, container, file, message } = &error;
        log::error!("output not stored: reason={reason} container={container} file={file} error={message:?}");
        let container = container.clone();
        let mut outcomes = vec![Outcome::Failed(error)];
        outcomes.extend(self.finish(container));
        outcomes
    }

    /// One task of the container less.
    fn finish(&mut self, container: String) -> Vec<Outcome> {
        let open = self.open.entry(container.clone()).or_insert(1);
        *open = open.saturating_sub(1);
        if *open > 0 {
            return Vec::new();
        }
        self.open.remove(&container);
        vec![Outcome::Finished(container)]
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
