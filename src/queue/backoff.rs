//! How long to wait before a retry.

use std::time::Duration;

/// Doubling delays between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub first: Duration,
    /// No delay is longer.
    pub max: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row (0 counts as 1), plus up to a quarter of it by `jitter` (0 to 1),
    /// so that many keys that failed together do not come back together.
    pub fn delay(self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let delay = self.first.saturating_mul(1 << doublings).min(self.max);
        delay + delay.mul_f64(jitter.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound() {
        let backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(2) };
        let millis = |failures| backoff.delay(failures, 0.0).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 5, 1_000].map(millis), [200, 200, 400, 800, 1_600, 2_000, 2_000]);
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(250));
    }
}
