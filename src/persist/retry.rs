//! When to retry, and when to give up (pure).

use std::time::{Duration, Instant};

use crate::kube::{Answer, Error};
use crate::queue;
use crate::watch::Jitter;

/// First wait after a failed call, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait between two tries of our own choice.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Longest wait that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// How long 401 is retried: the token comes from the operator, which may be away for an upgrade, and takes up to 90 s to reach the
/// pod. An admission webhook that cannot be reached may be away for one as well.
const ABSENCE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Why an attempt did not get through.
#[derive(Debug)]
pub enum AttemptError {
    /// The API server's answer, or none.
    Call(Error),
    /// Something in the way that may go.
    InTheWay(String),
}

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

    /// The wait after `tries` earlier failures; at least what the server requested.
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

    /// Notes the failure; true if it has been retried for long enough. Trouble that may be temporary is never enough.
    pub fn is_over(&mut self, failure: &AttemptError, now: Instant) -> bool {
        let limit = match failure {
            AttemptError::InTheWay(_) => self.limit,
            AttemptError::Call(error) => match error.answer() {
                // A conflict that is left over here is about a quota: the server asks to try again. A time-out may be a webhook's or
                // the network's: nothing is lost by waiting.
                Answer::OnTheWay | Answer::Unavailable | Answer::Busy | Answer::TimedOut | Answer::Conflict | Answer::OtherObject => {
                    self.refused_since = None;
                    return false;
                }
                Answer::Shutdown => return true,
                Answer::Unauthorized | Answer::WebhookFailed => ABSENCE_LIMIT,
                Answer::MissingRight
                | Answer::Refused
                | Answer::Terminating
                | Answer::FieldError
                | Answer::Gone
                | Answer::Exists
                | Answer::Expired
                | Answer::Unreadable => self.limit,
            },
        };
        now.saturating_duration_since(*self.refused_since.get_or_insert(now)) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::super::environment::REFUSED_LIMIT;
    use super::*;
    use crate::api::{Resource, Status};

    fn answered(code: u16, status: Status) -> AttemptError {
        AttemptError::Call(Error::Status { verb: "create", resource: Resource::SECRETS, code, status: Box::new(status), retry_after: None })
    }

    /// When it is over, in seconds.
    fn limit(failure: &AttemptError) -> Option<u64> {
        let (start, mut patience) = (Instant::now(), Patience::new(REFUSED_LIMIT));
        (0..=1000).find(|second| patience.is_over(failure, start + Duration::from_secs(*second)))
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
        for (code, seconds) in [
            (403, Some(60)),
            (422, Some(60)),
            (400, Some(60)),
            (413, Some(60)),
            (410, Some(60)),
            (401, Some(900)),
            (429, None),
            (500, None),
            (503, None),
            (504, None),
            (409, None),
        ] {
            assert_eq!(limit(&answered(code, Status::genuine(code, "", ""))), seconds, "{code}");
        }
        let webhook = "Internal error occurred: failed calling webhook \"w\": no endpoints available";
        assert_eq!(limit(&answered(500, Status::genuine(500, "InternalError", webhook))), Some(900));
        assert_eq!(limit(&answered(404, Status::genuine(404, "NotFound", "namespaces \"n\" not found"))), Some(60));
        assert_eq!(limit(&AttemptError::InTheWay(String::new())), Some(60));
        assert_eq!(limit(&AttemptError::Call(Error::Shutdown)), Some(0));
    }

    #[test]
    fn what_is_not_by_the_api_server_wears_nothing_out() {
        for (code, seconds) in [(404, None), (403, None), (400, None), (422, None), (502, None), (413, Some(60)), (401, Some(900))] {
            assert_eq!(limit(&answered(code, Status::default())), seconds, "{code}");
        }
    }
}
