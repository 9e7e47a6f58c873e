//! What a controller decides, does and ends with. `decide` functions return a [`Decision`] and do nothing.

use std::time::Duration;

use crate::kube::Error;

/// What to do for a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<Step> {
    /// Nothing until something changes.
    Nothing,
    /// Nothing for this long, then look again.
    Wait(Duration),
    /// One step, then look again.
    Do(Step),
}

/// What a step leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Look again at once.
    Continue,
    /// Nothing more for this long.
    Wait(Duration),
}

/// Why a step did not end well.
#[derive(Debug)]
pub enum Failed {
    /// The API server said no or could not be reached.
    Api(Error),
    /// The object was not what the decision was made on: read and decide again.
    Stale,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        // NotFound: the QuarksJob itself, or the Job of the step, no longer exists; a read shows which.
        if error.is_conflict() || error.is_not_found() { Self::Stale } else { Self::Api(error) }
    }
}

/// What becomes of a key after a turn.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing more until something changes.
    Done,
    /// Look again after this long.
    RequeueAfter(Duration),
    /// It failed for now: back off.
    Retry(Error),
    /// The other controller has it in hand and hands it over when it is through.
    NotMine,
}
