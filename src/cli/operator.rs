//! `quarks-job` alone: the operator.

use std::ffi::OsString;
use std::net::TcpListener;

use crossbeam_channel::{Receiver, bounded, select};
use log::{error, info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::controller::{self, OperatorConfig};
use crate::http;
use crate::kube::{Client, ClientOptions, Config};
use crate::shutdown;
use crate::threads::Thread;

use super::flags::Flags;
use super::{CliError, crd};
use crate::controller::template::SidecarSettings;

/// `--help`.
pub const HELP: &str = "\
quarks-job: runs a Kubernetes Job when something happens and stores what it wrote as Secrets

Usage: quarks-job [flags]          run the operator
       {me} trigger NAME     ask for one run of a QuarksJob, and wait for its outcome with --wait
       {me} render -f FILE   print the Job that would be made for a QuarksJob
       {me} convert -f FILE  print an ExtendedJob, the ancestor, as a QuarksJob
       {me} crd              print the custom resource definition
       {me} version          print the version
       quarks-job persist-output   store a pod's output (the sidecar; started by the operator's Jobs)

Each command has its own --help. Installed as kubectl-qjob this program is a kubectl plugin: kubectl qjob trigger NAME.

Flags of the operator (variable in brackets, default in parentheses):
  -c, --kubeconfig FILE               [KUBECONFIG] (in-cluster, else ~/.kube/config)
      --context NAME                  context of the kubeconfig
      --monitored-id ID               [MONITORED_ID] value of the namespace label quarks.cloudfoundry.org/monitored (default)
      --max-workers N                 [MAX_WORKERS] QuarksJobs worked on at once, 1 to 64 (4)
  -l, --log-level LEVEL               [LOG_LEVEL] error, warn, info, debug (info)
      --apply-crd[=false]             [APPLY_CRD] create or update the CRD at start (false)
      --ctx-timeout SECONDS           [CTX_TIMEOUT] limit on one API call, 1 to 600 (30)
      --image IMAGE                   [IMAGE] image of the sidecar: the operator's own
  -o, --docker-image-org ORG          [DOCKER_IMAGE_ORG] or, instead of --image, its parts
  -r, --docker-image-repository NAME  [DOCKER_IMAGE_REPOSITORY] (quarks-job)
  -t, --docker-image-tag TAG          [DOCKER_IMAGE_TAG] (the version)
      --docker-image-pull-policy P    [DOCKER_IMAGE_PULL_POLICY] Always, IfNotPresent, Never (IfNotPresent)
      --image-pull-secret NAME        [IMAGE_PULL_SECRET] added to pods that get the sidecar
      --http-listen ADDRESS           [HTTP_LISTEN] /healthz and /readyz, for example :8080 (off)

Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, 2 wrong usage.
";

/// Idle connections beyond one a worker: Events and tokens.
const SPARE_CONNECTIONS: usize = 2;

/// Runs until SIGTERM or SIGINT.
pub fn main(arguments: Vec<OsString>) -> Result<(), CliError> {
    let flags = Flags::parse(arguments, &|name| std::env::var_os(name))?;
    crate::log::start(flags.log_level);
    for flag in &flags.ignored {
        warn!("flag has no effect, runs start without delay flag=--{flag}");
    }
    // Before anything takes long: a SIGTERM is never missed.
    let signals = signals()?;
    let config =
        Config::load(flags.kubeconfig.as_deref(), flags.context.as_deref()).map_err(|error| CliError::Failed(error.to_string()))?;
    let options = ClientOptions {
        user_agent: format!("quarks-job/{}", env!("CARGO_PKG_VERSION")),
        call_timeout: flags.call_timeout,
        max_connections: flags.max_workers + SPARE_CONNECTIONS,
        ..ClientOptions::default()
    };
    let client = Client::new(&config, options).map_err(|error| CliError::Failed(error.to_string()))?;
    let listener = flags.http_listen.as_deref().map(listen).transpose()?;
    if flags.apply_crd {
        crd::apply(&client)?;
    }
    info!(
        "operator starts version={} monitored_id={} server={}",
        env!("CARGO_PKG_VERSION"),
        flags.monitored_id,
        config.server.origin(None)
    );

    let (guard, shutdown) = shutdown::pair();
    let (panics, panicked) = bounded(1);
    let operator_config = OperatorConfig {
        monitored_id: flags.monitored_id,
        max_workers: flags.max_workers,
        sidecar: SidecarSettings {
            image: flags.image,
            image_pull_policy: flags.image_pull_policy,
            image_pull_secret: flags.image_pull_secret,
            log_level: flags.log_level.to_string().to_lowercase(),
        },
        instance: instance(),
    };
    let failed = |error: std::io::Error| CliError::Failed(format!("a thread could not be started: {error}"));
    let operator = controller::run(&client, operator_config, &shutdown, &panics).map_err(failed)?;
    if let Some(listener) = listener {
        let health = operator.health();
        // Ends with the process: it only answers.
        Thread::spawn("http", &panics, move || http::serve(&listener, &health)).map_err(failed)?;
    }
    let panicked = select! {
        recv(signals) -> _ => None,
        recv(panicked) -> name => name.ok(),
    };
    info!("operator stops");
    drop(guard);
    operator.stop();
    match panicked {
        None => Ok(()),
        Some(name) => {
            error!("thread panicked thread={name}");
            Err(CliError::Failed(format!("thread {name} panicked; please report this")))
        }
    }
}

pub(super) fn signals() -> Result<Receiver<()>, CliError> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| CliError::Failed(format!("signals cannot be handled: {error}")))?;
    let (sender, receiver) = bounded(1);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            for _ in signals.forever() {
                let _ = sender.try_send(());
            }
        })
        .map_err(|error| CliError::Failed(format!("a thread could not be started: {error}")))?;
    Ok(receiver)
}

fn listen(address: &str) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).map_err(|error| CliError::Failed(format!("--http-listen: cannot listen on {address:?}: {error}")))
}

/// The pod's name, else the host's.
fn instance() -> String {
    ["POD_NAME", "HOSTNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| format!("process-{}", std::process::id()))
}
