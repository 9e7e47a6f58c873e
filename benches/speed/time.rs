//! How soon Jobs exist, beside bare POSTs.

use std::time::{Duration, Instant};

use quarks_job::api::{ObjectKey, Resource};
use quarks_job::kube::Request;
use serde_json::json;

use crate::Sizes;
use crate::cluster::{Cluster, JobWatch, job, quarks_job};
use crate::operator::Operator;
use crate::table::{Budget, Table};

const SAMPLES: usize = 20;

/// `now` → Job, beside one bare POST of the same Job; alternating.
pub fn latency(cluster: &Cluster, _sizes: &Sizes, table: &mut Table) {
    let (monitored, control) = (cluster.namespace("bench-latency", true), cluster.namespace("bench-latency-control", false));
    let _operator = Operator::start(&[]);
    let mut jobs = JobWatch::start(&cluster.client);
    let (mut ours, mut from_stored, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let name = format!("errand-{sample}");
        cluster.create(Resource::QUARKS_JOBS, monitored, &quarks_job(&name, "manual"));
        cluster.wait_observed(monitored, &name);
        let key = ObjectKey::new(monitored, name.as_str());
        let started = Instant::now();
        cluster.create(Resource::JOBS, control, &job(&name));
        bare.push(jobs.wait_for(1, started));
        let started = Instant::now();
        let patch = json!({"spec": {"trigger": {"strategy": "now"}}});
        cluster.client.call_unit(&Request::merge_patch(Resource::QUARKS_JOBS, &key, &patch)).expect("the trigger");
        let stored = started.elapsed();
        let seen = jobs.wait_for(1, started);
        ours.push(seen);
        from_stored.push(seen.saturating_sub(stored));
    }
    let (ours, from_stored, bare) = (median(&mut ours), median(&mut from_stored), median(&mut bare));
    let beside = format!("{bare:.2?} for a bare POST, {SAMPLES} samples");
    table.row("`now` to Job, from the answer to the PATCH", &beside, ratio(from_stored, bare), Budget::AtMost(3.0));
    table.row("`now` to Job, with the PATCH itself", &beside, ratio(ours, bare), Budget::None);
    [monitored, control].iter().for_each(|namespace| cluster.remove_namespace(namespace));
}

/// One-offs at once: first POST → last Job, beside bare POSTs of as many QuarksJobs and then Jobs.
pub fn burst(cluster: &Cluster, sizes: &Sizes, table: &mut Table) {
    let (monitored, control) = (cluster.namespace("bench-burst", true), cluster.namespace("bench-burst-control", false));
    let operator = Operator::start(&[]);
    let mut jobs = JobWatch::start(&cluster.client);
    let count = sizes.burst;
    let mut ratios = Vec::new();
    for round in 0..sizes.rounds {
        let name = |number| format!("burst-{round}-{number}");
        let quiet = |jobs: &mut JobWatch| {
            jobs.wait_quiet();
            operator.settled();
        };
        quiet(&mut jobs);
        let started = Instant::now();
        cluster.post_all(count, |number| Request::create(Resource::QUARKS_JOBS, control, &quarks_job(&name(number), "once")));
        cluster.post_all(count, |number| Request::create(Resource::JOBS, control, &job(&name(number))));
        let bare = jobs.wait_for(count, started);
        quiet(&mut jobs);
        let (ticks, started) = (operator.ticks(), Instant::now());
        cluster.post_all(count, |number| Request::create(Resource::QUARKS_JOBS, monitored, &quarks_job(&name(number), "once")));
        let posted = started.elapsed();
        let ours = jobs.wait_for(count, started);
        let until_jobs = operator.ticks() - ticks;
        quiet(&mut jobs);
        println!(
            "{count} one-offs: {ours:.2?} (posted after {posted:.2?}) beside {bare:.2?}; the operator's CPU: {until_jobs} ticks until then, {} in all",
            operator.ticks() - ticks
        );
        ratios.push((ours.as_secs_f64() / bare.as_secs_f64(), bare));
    }
    ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (median, bare) = ratios[ratios.len() / 2];
    let beside = format!("{bare:.2?} for bare POSTs, best of {} rounds {:.2}", ratios.len(), ratios[0].0);
    table.row(&format!("{count} one-offs to Jobs, median ratio"), &beside, median, Budget::AtMost(1.5));
    let memory = operator.settled();
    table.row("resident after these, MB", &memory.beside(None), memory.megabytes(), Budget::None);
    [monitored, control].iter().for_each(|namespace| cluster.remove_namespace(namespace));
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}
