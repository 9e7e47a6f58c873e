//! Resident memory, beside the same operator with less to do.

use quarks_job::api::Resource;
use quarks_job::kube::Request;

use crate::Sizes;
use crate::cluster::{Cluster, quarks_job, secret, waiting_for_config};
use crate::operator::{Memory, Operator};
use crate::table::{Budget, Table};

/// Bytes of a Secret.
const SECRET: usize = 10_000;
/// Scrapes of `/metrics`.
const SCRAPES: usize = 100;

impl Memory {
    /// Resident, as budgets count: a million bytes each.
    pub fn megabytes(self) -> f64 {
        megabytes(self.resident)
    }

    /// For the column of controls.
    pub fn beside(self, control: Option<Memory>) -> String {
        let own = format!("anonymous {:.2}, peak {:.2}", megabytes(self.anonymous), megabytes(self.peak));
        control.map_or(own.clone(), |control| format!("{:.2} without; {own}", control.megabytes()))
    }
}

/// As budgets count.
pub fn megabytes(kib: usize) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

fn row(table: &mut Table, what: &str, memory: Memory, most: f64) {
    table.row(&format!("resident, MB: {what}"), &memory.beside(None), memory.megabytes(), Budget::AtMost(most));
}

fn growth(table: &mut Table, what: &str, memory: Memory, control: Memory, most: f64) {
    let more = memory.megabytes() - control.megabytes();
    table.row(&format!("resident, MB more: {what}"), &memory.beside(Some(control)), more, Budget::AtMost(most));
}

/// With nothing to do.
pub fn idle(_cluster: &Cluster, _sizes: &Sizes, table: &mut Table) {
    row(table, "nothing to do", Operator::start(&[]).settled(), 8.0);
    row(table, "nothing to do, --leader-elect", Operator::start(&["--leader-elect"]).settled(), 8.0);
    let operator = Operator::start(&["--http-listen", "127.0.0.1:0"]);
    for _ in 0..SCRAPES {
        assert!(operator.page("/metrics").contains("process_resident_memory_bytes"), "a scrape");
    }
    row(table, &format!("nothing to do, after {SCRAPES} scrapes"), operator.settled(), 8.0);
}

/// With many QuarksJobs: after serving them, and after a start, when only what is held counts.
pub fn quarks_jobs(cluster: &Cluster, sizes: &Sizes, table: &mut Table) {
    let monitored = cluster.namespace("bench-many", true);
    let busy = Operator::start(&[]);
    let count = sizes.quarks_jobs;
    for (from, to) in [(0, count / 10), (count / 10, count)] {
        cluster.post_all(to - from, |number| {
            Request::create(Resource::QUARKS_JOBS, monitored, &quarks_job(&format!("rest-{}", from + number), "manual"))
        });
        cluster.wait_observed(monitored, &format!("rest-{}", to - 1));
        let worked = busy.settled();
        row(table, &format!("{to} QuarksJobs, after a start"), Operator::start(&[]).settled(), 20.0);
        row(table, &format!("{to} QuarksJobs, after serving them"), worked, 20.0);
    }
    drop(busy);
    cluster.remove_namespace(monitored);
}

/// With many Secrets, first while nobody needs to know of them, then while one QuarksJob waits for one of them to change.
pub fn secrets(cluster: &Cluster, sizes: &Sizes, table: &mut Table) {
    let (monitored, other) = (cluster.namespace("bench-secrets", true), cluster.namespace("bench-secrets-other", false));
    let count = sizes.secrets;
    cluster.create(Resource::SECRETS, monitored, &secret("referenced", SECRET));
    let without = Operator::start(&[]).settled();
    cluster.create(Resource::QUARKS_JOBS, monitored, &waiting_for_config("watching", "referenced"));
    let watching = Operator::start(&[]);
    cluster.wait_observed(monitored, "watching");
    let control = watching.settled();
    for namespace in [other, monitored] {
        cluster.post_all(count, |number| Request::create(Resource::SECRETS, namespace, &secret(&format!("secret-{number}"), SECRET)));
    }
    growth(table, &format!("{count} Secrets made, watched"), watching.settled(), control, 4.0);
    drop(watching);
    growth(table, &format!("{count} Secrets after a start, watched"), Operator::start(&[]).settled(), control, 4.0);
    cluster.delete_quarks_job(monitored, "watching");
    growth(table, &format!("{count} Secrets after a start, not needed"), Operator::start(&[]).settled(), without, 4.0);
    cluster.remove_namespace(monitored);
    cluster.remove_namespace(other);
}
