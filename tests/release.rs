//! `scripts/release --verify` against releases that somebody has changed. Not a default target: it needs a signed release and a second
//! build of it, which `scripts/test` makes and names in the environment.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize as _;

const SIGNATURE: &str = "SHA256SUMS.minisig";

fn from_environment(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run these tests with scripts/test")).into()
}

/// That of a checkout with the commit of the release.
fn script() -> PathBuf {
    from_environment("QUARKS_RELEASE_SCRIPT")
}

/// A copy of the release, to be changed. Deleted at the end.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("quarks-job-release-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a temp folder");
        let copy = Self(folder);
        for name in copy.original() {
            fs::copy(from_environment("QUARKS_RELEASE").join(&name), copy.0.join(&name)).expect("copied");
        }
        copy
    }

    /// Names of the files of a release.
    fn original(&self) -> Vec<String> {
        let entries = fs::read_dir(from_environment("QUARKS_RELEASE")).expect("a release");
        let mut names: Vec<String> = entries.map(|entry| entry.expect("a file").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        assert!(names.len() >= 13, "a release has more files: {names:?}");
        names
    }

    /// Puts a file back as it was.
    fn restore(&self, name: &str) {
        fs::copy(from_environment("QUARKS_RELEASE").join(name), self.0.join(name)).expect("copied");
    }

    /// The name of the one file that ends so.
    fn name(&self, end: &str) -> String {
        self.original().into_iter().find(|name| name.ends_with(end)).unwrap_or_else(|| panic!("no file {end}"))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect("text")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), content).expect("written");
    }

    /// Another bit in the byte of this number.
    fn flip(&self, name: &str, at: usize) {
        let mut bytes = fs::read(self.0.join(name)).expect("read");
        bytes[at] ^= 1;
        self.write(name, bytes);
    }

    fn digest(&self, name: &str) -> String {
        let output = Command::new("sha256sum").arg(self.0.join(name)).output().expect("sha256sum runs");
        String::from_utf8(output.stdout).expect("UTF-8")[..64].to_owned()
    }

    /// Puts other bytes into a file and, as anyone who holds the key could, everything right that names its sum.
    fn forge(&self, name: &str, content: impl AsRef<[u8]>) {
        let before = self.digest(name);
        self.write(name, content);
        let provenance = self.name(".intoto.json");
        let provenance_before = self.digest(&provenance);
        self.write(&provenance, self.read(&provenance).replace(&before, &self.digest(name)));
        let sums = self.read("SHA256SUMS").replace(&before, &self.digest(name));
        self.write("SHA256SUMS", sums.replace(&provenance_before, &self.digest(&provenance)));
        self.sign("key.sec");
    }

    fn sign(&self, key: &str) {
        let mut sign = Command::new("minisign");
        sign.args(["-S", "-H", "-c", "forged", "-t", "forged", "-s"]).arg(from_environment("QUARKS_RELEASE_KEYS").join(key));
        assert!(sign.arg("-m").arg(self.0.join("SHA256SUMS")).output().expect("minisign runs").status.success());
    }

    /// Exit code and problems.
    fn verify_with(&self, arguments: &[&OsStr]) -> (Option<i32>, Vec<String>) {
        let output = Command::new(script()).arg("--verify").arg(&self.0).args(arguments).output().expect("scripts/release runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code(), text.lines().filter(|line| !line.starts_with('[')).map(str::to_owned).collect())
    }

    fn verify(&self) -> (Option<i32>, Vec<String>) {
        let (key, rebuilt) = (from_environment("QUARKS_RELEASE_KEYS").join("key.pub"), from_environment("QUARKS_REBUILT"));
        self.verify_with(&["--public-key".as_ref(), key.as_os_str(), "--rebuilt".as_ref(), rebuilt.as_os_str()])
    }

    /// It is refused, by a line that starts so.
    #[track_caller]
    fn assert_found(&self, what: &str, start: &str) {
        let (code, lines) = self.verify();
        assert_eq!(code, Some(1), "{what}: {lines:?}");
        assert!(lines.iter().any(|line| line.starts_with(start)), "{what}: no line {start:?} in {lines:?}");
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_release_that_nobody_has_changed_is_in_order() {
    let copy = Copy::new("whole");
    let (code, lines) = copy.verify();
    assert_eq!(code, Some(0), "{lines:?}");
}

/// Each object as the manifests have it, with the image of the archive for all architectures.
#[test]
fn the_install_manifest_names_the_image_by_its_digest() {
    let objects = |text: &str| -> Vec<serde_yaml::Value> {
        serde_yaml::Deserializer::from_str(text)
            .map(|document| serde_yaml::Value::deserialize(document).expect("valid YAML"))
            .filter(|object| !object.is_null())
            .collect()
    };
    let manifest = |name: &str| fs::read_to_string(format!("{}/manifests/{name}", env!("CARGO_MANIFEST_DIR"))).expect("a manifest");
    let copy = Copy::new("install");
    let version = copy.name(".intoto.json").replace("quarks-job-", "").replace(".intoto.json", "");
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--to-stdout", "--file"]).arg(copy.0.join(format!("quarks-job-{version}.oci.tar"))).arg("index.json");
    let index: serde_yaml::Value = serde_yaml::from_slice(&tar.output().expect("tar runs").stdout).expect("JSON");
    let image = format!("REGISTRY/quarks-job@{}", index["manifests"][0]["digest"].as_str().expect("a digest"));
    let expected = manifest("crd.yaml") + "---\n" + &manifest("operator.yaml").replace("quarks-job:dev", &image);
    let text = copy.read("install.yaml");
    assert_eq!(objects(&text), objects(&expected));
    assert_eq!(text.matches(&image).count(), 2);
    let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    assert!(head[0].contains(&version) && !text.contains("placeholder"), "{head:?}");
}

#[test]
fn one_byte_of_any_file_is_found() {
    let copy = Copy::new("byte");
    for name in copy.original() {
        copy.flip(&name, fs::metadata(copy.0.join(&name)).expect("a file").len() as usize / 2);
        // The sums are what is signed.
        copy.assert_found(&name, if name == "SHA256SUMS" { SIGNATURE } else { &name });
        copy.restore(&name);
    }
}

#[test]
fn no_byte_of_the_signature_is_free() {
    let copy = Copy::new("signature");
    let text = copy.read(SIGNATURE);
    let at_an_end = |at: &usize| text[*at + 1..].starts_with(['=', '\n']);
    // Before an equals sign some bits of a character mean nothing, and minisign does not look at the first line.
    let places = (0..text.len()).filter(|at| at % 11 == 0 || *at + 1 == text.len() || at_an_end(at));
    for at in places {
        copy.flip(SIGNATURE, at);
        copy.assert_found(&format!("byte {at}"), SIGNATURE);
        copy.restore(SIGNATURE);
    }
}

#[test]
fn a_file_that_is_missing_or_added_is_found() {
    let copy = Copy::new("files");
    for name in copy.original().iter().filter(|name| *name != "SHA256SUMS") {
        fs::remove_file(copy.0.join(name)).expect("removed");
        copy.assert_found(name, &format!("{name}: missing"));
        copy.restore(name);
    }
    for name in ["quarks-job-linux-amd64", ".hidden"] {
        copy.write(name, "x");
        copy.assert_found(name, &format!("{name}: not in SHA256SUMS"));
        fs::remove_file(copy.0.join(name)).expect("removed");
    }
    std::os::unix::fs::symlink("install.yaml", copy.0.join("link")).expect("a link");
    copy.assert_found("a link", "link: not in SHA256SUMS");
}

#[test]
fn another_signer_is_refused_and_a_signed_release_needs_the_key() {
    let copy = Copy::new("signer");
    let (code, lines) = copy.verify_with(&[]);
    assert!(code == Some(1) && lines.iter().any(|line| line.contains("--public-key")), "{lines:?}");
    copy.sign("other.sec");
    copy.assert_found("another key", SIGNATURE);
}

/// The sums are right in all of these, and the signature too: the key was stolen, or the signer lies.
#[test]
fn a_program_whose_sums_were_adjusted_is_found_by_the_second_build() {
    for end in ["-linux-amd64", "-linux-arm64", ".oci.tar", "install.yaml", ".spdx", "RELEASE-NOTES.md"] {
        let copy = Copy::new(&format!("forged{}", end.replace('.', "-")));
        let name = copy.name(end);
        let mut bytes = fs::read(copy.0.join(&name)).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        copy.forge(&name, bytes);
        copy.assert_found(&name, &format!("{name}: not what the commit gives"));
    }
}

#[test]
fn an_sbom_that_differs_from_the_lock_file_is_found_in_both_directions() {
    let copy = Copy::new("sbom");
    let name = copy.name("-amd64.cdx.json");
    let text = copy.read(&name);
    let ring = "pkg:cargo/ring@";
    let version = text.split(ring).nth(1).expect("ring").split(['"', '#']).next().expect("a version");
    for (changed, expected) in [
        (text.replace(&format!("\"version\": \"{version}\""), "\"version\": \"9.9.9\""), format!("ring {version} is in the program")),
        (
            text.replace(&format!("\"version\": \"{version}\""), "\"version\": \"9.9.9\""),
            "ring 9.9.9 is listed, and not in Cargo.lock".to_owned(),
        ),
        (text.replacen("\"expression\": \"MIT", "\"expression\": \"ISC", 1), "checksum, license, features or scope".to_owned()),
        // A crate of the tests alone.
        (text.replace("\"name\": \"itoa\"", "\"name\": \"rcgen\""), "rcgen".to_owned()),
        ("{}".to_owned(), "check-sbom: KeyError".to_owned()),
    ] {
        assert_ne!(changed, text, "nothing changed for {expected:?}");
        copy.forge(&name, &changed);
        let (code, lines) = copy.verify();
        assert!(code == Some(1) && lines.iter().any(|line| line.contains(&expected)), "no {expected:?} in {lines:?}");
        copy.forge(&name, &text);
    }
}

#[test]
fn a_provenance_of_other_sources_is_found() {
    let copy = Copy::new("provenance");
    let name = copy.name(".intoto.json");
    let text = copy.read(&name);
    let field = |name: &str| text.split(&format!("\"{name}\": \"")).nth(1).expect("a field").split('"').next().expect("its end").to_owned();
    for (before, after, expected) in [
        (field("gitCommit"), "0".repeat(40), "does not have the commit"),
        (field("gitTree"), "0".repeat(40), "another tree"),
        (copy.digest("install.yaml"), "0".repeat(64), "install.yaml is not the file that it names"),
        (field("version"), "9.9.9".to_owned(), "9.9.9"),
        ("predicateType".to_owned(), "predicate".to_owned(), "not what the commit gives"),
    ] {
        copy.forge(&name, text.replacen(&before, &after, 1));
        let (code, lines) = copy.verify();
        assert!(code == Some(1) && lines.iter().any(|line| line.contains(expected)), "{before}: no {expected:?} in {lines:?}");
        copy.forge(&name, &text);
    }
}

#[test]
fn what_cannot_be_released_is_refused_in_one_line() {
    let folder = std::env::temp_dir().join(format!("quarks-job-release-refused-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=test", "-c", "user.email=test@localhost"]).args(arguments);
        assert!(git.output().expect("git runs").status.success(), "git {arguments:?}");
    };
    let (source, place) = (env!("CARGO_MANIFEST_DIR"), folder.to_str().expect("UTF-8"));
    git(&["clone", "--quiet", source, place]);
    let refused = |version: &str, output: &str, expected: &str| {
        let ended = Command::new(folder.join("scripts/release")).args([version, "--output", output]).output().expect("it runs");
        let text = String::from_utf8(ended.stderr).expect("UTF-8");
        assert!(ended.status.code() == Some(1) && text.lines().count() == 1 && text.contains(expected), "no {expected:?} in {text:?}");
    };
    let version = env!("CARGO_PKG_VERSION");
    let output = folder.with_extension("output");
    let output = output.to_str().expect("UTF-8");
    refused("9.9.9", output, &format!("Cargo.toml has version {version}"));
    refused(version, &format!("{place}/src"), "is not empty");
    fs::write(folder.join("new"), "").expect("written");
    refused(version, output, "not committed");
    fs::remove_file(folder.join("new")).expect("removed");
    let changelog = fs::read_to_string(folder.join("CHANGELOG.md")).expect("text").replace(&format!("## [{version}]"), "## [Unreleased]");
    fs::write(folder.join("CHANGELOG.md"), changelog).expect("written");
    git(&["-C", place, "commit", "--quiet", "--all", "--message", "No section"]);
    refused(version, output, "CHANGELOG.md has no section");
    let _ = fs::remove_dir_all(&folder);
}
