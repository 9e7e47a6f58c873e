//! What a quiet cluster costs: CPU time and requests over a minute, with QuarksJobs of all kinds that wait.

use std::time::Duration;

use quarks_job::api::Resource;
use quarks_job::kube::Request;

use crate::Sizes;
use crate::cluster::{Cluster, JobWatch, quarks_job, secret, waiting_for_config};
use crate::operator::Operator;
use crate::table::{Budget, Table};

/// How long it is looked.
const TIME: Duration = Duration::from_secs(60);
/// Referenced Secrets.
const SECRETS: usize = 20;

/// One in ten has a run that goes on, four wait for a Secret to change, the others are errands.
pub fn rest(cluster: &Cluster, sizes: &Sizes, table: &mut Table) {
    let monitored = cluster.namespace("bench-rest", true);
    let count = sizes.rest;
    let operator = Operator::start(&["--http-listen", "127.0.0.1:0"]);
    let mut jobs = JobWatch::start(&cluster.client);
    cluster.post_all(SECRETS, |number| Request::create(Resource::SECRETS, monitored, &secret(&format!("secret-{number}"), 100)));
    cluster.post_all(count, |number| {
        let name = format!("rest-{number}");
        let object = match number % 10 {
            0 => quarks_job(&name, "once"),
            1..=4 => waiting_for_config(&name, &format!("secret-{}", number % SECRETS)),
            _ => quarks_job(&name, "manual"),
        };
        Request::create(Resource::QUARKS_JOBS, monitored, &object)
    });
    (0..count).for_each(|number| cluster.wait_observed(monitored, &format!("rest-{number}")));
    jobs.wait_quiet();
    operator.settled();
    let (ticks, before) = (operator.ticks(), requests(&operator));
    std::thread::sleep(TIME);
    let (after, ticks) = (requests(&operator), operator.ticks() - ticks);
    table.row(&format!("{count} QuarksJobs at rest: requests in a minute, watches apart"), "", after - before, Budget::AtMost(0.0));
    table.row(&format!("{count} QuarksJobs at rest: CPU, ms in a minute"), "", ticks as f64 * 10.0, Budget::AtMost(60.0));
    drop(operator);
    cluster.remove_namespace(monitored);
}

/// Requests so far, but for those that took up a watch again where the server had ended it.
fn requests(operator: &Operator) -> f64 {
    let page = operator.page("/metrics");
    let sum = |name: &str| -> f64 {
        page.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    sum("rest_client_requests_total{") - sum("quarksjob_watch_restarts_total{")
}
