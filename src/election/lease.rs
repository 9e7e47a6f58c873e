//! When to read, acquire and renew a Lease, and when it is lost. Pure: the time is an argument, and nothing is sent from here.
//!
//! Times as in Kubernetes' own components: another holder's Lease is over when it has not changed for its duration on our own
//! clock, which keeps running while the machine sleeps. Clocks of different machines are never compared.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::moment::Moment;

/// Limits of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A Lease that has not changed for this long may be taken by another.
    pub lease: Duration,
    /// The leader stops working this long after the start of the last successful renewal. Shorter than `lease`: the difference
    /// is for requests in flight.
    pub renew: Duration,
    /// Between two renewals; those that wait look twice as often.
    pub retry: Duration,
}

impl Timing {
    /// Limit on one call: one that hangs leaves time for another.
    pub fn call(&self) -> Duration {
        self.renew / 2
    }
}

/// The content of a Lease object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Empty if it was released.
    pub(super) holder: String,
    /// The holder's own wall clock: only compared for equality.
    renewed: String,
    /// What the holder promises; `None` if it is not a valid duration.
    duration: Option<Duration>,
}

impl Record {
    pub(super) fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        let duration = spec["leaseDurationSeconds"].as_u64().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        Self { holder: text("holderIdentity"), renewed: text("renewTime"), duration }
    }
}

/// Writes `identity` as the holder into the Lease object, for at most this many seconds from the wall-clock time `now`. Everything else in
/// it is kept. An empty identity releases it.
pub(super) fn claim(object: &mut Value, identity: &str, seconds: u64, now: &str) {
    let is_taken = object["spec"]["holderIdentity"].as_str() != Some(identity);
    let spec = &mut object["spec"];
    if !spec.is_object() {
        // Made by the first field that is set.
        *spec = Value::Null;
    }
    if is_taken {
        // Counts how often it went from one to another, so releasing it is not a transition.
        let before = spec["leaseTransitions"].as_u64();
        spec["leaseTransitions"] = before.map_or(0, |count| count + u64::from(!identity.is_empty())).into();
        spec["acquireTime"] = now.into();
    }
    spec["holderIdentity"] = identity.into();
    spec["leaseDurationSeconds"] = seconds.into();
    spec["renewTime"] = now.into();
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Read the Lease.
    Read,
    /// Create it, with us as the holder.
    Create,
    /// Replace what was read or written last, with us as the holder: acquire it, or renew it.
    Write,
    /// Nothing for this long.
    Wait(Duration),
    /// We no longer lead. There is no way back: a former leader starts from scratch.
    Lost(Lost),
}

/// Why the Lease is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It could not be renewed in time.
    Deadline(Duration),
    /// Another candidate holds it.
    Taken(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline(limit) => write!(f, "not renewed for {} s", limit.as_secs()),
            Self::Taken(holder) => write!(f, "held by {holder:?}"),
        }
    }
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The Lease does not exist.
    Absent,
    /// It was read.
    Found(Record),
    /// Our write was done.
    Written(Record),
    /// Another write came first.
    Conflict,
    /// It failed, or the result is unknown.
    Failed,
}

/// What is known about the current Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It must be read.
    Nothing,
    /// There is none.
    Absent,
    /// It is as last seen.
    Seen,
}

/// One candidate, from its start to its end.
#[derive(Debug)]
pub(super) struct Elector {
    identity: String,
    timing: Timing,
    /// Between two reads of another's Lease.
    poll: Duration,
    known: Known,
    /// The last record and when we first saw it so.
    seen: Option<(Record, Moment)>,
    /// Nothing is sent before this.
    due: Moment,
    /// Until when we lead; `None` if we do not.
    until: Option<Moment>,
}

impl Elector {
    /// `jitter` keeps several candidates from sending at the same moments.
    pub(super) fn new(identity: String, timing: Timing, jitter: Duration, now: Moment) -> Self {
        let poll = timing.retry / 2 + jitter;
        Self { identity, timing, poll, known: Known::Nothing, seen: None, due: now, until: None }
    }

    /// Until when we may work; `None` if we do not lead.
    pub(super) fn until(&self) -> Option<Moment> {
        self.until
    }

    /// The last seen holder of the Lease.
    pub(super) fn holder(&self) -> &str {
        self.seen.as_ref().map_or("", |(record, _)| &record.holder)
    }

    /// True if the Lease is known to be ours, as it was last read or written.
    pub(super) fn is_ours(&self) -> bool {
        self.known == Known::Seen && self.holder() == self.identity
    }

    /// What to do at `now`. Its answer goes to [`Elector::take_in`], if it has one.
    pub(super) fn step(&mut self, now: Moment) -> Step {
        if self.until.is_some_and(|until| now >= until) {
            return Step::Lost(Lost::Deadline(self.timing.renew));
        }
        if self.due > now {
            let end = self.until.map_or(self.due, |until| until.min(self.due));
            return Step::Wait(end - now);
        }
        match (self.known, &self.seen) {
            (Known::Nothing, _) | (Known::Seen, None) => Step::Read,
            (Known::Absent, _) => Step::Create,
            (Known::Seen, Some((record, since))) => {
                let is_over = now - *since >= record.duration.unwrap_or(self.timing.lease);
                if record.holder == self.identity {
                    Step::Write
                } else if self.until.is_some() {
                    Step::Lost(Lost::Taken(record.holder.clone()))
                } else if record.holder.is_empty() || is_over {
                    Step::Write
                } else {
                    self.known = Known::Nothing;
                    self.due = now + self.poll;
                    Step::Wait(self.poll)
                }
            }
        }
    }

    /// Takes in the result of a request sent at `sent`.
    pub(super) fn take_in(&mut self, answer: Answer, sent: Moment, now: Moment) {
        match answer {
            Answer::Absent => self.known = Known::Absent,
            Answer::Found(record) => self.see(record, now),
            Answer::Written(record) => {
                self.see(record, now);
                // From before the request: the others count from when they see it, which is later. An answer that
                // comes too late gives nothing.
                let until = sent + self.timing.renew;
                if now < self.until.unwrap_or(until) {
                    self.until = Some(until);
                }
                self.due = sent + self.timing.retry;
            }
            Answer::Conflict | Answer::Failed => {
                self.known = Known::Nothing;
                let wait = match (self.until, answer) {
                    (None, _) => self.poll,
                    // Most likely our own write, of which no answer came.
                    (Some(_), Answer::Conflict) => self.timing.retry / 4,
                    (Some(_), _) => self.timing.retry,
                };
                self.due = now + wait;
            }
        }
    }

    fn see(&mut self, record: Record, now: Moment) {
        if self.seen.as_ref().is_none_or(|(before, _)| *before != record) {
            self.seen = Some((record, now));
        }
        self.known = Known::Seen;
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
