//! One flag that every waiting thread waits on as well.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// Ends all that holds a [`Shutdown`] of the same pair when it is dropped.
#[derive(Debug)]
pub struct ShutdownGuard(#[expect(dead_code, reason = "closing the channel is the signal")] Sender<()>);

/// Says whether, and lets wait until, the process must end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(Receiver<()>);

/// A guard and the flag it raises.
pub fn pair() -> (ShutdownGuard, Shutdown) {
    let (sender, receiver) = bounded(0);
    (ShutdownGuard(sender), Shutdown(receiver))
}

impl Shutdown {
    /// For `select!`: becomes ready, with an error, when the guard is dropped.
    pub fn channel(&self) -> &Receiver<()> {
        &self.0
    }

    /// Waits this long. True if it ended early because of the shutdown.
    pub fn wait(&self, limit: Duration) -> bool {
        self.0.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_guard_ends_the_wait() {
        let (guard, shutdown) = pair();
        assert!(!shutdown.wait(Duration::from_millis(1)));
        drop(guard);
        assert!(shutdown.wait(Duration::from_secs(60)));
    }
}
