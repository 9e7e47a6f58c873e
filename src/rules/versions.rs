//! Versioned Secrets as the operator sees them: which one a reference means, and which ones are surplus. Pure.
//!
//! Promises: exact names, numbers compared as numbers; a malformed label on one object blocks nothing else; only versions that this
//! QuarksJob wrote are surplus, never the newest one, never one that is referenced.

use serde_json::Value;

use crate::api::{ANNOTATION_WRITTEN_BY, ObjectKey, ObjectMeta, Uid};
use crate::contract::version::{version_name, version_of};

use super::outputs::base_of;
use super::references::{Reference, ReferenceKind, collect, merge, rewrite};

/// A Secret that is a version, by name and labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `X` of `X-vN`.
    pub base: String,
    /// `N`, from 1.
    pub number: u64,
    /// The Secret's UID.
    pub uid: Uid,
}

impl Version {
    /// The version that this metadata describes; one that is being deleted counts as gone.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let base = base_of(&metadata.name)?;
        let number = version_of(base, &metadata.name, &metadata.labels)?;
        (!metadata.is_being_deleted()).then(|| Self { base: base.to_owned(), number, uid: metadata.uid.clone() })
    }

    /// The Secret's name.
    pub fn name(&self) -> String {
        version_name(&self.base, self.number)
    }
}

/// `X` of all references `X-vN` to Secrets; empty for most Jobs, which then need no look at the Secrets.
pub fn referenced_bases(job_spec: &Value) -> Vec<String> {
    bases_of(&collect(job_spec))
}

/// The same of references that were collected already.
pub fn bases_of(references: &[Reference]) -> Vec<String> {
    let secrets = references.iter().filter(|reference| reference.kind == ReferenceKind::Secret);
    secrets.filter_map(|reference| base_of(&reference.name).map(str::to_owned)).collect()
}

/// True if a Secret with this name is a version of what `reference` names, or might be one.
pub fn may_be_version_of(reference: &str, name: &str) -> bool {
    base_of(reference).is_some_and(|base| base_of(name) == Some(base))
}

/// What a reference to `name` means, if that is another name.
fn highest(versions: &[Version], kind: ReferenceKind, name: &str) -> Option<String> {
    let base = base_of(name).filter(|_| kind == ReferenceKind::Secret)?;
    let highest = versions.iter().filter(|version| version.base == base).map(|version| version.number).max()?;
    Some(version_name(base, highest))
}

/// Lets references mean what [`resolve`] would make of them.
pub fn resolve_references(references: Vec<Reference>, versions: &[Version]) -> Vec<Reference> {
    merge(references.into_iter().map(|reference| {
        let name = highest(versions, reference.kind, &reference.name).unwrap_or(reference.name);
        Reference { name, ..reference }
    }))
}

/// Lets each reference `X-vN` mean the highest version of `X`; without any it stays as written.
pub fn resolve(job_spec: &mut Value, versions: &[Version]) {
    rewrite(job_spec, &|kind, name| highest(versions, kind, name));
}

/// True if this QuarksJob made the version: what names another writer, or another controller, is not its own.
pub fn is_own(metadata: &ObjectMeta, quarks_job: &ObjectKey, uid: &Uid) -> bool {
    let writer = metadata.annotations.get(ANNOTATION_WRITTEN_BY).map(|name| name.as_str() == &*quarks_job.name);
    let controller = metadata.controller().map(|owner| owner.uid == *uid);
    // The original's versions have no writer; versions that survived their QuarksJob have no controller.
    matches!((writer, controller), (Some(true), Some(true) | None) | (None, Some(true)))
}

/// The versions beyond the newest `keep` of each name, oldest first, without those that are referenced.
pub fn surplus(versions: &[Version], keep: u32, referenced: &[Reference]) -> Vec<Version> {
    let mut surplus: Vec<Version> = Vec::new();
    for version in versions {
        let newer = versions.iter().filter(|other| other.number > version.number && other.base == version.base);
        let is_beyond = newer.take(keep as usize).count() == keep as usize;
        let name = version.name();
        let is_referenced = || referenced.iter().any(|reference| reference.kind == ReferenceKind::Secret && reference.name == name);
        if keep > 0 && is_beyond && !is_referenced() {
            let at = surplus.partition_point(|older| older.number <= version.number);
            surplus.insert(at, version.clone());
        }
    }
    surplus
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(name: &str, kind: Option<&str>, number: Option<&str>) -> ObjectMeta {
        let mut labels = json!({});
        if let Some(kind) = kind {
            labels["quarks.cloudfoundry.org/secret-kind"] = json!(kind);
        }
        if let Some(number) = number {
            labels["quarks.cloudfoundry.org/secret-version"] = json!(number);
        }
        serde_json::from_value(json!({"name": name, "uid": format!("uid-{name}"), "labels": labels})).expect("decodes")
    }

    fn version(name: &str) -> Version {
        let number = name.rsplit_once("-v").expect("a version").1;
        Version::of(&metadata(name, Some("versionedSecret"), Some(number))).expect("a version")
    }

    fn versions(names: &[&str]) -> Vec<Version> {
        names.iter().map(|name| version(name)).collect()
    }

    #[test]
    fn name_and_labels_have_to_agree() {
        let kind = Some("versionedSecret");
        for (name, kind, number, expected) in [
            ("db-v3", kind, Some("3"), Some(("db", 3))),
            ("a-v1-v2", kind, Some("2"), Some(("a-v1", 2))),
            ("db-v3", kind, Some("4"), None),
            ("db-v3", kind, Some("three"), None),
            ("db-v3", kind, None, None),
            ("db-v3", Some("other"), Some("3"), None),
            ("db-v3", None, Some("3"), None),
            ("db-v03", kind, Some("3"), None),
            ("db-v0", kind, Some("0"), None),
            ("db", kind, Some("3"), None),
        ] {
            let found = Version::of(&metadata(name, kind, number));
            assert_eq!(found.as_ref().map(|version| (&*version.base, version.number)), expected, "{name} {kind:?} {number:?}");
        }
        let deleted = ObjectMeta { deletion_timestamp: Some("2020-01-01T00:00:00Z".into()), ..metadata("db-v3", kind, Some("3")) };
        assert_eq!(Version::of(&deleted), None);
    }

    fn job_spec(secret: &str, config_map: &str) -> Value {
        json!({"template": {"spec": {
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": secret}}, {"configMapRef": {"name": config_map}}]}]
        }}})
    }

    #[test]
    fn references_mean_the_highest_version_of_exactly_their_name() {
        let known = versions(&["db-v1", "db-v9", "db-v10", "mydb-v77", "db-v1-v5", "other-v2"]);
        for (written, meant) in [
            ("db-v1", "db-v10"),
            ("db-v10", "db-v10"),
            ("db-v3", "db-v10"),
            ("db-v99999999999999999999", "db-v10"),
            ("mydb-v1", "mydb-v77"),
            ("db-v1-v1", "db-v1-v5"),
            ("b-v1", "b-v1"),
            ("unknown-v1", "unknown-v1"),
            ("db", "db"),
            ("db-vx", "db-vx"),
        ] {
            let mut spec = job_spec(written, "db-v1");
            resolve(&mut spec, &known);
            assert_eq!(spec, job_spec(meant, "db-v1"), "{written}");
        }
    }

    #[test]
    fn only_references_to_versions_of_secrets_need_a_look() {
        assert_eq!(referenced_bases(&job_spec("db-v1", "config-v2")), ["db"]);
        assert!(referenced_bases(&job_spec("db", "config-v2")).is_empty());
        assert!(referenced_bases(&Value::Null).is_empty());
    }

    #[test]
    fn own_is_what_no_other_has_written_or_controls() {
        let key = ObjectKey::new("ns", "q");
        for (writer, controller, expected) in [
            (Some("q"), Some("u"), true),
            (Some("q"), None, true),
            (None, Some("u"), true),
            (None, None, false),
            (Some("other"), Some("u"), false),
            (Some("other"), None, false),
            (Some("q"), Some("v"), false),
            (None, Some("v"), false),
        ] {
            let mut object = json!({"name": "s-v1"});
            if let Some(writer) = writer {
                object["annotations"] = json!({ANNOTATION_WRITTEN_BY: writer});
            }
            if let Some(uid) = controller {
                object["ownerReferences"] = json!([{"apiVersion": "v", "kind": "QuarksJob", "name": "q", "uid": uid, "controller": true}]);
            }
            let metadata: ObjectMeta = serde_json::from_value(object).expect("decodes");
            assert_eq!(is_own(&metadata, &key, &"u".into()), expected, "{writer:?} {controller:?}");
        }
    }

    #[test]
    fn the_newest_of_each_name_and_the_referenced_ones_are_kept() {
        let all = ["a-v1", "a-v2", "a-v9", "a-v10", "a-v11", "b-v7", "c-v1", "c-v2"];
        for (keep, referenced, expected) in [
            (1, vec![], "c-v1 a-v1 a-v2 a-v9 a-v10"),
            (2, vec![], "a-v1 a-v2 a-v9"),
            (4, vec![], "a-v1"),
            (5, vec![], ""),
            (u32::MAX, vec![], ""),
            (0, vec![], ""),
            (1, vec![(ReferenceKind::Secret, "a-v2"), (ReferenceKind::Secret, "a")], "c-v1 a-v1 a-v9 a-v10"),
            (1, vec![(ReferenceKind::ConfigMap, "a-v2"), (ReferenceKind::Secret, "c-v1")], "a-v1 a-v2 a-v9 a-v10"),
        ] {
            let of = |(kind, name): (ReferenceKind, &str)| Reference { kind, name: name.to_owned(), is_optional: true, is_own: false };
            let referenced: Vec<Reference> = referenced.into_iter().map(of).collect();
            let mut known = versions(&all);
            known.reverse();
            let names: Vec<String> = surplus(&known, keep, &referenced).iter().map(Version::name).collect();
            assert_eq!(names.join(" "), expected, "{keep} {referenced:?}");
        }
    }
}
