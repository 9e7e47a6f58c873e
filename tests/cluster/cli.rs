//! The commands on a real cluster: through kubectl as its plugin, and in a CronJob's pod.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::audit::Entry;
use crate::case::{Case, example, quarks_job, text, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quarks-job");

/// A folder for `PATH` with the program under the name by which kubectl finds it.
pub struct Plugin(PathBuf);

impl Plugin {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("quarks-job-plugin-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temp folder");
        symlink(PROGRAM, folder.join("kubectl-qjob")).expect("a link");
        Self(folder)
    }

    /// `PATH` with the folder.
    pub fn path(&self) -> String {
        format!("{}:{}", self.0.display(), std::env::var("PATH").expect("a PATH"))
    }

    /// `kubectl qjob ...`: exit code, output and errors.
    fn call(&self, case: &Case, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new("kubectl");
        command.arg("qjob").args(arguments).args(["--namespace", &case.namespace]).env("PATH", self.path()).stdin(Stdio::null());
        let output = command.output().expect("kubectl starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn trigger_through_kubectl_prints_the_outcome_and_exits_with_it() {
    let case = Case::new("cli-trigger");
    let plugin = Plugin::new("trigger");
    case.apply_example("errand.yaml");
    case.apply_example("errand-output.yaml");
    case.apply(&quarks_job("fails", "manual", "exit 3"));
    for run in 1..=2 {
        let (code, out, err) = plugin.call(&case, &["trigger", "errand1", "--wait"]);
        assert_eq!(code, 0, "{err}");
        let start = format!("errand1: run {run} Succeeded (Job errand1-");
        assert!(out.starts_with(&start) && out.ends_with(" s)\n") && out.lines().count() == 1, "{out}");
        assert_eq!(case.qjob("errand1")["spec"]["trigger"]["strategy"], "manual");
    }
    let (code, out, err) = plugin.call(&case, &["trigger", "errand-output", "--wait", "--timeout", "5m"]);
    assert!(code == 0 && out.ends_with("\nerrand-output: stored errand-output\n"), "{code} {out} {err}");
    let (code, out, err) = plugin.call(&case, &["trigger", "fails", "--wait"]);
    assert!(
        code == 1 && out.starts_with("fails: run 1 Failed (Job fails-") && out.contains("): BackoffLimitExceeded: "),
        "{code} {out} {err}"
    );
    let (code, out, err) = plugin.call(&case, &["trigger", "absent"]);
    assert_eq!((code, out.as_str(), err), (1, "", format!("kubectl-qjob: QuarksJob absent not found in namespace {}\n", case.namespace)));
    // Suspended, it waits; the request is served afterwards.
    case.patch("errand1", &json!({"spec": {"suspend": true}}));
    case.wait_condition("errand1", "Ready", "True", "Suspended");
    let (code, _, err) = plugin.call(&case, &["trigger", "errand1", "--wait", "--timeout=2s"]);
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("errand1: no run starts now: Suspended: ") && err.ends_with("timed out after 2 s; the request remains in effect\n"),
        "{err}"
    );
    case.patch("errand1", &json!({"spec": {"suspend": false}}));
    assert_eq!(case.wait_runs("errand1", 3)["outcome"], "Succeeded");
    assert_eq!(case.jobs_created(), 5, "one Job a request");
}

#[test]
fn the_scheduled_errand_fires_with_the_right_to_patch_alone() {
    let case = Case::new("cli-scheduled");
    case.label_namespace(&["pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted"]);
    case.apply_with_image("scheduled-errand.yaml");
    // A Job that has ended goes at once, so those that were seen count.
    let names: RefCell<BTreeSet<String>> = RefCell::default();
    let fired = || {
        let of_cron_job = case.jobs().into_iter().filter(|job| job["metadata"]["ownerReferences"][0]["kind"] == "CronJob");
        names.borrow_mut().extend(of_cron_job.map(|job| text(&job["metadata"]["name"])));
        names.borrow().clone()
    };
    until("the CronJob to fire", || (!fired().is_empty()).then_some(()));
    case.kubectl(&["patch", "cronjob", "scheduled-errand", "-p", r#"{"spec":{"suspend":true}}"#]);
    let qjob = case.wait_qjob("scheduled-errand", "the errand's run", |qjob| {
        let requested = qjob["metadata"]["annotations"]["quarks.cloudfoundry.org/run-requested"].as_str().unwrap_or_default();
        let names = fired();
        let is_over = qjob["status"]["active"].is_null() && qjob["status"]["runs"].as_u64() == Some(names.len() as u64);
        is_over && names.contains(requested)
    });
    let last = &qjob["status"]["lastRun"];
    assert_eq!((&last["outcome"], &last["trigger"]), (&json!("Succeeded"), &json!("request")));
    assert_eq!(qjob["spec"]["trigger"]["strategy"], "manual");
    // By hand it works as well, and the same Job asks once.
    case.kubectl(&["create", "job", "by-hand", "--from=cronjob/scheduled-errand"]);
    case.kubectl(&["wait", "job/by-hand", "--for=condition=Complete", "--timeout=300s"]);
    let runs = qjob["status"]["runs"].as_u64().expect("a number") + 1;
    assert_eq!(case.wait_runs("scheduled-errand", runs)["outcome"], "Succeeded");
    let account = format!("system:serviceaccount:{}:scheduled-errand", case.namespace);
    let asked: Vec<Entry> = case.audit().into_iter().filter(|entry| entry.user == account).collect();
    assert_eq!(asked.len() as u64, runs, "{asked:?}");
    assert!(asked.iter().all(|entry| entry.what() == "patch quarksjobs" && entry.code == 200), "{asked:?}");
}

/// The program's output, given to `kubectl create --dry-run=server`: the API server checks it.
fn create_dry(case: &Case, manifest: &str) -> Result<String, String> {
    let mut child = Command::new("kubectl")
        .args(["--namespace", &case.namespace, "create", "--dry-run=server", "--validate=strict", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    child.stdin.take().expect("piped").write_all(manifest.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("our child");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn program(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_api_server_takes_what_render_and_convert_print() {
    let case = Case::new("cli-render");
    let files = std::fs::read_dir(example("")).expect("a folder");
    let all: String = files
        .map(|file| text(&json!(file.expect("readable").path())))
        .map(|path| program(&["render", "-f", &path, "-n", &case.namespace]))
        .collect();
    let created = create_dry(&case, &all).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(created.lines().count(), all.matches("\nkind: Job\n").count(), "{created}");
    let folder = std::env::temp_dir().join(format!("quarks-job-convert-{}", std::process::id()));
    let old = |output: &str, template: &str| {
        format!(
            "apiVersion: fissile.cloudfoundry.org/v1alpha1\nkind: ExtendedJob\nmetadata: {{name: old}}\nspec:\n  trigger: {{strategy: once}}\n  \
                 output: {output}\n  template: {template}\n"
        )
    };
    let pod = "{metadata: {labels: {delete: pod}}, spec: {restartPolicy: Never, containers: [{name: main, image: 'busybox:1.36', \
               args: [-c, 'echo {} >> /mnt/quarks/output.json']}]}}";
    for (output, template) in [
        ("{namePrefix: foo-, outputType: json, secretLabels: {a: b}, versioned: true, writeOnFailure: true}", pod.to_owned()),
        ("null", format!("{{backoffLimit: 2, spec: {{backoffLimit: 1, template: {pod}}}}}")),
    ] {
        std::fs::write(&folder, old(output, &template)).expect("written");
        let new = program(&["convert", "-f", folder.to_str().expect("UTF-8")]);
        create_dry(&case, &new).unwrap_or_else(|error| panic!("{error}\n{new}"));
    }
    let _ = std::fs::remove_file(&folder);
}
