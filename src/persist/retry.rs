//! When to try again, and when to stop trying (pure).

use std::time::{Duration, Instant};

use super::write::Failure;
use crate::queue;
use crate::watch::Jitter;

/// First wait after a failed call, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait between two tries of our own choice.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Longest wait that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// How long final answers (403, 422 and the like) are retried: someone may be setting up rights or quota just now.
pub const REFUSED_LIMIT: Duration = Duration::from_secs(60);
/// How long 401 is retried: the token comes from the operator, which may be away for an upgrade, and takes up to 90 s to reach the pod.
const UNAUTHORIZED_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Growing waits with jitter, so that many sidecars do not ask at the same moment.
#[derive(Debug)]
pub struct Backoff {
    jitter: Jitter,
}

impl Backoff {
    /// The seed only has to differ between sidecars.
    pub fn new(seed: u64) -> Self {
        Self { jitter: Jitter::new(seed) }
    }

    /// The wait after `tries` earlier failures; at least what the server asked for.
    pub fn delay(&mut self, tries: u32, asked: Option<Duration>) -> Duration {
        let own = queue::Backoff { first: FIRST_WAIT, max: LONGEST_WAIT }.delay(tries.saturating_add(1), self.jitter.next_factor());
        asked.map_or(own, |asked| asked.min(LONGEST_ASKED).max(own))
    }
}

/// How long one Secret has been refused already.
#[derive(Clone, Debug)]
pub struct Patience {
    limit: Duration,
    refused_since: Option<Instant>,
}

impl Patience {
    /// Final answers are retried for as long as `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, refused_since: None }
    }

    /// Notes the failure; true if retrying it has gone on for long enough. Trouble that may pass by itself is never enough.
    pub fn is_over(&mut self, failure: &Failure, now: Instant) -> bool {
        let limit = match failure {
            // A conflict that is left over here is about a quota: the server asks to try again.
            Failure::Call(error) if error.is_transient() || error.is_conflict() => {
                self.refused_since = None;
                return false;
            }
            Failure::Call(error) if error.is_shutdown() => return true,
            Failure::Call(error) if error.is_unauthorized() => UNAUTHORIZED_LIMIT,
            Failure::Call(_) | Failure::InTheWay(_) => self.limit,
        };
        now.saturating_duration_since(*self.refused_since.get_or_insert(now)) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Resource, Status};
    use crate::kube::Error;

    fn status(code: u16) -> Failure {
        let (verb, resource) = ("create", Resource::SECRETS);
        Failure::Call(Error::Status { verb, resource, code, status: Box::new(Status::default()), retry_after: None })
    }

    #[test]
    fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::new(1);
        for (tries, asked, least) in [
            (0, None, 250),
            (1, None, 500),
            (3, None, 2000),
            (6, None, 15_000),
            (31, None, 15_000),
            (32, None, 15_000),
            (u32::MAX, None, 15_000),
            (0, Some(7), 7000),
            (0, Some(0), 250),
            (0, Some(100_000), 60_000),
        ] {
            let wait = backoff.delay(tries, asked.map(Duration::from_secs));
            let least = Duration::from_millis(least);
            assert!(wait >= least && wait <= least * 3 / 2, "{tries} {asked:?}: {wait:?}");
        }
    }

    #[test]
    fn only_final_answers_wear_patience_out() {
        let start = Instant::now();
        for (code, limit) in [
            (403, Some(60)),
            (422, Some(60)),
            (400, Some(60)),
            (404, Some(60)),
            (413, Some(60)),
            (401, Some(900)),
            (429, None),
            (500, None),
            (503, None),
            (409, None),
        ] {
            let mut patience = Patience::new(REFUSED_LIMIT);
            let over = (0..=1000).find(|second| patience.is_over(&status(code), start + Duration::from_secs(*second)));
            assert_eq!(over, limit, "{code}");
        }
    }
}
