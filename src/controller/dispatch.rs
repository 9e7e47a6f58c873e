//! The threads of one controller: one owns the queue and gives keys to idle workers. Used twice; it knows nothing about QuarksJobs.
//!
//! Bounded channels point one way. Keys go only to idle workers and there is room for every worker's answer, so there is no
//! circular wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender, bounded, select};
use log::{debug, error, warn};

use crate::api::ObjectKey;
use crate::kube::headers::RETRY_AFTER_MIN;
use crate::kube::{Answer, Error};
use crate::metrics::{ControllerMetrics, Reconciled};
use crate::queue::{Backoff, Queue};
use crate::shutdown::Shutdown;
use crate::threads::Thread;
use crate::watch::Jitter;

use super::health::{Pulse, Pulses};
use super::shared::decision::Outcome;

/// Sets of keys that wait for the owner of the queue.
const CHANNEL: usize = 256;
/// Keys that failed: first and longest delay.
const RETRY: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(60) };
/// What the API server refuses as invalid is retried no sooner: only an edit or a new CRD helps.
const INVALID_RETRY: Duration = Duration::from_secs(60);
/// The owner of the queue shows at least this often that it moves.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Running requests get this long after the shutdown; the process must be gone 5 s after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(4);
/// A worker that is busy with one key for this long is worth a line.
const SLOW: Duration = Duration::from_secs(60);

/// What the owner of a queue learns about keys.
#[derive(Debug)]
enum Told {
    /// They must be checked.
    Changed(Vec<ObjectKey>),
    /// The same, after those that users have changed.
    Due(Vec<ObjectKey>),
    /// They stand for another object now, or for none: nothing that the old one waited for counts.
    Renewed(Vec<ObjectKey>),
}

/// Sends keys to one controller.
#[derive(Clone, Debug)]
pub struct KeySender(Sender<Told>);

/// The receiver is gone: the program ends.
pub type Closed = SendError<()>;

impl KeySender {
    /// They must be checked. Without any it wakes the controller, which looks whether it may work.
    pub fn changed(&self, keys: Vec<ObjectKey>) -> Result<(), Closed> {
        self.0.send(Told::Changed(keys)).map_err(|_| SendError(()))
    }

    /// They must be checked, after those that users have changed: there may be hundreds.
    pub fn due(&self, keys: Vec<ObjectKey>) -> Result<(), Closed> {
        if keys.is_empty() { Ok(()) } else { self.0.send(Told::Due(keys)).map_err(|_| SendError(())) }
    }

    /// They stand for another object now, or for none.
    pub fn renewed(&self, keys: Vec<ObjectKey>) -> Result<(), Closed> {
        if keys.is_empty() { Ok(()) } else { self.0.send(Told::Renewed(keys)).map_err(|_| SendError(())) }
    }
}

/// Where the owner of a queue receives keys.
#[derive(Debug)]
pub struct Keys(Receiver<Told>);

/// A way for keys to a controller.
pub fn keys() -> (KeySender, Keys) {
    let (sender, receiver) = bounded(CHANNEL);
    (KeySender(sender), Keys(receiver))
}

/// What a worker does with a key that waited since then.
pub type Work = Arc<dyn Fn(&ObjectKey, Instant) -> Outcome + Send + Sync>;

/// What the owner of the queue does besides.
pub trait Beside: Send {
    /// False until keys may be worked on.
    fn is_ready(&mut self) -> bool;
    /// A key came to wait.
    fn came(&mut self, _key: &ObjectKey) {}
    /// Whatever is to be done now and then.
    fn adjust(&mut self, _now: Instant) {}
}

/// A controller to be started.
pub struct Dispatch {
    /// Of the owner's thread, and of the workers'.
    pub names: (&'static str, &'static str),
    /// Keys that are worked on at once.
    pub workers: usize,
    /// Where keys come from.
    pub keys: Keys,
    /// What a worker does with a key.
    pub work: Work,
    /// Where it is counted.
    pub metrics: ControllerMetrics,
}

type Taken = (ObjectKey, Instant);
type Through = (ObjectKey, Option<Outcome>);

impl Dispatch {
    /// Starts the threads. They end after `shutdown`, when the workers are done with their current keys.
    pub(super) fn start(
        self,
        beside: Box<dyn Beside>,
        shutdown: &Shutdown,
        panics: &Sender<&'static str>,
        threads: &mut Vec<Thread>,
    ) -> std::io::Result<Pulses> {
        let Self { names, workers, keys, work, metrics } = self;
        let (name, worker) = names;
        let (to_work, taken) = bounded::<Taken>(workers);
        let (through, done) = bounded::<Through>(workers);
        let pulses = Pulses { names, owner: Pulse::new(), workers: Arc::new((0..workers).map(|_| Pulse::new()).collect()) };
        // Of one namespace at most half of the workers: one where calls hang cannot stop the others.
        let queue = Queue::new(RETRY, workers / 2);
        let owner = Owner { queue, idle: workers, to_work, done, keys: keys.0, beside, metrics: metrics.clone() };
        let (pulse, shutdown) = (pulses.owner.clone(), shutdown.clone());
        threads.push(Thread::spawn(name, panics, move || owner.run(&pulse, &shutdown))?);
        for pulse in &*pulses.workers {
            let (work, taken, through, metrics, pulse) =
                (Arc::clone(&work), taken.clone(), through.clone(), metrics.clone(), pulse.clone());
            threads.push(Thread::spawn(worker, panics, move || serve(&work, &taken, &through, &metrics, &pulse))?);
        }
        Ok(pulses)
    }
}

/// One worker: a key in, what becomes of it out. A panic is a failure of this key only.
fn serve(work: &Work, taken: &Receiver<Taken>, through: &Sender<Through>, metrics: &ControllerMetrics, pulse: &Pulse) {
    pulse.rest();
    for (key, since) in taken {
        let started = Instant::now();
        pulse.beat();
        let outcome =
            catch_unwind(AssertUnwindSafe(|| work(&key, since))).inspect_err(|_| error!(key:%; "worker panicked; the key is retried")).ok();
        pulse.rest();
        let time = started.elapsed();
        metrics.worked(time);
        if time > SLOW {
            warn!(key:%, seconds:% = time.as_secs(); "slow key");
        }
        if through.send((key, outcome)).is_err() {
            return;
        }
    }
}

/// Owner of the queue.
struct Owner {
    queue: Queue,
    idle: usize,
    to_work: Sender<Taken>,
    done: Receiver<Through>,
    keys: Receiver<Told>,
    beside: Box<dyn Beside>,
    metrics: ControllerMetrics,
}

impl Owner {
    fn run(mut self, pulse: &Pulse, shutdown: &Shutdown) {
        let mut jitter = Jitter::from_entropy();
        loop {
            pulse.beat();
            let now = Instant::now();
            if self.beside.is_ready() && self.hand_out(now).is_err() {
                return;
            }
            self.metrics.queue(self.queue.depth(), self.queue.adds());
            let due = self.queue.next_due().filter(|_| self.idle > 0);
            let wait = due.map_or(HEARTBEAT, |due| due.saturating_duration_since(now).min(HEARTBEAT));
            select! {
                recv(shutdown.channel()) -> _ => return self.drain(),
                recv(self.done) -> message => match message {
                    Ok((key, outcome)) => self.finish(&key, outcome, jitter.next_factor()),
                    Err(_) => return,
                },
                recv(self.keys) -> message => match message {
                    Ok(Told::Renewed(keys)) => keys.iter().for_each(|key| self.queue.forget(key)),
                    Ok(Told::Changed(keys)) => self.add(keys),
                    Ok(Told::Due(keys)) => {
                        let now = Instant::now();
                        keys.into_iter().for_each(|key| self.queue.come_due(key, now));
                    }
                    Err(_) => return,
                },
                default(wait) => {}
            }
        }
    }

    fn hand_out(&mut self, now: Instant) -> Result<(), Closed> {
        while self.idle > 0 {
            let Some((key, since)) = self.queue.take(now) else { break };
            self.metrics.waited(now.saturating_duration_since(since));
            self.to_work.send((key, since)).map_err(|_| SendError(()))?;
            self.idle -= 1;
        }
        self.beside.adjust(now);
        Ok(())
    }

    fn add(&mut self, keys: Vec<ObjectKey>) {
        let now = Instant::now();
        for key in keys {
            self.beside.came(&key);
            self.queue.add(key, now);
        }
    }

    fn finish(&mut self, key: &ObjectKey, outcome: Option<Outcome>, jitter: f64) {
        self.idle += 1;
        let now = Instant::now();
        self.metrics.reconciled(match &outcome {
            Some(Outcome::Done | Outcome::NotMine) => Reconciled::Success,
            Some(Outcome::RequeueAfter(wait)) if wait.is_zero() => Reconciled::Requeue,
            Some(Outcome::RequeueAfter(_)) => Reconciled::RequeueAfter,
            Some(Outcome::Retry(_)) | None => Reconciled::Error,
        });
        match outcome {
            Some(Outcome::Done) => self.queue.done(key, now),
            Some(Outcome::NotMine) => self.queue.not_mine(key, now),
            Some(Outcome::RequeueAfter(wait)) => self.queue.done_until(key, now + wait, now),
            // The server's load is not this key's fault.
            Some(Outcome::Retry(error)) if error.answer() == Answer::Busy => {
                let pause = error.retry_after().unwrap_or(RETRY_AFTER_MIN).mul_f64(1.0 + jitter / 4.0);
                self.queue.done_until(key, now + pause, now);
                log_failure(key, &error);
            }
            Some(Outcome::Retry(error)) => {
                let at_least = if error.is_invalid() { Some(INVALID_RETRY) } else { error.retry_after() };
                self.queue.failed(key, at_least, jitter, now);
                log_failure(key, &error);
            }
            None => self.queue.failed(key, None, jitter, now),
        }
    }

    /// No new keys; the workers end when the channel closes, after their current keys.
    fn drain(self) {
        let Self { queue, idle: _, to_work, done, keys, beside, metrics: _ } = self;
        // A worker of the other controller that hands a key over must not wait for room.
        drop(keys);
        drop(beside);
        drop(to_work);
        debug!(busy:% = queue.in_work(); "waiting for workers");
        // The channel closes when the last worker is gone.
        let deadline = Instant::now() + DRAIN;
        while done.recv_deadline(deadline).is_ok() {}
    }
}

fn log_failure(key: &ObjectKey, error: &Error) {
    if error.is_shutdown() {
        debug!(key:%; "interrupted by shutdown");
    } else if !error.is_forbidden() {
        // What is forbidden was reported with the remedy.
        warn!(key:%, error:%; "failed; will retry");
    }
}
