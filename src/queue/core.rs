//! The queue's bookkeeping. Promises: a key is never worked on by two workers at once; a key that becomes dirty while
//! it is worked on is worked on again; a key waits in one place only; urgent keys go first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::Backoff;
use crate::api::ObjectKey;

/// Urgent keys go first: a waiting trigger gets its Job before others get their status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Record, settle, clean up.
    Normal,
    /// Something may have to start.
    Urgent,
}

/// Keys that wait, are worked on, or are due later.
#[derive(Debug)]
pub struct Queue {
    backoff: Backoff,
    /// Where each waiting key waits; the deques may hold keys that have moved to the other lane.
    waiting: HashMap<ObjectKey, Lane>,
    urgent: VecDeque<ObjectKey>,
    normal: VecDeque<ObjectKey>,
    /// Keys that a worker has, with the lane they were made dirty for meanwhile.
    processing: HashMap<ObjectKey, Option<Lane>>,
    due: BTreeSet<(Instant, ObjectKey)>,
    due_of: HashMap<ObjectKey, Instant>,
    failures: BTreeMap<ObjectKey, u32>,
    /// Keys that were handed out at least once: only for counting.
    retries: u64,
}

impl Queue {
    /// An empty queue; `backoff` says when failed keys come back.
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            waiting: HashMap::new(),
            urgent: VecDeque::new(),
            normal: VecDeque::new(),
            processing: HashMap::new(),
            due: BTreeSet::new(),
            due_of: HashMap::new(),
            failures: BTreeMap::new(),
            retries: 0,
        }
    }

    /// Something about `key` changed.
    pub fn add(&mut self, key: ObjectKey, lane: Lane) {
        if let Some(again) = self.processing.get_mut(&key) {
            *again = (*again).max(Some(lane));
            return;
        }
        match self.waiting.get(&key) {
            Some(current) if *current >= lane => return,
            _ => {}
        }
        self.waiting.insert(key.clone(), lane);
        match lane {
            Lane::Urgent => self.urgent.push_back(key),
            Lane::Normal => self.normal.push_back(key),
        }
    }

    /// The next key for a worker, with its lane. It must come back through [`Queue::done`].
    pub fn take(&mut self, now: Instant) -> Option<(ObjectKey, Lane)> {
        self.wake(now);
        for lane in [Lane::Urgent, Lane::Normal] {
            let keys = match lane {
                Lane::Urgent => &mut self.urgent,
                Lane::Normal => &mut self.normal,
            };
            while let Some(key) = keys.pop_front() {
                // Skip what has moved to the other lane since.
                if self.waiting.get(&key) == Some(&lane) {
                    self.waiting.remove(&key);
                    self.processing.insert(key.clone(), None);
                    return Some((key, lane));
                }
            }
        }
        None
    }

    /// The worker is through with `key`; it went well.
    pub fn done(&mut self, key: &ObjectKey) {
        self.failures.remove(key);
        self.release(key);
    }

    /// The worker is through with `key` for now and wants to see it again at `at`, or earlier if it becomes dirty.
    pub fn done_until(&mut self, key: &ObjectKey, at: Instant) {
        self.failures.remove(key);
        self.release(key);
        self.schedule(key, at);
    }

    /// The worker failed: `key` comes back after its backoff, or after `at_least` if that is longer.
    /// Changes meanwhile do not make it come back sooner than the backoff; they are seen then.
    pub fn failed(&mut self, key: &ObjectKey, at_least: Option<Duration>, jitter: f64, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        self.retries += 1;
        let delay = self.backoff.delay(*failures, jitter).max(at_least.unwrap_or_default());
        self.processing.remove(key);
        self.schedule(key, now + delay);
    }

    /// When the next key is due, if none can be taken before.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Keys that could be taken now.
    pub fn depth(&self) -> usize {
        self.waiting.len()
    }

    /// True if an urgent key waits.
    pub fn has_urgent(&self) -> bool {
        self.waiting.values().any(|lane| *lane == Lane::Urgent)
    }

    /// Keys that workers have.
    pub fn in_work(&self) -> HashSet<&ObjectKey> {
        self.processing.keys().collect()
    }

    /// How often a key failed and was put back.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    fn release(&mut self, key: &ObjectKey) {
        if let Some(Some(lane)) = self.processing.remove(key) {
            self.add(key.clone(), lane);
        }
    }

    fn schedule(&mut self, key: &ObjectKey, at: Instant) {
        if let Some(current) = self.due_of.get(key) {
            if *current <= at {
                return;
            }
            self.due.remove(&(*current, key.clone()));
        }
        self.due.insert((at, key.clone()));
        self.due_of.insert(key.clone(), at);
    }

    fn wake(&mut self, now: Instant) {
        while let Some((at, key)) = self.due.first().cloned() {
            if at > now {
                return;
            }
            self.due.remove(&(at, key.clone()));
            self.due_of.remove(&key);
            self.add(key, Lane::Normal);
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
        (Queue::new(backoff), Instant::now())
    }

    fn take(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.take(now).map(|(key, _)| key.name)
    }

    #[test]
    fn urgent_keys_go_first_and_a_key_waits_once() {
        let (mut queue, now) = queue();
        queue.add(key("a"), Lane::Normal);
        queue.add(key("b"), Lane::Normal);
        queue.add(key("c"), Lane::Urgent);
        queue.add(key("b"), Lane::Urgent);
        queue.add(key("b"), Lane::Normal);
        assert_eq!(queue.depth(), 3);
        let order: Vec<_> = std::iter::from_fn(|| take(&mut queue, now)).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }

    #[test]
    fn a_key_in_work_is_not_handed_out_again_until_it_is_done() {
        let (mut queue, now) = queue();
        queue.add(key("a"), Lane::Normal);
        assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
        queue.add(key("a"), Lane::Normal);
        queue.add(key("a"), Lane::Urgent);
        assert_eq!(take(&mut queue, now), None);
        queue.done(&key("a"));
        assert_eq!(queue.take(now), Some((key("a"), Lane::Urgent)));
        queue.done(&key("a"));
        assert_eq!(take(&mut queue, now), None);
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let (mut queue, now) = queue();
        queue.add(key("a"), Lane::Normal);
        for delay in [1, 2, 4] {
            assert!(take(&mut queue, now + Duration::from_secs(1_000)).is_some());
            queue.add(key("a"), Lane::Urgent);
            queue.failed(&key("a"), None, 0.0, now);
            assert_eq!(take(&mut queue, now), None, "a change does not shorten the backoff");
            assert_eq!(queue.next_due(), Some(now + Duration::from_secs(delay)));
        }
        assert!(take(&mut queue, now + Duration::from_secs(4)).is_some());
        queue.done(&key("a"));
        queue.add(key("a"), Lane::Normal);
        assert!(take(&mut queue, now).is_some());
        queue.failed(&key("a"), Some(Duration::from_secs(30)), 0.0, now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(30)));
    }

    #[test]
    fn the_earliest_due_time_counts() {
        let (mut queue, now) = queue();
        for seconds in [9, 5, 7] {
            queue.done_until(&key("a"), now + Duration::from_secs(seconds));
        }
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(5)));
        assert_eq!(take(&mut queue, now + Duration::from_secs(5)).as_deref(), Some("a"));
        assert_eq!(queue.next_due(), None);
    }
}
