//! Defects that tests plant to see that they are found: a question of identity that is not asked any more, or a rule of the token.
//!
//! Promise: the program has none of them; outside of tests `is_planted` is a constant.

/// One defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Memory outlives its UID.
    MemoryOfAnotherUid,
    /// A Job's namespace does not matter.
    NamespaceNotAsked,
    /// A restored status is believed.
    StatusOfAnotherUid,
    /// What a restored marker names as served runs again.
    RestoredRequest,
    /// A Job without its annotation has no owner.
    RunAnnotationLost,
    /// An annotation that names another run is believed.
    RecordOfAnotherRun,
    /// The marker's copy in status does not count.
    MarkerCopyIgnored,
    /// The marker is not copied to status.
    MarkerNotCopied,
    /// Strays are left alone.
    StrayNotFirst,
    /// What this process has started is forgotten if the index does not show it.
    StartedNotAsked,
    /// An active run in status does not count without its Job.
    ActiveNotAsked,
    /// Both controllers have a key in hand at once.
    TwoHands,
    /// A controller that is done with a key does not tell the other.
    HandOverLost,
    /// Token: the runs that need it do not count.
    UsesIgnored,
    /// Token: a run counts as abandoned at once.
    AbandonedAtOnce,
    /// Token: what has changed is checked again without a pause.
    ChangedNeverBacksOff,
    /// Token: an old list of Jobs allows a deletion.
    ListsAreGoodForLong,
    /// Token: twice as long until the next look.
    RareLooks,
}

/// True if this test has planted the defect.
#[cfg(not(test))]
pub(crate) const fn is_planted(_: Defect) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::{is_planted, plant};

#[cfg(test)]
mod switch {
    use super::Defect;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// True if this test has planted the defect.
    pub(crate) fn is_planted(defect: Defect) -> bool {
        PLANTED.get() == Some(defect)
    }

    /// Plants a defect in this thread, or takes it out.
    pub(crate) fn plant(defect: Option<Defect>) {
        PLANTED.set(defect);
    }
}
