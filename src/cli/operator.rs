//! `quarks-job` alone: the operator.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{error, info, warn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::api::ObjectKey;
use crate::controller::{self, Operator, OperatorConfig};
use crate::election::{self, Candidacy, Election, Leadership};
use crate::http::{self, Probed};
use crate::kube::{Client, ClientOptions, Config, Observer, Request};
use crate::metrics::Metrics;
use crate::shutdown::{self, ShutdownGuard};
use crate::until::Until;

use super::crd;
use super::flag::Help;
use super::flags::{Flags, OPERATOR};
use super::output::CliError;

/// `--help`.
pub(super) const HELP: Help = Help {
    head: "\
quarks-job runs Kubernetes Jobs on triggers and stores their output as Secrets

Usage: quarks-job [flags]          run the operator
       {me} trigger NAME     request one run of a QuarksJob; with --wait, wait for its outcome
       {me} render -f FILE   print the Job that would be created for a QuarksJob
       {me} convert -f FILE  convert an ExtendedJob (cf-operator) to a QuarksJob
       {me} crd              print the custom resource definition
       {me} version          print the version
       quarks-job persist-output   store a pod's output (the sidecar in the operator's Jobs)

Each command has its own --help. Installed as kubectl-qjob, this program is a kubectl plugin: kubectl qjob trigger NAME.

Operator flags (environment variable in brackets, default in parentheses):
",
    flags: &OPERATOR,
    tail: "
Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed or lost the Lease, 2 usage error.
",
};

/// Idle connections beyond one a worker of each controller: Events and tokens.
const SPARE_CONNECTIONS: usize = 2;

/// So long a call waits when the API server is too busy to take it and asks everybody to wait. Then its key has to.
const BUSY_WAIT: Duration = Duration::from_secs(15);

/// The process is gone so soon after SIGTERM.
const END: Duration = Duration::from_millis(4_800);
/// For giving the Lease back, whatever time the workers have left, and for one that only waited for it.
const GIVE_BACK: Duration = Duration::from_millis(500);

/// Settings of glibc's heap: variable, and one heap for all threads, and no cache in each.
const HEAP: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0");

/// Restarts this program, as the same process, with one heap for all its threads, unless the environment has settings already.
///
/// glibc gives threads heaps of their own, up to eight a core, and caches: each keeps what a large list or object has needed once, which is
/// 6 MB after 300 Jobs with large annotations, and 4 KB for each of hundreds of watches. It takes its settings from the environment at the
/// start of a process; the calls that change them later are not safe. If it does not work all is as before, at the cost of that memory.
fn with_one_heap() {
    let (variable, settings) = HEAP;
    if std::env::var_os(variable).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        // Comes back only if it failed.
        let _failed = Command::new(program).args(std::env::args_os().skip(1)).env(variable, settings).exec();
    }
}

/// Takes all open files that this process may have: each watch of ConfigMaps or Secrets is a connection, and the usual limit (1,024) is made
/// for programs that use `select`, which this one does not.
fn allow_open_files() {
    let limits = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }) {
        warn!(limit:? = limits.current, error:%; "cannot raise the limit on open files");
    }
}

/// What ends the process.
enum End {
    Signal,
    Panicked(&'static str),
    /// The Lease is lost; why.
    Lost(String),
    Failed(CliError),
}

/// Runs until SIGTERM or SIGINT, or until the Lease is lost.
pub fn main(arguments: Vec<OsString>) -> Result<(), CliError> {
    let flags = Flags::parse(arguments, &|name| std::env::var_os(name))?;
    with_one_heap();
    crate::log::start(flags.log_level, flags.log_format);
    allow_open_files();
    for flag in &flags.ignored {
        warn!(flag:% = format_args!("--{flag}"); "flag has no effect; runs start without delay");
    }
    // Before anything takes long: a SIGTERM is never missed.
    let signals = signals()?;
    let config =
        Config::load(flags.kubeconfig.as_deref(), flags.context.as_deref()).map_err(|error| CliError::Failed(error.to_string()))?;
    let fence = flags.leader_elect.then(Until::default);
    let metrics = Metrics::new();
    let client = client(&flags, &config, fence.clone(), &metrics)?;
    let listener = flags.http_listen.as_deref().map(listen).transpose()?;
    tell_start(&flags, &config, listener.as_ref());
    let (panics, panicked) = bounded(1);
    let election = fence.map(|fence| stand(&flags, &config, fence, &metrics, &panics)).transpose()?;
    let leadership = election.as_ref().map(|election| election.leadership().clone());
    let probed = Arc::new(Probed { leadership: leadership.clone(), ..Probed::default() });
    if let Some(listener) = listener {
        http::start(listener, &probed, &metrics, &panics).map_err(not_started)?;
    }

    // Without an election nothing comes from there.
    let (_silent, nothing) = bounded(0);
    let turns = election.as_ref().map_or(&nothing, Election::turns);
    let waiting = Waiting { signals: &signals, panicked: &panicked, turns, leadership: leadership.as_ref() };
    let (operator, end) = match waiting.for_lease() {
        Some(end) => (None, end),
        None => match begin(flags, &client, metrics, &panics) {
            Ok(operator) => {
                // Set once.
                let _ = probed.operator.set(operator.0.health());
                (Some(operator), waiting.for_end())
            }
            Err(error) => (None, End::Failed(error)),
        },
    };
    finish(end, &client, operator, election)
}

fn client(flags: &Flags, config: &Config, fence: Option<Until>, metrics: &Metrics) -> Result<Client, CliError> {
    let options = ClientOptions {
        user_agent: format!("quarks-job/{}", env!("CARGO_PKG_VERSION")),
        call_timeout: flags.call_timeout,
        max_connections: 2 * flags.max_workers + SPARE_CONNECTIONS,
        busy_wait: BUSY_WAIT,
        fence,
        observer: Some(observer(metrics)),
        ..ClientOptions::default()
    };
    Client::new(config, options).map_err(|error| CliError::Failed(error.to_string()))
}

fn tell_start(flags: &Flags, config: &Config, listener: Option<&TcpListener>) {
    if let Some(address) = listener.and_then(|listener| listener.local_addr().ok()) {
        info!(address:%; "HTTP server listening");
    }
    info!(
        version:% = env!("CARGO_PKG_VERSION"), monitored_id:% = flags.monitored_id, namespaces:% = flags.watch_namespaces.join(","), server:% = config.server.origin();
        "operator starting"
    );
}

/// Stops what was started, and says how the process ends.
fn finish(end: End, client: &Client, operator: Option<(Operator, ShutdownGuard)>, election: Option<Election>) -> Result<(), CliError> {
    if let End::Lost(why) = end {
        // No waiting: no write can leave any more, and the next process starts from scratch.
        error!(reason:% = why; "lost the Lease; exiting");
        client.shutdown();
        return Err(CliError::Said);
    }
    let began = Instant::now();
    info!("operator stopping");
    let left = operator.map_or(GIVE_BACK, |(operator, guard)| {
        drop(guard);
        operator.stop();
        END.saturating_sub(began.elapsed()).max(GIVE_BACK)
    });
    // After all work: the next leader may start at once.
    if let Some(election) = election {
        election.stop(left);
    }
    match end {
        End::Signal => Ok(()),
        End::Panicked(name) => {
            error!(thread:% = name; "thread panicked");
            Err(CliError::Failed(format!("thread {name} panicked; please report this")))
        }
        End::Failed(error) => Err(error),
        End::Lost(_) => Err(CliError::Said),
    }
}

/// Begins the work. Everything here may write.
fn begin(flags: Flags, client: &Client, metrics: Metrics, panics: &Sender<&'static str>) -> Result<(Operator, ShutdownGuard), CliError> {
    if flags.apply_crd {
        crd::apply(client)?;
    }
    let (guard, shutdown) = shutdown::pair();
    let operator_config = OperatorConfig {
        monitored_id: flags.monitored_id,
        fixed_namespaces: flags.watch_namespaces,
        sidecar_service_account: flags.sidecar_service_account,
        max_workers: flags.max_workers,
        sidecar: flags.sidecar,
        instance: instance(),
        home: variable("POD_NAMESPACE"),
        metrics,
    };
    let operator = controller::run(client, operator_config, &shutdown, panics).map_err(not_started)?;
    Ok((operator, guard))
}

/// Stands for the Lease, with a client of its own: it has no fence, and none of its calls may last until the deadline.
fn stand(flags: &Flags, config: &Config, fence: Until, metrics: &Metrics, panics: &Sender<&'static str>) -> Result<Election, CliError> {
    let timing = flags.election;
    let options = ClientOptions {
        call_timeout: flags.call_timeout.min(timing.call()),
        max_connections: 1,
        observer: Some(observer(metrics)),
        ..ClientOptions::default()
    };
    let client = Client::new(config, options).map_err(|error| CliError::Failed(error.to_string()))?;
    let namespace = variable("POD_NAMESPACE").unwrap_or_else(|| config.namespace.clone());
    let lease = ObjectKey::new(namespace, election::lease_name(&flags.monitored_id));
    // A pod keeps its name when its container starts again.
    let identity = format!("{}_{:016x}", instance(), RandomState::new().build_hasher().finish());
    election::start(client, Candidacy { lease, identity, timing }, fence, panics).map_err(not_started)
}

/// What the main thread waits for.
struct Waiting<'a> {
    signals: &'a Receiver<()>,
    panicked: &'a Receiver<&'static str>,
    turns: &'a Receiver<()>,
    leadership: Option<&'a Leadership>,
}

impl Waiting<'_> {
    /// Until this process may work: `None`. At once without an election.
    fn for_lease(&self) -> Option<End> {
        let leadership = self.leadership?;
        loop {
            if leadership.lost().is_none() && leadership.is_leader() {
                return None;
            }
            if let Some(end) = self.next(Duration::MAX) {
                return Some(end);
            }
        }
    }

    fn for_end(&self) -> End {
        loop {
            let left = self.leadership.map_or(Duration::MAX, Leadership::left);
            // The thread that renews would say so, too, but a process that was stopped must not wait for it.
            let end = if left.is_zero() { Some(End::Lost("not renewed in time".to_owned())) } else { self.next(left) };
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn next(&self, limit: Duration) -> Option<End> {
        select! {
            recv(self.signals) -> _ => return Some(End::Signal),
            recv(self.panicked) -> name => return name.ok().map(End::Panicked),
            recv(self.turns) -> _ => {}
            default(limit) => {}
        }
        self.leadership?.lost().map(|why| End::Lost(why.to_owned()))
    }
}

/// Counts requests.
fn observer(metrics: &Metrics) -> Observer {
    let metrics = metrics.clone();
    Arc::new(move |request: &Request, code| metrics.requested(request, code))
}

fn not_started(error: std::io::Error) -> CliError {
    CliError::Failed(format!("cannot start a thread: {error}"))
}

pub(super) fn signals() -> Result<Receiver<()>, CliError> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| CliError::Failed(format!("cannot handle signals: {error}")))?;
    let (sender, receiver) = bounded(1);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            for _ in signals.forever() {
                let _ = sender.try_send(());
            }
        })
        .map_err(not_started)?;
    Ok(receiver)
}

fn listen(address: &str) -> Result<TcpListener, CliError> {
    http::bind(address, TcpListener::bind)
        .map_err(|error| CliError::Failed(format!("--http-listen: cannot listen on {address:?}: {error}")))
}

/// The pod's name, else the host's.
fn instance() -> String {
    variable("POD_NAME").or_else(|| variable("HOSTNAME")).unwrap_or_else(|| format!("process-{}", std::process::id()))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
