//! A deadline that moves ahead, shared between threads: something is valid until then, and not longer unless the deadline is moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::moment::Moment;

/// Cheap to clone; clones share the moment. The clock keeps running while the process is stopped (SIGSTOP) and while the machine
/// sleeps, so what it guards is over when the process continues too late.
#[derive(Clone, Debug, Default)]
pub struct Until {
    /// Nanoseconds since the machine was started; 0 is past.
    moment: Arc<AtomicU64>,
}

impl Until {
    /// From now on it holds until `moment`, which may also be sooner than before.
    pub fn set(&self, moment: Moment) {
        self.moment.store(nanos(moment), Ordering::SeqCst);
    }

    /// It holds no longer.
    pub fn end(&self) {
        self.moment.store(0, Ordering::SeqCst);
    }

    /// True if the moment is still ahead.
    pub fn holds(&self) -> bool {
        !self.left().is_zero()
    }

    /// Time left; zero if it is past.
    pub fn left(&self) -> Duration {
        Duration::from_nanos(self.moment.load(Ordering::SeqCst).saturating_sub(nanos(Moment::now())))
    }
}

/// They fit for 584 years.
fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.since_boot().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_until_its_moment_for_all_clones() {
        let hour = Duration::from_secs(3600);
        let until = Until::default();
        let clone = until.clone();
        assert!(!clone.holds(), "nothing holds that was not set");
        until.set(Moment::now() + hour);
        assert!(clone.holds() && clone.left() > hour / 2 && clone.left() <= hour);
        clone.end();
        assert!(!until.holds());
        until.set(Moment::now());
        assert!(!until.holds(), "the moment itself is past");
    }
}
