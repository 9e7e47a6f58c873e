//! The sidecar's loop: the pod's state, new files, the store's events and SIGTERM come in; the report goes out.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, never, select};

use crate::contract::report::{OutputError, OutputErrorReason, REPORT_LIMIT, Report};

use super::environment::Environment;
use super::input::unseen::UnseenFiles;
use super::messages::{LoopEvent, StoreCommand};
use super::progress::Progress;

/// From SIGTERM to the loop's end: the promise is 2 s for everything, with threads to end and the report to write.
const STOP_LIMIT: Duration = Duration::from_millis(1500);

/// What is said of output that was still to come when the pod was stopped.
const UNSEEN: &str = "the pod was stopped before the container's output was stored";

/// What ended the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// Nothing is left to do.
    Done,
    /// The pod is being stopped.
    Stopped,
    /// A thread panicked: Kubernetes should restart the container.
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
    pub ending: ExitReason,
}

/// The end when the sidecar cannot even begin. A retry would find the same.
pub(super) fn refuse(message: String) -> Finish {
    log::error!(error:% = message; "cannot store output");
    let (container, file) = (String::new(), String::new());
    let error = OutputError { reason: OutputErrorReason::OutputNotStored, container, file, message };
    Finish { report: Report { errors: vec![error], ..Report::default() }, limit: REPORT_LIMIT, ending: ExitReason::Done }
}

/// The end when the pod is stopped before anything was seen.
pub(super) fn stopped_early(environment: &Environment) -> Finish {
    let progress = Progress::new(&environment.plan, environment.pod_uid.clone());
    Finish { limit: progress.report_limit(), report: progress.into_report(UNSEEN), ending: ExitReason::Stopped }
}

/// Runs until everything mapped is done, or the pod is stopped and its time is up.
pub(super) fn run_loop(
    environment: &Environment,
    events: &Receiver<LoopEvent>,
    panics: &Receiver<&'static str>,
    commands: &Sender<StoreCommand>,
    mut files: UnseenFiles,
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
            recv(files.ticks) -> _ => LoopEvent::Look,
            recv(deadline) -> _ => break,
            recv(panics) -> name => match name {
                Ok(name) => {
                    log::error!(thread:% = name; "thread panicked");
                    state = State::Crashed;
                    break;
                }
                Err(_) => break,
            },
        };
        match (event, &state) {
            (LoopEvent::Pod(pod), _) => {
                for ended in progress.on_pod(&pod) {
                    // The storer lives as long as this end of its channel.
                    let _ = commands.send(StoreCommand::Store(ended));
                }
            }
            (LoopEvent::Store(event), _) => progress.on_event(event),
            (LoopEvent::Look, _) => files.look(environment),
            (LoopEvent::Blind(text), State::Watching) => {
                log::error!(error:% = text; "cannot watch pod");
                state = State::Blind(text);
            }
            (LoopEvent::Stop, State::Watching | State::Blind(_)) => {
                log::info!(storing:% = progress.is_storing(); "stopping");
                let _ = commands.send(StoreCommand::Hurry);
                deadline = after(STOP_LIMIT);
                state = State::Stopping(Instant::now());
            }
            (LoopEvent::Blind(_) | LoopEvent::Stop, _) => {}
        }
        // What is being stored is still stored; nothing else will be seen to end.
        if !matches!(state, State::Watching) && !progress.is_storing() {
            break;
        }
    }
    finish(progress, state)
}

/// What is reported, by the state in which the loop ended.
fn finish(progress: Progress, state: State) -> Finish {
    let limit = progress.report_limit();
    match state {
        State::Crashed => Finish { report: progress.into_report(""), limit, ending: ExitReason::Crashed },
        State::Watching => Finish { report: progress.into_report("the sidecar exited early"), limit, ending: ExitReason::Done },
        State::Blind(text) => Finish { report: progress.into_report(&text), limit, ending: ExitReason::Done },
        State::Stopping(since) => {
            log::debug!(took_ms:% = since.elapsed().as_millis(); "stopped");
            let report = progress.into_report(UNSEEN);
            Finish { report, limit, ending: ExitReason::Stopped }
        }
    }
}

enum State {
    Watching,
    /// The pod's state is unknown permanently.
    Blind(String),
    /// SIGTERM came.
    Stopping(Instant),
    /// A thread panicked.
    Crashed,
}
