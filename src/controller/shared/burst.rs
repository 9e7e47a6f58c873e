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
/// What reports a start waits for no longer than this after it: status must not be that late.
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
        all.entry(Arc::clone(namespace)).or_default().add(now);
    }

    /// How long what reports a start of this process, at `started`, waits, if it has to.
    pub fn wait(&self, namespace: &str, started: Option<Instant>, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(started?);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_burst = all.get(namespace).is_some_and(|starts| starts.is_burst(now));
        (is_burst && age < LIMIT).then(|| WINDOW.min(LIMIT - age))
    }
}

/// The latest starts of one namespace.
#[derive(Debug, Default)]
struct Starts(VecDeque<Instant>);

impl Starts {
    fn add(&mut self, now: Instant) {
        if self.0.len() >= STARTS {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    fn is_burst(&self, now: Instant) -> bool {
        self.0.len() >= STARTS && self.0.front().is_some_and(|first| now.saturating_duration_since(*first) < WINDOW)
    }

    fn is_any_within(&self, now: Instant) -> bool {
        self.0.back().is_some_and(|last| now.saturating_duration_since(*last) < WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts, one each `pause` milliseconds; how many milliseconds what reports the one at `started` waits at `at`.
    fn waits(starts: u64, pause: u64, started: u64, at: u64) -> Option<u64> {
        let (bursts, begin, namespace) = (Bursts::default(), Instant::now(), Arc::from("a"));
        let moment = |millis| begin + Duration::from_millis(millis);
        (0..starts).for_each(|number| bursts.started(&namespace, moment(number * pause)));
        assert_eq!(bursts.wait("b", Some(moment(started)), moment(at)), None, "another namespace");
        assert_eq!(bursts.wait("a", None, moment(at)), None, "of another process");
        let wait = bursts.wait("a", Some(moment(started)), moment(at))?;
        u64::try_from(wait.as_millis()).ok()
    }

    #[test]
    fn what_reports_a_start_waits_while_there_are_many_and_no_longer_than_the_limit() {
        for (what, starts, pause, started, at, expected) in [
            ("none", 0, 1, 0, 1, None),
            ("a few", 15, 1, 0, 15, None),
            ("many at once", 16, 1, 0, 16, Some(1_000)),
            ("a second after the first of the last", 16, 1, 0, 1_000, None),
            ("a few a second for long", 200, 67, 13_000, 13_333, None),
            ("many for long", 1_000, 50, 49_000, 49_950, Some(1_000)),
            ("near the limit", 1_000, 50, 40_050, 49_950, Some(100)),
            ("at the limit", 1_000, 50, 39_950, 49_950, None),
        ] {
            assert_eq!(waits(starts, pause, started, at), expected, "{what}");
        }
    }

    #[test]
    fn no_report_is_later_than_the_limit_whatever_the_pauses_between_bursts() {
        // Each second twenty at once, and a look each second: the gaps between bursts do not begin the limit anew.
        let (bursts, begin, namespace) = (Bursts::default(), Instant::now(), Arc::from("a"));
        let mut reported = None;
        for millis in (0..60_000).step_by(20) {
            let now = begin + Duration::from_millis(millis);
            if millis % 1_040 < 400 {
                bursts.started(&namespace, now);
            }
            if millis % 1_000 == 20 && bursts.wait("a", Some(begin), now).is_none() {
                reported.get_or_insert(now - begin);
            }
        }
        assert!(reported.is_some_and(|late| late < LIMIT + WINDOW), "{reported:?}");
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
