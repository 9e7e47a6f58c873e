//! What to do with a container's output once its state is known (pure).

use super::expect::Observed;

/// What to do about one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputDecision {
    /// Nothing yet.
    Wait,
    /// Read its files. What is not right is an error, or with `lenient` not stored and no error.
    Read {
        /// The container failed: only existing and valid output counts.
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
pub fn decide(observed: Observed, write_on_failure: bool) -> OutputDecision {
    match observed {
        Observed::Going => OutputDecision::Wait,
        Observed::Absent => OutputDecision::Absent,
        Observed::Ended(end) if end.exit_code != 0 && !write_on_failure => OutputDecision::Nothing,
        Observed::Ended(end) => OutputDecision::Read {
            lenient: end.exit_code != 0,
            documents: usize::try_from(end.restarts).unwrap_or(usize::MAX).saturating_add(1),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::expect::ContainerEnd;
    use super::*;

    #[test]
    fn a_failed_container_writes_only_when_asked() {
        let ended = |exit_code, restarts| Observed::Ended(ContainerEnd { exit_code, restarts });
        for (observed, write_on_failure, expected) in [
            (Observed::Going, false, OutputDecision::Wait),
            (Observed::Going, true, OutputDecision::Wait),
            (Observed::Absent, true, OutputDecision::Absent),
            (ended(0, 0), false, OutputDecision::Read { lenient: false, documents: 1 }),
            (ended(0, 2), true, OutputDecision::Read { lenient: false, documents: 3 }),
            (ended(1, 0), false, OutputDecision::Nothing),
            (ended(137, 0), false, OutputDecision::Nothing),
            (ended(1, 0), true, OutputDecision::Read { lenient: true, documents: 1 }),
            (ended(137, 1), true, OutputDecision::Read { lenient: true, documents: 2 }),
            (ended(-1, 0), true, OutputDecision::Read { lenient: true, documents: 1 }),
            (ended(0, u32::MAX), false, OutputDecision::Read { lenient: false, documents: 1 << 32 }),
        ] {
            assert_eq!(decide(observed, write_on_failure), expected, "{observed:?} {write_on_failure}");
        }
    }
}
