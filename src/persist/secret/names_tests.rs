//! Tables for `names`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::contract::plan::{ContainerPlan, Plan};

use super::*;

#[test]
fn names_of_indexed_jobs_end_in_the_index() {
    let secret_plan = SecretPlan { name: "s".into(), ..SecretPlan::default() };
    assert_eq!(base_name(&secret_plan, None), "s");
    assert_eq!(base_name(&secret_plan, Some(12)), "s-12");
}

#[test]
fn a_name_has_one_output_and_one_index() {
    let entry = |name: &str, fan_out, versioned| json!({"name": name, "fanOut": fan_out, "versioned": versioned});
    let plan: Plan = serde_json::from_value(json!({"quarksJob": "q", "uid": "u", "run": 1, "indexed": true, "containers": {
        "c": {"files": {"f": entry("a", true, false), "g": entry("a-1", false, false), "h": entry("a-1-b", true, false)}},
        "d": {"files": {"f": entry("v", true, true), "g": entry("v-1", false, false), "h": entry("v-2", false, true)},
            "log": entry("a-d", false, false)},
        "e": {"files": {"f": entry("i0", true, false), "g": entry("i0-1", false, true), "h": entry("w", true, true), "i": entry("w-1-b", true, false)}},
    }}))
    .unwrap();
    let [c, d, e] = ["c", "d", "e"].map(|container| &plan.containers[container].files);
    for (secret_plan, index, key, is_free) in [
        // The keys of `a`, by index: what `a-1` is at the other indexes is not theirs.
        (&c["f"], 1, "0", false),
        (&c["f"], 1, "12", false),
        // In one pod both names are known, and are compared elsewhere.
        (&c["f"], 1, "1", true),
        (&c["f"], 0, "0", true),
        (&c["f"], 1, "k", true),
        (&c["f"], 1, "00", true),
        (&c["f"], 1, "4294967296", true),
        // `a-1-b` is a fan-out, `a-d` a log.
        (&c["f"], 1, "b-0-k", false),
        (&c["f"], 1, "b-0", true),
        (&c["f"], 1, "b-1-k", true),
        // The longer name keeps its own.
        (&c["h"], 0, "k", true),
        // A version has another name than what is not versioned, but for keys that end like one.
        (&d["f"], 1, "0", true),
        (&d["f"], 2, "0", false),
        (&e["f"], 1, "0", true),
        (&e["f"], 1, "0-v1", false),
        (&e["f"], 1, "0-v7", false),
        (&e["f"], 1, "1-v7", true),
        (&e["f"], 1, "0-v07", true),
        (&e["f"], 1, "b-0-k-v1", true),
        (&e["h"], 1, "b-0", false),
        (&e["h"], 1, "b-1", true),
    ] {
        let source = Source { plan: &plan, container: "c", container_plan: &plan.containers["c"], secret_plan };
        let name = format!("{}-{index}-{key}", secret_plan.name);
        assert_eq!(check_free(&source, Some(index), &name).is_ok(), is_free, "{name}");
        assert_eq!(check_free(&source, None, &name), Ok(()), "not Indexed");
    }
}

/// All that three entries of any kind can make at three indexes: no name comes from two pods.
#[test]
fn no_name_comes_from_two_pods() {
    let keys = ["0", "1", "2", "0-0", "1-2", "b-0", "b-1", "b-0-0", "b-2-1", "v1", "0-v1", "1-v2", "b-v1", "b-0-v1", "b-1-v2", "b-0-k-v1"];
    for kinds in 0..64 {
        let entry =
            |at: u32, name: &str| json!({"name": name, "fanOut": kinds >> (2 * at) & 1 == 1, "versioned": kinds >> (2 * at) & 2 == 2});
        let files = json!({"f": entry(0, "a"), "g": entry(1, "a-1"), "h": entry(2, "a-1-b")});
        let plan = json!({"quarksJob": "q", "uid": "u", "run": 1, "indexed": true, "containers": {"c": {"files": files}}});
        let plan: Plan = serde_json::from_value(plan).unwrap();
        let mut made: BTreeMap<String, u32> = BTreeMap::new();
        let container_plan = &plan.containers["c"];
        for (secret_plan, index) in container_plan.files.values().flat_map(|secret_plan| [0, 1, 2].map(|index| (secret_plan, index))) {
            let source = Source { plan: &plan, container: "c", container_plan, secret_plan };
            let base = base_name(secret_plan, Some(index));
            let names = if secret_plan.fan_out { keys.map(|key| format!("{base}-{key}")).to_vec() } else { vec![base] };
            for name in names.into_iter().filter(|name| check_free(&source, Some(index), name).is_ok()) {
                let versions = [1, 2].map(|version| version_name(&name, version)).to_vec();
                for name in if secret_plan.versioned { versions } else { vec![name] } {
                    let other = made.insert(name.clone(), index);
                    assert!(other.is_none_or(|other| other == index), "{kinds}: {name} by {other:?} and {index}");
                }
            }
        }
    }
}

#[test]
fn the_operators_own_secrets_are_no_outputs() {
    for (name, versioned, is_free) in [
        ("quarks-job-sidecar-token", false, false),
        ("quarks-job-config-key", false, false),
        ("quarks-job-config-key", true, false),
        ("quarks-job-config-keys", false, true),
    ] {
        let secret_plan = SecretPlan { name: "quarks-job-config".into(), fan_out: true, versioned, ..SecretPlan::default() };
        let (plan, container_plan) = (Plan::default(), ContainerPlan::default());
        let source = Source { plan: &plan, container: "c", container_plan: &container_plan, secret_plan: &secret_plan };
        assert_eq!(check_free(&source, None, name).is_ok(), is_free, "{name}");
    }
}
