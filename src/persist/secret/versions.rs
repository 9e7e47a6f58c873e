//! Which version of a Secret comes next (pure).
//!
//! Promises: exact names only, numbers compared as numbers, a malformed label on one object blocks nothing else.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::api::{
    ANNOTATION_SOURCE_DESCRIPTION, ANNOTATION_WRITTEN_BY, API_VERSION, KIND, LABEL_CONTAINER_NAME, LABEL_SECRET_KIND, LABEL_SECRET_VERSION,
    ObjectMeta, OwnerReference, StringMap, split_version,
};
use crate::contract::plan::Plan;
use crate::contract::version::{VERSIONED_KIND, version_name, version_of};

use super::bodies::{LiveMeta, LiveSecret, NewMeta, NewSecret};
use super::desired::{Desired, is_within};
use super::rules;

/// Value of the annotation that says where a version came from, as the original wrote it.
const SOURCE_DESCRIPTION: &str = "created by quarksJob";

/// What a list says of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The highest version; 0: there is none.
    pub highest: u64,
    /// Numbers of Secrets that are called like a version and are none.
    taken: Vec<u64>,
}

impl Numbers {
    /// The first number above the highest version that no Secret of the list has.
    pub fn free(&self) -> Option<u64> {
        let first = self.highest.checked_add(1)?;
        // One more than there are: one of them is free.
        let mut is_taken = vec![false; self.taken.len() + 1];
        for number in &self.taken {
            let at = number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            if let Some(slot) = at.and_then(|at| is_taken.get_mut(at)) {
                *slot = true;
            }
        }
        first.checked_add(is_taken.iter().position(|is_taken| !is_taken)? as u64)
    }
}

/// What a list says of each of some names.
pub type Found<'n> = BTreeMap<&'n str, Numbers>;

/// Takes a Secret into account.
pub fn note(found: &mut Found<'_>, meta: &ObjectMeta) {
    let Some((base, number)) = split_version(&meta.name) else { return };
    let Some(numbers) = found.get_mut(base) else { return };
    if version_of(base, &meta.name, &meta.labels).is_some() {
        numbers.highest = number.max(numbers.highest);
    } else {
        numbers.taken.push(number);
    }
}

/// The labels and annotations that a version of this content has, whatever its number.
pub fn marks(desired: &Desired) -> (StringMap, StringMap) {
    let mut labels = desired.marks.labels.clone();
    labels.insert(LABEL_SECRET_KIND.to_owned(), VERSIONED_KIND.to_owned());
    let mut annotations = desired.marks.annotations.clone();
    annotations.insert(ANNOTATION_SOURCE_DESCRIPTION.to_owned(), SOURCE_DESCRIPTION.to_owned());
    (labels, annotations)
}

/// True if the highest version already says all of this, so that no new one is needed. What others put on it does not count, and
/// so a label that was only taken out of the spec makes no new version either.
///
/// A version that the original wrote is known by its container and the missing `written-by`. It says all of this if it has the
/// content: the original made label values of its own ones, and set no annotations.
pub fn is_same(desired: &Desired, live: &LiveSecret) -> bool {
    let LiveMeta { labels: live_labels, annotations: live_annotations, deletion_timestamp, .. } = &live.metadata;
    if deletion_timestamp.is_some() || live.data != desired.data {
        return false;
    }
    let (labels, annotations) = marks(desired);
    if live_annotations.contains_key(ANNOTATION_WRITTEN_BY) {
        return is_within(&labels, live_labels) && is_within(&annotations, live_annotations);
    }
    let is_equal = |key: &str| labels.get(key) == live_labels.get(key);
    is_equal(LABEL_CONTAINER_NAME) && is_equal(LABEL_SECRET_KIND)
}

/// The body that creates a version: immutable, owned by the QuarksJob.
pub fn build_version<'a>(desired: &'a Desired, plan: &Plan, version: u64) -> Result<NewSecret<'a>, String> {
    let name = version_name(&desired.name, version);
    rules::check_name(&name)?;
    let (mut labels, annotations) = marks(desired);
    labels.insert(LABEL_SECRET_VERSION.to_owned(), version.to_string());
    let owner = OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        name: plan.quarks_job.clone(),
        uid: plan.uid.clone(),
        controller: true,
        // The sidecar has no right to delay a deletion, and does not need it.
        block_owner_deletion: false,
    };
    let metadata =
        NewMeta { name: Cow::Owned(name), labels: Cow::Owned(labels), annotations: Cow::Owned(annotations), owner_references: vec![owner] };
    Ok(desired.new_secret(metadata, Some(true)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::data::Data;
    use super::super::desired::Marks;
    use super::*;
    use crate::api::LONGEST_VERSION;

    fn meta(name: &str, version: &str) -> ObjectMeta {
        let labels = [(LABEL_SECRET_KIND, VERSIONED_KIND), (LABEL_SECRET_VERSION, version)];
        ObjectMeta {
            name: name.into(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..ObjectMeta::default()
        }
    }

    fn desired() -> Desired {
        let map = |pairs: [(&str, &str); 2]| StringMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let marks =
            Marks { labels: map([("l", "1"), (LABEL_CONTAINER_NAME, "c")]), annotations: map([("a", "2"), (ANNOTATION_WRITTEN_BY, "q")]) };
        Desired { name: "s".into(), versioned: true, marks: marks.into(), data: Data::of(&[("k", "x")]) }
    }

    #[test]
    fn the_highest_is_found_by_exact_name_and_number() {
        for (metas, expected) in [
            (Vec::new(), None),
            (vec![meta("s-v1", "1")], Some(1)),
            (vec![meta("s-v9", "9"), meta("s-v10", "10"), meta("s-v2", "2")], Some(10)),
            (vec![meta("other-s-v7", "7"), meta("s-v1-v7", "7"), meta("s-v07", "7")], None),
            (vec![meta("s-v3", "three"), meta("s-v1", "1")], Some(1)),
            (vec![meta("s-v3", "99999999999999999999"), meta("s-v1", "1")], Some(1)),
            (vec![meta("s-v3", "4"), meta("s-v1", "-1"), meta("s-v0", "0")], None),
            (vec![ObjectMeta { name: "s-v3".into(), ..ObjectMeta::default() }], None),
        ] {
            let mut found = Found::from([("s", Numbers::default()), ("none", Numbers::default())]);
            metas.iter().for_each(|meta| note(&mut found, meta));
            let highest = |name: &str| found[name].highest;
            assert_eq!((highest("none"), highest("s")), (0, expected.unwrap_or(0)), "{metas:?}");
        }
    }

    #[test]
    fn the_next_number_is_the_first_that_is_free_above_the_highest_version() {
        let other = |number: &str| ObjectMeta { name: format!("s-v{number}"), ..ObjectMeta::default() };
        let (last, second_last) = (u64::MAX.to_string(), (u64::MAX - 1).to_string());
        let many: Vec<_> = (1..=698).map(|number| other(&number.to_string())).collect();
        for (metas, expected) in [
            (vec![], Some(1)),
            (vec![meta("s-v4", "4")], Some(5)),
            (vec![other("1"), other("2")], Some(3)),
            (vec![other("2"), other("1"), other("2")], Some(3)),
            (many, Some(699)),
            // What is free below the highest version stays so.
            (vec![meta("s-v4", "4"), other("1"), other("6"), other("5"), other("8")], Some(7)),
            // A number of a stranger far above takes no numbers away.
            (vec![meta("s-v4", "4"), other("20240101"), other(&last)], Some(5)),
            (vec![meta("s-v4", "4"), meta("s-v5", "five"), other("06"), other("x"), other("")], Some(6)),
            (vec![meta(&format!("s-v{last}"), &last)], None),
            (vec![meta(&format!("s-v{second_last}"), &second_last)], Some(u64::MAX)),
            (vec![meta(&format!("s-v{second_last}"), &second_last), other(&last)], None),
        ] {
            let mut found = Found::from([("s", Numbers::default())]);
            metas.iter().for_each(|meta| note(&mut found, meta));
            assert_eq!(found["s"].free(), expected, "{metas:?}");
        }
    }

    #[test]
    fn a_version_is_immutable_and_owned() {
        let plan = Plan { quarks_job: "q".into(), uid: "u".into(), ..Plan::default() };
        let desired = desired();
        let body = serde_json::to_value(build_version(&desired, &plan, 12).unwrap()).unwrap();
        assert_eq!(
            body,
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true, "data": {"k": "eA=="},
                "metadata": {
                    "name": "s-v12",
                    "labels": {"l": "1", LABEL_CONTAINER_NAME: "c", LABEL_SECRET_KIND: VERSIONED_KIND, LABEL_SECRET_VERSION: "12"},
                    "annotations": {"a": "2", ANNOTATION_WRITTEN_BY: "q", ANNOTATION_SOURCE_DESCRIPTION: SOURCE_DESCRIPTION},
                    "ownerReferences": [{"apiVersion": API_VERSION, "kind": "QuarksJob", "name": "q", "uid": "u", "controller": true}],
                },
            })
        );
    }

    #[test]
    fn only_what_we_would_write_makes_a_new_version() {
        let desired = desired();
        let body = serde_json::to_value(build_version(&desired, &Plan::default(), 12).unwrap()).unwrap();
        // Part of the Secret, a key in it, the key's value now (null: missing), whether that is still the same version.
        for (part, key, value, is_equal) in [
            ("/data", "k", json!("eA=="), true),
            ("/data", "k", json!("eQ=="), false),
            ("/data", "k", Value::Null, false),
            ("/data", "more", json!("eA=="), false),
            ("/metadata/labels", "l", json!("2"), false),
            ("/metadata/labels", "l", Value::Null, false),
            ("/metadata/labels", "of-others", json!("x"), true),
            ("/metadata/labels", LABEL_SECRET_VERSION, json!("13"), true),
            ("/metadata/annotations", "a", json!("3"), false),
            ("/metadata/annotations", "a", Value::Null, false),
            ("/metadata/annotations", "of-others", json!("x"), true),
            ("/metadata/annotations", ANNOTATION_SOURCE_DESCRIPTION, Value::Null, false),
            ("/metadata/annotations", ANNOTATION_WRITTEN_BY, json!("p"), false),
            ("/metadata", "finalizers", json!(["of-others"]), true),
            ("/metadata", "deletionTimestamp", json!("t"), false),
        ] {
            let mut other = body.clone();
            let map = other.pointer_mut(part).and_then(Value::as_object_mut).unwrap();
            if value.is_null() {
                map.remove(key)
            } else {
                map.insert(key.to_owned(), value.clone())
            };
            let live: LiveSecret = serde_json::from_value(other).unwrap();
            assert_eq!(is_same(&desired, &live), is_equal, "{part} {key} {value}");
        }
    }

    #[test]
    fn a_version_of_the_original_with_equal_content_is_adopted() {
        let desired = desired();
        // As the original wrote it: no annotations but its own, and label values made safe in its way.
        let original = |part: &str, key: &str, value: &str| -> LiveSecret {
            let mut object = json!({
                "metadata": {
                    "name": "s-v3",
                    "labels": {"l": "one", LABEL_CONTAINER_NAME: "c", LABEL_SECRET_KIND: VERSIONED_KIND, LABEL_SECRET_VERSION: "3"},
                    "annotations": {ANNOTATION_SOURCE_DESCRIPTION: SOURCE_DESCRIPTION},
                },
                "data": {"k": "eA=="},
            });
            object.pointer_mut(part).unwrap()[key] = json!(value);
            serde_json::from_value(object).unwrap()
        };
        for (part, key, value, is_equal) in [
            ("/metadata", "name", "s-v3", true),
            ("/metadata/labels", "l", "two", true),
            ("/metadata/annotations", ANNOTATION_SOURCE_DESCRIPTION, "by an ancestor", true),
            ("/metadata/labels", LABEL_CONTAINER_NAME, "d", false),
            ("/metadata/labels", LABEL_SECRET_KIND, "other", false),
            ("/metadata/annotations", ANNOTATION_WRITTEN_BY, "q", false),
            ("/metadata", "deletionTimestamp", "t", false),
            ("/data", "k", "eQ==", false),
            ("/data", "more", "eA==", false),
        ] {
            assert_eq!(is_same(&desired, &original(part, key, value)), is_equal, "{part} {key} {value}");
        }
    }

    #[test]
    fn names_that_grow_too_long_are_refused() {
        let long = Desired { name: "s".repeat(251), ..desired() };
        let plan = Plan::default();
        assert!(build_version(&long, &plan, 1).is_err());
        assert!(build_version(&Desired { name: "s".repeat(250), ..desired() }, &plan, 1).is_ok());
        // The longest that a spec allows: a number that does not fit is reported when it is reached.
        let longest = Desired { name: "s".repeat(253 - LONGEST_VERSION.len()), ..desired() };
        assert!(build_version(&longest, &plan, 999_999_999).is_ok());
        let refused = build_version(&longest, &plan, 1_000_000_000).err().expect("too long");
        assert!(refused.contains("is not a valid Secret name: at most 253 "), "{refused}");
    }
}
