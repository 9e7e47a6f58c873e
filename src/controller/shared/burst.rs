//! Whether a namespace starts so many runs at once that writes which only report them are postponed.
//!
//! Promises: during a burst the API server's capacity goes into starts, so hundreds of QuarksJobs created at once have their Jobs as
//! soon as possible; no report is delayed longer than [`LIMIT`]; other namespaces are not delayed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// This many starts within the window are a burst.
const STARTS: usize = 16;
const WINDOW: Duration = Duration::from_secs(1);
/// A longer burst does not count as one: status must not be that late.
const LIMIT: Duration = Duration::from_secs(10);
/// Namespaces remembered before those without recent starts are dropped.
const REMEMBERED: usize = 64;

/// The starts of all namespaces.
#[derive(Debug, Default)]
pub struct Bursts(Mutex<HashMap<Arc<str>, Starts>>);

impl Bursts {
    /// A run has its Job.
    pub fn started(&self, namespace: &Arc<str>, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, starts| starts.is_any_within(now));
        }
        all.entry(Arc::clone(namespace)).or_insert_with(|| Starts::new(now)).add(now);
    }

    /// How long what reports a start waits, if it has to.
    pub fn wait(&self, namespace: &str, now: Instant) -> Option<Duration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(namespace).is_some_and(|starts| starts.is_burst(now)).then_some(WINDOW)
    }
}

/// The latest starts of one namespace.
#[derive(Debug)]
struct Starts {
    /// When they came to be a burst, if they are one.
    since: Instant,
    latest: VecDeque<Instant>,
}

impl Starts {
    fn new(now: Instant) -> Self {
        Self { since: now, latest: VecDeque::with_capacity(STARTS) }
    }

    fn add(&mut self, now: Instant) {
        if !self.is_dense(now) {
            self.since = now;
        }
        if self.latest.len() >= STARTS {
            self.latest.pop_front();
        }
        self.latest.push_back(now);
    }

    fn is_dense(&self, now: Instant) -> bool {
        self.latest.len() >= STARTS && self.latest.front().is_some_and(|first| now.saturating_duration_since(*first) < WINDOW)
    }

    fn is_burst(&self, now: Instant) -> bool {
        self.is_dense(now) && now.saturating_duration_since(self.since) < LIMIT
    }

    fn is_any_within(&self, now: Instant) -> bool {
        self.latest.back().is_some_and(|last| now.saturating_duration_since(*last) < WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many starts, one each so many milliseconds; whether what reports them waits then.
    fn waits(starts: u64, pause: u64, at: u64) -> bool {
        let (bursts, begin, namespace) = (Bursts::default(), Instant::now(), Arc::from("a"));
        let moment = |millis| begin + Duration::from_millis(millis);
        (0..starts).for_each(|number| bursts.started(&namespace, moment(number * pause)));
        assert_eq!(bursts.wait("b", moment(at)), None, "another namespace");
        bursts.wait("a", moment(at)).is_some()
    }

    #[test]
    fn what_reports_starts_waits_while_there_are_many_and_no_longer_than_the_limit() {
        for (what, starts, pause, at, expected) in [
            ("none", 0, 1, 1, false),
            ("a few", 15, 1, 15, false),
            ("many at once", 16, 1, 16, true),
            ("no more a second after the first of the last", 16, 1, 1_000, false),
            ("many for nearly the limit", 200, 50, 9_950, true),
            ("and for longer: 16 starts take 750 ms, and then the limit begins", 217, 50, 10_800, false),
            ("a few a second for long", 200, 67, 13_333, false),
        ] {
            assert_eq!(waits(starts, pause, at), expected, "{what}");
        }
    }

    #[test]
    fn namespaces_that_start_nothing_are_forgotten() {
        let (bursts, now) = (Bursts::default(), Instant::now());
        let starts = |range: std::ops::Range<usize>, now| range.for_each(|name| bursts.started(&Arc::from(name.to_string()), now));
        starts(0..REMEMBERED, now);
        starts(0..10, now + WINDOW);
        assert_eq!(bursts.0.lock().expect("no panic").len(), 10);
    }
}
