//! The program for arm64 as operator and as sidecar. Its image (`scripts/image --emulated`) has qemu in it, which runs it on this node.
//!
//! `scripts/test` deploys that image after the other cases, and runs this one, which is ignored otherwise: the operator is not that one.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::case::{Case, cluster, map, until, with_output};

/// The machine in the head of an ELF file: AArch64.
const AARCH64: [u8; 2] = 183_u16.to_le_bytes();

/// The process of this pod that runs the program, emulated or not.
fn process(pod: &str) -> Option<PathBuf> {
    let name = format!("HOSTNAME={pod}").into_bytes();
    let has = |path: &Path, file: &str, what: &[u8]| {
        let content = std::fs::read(path.join(file)).unwrap_or_default();
        content.split(|byte| *byte == 0).any(|part| part == what)
    };
    let mut processes = std::fs::read_dir("/proc").expect("Linux").filter_map(Result::ok).map(|entry| entry.path());
    processes.find(|path| has(path, "cmdline", b"/quarks-job") && has(path, "environ", &name))
}

/// That qemu is what runs, and that what it runs is for the other architecture.
#[track_caller]
fn check(pod: &str) {
    let process = until(&format!("the program's process in pod {pod}"), || process(pod));
    let emulator = std::fs::read_link(process.join("exe")).expect("the process runs");
    assert_eq!(emulator, Path::new("/qemu-aarch64-static"), "pod {pod} does not have the image of scripts/image --emulated");
    let mut head = [0; 20];
    File::open(process.join("root/quarks-job")).expect("the program").read_exact(&mut head).expect("its head");
    assert_eq!((&head[..4], &head[18..20]), (&b"\x7fELF"[..], &AARCH64[..]), "the program is for another architecture");
}

#[test]
#[ignore = "needs the operator for arm64: scripts/test deploys it for this case"]
fn operator_and_sidecar_for_arm64_serve_a_run_with_output() {
    let case = Case::new("arm64");
    let script = r#"until [ -e /tmp/go ]; do sleep 0.2; done; echo '{"a": "b"}' >> /mnt/quarks/output.json"#;
    case.apply(&with_output("q", "once", script, "s"));
    let pod = case.wait_running_pod("q");
    check(&pod);
    let field = "jsonpath={.items[0].metadata.name}";
    check(&cluster(&["--namespace", "quarks-job", "get", "pods", "-l", "app.kubernetes.io/name=quarks-job", "-o", field]));

    case.kubectl(&["exec", &pod, "-c", "main", "--", "touch", "/tmp/go"]);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("s"), map(&[("a", "b")]));
}
