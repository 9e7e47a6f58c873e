//! A Secret with a token: when it is renewed, and until when a run may start with it. Pure.

use std::time::Duration;

use crate::api::{ResourceVersion, Uid};
use crate::moment::Moment;

/// Requested lifetime of a token in seconds, at most an hour. The API server may grant less, or more.
pub const TOKEN_SECONDS: u32 = 3_600;
/// A shorter lifetime counts as this: renewals never come more often than twice in it.
pub const LIFE_MIN: u64 = 60;
/// A Secret is assumed to exist for this long: enough for a start, after which it is checked at once.
const TRUST: Duration = Duration::from_secs(60);

/// When a token is to be renewed, and until when a run may start with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// At half of it.
    renew_at: Moment,
    good_until: Moment,
}

/// A Secret with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its UID.
    pub secret: Uid,
    /// As it was stored. With another one something else has written to it, and it is unknown whether the token is still there.
    pub version: ResourceVersion,
    /// The account that the token is for.
    pub account: String,
    /// When the token was stored.
    pub stored: Moment,
    /// Of the token.
    pub life: Life,
    /// Something else has written to it: it is renewed then, if that is earlier.
    pub rewrite_at: Option<Moment>,
    /// When the Secret was last seen as it is.
    pub seen: Moment,
}

impl Held {
    /// A run with this account may start with it.
    pub fn is_good(&self, wanted: &str, now: Moment) -> bool {
        self.account == wanted && now < self.life.good_until && now - self.seen < TRUST
    }

    /// When it is renewed, unless it fails.
    pub fn renew_at(&self) -> Moment {
        self.rewrite_at.unwrap_or(self.life.renew_at).min(self.life.renew_at)
    }
}

impl Life {
    /// Of a token that was asked for at `sent`. A life that the answer does not name is taken for a short one; a long one for what was asked
    /// for. The last quarter is for the kubelet to bring the next token to the pod.
    pub fn of(sent: Moment, seconds: Option<i64>) -> Self {
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        let quarter = Duration::from_secs(seconds.clamp(LIFE_MIN, u64::from(TOKEN_SECONDS))) / 4;
        Self { renew_at: sent + quarter * 2, good_until: sent + quarter * 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::after_boot(Duration::from_secs(86_400));

    fn moment(seconds: u64) -> Moment {
        START + Duration::from_secs(seconds)
    }

    fn held(life: Life, seen: u64) -> Held {
        let (secret, version, account) = (Uid::from("s"), ResourceVersion::from("1"), "a".to_owned());
        Held { secret, version, account, stored: START, life, rewrite_at: None, seen: moment(seen) }
    }

    #[test]
    fn life_is_the_answers_within_bounds() {
        for (seconds, half) in [
            (Some(3_600), 1_800),
            (Some(600), 300),
            (Some(62), 31),
            (Some(60), 30),
            (Some(5), 30),
            (Some(0), 30),
            (Some(-3_600), 30),
            (None, 30),
            (Some(86_400), 1_800),
            (Some(i64::MAX), 1_800),
        ] {
            let life = Life::of(START, seconds);
            assert_eq!(life.renew_at, moment(half), "{seconds:?}");
            assert_eq!(life.good_until, START + Duration::from_millis(half * 1_500), "{seconds:?}: three quarters");
        }
    }

    #[test]
    fn a_start_believes_a_look_for_a_minute_and_a_token_for_three_quarters_of_its_life() {
        for (account, seen, at, expected) in [
            ("a", 0, 59, true),
            ("a", 0, 60, false),
            ("b", 0, 0, false),
            ("a", 2_690, 2_699, true),
            ("a", 2_690, 2_700, false),
            // The machine slept.
            ("a", 0, 7_200, false),
        ] {
            assert_eq!(held(Life::of(START, Some(3_600)), seen).is_good(account, moment(at)), expected, "{account} {seen} {at}");
        }
    }
}
