//! A point in time on a clock that keeps running while the machine sleeps and that cannot be set (`CLOCK_BOOTTIME`).
//!
//! For what expires whether this machine is awake or not: a Lease that others count down, the lifetime of a token. Everything else
//! uses `std::time::Instant`, whose clock stops during suspend.

use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine was started, sleep included. Means nothing on another machine or after a restart of this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The moment this long after the machine was started.
    pub const fn after_boot(duration: Duration) -> Self {
        Self(duration)
    }

    /// Now.
    pub fn now() -> Self {
        // This clock starts at zero, so neither part is ever negative.
        let time = clock_gettime(ClockId::Boottime);
        Self(Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    /// Time since the machine was started.
    pub fn since_boot(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// The latest moment there is, if the sum does not fit.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub for Moment {
    type Output = Duration;

    /// Zero if `earlier` is in fact later.
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine that has never slept the two clocks agree, so it is compared with what the kernel says of its uptime: that includes sleep.
    #[test]
    fn it_is_the_time_since_the_start_of_the_machine_with_its_sleep() {
        let uptime = || -> f64 {
            let text = std::fs::read_to_string("/proc/uptime").expect("Linux has it");
            text.split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("seconds")
        };
        let (before, now, after) = (uptime(), Moment::now(), uptime());
        // The file has hundredths.
        let seconds = now.since_boot().as_secs_f64();
        assert!(before - 0.02 <= seconds && seconds <= after + 0.02, "{before} {seconds} {after}");
        assert!(Moment::now() >= now, "it never goes back");
    }

    #[test]
    fn sums_and_differences_do_not_overflow() {
        let (second, zero) = (Duration::from_secs(1), Moment::after_boot(Duration::ZERO));
        assert_eq!((zero + second) - zero, second);
        assert_eq!(zero - (zero + second), Duration::ZERO);
        assert_eq!((zero + Duration::MAX) + second, zero + Duration::MAX);
    }
}
