//! Leader election: of several operators with the same monitored id one is active, the others wait.
//!
//! Promises: nothing is written before the Lease is held; no write starts later than the renew deadline after the last renewal that
//! the API server acknowledged, even in a process that was stopped and resumed; a Lease that is no longer used is released. Not
//! promised: an end of requests that are already in flight. Names and preconditions make those harmless, as they do without
//! election.

mod lease;
mod run;

pub use lease::Timing;
pub use run::{Candidacy, Election, Leadership, start};

use crate::digest::short_hex;

/// Name of the Lease of operators with this monitored id: two different ids in one namespace do not share a Lease.
pub fn lease_name(monitored_id: &str) -> String {
    if monitored_id == "default" {
        return "quarks-job".to_owned();
    }
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let safe: String = monitored_id.chars().map(|c| c.to_ascii_lowercase()).map(|c| if is_allowed(c) { c } else { '-' }).collect();
    if safe == monitored_id && safe.ends_with(is_allowed) {
        return format!("quarks-job-{safe}");
    }
    // The hash distinguishes what is the same after the change, and is a valid end of a name.
    format!("quarks-job-{safe}-{}", short_hex(monitored_id.as_bytes(), 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_monitored_id_has_a_lease_of_its_own_with_a_valid_name() {
        assert_eq!(lease_name("default"), "quarks-job");
        assert_eq!(lease_name("team-1"), "quarks-job-team-1");
        let ids = ["Team-1", "team.1", "team_1", "tEam-1", "a", "A", ""];
        let names: std::collections::BTreeSet<String> = ids.iter().map(|id| lease_name(id)).collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        for name in names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
            assert!(name.ends_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 253, "{name}");
        }
    }
}
