//! What an Event says. Not for how it is posted: see `events`.

use crate::contract::reason::Reason;

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    pub(super) reason: Reason,
    pub(super) action: &'static str,
    pub(super) text: String,
}

impl Note {
    /// `action` is what the operator did, or failed to do. The reason says whether it is a warning.
    pub fn new(reason: Reason, action: &'static str, text: String) -> Self {
        Self { reason, action, text }
    }
}
