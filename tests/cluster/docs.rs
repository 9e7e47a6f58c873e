//! What the pages tell their readers to run, run as it stands: install, use, upgrade, remove, and the way from the original operator.
//!
//! Takes the cluster over, so these cases are ignored unless they are asked for, as `scripts/test` does last. A block may use what the pages say that a reader sets: `IMAGE`, `NAMESPACE`
//! and `NAME`; and `kubectl qjob`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::audit;
use crate::case::{MANIFESTS, MONITORED, NAMESPACE_PREFIX, cluster, cluster_with, run, until};
use crate::cli::Plugin;
use crate::order::{INSTALL, MIGRATE, MIGRATE_BACK, Part, REMOVE, UPGRADE, USE, lines};
use crate::pages::{Block, Page, blocks, page};

mod original;

const NAMESPACE: &str = "quarks-docs";
/// The README's example.
const NAME: &str = "login";
/// Longest a block may take, in seconds. What it waits for has shorter limits of its own.
const BLOCK_LIMIT: &str = "900";

/// A reader with a checkout: a folder that has what the repository has, so that files which a block writes do not land there.
struct Reader {
    folder: PathBuf,
    plugin: Plugin,
}

impl Reader {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("quarks-job-docs-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temp folder");
        for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the repository") {
            let entry = entry.expect("an entry");
            symlink(entry.path(), folder.join(entry.file_name())).expect("a link");
        }
        Self { folder, plugin: Plugin::new(name) }
    }

    /// Runs all blocks of a part.
    fn follow(&self, part: Part) {
        let page = page(part.page);
        let (first, end) = lines(&page.text, part).unwrap_or_else(|| panic!("{part:?} is not there"));
        let blocks = blocks(&page).unwrap_or_else(|error| panic!("{error}"));
        for block in blocks.iter().filter(|block| block.info == "sh run" && (first..end).contains(&block.line)) {
            self.run(&page, block);
        }
    }

    fn run(&self, page: &Page, block: &Block) {
        println!("{}:{}", page.name, block.line);
        let path = self.folder.join(".output");
        let output = File::create(&path).expect("a file for the output");
        let status = Command::new("timeout")
            .args(["--kill-after=10", BLOCK_LIMIT, "bash", "-euo", "pipefail", "-c", &block.body])
            .current_dir(&self.folder)
            .env("IMAGE", std::env::var("QUARKS_TEST_IMAGE").expect("these tests need a cluster: run them with scripts/test"))
            .envs([("NAMESPACE", NAMESPACE), ("NAME", NAME)])
            .env("PATH", self.plugin.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .status()
            .expect("timeout starts");
        let output = fs::read_to_string(&path).expect("the output");
        if !status.success() {
            let objects = run(&["get", "qjob,job,pod", "-A", "-o", "wide"], None).unwrap_or_else(|error| error);
            panic!("{}:{}: {status}\n{}--- output\n{output}--- kubectl get qjob,job,pod -A\n{objects}", page.name, block.line, block.body);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Takes away the operator and the CRD, and the namespaces that earlier tests have left: what is in them is what a page may look for.
fn clear_cluster() {
    assert!(audit::is_there(), "only on the cluster of scripts/cluster, never on one of a user");
    let delete = ["delete", "--ignore-not-found", "--timeout=300s"];
    for manifest in ["operator.yaml", "crd.yaml"] {
        cluster(&[delete.as_slice(), &["-f", &format!("{MANIFESTS}/{manifest}")]].concat());
    }
    let all = cluster(&["get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}"]);
    let of_tests = all.split_whitespace().filter(|name| name.starts_with(NAMESPACE_PREFIX));
    let namespaces: Vec<&str> = of_tests.chain([NAMESPACE]).collect();
    cluster(&[delete.as_slice(), &["namespace"], &namespaces].concat());
    cluster(&[delete.as_slice(), &["namespace", "-l", MONITORED]].concat());
}

/// The README's example, as a reader copies it.
fn apply_example() {
    let readme = page("README.md");
    let all = blocks(&readme).unwrap_or_else(|error| panic!("{error}"));
    let example = all.iter().find(|block| block.info == "yaml").expect("the README has an example");
    let object = serde_yaml::from_str(&example.body).unwrap_or_else(|error| panic!("README.md:{}: {error}", example.line));
    cluster_with(&["apply", "-n", NAMESPACE, "-f", "-"], &object);
    until("the example to have run", || Some(()).filter(|()| value("qjob", "{.status.lastRun.outcome}") == "Succeeded"));
    assert_eq!(value("secret", "{.data.user}"), "YWRtaW4=", "what the README says of its Secret: admin");
}

/// A field of the object of this kind that has the example's name.
fn value(kind: &str, path: &str) -> String {
    cluster(&["get", kind, NAME, "-n", NAMESPACE, "-o", &format!("jsonpath={path}")])
}

/// What the page says that a removal leaves: output, and nothing of the operator.
fn check_removed() {
    assert_eq!(value("secret", "{.data.user}"), "YWRtaW4=", "output outlives its QuarksJob");
    for kinds in ["clusterrole,clusterrolebinding", "role,rolebinding,serviceaccount,deployment"] {
        let left = cluster(&["get", kinds, "-A", "-l", "app.kubernetes.io/name=quarks-job", "-o", "name"]);
        assert_eq!(left, "", "left after the removal");
    }
    assert_eq!(cluster(&["get", "crd", "quarksjobs.quarks.cloudfoundry.org", "--ignore-not-found", "-o", "name"]), "");
}

#[test]
#[ignore = "takes the cluster over: scripts/test runs it last"]
fn the_commands_of_the_pages_work_in_their_order() {
    let reader = Reader::new("use");
    clear_cluster();
    reader.follow(INSTALL);
    apply_example();
    USE.into_iter().for_each(|part| reader.follow(part));
    let runs = value("qjob", "{.status.runs}");
    reader.follow(UPGRADE);
    assert_eq!(value("qjob", "{.status.runs}"), runs, "an upgrade starts no run");
    reader.follow(REMOVE);
    check_removed();
}

#[test]
#[ignore = "takes the cluster over: scripts/test runs it last"]
fn the_way_from_the_original_operator_loses_nothing_and_runs_nothing_twice() {
    let reader = Reader::new("migration");
    clear_cluster();
    let before = original::leave_behind();
    reader.follow(MIGRATE);
    original::check_moved(&before);
    reader.follow(MIGRATE_BACK);
    original::check_back(&before);
    clear_cluster();
}
