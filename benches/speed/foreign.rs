//! What Jobs of others cost, and what each watch of ConfigMaps or Secrets does. The API server is the scripted one of the tests, over
//! TLS: on a real one 100,000 Jobs take longer to make than all the rest, and more memory than most machines have.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{self, quarks_job, waiting_for_config};
use crate::memory::megabytes;
use crate::operator::{Memory, Operator};
use crate::support::Server;
use crate::support::play::{self, path};
use crate::table::{Budget, Table};

/// Of the foreign Jobs, so many claim to belong to a QuarksJob, with as long an annotation as the API server takes.
const HOSTILE: usize = 300;
const ANNOTATION: usize = 250 * 1024;
/// A watch in which nothing happens gets a bookmark so often, as from kube-apiserver. Once a second, as in tests, is work that never ends
/// with hundreds of watches.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
const SERVED: &str = "served";

/// A scripted API server with one served namespace and one QuarksJob in it, and the file that leads there.
struct Scripted {
    server: Server,
    folder: PathBuf,
    owner: Value,
}

impl Scripted {
    fn start(what: &str) -> Scripted {
        let folder = std::env::temp_dir().join(format!("quarks-job-bench-{}-{what}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let server = Server::start();
        server.api().settings(|settings| settings.bookmark_every = BOOKMARK_EVERY);
        play::namespace(server.api(), SERVED, &served());
        let owner = server.api().create(&path("quarksjobs", SERVED, ""), quarks_job("errand", "manual"));
        Scripted { server, folder, owner }
    }

    fn operator(&self) -> Operator {
        Operator::start_at(Some(&self.server.kubeconfig(&self.folder)), &["--http-listen", "127.0.0.1:0"])
    }

    /// Ordinary Jobs of others, and those that claim an owner: ours from elsewhere, ours from its namespace, one that is not there.
    fn add_jobs(&self, count: usize) {
        let api = self.server.api();
        play::namespace(api, "others", &json!({}));
        let uid = self.owner["metadata"]["uid"].as_str().unwrap_or_default();
        for number in 0..count {
            let mut job = ordinary_job(number);
            let mut namespace = "others";
            if number < HOSTILE {
                let uid = if number % 3 == 1 { "no-such-uid" } else { uid };
                namespace = if number % 3 == 0 { "others" } else { SERVED };
                job["metadata"]["annotations"]["quarks.cloudfoundry.org/run"] = hostile_record().into();
                job["metadata"]["ownerReferences"] = json!([{"apiVersion": "quarks.cloudfoundry.org/v1alpha1", "kind": "QuarksJob",
                    "name": "errand", "uid": uid, "controller": true}]);
            }
            api.create(&path("jobs", namespace, ""), job);
        }
    }

    /// Served namespaces with a QuarksJob that waits for a ConfigMap and a Secret.
    fn add_watched(&self, count: usize) {
        let api = self.server.api();
        for number in 0..count {
            let name = format!("ns-{number}");
            play::namespace(api, &name, &served());
            api.create(&path("secrets", &name, ""), json!({"metadata": {"name": "referenced"}, "data": {"k": "djE="}}));
            api.create(&path("configmaps", &name, ""), json!({"metadata": {"name": "referenced"}, "data": {"k": "v"}}));
            let mut object = waiting_for_config("waits", "referenced");
            let container = &mut object["spec"]["template"]["spec"]["template"]["spec"]["containers"][0];
            container["envFrom"] = json!([{"secretRef": {"name": "referenced"}}, {"configMapRef": {"name": "referenced"}}]);
            api.create(&path("quarksjobs", &name, ""), object);
        }
    }

    /// Watches of ConfigMaps and Secrets that are open.
    fn config_watches(&self) -> usize {
        self.server.watches().iter().filter(|path| path.ends_with("/secrets") || path.ends_with("/configmaps")).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn served() -> Value {
    json!({"quarks.cloudfoundry.org/monitored": "bench"})
}

/// A record as we write it, but for a value that is as long as it may be. The run is settled, so that it only has to be kept.
fn hostile_record() -> String {
    json!({"run": 1, "trigger": "request", "request": "x".repeat(ANNOTATION)}).to_string()
}

/// About 3 KB, as a CronJob makes them.
fn ordinary_job(number: usize) -> Value {
    let uid = format!("00000000-0000-0000-0000-{number:012}");
    let fields: Vec<String> = (0..40).map(|field| format!("f:field-{field}")).collect();
    let mut job = cluster::job(&format!("report-{number}"));
    job["metadata"]["labels"] =
        json!({"app": "report", "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": number.to_string()});
    job["metadata"]["annotations"] = json!({"batch.kubernetes.io/cronjob-scheduled-timestamp": "2025-01-01T00:00:00Z"});
    job["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": uid, "controller": true}]);
    job["metadata"]["managedFields"] =
        json!([{"manager": "kube-controller-manager", "fieldsV1": fields}, {"manager": "x", "fieldsV1": fields}]);
    job["status"] = json!({"succeeded": 1, "startTime": "2025-01-01T00:00:00Z", "completionTime": "2025-01-01T00:00:10Z",
        "conditions": [{"type": "Complete", "status": "True", "reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}]});
    job
}

/// With Jobs of others: at rest after a start, at most on the way there, and how long that took.
pub fn foreign(table: &mut Table) {
    let mut control: Option<Memory> = None;
    for count in [0, 20_000, 100_000] {
        let scripted = Scripted::start(&format!("foreign-{count}"));
        scripted.add_jobs(count);
        let started = Instant::now();
        let operator = scripted.operator();
        let ready = started.elapsed();
        let memory = operator.settled();
        let without = control.get_or_insert(memory);
        let beside = format!("{:.2} with none", megabytes(without.resident));
        let more = |now: usize, before: usize| megabytes(now.saturating_sub(before));
        let title = format!("{count} foreign Jobs");
        table.row(&format!("{title}: resident, MB more"), &beside, more(memory.resident, without.resident), Budget::AtMost(1.0));
        let beside = format!("{:.2} at rest with none", megabytes(without.resident));
        table.row(&format!("{title}: peak, MB more"), &beside, more(memory.peak, without.resident), Budget::AtMost(8.0));
        table.row(&format!("{title}: seconds until the caches are in"), "", ready.as_secs_f64(), Budget::None);
    }
}

/// With namespaces whose QuarksJob waits for a ConfigMap and a Secret to change: after having served them, and after a start.
pub fn watches(table: &mut Table) {
    let mut control: Option<Memory> = None;
    for count in [0, 100, 300] {
        let scripted = Scripted::start(&format!("watches-{count}"));
        scripted.add_watched(count);
        for when in ["after serving them", "after a start"] {
            let started = Instant::now();
            let operator = scripted.operator();
            cluster::wait("the watches open", || scripted.config_watches() == 2 * count);
            let open = started.elapsed();
            let memory = operator.settled();
            let (without, title) = (*control.get_or_insert(memory), format!("{} watches of ConfigMaps and Secrets, {when}", 2 * count));
            table.row(&format!("{title}: resident, MB"), &memory.beside(None), memory.megabytes(), Budget::None);
            table.row(&format!("{title}: seconds until they are open"), "", open.as_secs_f64(), Budget::None);
            if count > 0 {
                let each = megabytes(memory.resident.saturating_sub(without.resident)) * 1_000.0 / (2 * count) as f64;
                table.row(&format!("{title}: resident, KB each"), "", each, Budget::AtMost(40.0));
                let ticks = operator.ticks();
                // One bookmark for each.
                std::thread::sleep(BOOKMARK_EVERY);
                let spent = (operator.ticks() - ticks) as f64 * 10.0;
                table.row(&format!("{title}: CPU at rest, ms in a minute"), "", spent, Budget::None);
            }
            drop(operator);
            cluster::wait("the watches closed", || scripted.config_watches() == 0);
        }
    }
}
