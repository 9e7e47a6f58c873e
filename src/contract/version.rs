//! Versions of a Secret: how they are named and marked. The sidecar creates them, the operator finds them. Pure.

use crate::api::{LABEL_SECRET_KIND, LABEL_SECRET_VERSION, StringMap, split_version};

/// Value of the label that marks a versioned Secret.
pub const VERSIONED_KIND: &str = "versionedSecret";
/// Name of a version.
pub fn version_name(base: &str, version: u64) -> String {
    format!("{base}-v{version}")
}

/// The version of `base` that a Secret is, by name and labels, which have to agree.
pub fn version_of(base: &str, name: &str, labels: &StringMap) -> Option<u64> {
    let (_, version) = split_version(name).filter(|(other, _)| *other == base)?;
    let is_version = labels.get(LABEL_SECRET_KIND).map(String::as_str) == Some(VERSIONED_KIND)
        && labels.get(LABEL_SECRET_VERSION)?.parse() == Ok(version);
    is_version.then_some(version)
}
