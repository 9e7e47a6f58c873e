//! The queue: each key is queued once, is processed by one worker at a time, and returns when it is due.
//!
//! Promises: a key that becomes dirty while a worker has it is handed out again afterwards; failures back off; namespaces take
//! turns, and one of them has at most its share of the workers, so that hanging calls in one do not stop the others. Within a
//! namespace, changed keys go before keys that are due by time, so hundreds that become due at once do not delay one that was just
//! requested; due keys get a turn now and then, so they never starve.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Backoff;
use crate::api::ObjectKey;

/// Room for this many keys is kept when none is waiting; a burst of thousands gives the rest back.
const KEEP: usize = 256;
/// This many changed keys go before one that is due. Most of them result from our own writes, and have nothing to do.
const CHANGED_FIRST: u32 = 8;

/// The queue of one controller. Time is an argument.
#[derive(Debug)]
pub struct Queue {
    backoff: Backoff,
    /// Keys of one namespace that may be in work at once.
    share: usize,
    /// Keys that wait.
    waiting: HashMap<ObjectKey, Waits>,
    lines: HashMap<Arc<str>, Line>,
    /// Namespaces of which a key may be taken, each once, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    /// How often a key came to wait.
    adds: u64,
    processing: HashMap<ObjectKey, InWork>,
    /// Keys to hand out later, earliest first. An entry counts only if `due_of` says the same.
    due: BinaryHeap<Reverse<(Instant, ObjectKey)>>,
    due_of: HashMap<ObjectKey, Instant>,
    failures: HashMap<ObjectKey, u32>,
}

/// A key that waits.
#[derive(Clone, Copy, Debug)]
struct Waits {
    since: Instant,
    /// It came back at its time, and nothing about it has changed since.
    is_due: bool,
}

/// What waits in one namespace, and how much of it is in work.
#[derive(Debug, Default)]
struct Line {
    changed: VecDeque<ObjectKey>,
    /// A key that has changed in the meantime stands among those, too, and is skipped here.
    due: VecDeque<ObjectKey>,
    /// Keys that have changed and went before one that is due.
    went_first: u32,
    in_work: usize,
    has_turn: bool,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.due.is_empty()
    }

    /// The next key, and since when it waited.
    fn next(&mut self, waiting: &mut HashMap<ObjectKey, Waits>) -> Option<(ObjectKey, Instant)> {
        while !self.is_empty() {
            let takes_due = self.changed.is_empty() || (self.went_first >= CHANGED_FIRST && !self.due.is_empty());
            let key = if takes_due { self.due.pop_front() } else { self.changed.pop_front() }?;
            let waits = waiting.get(&key).copied().filter(|waits| waits.is_due == takes_due);
            if let Some(Waits { since, .. }) = waits {
                waiting.remove(&key);
                self.went_first = if takes_due { 0 } else { self.went_first.saturating_add(1) };
                return Some((key, since));
            }
        }
        None
    }
}

/// A key that a worker has.
#[derive(Debug, Default)]
struct InWork {
    /// Became dirty in the meantime.
    is_dirty: bool,
    /// Stands for another object since: how this turn ends says nothing.
    is_forgotten: bool,
}

impl Queue {
    /// An empty queue; `backoff` says when failed keys come back. Of one namespace at most `share` keys are in work at once.
    pub fn new(backoff: Backoff, share: usize) -> Self {
        Self {
            backoff,
            share: share.max(1),
            waiting: HashMap::new(),
            lines: HashMap::new(),
            turns: VecDeque::new(),
            adds: 0,
            processing: HashMap::new(),
            due: BinaryHeap::new(),
            due_of: HashMap::new(),
            failures: HashMap::new(),
        }
    }

    /// Something about `key` changed.
    pub fn add(&mut self, key: ObjectKey, now: Instant) {
        if let Some(work) = self.processing.get_mut(&key) {
            work.is_dirty = true;
            return;
        }
        match self.waiting.get_mut(&key) {
            Some(Waits { is_due: false, .. }) => {}
            Some(waits) => {
                waits.is_due = false;
                if let Some(line) = self.lines.get_mut(&key.namespace) {
                    line.changed.push_back(key);
                }
            }
            None => self.wait(key, Waits { since: now, is_due: false }),
        }
    }

    fn wait(&mut self, key: ObjectKey, waits: Waits) {
        self.adds += 1;
        self.waiting.insert(key.clone(), waits);
        let namespace = Arc::clone(&key.namespace);
        let line = self.lines.entry(Arc::clone(&namespace)).or_default();
        if waits.is_due {
            line.due.push_back(key)
        } else {
            line.changed.push_back(key)
        }
        self.give_turn(&namespace);
    }

    /// The next key for a worker, and since when it waited. It must come back through one of the other methods.
    pub fn take(&mut self, now: Instant) -> Option<(ObjectKey, Instant)> {
        self.wake(now);
        while let Some(namespace) = self.turns.pop_front() {
            let Some(line) = self.lines.get_mut(&namespace) else { continue };
            line.has_turn = false;
            if line.in_work >= self.share {
                continue;
            }
            if let Some((key, since)) = line.next(&mut self.waiting) {
                line.in_work += 1;
                self.give_turn(&namespace);
                self.processing.insert(key.clone(), InWork::default());
                self.give_room_back();
                return Some((key, since));
            }
            if line.in_work == 0 {
                self.lines.remove(&namespace);
            }
        }
        None
    }

    /// The worker is done with `key`; it went well.
    pub fn done(&mut self, key: &ObjectKey, now: Instant) {
        self.failures.remove(key);
        self.release(key, now);
    }

    /// The worker left `key` as it was: it is not this queue's to work on now.
    pub fn not_mine(&mut self, key: &ObjectKey, now: Instant) {
        self.release(key, now);
    }

    /// `key` stands for another object from now on, or for none: nothing of what the old one has failed at or waited for is left.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.failures.remove(key);
        // Its entry among those that are due is skipped.
        self.due_of.remove(key);
        if let Some(work) = self.processing.get_mut(key) {
            work.is_forgotten = true;
        }
    }

    /// The worker is done with `key` for now and wants to see it again at `at`, or earlier if it becomes dirty.
    pub fn done_until(&mut self, key: &ObjectKey, at: Instant, now: Instant) {
        let is_forgotten = self.is_forgotten(key);
        if !is_forgotten {
            self.failures.remove(key);
        }
        self.release(key, now);
        if !is_forgotten {
            self.schedule(key, at);
        }
    }

    /// The worker failed: `key` comes back after its backoff, or after `at_least` if that is longer.
    /// Changes in the meantime do not make it come back sooner than the backoff; they are seen then.
    pub fn failed(&mut self, key: &ObjectKey, at_least: Option<Duration>, jitter: f64, now: Instant) {
        if self.is_forgotten(key) {
            return self.release(key, now);
        }
        let failures = self.failures.entry(key.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        let delay = self.backoff.delay(*failures, jitter).max(at_least.unwrap_or_default());
        self.come_back(key);
        self.schedule(key, now + delay);
    }

    /// When to ask again, if nothing can be taken before and no worker comes back.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Keys that wait.
    pub fn depth(&self) -> usize {
        self.waiting.len()
    }

    /// How often a key came to wait. Only grows.
    pub fn adds(&self) -> u64 {
        self.adds
    }

    /// Number of keys that workers have.
    pub fn in_work(&self) -> usize {
        self.processing.len()
    }

    /// `key` has become due, or something that is not urgent has happened to it.
    pub fn come_due(&mut self, key: ObjectKey, now: Instant) {
        if let Some(work) = self.processing.get_mut(&key) {
            work.is_dirty = true;
        } else if !self.waiting.contains_key(&key) {
            self.wait(key, Waits { since: now, is_due: true });
        }
    }

    fn is_forgotten(&self, key: &ObjectKey) -> bool {
        self.processing.get(key).is_some_and(|work| work.is_forgotten)
    }

    fn release(&mut self, key: &ObjectKey, now: Instant) {
        if self.come_back(key).is_some_and(|work| work.is_dirty) {
            self.add(key.clone(), now);
        }
    }

    /// A worker is done with `key`.
    fn come_back(&mut self, key: &ObjectKey) -> Option<InWork> {
        let work = self.processing.remove(key)?;
        if let Some(line) = self.lines.get_mut(&key.namespace) {
            line.in_work -= 1;
            if line.in_work == 0 && line.is_empty() {
                self.lines.remove(&key.namespace);
            } else {
                self.give_turn(&key.namespace);
            }
        }
        Some(work)
    }

    /// A namespace with a key that waits and a worker left for it has its turn after those that have theirs already.
    fn give_turn(&mut self, namespace: &Arc<str>) {
        if let Some(line) = self.lines.get_mut(namespace)
            && !line.has_turn
            && !line.is_empty()
            && line.in_work < self.share
        {
            line.has_turn = true;
            self.turns.push_back(Arc::clone(namespace));
        }
    }

    fn give_room_back(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > KEEP {
            self.waiting = HashMap::new();
            self.lines.values_mut().for_each(|line| (line.changed, line.due) = (VecDeque::new(), VecDeque::new()));
        }
    }

    fn schedule(&mut self, key: &ObjectKey, at: Instant) {
        if self.due_of.get(key).is_some_and(|current| *current <= at) {
            return;
        }
        self.due.push(Reverse((at, key.clone())));
        self.due_of.insert(key.clone(), at);
    }

    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, key))) = self.due.peek() {
            let is_valid = self.due_of.get(key) == Some(at);
            if is_valid && *at > now {
                return;
            }
            let Some(Reverse((_, key))) = self.due.pop() else { return };
            if is_valid {
                self.due_of.remove(&key);
                self.come_due(key, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    fn queue() -> (Queue, Instant) {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
        (Queue::new(backoff, 2), Instant::now())
    }

    fn take(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.take(now).map(|(key, _)| key.name.to_string())
    }

    #[test]
    fn a_key_waits_once() {
        let (mut queue, now) = queue();
        for name in ["a", "b", "a"] {
            queue.add(key(name), now);
        }
        assert_eq!((queue.depth(), queue.adds()), (2, 2));
        assert_eq!([take(&mut queue, now), take(&mut queue, now), take(&mut queue, now)], [Some("a".into()), Some("b".into()), None]);
    }

    #[test]
    fn namespaces_take_turns_and_none_has_more_than_its_share_of_the_workers() {
        let (mut queue, now) = queue();
        let full = |queue: &mut Queue| queue.take(now).map(|(key, _)| key.to_string());
        for at in ["big/1", "big/2", "big/3", "big/4", "small/1", "other/1", "other/2"] {
            let (namespace, name) = at.split_once('/').expect("two parts");
            queue.add(ObjectKey::new(namespace, name), now);
        }
        for expected in ["big/1", "small/1", "other/1", "big/2", "other/2"] {
            assert_eq!(full(&mut queue).as_deref(), Some(expected));
        }
        assert_eq!(full(&mut queue), None, "two of big are in work, and two wait");
        assert_eq!((queue.depth(), queue.in_work()), (2, 5));
        queue.add(ObjectKey::new("late", "1"), now);
        assert_eq!(full(&mut queue).as_deref(), Some("late/1"), "whoever comes is not held up by them");
        queue.failed(&ObjectKey::new("big", "2"), None, 0.0, now);
        assert_eq!(full(&mut queue).as_deref(), Some("big/3"));
        queue.done_until(&ObjectKey::new("big", "1"), now + Duration::from_secs(60), now);
        assert_eq!(full(&mut queue).as_deref(), Some("big/4"));
        assert_eq!(full(&mut queue), None);
    }

    #[test]
    fn what_has_changed_goes_before_what_is_due_and_does_not_starve_it() {
        let (mut queue, now) = queue();
        let later = now + Duration::from_secs(1);
        let next = |queue: &mut Queue| {
            let taken = take(queue, later);
            taken.iter().for_each(|name| queue.done(&key(name), later));
            taken
        };
        for name in ["1", "2", "3", "4"] {
            queue.add(key(name), now);
            assert_eq!(take(&mut queue, now).as_deref(), Some(name));
            queue.done_until(&key(name), later, now);
        }
        assert_eq!(next(&mut queue).as_deref(), Some("1"));
        queue.add(key("asked"), later);
        queue.add(key("4"), later);
        assert_eq!(queue.depth(), 4, "a key waits once");
        for name in ["asked", "4", "2"] {
            assert_eq!(next(&mut queue).as_deref(), Some(name));
        }
        (0..100).for_each(|number| queue.add(key(&format!("c{number}")), later));
        let before = std::iter::from_fn(|| next(&mut queue)).take_while(|name| name != "3").count();
        assert_eq!(before, CHANGED_FIRST as usize, "it had its turn");
        assert_eq!(std::iter::from_fn(|| next(&mut queue)).count(), 100 - before);
        assert_eq!((queue.depth(), queue.adds()), (0, 109));
        assert!(queue.lines.is_empty(), "and nothing is left of them");
    }

    #[test]
    fn a_namespace_that_has_its_turn_twice_has_no_more_than_its_share() {
        let (mut queue, now) = queue();
        let later = now + Duration::from_secs(1);
        // `x` was due and has changed: its entry among those that are due keeps the turn, with both workers busy.
        for (name, at) in [("x", later), ("z", now)] {
            queue.add(key(name), now);
            assert_eq!(take(&mut queue, now).as_deref(), Some(name));
            queue.done_until(&key(name), at, now);
        }
        queue.add(key("y"), now);
        assert_eq!([take(&mut queue, now), take(&mut queue, now)].map(|name| name.map_or(0, |name| name.len())), [1, 1]);
        // A crowd elsewhere comes and goes, and room is given back.
        let elsewhere = |number: usize| ObjectKey::new("elsewhere", number.to_string());
        (0..2 * KEEP).for_each(|number| queue.add(elsewhere(number), later));
        for number in 0..2 * KEEP {
            let (taken, _) = queue.take(later).expect("one more");
            assert_eq!(taken, elsewhere(number));
            queue.done(&taken, later);
        }
        queue.add(key("x"), later);
        queue.done(&key("y"), later);
        queue.done(&key("z"), later);
        assert_eq!(take(&mut queue, later).as_deref(), Some("x"));
        queue.add(key("x"), later);
        queue.done(&key("x"), later);
        ["p", "q", "r"].iter().for_each(|name| queue.add(key(name), later));
        assert_eq!(std::iter::from_fn(|| take(&mut queue, later)).count(), 2);
    }

    #[test]
    fn a_share_is_one_worker_at_least() {
        let (mut queue, now) = (Queue::new(Backoff { first: Duration::ZERO, max: Duration::ZERO }, 0), Instant::now());
        queue.add(key("a"), now);
        assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
    }

    #[test]
    fn a_key_in_work_is_not_handed_out_again_until_it_is_done() {
        for end in [Queue::done, Queue::not_mine] {
            let (mut queue, now) = queue();
            queue.add(key("a"), now);
            assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
            queue.add(key("a"), now);
            assert_eq!(take(&mut queue, now), None);
            end(&mut queue, &key("a"), now);
            assert_eq!(queue.take(now), Some((key("a"), now)));
            end(&mut queue, &key("a"), now);
            assert_eq!(take(&mut queue, now), None);
        }
    }

    #[test]
    fn waits_are_timed_and_counted_once_each() {
        let (mut queue, now) = queue();
        let later = |seconds| now + Duration::from_secs(seconds);
        queue.add(key("a"), now);
        queue.add(key("a"), later(1));
        assert_eq!(queue.adds(), 1);
        assert_eq!(queue.take(later(9)), Some((key("a"), now)));
        // Dirty while in work: it waits again from when it could be taken.
        queue.add(key("a"), later(9));
        queue.done(&key("a"), later(10));
        assert_eq!((queue.adds(), queue.take(later(12))), (2, Some((key("a"), later(10)))));
        queue.done_until(&key("a"), later(20), later(13));
        assert_eq!((queue.adds(), queue.take(later(14))), (2, None));
        assert_eq!((queue.take(later(21)), queue.adds()), (Some((key("a"), later(21))), 3));
    }

    #[test]
    fn room_for_many_keys_is_given_back() {
        let (mut queue, now) = queue();
        (0..2 * KEEP).for_each(|number| queue.add(key(&number.to_string()), now));
        assert!(queue.waiting.capacity() > KEEP);
        for number in 0..2 * KEEP {
            let taken = take(&mut queue, now).expect("one more");
            assert_eq!(taken, number.to_string());
            if number + 1 < 2 * KEEP {
                queue.done(&key(&taken), now);
            }
        }
        assert_eq!((queue.waiting.capacity(), queue.lines[&Arc::from("ns")].changed.capacity()), (0, 0));
        queue.done(&key(&(2 * KEEP - 1).to_string()), now);
        assert!(queue.lines.is_empty(), "a namespace without keys is forgotten");
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let (mut queue, now) = queue();
        queue.add(key("a"), now);
        for delay in [1, 2, 4] {
            assert!(take(&mut queue, now + Duration::from_secs(1_000)).is_some());
            queue.add(key("a"), now);
            queue.failed(&key("a"), None, 0.0, now);
            assert_eq!(take(&mut queue, now), None, "a change does not shorten the backoff");
            assert_eq!(queue.next_due(), Some(now + Duration::from_secs(delay)));
        }
        assert!(take(&mut queue, now + Duration::from_secs(4)).is_some());
        queue.not_mine(&key("a"), now);
        queue.add(key("a"), now);
        assert!(take(&mut queue, now).is_some());
        queue.failed(&key("a"), None, 0.0, now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(8)), "whoever leaves it says nothing of it");
        assert!(take(&mut queue, now + Duration::from_secs(8)).is_some());
        queue.done(&key("a"), now);
        queue.add(key("a"), now);
        assert!(take(&mut queue, now).is_some());
        queue.failed(&key("a"), Some(Duration::from_secs(30)), 0.0, now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(30)));
    }

    #[test]
    fn a_new_object_under_an_old_name_has_no_failures_and_waits_for_nothing() {
        let (mut queue, now) = queue();
        let later = |minutes| now + Duration::from_secs(60) * minutes;
        // What has failed, or is due later: it is worked on at once, and fails for the first time.
        queue.add(key("a"), now);
        for minute in 1..5 {
            assert!(take(&mut queue, later(minute)).is_some());
            queue.failed(&key("a"), None, 0.0, later(minute));
        }
        queue.forget(&key("a"));
        assert_eq!(take(&mut queue, later(9)), None, "nothing is due any more");
        queue.add(key("a"), now);
        assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
        queue.failed(&key("a"), None, 0.0, now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(1)), "the first delay");
        // In work in the meantime: how that ends is not the new one's.
        for end in
            [|queue: &mut Queue, at| queue.failed(&key("b"), None, 0.0, at), |queue: &mut Queue, at| queue.done_until(&key("b"), at, at)]
        {
            queue.add(key("b"), now);
            assert_eq!(take(&mut queue, now).as_deref(), Some("b"));
            queue.forget(&key("b"));
            queue.add(key("b"), now);
            end(&mut queue, now);
            assert_eq!(take(&mut queue, now).as_deref(), Some("b"));
            queue.done(&key("b"), now);
        }
    }

    #[test]
    fn the_earliest_due_time_counts() {
        let (mut queue, now) = queue();
        for seconds in [9, 5, 7] {
            queue.done_until(&key("a"), now + Duration::from_secs(seconds), now);
        }
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(5)));
        assert_eq!(take(&mut queue, now + Duration::from_secs(5)).as_deref(), Some("a"));
        assert_eq!(queue.next_due(), None);
    }
}
