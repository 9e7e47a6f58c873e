//! How often something may happen for one QuarksJob. Pure: time is an argument.
//!
//! Promises: what fails, or is not stored, is retried ever more slowly; a key makes few writes per minute while nothing changes,
//! whatever the reason; QuarksJobs that trigger each other slow down.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::queue::Backoff;

/// What is refused (quota, admission, rights): how long until the next try.
pub const REFUSAL_BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(60) };

/// Something did not work: not again before a moment that moves away with each failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Not before.
    pub until: Instant,
    /// Consecutive failures.
    pub failures: u32,
}

impl Pause {
    /// The pause after one more failure.
    pub fn after(earlier: Option<Self>, backoff: Backoff, now: Instant) -> Self {
        let failures = earlier.map_or(0, |pause| pause.failures).saturating_add(1);
        Self { until: now + backoff.delay(failures, 0.0), failures }
    }
}

/// Writes that a key may make in [`PACE_WINDOW`] while nothing changes, and steps of its clean-up, which are counted apart. A whole run makes
/// fewer.
pub const PACE_MAX: usize = 12;
/// The same of clean-up.
pub const TIDY_PACE_MAX: usize = 6;
/// The limit for all writes of a key is 20 in this time.
const PACE_WINDOW: Duration = Duration::from_secs(60);

/// Counts writes that were made on the same grounds. A decision that is taken again and again means that its write has no effect: the CRD
/// is older than the operator, say, or a webhook undoes it.
#[derive(Clone, Debug, Default)]
pub struct Pace<const MAX: usize> {
    grounds: u64,
    writes: VecDeque<Instant>,
}

impl<const MAX: usize> Pace<MAX> {
    /// Until when to wait before the next write on these grounds (a hash of all that a decision rests on and others can change).
    pub fn until(&mut self, grounds: u64, now: Instant) -> Option<Instant> {
        if self.grounds != grounds {
            self.grounds = grounds;
            self.writes.clear();
        }
        while self.writes.front().is_some_and(|at| now.saturating_duration_since(*at) >= PACE_WINDOW) {
            self.writes.pop_front();
        }
        let first = self.writes.front().filter(|_| self.writes.len() >= MAX);
        first.map(|at| *at + PACE_WINDOW)
    }

    /// A write was acknowledged.
    pub fn wrote(&mut self, now: Instant) {
        self.writes.push_back(now);
    }

    /// True if forgetting it could let too many writes through.
    pub fn is_needed(&self) -> bool {
        self.writes.len() > MAX / 2
    }
}

/// Config runs within [`LOOP_WINDOW`] that look like a loop.
const LOOP_RUNS: usize = 5;
/// Runs that are further apart, not counting the pause that a loop already has, are not a loop.
const LOOP_WINDOW: Duration = Duration::from_secs(600);
/// Pauses of a loop: twice the second of quiet that ends a burst of edits, doubled with each run.
const LOOP_PAUSE: Backoff = Backoff { first: Duration::from_secs(2), max: LOOP_WINDOW };

/// Runs that config changes have started, one after the other.
#[derive(Clone, Debug, Default)]
pub struct ConfigLoop {
    starts: VecDeque<Instant>,
    /// Runs since it looks like a loop.
    runs: u32,
}

impl ConfigLoop {
    /// A config change has started a run. Returns the pause until the next one may start, if this looks like a loop.
    pub fn started(&mut self, now: Instant) -> Option<Duration> {
        self.forget(now);
        self.starts.push_back(now);
        if self.starts.len() > LOOP_RUNS {
            self.starts.pop_front();
        }
        if self.starts.len() >= LOOP_RUNS {
            self.runs = self.runs.saturating_add(1);
        }
        self.pause()
    }

    /// Until when config changes wait.
    pub fn until(&self) -> Option<Instant> {
        self.starts.back().and_then(|last| Some(*last + self.pause()?))
    }

    /// How long it takes until nothing of it matters; `None` if nothing does.
    pub fn rest(&mut self, now: Instant) -> Option<Duration> {
        self.forget(now);
        self.starts.back().map(|last| (*last + self.horizon()).saturating_duration_since(now))
    }

    /// True if nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    fn pause(&self) -> Option<Duration> {
        (self.runs > 0).then(|| LOOP_PAUSE.delay(self.runs, 0.0))
    }

    /// A run this long after the last one is not part of a loop.
    fn horizon(&self) -> Duration {
        LOOP_WINDOW + self.pause().unwrap_or_default()
    }

    fn forget(&mut self, now: Instant) {
        if self.starts.back().is_some_and(|last| now.saturating_duration_since(*last) >= self.horizon()) {
            *self = Self::default();
        }
        // In a loop the runs are far apart; what counts there is that one follows the other.
        while self.runs == 0 && self.starts.front().is_some_and(|at| now.saturating_duration_since(*at) >= LOOP_WINDOW) {
            self.starts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow() {
        let (backoff, now) = (Backoff { first: SECOND * 2, max: SECOND * 60 }, Instant::now());
        let mut pause = None;
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            let next = Pause::after(pause, backoff, now);
            assert_eq!(next.until - now, SECOND * seconds);
            pause = Some(next);
        }
    }

    #[test]
    fn writes_on_the_same_grounds_are_few() {
        let (mut pace, start) = (Pace::<PACE_MAX>::default(), Instant::now());
        let mut writes = 0;
        for millis in 0..120_000_u64 {
            let now = start + Duration::from_millis(millis);
            if pace.until(1, now).is_none() {
                pace.wrote(now);
                writes += 1;
            }
        }
        assert_eq!(writes, 2 * PACE_MAX, "in two minutes");
        assert!(PACE_MAX + TIDY_PACE_MAX < 20 && pace.is_needed());
        let end = start + 120 * SECOND;
        assert_eq!(pace.until(2, end), None, "something has changed");
        assert!(!pace.is_needed());
        pace.wrote(end);
        assert_eq!(pace.until(1, end), None);
    }

    #[test]
    fn the_pace_says_when_it_goes_on() {
        let (mut pace, start) = (Pace::<PACE_MAX>::default(), Instant::now());
        (0..PACE_MAX).for_each(|at| pace.wrote(start + SECOND * at as u32));
        assert_eq!(pace.until(0, start + 30 * SECOND), Some(start + PACE_WINDOW));
        assert_eq!(pace.until(0, start + PACE_WINDOW), None);
    }

    /// Starts at these seconds; the pauses after each.
    fn pauses(starts: &[u64]) -> Vec<Option<u64>> {
        let (mut config, begin) = (ConfigLoop::default(), Instant::now());
        starts.iter().map(|at| config.started(begin + SECOND * *at as u32).map(|pause| pause.as_secs())).collect()
    }

    #[test]
    fn runs_that_follow_each_other_slow_down() {
        assert_eq!(pauses(&[0, 1, 2, 3]), [None; 4]);
        assert_eq!(pauses(&[0, 1, 2, 3, 4, 6, 10, 18]), [None, None, None, None, Some(2), Some(4), Some(8), Some(16)]);
        assert_eq!(pauses(&[0, 149, 298, 447, 599])[4], Some(2), "the fifth within ten minutes");
        assert_eq!(pauses(&[0, 150, 300, 450, 600])[4], None, "the first is ten minutes ago");
        // Each at once after the pause before it.
        let mut starts = vec![0, 0, 0, 0, 0];
        let mut last = 0;
        for pause in [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600] {
            last += pause;
            starts.push(last);
        }
        let longest: Vec<_> = pauses(&starts)[12..16].to_vec();
        assert_eq!(longest, [Some(512), Some(600), Some(600), Some(600)], "ten minutes at most");
    }

    #[test]
    fn a_loop_is_over_when_nothing_follows() {
        let (mut config, begin) = (ConfigLoop::default(), Instant::now());
        (0..6).for_each(|_| _ = config.started(begin));
        assert_eq!(config.until(), Some(begin + 4 * SECOND));
        assert_eq!(config.rest(begin), Some(604 * SECOND));
        assert_eq!(config.rest(begin + 603 * SECOND), Some(SECOND));
        assert_eq!(config.started(begin + 603 * SECOND), Some(8 * SECOND), "still the same loop");
        assert_eq!(config.rest(begin + 10_000 * SECOND), None);
        assert!(config.is_empty() && config.until().is_none());
        assert_eq!(config.started(begin + 10_000 * SECOND), None);
        assert!(!config.is_empty());
    }
}
