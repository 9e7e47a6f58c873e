//! The program for arm64 as operator and as sidecar. Its image (`scripts/image --emulated`) has qemu in it, which runs it on this node.
//!
//! `scripts/test` deploys that image after the other cases, and runs this one, which is ignored otherwise: the operator is not that one.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::case::{Case, map, until, with_output};

/// The machine in the head of an ELF file: AArch64.
const AARCH64: [u8; 2] = 183_u16.to_le_bytes();

/// The processes of this node that run the program, with their arguments, if it is emulated.
fn emulated() -> Vec<(PathBuf, Vec<String>)> {
    let processes = std::fs::read_dir("/proc").expect("Linux").filter_map(Result::ok).map(|entry| entry.path());
    let call = |process: &Path| {
        let arguments = String::from_utf8_lossy(&std::fs::read(process.join("cmdline")).unwrap_or_default()).into_owned();
        arguments.split_terminator('\0').map(str::to_owned).collect::<Vec<String>>()
    };
    let all = processes.map(|process| (call(&process), process));
    all.filter(|(arguments, _)| arguments.get(1).is_some_and(|program| program == "/quarks-job"))
        .map(|(call, process)| (process, call))
        .collect()
}

/// That qemu is what runs, and that what it runs is for the other architecture.
fn check(process: &Path) {
    let emulator = std::fs::read_link(process.join("exe")).expect("the process runs");
    assert_eq!(emulator, Path::new("/qemu-aarch64-static"));
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
    let sidecar = until("the sidecar's process", || {
        let is_it = |(_, arguments): &(PathBuf, Vec<String>)| arguments.get(2).is_some_and(|argument| argument == "persist-output");
        emulated().into_iter().find(is_it)
    });
    check(&sidecar.0);
    let operators = emulated().into_iter().filter(|(process, _)| *process != sidecar.0).collect::<Vec<_>>();
    assert_eq!(operators.len(), 1, "one operator: {operators:?}");
    check(&operators[0].0);

    case.kubectl(&["exec", &pod, "-c", "main", "--", "touch", "/tmp/go"]);
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("s"), map(&[("a", "b")]));
}
