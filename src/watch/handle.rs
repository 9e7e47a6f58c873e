//! The handle of a watch, and what it shares with the watch's thread.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::kube::Client;

use super::WatchHealth;

/// A running watch. Dropping the handle stops the watch.
#[must_use = "dropping the handle stops the watch"]
#[derive(Debug)]
pub struct WatchHandle {
    pub(super) client: Client,
    pub(super) shared: Arc<Shared>,
    pub(super) thread: Option<JoinHandle<()>>,
    pub(super) name: &'static str,
    pub(super) namespace: String,
}

impl WatchHandle {
    /// Ends the watch: a blocked read or a wait ends at once.
    pub fn stop(&self) {
        self.shared.stop();
        self.client.shutdown();
    }

    /// Waits until the thread has ended. Does not stop it.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("watch panicked: watch={}", self.name);
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
        WatchHealth {
            synced: shared.synced.load(Ordering::Acquire),
            last_progress_age: shared.lock_progress().elapsed(),
            restarts: shared.restarts.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
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
    stopped: Mutex<bool>,
    wake: Condvar,
    progress: Mutex<Instant>,
    pub(super) synced: AtomicBool,
    pub(super) alive: AtomicBool,
    pub(super) restarts: AtomicU64,
    pub(super) failures: AtomicU32,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            stopped: Mutex::new(false),
            wake: Condvar::new(),
            progress: Mutex::new(Instant::now()),
            synced: AtomicBool::new(false),
            alive: AtomicBool::new(true),
            restarts: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        }
    }

    fn lock_stopped(&self) -> MutexGuard<'_, bool> {
        // Plain values: a panic elsewhere does not spoil them.
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_progress(&self) -> MutexGuard<'_, Instant> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn touch(&self) {
        *self.lock_progress() = Instant::now();
    }

    fn stop(&self) {
        *self.lock_stopped() = true;
        self.wake.notify_all();
    }

    /// Break if stopped, before or during the wait.
    pub(super) fn wait(&self, delay: Duration) -> ControlFlow<()> {
        let (stopped, _) =
            self.wake.wait_timeout_while(self.lock_stopped(), delay, |stopped| !*stopped).unwrap_or_else(PoisonError::into_inner);
        if *stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn check(&self) -> ControlFlow<()> {
        if *self.lock_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Tells, also after a panic, that the thread has ended.
pub(super) struct AliveGuard(pub(super) Arc<Shared>);

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
    }
}
