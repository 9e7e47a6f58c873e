//! Output files that nobody would write by accident, and some that people do.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::scene::{CANARY, Scene, document, ended};
use crate::support::scene::Folder;

const MIB: usize = 1024 * 1024;

/// Runs a sidecar over the hostile file `f` and the good file `g`; the good one has to be stored whatever the other is.
fn run(name: &str, make: impl FnOnce(&Path)) -> (Scene, super::scene::Finish) {
    run_as(name, None, false, make)
}

fn run_as(name: &str, user: Option<u32>, fan_out: bool, make: impl FnOnce(&Path)) -> (Scene, super::scene::Finish) {
    let scene = Scene::new(&format!("hostile-{name}"));
    let files = json!({"f": {"name": "s", "fanOut": fan_out}, "g": {"name": "t"}});
    let mut sidecar = scene.sidecar("Never", json!({"containers": {"main": {"files": files}}}));
    if let Some(user) = user {
        sidecar.process = sidecar.process.user(user, scene.folder.path());
        fs::write(sidecar.report_path(), "").expect("the report's file, as the kubelet makes it");
        fs::set_permissions(sidecar.report_path(), Permissions::from_mode(0o666)).expect("mode set");
    }
    sidecar.write("main", "g", document(&[("k", "good")]));
    make(&sidecar.file("main", "f"));
    sidecar.states(&[("main", ended(0))]);
    sidecar.process.start();
    let finish = sidecar.finish();
    assert_eq!((finish.code, scene.value("t").as_str()), (Some(0), "good"), "{name}: {}", finish.report);
    (scene, finish)
}

#[track_caller]
fn is_refused(name: &str, (scene, finish): (Scene, super::scene::Finish), expected: &str) {
    assert_eq!(scene.secrets(), ["t"], "{name}");
    let errors = finish.report["errors"].as_array().unwrap_or_else(|| panic!("{name}: {}", finish.report));
    assert_eq!((errors.len(), &errors[0]["reason"], &errors[0]["file"]), (1, &json!("OutputInvalid"), &json!("f")), "{name}");
    let message = errors[0]["message"].as_str().expect("a message");
    assert!(message.contains(expected), "{name}: {message}");
    assert_eq!(finish.report["stored"], false);
}

#[test]
fn what_is_no_regular_file_is_refused_unread() {
    let folder = Folder::new("target");
    let target = folder.path().join("target");
    fs::write(&target, document(&[("k", "elsewhere")])).expect("written");
    is_refused("symlink", run("symlink", |path| symlink(&target, path).expect("made")), "a symbolic link");
    is_refused("dangling", run("dangling", |path| symlink("/nowhere", path).expect("made")), "a symbolic link");
    is_refused("loop", run("loop", |path| symlink(path, path).expect("made")), "a symbolic link");
    is_refused("folder", run("folder", |path| fs::create_dir(path).expect("made")), "a directory");
    is_refused("socket", run("socket", |path| drop(UnixListener::bind(path).expect("made"))), "a socket");
    let fifo = run("fifo", |path| assert!(Command::new("mkfifo").arg(path).status().expect("runs").success()));
    is_refused("fifo", fifo, "a FIFO");
}

#[test]
fn a_device_is_refused_unread() {
    let mut is_made = false;
    let result = run("device", |path| {
        // Needs root; elsewhere the file is simply missing, which is told too.
        is_made = Command::new("mknod").arg(path).args(["c", "1", "5"]).status().is_ok_and(|status| status.success());
    });
    is_refused("device", result, if is_made { "a device" } else { "without writing it" });
}

#[test]
fn size_is_bounded_before_anything_is_read() {
    let sparse = run("sparse", |path| File::create(path).and_then(|file| file.set_len(1 << 40)).expect("made"));
    is_refused("sparse", sparse, "larger than 4 MiB");
    let spaces = run("spaces", |path| fs::write(path, vec![b' '; 4 * MIB]).expect("written"));
    is_refused("spaces", spaces, "empty");
}

#[test]
fn a_secrets_limit_is_exact() {
    let value = |length: usize| json!({"k": CANARY.to_owned() + &"x".repeat(length - CANARY.len())}).to_string();
    let (scene, finish) = run("exact", |path| fs::write(path, value(MIB)).expect("written"));
    assert_eq!((&finish.report["stored"], scene.value("s").len() + CANARY.len()), (&json!(true), MIB));
    is_refused("one-more", run("one-more", |path| fs::write(path, value(MIB + 1)).expect("written")), "too large");
}

#[test]
fn content_is_refused_by_key_and_type_and_never_quoted() {
    let nested = |depth: usize| format!(r#"{{"k":{}"{CANARY}"{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let many: String = (0..100_000).map(|number| format!(r#""k{number}":"","#)).collect();
    let cases: [(&str, Vec<u8>, &str); 17] = [
        ("empty", Vec::new(), "empty; must be"),
        ("not-utf8", [b"{\"k\":\"", CANARY.as_bytes(), b"\xff\"}"].concat(), "not valid UTF-8 at offset 19"),
        ("bom", format!("\u{feff}{}", document(&[("k", "1")])).into_bytes(), "byte order mark"),
        ("nul", format!("{{\"k\":\"{CANARY}\0\"}}").into_bytes(), "NUL byte at offset 19"),
        ("duplicate", format!(r#"{{"k":"{CANARY}1","k":"{CANARY}2"}}"#).into_bytes(), r#"duplicate key "k""#),
        ("number", format!(r#"{{"j":"{CANARY}","k":12345678987654321}}"#).into_bytes(), r#"key "k" must be a string, not a number"#),
        ("object", format!(r#"{{"k":{{"l":"{CANARY}"}}}}"#).into_bytes(), r#"key "k" must be a string, not an object"#),
        ("null", br#"{"k":null}"#.to_vec(), r#"key "k" must be a string, not null"#),
        ("array", format!(r#"["{CANARY}"]"#).into_bytes(), "must be a JSON object of strings, not an array"),
        ("text", format!(r#""{CANARY}""#).into_bytes(), "must be a JSON object of strings, not a string"),
        ("plain", CANARY.as_bytes().to_vec(), "not valid JSON: expected value at line 1 column 1"),
        ("cut", format!(r#"{{"k":"{CANARY}"#).into_bytes(), "not valid JSON: EOF"),
        ("deep", nested(200).into_bytes(), r#"key "k" must be a string, not an array"#),
        ("bad-key", format!(r#"{{"a/b":"{CANARY}"}}"#).into_bytes(), r#"key "a/b" is not a valid Secret key"#),
        ("dots", format!(r#"{{"..":"{CANARY}"}}"#).into_bytes(), r#"key ".." is not a valid Secret key"#),
        ("two", document(&[("k", "1")]).repeat(2).into_bytes(), "trailing data at line 1 column"),
        ("many", format!("{{{}}}", many.trim_end_matches(',')).into_bytes(), "too large"),
    ];
    for (name, content, expected) in cases {
        is_refused(name, run(name, |path| fs::write(path, content).expect("written")), expected);
    }
}

#[test]
fn one_wrong_entry_of_a_fan_out_stores_none_of_it() {
    for (name, content, expected) in [
        ("entry-type", format!(r#"{{"a":{{"k":"{CANARY}"}},"b":{{"k":7}}}}"#), r#"key "b": key "k" must be a string, not a number"#),
        ("entry-name", format!(r#"{{"a":{{"k":"{CANARY}"}},"B!":{{"k":"{CANARY}"}}}}"#), "is not a valid Secret name"),
        ("entry-text", format!(r#"{{"a":{{"k":"{CANARY}"}},"b":"{CANARY}"}}"#), r#"key "b": not valid JSON"#),
    ] {
        is_refused(name, run_as(name, None, true, |path| fs::write(path, content).expect("written")), expected);
    }
}

#[test]
fn a_file_that_the_sidecars_user_may_not_read_is_told_with_the_remedy() {
    if fs::metadata("/proc/self").expect("Linux").uid() != 0 {
        // Only root can start the sidecar as another user.
        return;
    }
    let unreadable = run_as("unreadable", Some(65532), false, |path| {
        fs::write(path, document(&[("k", "1")])).expect("written");
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("mode set");
    });
    is_refused("unreadable", unreadable, "no permission to read the file (mode 0600, owner 0); make it readable for all users");
}

#[test]
fn a_file_replaced_while_it_is_read_is_one_or_the_other() {
    let scene = Scene::new("hostile-replaced");
    let big = |letter: &str| json!({"k": letter.repeat(MIB / 2)}).to_string();
    let sidecar = scene.sidecar("Never", super::scene::one_file());
    sidecar.write("main", "f", big("a"));
    let (path, other) = (sidecar.file("main", "f"), sidecar.file("main", "other"));
    sidecar.states(&[("main", ended(0))]);
    sidecar.process.start();
    while sidecar.process.is_running() {
        for letter in ["b", "a"] {
            let mut file = File::create(&other).expect("made");
            file.write_all(big(letter).as_bytes()).expect("written");
            fs::rename(&other, &path).expect("replaced");
        }
    }
    sidecar.finish_stored();
    let value = scene.value("s");
    assert!(["a", "b"].iter().any(|letter| value == letter.repeat(MIB / 2)), "{} letters", value.len());
}
