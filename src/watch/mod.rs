//! Lists that stay up to date: one thread per watch lists, watches, resumes and lists again.
//!
//! Promises: a list is delivered whole or not at all; a relist is never older than what was delivered before, because lists request
//! the most recent state; within one watch the server's order is kept; a silent connection is replaced; stopping takes no longer
//! than a TCP connect in progress; nothing is kept of objects that are not ours, and of a list no more than one object at a time
//! besides what is kept.

mod handle;
mod jitter;
mod state;
mod watcher;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

pub use handle::{Relister, WatchHandle};
pub use jitter::Jitter;
pub use watcher::{spawn, spawn_filtered, spawn_with};

use crate::api::{ObjectKey, Resource};

/// Called for each restart of a watch: the resource's plural, and why.
pub type OnRestart = Arc<dyn Fn(&'static str, &'static str) + Send + Sync>;

/// Called after each list that was delivered whole, with the number that it was started for ([`Relister::list_for`]). Break ends the watch.
pub type OnListed = Arc<dyn Fn(u64) -> ControlFlow<()> + Send + Sync>;

/// Called when the thread has ended, also by a panic.
pub type OnEnd = Arc<dyn Fn() + Send + Sync>;

/// What to watch.
#[derive(Clone)]
pub struct WatchSpec {
    /// Name of the thread, and of the watch in logs, for example `watch-qjobs`.
    pub name: &'static str,
    /// The kind of objects.
    pub resource: Resource,
    /// Their namespace; empty for all, and for cluster-scoped kinds.
    pub namespace: String,
    /// For example `metadata.name=a`.
    pub field_selector: Option<String>,
    /// For example `app=a`.
    pub label_selector: Option<String>,
    /// Objects in one page of a list.
    pub page_limit: u32,
    /// Requests metadata only: content is then not even sent.
    pub metadata_only: bool,
    /// Only what changes matters: objects of lists are not even requested, and each list is delivered empty.
    pub changes_only: bool,
    /// The first list waits until it is requested.
    pub is_held: bool,
    /// Called for each restart.
    pub on_restart: Option<OnRestart>,
    /// Called for each list.
    pub on_listed: Option<OnListed>,
    /// Called at the thread's end.
    pub on_end: Option<OnEnd>,
    /// The command to run if the right is missing, for the log.
    pub remedy: String,
}

impl WatchSpec {
    /// All objects of a kind, in pages of 500, as client-go does: a page is read object by object, so its size costs the
    /// server a little memory, us none, and 100,000 objects take 200 requests. A page that takes too long is requested in smaller ones.
    pub fn new(name: &'static str, resource: Resource) -> Self {
        Self {
            name,
            resource,
            namespace: String::new(),
            field_selector: None,
            label_selector: None,
            page_limit: 500,
            metadata_only: false,
            changes_only: false,
            is_held: false,
            on_restart: None,
            on_listed: None,
            on_end: None,
            remedy: String::new(),
        }
    }
}

/// Limits of a watch.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchTimings {
    /// The server is asked to end a watch after a time in this range, in seconds; jittered so that watches
    /// do not end together. Below 240 s, after which idle flows are dropped silently by load balancers.
    pub timeout_seconds: (u32, u32),
    /// Silence after which the connection counts as dead: just above the range's end.
    pub idle: Duration,
    /// First wait after a failure.
    pub backoff_min: Duration,
    /// Longest wait after failures, unless the server requests more.
    pub backoff_max: Duration,
    /// A watch that ends sooner than this was no watch: a server that closes each at once must not be
    /// asked again at once.
    pub short: Duration,
    /// Longest frame, and longest object of a list, in bytes. An object has at most 1.5 MiB in etcd; JSON escapes can make it longer.
    pub line_max: usize,
}

impl Default for WatchTimings {
    fn default() -> Self {
        Self {
            timeout_seconds: (180, 230),
            idle: Duration::from_secs(240),
            backoff_min: Duration::from_millis(800),
            backoff_max: Duration::from_secs(30),
            short: Duration::from_secs(1),
            line_max: 8 * 1024 * 1024,
        }
    }
}

/// What happened to the watched objects.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<T> {
    /// A complete fresh list: what is not in it is gone.
    Replaced(Vec<T>),
    /// Added or changed. May repeat what is known.
    Applied(T),
    /// Deleted, or no longer ours, or never ours.
    Deleted(ObjectKey),
}

impl<T> WatchEvent<T> {
    fn map<U>(self, change: impl Fn(T) -> U) -> WatchEvent<U> {
        match self {
            Self::Replaced(items) => WatchEvent::Replaced(items.into_iter().map(change).collect()),
            Self::Applied(item) => WatchEvent::Applied(change(item)),
            Self::Deleted(key) => WatchEvent::Deleted(key),
        }
    }
}

/// How a watch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchHealth {
    /// True once a complete list was delivered.
    pub synced: bool,
    /// Time since the server last sent anything. On a quiet cluster up to the idle limit and a little more.
    pub last_progress_age: Duration,
    /// Restarts for any other reason than the watch's own time limit.
    pub restarts: u64,
    /// Failures in a row; 0 while all is well.
    pub failures: u32,
    /// False once the thread has ended.
    pub alive: bool,
}
