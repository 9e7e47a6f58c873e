//! The numbers: counters and histograms without their names.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Buckets of all histograms: upper bound in microseconds, and in seconds as they are written. From an idle operator's
/// milliseconds to minutes behind a busy API server.
pub const BUCKETS: [(u64, &str); 16] = [
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
    (300_000_000, "300"),
];

/// The controllers, each with a queue of that name.
pub const CONTROLLERS: [&str; 2] = ["errand", "job"];

/// A queue and its workers.
#[derive(Debug, Default)]
pub struct Queue {
    /// Keys that wait.
    pub depth: AtomicU64,
    /// How often a key came to wait.
    pub adds: AtomicU64,
    /// How often one was put back.
    pub retries: AtomicU64,
    /// How long they waited.
    pub queue_time: Histogram,
    /// How long a worker had one.
    pub work_time: Histogram,
}

/// All numbers of a process.
#[derive(Debug)]
pub struct Registry {
    /// One a controller.
    pub queues: [Queue; CONTROLLERS.len()],
    /// From a trigger to its Job.
    pub trigger_to_job: Histogram,
    /// Code; method, resource.
    pub requests: Counters,
    /// Controller, result.
    pub reconciles: Counters,
    /// Trigger, outcome.
    pub runs: Counters,
    /// Plural, reason.
    pub restarts: Counters,
    /// 0 if there is no election, else 1 and, as leader, 2.
    pub leader: AtomicU8,
    /// Hundredths of a second since 1970.
    pub started: Option<u64>,
}

/// Counters by labels; few, so they are searched from the front.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Vec<Row>>);

/// One counter.
#[derive(Debug)]
pub struct Row {
    /// A status code, where the counters have one.
    pub code: u16,
    /// Its labels.
    pub words: [&'static str; 2],
    /// How often.
    pub count: u64,
}

impl Counters {
    /// Counts; a new one starts with `count`.
    pub fn add(&self, code: u16, words: [&'static str; 2], count: u64) {
        let mut rows = self.lock();
        match rows.iter_mut().find(|row| row.code == code && row.words == words) {
            Some(row) => row.count += count,
            None => rows.push(Row { code, words, count }),
        }
    }

    /// To read them.
    pub fn lock(&self) -> MutexGuard<'_, Vec<Row>> {
        // Plain numbers: a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Durations by size.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One a bucket, and one beyond them; not cumulative.
    pub counts: [AtomicU64; BUCKETS.len() + 1],
    /// Microseconds.
    pub sum: AtomicU64,
}

impl Histogram {
    /// One more.
    pub fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BUCKETS.len());
        self.sum.fetch_add(micros, Ordering::Relaxed);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }
}
