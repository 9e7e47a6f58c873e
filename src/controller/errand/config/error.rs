//! Why references could not be checked.

use crate::kube::Error;

/// Why it could not be looked.
#[derive(Debug)]
pub enum LookError {
    /// For now; trying again may help.
    Api(Error),
    /// Someone has to do something: what, in one sentence.
    NotReady(String),
}

impl From<Error> for LookError {
    fn from(error: Error) -> Self {
        Self::Api(error)
    }
}
