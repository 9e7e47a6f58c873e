//! What a sidecar needs beyond its waiting self: at most six times the size of the file, whatever shape the file has.
//! The waiting itself, and the absolute figures, are measured in the release build (`scripts/test`).

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::scene::{SECRET_VERSION, Scene, WRITTEN_BY, ended};
use crate::support::{Fault, Gate, When};

/// The sidecar's memory limit in the pod, in KiB.
const LIMIT: u64 = 32 * 1024;
/// Keys that just fit into one Secret.
const KEYS: usize = 50_000;
/// For what does not grow with the file: a TLS session's first write, buffers, a stack, in KiB.
const SLACK: u64 = 2048;

/// A line of `/proc/PID/status`, in KiB.
fn status(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the kernel says so");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

fn check(name: &str, file: Value, content: &str, held: When, existing: impl IntoIterator<Item = Value>) {
    let scene = Scene::new(&format!("memory-{name}"));
    for secret in existing {
        scene.put_secret(secret);
    }
    let gate = Gate::default();
    scene.server.fault(held, Fault::HoldReply(gate.clone()));
    let sidecar = scene.sidecar("Never", json!({"containers": {"main": {"files": {"f": file}}}}));
    sidecar.write("main", "f", content);
    sidecar.process.start();
    scene.wait_watch();
    let pid = sidecar.process.pid().expect("it runs");
    let waiting = status(pid, "VmRSS");
    sidecar.states(&[("main", ended(0))]);
    sidecar.process.wait_for("the last write", || (gate.arrived() == 1).then_some(()));
    let peak = status(pid, "VmHWM");
    gate.open();
    sidecar.finish_stored();
    let size = (content.len() as u64).div_ceil(1024);
    let factor = peak.saturating_sub(waiting) as f64 / size as f64;
    println!("{name}: file {size} KiB, waiting {waiting} KiB, peak {peak} KiB, {factor:.1} times the file more");
    assert!(peak <= LIMIT, "{name}: {peak} KiB");
    assert!(peak <= waiting + SLACK + 6 * size, "{name}: file {size} KiB, waiting {waiting} KiB, peak {peak} KiB");
}

fn tiny_keys(count: usize) -> String {
    let entries: Vec<String> = (0..count).map(|number| format!(r#""k{number}":"""#)).collect();
    format!("{{{}}}", entries.join(","))
}

#[test]
fn one_large_value() {
    check("value", json!({"name": "s"}), &json!({"k": "x".repeat(1024 * 1024)}).to_string(), When::request("POST", "/secrets"), None);
}

#[test]
fn one_large_value_full_of_escapes() {
    check("escapes", json!({"name": "s"}), &json!({"k": "\"\n".repeat(512 * 1024)}).to_string(), When::request("POST", "/secrets"), None);
}

#[test]
fn many_tiny_keys() {
    check("keys", json!({"name": "s"}), &tiny_keys(KEYS), When::request("POST", "/secrets"), None);
}

#[test]
fn many_tiny_keys_over_as_many() {
    let data: serde_json::Map<String, Value> = (0..KEYS).map(|number| (format!("k{number}"), json!("eA=="))).collect();
    let existing = json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q"}}, "data": data});
    check("update", json!({"name": "s"}), &tiny_keys(KEYS), When::request("PUT", "/secrets"), Some(existing));
}

#[test]
fn a_fan_out_of_many_tiny_keys() {
    let entries: Vec<String> = (0..1000).map(|number| format!(r#""e{number}":{}"#, tiny_keys(50))).collect();
    let content = format!("{{{}}}", entries.join(","));
    check("fan-out", json!({"name": "s", "fanOut": true}), &content, When::request("POST", "/secrets").nth(1000), None);
}

/// A file of 4 MiB less a little: a thousand entries with one value each.
fn largest_file(letter: &str) -> String {
    let entries: Vec<String> = (0..1000).map(|number| format!(r#""e{number}":{{"k":"{}"}}"#, letter.repeat(4170))).collect();
    let content = format!("{{{}}}", entries.join(","));
    assert!(content.len() <= 4 * 1024 * 1024 && content.len() > 4100 * 1000, "{}", content.len());
    content
}

#[test]
fn the_largest_file_as_a_thousand_secrets() {
    check("largest", json!({"name": "s", "fanOut": true}), &largest_file("x"), When::request("POST", "/secrets").nth(1000), None);
}

#[test]
fn the_largest_file_over_a_thousand_versions() {
    let version = |number: usize| {
        let labels = json!({"quarks.cloudfoundry.org/secret-kind": "versionedSecret", SECRET_VERSION: "1"});
        json!({"metadata": {"name": format!("s-e{number}-v1"), "annotations": {WRITTEN_BY: "q"}, "labels": labels},
            "immutable": true, "data": {"k": STANDARD.encode("y".repeat(4170))}})
    };
    let file = json!({"name": "s", "fanOut": true, "versioned": true});
    check("versions", file, &largest_file("x"), When::request("POST", "/secrets").nth(1000), (0..1000).map(version));
}

#[test]
fn the_largest_secrets_one_over_the_other() {
    let value = "x".repeat(1024 * 1024);
    let existing =
        json!({"metadata": {"name": "s", "annotations": {WRITTEN_BY: "q"}}, "data": {"k": STANDARD.encode("y".repeat(1024 * 1024))}});
    check("replace", json!({"name": "s"}), &json!({"k": value}).to_string(), When::request("PUT", "/secrets"), Some(existing));
}

#[test]
fn a_list_of_versions_whose_annotations_are_large() {
    let version = |number: usize| {
        let labels = json!({"quarks.cloudfoundry.org/secret-kind": "versionedSecret", SECRET_VERSION: "1"});
        json!({"metadata": {"name": format!("other{number}-v1"), "labels": labels, "annotations": {"theirs": "x".repeat(200 * 1024)}}})
    };
    let file = json!({"name": "s", "versioned": true});
    check("annotations", file, &tiny_keys(100), When::request("POST", "/secrets"), (0..100).map(version));
}
