//! The queue's bookkeeping. Promises: a key is never worked on by two workers at once; a key that becomes dirty while
//! it is worked on is worked on again; a key waits in one place only; urgent keys go first, and during a rush of them the
//! others wait, though not for long.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
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

/// For this long after an urgent key more of them are expected, and the other lane waits: what it writes would only
/// delay them.
const RUSH: Duration = Duration::from_millis(100);
/// In a rush, a key that has waited this long is worked on all the same, one at a time.
const PATIENCE: Duration = Duration::from_secs(3);
/// Room for this many keys is kept when none waits. What a burst has needed beyond it is given back.
const KEEP: usize = 256;

/// Keys that wait, are worked on, or are due later.
#[derive(Debug)]
pub struct Queue {
    backoff: Backoff,
    /// Where each waiting key waits, and since when; the deques may hold keys that have moved to the other lane.
    waiting: HashMap<ObjectKey, (Lane, Instant)>,
    urgent: VecDeque<ObjectKey>,
    /// With the time since when.
    normal: VecDeque<(ObjectKey, Instant)>,
    /// How often a key came to wait.
    adds: u64,
    /// Keys that a worker has.
    processing: HashMap<ObjectKey, InWork>,
    rush_until: Option<Instant>,
    /// Earliest first; entries that differ from `due_of` were overtaken by an earlier one.
    due: BinaryHeap<Reverse<(Instant, ObjectKey)>>,
    due_of: HashMap<ObjectKey, Instant>,
    failures: HashMap<ObjectKey, u32>,
}

#[derive(Debug)]
struct InWork {
    lane: Lane,
    /// It became dirty again meanwhile.
    again: Option<Lane>,
    /// It has come to stand for another object meanwhile: how the work on the old one ends means nothing.
    is_forgotten: bool,
}

impl Queue {
    /// An empty queue; `backoff` says when failed keys come back.
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            waiting: HashMap::new(),
            urgent: VecDeque::new(),
            normal: VecDeque::new(),
            adds: 0,
            processing: HashMap::new(),
            due: BinaryHeap::new(),
            due_of: HashMap::new(),
            failures: HashMap::new(),
            rush_until: None,
        }
    }

    /// Something about `key` changed.
    pub fn add(&mut self, key: ObjectKey, lane: Lane, now: Instant) {
        if let Some(work) = self.processing.get_mut(&key) {
            work.again = work.again.max(Some(lane));
            return;
        }
        match self.waiting.get(&key) {
            Some((current, _)) if *current >= lane => return,
            Some(_) => {}
            None => self.adds += 1,
        }
        self.waiting.insert(key.clone(), (lane, now));
        match lane {
            Lane::Urgent => self.urgent.push_back(key),
            Lane::Normal => self.normal.push_back((key, now)),
        }
    }

    /// The next key for a worker, with its lane and since when it waited there. It must come back through one of the other methods.
    pub fn take(&mut self, now: Instant) -> Option<(ObjectKey, Lane, Instant)> {
        self.wake(now);
        while let Some(key) = self.urgent.pop_front() {
            if let Some((Lane::Urgent, since)) = self.waiting.get(&key).copied() {
                self.rush_until = Some(now + RUSH);
                return Some(self.hand_out(key, Lane::Urgent, since));
            }
        }
        while let Some((key, since)) = self.normal.front() {
            // Skip what has moved to the other lane since.
            if !matches!(self.waiting.get(key), Some((Lane::Normal, _))) {
                self.normal.pop_front();
                continue;
            }
            if self.is_rush(now) && (self.is_normal_in_work() || now < *since + PATIENCE) {
                return None;
            }
            let (key, since) = self.normal.pop_front()?;
            return Some(self.hand_out(key, Lane::Normal, since));
        }
        None
    }

    /// True while urgent keys come in.
    pub fn is_rush(&self, now: Instant) -> bool {
        self.rush_until.is_some_and(|until| now < until)
    }

    fn is_normal_in_work(&self) -> bool {
        self.processing.values().any(|work| work.lane == Lane::Normal)
    }

    fn hand_out(&mut self, key: ObjectKey, lane: Lane, since: Instant) -> (ObjectKey, Lane, Instant) {
        self.waiting.remove(&key);
        if self.waiting.is_empty() && self.urgent.capacity().max(self.normal.capacity()) > KEEP {
            // Nobody waits, so all that is left in the deques has moved since.
            (self.waiting, self.urgent, self.normal) = Default::default();
        }
        self.processing.insert(key.clone(), InWork { lane, again: None, is_forgotten: false });
        (key, lane, since)
    }

    /// The worker is through with `key`; it went well.
    pub fn done(&mut self, key: &ObjectKey, now: Instant) {
        self.failures.remove(key);
        self.release(key, now);
    }

    /// `key` stands for another object from now on, or for none: nothing of what the old one has failed at or waited for is left.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.failures.remove(key);
        // Its entry among those that are due is passed over.
        self.due_of.remove(key);
        if let Some(work) = self.processing.get_mut(key) {
            work.is_forgotten = true;
        }
    }

    /// The worker is through with `key` for now and wants to see it again at `at`, or earlier if it becomes dirty.
    pub fn done_until(&mut self, key: &ObjectKey, at: Instant, now: Instant) {
        if self.is_forgotten(key) {
            return self.release(key, now);
        }
        self.failures.remove(key);
        self.release(key, now);
        self.schedule(key, at);
    }

    /// The worker failed: `key` comes back after its backoff, or after `at_least` if that is longer.
    /// Changes meanwhile do not make it come back sooner than the backoff; they are seen then.
    pub fn failed(&mut self, key: &ObjectKey, at_least: Option<Duration>, jitter: f64, now: Instant) {
        if self.is_forgotten(key) {
            return self.release(key, now);
        }
        let failures = self.failures.entry(key.clone()).or_insert(0);
        *failures = failures.saturating_add(1);
        let delay = self.backoff.delay(*failures, jitter).max(at_least.unwrap_or_default());
        self.processing.remove(key);
        self.schedule(key, now + delay);
    }

    /// When to ask again, if nothing can be taken before and no worker comes back.
    pub fn next_due(&self) -> Option<Instant> {
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        let patience = self.normal.front().map(|(_, since)| *since + PATIENCE).filter(|_| !self.is_normal_in_work());
        [due, patience, self.rush_until].into_iter().flatten().min()
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

    fn is_forgotten(&self, key: &ObjectKey) -> bool {
        self.processing.get(key).is_some_and(|work| work.is_forgotten)
    }

    fn release(&mut self, key: &ObjectKey, now: Instant) {
        if let Some(InWork { again: Some(lane), .. }) = self.processing.remove(key) {
            self.add(key.clone(), lane, now);
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
        if !self.is_rush(now) {
            self.rush_until = None;
        }
        while let Some(Reverse((at, key))) = self.due.peek() {
            let is_valid = self.due_of.get(key) == Some(at);
            if is_valid && *at > now {
                return;
            }
            let Some(Reverse((_, key))) = self.due.pop() else { return };
            if is_valid {
                self.due_of.remove(&key);
                self.add(key, Lane::Normal, now);
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
        (Queue::new(backoff), Instant::now())
    }

    fn take(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.take(now).map(|(key, ..)| key.name.to_string())
    }

    #[test]
    fn urgent_keys_go_first_and_a_key_waits_once() {
        let (mut queue, now) = queue();
        queue.add(key("a"), Lane::Normal, now);
        queue.add(key("b"), Lane::Normal, now);
        queue.add(key("c"), Lane::Urgent, now);
        queue.add(key("b"), Lane::Urgent, now);
        queue.add(key("b"), Lane::Normal, now);
        assert_eq!(queue.depth(), 3);
        let later = now + RUSH;
        assert_eq!([take(&mut queue, now), take(&mut queue, now)], [Some("c".into()), Some("b".into())]);
        assert_eq!([take(&mut queue, later), take(&mut queue, later)], [Some("a".into()), None]);
    }

    #[test]
    fn in_a_rush_the_other_lane_waits_but_not_for_ever() {
        let (mut queue, now) = queue();
        queue.add(key("a"), Lane::Normal, now);
        queue.add(key("b"), Lane::Normal, now);
        queue.add(key("u"), Lane::Urgent, now);
        assert_eq!(take(&mut queue, now).as_deref(), Some("u"));
        assert_eq!(take(&mut queue, now), None);
        assert_eq!(queue.next_due(), Some(now + RUSH), "the end of the rush");
        let late = now + PATIENCE;
        queue.add(key("v"), Lane::Urgent, late);
        assert_eq!([take(&mut queue, late), take(&mut queue, late)], [Some("v".into()), Some("a".into())]);
        assert_eq!(take(&mut queue, late), None, "one at a time");
        queue.done(&key("a"), late);
        assert_eq!(take(&mut queue, late).as_deref(), Some("b"));
    }

    #[test]
    fn a_key_in_work_is_not_handed_out_again_until_it_is_done() {
        let (mut queue, now) = queue();
        queue.add(key("a"), Lane::Normal, now);
        assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
        queue.add(key("a"), Lane::Normal, now);
        queue.add(key("a"), Lane::Urgent, now);
        assert_eq!(take(&mut queue, now), None);
        queue.done(&key("a"), now);
        assert_eq!(queue.take(now), Some((key("a"), Lane::Urgent, now)));
        queue.done(&key("a"), now);
        assert_eq!(take(&mut queue, now), None);
    }

    #[test]
    fn waits_are_timed_and_counted_once_each() {
        let (mut queue, now) = queue();
        let later = |seconds| now + Duration::from_secs(seconds);
        queue.add(key("a"), Lane::Normal, now);
        queue.add(key("a"), Lane::Normal, later(1));
        assert_eq!(queue.adds(), 1);
        assert_eq!(queue.take(later(9)), Some((key("a"), Lane::Normal, now)));
        // Dirty while in work: it waits again from when it could be taken.
        queue.add(key("a"), Lane::Normal, later(9));
        queue.done(&key("a"), later(10));
        assert_eq!(queue.adds(), 2);
        // In the other lane the wait begins anew, but it is the same.
        queue.add(key("a"), Lane::Urgent, later(11));
        assert_eq!((queue.adds(), queue.take(later(12))), (2, Some((key("a"), Lane::Urgent, later(11)))));
        queue.done_until(&key("a"), later(20), later(13));
        assert_eq!((queue.adds(), queue.take(later(14))), (2, None));
        assert_eq!((queue.take(later(21)), queue.adds()), (Some((key("a"), Lane::Normal, later(21))), 3));
    }

    #[test]
    fn room_for_many_keys_is_given_back() {
        let (mut queue, now) = queue();
        for lane in [Lane::Normal, Lane::Urgent] {
            (0..2 * KEEP).for_each(|number| queue.add(key(&number.to_string()), lane, now));
            assert!(queue.waiting.capacity() > KEEP);
        }
        for number in 0..2 * KEEP {
            assert_eq!(take(&mut queue, now), Some(number.to_string()));
        }
        assert_eq!(take(&mut queue, now + RUSH), None);
        assert_eq!((queue.waiting.capacity(), queue.urgent.capacity(), queue.normal.capacity()), (0, 0, 0));
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let (mut queue, now) = queue();
        queue.add(key("a"), Lane::Normal, now);
        for delay in [1, 2, 4] {
            assert!(take(&mut queue, now + Duration::from_secs(1_000)).is_some());
            queue.add(key("a"), Lane::Urgent, now);
            queue.failed(&key("a"), None, 0.0, now);
            assert_eq!(take(&mut queue, now), None, "a change does not shorten the backoff");
            assert_eq!(queue.next_due(), Some(now + Duration::from_secs(delay)));
        }
        assert!(take(&mut queue, now + Duration::from_secs(4)).is_some());
        queue.done(&key("a"), now);
        queue.add(key("a"), Lane::Normal, now);
        assert!(take(&mut queue, now).is_some());
        queue.failed(&key("a"), Some(Duration::from_secs(30)), 0.0, now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(30)));
    }

    #[test]
    fn a_new_object_under_an_old_name_has_no_failures_and_waits_for_nothing() {
        let (mut queue, now) = queue();
        let later = |minutes| now + Duration::from_secs(60) * minutes;
        // What has failed, or is due later: it is worked on at once, and fails for the first time.
        queue.add(key("a"), Lane::Normal, now);
        for minute in 1..5 {
            assert!(take(&mut queue, later(minute)).is_some());
            queue.failed(&key("a"), None, 0.0, later(minute));
        }
        queue.forget(&key("a"));
        assert_eq!(take(&mut queue, later(9)), None, "nothing is due any more");
        queue.add(key("a"), Lane::Normal, now);
        assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
        queue.failed(&key("a"), None, 0.0, now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(1)), "the first delay");
        // In work meanwhile: how that ends is not the new one's.
        for end in
            [|queue: &mut Queue, at| queue.failed(&key("b"), None, 0.0, at), |queue: &mut Queue, at| queue.done_until(&key("b"), at, at)]
        {
            queue.add(key("b"), Lane::Urgent, now);
            assert_eq!(take(&mut queue, now).as_deref(), Some("b"));
            queue.forget(&key("b"));
            queue.add(key("b"), Lane::Urgent, now);
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
