//! The handle of a watch, and what it shares with the watch's thread.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kube::Client;

use super::{OnEnd, WatchHealth};

/// A running watch. Dropping the handle stops the watch.
#[must_use = "dropping the handle stops the watch"]
#[derive(Debug)]
pub struct WatchHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: Option<JoinHandle<()>>,
    pub(super) name: &'static str,
    pub(super) namespace: String,
}

/// Asks a watch for fresh lists. Does not keep it running.
#[derive(Clone, Debug)]
pub struct Relister(Arc<Shared>);

impl Relister {
    /// Requests a list that starts after this call, whatever the watch is doing: a blocked read ends at once, and so does a started list.
    /// Several requests before that list starts lead to the same list. A wait after a failure continues.
    pub fn list_again(&self) {
        self.0.ask(|control| !std::mem::replace(&mut control.is_asked, true));
    }

    /// The same, unless a list that counts for this number or a higher one has started or was requested.
    pub fn list_for(&self, number: u64) {
        self.0.ask(|control| {
            let is_news = control.number < number;
            control.number = control.number.max(number);
            is_news && !std::mem::replace(&mut control.is_asked, true)
        });
    }
}

impl WatchHandle {
    /// Ends the watch: a blocked read or a wait ends at once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// To ask for fresh lists.
    pub fn relister(&self) -> Relister {
        Relister(Arc::clone(&self.shared))
    }

    /// Waits until the thread has ended. Does not stop it.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(watch:% = self.name; "watch panicked");
        }
    }

    /// Name of its thread.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Namespace of what it watches; empty for all.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// How the watch does.
    pub fn health(&self) -> WatchHealth {
        let shared = &*self.shared;
        let Progress { last, forgiven_at } = *shared.lock_progress();
        // Nobody has to send anything in an open watch, so its thread does not know yet.
        let is_forgiven = forgiven_at.is_some_and(|at| at <= Instant::now());
        WatchHealth {
            synced: shared.synced.load(Ordering::Acquire),
            last_progress_age: last.elapsed(),
            restarts: shared.restarts.load(Ordering::Relaxed),
            failures: if is_forgiven { 0 } else { shared.failures.load(Ordering::Relaxed) },
            alive: shared.alive.load(Ordering::Acquire),
        }
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What handle and thread share.
#[derive(Debug)]
pub(super) struct Shared {
    control: Mutex<Control>,
    wake: Condvar,
    progress: Mutex<Progress>,
    pub(super) synced: AtomicBool,
    pub(super) alive: AtomicBool,
    pub(super) restarts: AtomicU64,
    failures: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// When the server last sent anything.
    last: Instant,
    /// When the open watch makes up for earlier failures.
    forgiven_at: Option<Instant>,
}

/// What others want of the thread.
#[derive(Debug)]
struct Control {
    stopped: bool,
    /// The client to use. One that was shut down to free a blocked read is replaced.
    client: Client,
    /// A list has to begin.
    is_asked: bool,
    /// The highest number that lists were requested for.
    number: u64,
}

impl Shared {
    pub(super) fn new(client: Client) -> Self {
        Self {
            control: Mutex::new(Control { stopped: false, client, is_asked: false, number: 0 }),
            wake: Condvar::new(),
            progress: Mutex::new(Progress { last: Instant::now(), forgiven_at: None }),
            synced: AtomicBool::new(false),
            alive: AtomicBool::new(true),
            restarts: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        // Every change is one step: a panic elsewhere leaves nothing half done.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn touch(&self) {
        self.lock_progress().last = Instant::now();
    }

    /// A watch is open. One that is for this long makes up for earlier failures.
    pub(super) fn opened(&self, short: Duration) {
        let now = Instant::now();
        *self.lock_progress() = Progress { last: now, forgiven_at: Some(now + short) };
    }

    /// A request is over; failures in a row since the last watch that lived.
    pub(super) fn ended(&self, failures: u32) {
        self.failures.store(failures, Ordering::Relaxed);
        self.lock_progress().forgiven_at = None;
    }

    fn stop(&self) {
        let client = {
            let mut control = self.lock();
            control.stopped = true;
            control.client.clone()
        };
        self.wake.notify_all();
        client.shutdown();
    }

    /// Frees the thread if `change` says that there is something new for it.
    fn ask(&self, change: impl FnOnce(&mut Control) -> bool) {
        let old = {
            let mut control = self.lock();
            if control.stopped || !change(&mut control) {
                return;
            }
            let fresh = control.client.fork();
            std::mem::replace(&mut control.client, fresh)
        };
        self.wake.notify_all();
        old.shutdown();
    }

    /// The client to use for the next request.
    pub(super) fn client(&self) -> Client {
        self.lock().client.clone()
    }

    /// The client to watch with, unless a list is requested: then nothing would end that watch. A later request ends what uses the client.
    pub(super) fn client_unless_asked(&self) -> Option<Client> {
        let control = self.lock();
        (!control.is_asked).then(|| control.client.clone())
    }

    /// A list starts: the number it was requested for. Requests from now on get another list.
    pub(super) fn begin_list(&self) -> u64 {
        let mut control = self.lock();
        control.is_asked = false;
        control.number
    }

    /// True if a list has to begin.
    pub(super) fn is_asked(&self) -> bool {
        self.lock().is_asked
    }

    /// Waits until a list is requested. Break if stopped.
    pub(super) fn wait_asked(&self) -> ControlFlow<()> {
        let control =
            self.wake.wait_while(self.lock(), |control| !control.stopped && !control.is_asked).unwrap_or_else(PoisonError::into_inner);
        if control.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Break if stopped, before or during the wait.
    pub(super) fn wait(&self, delay: Duration) -> ControlFlow<()> {
        let (control, _) =
            self.wake.wait_timeout_while(self.lock(), delay, |control| !control.stopped).unwrap_or_else(PoisonError::into_inner);
        if control.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn check(&self) -> ControlFlow<()> {
        if self.lock().stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Tells, also after a panic, that the thread has ended.
pub(super) struct AliveGuard(pub(super) Arc<Shared>, pub(super) Option<OnEnd>);

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
        if let Some(on_end) = &self.1 {
            on_end();
        }
    }
}
