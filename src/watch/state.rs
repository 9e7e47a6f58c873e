//! What a watch does next. Pure: no I/O, no clock, no logging; each state has just the transitions that are legal there.

use std::time::Duration;

use crate::api::ResourceVersion;
use crate::kube::pages::Cursor;

use super::WatchTimings;

/// Pages get no smaller than this when one takes too long: it may be the server that does not answer, and not the page.
const PAGE_MIN: u32 = 20;
/// From the tenth failure on, only every tenth is logged.
const TELL_EVERY: u32 = 10;

/// What the watch is about to do.
#[derive(Debug, PartialEq)]
pub(crate) enum WatchState {
    /// Fetch a page of a list.
    Listing(Listing),
    /// Open a watch, or continue reading it.
    Watching(Watching),
    /// Wait, then continue.
    Waiting(Waiting),
}

/// About to fetch a page.
#[derive(Debug, PartialEq)]
pub(crate) struct Listing {
    pub(crate) cursor: Cursor,
    failures: u32,
}

/// About to open a watch at `version`, or reading it.
#[derive(Debug, PartialEq)]
pub(crate) struct Watching {
    pub(crate) version: ResourceVersion,
    /// This watch has sent something.
    progressed: bool,
    failures: u32,
}

/// About to wait.
#[derive(Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) delay: Duration,
    next: Next,
    failures: u32,
}

#[derive(Debug, PartialEq)]
enum Next {
    List(Cursor),
    Watch(ResourceVersion),
}

/// Why a list or watch did not end normally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Version or page token too old, or a version that the server has not seen: only a fresh list helps.
    Gone,
    /// 401 or 403.
    Denied,
    /// 404: the kind does not exist, and so there are no objects.
    Missing,
    /// The server requests a retry later; the position stays valid.
    Busy {
        /// When, if the answer says so.
        retry_after: Option<Duration>,
    },
    /// The connection or the server failed; the position stays valid.
    Interrupted,
    /// Silence for longer than the idle limit.
    Idle,
    /// The page is larger than what comes in the time for it.
    TooLarge,
    /// The answer cannot be decoded, or the server rejects the position.
    Garbled,
}

impl Failure {
    /// Label in metrics and logs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::Busy { .. } => "busy",
            Self::Interrupted => "interrupted",
            Self::Idle => "idle",
            Self::TooLarge => "too-large",
            Self::Garbled => "garbled",
        }
    }

    fn keeps_position(self) -> bool {
        match self {
            Self::Denied | Self::Busy { .. } | Self::Interrupted | Self::Idle => true,
            Self::Gone | Self::Missing | Self::TooLarge | Self::Garbled => false,
        }
    }
}

/// Something worth logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The n-th consecutive failure.
    Failing(u32),
    /// Recovered after n failures.
    Recovered(u32),
}

/// Outcome of a transition.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) state: WatchState,
    /// The collected pages are a complete list.
    pub(crate) publish: bool,
    /// The watch starts again, for this reason.
    pub(crate) restart: Option<&'static str>,
    pub(crate) notice: Option<Notice>,
}

impl Step {
    fn quietly(state: WatchState) -> Self {
        Self { state, publish: false, restart: None, notice: None }
    }
}

/// What transitions need to know besides the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) timings: &'a WatchTimings,
    pub(crate) page_limit: u32,
    /// From 0 up to but not including 1; another one each time.
    pub(crate) jitter: f64,
}

impl Rules<'_> {
    fn fresh(&self) -> Cursor {
        Cursor::first(self.page_limit)
    }

    /// Half to all of an exponential wait; never less than the server requests.
    fn delay(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let full = self.timings.backoff_min.saturating_mul(1 << doublings).min(self.timings.backoff_max);
        let backoff = full.mul_f64(0.5 + 0.5 * self.jitter);
        // Spread a little, so that not all clients come back in the same moment.
        let asked = retry_after.map_or(Duration::ZERO, |asked| asked.mul_f64(1.0 + 0.1 * self.jitter));
        backoff.max(asked)
    }

    fn wait(&self, failure: Failure, next: Next, failures: u32) -> Step {
        let retry_after = match failure {
            Failure::Busy { retry_after } => retry_after,
            _ => None,
        };
        self.wait_for(failure.reason(), retry_after, next, failures)
    }

    fn wait_for(&self, reason: &'static str, retry_after: Option<Duration>, next: Next, failures: u32) -> Step {
        Step {
            state: WatchState::Waiting(Waiting { delay: self.delay(failures, retry_after), next, failures }),
            publish: false,
            restart: Some(reason),
            notice: (failures == 1 || failures.is_multiple_of(TELL_EVERY)).then_some(Notice::Failing(failures)),
        }
    }
}

impl WatchState {
    /// Every watch starts with a list.
    pub(crate) fn start(page_limit: u32) -> Self {
        Self::Listing(Listing { cursor: Cursor::first(page_limit), failures: 0 })
    }

    /// A fresh list is requested. A wait continues, and what was collected of a list is void.
    pub(crate) fn list_again(self, page_limit: u32) -> Self {
        let failures = self.failures();
        let fresh = Cursor::first(page_limit);
        match self {
            Self::Listing(Listing { cursor: cursor @ Cursor { token: None, .. }, failures }) => Self::Listing(Listing { cursor, failures }),
            Self::Listing(_) | Self::Watching(_) => Self::Listing(Listing { cursor: fresh, failures }),
            Self::Waiting(Waiting { delay, next: _, failures }) => Self::Waiting(Waiting { delay, next: Next::List(fresh), failures }),
        }
    }

    /// Consecutive failures.
    pub(crate) fn failures(&self) -> u32 {
        match self {
            Self::Listing(state) => state.failures,
            Self::Watching(state) => state.failures,
            Self::Waiting(state) => state.failures,
        }
    }
}

impl Listing {
    /// A page has arrived. Failures are not forgotten yet: a watch that fails after each list must back off.
    pub(crate) fn page(self, version: ResourceVersion, token: Option<String>, rules: Rules<'_>) -> Step {
        let Self { cursor, failures } = self;
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            return Step::quietly(WatchState::Listing(Self { cursor: cursor.next(token), failures }));
        }
        if version.is_empty() {
            // Nothing to watch from.
            return rules.wait(Failure::Garbled, Next::List(rules.fresh()), failures.saturating_add(1));
        }
        Step { publish: true, ..Step::quietly(WatchState::Watching(Watching { version, progressed: false, failures })) }
    }

    /// No page arrived.
    pub(crate) fn failed(self, failure: Failure, rules: Rules<'_>) -> Step {
        let Self { cursor, failures } = self;
        let cursor = match failure {
            Failure::Denied | Failure::Busy { .. } | Failure::Interrupted | Failure::Idle => cursor,
            Failure::Gone => cursor.after_expiry().unwrap_or(rules.fresh()),
            Failure::TooLarge => {
                let limit = cursor.limit.map_or(rules.page_limit, |limit| (limit / 4).max(PAGE_MIN.min(limit)));
                Cursor::first(limit)
            }
            Failure::Missing | Failure::Garbled => rules.fresh(),
        };
        rules.wait(failure, Next::List(cursor), failures.saturating_add(1))
    }
}

impl Watching {
    /// An event or a bookmark arrived in a watch that has lived this long.
    pub(crate) fn progress(self, version: Option<ResourceVersion>, lived: Duration, rules: Rules<'_>) -> (Self, Option<Notice>) {
        let Self { version: old, progressed: _, failures } = self;
        let version = version.filter(|version| !version.is_empty()).unwrap_or(old);
        let (failures, notice) = forgive(failures, lived, rules);
        (Self { version, progressed: true, failures }, notice)
    }

    /// The server ended the watch without an error.
    pub(crate) fn ended(self, lived: Duration, rules: Rules<'_>) -> Step {
        let Self { version, progressed, failures } = self;
        if lived < rules.timings.short {
            // One that moved on is not punished more and more, but a closed watch costs a wait.
            let failures = if progressed { failures.max(1) } else { failures.saturating_add(1) };
            return rules.wait_for("closed-early", None, Next::Watch(version), failures);
        }
        let (failures, notice) = forgive(failures, lived, rules);
        let state = WatchState::Watching(Self { version, progressed: false, failures });
        Step { state, publish: false, restart: Some("ended"), notice }
    }

    /// The watch could not be opened (`lived` is zero) or broke.
    pub(crate) fn failed(self, failure: Failure, lived: Duration, rules: Rules<'_>) -> Step {
        let Self { version, progressed, failures } = self;
        let (failures, _) = forgive(failures, lived, rules);
        if failure.keeps_position() {
            let failures = if progressed { failures.max(1) } else { failures.saturating_add(1) };
            return rules.wait(failure, Next::Watch(version), failures);
        }
        rules.wait(failure, Next::List(rules.fresh()), failures.saturating_add(1))
    }
}

impl Waiting {
    /// The wait is over.
    pub(crate) fn waited(self) -> WatchState {
        let Self { delay: _, next, failures } = self;
        match next {
            Next::List(cursor) => WatchState::Listing(Listing { cursor, failures }),
            Next::Watch(version) => WatchState::Watching(Watching { version, progressed: false, failures }),
        }
    }
}

/// A watch that lives makes up for earlier failures.
fn forgive(failures: u32, lived: Duration, rules: Rules<'_>) -> (u32, Option<Notice>) {
    if lived < rules.timings.short { (failures, None) } else { (0, (failures > 0).then_some(Notice::Recovered(failures))) }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
