//! What to do with a container's output once its state is known (pure).

use super::expect::Seen;

/// What to do about one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// Read its files. What is not right is an error, or with `lenient` not stored and no error.
    Read {
        /// The container failed: only what is there and valid counts.
        lenient: bool,
        /// Documents that a file may hold: restarts + 1.
        documents: usize,
    },
    /// It failed: nothing is written.
    Nothing,
    /// The pod has no such container.
    Absent,
}

/// Decides about one container.
pub fn decide(seen: Seen, write_on_failure: bool) -> Verdict {
    match seen {
        Seen::Going => Verdict::Wait,
        Seen::Absent => Verdict::Absent,
        Seen::Ended(end) if end.exit_code != 0 && !write_on_failure => Verdict::Nothing,
        Seen::Ended(end) => {
            Verdict::Read { lenient: end.exit_code != 0, documents: usize::try_from(end.restarts).unwrap_or(usize::MAX).saturating_add(1) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::expect::End;
    use super::*;

    #[test]
    fn a_failed_container_writes_only_when_asked() {
        let ended = |exit_code, restarts| Seen::Ended(End { exit_code, restarts });
        for (seen, write_on_failure, expected) in [
            (Seen::Going, false, Verdict::Wait),
            (Seen::Going, true, Verdict::Wait),
            (Seen::Absent, true, Verdict::Absent),
            (ended(0, 0), false, Verdict::Read { lenient: false, documents: 1 }),
            (ended(0, 2), true, Verdict::Read { lenient: false, documents: 3 }),
            (ended(1, 0), false, Verdict::Nothing),
            (ended(137, 0), false, Verdict::Nothing),
            (ended(1, 0), true, Verdict::Read { lenient: true, documents: 1 }),
            (ended(137, 1), true, Verdict::Read { lenient: true, documents: 2 }),
            (ended(-1, 0), true, Verdict::Read { lenient: true, documents: 1 }),
            (ended(0, u32::MAX), false, Verdict::Read { lenient: false, documents: 1 << 32 }),
        ] {
            assert_eq!(decide(seen, write_on_failure), expected, "{seen:?} {write_on_failure}");
        }
    }
}
