//! The registry in Prometheus' text format 0.0.4. Whole numbers only: it saves the code that writes floating point.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::process::Process;
use super::registry::{BUCKETS, CONTROLLERS, Counters, Histogram, Queue, Registry, Row};

/// The one name with a code.
const REQUESTS: &str = "rest_client_requests_total";
/// A page; all of it is some 9 KB.
const CAPACITY: usize = 12 * 1_024;

pub(super) fn write(registry: &Registry) -> String {
    let Registry { queues, trigger_to_job, requests, reconciles, runs, restarts, leader, started } = registry;
    let mut page = Page(String::with_capacity(CAPACITY));
    page.queues(queues);
    let help = "Reconciliations of QuarksJobs by controller and result.";
    page.counters("controller_runtime_reconcile_total", help, ["controller", "result"], reconciles);
    let help = "Requests to the API server by status code, method and resource.";
    page.counters(REQUESTS, help, ["method", "resource"], requests);
    page.counters("quarksjob_runs_total", "Settled runs by trigger and outcome.", ["trigger", "outcome"], runs);
    let help = "Time from observing a trigger to the answer to the create of its Job.";
    page.head("quarksjob_trigger_to_job_seconds", HISTOGRAM, help);
    page.histogram("quarksjob_trigger_to_job_seconds", "", trigger_to_job);
    let help = "Watch restarts by resource and reason; reason ended is the watch's own time limit.";
    page.counters("quarksjob_watch_restarts_total", help, ["resource", "reason"], restarts);

    if let Some(is_leader) = leader.load(Ordering::Relaxed).checked_sub(1) {
        let help = "Whether this process is the leader (1) or waiting to become leader (0).";
        page.number("leader_election_master_status", GAUGE, help, "{name=\"quarks-job\"}", u64::from(is_leader));
    }

    let Process { cpu, resident, virtual_size, open_fds, max_fds } = Process::read();
    page.hundredths("process_cpu_seconds_total", COUNTER, "Total user and system CPU time.", cpu);
    page.optional("process_resident_memory_bytes", "Resident memory size.", resident);
    page.optional("process_virtual_memory_bytes", "Virtual memory size.", virtual_size);
    page.optional("process_open_fds", "Number of open file descriptors.", open_fds);
    page.optional("process_max_fds", "Maximum number of open file descriptors.", max_fds);
    page.hundredths("process_start_time_seconds", GAUGE, "Start time of the process since the epoch.", *started);
    page.0
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";

struct Page(String);

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn number(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: u64) {
        self.head(name, kind, help);
        self.line(format_args!("{name}{labels} {value}"));
    }

    /// Nothing is said of a name without series.
    fn counters(&mut self, name: &str, help: &str, labels: [&str; 2], counters: &Counters) {
        let rows = counters.lock();
        if !rows.is_empty() {
            self.head(name, COUNTER, help);
        }
        for Row { code, words, count } in rows.iter() {
            let code = match code {
                0 if name == REQUESTS => "code=\"<error>\",".to_owned(),
                0 => String::new(),
                code => format!("code=\"{code}\","),
            };
            self.line(format_args!("{name}{{{code}{}=\"{}\",{}=\"{}\"}} {count}", labels[0], words[0], labels[1], words[1]));
        }
    }

    fn optional(&mut self, name: &str, help: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, GAUGE, help, "", value);
        }
    }

    fn hundredths(&mut self, name: &str, kind: &str, help: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.head(name, kind, help);
            self.line(format_args!("{name} {}.{:02}", value / 100, value % 100));
        }
    }

    /// A name has its head once, and a series for each controller.
    fn queues(&mut self, queues: &[Queue]) {
        let labels = CONTROLLERS.map(|name| format!("{{name=\"{name}\"}}"));
        let each = || labels.iter().zip(queues);
        let mut numbers = |name: &str, kind: &str, help: &str, of: fn(&Queue) -> &AtomicU64| {
            self.head(name, kind, help);
            each().for_each(|(labels, queue)| self.line(format_args!("{name}{labels} {}", of(queue).load(Ordering::Relaxed))));
        };
        numbers("workqueue_depth", GAUGE, "QuarksJobs waiting for a worker.", |queue| &queue.depth);
        numbers("workqueue_adds_total", COUNTER, "QuarksJobs added to the queue.", |queue| &queue.adds);
        numbers("workqueue_retries_total", COUNTER, "QuarksJobs requeued for later.", |queue| &queue.retries);
        let mut times = |name: &str, help: &str, of: fn(&Queue) -> &Histogram| {
            self.head(name, HISTOGRAM, help);
            each().for_each(|(labels, queue)| self.histogram(name, labels, of(queue)));
        };
        times("workqueue_queue_duration_seconds", "How long a QuarksJob waited for a worker.", |queue| &queue.queue_time);
        times("workqueue_work_duration_seconds", "How long one reconciliation of a QuarksJob took.", |queue| &queue.work_time);
    }

    /// The series of a histogram. The count is the sum of the buckets, so that they agree although others record in the meantime.
    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let Histogram { counts, sum } = histogram;
        let inner = labels.trim_matches(['{', '}']);
        let comma = if inner.is_empty() { "" } else { "," };
        let mut total: u64 = 0;
        for (bound, count) in BUCKETS.iter().map(|(_, bound)| *bound).chain(["+Inf"]).zip(counts) {
            total += count.load(Ordering::Relaxed);
            self.line(format_args!("{name}_bucket{{{inner}{comma}le=\"{bound}\"}} {total}"));
        }
        let sum = sum.load(Ordering::Relaxed);
        self.line(format_args!("{name}_sum{labels} {}.{:06}\n{name}_count{labels} {total}", sum / 1_000_000, sum % 1_000_000));
    }
}
