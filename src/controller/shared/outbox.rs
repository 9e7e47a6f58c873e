//! What is waiting to be posted, one line per namespace (pure): time is an argument.
//!
//! Promises: while one namespace has to wait, all others continue; messages of one namespace stay in order; the number of waiting
//! messages is bounded. Not for what is posted and what an answer means: see `events`.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::queue::Backoff;

/// Messages that wait in all.
const WAITING_MAX: usize = 1_024;
/// Messages of one namespace that wait: others need room, too.
const LINE_MAX: usize = 128;
/// How long a namespace waits after failures in a row.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
/// No wait is longer, whatever a server requests.
const HELD_MAX: Duration = Duration::from_secs(600);
/// A namespace that has had no message for this long after its wait starts from scratch.
const FORGET: Duration = Duration::from_secs(600);

/// What becomes of a new message.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered<T> {
    /// Its namespace does not wait.
    PostNow(T),
    /// It waits behind others.
    Waits,
    /// Too many wait.
    Full(T),
}

/// Messages that wait.
#[derive(Debug)]
pub struct Outbox<T> {
    lines: HashMap<Arc<str>, Line<T>>,
    waiting: usize,
}

#[derive(Debug)]
struct Line<T> {
    until: Instant,
    failures: u32,
    messages: VecDeque<T>,
}

impl<T> Line<T> {
    fn is_due(&self, now: Instant) -> bool {
        self.until <= now
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), waiting: 0 }
    }
}

impl<T> Outbox<T> {
    /// Takes a new message.
    pub fn offer(&mut self, namespace: &str, message: T, now: Instant) -> Offered<T> {
        match self.lines.get_mut(namespace) {
            Some(line) if !line.messages.is_empty() || !line.is_due(now) => {
                if line.messages.len() >= LINE_MAX || self.waiting >= WAITING_MAX {
                    return Offered::Full(message);
                }
                line.messages.push_back(message);
                self.waiting += 1;
                Offered::Waits
            }
            Some(_) | None => Offered::PostNow(message),
        }
    }

    /// The message that has been due for longest.
    pub fn take(&mut self, now: Instant) -> Option<T> {
        let due = self.lines.values_mut().filter(|line| !line.messages.is_empty() && line.is_due(now));
        let message = due.min_by_key(|line| line.until)?.messages.pop_front();
        self.waiting -= usize::from(message.is_some());
        message
    }

    /// When a message is due next.
    pub fn next_due(&self) -> Option<Instant> {
        self.lines.values().filter(|line| !line.messages.is_empty()).map(|line| line.until).min()
    }

    /// The namespace has answered: what else waits there is due.
    pub fn answered(&mut self, namespace: &str, now: Instant) {
        let Some(line) = self.lines.get_mut(namespace) else { return };
        if line.messages.is_empty() {
            self.lines.remove(namespace);
        } else {
            // Behind the other namespaces that are due.
            line.until = now;
            line.failures = 0;
        }
    }

    /// The namespace waits, for `at_least` this long. The message, if it is to be retried, goes first; it comes back if too
    /// many wait.
    pub fn failed(&mut self, namespace: &Arc<str>, message: Option<T>, at_least: Duration, now: Instant) -> Option<T> {
        self.lines.retain(|_, line| !line.messages.is_empty() || now.saturating_duration_since(line.until) < FORGET);
        let new = || Line { until: now, failures: 0, messages: VecDeque::new() };
        let line = self.lines.entry(Arc::clone(namespace)).or_insert_with(new);
        line.failures = line.failures.saturating_add(1);
        line.until = now + BACKOFF.delay(line.failures, 0.0).max(at_least).min(HELD_MAX);
        if self.waiting >= WAITING_MAX {
            return message;
        }
        if let Some(message) = message {
            line.messages.push_front(message);
            self.waiting += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds from the start.
    struct Bench {
        start: Instant,
        outbox: Outbox<&'static str>,
    }

    impl Bench {
        fn new() -> Self {
            Self { start: Instant::now(), outbox: Outbox::default() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn offer(&mut self, namespace: &str, message: &'static str, seconds: u64) -> Offered<&'static str> {
            let now = self.at(seconds);
            self.outbox.offer(namespace, message, now)
        }

        fn failed(&mut self, namespace: &str, message: Option<&'static str>, at_least: u64, seconds: u64) {
            let now = self.at(seconds);
            assert_eq!(self.outbox.failed(&namespace.into(), message, Duration::from_secs(at_least), now), None);
        }

        fn answered(&mut self, namespace: &str, seconds: u64) {
            let now = self.at(seconds);
            self.outbox.answered(namespace, now);
        }

        fn take(&mut self, seconds: u64) -> Option<&'static str> {
            let now = self.at(seconds);
            self.outbox.take(now)
        }

        /// In seconds.
        fn next_due(&self) -> Option<u64> {
            self.outbox.next_due().map(|due| due.duration_since(self.start).as_secs())
        }
    }

    #[test]
    fn while_one_namespace_waits_others_go_on_and_its_messages_stay_in_order() {
        let mut bench = Bench::new();
        assert_eq!(bench.offer("a", "a1", 0), Offered::PostNow("a1"));
        bench.failed("a", Some("a1"), 7, 0);
        assert_eq!(bench.offer("a", "a2", 1), Offered::Waits);
        assert_eq!(bench.offer("b", "b1", 1), Offered::PostNow("b1"));
        assert_eq!((bench.next_due(), bench.take(6)), (Some(7), None));
        // A new one does not overtake what waits, even when that is due.
        assert_eq!(bench.offer("a", "a3", 8), Offered::Waits);
        assert_eq!(bench.take(8), Some("a1"));
        bench.failed("a", Some("a1"), 0, 8);
        assert_eq!((bench.next_due(), bench.take(9), bench.take(10)), (Some(10), None, Some("a1")));
        bench.answered("a", 10);
        assert_eq!(bench.next_due(), Some(10));
        assert_eq!([bench.take(10), bench.take(10), bench.take(10)], [Some("a2"), Some("a3"), None]);
        bench.answered("a", 11);
        assert_eq!((bench.next_due(), bench.offer("a", "a4", 11)), (None, Offered::PostNow("a4")));
    }

    #[test]
    fn a_namespace_waits_after_its_last_message_was_given_up_too() {
        let mut bench = Bench::new();
        bench.failed("a", None, 0, 0);
        assert_eq!((bench.next_due(), bench.offer("a", "a1", 0)), (None, Offered::Waits));
        assert_eq!((bench.next_due(), bench.take(0), bench.take(1)), (Some(1), None, Some("a1")));
        assert_eq!(bench.offer("a", "a2", 1), Offered::PostNow("a2"), "nothing waits, and the wait is over");
    }

    #[test]
    fn waits_grow_to_limits_and_are_forgotten() {
        let mut bench = Bench::new();
        let mut waits = Vec::new();
        let mut now = 0;
        for _ in 0..8 {
            bench.failed("a", Some("a"), 0, now);
            let due = bench.next_due().unwrap();
            waits.push(due - now);
            now = due;
            assert_eq!(bench.take(now), Some("a"));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        // What the server requests counts, up to a limit.
        for (asked, expected) in [(90, 90), (100_000, 600)] {
            bench.failed("a", Some("a"), asked, now);
            assert_eq!((bench.next_due(), bench.take(now + expected)), (Some(now + expected), Some("a")));
        }
        // Another namespace's failure is when old ones go.
        let over = now + 600;
        bench.failed("b", None, 0, over + 599);
        assert!(bench.outbox.lines.contains_key("a"));
        bench.failed("b", None, 0, over + 600);
        assert!(!bench.outbox.lines.contains_key("a") && bench.outbox.lines.contains_key("b"));
        // An answer ends it as well.
        bench.failed("c", Some("c1"), 0, 0);
        bench.failed("c", Some("c0"), 0, 0);
        assert_eq!(bench.take(9_000), Some("c0"));
        bench.answered("c", 9_000);
        assert_eq!(bench.take(9_000), Some("c1"));
        bench.failed("c", Some("c1"), 0, 9_000);
        assert_eq!(bench.next_due(), Some(9_001), "the first failure again");
    }

    #[test]
    fn who_has_been_due_for_longest_goes_first_and_those_who_answered_go_behind() {
        let mut bench = Bench::new();
        for (namespace, at_least) in [("b", 3), ("a", 2)] {
            bench.failed(namespace, Some(namespace), at_least, 0);
            assert_eq!(bench.offer(namespace, namespace, 0), Offered::Waits);
        }
        assert_eq!(bench.take(5), Some("a"));
        bench.answered("a", 5);
        assert_eq!([bench.take(5), bench.take(5), bench.take(5), bench.take(5)], [Some("b"), Some("b"), Some("a"), None]);
    }

    #[test]
    fn a_bounded_number_waits() {
        let mut bench = Bench::new();
        bench.failed("a", Some("a"), 0, 0);
        for _ in 1..LINE_MAX {
            assert_eq!(bench.offer("a", "a", 0), Offered::Waits);
        }
        assert_eq!(bench.offer("a", "x", 0), Offered::Full("x"), "one namespace");
        for namespace in ["b", "c", "d", "e", "f", "g", "h"] {
            bench.failed(namespace, None, 0, 0);
            for _ in 0..LINE_MAX {
                assert_eq!(bench.offer(namespace, "m", 0), Offered::Waits);
            }
        }
        let now = bench.start;
        assert_eq!(bench.outbox.waiting, WAITING_MAX);
        assert_eq!(bench.outbox.failed(&"i".into(), Some("x"), Duration::ZERO, now), Some("x"), "all together");
        assert_eq!(bench.offer("i", "x", 0), Offered::Full("x"));
        assert!(bench.take(1).is_some());
        assert_eq!(bench.offer("i", "i", 0), Offered::Waits, "there is room again");
    }
}
