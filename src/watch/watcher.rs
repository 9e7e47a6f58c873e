//! The thread that drives a [`WatchState`] with a client of its own.

use std::convert::Infallible;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::api::{Resource, ResourceVersion, Status};
use crate::kube::error::{is_too_large_resource_version, one_line};
use crate::kube::headers::bounded_seconds;
use crate::kube::lines::{LineTooLong, Lines};
use crate::kube::{Client, Error, Request};

use super::frame::{Decode, Frame, Object, Skipped, decode_shared, parse_frame, parse_page};
use super::handle::{AliveGuard, Shared, WatchHandle};
use super::jitter::Jitter;
use super::state::{Cursor, Failure, Notice, Rules, Step, WatchState, Watching};
use super::{WatchEvent, WatchSpec, WatchTimings};

/// Bytes read at once; a frame of an ordinary object fits.
const READ_BUFFER: usize = 8 * 1024;
/// Largest page of a list.
const PAGE_MAX: usize = 32 * 1024 * 1024;

/// Starts a watch with the usual limits. `deliver` runs on the watch's thread; `Break` ends the watch.
pub fn spawn<T, F>(client: &Client, spec: WatchSpec, deliver: F) -> WatchHandle
where
    T: DeserializeOwned + Send + Sync + 'static,
    F: FnMut(WatchEvent<Arc<T>>) -> ControlFlow<()> + Send + 'static,
{
    spawn_with(client, spec, WatchTimings::default(), deliver)
}

/// Starts a watch with other limits.
pub fn spawn_with<T, F>(client: &Client, spec: WatchSpec, timings: WatchTimings, mut deliver: F) -> WatchHandle
where
    T: DeserializeOwned + Send + Sync + 'static,
    F: FnMut(WatchEvent<Arc<T>>) -> ControlFlow<()> + Send + 'static,
{
    start(client, spec, timings, decode_shared::<T>, Box::new(move |event| deliver(event.map(of_kind::<T>))))
}

/// The object that [`decode_shared`] of the same kind made.
fn of_kind<T: Send + Sync + 'static>(object: Object) -> Arc<T> {
    object.downcast().expect("decode_shared::<T> makes a T")
}

type Deliver = Box<dyn FnMut(WatchEvent<Object>) -> ControlFlow<()> + Send>;

fn start(client: &Client, spec: WatchSpec, timings: WatchTimings, decode: Decode<Object>, deliver: Deliver) -> WatchHandle {
    let client = client.fork();
    let shared = Arc::new(Shared::new());
    let (name, namespace) = (spec.name, spec.namespace.clone());
    let mut watcher = Watcher {
        client: client.clone(),
        spec,
        timings,
        decode,
        deliver,
        shared: Arc::clone(&shared),
        jitter: Jitter::from_entropy(),
        items: Vec::new(),
        detail: String::new(),
    };
    let guard = AliveGuard(Arc::clone(&shared));
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _guard = guard;
        // Break is how the loop says that it was stopped.
        let ControlFlow::Break(()) = watcher.run();
    });
    let thread = match thread {
        Ok(thread) => Some(thread),
        Err(error) => {
            // The closure, and with it the guard, is gone: health says that the watch is not alive.
            log::error!("watch not started: watch={name} error={error:?}");
            None
        }
    };
    WatchHandle { client, shared, thread, name, namespace }
}

struct Watcher {
    client: Client,
    spec: WatchSpec,
    timings: WatchTimings,
    decode: Decode<Object>,
    deliver: Deliver,
    shared: Arc<Shared>,
    jitter: Jitter,
    /// Objects of the pages that are in; void when a list starts again.
    items: Vec<Object>,
    /// What the last failure was, for the log.
    detail: String,
}

/// How reading a watch ended; with the time that it lived.
enum End {
    Clean(Duration),
    Failed(Failure, Duration),
}

impl Watcher {
    /// Never comes back but with Break: stopped, or nobody listens.
    fn run(&mut self) -> ControlFlow<(), Infallible> {
        let mut state = WatchState::start(self.spec.page_limit);
        loop {
            self.shared.check()?;
            state = match state {
                WatchState::Listing(listing) => {
                    let result = self.list_page(&listing.cursor);
                    let step = match result {
                        Ok((version, token)) => listing.page(version, token, self.rules()),
                        Err(failure) => {
                            self.shared.check()?;
                            listing.failed(failure, self.rules())
                        }
                    };
                    self.report(step)?
                }
                WatchState::Watching(watching) => {
                    let (watching, end) = self.watch(watching)?;
                    self.shared.check()?;
                    let step = match end {
                        End::Clean(lived) => watching.ended(lived, self.rules()),
                        End::Failed(failure, lived) => watching.failed(failure, lived, self.rules()),
                    };
                    self.report(step)?
                }
                WatchState::Waiting(waiting) => {
                    self.shared.wait(waiting.delay)?;
                    waiting.waited()
                }
            };
        }
    }

    fn rules(&mut self) -> Rules<'_> {
        Rules { jitter: self.jitter.next_factor(), timings: &self.timings, page_limit: self.spec.page_limit }
    }

    /// Does what a transition asks for besides the next state.
    fn report(&mut self, step: Step) -> ControlFlow<(), WatchState> {
        let Step { state, publish, restart, notice } = step;
        self.shared.failures.store(state.failures(), Ordering::Relaxed);
        if publish {
            let items = std::mem::take(&mut self.items);
            log::debug!("list complete: watch={} namespace={:?} objects={}", self.spec.name, self.spec.namespace, items.len());
            (self.deliver)(WatchEvent::Replaced(items))?;
            self.shared.synced.store(true, Ordering::Release);
        }
        if let Some(reason) = restart {
            if reason != "ended" {
                self.shared.restarts.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(on_restart) = &self.spec.on_restart {
                on_restart(self.spec.resource.plural, reason);
            }
        }
        self.tell(notice, restart);
        ControlFlow::Continue(state)
    }

    fn tell(&mut self, notice: Option<Notice>, reason: Option<&'static str>) {
        let WatchSpec { name, resource, namespace, remedy, .. } = &self.spec;
        let (resource, reason) = (resource.plural, reason.unwrap_or_default());
        let detail = std::mem::take(&mut self.detail);
        match notice {
            Some(Notice::Failing(failures)) if reason == "denied" => {
                log::warn!(
                    "watch not allowed: watch={name} resource={resource} namespace={namespace:?} failures={failures} error={detail:?} remedy={remedy:?}"
                );
            }
            Some(Notice::Failing(failures)) if failures > 1 || reason == "missing" => {
                log::warn!(
                    "watch failing: watch={name} resource={resource} namespace={namespace:?} reason={reason} failures={failures} error={detail:?}"
                );
            }
            Some(Notice::Failing(_)) => {
                log::info!("watch interrupted: watch={name} resource={resource} namespace={namespace:?} reason={reason} error={detail:?}")
            }
            Some(Notice::Recovered(failures)) => {
                log::info!("watch recovered: watch={name} resource={resource} namespace={namespace:?} failures={failures}")
            }
            None if reason.is_empty() => {}
            None => log::debug!("watch goes on: watch={name} resource={resource} reason={reason} error={detail:?}"),
        }
    }

    /// Fetches a page into `items`; gives the list's version and the token of the next page.
    fn list_page(&mut self, cursor: &Cursor) -> Result<(ResourceVersion, Option<String>), Failure> {
        if cursor.token.is_none() {
            self.items = Vec::new();
        }
        let mut request = self.select(Request::list(self.spec.resource, &self.spec.namespace));
        if let Some(limit) = cursor.limit {
            request = request.limit(limit);
        }
        if let Some(token) = &cursor.token {
            request = request.continue_token(token);
        }
        let body = self.client.call_text(&request, PAGE_MAX).map_err(|error| self.note(&error))?;
        self.shared.touch();
        let page = parse_page(&body, self.spec.resource, self.decode).map_err(|reason| {
            self.detail = reason;
            Failure::Garbled
        })?;
        for skipped in &page.skipped {
            self.warn_skipped(skipped);
        }
        self.items.extend(page.items);
        Ok((page.version, page.token))
    }

    /// Opens a watch and reads it to its end. Break: nobody listens.
    fn watch(&mut self, mut state: Watching) -> ControlFlow<(), (Watching, End)> {
        let (low, high) = self.timings.timeout_seconds;
        let span = f64::from(high.saturating_sub(low)) * self.jitter.next_factor();
        // The span is within u32, so the conversion only cuts the fraction.
        let timeout_seconds = low.saturating_add(span as u32);
        let request = self.select(Request::watch(self.spec.resource, &self.spec.namespace, &state.version, timeout_seconds));
        let mut reader = match self.client.open(&request, self.timings.idle) {
            Ok(reader) => reader,
            Err(error) => {
                let failure = self.note(&error);
                return ControlFlow::Continue((state, End::Failed(failure, Duration::ZERO)));
            }
        };
        self.shared.touch();
        let start = Instant::now();
        let mut lines = Lines::new(self.timings.line_max);
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            let amount = match reader.read(&mut buffer) {
                Ok(0) => return ControlFlow::Continue((state, End::Clean(start.elapsed()))),
                Ok(amount) => amount,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.detail = one_line(&error.to_string(), 300);
                    let failure = if error.kind() == io::ErrorKind::TimedOut { Failure::Idle } else { Failure::Interrupted };
                    return ControlFlow::Continue((state, End::Failed(failure, start.elapsed())));
                }
            };
            self.shared.touch();
            lines.push(&buffer[..amount]);
            loop {
                let line = match lines.next_line() {
                    Ok(Some(line)) => line,
                    Ok(None) => break,
                    Err(LineTooLong) => {
                        self.detail = format!("a frame is longer than {} bytes", self.timings.line_max);
                        return ControlFlow::Continue((state, End::Failed(Failure::Garbled, start.elapsed())));
                    }
                };
                match self.frame(line)? {
                    Ok(None) => {}
                    Ok(Some(version)) => {
                        let notice;
                        (state, notice) = state.progress(Some(version), start.elapsed(), self.rules());
                        if notice.is_some() {
                            self.shared.failures.store(0, Ordering::Relaxed);
                            self.tell(notice, None);
                        }
                    }
                    Err(failure) => return ControlFlow::Continue((state, End::Failed(failure, start.elapsed()))),
                }
            }
        }
    }

    /// Delivers one frame; gives the position after it.
    fn frame(&mut self, line: &[u8]) -> ControlFlow<(), Result<Option<ResourceVersion>, Failure>> {
        let frame = match parse_frame(line, self.spec.resource, self.decode) {
            Ok(frame) => frame,
            Err(reason) => {
                self.detail = format!("frame not understood: {reason}");
                return ControlFlow::Continue(Err(Failure::Garbled));
            }
        };
        let version = match frame {
            Frame::Applied(item, version) => {
                (self.deliver)(WatchEvent::Applied(item))?;
                version
            }
            Frame::Deleted(item, version) => {
                (self.deliver)(WatchEvent::Deleted(item))?;
                version
            }
            Frame::Bookmark(version) => version,
            Frame::Skipped(skipped, version) => {
                self.warn_skipped(&skipped);
                version
            }
            Frame::Unknown(kind) => {
                log::debug!("frame of unknown type ignored: watch={} type={kind:?}", self.spec.name);
                None
            }
            Frame::Error(status) => {
                // As with calls: what the server says about Secrets is not repeated.
                let message = if self.spec.resource == Resource::SECRETS { "" } else { status.message.as_str() };
                self.detail = one_line(&format!("{} {}: {message}", status.code, status.reason), 300);
                return ControlFlow::Continue(Err(failure_in_frame(&status)));
            }
        };
        ControlFlow::Continue(Ok(version))
    }

    /// Adds what list and watch have in common.
    fn select(&self, mut request: Request) -> Request {
        if let Some(selector) = &self.spec.label_selector {
            request = request.label_selector(selector);
        }
        if let Some(selector) = &self.spec.field_selector {
            request = request.field_selector(selector);
        }
        if self.spec.metadata_only { request.metadata_only() } else { request }
    }

    fn note(&mut self, error: &Error) -> Failure {
        self.detail = error.to_string();
        failure_of(error)
    }

    fn warn_skipped(&self, skipped: &Skipped) {
        log::warn!("object passed over, not understood: watch={} resource={} {skipped}", self.spec.name, self.spec.resource.plural);
    }
}

/// What a failed call means for the watch.
fn failure_of(error: &Error) -> Failure {
    match error {
        Error::Transport { .. } | Error::Shutdown | Error::Fenced => Failure::Interrupted,
        Error::TooLarge { .. } => Failure::TooLarge,
        Error::Decode { .. } => Failure::Garbled,
        Error::Status { verb, code, retry_after, .. } => match code {
            410 => Failure::Gone,
            401 | 403 => Failure::Denied,
            404 => Failure::Missing,
            429 | 503 => Failure::Busy { retry_after: *retry_after },
            // Lists name no version, so there is nothing to give up but time.
            504 if error.is_too_large_resource_version() && *verb == "watch" => Failure::Gone,
            500.. => retry_after.map_or(Failure::Interrupted, |after| Failure::Busy { retry_after: Some(after) }),
            // 400 for a version that makes no sense, and whatever else: only starting over can help.
            _ => Failure::Garbled,
        },
    }
}

/// What an `ERROR` frame means for the watch. The stream is of no use after it, and the position only if the server is just busy.
fn failure_in_frame(status: &Status) -> Failure {
    match status.code {
        410 => Failure::Gone,
        401 | 403 => Failure::Denied,
        429 | 503 => Failure::Busy { retry_after: bounded_seconds(status.details.retry_after_seconds) },
        _ if status.reason == "Expired" || status.reason == "Gone" => Failure::Gone,
        _ if is_too_large_resource_version(status) => Failure::Gone,
        _ => Failure::Garbled,
    }
}

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
