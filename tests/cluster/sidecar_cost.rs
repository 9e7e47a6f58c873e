//! What the sidecar costs while it waits: memory, CPU, requests.

use std::path::{Path, PathBuf};

use crate::audit::Entry;
use crate::case::{Case, map, until, until_often, with_output};

/// In kB, as the kernel counts: 4 MiB.
const WAITING: u64 = 4096;
const SECONDS: u64 = 60;

/// One look at the process.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident: u64,
    peak: u64,
    /// In hundredths of a second.
    cpu: u64,
}

/// The sidecar's process in this namespace, found by its command line and its environment.
fn find(namespace: &str) -> Option<PathBuf> {
    let variable = format!("={namespace}").into_bytes();
    std::fs::read_dir("/proc").expect("Linux").filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|part| part == b"persist-output")
            && environment.split(|byte| *byte == 0).any(|part| part.ends_with(&variable))
    })
}

/// None when the process is gone.
fn sample(process: &Path) -> Option<Sample> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok();
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // After the name in brackets, which may hold spaces: fields 14 and 15 are 11 and 12 further on.
    let times: Vec<u64> = stat.rsplit_once(") ")?.1.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    Some(Sample { resident: field("VmRSS:")?, peak: field("VmHWM:")?, cpu: times.iter().sum() })
}

#[test]
fn the_sidecar_costs_next_to_nothing_while_a_container_sleeps() {
    let case = Case::new("sidecar-cost");
    let script = format!(r#"sleep {SECONDS}; echo '{{"a": "b"}}' >> /mnt/quarks/output.json"#);
    case.apply(&with_output("q", "once", &script, "s"));
    let process = until("the sidecar's process", || find(&case.namespace));
    let watches = |entry: &&Entry| entry.is_sidecar() && entry.verb == "watch";
    until("its watch", || (case.audit().iter().filter(watches).count() > 0).then_some(()));
    let mut samples = Vec::new();
    until_often("the sidecar's end", || match sample(&process) {
        Some(sample) => {
            samples.push(sample);
            None
        }
        None => Some(()),
    });
    assert_eq!(case.wait_runs("q", 1)["outcome"], "Succeeded");
    assert_eq!(case.secret("s"), map(&[("a", "b")]));

    // The last looks may be at the storing.
    assert!(samples.len() > 100, "looked only {} times in {SECONDS} s", samples.len());
    let waiting = &samples[..samples.len() - 8];
    let (first, last) = (waiting[0], waiting[waiting.len() - 1]);
    let resident = waiting.iter().map(|sample| sample.resident).max().expect("many");
    let peak = samples[samples.len() - 1].peak;
    let requests: Vec<String> = case.audit().iter().filter(|entry| entry.is_sidecar()).map(Entry::what).collect();
    println!(
        "sidecar, {SECONDS} s of waiting: {resident} kB resident, {peak} kB at its peak, {} + {} hundredths of a second of CPU \
         until the watch and after it, requests: {requests:?}",
        first.cpu,
        last.cpu - first.cpu
    );
    assert!(resident <= WAITING, "{resident} kB resident while waiting");
    assert!(peak <= WAITING, "{peak} kB at its peak, for a file of a few bytes");
    assert!(last.cpu - first.cpu <= 2, "{} hundredths of a second of CPU while waiting", last.cpu - first.cpu);
    assert_eq!(requests, ["watch pods", "get quarksjobs", "create secrets"]);
}
