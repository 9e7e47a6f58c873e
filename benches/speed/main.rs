//! Time, memory and CPU of the operator, each beside a control in the same run, on the cluster that `KUBECONFIG` names
//! (`scripts/bench` sets it up).
//!
//! Controls are bare POSTs of the same objects by the same client, seen by the same watch, or the same operator without
//! the objects. All Jobs are suspended, so that no pod takes part. The operator is a child process of the given binary.
//! `foreign` and `watches` need no cluster: their API server is the scripted one of the tests.
//!
//! Arguments: names of measurements, all if there are none. Environment: `QUARKS_JOB_BINARY` (default: the one that cargo
//! built), and the numbers in [`Sizes`].
#![forbid(unsafe_code)]

mod cluster;
mod foreign;
mod memory;
mod operator;
mod rest;
#[path = "../../tests/scripted/support/mod.rs"]
mod support;
mod table;
mod time;

use quarks_job::kube::Config;

use cluster::Cluster;
use table::{Budget, Table};

/// How much of everything.
struct Sizes {
    /// `BENCH_OBJECTS`: one-offs at once.
    burst: usize,
    /// `BENCH_ROUNDS`: how often the burst and its control are repeated.
    rounds: usize,
    /// `BENCH_MEMORY`: QuarksJobs in the operator's memory.
    quarks_jobs: usize,
    /// `BENCH_SECRETS`: Secrets in each of two namespaces.
    secrets: usize,
    /// `BENCH_REST`: objects at rest.
    rest: usize,
    /// `BENCH_CONNECTIONS`: of the client that makes objects.
    connections: usize,
}

type Measure = fn(&Cluster, &Sizes, &mut Table);
type ScriptedMeasure = fn(&mut Table);

/// In this order: what takes time comes while the cluster is still empty.
const MEASURES: [(&str, Measure); 6] = [
    ("latency", time::latency),
    ("burst", time::burst),
    ("idle", memory::idle),
    ("quarksjobs", memory::quarks_jobs),
    ("secrets", memory::secrets),
    ("rest", rest::rest),
];

/// Those that need no cluster.
const SCRIPTED: [(&str, ScriptedMeasure); 2] = [("foreign", foreign::foreign), ("watches", foreign::watches)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let names: Vec<&str> = MEASURES.iter().map(|(name, _)| *name).chain(SCRIPTED.iter().map(|(name, _)| *name)).collect();
    let is_scripted = |wanted: &String| SCRIPTED.iter().any(|(name, _)| name == wanted);
    let needs_cluster = arguments.is_empty() || !arguments.iter().all(is_scripted);
    // `cargo test` runs benches too, to see that they compile.
    if arguments.iter().any(|argument| argument == "--test") || (needs_cluster && std::env::var_os("KUBECONFIG").is_none()) {
        println!("speed: nothing measured; run scripts/bench");
        return;
    }
    if let Some(unknown) = arguments.iter().find(|name| !names.contains(&name.as_str())) {
        eprintln!("speed: no measurement is called {unknown:?}; there are: {}", names.join(" "));
        std::process::exit(2);
    }
    let sizes = Sizes {
        burst: number("BENCH_OBJECTS", 1_000),
        rounds: number("BENCH_ROUNDS", 3),
        quarks_jobs: number("BENCH_MEMORY", 10_000),
        secrets: number("BENCH_SECRETS", 10_000),
        rest: number("BENCH_REST", 500),
        connections: number("BENCH_CONNECTIONS", 4),
    };
    let cluster = needs_cluster.then(|| Cluster::new(&Config::load(None, None).expect("a kubeconfig"), sizes.connections));
    let mut table = Table::default();
    let load = |when: &str| println!("load {when}: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    load("before");
    let bytes = std::fs::metadata(support::operator::binary()).map_or(0, |file| file.len());
    table.row("program, bytes", "", bytes as f64, Budget::AtMost(4_000_000.0));
    let is_wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|wanted| wanted == name);
    for (name, measure) in MEASURES.into_iter().filter(|(name, _)| is_wanted(name)) {
        println!("-- {name}");
        measure(cluster.as_ref().expect("a measurement that is not scripted has a cluster"), &sizes, &mut table);
    }
    for (name, measure) in SCRIPTED.into_iter().filter(|(name, _)| is_wanted(name)) {
        println!("-- {name}");
        measure(&mut table);
    }
    load("after");
    table.print();
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
