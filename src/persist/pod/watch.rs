//! Observes the state of one pod: a thread with a watch restricted to that pod.
//!
//! It only watches and never lists, so the sidecar's service account needs no right to list pods. A watch from version 0 starts
//! with the pod's state as the API server has it in memory; an old state does no harm here, because a container that has ended for
//! good stays so.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::api::{ObjectKey, Pod, Resource, ResourceVersion};
use crate::kube::frames::Frames;
use crate::kube::objects::{Decode, Frame, Skipped};
use crate::kube::{Client, Error, Request};
use crate::persist::environment::Environment;
use crate::persist::messages::LoopEvent;
use crate::persist::retry::{AttemptError, Backoff, Patience};
use crate::threads::Thread;

/// The server is asked to end the watch after this many seconds: below 240, after which idle flows are dropped silently.
const TIMEOUT_SECONDS: u32 = 200;
/// Silence after which the connection counts as dead: above the server's own limit.
const IDLE: Duration = Duration::from_secs(220);
/// A watch that ends sooner was none: a server that closes each at once must not be asked again at once.
const SHORT: Duration = Duration::from_secs(1);
/// Longest frame in bytes; a pod has at most 1.5 MiB.
const FRAME_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes read at once: a frame of an ordinary pod fits.
const BUFFER: usize = 8 * 1024;

/// A running watch; ends when dropped.
#[derive(Debug)]
pub struct PodWatch {
    client: Client,
    stop: Option<Sender<()>>,
    thread: Option<Thread>,
}

impl PodWatch {
    /// Starts the thread; it sends [`LoopEvent::Pod`], and [`LoopEvent::Blind`] if the API server refuses permanently.
    pub fn start(
        client: &Client,
        environment: &Environment,
        seed: u64,
        events: Sender<LoopEvent>,
        panics: &Sender<&'static str>,
    ) -> io::Result<Self> {
        // Connections of its own, to be shut down on its own.
        let client = client.fork();
        let (stop, stopped) = bounded(0);
        let (pod, refused_limit) = (environment.pod.clone(), environment.refused_limit);
        let mut watcher = Watcher { client: client.clone(), pod, refused_limit, version: start_version(), events, stopped };
        let run = move || {
            let ControlFlow::Break(()) = watcher.run(Backoff::new(seed)) else { return };
        };
        let thread = Thread::spawn("watch-pod", panics, run)?;
        Ok(Self { client, stop: Some(stop), thread: Some(thread) })
    }
}

impl PodWatch {
    /// Stops the watch; the thread is for joining. It ends at once, unless it is in the middle of a TCP connect.
    pub fn stop(mut self) -> Option<Thread> {
        self.thread.take()
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        // Closing the channel ends a wait, shutting the client down ends a read.
        self.stop = None;
        self.client.shutdown();
    }
}

struct Watcher {
    client: Client,
    pod: ObjectKey,
    refused_limit: Duration,
    version: ResourceVersion,
    events: Sender<LoopEvent>,
    stopped: Receiver<()>,
}

/// Why a watch ended.
enum WatchEnd {
    /// The server's time limit, or ours.
    Ordinary,
    /// The position is too old, or cannot be trusted.
    Restart(String),
    /// The call failed.
    Failed(Error),
}

impl Watcher {
    /// Break: the receiver is gone, or it was stopped.
    fn run(&mut self, mut backoff: Backoff) -> ControlFlow<()> {
        let mut failures = 0;
        let mut patience = Patience::new(self.refused_limit);
        loop {
            let start = Instant::now();
            let end = self.watch()?;
            if start.elapsed() >= SHORT {
                failures = 0;
                patience = Patience::new(self.refused_limit);
            }
            let asked = match end {
                WatchEnd::Ordinary if failures == 0 && start.elapsed() >= SHORT => continue,
                WatchEnd::Ordinary => None,
                WatchEnd::Restart(why) => {
                    log::info!(error:% = why; "pod watch restarted");
                    self.version = start_version();
                    None
                }
                WatchEnd::Failed(error) if error.is_shutdown() => return ControlFlow::Break(()),
                WatchEnd::Failed(error) => {
                    log::warn!(error:%, failures:%; "pod watch interrupted");
                    // Whatever it was, the position may be part of it.
                    self.version = start_version();
                    let asked = error.retry_after();
                    let text = error.to_string();
                    if patience.is_over(&AttemptError::Call(error), Instant::now()) {
                        self.send(LoopEvent::Blind(text))?;
                    }
                    asked
                }
            };
            match self.stopped.recv_timeout(backoff.delay(failures, asked)) {
                Err(RecvTimeoutError::Timeout) => failures = failures.saturating_add(1),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            }
        }
    }

    fn watch(&mut self) -> ControlFlow<(), WatchEnd> {
        let selector = format!("metadata.name={}", self.pod.name);
        let request = Request::watch(Resource::PODS, &self.pod.namespace, &self.version, TIMEOUT_SECONDS).field_selector(&selector);
        let mut frames = match self.client.open(&request, IDLE) {
            Ok(body) => Frames::new(body, BUFFER, FRAME_LIMIT),
            Err(error) if error.is_gone() => return ControlFlow::Continue(WatchEnd::Restart(error.to_string())),
            Err(error) => return ControlFlow::Continue(WatchEnd::Failed(error)),
        };
        loop {
            match frames.read() {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Continue(WatchEnd::Ordinary),
                Err(error) => return ControlFlow::Continue(WatchEnd::Failed(self.client.read_error("watch", Resource::PODS, &error))),
            }
            loop {
                match heard(&mut frames) {
                    Ok(None) => break,
                    Ok(Some(Heard::Pod(pod))) => {
                        self.version = pod.metadata.resource_version.clone();
                        if *pod.metadata.name == *self.pod.name {
                            self.send(LoopEvent::Pod(pod))?;
                        }
                    }
                    Ok(Some(Heard::Version(version))) => self.version = version,
                    Ok(Some(Heard::Nothing)) => {}
                    Err(why) => return ControlFlow::Continue(WatchEnd::Restart(why)),
                }
            }
        }
    }

    fn send(&self, event: LoopEvent) -> ControlFlow<()> {
        if self.events.send(event).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// The first pod of a watch; none if it ends without one. An error of the server's counts as one of the network.
pub fn first_pod(body: Box<dyn Read + Send>) -> io::Result<Option<Box<Pod>>> {
    let mut frames = Frames::new(body, BUFFER, FRAME_LIMIT);
    while frames.read()? {
        while let Some(heard) = heard(&mut frames).map_err(io::Error::other)? {
            if let Heard::Pod(pod) = heard {
                return Ok(Some(pod));
            }
        }
    }
    Ok(None)
}

/// "Whatever you have in memory, and what follows."
fn start_version() -> ResourceVersion {
    "0".into()
}

/// What a frame says.
#[derive(Debug, PartialEq)]
enum Heard {
    Pod(Box<Pod>),
    /// A bookmark, or the pod is gone: only the position counts.
    Version(ResourceVersion),
    Nothing,
}

/// The next frame that is whole. The error says that the watch must be restarted, and why; it quotes nothing of the pod.
fn heard(frames: &mut Frames) -> Result<Option<Heard>, String> {
    let decode: Decode<Box<Pod>> = Box::new(|json| crate::json::from_slice(json).map(|pod| Some(Box::new(pod))));
    frames.next(Resource::PODS, &decode)?.map(meaning).transpose()
}

fn meaning(frame: Frame<Box<Pod>>) -> Result<Heard, String> {
    match frame {
        Frame::Applied(pod, _) => Ok(Heard::Pod(pod)),
        Frame::Deleted(_, version) | Frame::Bookmark(version) => Ok(version.map_or(Heard::Nothing, Heard::Version)),
        Frame::Unknown(_) => Ok(Heard::Nothing),
        Frame::Skipped(Skipped { key: _, reason }, _) => Err(format!("cannot decode the pod: {reason}")),
        Frame::Error(status) => Err(format!("{} {}", status.code, status.reason)),
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
