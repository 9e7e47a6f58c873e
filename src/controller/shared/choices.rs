//! Starts that have chosen versions and whose Job does not exist yet: the chosen versions must not be pruned in the meantime.
//!
//! It covers only this process. With two operators, or with a create that arrives after its caller has given up, a version that is
//! no longer the newest can be deleted just before the Job that references it is created.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The namespaces of such starts, one entry each.
#[derive(Debug, Default)]
pub struct Choices(Mutex<Vec<String>>);

/// One start; over when dropped.
#[derive(Debug)]
pub struct Choice<'a> {
    all: &'a Choices,
    namespace: String,
}

impl Choices {
    /// To be called before versions are looked up, and kept until the Job's create is answered.
    pub fn begin(&self, namespace: &str) -> Choice<'_> {
        self.lock().push(namespace.to_owned());
        Choice { all: self, namespace: namespace.to_owned() }
    }

    /// True if some start in the namespace may be about to name a version.
    pub fn is_any_in(&self, namespace: &str) -> bool {
        self.lock().iter().any(|other| other == namespace)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Choice<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(at) = all.iter().position(|namespace| *namespace == self.namespace) {
            all.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_counts_until_it_is_dropped() {
        let choices = Choices::default();
        let (first, second) = (choices.begin("a"), choices.begin("a"));
        assert_eq!((choices.is_any_in("a"), choices.is_any_in("b")), (true, false));
        drop(first);
        assert!(choices.is_any_in("a"));
        drop(second);
        assert!(!choices.is_any_in("a"));
    }
}
