//! The pause of a whole client while the API server is overloaded: its load is not the fault of any one request, so nothing is sent
//! before the pause is over.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longer pauses are capped: a single overloaded proxy in between could stop all work.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Shared by the clones of a client.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    until: Mutex<Option<Instant>>,
    closed: Condvar,
}

impl Pause {
    /// The server has requested a pause. Returns its end; a longer pause that is already active is not cut short.
    pub(crate) fn begin(&self, asked: Duration, now: Instant) -> Instant {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let end = longer(*until, asked, now);
        *until = Some(end);
        end
    }

    /// Returns when no pause is active, or at `deadline`, or when [`Pause::close`] is called.
    pub(crate) fn wait(&self, deadline: Instant) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(left) =
            until.and_then(|until| until.min(deadline).checked_duration_since(Instant::now())).filter(|left| !left.is_zero())
        {
            until = self.closed.wait_timeout(until, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends all waits, now and later.
    pub(crate) fn close(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.closed.notify_all();
    }
}

fn longer(current: Option<Instant>, asked: Duration, now: Instant) -> Instant {
    let end = now + asked.min(PAUSE_MAX);
    current.map_or(end, |current| current.max(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_as_long_as_asked_within_bounds_and_never_cut_short() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        for (current, asked, end) in
            [(None, 1, at(1)), (None, 600, now + PAUSE_MAX), (Some(at(3)), 1, at(3)), (Some(at(3)), 5, at(5)), (Some(now), 1, at(1))]
        {
            assert_eq!(longer(current, Duration::from_secs(asked), now), end, "{current:?} {asked}");
        }
    }

    #[test]
    fn who_waits_is_let_go_at_the_deadline_and_at_the_close() {
        let pause = Pause::default();
        let start = Instant::now();
        pause.wait(start + Duration::from_secs(60));
        let end = pause.begin(PAUSE_MAX, start);
        assert_eq!(end, start + PAUSE_MAX);
        pause.wait(start);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pause.wait(start + Duration::from_secs(600)));
            pause.close();
            waiting.join().expect("let go");
        });
        assert!(Instant::now() < end, "none of them waited for the end of the pause");
    }
}
