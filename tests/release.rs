//! `scripts/release --verify` against releases that somebody has changed. Not a default target: it needs a signed release and a second
//! build of it, which `scripts/test` makes and names in the environment.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

    /// With the comment that scripts/release writes for the provenance as it is now.
    fn sign(&self, key: &str) {
        let provenance = self.read(&self.name(".intoto.json"));
        self.sign_as(key, &format!("quarks-job {} {}", field(&provenance, "version"), field(&provenance, "gitCommit")));
    }

    fn sign_as(&self, key: &str, comment: &str) {
        let mut sign = Command::new("minisign");
        sign.args(["-S", "-H", "-c", comment, "-t", comment, "-s"]).arg(from_environment("QUARKS_RELEASE_KEYS").join(key));
        assert!(sign.arg("-m").arg(self.0.join("SHA256SUMS")).output().expect("minisign runs").status.success());
    }

    /// Exit code and problems.
    fn verify_with(&self, arguments: &[&OsStr]) -> (Option<i32>, Vec<String>) {
        ended(Command::new(script()).arg("--verify").arg(&self.0).args(arguments))
    }

    /// As `verify`, and these too.
    fn verify_and(&self, more: &[&str]) -> (Option<i32>, Vec<String>) {
        let (key, rebuilt) = (from_environment("QUARKS_RELEASE_KEYS").join("key.pub"), from_environment("QUARKS_REBUILT"));
        let mut arguments = vec!["--public-key".as_ref(), key.as_os_str(), "--rebuilt".as_ref(), rebuilt.as_os_str()];
        arguments.extend(more.iter().map(OsStr::new));
        self.verify_with(&arguments)
    }

    fn verify(&self) -> (Option<i32>, Vec<String>) {
        self.verify_and(&[])
    }

    /// It is refused, by a line that starts so.
    #[track_caller]
    fn assert_found(&self, what: &str, start: &str) {
        let (code, lines) = self.verify();
        assert_eq!(code, Some(1), "{what}: {lines:?}");
        assert!(lines.iter().any(|line| line.starts_with(start)), "{what}: no line {start:?} in {lines:?}");
    }
}

/// Exit code and lines, without those of progress.
fn ended(command: &mut Command) -> (Option<i32>, Vec<String>) {
    let output = command.output().expect("scripts/release runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.code(), text.lines().filter(|line| !line.starts_with('[')).map(str::to_owned).collect())
}

/// The first field of this name in a text of JSON.
fn field(text: &str, name: &str) -> String {
    text.split(&format!("\"{name}\": \"")).nth(1).expect("a field").split('"').next().expect("its end").to_owned()
}

/// It ends with this code, and one line, which has these words.
#[track_caller]
fn assert_one_line((code, lines): (Option<i32>, Vec<String>), expected_code: i32, expected: &str) {
    assert!(code == Some(expected_code) && lines.len() == 1 && lines[0].contains(expected), "no {expected:?} in {code:?} {lines:?}");
}

fn git(arguments: &[&str]) {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=test", "-c", "user.email=test@localhost"]).args(arguments);
    assert!(git.output().expect("git runs").status.success(), "git {arguments:?}");
}

/// A clone of a checkout. Deleted at the end.
struct Clone(PathBuf);

impl Clone {
    fn new(source: &Path, name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("quarks-job-release-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        git(&["clone", "--quiet", "--shared", source.to_str().expect("UTF-8"), folder.to_str().expect("UTF-8")]);
        Self(folder)
    }

    fn place(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    fn release(&self) -> Command {
        Command::new(self.0.join("scripts/release"))
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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
    assert_one_line(copy.verify(), 0, "nothing was built");
    let commit = field(&copy.read(&copy.name(".intoto.json")), "gitCommit");
    assert_one_line(copy.verify_and(&["--commit", &commit]), 0, "the signature is right");
}

#[test]
fn a_release_that_is_not_signed_is_called_so() {
    let copy = Copy::new("unsigned");
    fs::remove_file(copy.0.join(SIGNATURE)).expect("removed");
    copy.assert_found("no signature", &format!("{SIGNATURE}: missing"));
    let rebuilt = from_environment("QUARKS_REBUILT");
    assert_one_line(copy.verify_with(&["--rebuilt".as_ref(), rebuilt.as_os_str()]), 0, "NOT SIGNED");
}

#[test]
fn the_release_of_another_commit_than_the_expected_one_is_found() {
    let copy = Copy::new("commit");
    copy.sign_as("key.sec", "quarks-job 0.0.1 of some day");
    copy.assert_found("another comment", &format!("{SIGNATURE}: it was signed as \"quarks-job 0.0.1 of some day\""));
    copy.sign("key.sec");
    let script = script();
    let clone = Clone::new(script.parent().and_then(Path::parent).expect("a checkout"), "later");
    git(&["-C", clone.place(), "commit", "--quiet", "--allow-empty", "--message", "Later"]);
    let key = from_environment("QUARKS_RELEASE_KEYS").join("key.pub");
    let (code, lines) = ended(clone.release().arg("--verify").arg(&copy.0).arg("--public-key").arg(key).args(["--commit", "HEAD"]));
    assert!(code == Some(1) && lines.iter().any(|line| line.contains("; HEAD is ")), "{lines:?}");
}

/// Nothing is built in vain, and nothing is called changed.
#[test]
fn a_release_by_other_tools_is_not_built() {
    let copy = Copy::new("tools");
    let name = copy.name(".intoto.json");
    let text = copy.read(&name);
    copy.forge(&name, text.replacen(&field(&text, "rustc-release"), "1.2.3", 1));
    let key = from_environment("QUARKS_RELEASE_KEYS").join("key.pub");
    assert_one_line(copy.verify_with(&["--public-key".as_ref(), key.as_os_str()]), 3, "amd64 rustc-release 1.2.3 (here ");
}

#[test]
fn what_is_no_release_is_refused_in_one_line() {
    let copy = Copy::new("none");
    assert_one_line(ended(Command::new(script()).args(["--verify", "/nowhere/at/all"])), 1, "/nowhere/at/all is not a folder");
    assert_one_line(copy.verify_with(&["--public-key".as_ref(), "nowhere.pub".as_ref()]), 1, "nowhere.pub is neither a file");
    assert_one_line(copy.verify_and(&["--commit", "no-such-tag"]), 1, "no commit no-such-tag");
    fs::remove_file(copy.0.join(SIGNATURE)).expect("removed");
    let unsigned = |what: &str, expected: &str| {
        let (code, lines) = copy.verify_with(&[]);
        let is_clear = lines.iter().all(|line| line.len() < 400 && !line.contains("Error("));
        assert!(code == Some(1) && lines[0].contains(expected) && is_clear, "{what}: no {expected:?} in {lines:?}");
    };
    copy.write("SHA256SUMS", [0xff_u8, 0xfe, b'\n'].repeat(10_000));
    unsigned("binary sums", "SHA256SUMS: 10000 line(s) that sha256sum does not write");
    copy.restore("SHA256SUMS");
    let (name, other) = (copy.name(".intoto.json"), "quarks-job-9.9.9.intoto.json");
    copy.write(other, copy.read(&name));
    copy.write("SHA256SUMS", format!("{}{}  {other}\n", copy.read("SHA256SUMS"), copy.digest(other)));
    unsigned("two of them", &format!("this one has 2: {name} {other}"));
    fs::remove_file(copy.0.join(&name)).expect("removed");
    copy.write(
        "SHA256SUMS",
        copy.read("SHA256SUMS").lines().filter(|line| !line.ends_with(&name)).map(|line| format!("{line}\n")).collect::<String>(),
    );
    unsigned("another name", &format!("{other}: it is the provenance of version"));
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
        copy.assert_found(&name, &format!("{name}: not what is in"));
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
        ("{}".to_owned(), format!("{name}: not as scripts/release writes it: no field 'components'")),
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
    let field = |name: &str| field(&text, name);
    for (before, after, expected) in [
        (field("gitCommit"), "0".repeat(40), "does not have the commit"),
        (field("gitTree"), "0".repeat(40), "another tree"),
        (copy.digest("install.yaml"), "0".repeat(64), "install.yaml is not the file that it names"),
        (field("version"), "9.9.9".to_owned(), "9.9.9"),
        ("predicateType".to_owned(), "predicate".to_owned(), "not what is in"),
    ] {
        copy.forge(&name, text.replacen(&before, &after, 1));
        let (code, lines) = copy.verify();
        assert!(code == Some(1) && lines.iter().any(|line| line.contains(expected)), "{before}: no {expected:?} in {lines:?}");
        copy.forge(&name, &text);
    }
}

#[test]
fn what_cannot_be_released_is_refused_in_one_line() {
    let clone = Clone::new(Path::new(env!("CARGO_MANIFEST_DIR")), "refused");
    let (version, folder) = (env!("CARGO_PKG_VERSION"), &clone.0);
    let output = folder.with_extension("output");
    let refused = |arguments: &[&str], expected: &str| {
        assert_one_line(ended(clone.release().arg("--output").arg(&output).args(arguments)), 1, expected);
    };
    refused(&["9.9.9"], &format!("Cargo.toml has version {version}"));
    refused(&[version, "--output", &format!("{}/src", clone.place())], "is not empty");
    refused(&[version, "--sign-key", "/nowhere/at/all"], "/nowhere/at/all is missing or cannot be read");
    refused(&[version, "--sign-key", &format!("{}/LICENSE", clone.place())], "is in the checkout");
    assert_one_line(ended(clone.release().args([version, "--image", "localhost:5000/name:1.2"])), 2, "without tag and digest");
    fs::write(folder.join("new"), "").expect("written");
    refused(&[version], "release: the checkout has changes that are not committed");
    fs::remove_file(folder.join("new")).expect("removed");
    let changelog = fs::read_to_string(folder.join("CHANGELOG.md")).expect("text").replace(&format!("## [{version}]"), "## [Unreleased]");
    fs::write(folder.join("CHANGELOG.md"), changelog).expect("written");
    git(&["-C", clone.place(), "commit", "--quiet", "--all", "--message", "No section"]);
    refused(&[version], "CHANGELOG.md has no section");
    // Of nobody, where these tests are root's.
    assert!(Command::new("chown").args(["--recursive", "65534", clone.place()]).status().expect("chown runs").success());
    refused(&[version], "git refuses to read");
    fs::remove_dir_all(folder.join(".git")).expect("removed");
    refused(&[version], "is not a git checkout");
    assert_one_line(ended(clone.release().args(["--verify", clone.place()])), 1, "is not a git checkout");
}

/// What cargo has built of other sources in the same target folder does not count, whatever the times say. This cargo builds nothing, and
/// says whether it would find something.
#[test]
fn a_program_of_other_sources_is_not_taken_for_this_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let clone = Clone::new(Path::new(env!("CARGO_MANIFEST_DIR")), "fresh");
    let (bin, target) = (clone.0.join("fake"), clone.0.join("fake/target"));
    let built = target.join("x86_64-unknown-linux-gnu/release/.fingerprint/quarks-job-0");
    fs::create_dir_all(&built).expect("a temp folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    fs::write(bin.join("cargo"), format!("#!/bin/sh\n[ \"$1\" != build ] || [ ! -e {0} ] || touch {0}.found\n", built.display()))
        .expect("written");
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).expect("executable");
    let is_found = || {
        fs::create_dir_all(&built).expect("a temp folder");
        let found = built.with_extension("found");
        let _ = fs::remove_file(&found);
        let mut script = Command::new(clone.0.join("scripts/static"));
        let output = script.env("PATH", &path).env("CARGO_TARGET_DIR", &target).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        found.exists()
    };
    assert!(!is_found(), "of unknown sources");
    assert!(is_found(), "of the same sources");
    let file = clone.0.join("src/main.rs");
    let before = fs::read_to_string(&file).expect("text");
    fs::write(&file, format!("{before}// changed\n")).expect("written");
    fs::File::open(&file).and_then(|file| file.set_modified(std::time::UNIX_EPOCH)).expect("a time");
    assert!(!is_found(), "of other sources with an old time");
    assert!(is_found(), "of those, again");
}

#[test]
fn a_second_release_waits_for_the_first() {
    let clone = Clone::new(Path::new(env!("CARGO_MANIFEST_DIR")), "waits");
    let target = clone.0.with_extension("target");
    fs::create_dir_all(&target).expect("a temp folder");
    let mut release = clone.release();
    release.arg(env!("CARGO_PKG_VERSION")).arg("--output").arg(clone.0.with_extension("output")).env("CARGO_TARGET_DIR", &target);
    let lock = fs::File::create(target.join("release.lock")).expect("created");
    lock.lock().expect("locked");
    let mut process = release.stderr(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(process.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
    process.kill().expect("killed");
    process.wait().expect("ended");
    let _ = fs::remove_dir_all(&target);
    assert!(line.contains("waiting: another scripts/release"), "{line:?}");
}
