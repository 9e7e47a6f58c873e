//! Starts the sidecar's threads, runs the loop, and stops the threads.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::contract::report::{REPORT_LIMIT, Report};
use crate::kube::{Client, ClientOptions, Config};
use crate::threads::Thread;
use crate::until::Until;

use super::environment::Environment;
use super::input::unseen::UnseenFiles;
use super::main_loop::{ExitReason, Finish, refuse, run_loop, stopped_early};
use super::messages::{LoopEvent, StoreCommand};
use super::pod::watch::PodWatch;
use super::retry::Backoff;
use super::store::api::KubeApi;
use super::store::tasks::Store;
use super::store::thread::run_storer;

/// Largest answer, in bytes: a Secret, or a page of metadata.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// How long threads are waited for at the end.
const THREADS_LIMIT: Duration = Duration::from_millis(200);
/// Pause between two looks at them.
const THREADS_LOOK: Duration = Duration::from_millis(2);
/// How long a missing or half-written credential is waited for: its volume may be changing just now.
const CREDENTIAL_LIMIT: Duration = Duration::from_secs(60);
/// Events on their way to the loop; it never waits for anyone, so little room is enough.
const EVENTS: usize = 32;

/// Channels between the loop and its threads.
pub(super) struct Channels {
    pub events: (Sender<LoopEvent>, Receiver<LoopEvent>),
    pub commands: (Sender<StoreCommand>, Receiver<StoreCommand>),
    pub panics: (Sender<&'static str>, Receiver<&'static str>),
}

impl Channels {
    pub fn new() -> Self {
        // Orders are one for each container and one more, so that channel needs no limit.
        Self { events: bounded(EVENTS), commands: unbounded(), panics: bounded(1) }
    }
}

/// The sidecar with everything real.
pub(super) fn run_all(environment: &Environment) -> Finish {
    if environment.plan.containers.is_empty() {
        return Finish { report: Report { stored: true, ..Report::default() }, limit: REPORT_LIMIT, ending: ExitReason::Done };
    }
    let channels = Channels::new();
    let signals = match Listener::start(channels.events.0.clone(), &channels.panics.0) {
        Ok(signals) => signals,
        Err(error) => return refuse(format!("cannot handle signals: {error}")),
    };
    let seed = u64::from(std::process::id()) ^ u64::from_le_bytes(seed_bytes(environment.pod_uid.as_str()));
    let writes = Until::default();
    let client = match connect(&channels.events.1, Backoff::new(seed), &writes) {
        Ok(client) => client,
        Err(Refusal::Stopped) => return stopped_early(environment),
        Err(Refusal::Config(text)) => return refuse(text),
    };
    match run_with(environment, &client, writes, channels, seed) {
        Ok(finish) => {
            signals.stop();
            finish
        }
        Err(error) => refuse(format!("cannot start threads: {error}")),
    }
}

/// Threads around the loop; the client is the only way out.
pub(super) fn run_with(environment: &Environment, client: &Client, writes: Until, channels: Channels, seed: u64) -> io::Result<Finish> {
    let Channels { events: (event_sender, events), commands: (command_sender, commands), panics: (panic_sender, panics) } = channels;
    let api = KubeApi::new(client.clone(), environment, writes);
    let store = Store::new(api, environment, seed);
    let files = UnseenFiles::start(environment, &event_sender, &panic_sender);
    let pod_watch = PodWatch::start(client, environment, seed, event_sender.clone(), &panic_sender)?;
    let storer = Thread::spawn("storer", &panic_sender, move || run_storer(store, &commands, &event_sender))?;
    let finish = run_loop(environment, &events, &panics, &command_sender, files);
    // The receivers are gone from here on, so a full channel blocks no thread; the client ends calls in flight.
    drop((events, command_sender));
    client.shutdown();
    join_within(THREADS_LIMIT, pod_watch.stop().into_iter().chain([storer]).collect());
    Ok(finish)
}

/// Joins the threads that end in time. One that hangs in a TCP connect ends with the process: the report cannot wait for it.
fn join_within(limit: Duration, threads: Vec<Thread>) {
    let start = Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) && start.elapsed() < limit {
        thread::sleep(THREADS_LOOK);
    }
    threads.into_iter().filter(Thread::is_finished).for_each(Thread::join);
}

enum Refusal {
    Stopped,
    Config(String),
}

/// A client of the cluster that we run in. Connects to nothing yet.
fn connect(events: &Receiver<LoopEvent>, mut backoff: Backoff, writes: &Until) -> Result<Client, Refusal> {
    let start = Instant::now();
    let options = || ClientOptions { max_connections: 1, max_body: ANSWER_LIMIT, fence: Some(writes.clone()), ..ClientOptions::default() };
    for tries in 0.. {
        let error = match Config::in_cluster().and_then(|config| Client::new(&config, options())) {
            Ok(client) => return Ok(client),
            Err(error) => error.to_string(),
        };
        if start.elapsed() >= CREDENTIAL_LIMIT {
            return Err(Refusal::Config(error));
        }
        log::warn!(error:%; "no access to the cluster yet; will retry");
        match events.recv_timeout(backoff.delay(tries, None)) {
            Ok(LoopEvent::Stop) | Err(RecvTimeoutError::Disconnected) => return Err(Refusal::Stopped),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
    Err(Refusal::Stopped)
}

/// The thread that turns signals into events.
struct Listener {
    handle: Handle,
    thread: Thread,
}

impl Listener {
    fn start(events: Sender<LoopEvent>, panics: &Sender<&'static str>) -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.handle();
        let run = move || {
            for _ in signals.forever() {
                if events.send(LoopEvent::Stop).is_err() {
                    return;
                }
            }
        };
        let thread = Thread::spawn("signals", panics, run)?;
        Ok(Self { handle, thread })
    }

    fn stop(self) {
        self.handle.close();
        join_within(THREADS_LIMIT, vec![self.thread]);
    }
}

/// The first bytes of the pod's UID: sidecars that start together get different waits.
fn seed_bytes(uid: &str) -> [u8; 8] {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(uid.bytes()) {
        *to = from;
    }
    bytes
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
