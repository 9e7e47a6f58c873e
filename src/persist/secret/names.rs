//! Which Secret an output becomes, by name (pure).

use crate::api::{is_reserved_secret, split_version};
use crate::contract::plan::SecretPlan;
use crate::contract::version::version_name;

use super::desired::Source;

/// Name of the Secret of a file, or what comes before `-<key>` with fan-out.
pub fn base_name(secret_plan: &SecretPlan, index: Option<u32>) -> String {
    match index {
        Some(index) => format!("{}-{index}", secret_plan.name),
        None => secret_plan.name.clone(),
    }
}

/// Whether an output may have this name at all: the operator's own Secrets are not for outputs, and a key of a fan-out must not lead to
/// what a pod of another index stores for another entry of the plan. Each pod knows its own keys only, so that entry has the name whether
/// the other pod uses it or not. Of two entries whose names could meet, the longer one always keeps its own;
/// a version of one may meet a Secret of another that is none.
pub fn check_free(source: &Source<'_>, index: Option<u32>, name: &str) -> Result<(), String> {
    let Source { plan, secret_plan, .. } = *source;
    if is_reserved_secret(name) {
        return Err(format!("Secret {name} is reserved for the operator; use another name"));
    }
    let Some(index) = index else { return Ok(()) };
    // Which version it is makes no difference.
    let name = if secret_plan.versioned { &version_name(name, 1) } else { name };
    let could_meet = |other: &&SecretPlan| other.name.len() > secret_plan.name.len();
    let owner = plan.outputs().filter(could_meet).find_map(|other| {
        let base = if other.versioned { split_version(name)?.0 } else { name };
        let rest = base.strip_prefix(&*other.name)?.strip_prefix('-')?;
        let digits = if other.fan_out { rest.split_once('-')?.0 } else { rest };
        let theirs: u32 = digits.parse().ok()?;
        (theirs != index && theirs.to_string() == digits).then_some((&other.name, theirs))
    });
    match owner {
        Some((other, theirs)) => Err(format!("Secret {name} belongs to output {other:?} of the pod with index {theirs}")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
