//! The sidecar's loop: the pod's state, new files, the store's outcomes and SIGTERM come in; the report and the exit code go out.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, after, bounded, never, select, tick, unbounded};
use log::LevelFilter;

use crate::api::Pod;
use crate::contract::report::{OutputError, OutputErrorReason, REPORT_LIMIT, Report};
use crate::log::Format;

use super::environment::{Environment, termination_log};
use super::files;
use super::inotify::FileWatch;
use super::progress::Progress;
use super::store::Outcome;
use super::storer::Order;

/// Exit code after SIGTERM with output that is not stored: 128 + 15.
const STOPPED: u8 = 143;
/// Exit code after a panic, as the standard library has it.
const PANICKED: u8 = 101;
/// From SIGTERM to the loop's end: the promise is 2 s for everything, with threads to end and the report to write.
const STOP_LIMIT: Duration = Duration::from_millis(1500);
/// Looking for new files where inotify is not to be had.
const POLL: Duration = Duration::from_secs(2);
/// Events on their way to the loop; it never waits for anyone, so little room is enough.
const EVENTS: usize = 32;

/// What is said of output that was still to come when the pod was stopped.
const UNSEEN: &str = "the pod was stopped before the container was seen to end and its output was stored";

/// Everything that the loop hears of.
#[derive(Debug)]
pub enum Event {
    /// The pod's state, as it is now.
    Pod(Box<Pod>),
    /// The pod cannot be watched and this will not pass by itself; the text says why.
    Blind(String),
    /// New files, perhaps.
    Look,
    /// The store did something.
    Outcome(Outcome),
    /// SIGTERM or SIGINT.
    Stop,
}

/// What ended the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing is left to do.
    Done,
    /// The pod is being stopped.
    Stopped,
    /// A thread panicked: Kubernetes shall start us anew.
    Crashed,
}

/// How the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Finish {
    /// What became of the output.
    pub report: Report,
    /// Bytes that the report may have.
    pub limit: usize,
    /// What ended it.
    pub ending: Ending,
}

/// `quarks-job persist-output`. Only SIGTERM and crashes end non-zero: a non-zero end would make Kubernetes run the user's container
/// again.
pub fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    crate::log::start(log_level(&variable), log_format(&variable));
    let finish = match Environment::read(&variable) {
        Ok(environment) => super::start::run_all(&environment),
        Err(text) => refuse(text),
    };
    let Finish { report, limit, ending } = finish;
    if ending == Ending::Crashed {
        return ExitCode::from(PANICKED);
    }
    let text = report.encode_within(limit);
    let (secrets, errors) = (report.secrets.len(), report.errors.len());
    log::info!("output-persist ends: stored={} secrets={secrets} errors={errors} ending={ending:?}", report.stored);
    if let Err(error) = write_report(&termination_log(&variable), &text) {
        log::error!("report not written: error={error}");
    }
    if ending == Ending::Stopped && !report.is_success() { ExitCode::from(STOPPED) } else { ExitCode::SUCCESS }
}

/// The operator passes its own level on.
fn log_level(variable: &dyn Fn(&str) -> Option<String>) -> LevelFilter {
    variable("LOG_LEVEL").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::Info)
}

/// This too; a word that is neither is no reason to fail a run.
fn log_format(variable: &dyn Fn(&str) -> Option<String>) -> Format {
    variable("LOG_FORMAT").and_then(|word| Format::parse(&word)).unwrap_or_default()
}

/// The end when the sidecar cannot even begin. A retry would find the same.
pub(super) fn refuse(message: String) -> Finish {
    log::error!("output cannot be stored: error={message:?}");
    let (container, file) = (String::new(), String::new());
    let error = OutputError { reason: OutputErrorReason::OutputNotStored, container, file, message };
    Finish { report: Report { errors: vec![error], ..Report::default() }, limit: REPORT_LIMIT, ending: Ending::Done }
}

fn write_report(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// The end when the pod is stopped before anything was seen.
pub(super) fn stopped_early(environment: &Environment) -> Finish {
    let progress = Progress::new(&environment.plan, environment.pod_uid.clone());
    Finish { limit: progress.report_limit(), report: progress.into_report(UNSEEN), ending: Ending::Stopped }
}

/// Channels between the loop and its threads.
pub(super) struct Channels {
    pub events: (Sender<Event>, Receiver<Event>),
    pub orders: (Sender<Order>, Receiver<Order>),
    pub panics: (Sender<&'static str>, Receiver<&'static str>),
}

impl Channels {
    pub fn new() -> Self {
        // Orders are one for each container and one more, so that channel needs no limit.
        Self { events: bounded(EVENTS), orders: unbounded(), panics: bounded(1) }
    }
}

/// Runs until everything mapped is done, or the pod is stopped and its time is up.
pub(super) fn run_loop(
    environment: &Environment,
    events: &Receiver<Event>,
    panics: &Receiver<&'static str>,
    orders: &Sender<Order>,
    mut files: Files,
) -> Finish {
    let mut progress = Progress::new(&environment.plan, environment.pod_uid.clone());
    let mut state = State::Watching;
    let mut deadline = never();
    while !progress.is_complete() {
        let event = select! {
            recv(events) -> event => match event {
                Ok(event) => event,
                // All threads are gone: nothing more will be heard.
                Err(_) => break,
            },
            recv(files.ticks) -> _ => Event::Look,
            recv(deadline) -> _ => break,
            recv(panics) -> name => match name {
                Ok(name) => {
                    log::error!("thread is gone: thread={name}");
                    state = State::Crashed;
                    break;
                }
                Err(_) => break,
            },
        };
        match (event, &state) {
            (Event::Pod(pod), _) => {
                for ended in progress.on_pod(&pod) {
                    // The storer lives as long as this end of its channel.
                    let _ = orders.send(Order::Store(ended));
                }
            }
            (Event::Outcome(outcome), _) => progress.on_outcome(outcome),
            (Event::Look, _) => files.look(environment),
            (Event::Blind(text), State::Watching) => {
                log::error!("pod cannot be watched: error={text:?}");
                state = State::Blind(text);
            }
            (Event::Stop, State::Watching | State::Blind(_)) => {
                log::info!("stopping: storing={}", progress.is_storing());
                let _ = orders.send(Order::Hurry);
                deadline = after(STOP_LIMIT);
                state = State::Stopping(Instant::now());
            }
            (Event::Blind(_) | Event::Stop, _) => {}
        }
        // What is being stored is still stored; nothing else will be seen to end.
        if !matches!(state, State::Watching) && !progress.is_storing() {
            break;
        }
    }
    let limit = progress.report_limit();
    match state {
        State::Crashed => Finish { report: progress.into_report(""), limit, ending: Ending::Crashed },
        State::Watching => Finish { report: progress.into_report("the sidecar ended early"), limit, ending: Ending::Done },
        State::Blind(text) => Finish { report: progress.into_report(&text), limit, ending: Ending::Done },
        State::Stopping(since) => {
            log::debug!("stopped: took_ms={}", since.elapsed().as_millis());
            let report = progress.into_report(UNSEEN);
            Finish { report, limit, ending: Ending::Stopped }
        }
    }
}

enum State {
    Watching,
    /// The pod's state is unknown for good.
    Blind(String),
    /// SIGTERM came.
    Stopping(Instant),
    /// A thread panicked.
    Crashed,
}

/// Files that have not been seen yet, for the log only.
pub(super) struct Files {
    /// Kept for its drop, which ends the watch.
    watch: Option<FileWatch>,
    ticks: Receiver<Instant>,
    unseen: BTreeSet<(String, String)>,
}

impl Files {
    /// Hears of new files by inotify, or else by looking now and then.
    pub fn start(environment: &Environment, events: &Sender<Event>, panics: &Sender<&'static str>) -> Self {
        // Containers of which only the log is output have no folder.
        let containers = || environment.plan.containers.iter().filter(|(_, plan)| !plan.files.is_empty());
        let mut unseen = BTreeSet::new();
        unseen.extend(containers().flat_map(|(name, plan)| plan.files.keys().map(|file| (name.clone(), file.clone()))));
        let sender = events.clone();
        // With a full channel there is a look to come anyway.
        let look = move || !matches!(sender.try_send(Event::Look), Err(TrySendError::Disconnected(_)));
        match FileWatch::start(&environment.root, containers().map(|(name, _)| name), panics, look) {
            Ok(watch) => Self { watch: Some(watch), ticks: never(), unseen },
            Err(error) => {
                log::warn!("inotify is not available, looking for files every 2 s: error={error}");
                Self { watch: None, ticks: tick(POLL), unseen }
            }
        }
    }

    fn look(&mut self, environment: &Environment) {
        self.unseen.retain(|(container, file)| {
            let is_there = files::is_there(&environment.root, container, file);
            if is_there {
                log::info!("output file is there: container={container} file={file}");
            }
            !is_there
        });
        if self.unseen.is_empty() {
            self.watch = None;
            self.ticks = never();
        }
    }
}
