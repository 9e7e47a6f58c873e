//! What `job` remembers about finished runs of one QuarksJob that are not cleaned up yet. It does not need the key in hand:
//! clean-up touches only Jobs and pods. Losing it costs a few retries.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{ObjectKey, Uid};
use crate::controller::shared::memory::{Acted, is_acted_on};
use crate::controller::shared::pace::REFUSAL_BACKOFF;
use crate::controller::shared::pace::{Pace, Pause, TIDY_PACE_MAX};
use crate::views::JobView;
use crate::views::identity::OwnJob;

use super::tidy::Pauses;

/// The memory of one key. All of it belongs to one UID.
#[derive(Debug, Default)]
pub struct Leftovers {
    uid: Uid,
    /// Pruning of versions that did not work.
    pub prune: Option<Pause>,
    /// Clean-up that was refused.
    clean_up: Option<Pause>,
    /// UIDs of the Jobs that it was refused for.
    refused: Vec<Uid>,
    /// Ended Jobs of older runs that are kept as failed.
    pub kept: Vec<Uid>,
    /// Jobs that were written to: the watch has not shown the result yet.
    acted: Vec<Acted>,
    /// Counts writes that change nothing.
    pub pace: Pace<TIDY_PACE_MAX>,
    /// UIDs of those of them for which a right is missing.
    denied: Vec<Uid>,
    /// A sentence about that, to be said with the key in hand.
    pub unsaid: Option<String>,
}

impl Leftovers {
    /// Forgets all of it if it is of another object of the name.
    pub fn identify(&mut self, uid: &Uid) {
        if self.uid != *uid {
            *self = Self { uid: uid.clone(), ..Self::default() };
        }
    }

    /// True if a right to clean up is missing.
    pub fn is_denied(&self) -> bool {
        !self.denied.is_empty()
    }

    /// The same, and what is about Jobs that are gone. Returns the Jobs of which the index
    /// shows the current state.
    pub fn observe(&mut self, uid: &Uid, jobs: Vec<OwnJob>) -> Vec<OwnJob> {
        self.identify(uid);
        let is_there = |uid: &Uid| jobs.iter().any(|job| job.view.uid == *uid);
        self.kept.retain(is_there);
        self.denied.retain(is_there);
        self.acted.retain(|acted| jobs.iter().any(|job| is_acted_on(&job.view, acted)));
        jobs.into_iter().filter(|job| !self.acted.iter().any(|acted| is_acted_on(&job.view, acted))).collect()
    }

    /// What is left alone for now.
    pub fn pauses(&self) -> Pauses<'_> {
        let until = |pause: Option<Pause>| pause.map(|pause| pause.until);
        Pauses { clean_up: until(self.clean_up), refused: &self.refused, prune: until(self.prune), kept: &self.kept }
    }

    /// There is nothing to do: nothing is held back.
    pub fn rest(&mut self) {
        self.clean_up = None;
        self.refused.clear();
        self.denied.clear();
    }

    /// Cleaning up this Job was refused, and the API server asks to wait so long at least. `denial` says which right is missing, if that
    /// is why. Returns the pause until it is retried.
    pub fn refused(&mut self, job: Uid, now: Instant, wait: Duration, denial: Option<String>) -> Pause {
        let running = self.clean_up.filter(|pause| now < pause.until);
        if running.is_none() {
            self.refused.clear();
        }
        self.denied.retain(|uid| *uid != job);
        if denial.is_some() {
            self.denied.push(job.clone());
        }
        self.refused.push(job);
        let mut pause = running.unwrap_or_else(|| Pause::after(self.clean_up, REFUSAL_BACKOFF, now));
        pause.until = pause.until.max(now + wait);
        self.clean_up = Some(pause);
        self.unsaid = denial;
        pause
    }

    /// A Job was cleaned up.
    pub fn cleaned_up(&mut self, now: Instant) {
        if self.refused.is_empty() || self.clean_up.is_none_or(|pause| now >= pause.until) {
            self.clean_up = None;
            self.refused.clear();
            self.denied.clear();
        }
    }

    /// Remembers that a write to this Job was acknowledged.
    pub fn acted_on(&mut self, job: &JobView) {
        self.acted.push((job.uid.clone(), job.resource_version.clone()));
    }

    fn is_idle(&self) -> bool {
        let Self { uid: _, prune, clean_up, refused: _, denied, kept, acted, pace, unsaid } = self;
        prune.is_none()
            && clean_up.is_none()
            && kept.is_empty()
            && acted.is_empty()
            && !pace.is_needed()
            && denied.is_empty()
            && unsaid.is_none()
    }
}

/// The leftovers of all keys. The queue gives a key to one worker at a time; that worker owns them.
#[derive(Debug, Default)]
pub struct AllLeftovers(Mutex<HashMap<ObjectKey, Box<Leftovers>>>);

impl AllLeftovers {
    /// Takes those of `key` out.
    pub fn take(&self, key: &ObjectKey) -> Box<Leftovers> {
        self.lock().remove(key).unwrap_or_default()
    }

    /// Puts them back, unless they say nothing.
    pub fn put(&self, key: &ObjectKey, leftovers: Box<Leftovers>) {
        if !leftovers.is_idle() {
            self.lock().insert(key.clone(), leftovers);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Box<Leftovers>>> {
        // Taken out and put in whole: a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_belong_to_one_uid_and_to_jobs_that_are_there() {
        let mut leftovers = Leftovers { kept: vec!["gone".into()], ..Leftovers::default() };
        leftovers.uid = "u".into();
        leftovers.observe(&"u".into(), Vec::new());
        assert!(leftovers.is_idle(), "its Job is gone");
        leftovers.refused("j".into(), Instant::now(), Duration::ZERO, None);
        leftovers.observe(&"u".into(), Vec::new());
        assert!(!leftovers.is_idle());
        leftovers.observe(&"other".into(), Vec::new());
        assert!(leftovers.is_idle(), "another object");
    }

    #[test]
    fn a_right_is_missing_until_something_else_comes_of_it() {
        let now = Instant::now();
        let check = |what: &str, then: fn(&mut Leftovers, Instant)| {
            let mut leftovers = Leftovers::default();
            leftovers.refused("j".into(), now, Duration::ZERO, Some("may not".to_owned()));
            assert_eq!((leftovers.unsaid.take().as_deref(), leftovers.is_denied()), (Some("may not"), true));
            then(&mut leftovers, now);
            assert_eq!((leftovers.unsaid.as_deref(), leftovers.is_denied()), (None, false), "{what}");
        };
        check("nothing is left", |leftovers, _| leftovers.rest());
        check("it works again", |leftovers, now| leftovers.cleaned_up(now + Duration::from_secs(3_600)));
        check("it is refused otherwise", |leftovers, now| _ = leftovers.refused("j".into(), now, Duration::ZERO, None));
        check("its Job is gone", |leftovers, _| _ = leftovers.observe(&Uid::default(), Vec::new()));
        check("another object", |leftovers, _| leftovers.identify(&"other".into()));
        let mut leftovers = Leftovers::default();
        leftovers.refused("j".into(), now, Duration::ZERO, Some("may not".to_owned()));
        leftovers.refused("other".into(), now, Duration::ZERO, None);
        assert!(leftovers.is_denied(), "what a policy refuses for another Job gives no right");
    }
}
