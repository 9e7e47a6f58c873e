//! What to do next about the sidecars' token of one namespace. Pure: the time is an argument, and nothing is sent from here.
//!
//! Promises: the Secret is never deleted while it may be needed by a run that this process started, a Job that the index shows, or
//! a Job that the API server has just listed. Only a fresh list allows the deletion; a silent watch does not. While the Secret is
//! in use it is read every few seconds, re-created if it is missing, and renewed if something else wrote to it. A token is renewed
//! at half of its lifetime, counted from before the request; no start waits for that before three quarters. A failed call is
//! retried, never faster than its backoff.

use std::fmt;
use std::time::Duration;

use crate::api::{ObjectKey, ResourceVersion, Uid};
use crate::moment::Moment;
use crate::planted::{Defect, is_planted};
use crate::queue::Backoff;

use super::held::{Held, Life};

/// A Secret in use is checked this often. With the tick of the threads and the calls, it is re-created within 10 s.
pub const LOOK: Duration = Duration::from_secs(6);
/// A namespace without runs with output loses its token after this long.
pub const IDLE: Duration = Duration::from_secs(30);
/// This long after a start that the index does not show, and that was not retried, a list may say that its Job does not exist; the limit on
/// a call comes on top. Longer than the longest pause between two tries, and than the API server works on an abandoned create.
pub const ABANDONED: Duration = Duration::from_secs(90);
/// A list allows a deletion only for this long.
const CLEAR: Duration = Duration::from_secs(10);
/// Starts this soon after a failure share it instead of calling again.
const SHARED_FAILURE: Duration = Duration::from_secs(2);
/// Failures: first and longest delay.
pub const RETRY: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(60) };
/// The same for what an earlier process left and nothing uses.
pub const RETRY_LEFTOVER: Backoff = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(600) };
/// Between two lists of Jobs, if one does not allow the deletion.
pub const RELIST: Backoff = Backoff { first: Duration::from_secs(30), max: Duration::from_secs(300) };
/// A Secret that something else writes to gets a new token this long after the last one at the earliest. Longer if that happens repeatedly,
/// as a second operator would that does the same; sidecars try a wrong credential for 15 min.
const REWRITE: Backoff = Backoff { first: Duration::from_secs(60), max: Duration::from_secs(600) };
/// Time until the next read of a Secret that has our name and is not ours.
const FOREIGN: Duration = Duration::from_secs(60);

/// A run with output whose Job this process creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whose run it is.
    pub quarks_job: ObjectKey,
    /// Its UID.
    pub owner: Uid,
    /// Number of the run.
    pub number: u64,
    /// Name of the Job.
    pub job: String,
}

/// What the index shows about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its QuarksJob says that it has ended and was judged.
    Judged,
    /// Its QuarksJob exists and does not say so.
    Waiting,
    /// Its QuarksJob no longer exists, or was re-created.
    Ownerless,
}

/// What the index shows about a namespace.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Everything that decisions depend on has been listed.
    pub is_in: bool,
    /// Some Job with output has not ended, or was not judged.
    pub is_running: bool,
    /// The service account that the namespace sets.
    pub account: Option<String>,
}

/// A Job of a QuarksJob in a fresh list of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedJob {
    /// Its name.
    pub name: String,
    /// UID of its QuarksJob.
    pub owner: Uid,
    /// It is known to have no output.
    pub is_without_output: bool,
    /// `Complete` or `Failed`.
    pub has_ended: bool,
}

/// A token. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What to do now. Unless it is one of the last three, its answer goes to [`State::take_in`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Check whether the Secret exists and who owns it; its content does not matter.
    Look,
    /// Create it, without a token.
    Create(String),
    /// Request a token of this service account that is bound to the Secret.
    Request { account: String, secret: Uid },
    /// Put the token into the Secret; the log says when it expires.
    Store { secret: Uid, account: String, token: Token, expires: String },
    /// List the namespace's Jobs.
    ListJobs,
    /// Delete the Secret.
    Delete(Uid),
    /// Nothing before this moment.
    Wait(Moment),
    /// Nothing before the answer to a step that was handed out.
    Busy,
    /// Nothing ever: this state can be forgotten.
    Over,
}

impl Step {
    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Create(_) => "create",
            Self::Request { .. } => "request",
            Self::Store { .. } => "store",
            Self::ListJobs => "list-jobs",
            Self::Delete(_) => "delete",
            Self::Wait(_) => "wait",
            Self::Busy => "busy",
            Self::Over => "over",
        }
    }
}

/// The result of a step.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The Secret does not exist.
    Absent,
    /// It exists; the service account in its annotation shows that it is ours.
    Found { secret: Uid, version: ResourceVersion, account: Option<String> },
    /// It was created.
    Created { secret: Uid, account: String },
    /// A token, its lifetime in seconds if the answer has it, and its expiration as text.
    Issued { token: Token, seconds: Option<i64>, expires: String },
    /// The token is in the Secret, which has this version now.
    Stored(ResourceVersion),
    /// The Jobs that QuarksJobs own.
    Jobs(Vec<ListedJob>),
    /// The Secret was deleted, or did not exist.
    Deleted,
    /// It is not as expected: something else was faster.
    Changed,
    /// It failed, or the result is unknown.
    Failed,
    /// It did not work: there is no such account.
    NoAccount,
}

/// Whether a run may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The Secret holds a token that is valid for long enough.
    Ready,
    /// Not yet.
    NotYet,
    /// A Secret that is not ours has the name.
    Foreign,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Unknown,
    Absent,
    /// Owned by something else, when it was last checked.
    Foreign(Moment),
    /// Ours, without a token that is known to be valid.
    Empty(Uid),
    /// A token that is not in the Secret yet, and the one that is.
    Issued {
        secret: Uid,
        account: String,
        token: Token,
        expires: String,
        life: Life,
        former: Option<Held>,
    },
    /// With a token.
    Held(Held),
}

#[derive(Clone, Debug)]
struct Use {
    run: Run,
    /// When the start was last tried.
    touched: Moment,
    is_ownerless: bool,
}

/// What is known about the token of one namespace, and who needs it.
#[derive(Clone, Debug)]
pub struct State {
    known: Known,
    account: Option<String>,
    uses: Vec<Use>,
    /// The index shows a Job that needs the token.
    is_running: bool,
    /// The last list had such a Job.
    is_listed: bool,
    is_in: bool,
    /// When the token was last in use.
    used: Moment,
    /// Until when the last list allows a deletion.
    clear_until: Option<Moment>,
    /// No list before this moment.
    list_at: Moment,
    lists: u32,
    /// Nothing but a check before this moment.
    retry_at: Moment,
    /// The last answer: during a backoff a check follows it soon.
    answered: Moment,
    /// The Secret that existed when it was last seen.
    there: Option<Uid>,
    /// Tokens that something else has written to since one was left alone.
    rewrites: u32,
    failed: Option<Moment>,
    failures: u32,
    jitter: f64,
    /// When a start that shows nothing counts as abandoned.
    abandoned: Duration,
    in_flight: Option<Step>,
}

impl State {
    /// Nothing is known. `jitter`, from 0 to 1, keeps namespaces that fail together from retrying together; `call` is the limit on a
    /// call to the API server.
    pub fn new(jitter: f64, call: Duration, now: Moment) -> Self {
        Self {
            known: Known::Unknown,
            account: None,
            uses: Vec::new(),
            is_running: false,
            is_listed: false,
            is_in: false,
            used: now,
            clear_until: None,
            list_at: now,
            lists: 0,
            retry_at: now,
            answered: now,
            there: None,
            rewrites: 0,
            failed: None,
            failures: 0,
            jitter,
            abandoned: ABANDONED + call,
            in_flight: None,
        }
    }

    /// A run is about to start, or about to create its Job: from now on, until it is known to have ended and was judged, the token is in use.
    pub fn need(&mut self, run: Run, account: &str, now: Moment) {
        match self.uses.iter_mut().find(|known| known.run == run) {
            Some(known) => known.touched = now,
            None => self.uses.push(Use { run, touched: now, is_ownerless: false }),
        }
        self.account = Some(account.to_owned());
        self.used = now;
        self.clear_until = None;
        self.lists = 0;
        self.list_at = now;
        if self.failed.is_none_or(|failed| now - failed >= SHARED_FAILURE) {
            self.retry_at = self.retry_at.min(now);
            if matches!(self.known, Known::Foreign(_)) {
                self.known = Known::Unknown;
            }
        }
    }

    /// Whether a run with this service account may start.
    pub fn readiness(&self, wanted: &str, now: Moment) -> Readiness {
        match &self.known {
            Known::Held(held) | Known::Issued { former: Some(held), .. } if held.is_good(wanted, now) => Readiness::Ready,
            Known::Foreign(_) => Readiness::Foreign,
            Known::Unknown | Known::Absent | Known::Empty(_) | Known::Issued { .. } | Known::Held(_) => Readiness::NotYet,
        }
    }

    /// Takes in what the index shows. `fate` looks up a run in it.
    pub fn observe(&mut self, shown: Shown, fate: &dyn Fn(&Run) -> Fate, now: Moment) {
        let was_in_use = self.is_in_use();
        let Shown { is_in, is_running, account } = shown;
        self.is_in = is_in;
        self.is_running = is_running;
        // An active run keeps its credential to its end, whatever happens to the labels.
        self.account = account.or(self.account.take());
        self.uses.retain_mut(|known| {
            let fate = fate(&known.run);
            known.is_ownerless = fate == Fate::Ownerless;
            fate != Fate::Judged
        });
        if was_in_use || self.is_in_use() {
            self.used = now;
        }
        if self.is_in_use() {
            self.clear_until = None;
        }
    }

    /// What to do at `now`. A step that has an answer is handed out once; until the answer arrives there is no other.
    pub fn step(&mut self, now: Moment) -> Step {
        if self.in_flight.is_some() {
            return Step::Busy;
        }
        let step = self.decide(now);
        match &step {
            Step::Wait(_) | Step::Busy | Step::Over => return step,
            // Whatever the result, what was known is no longer valid.
            Step::Delete(_) => self.known = Known::Unknown,
            Step::Look | Step::Create(_) | Step::Request { .. } | Step::Store { .. } | Step::ListJobs => {}
        }
        self.in_flight = Some(step.clone());
        step
    }

    fn is_in_use(&self) -> bool {
        !self.uses.is_empty() && !is_planted(Defect::UsesIgnored) || self.is_running || self.is_listed
    }

    fn decide(&self, now: Moment) -> Step {
        if now < self.retry_at {
            return self.decide_in_backoff(now);
        }
        let list_at = self.list_due(now);
        if list_at.is_some_and(|at| at <= now) {
            return Step::ListJobs;
        }
        let wait = |at: Moment| Step::Wait(list_at.map_or(at, |list_at| list_at.min(at)));
        let request = |secret: &Uid| match &self.account {
            Some(account) => Step::Request { account: account.clone(), secret: secret.clone() },
            None => wait(now + LOOK),
        };
        let is_in_use = self.is_in_use();
        match &self.known {
            Known::Unknown => Step::Look,
            Known::Issued { secret, account, token, expires, life: _, former: _ } => {
                Step::Store { secret: secret.clone(), account: account.clone(), token: token.clone(), expires: expires.clone() }
            }
            Known::Absent | Known::Foreign(_) if !is_in_use => Step::Over,
            Known::Absent => self.account.clone().map_or_else(|| wait(now + LOOK), Step::Create),
            Known::Foreign(since) if now - *since < FOREIGN => wait(*since + FOREIGN),
            Known::Foreign(_) => Step::Look,
            Known::Empty(secret) | Known::Held(Held { secret, .. }) if !is_in_use => match self.clear_until {
                Some(until) if now < until => Step::Delete(secret.clone()),
                Some(_) | None => Step::Wait(list_at.unwrap_or(now + LOOK)),
            },
            Known::Empty(secret) => request(secret),
            Known::Held(held) => {
                let look = if is_planted(Defect::RareLooks) { LOOK * 2 } else { LOOK };
                let renew_at = held.renew_at();
                if now >= renew_at || self.account.as_ref() != Some(&held.account) {
                    request(&held.secret)
                } else if now - held.seen >= look {
                    Step::Look
                } else {
                    wait(renew_at.min(held.seen + look))
                }
            }
        }
    }

    /// Whatever failed, the loss of a Secret in use must be noticed soon.
    fn decide_in_backoff(&self, now: Moment) -> Step {
        let look_at = self.answered + LOOK;
        if !self.is_in_use() || matches!(self.known, Known::Foreign(_)) || look_at >= self.retry_at {
            Step::Wait(self.retry_at)
        } else if now < look_at {
            Step::Wait(look_at)
        } else {
            Step::Look
        }
    }

    /// When to list the Jobs: once nothing known needs the token.
    fn list_due(&self, now: Moment) -> Option<Moment> {
        if !self.is_in || self.is_running || self.clear_until.is_some_and(|until| now < until) {
            return None;
        }
        let is_ours = matches!(self.known, Known::Empty(_) | Known::Held(_));
        let due = match self.uses.iter().map(|known| known.touched + self.abandoned).max() {
            Some(abandoned) => abandoned,
            None if self.is_listed => self.list_at,
            None if is_ours => self.used + IDLE,
            None => return None,
        };
        Some(due.max(self.list_at))
    }

    /// Takes in the result of the step that was handed out, and was sent at `sent`.
    pub fn take_in(&mut self, answer: Answer, sent: Moment, now: Moment) {
        let Some(step) = self.in_flight.take() else { return };
        self.answered = now;
        match answer {
            Answer::Absent => {
                self.known = Known::Absent;
                self.is_there(None, now);
            }
            Answer::Found { secret, version, account } => {
                self.is_there(account.is_some().then(|| secret.clone()), now);
                self.found(secret, version, account, now);
            }
            Answer::Created { secret, account } => {
                self.account.get_or_insert(account);
                self.there = Some(secret.clone());
                self.known = Known::Empty(secret);
            }
            Answer::Issued { token, seconds, expires } => {
                let former = match std::mem::replace(&mut self.known, Known::Unknown) {
                    Known::Held(held) => Some(held),
                    _ => None,
                };
                if former.as_ref().is_some_and(|held| held.rewrite_at.is_none()) {
                    self.rewrites = 0;
                }
                if let Step::Request { account, secret } = step {
                    self.known = Known::Issued { secret, account, token, expires, life: Life::of(sent, seconds), former };
                }
            }
            Answer::Stored(version) => {
                if let Known::Issued { secret, account, life, .. } = std::mem::replace(&mut self.known, Known::Unknown) {
                    self.known = Known::Held(Held { secret, version, account, stored: now, life, rewrite_at: None, seen: now });
                }
                self.failures = 0;
                self.failed = None;
            }
            Answer::Jobs(jobs) => self.listed(&jobs, sent, now),
            Answer::Deleted => {
                self.known = Known::Absent;
                self.there = None;
            }
            Answer::Changed => {
                self.known = Known::Unknown;
                self.failures += 1;
                // Once may be a coincidence.
                if self.failures > 1 && !is_planted(Defect::ChangedNeverBacksOff) {
                    self.retry_at = now + RETRY.delay(self.failures, self.jitter);
                }
            }
            Answer::Failed if step == Step::ListJobs => self.postpone_list(now),
            Answer::Failed => self.fail(&step, now),
            Answer::NoAccount => {
                // So the token that was made for it is worth nothing, either.
                self.known = Known::Unknown;
                self.fail(&step, now);
            }
        }
    }

    /// The result of a look. A deleted Secret is re-created at once: earlier failures do not matter for that. Once for each, so
    /// what fails again backs off again.
    fn is_there(&mut self, there: Option<Uid>, now: Moment) {
        if self.there.is_some() && self.there != there {
            self.retry_at = self.retry_at.min(now);
        }
        self.there = there;
    }

    fn found(&mut self, found: Uid, found_version: ResourceVersion, owner: Option<String>, now: Moment) {
        let Some(owner) = owner else {
            self.known = Known::Foreign(now);
            return;
        };
        match &mut self.known {
            Known::Held(held) if held.secret == found && held.account == owner => {
                held.seen = now;
                if held.version != found_version && held.rewrite_at.is_none() {
                    // The token may have been overwritten: it is renewed. More likely it is unchanged, so no start waits for that.
                    self.rewrites += 1;
                    held.rewrite_at = Some(held.stored + REWRITE.delay(self.rewrites, 0.0));
                }
                // A look says nothing of a renewal that fails.
                if now < held.renew_at() {
                    self.failures = 0;
                    self.failed = None;
                }
            }
            // The lifetime of a found token is not known: it is renewed when it is needed, whatever the clock says.
            _ => self.known = Known::Empty(found),
        }
        self.account.get_or_insert(owner);
    }

    fn listed(&mut self, jobs: &[ListedJob], sent: Moment, now: Moment) {
        self.is_listed = jobs.iter().any(|job| !job.has_ended && !job.is_without_output);
        self.uses.retain(|known| {
            let is_abandoned = known.touched + self.abandoned <= sent || is_planted(Defect::AbandonedAtOnce);
            let job = jobs.iter().find(|job| job.name == known.run.job && job.owner == known.run.owner);
            // A Job that has ended and was not judged is waited for, unless its QuarksJob no longer exists.
            !is_abandoned || job.is_some_and(|job| !job.has_ended || !known.is_ownerless)
        });
        if self.is_in_use() {
            self.used = now;
            self.postpone_list(now);
        } else {
            let clear = if is_planted(Defect::ListsAreGoodForLong) { CLEAR * 30 } else { CLEAR };
            self.clear_until = Some(sent + clear);
            if now - sent >= clear {
                // Too slow to be of use; the next one may be as slow.
                self.postpone_list(now);
            }
        }
    }

    fn postpone_list(&mut self, now: Moment) {
        self.lists += 1;
        self.list_at = now + RELIST.delay(self.lists, self.jitter);
    }

    fn fail(&mut self, step: &Step, now: Moment) {
        self.failures += 1;
        self.failed = Some(now);
        self.clear_until = None;
        let is_look = *step == Step::Look;
        if !is_look {
            // It may have been done all the same. A renewal leaves a token in the Secret, the former one or the next.
            self.known = match std::mem::replace(&mut self.known, Known::Unknown) {
                Known::Held(held) | Known::Issued { former: Some(held), .. } => Known::Held(held),
                _ => Known::Unknown,
            };
        }
        let backoff = if self.is_in_use() { RETRY } else { RETRY_LEFTOVER };
        let delay = backoff.delay(self.failures, self.jitter);
        // A check is cheap, and a loss must be noticed soon; but it does not end the backoff of another step.
        self.retry_at = if is_look && self.is_in_use() { self.retry_at.max(now + delay.min(LOOK)) } else { now + delay };
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
