//! Why a namespace has no token.

use crate::kube::Error;

/// Why a namespace has no token.
#[derive(Clone, Debug)]
pub enum CredentialError {
    /// For now; trying again may help.
    Api(Error),
    /// Someone has to do something: what, in one sentence.
    NotReady(String),
}
