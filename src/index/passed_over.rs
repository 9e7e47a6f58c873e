//! Owners whose Jobs were not kept because the owner was not known: if the owner appears later, Jobs must be listed again.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

/// Owners of Jobs that are remembered as not known. More than appear in the moment between an owner and its Job.
pub(super) const PASSED_OVER: usize = 1_024;

/// Hashes of what was skipped, the newest of them.
#[derive(Debug, Default)]
pub(super) struct PassedOver {
    hashes: Mutex<VecDeque<u64>>,
    hasher: RandomState,
}

impl PassedOver {
    /// A Job of this owner was not kept.
    pub(super) fn note(&self, namespace: &str, owner: &str) {
        let hash = self.hasher.hash_one((namespace, owner));
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.contains(&hash) {
            return;
        }
        if hashes.len() == PASSED_OVER {
            hashes.pop_front();
        }
        hashes.push_back(hash);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hashes.lock().expect("no panic").len()
    }

    /// True if Jobs of this owner were not kept since this was last asked.
    pub(super) fn take(&mut self, namespace: &str, owner: &str) -> bool {
        let hashes = self.hashes.get_mut().unwrap_or_else(PoisonError::into_inner);
        if hashes.is_empty() {
            return false;
        }
        let hash = self.hasher.hash_one((namespace, owner));
        let before = hashes.len();
        hashes.retain(|other| *other != hash);
        hashes.len() < before
    }
}
