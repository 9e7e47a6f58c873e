//! The thread that drives a [`WatchState`] with a client of its own.

use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::api::{Resource, ResourceVersion, Status};
use crate::kube::answer::is_too_large_resource_version;
use crate::kube::frames::Frames;
use crate::kube::headers::bounded_seconds;
use crate::kube::items::Item;
use crate::kube::objects::{Decode, Decoded, Frame, Object, Skipped, parse_item};
use crate::kube::pages::{Cursor, PageError, no_list, read_page};
use crate::kube::{Client, Error, Request};
use crate::text::{describe_decode, one_line};

use super::handle::{AliveGuard, Shared, WatchHandle};
use super::jitter::Jitter;
use super::state::{Failure, Notice, Rules, Step, WatchState, Watching};
use super::{WatchEvent, WatchSpec, WatchTimings};

/// Bytes read at once from a watch. The connection has a buffer of its own; this one exists even while nothing happens.
const READ_BUFFER: usize = 1024;
/// Stack in bytes. Only what is touched costs memory; decoding JSON is the deepest that we go.
const STACK: usize = 512 * 1024;
/// Of the short-lived threads. The C library keeps 40 MiB of stacks for later, with all that was touched: of these it keeps few.
const STACK_ASIDE: usize = 8 * 1024 * 1024;

/// Starts a watch with the usual limits. `deliver` runs on the watch's thread; `Break` ends the watch.
pub fn spawn<T, F>(client: &Client, spec: WatchSpec, deliver: F) -> WatchHandle
where
    T: DeserializeOwned + Send + Sync + 'static,
    F: FnMut(WatchEvent<Arc<T>>) -> ControlFlow<()> + Send + 'static,
{
    spawn_with(client, spec, WatchTimings::default(), deliver)
}

/// Starts a watch with other limits.
pub fn spawn_with<T, F>(client: &Client, spec: WatchSpec, timings: WatchTimings, deliver: F) -> WatchHandle
where
    T: DeserializeOwned + Send + Sync + 'static,
    F: FnMut(WatchEvent<Arc<T>>) -> ControlFlow<()> + Send + 'static,
{
    start(client, spec, timings, Box::new(|json| crate::json::from_slice::<T>(json).map(shared)), of_kinds(deliver))
}

/// Starts a watch that keeps only what `decode` makes something of. Nothing is left of an object for which it answers `None`; if one
/// changes so that it does, it counts as deleted.
pub fn spawn_filtered<T, D, F>(client: &Client, spec: WatchSpec, decode: D, deliver: F) -> WatchHandle
where
    T: Send + Sync + 'static,
    D: Fn(&[u8]) -> serde_json::Result<Option<T>> + Send + 'static,
    F: FnMut(WatchEvent<Arc<T>>) -> ControlFlow<()> + Send + 'static,
{
    let decode: Decode<Object> = Box::new(move |json| decode(json).map(|object| object.and_then(shared)));
    start(client, spec, WatchTimings::default(), decode, of_kinds(deliver))
}

/// The machinery of a watch is compiled once for all kinds.
fn shared<T: Send + Sync + 'static>(object: T) -> Option<Object> {
    Some(Arc::new(object))
}

fn of_kinds<T: Send + Sync + 'static>(mut deliver: impl FnMut(WatchEvent<Arc<T>>) -> ControlFlow<()> + Send + 'static) -> Deliver {
    Box::new(move |event| deliver(event.map(|object| object.downcast().expect("the same watch decoded it as a T"))))
}

type Deliver = Box<dyn FnMut(WatchEvent<Object>) -> ControlFlow<()> + Send>;

fn start(client: &Client, spec: WatchSpec, timings: WatchTimings, decode: Decode<Object>, deliver: Deliver) -> WatchHandle {
    let shared = Arc::new(Shared::new(client.fork()));
    let (name, namespace) = (spec.name, spec.namespace.clone());
    let guard = AliveGuard(Arc::clone(&shared), spec.on_end.clone());
    let mut watcher = Watcher {
        spec,
        timings,
        decode,
        deliver,
        shared: Arc::clone(&shared),
        jitter: Jitter::from_entropy(),
        begun_for: 0,
        items: Vec::new(),
        detail: String::new(),
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        let _guard = guard;
        // Break is how the loop says that it was stopped.
        let ControlFlow::Break(()) = watcher.run();
    });
    let thread = match thread {
        Ok(thread) => Some(thread),
        Err(error) => {
            // The closure, and with it the guard, is gone: health says that the watch is not alive.
            log::error!(watch:% = name, error:%; "cannot start watch");
            None
        }
    };
    WatchHandle { shared, thread, name, namespace }
}

struct Watcher {
    spec: WatchSpec,
    timings: WatchTimings,
    decode: Decode<Object>,
    deliver: Deliver,
    shared: Arc<Shared>,
    jitter: Jitter,
    /// The number that the newest list was started for.
    begun_for: u64,
    /// Objects of the pages that are in; void when a list starts again.
    items: Vec<Object>,
    /// What the last failure was, for the log.
    detail: String,
}

/// Does `work` on a thread of its own and waits for it. A handshake and the decoding of large objects touch a stack that would stay
/// resident as long as the watch: with many watches that is most of what they cost.
fn aside<R: Send>(name: &str, work: impl FnOnce() -> R + Send) -> io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_ASIDE).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// How reading a watch ended; with the time that it lived.
enum End {
    Clean(Duration),
    Failed(Failure, Duration),
}

impl Watcher {
    /// Returns only Break: stopped, or the receiver is gone.
    fn run(&mut self) -> ControlFlow<(), Infallible> {
        if self.spec.changes_only {
            // Only the list's version is needed, and the first page has it.
            self.spec.page_limit = 1;
        }
        if self.spec.is_held {
            self.shared.wait_asked()?;
        }
        let mut state = WatchState::start(self.spec.page_limit);
        loop {
            self.shared.check()?;
            if self.shared.is_asked() {
                state = state.list_again(self.spec.page_limit);
            }
            state = match state {
                WatchState::Listing(listing) => {
                    let result = self.list_page_aside(&listing.cursor);
                    self.shared.check()?;
                    let step = match result {
                        Ok((version, token)) => listing.page(version, token, self.rules()),
                        Err(_) if self.shared.is_asked() => {
                            state = WatchState::Listing(listing);
                            continue;
                        }
                        Err(failure) => listing.failed(failure, self.rules()),
                    };
                    self.report(step)?
                }
                WatchState::Watching(watching) => {
                    let (watching, end) = self.watch(watching)?;
                    self.shared.check()?;
                    let step = match end {
                        // It was ended so that a list can begin.
                        End::Failed(..) if self.shared.is_asked() => {
                            log::debug!(watch:% = self.spec.name, namespace:% = self.spec.namespace; "list started");
                            state = WatchState::Watching(watching);
                            continue;
                        }
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

    /// Does what a transition requires besides the next state.
    fn report(&mut self, step: Step) -> ControlFlow<(), WatchState> {
        let Step { state, publish, restart, notice } = step;
        self.shared.ended(state.failures());
        if publish {
            let items = std::mem::take(&mut self.items);
            log::debug!(watch:% = self.spec.name, namespace:% = self.spec.namespace, objects:% = items.len(); "list complete");
            (self.deliver)(WatchEvent::Replaced(items))?;
            self.shared.synced.store(true, Ordering::Release);
            if let Some(on_listed) = &self.spec.on_listed {
                on_listed(self.begun_for)?;
            }
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
                log::warn!(watch:% = name, resource:%, namespace:%, failures:%, error:% = detail, remedy:%; "watch not allowed");
            }
            Some(Notice::Failing(failures)) if failures > 1 || reason == "missing" => {
                log::warn!(watch:% = name, resource:%, namespace:%, reason:%, failures:%, error:% = detail; "watch failing");
            }
            Some(Notice::Failing(_)) => {
                log::info!(watch:% = name, resource:%, namespace:%, reason:%, error:% = detail; "watch interrupted")
            }
            Some(Notice::Recovered(failures)) => {
                log::info!(watch:% = name, resource:%, namespace:%, failures:%; "watch recovered")
            }
            None if reason.is_empty() => {}
            None => log::debug!(watch:% = name, resource:%, reason:%, error:% = detail; "watch resumed"),
        }
    }

    /// [`Self::list_page`], on a stack that goes afterwards.
    fn list_page_aside(&mut self, cursor: &Cursor) -> Result<(ResourceVersion, Option<String>), Failure> {
        let name = self.spec.name;
        let watcher = &mut *self;
        aside(name, move || watcher.list_page(cursor)).unwrap_or_else(|error| {
            self.detail = format!("cannot start a thread: {error}");
            Err(Failure::Interrupted)
        })
    }

    /// Fetches a page into `items`; returns the list's version and the token of the next page.
    fn list_page(&mut self, cursor: &Cursor) -> Result<(ResourceVersion, Option<String>), Failure> {
        if cursor.token.is_none() {
            self.items = Vec::new();
            self.begun_for = self.shared.begin_list();
        }
        let request = self.select(Request::list(self.spec.resource, &self.spec.namespace));
        let client = self.shared.client();
        let mut items = std::mem::take(&mut self.items);
        let page = read_page(&client, request, cursor, self.timings.line_max, &mut |item| self.take_item(item, &mut items));
        self.shared.touch();
        self.items = items;
        match page {
            Ok((version, _)) if self.spec.changes_only => Ok((version, None)),
            Ok(page) => Ok(page),
            Err(PageError::Call(error)) => Err(self.note(&error)),
            Err(PageError::Slow(error)) => {
                self.detail = error.to_string();
                Err(Failure::TooLarge)
            }
        }
    }

    /// One item of a page.
    fn take_item(&self, item: Item<'_>, items: &mut Vec<Object>) -> Result<(), Error> {
        let WatchSpec { name, resource, .. } = self.spec;
        let json = match item {
            Item::Json(_) if self.spec.changes_only => return Ok(()),
            Item::Json(json) => json,
            Item::TooLong => {
                let limit = self.timings.line_max;
                log::warn!(
                    watch:% = name, resource:% = resource.plural, reason:% = format_args!("longer than {limit} bytes");
                    "object skipped"
                );
                return Ok(());
            }
        };
        match parse_item(json, resource, &self.decode) {
            Ok(Decoded::Ours(object)) => items.push(object),
            Ok(Decoded::NotOurs) => {}
            Ok(Decoded::Skipped(skipped)) => self.warn_skipped(&skipped),
            Err(error) => return Err(no_list("list", resource, &describe_decode(&error))),
        }
        Ok(())
    }

    /// Opens a watch and reads it to its end. Break: the receiver is gone.
    fn watch(&mut self, mut state: Watching) -> ControlFlow<(), (Watching, End)> {
        let (low, high) = self.timings.timeout_seconds;
        let span = f64::from(high.saturating_sub(low)) * self.jitter.next_factor();
        // The span is within u32, so the conversion only cuts the fraction.
        let timeout_seconds = low.saturating_add(span as u32);
        let request = self.select(Request::watch(self.spec.resource, &self.spec.namespace, &state.version, timeout_seconds));
        let mut frames = match self.open(&request) {
            Ok(frames) => frames,
            Err(failure) => return ControlFlow::Continue((state, End::Failed(failure, Duration::ZERO))),
        };
        self.shared.opened(self.timings.short);
        let start = Instant::now();
        let failed = |state, failure| ControlFlow::Continue((state, End::Failed(failure, start.elapsed())));
        loop {
            match frames.read() {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Continue((state, End::Clean(start.elapsed()))),
                Err(error) => {
                    self.detail = one_line(&error.to_string(), 300);
                    return failed(state, if error.kind() == io::ErrorKind::TimedOut { Failure::Idle } else { Failure::Interrupted });
                }
            }
            self.shared.touch();
            if self.shared.is_asked() {
                // Events that come in without a pause must not put the list off.
                return failed(state, Failure::Interrupted);
            }
            loop {
                let frame = match frames.next(self.spec.resource, &self.decode) {
                    Ok(None) => break,
                    Ok(Some(frame)) => frame,
                    Err(reason) => {
                        self.detail = reason;
                        return failed(state, Failure::Garbled);
                    }
                };
                match self.frame(frame)? {
                    Ok(None) => {}
                    Ok(Some(version)) => {
                        let notice;
                        (state, notice) = state.progress(Some(version), start.elapsed(), self.rules());
                        self.tell(notice, None);
                    }
                    Err(failure) => return failed(state, failure),
                }
            }
        }
    }

    /// Opens a watch, on a stack that goes afterwards.
    fn open(&mut self, request: &Request) -> Result<Frames, Failure> {
        let client = self.shared.client_unless_asked().ok_or(Failure::Interrupted)?;
        let idle = self.timings.idle;
        match aside(self.spec.name, || client.open(request, idle)) {
            Ok(Ok(body)) => Ok(Frames::new(body, READ_BUFFER, self.timings.line_max)),
            Ok(Err(error)) => Err(self.note(&error)),
            Err(error) => {
                self.detail = format!("cannot start a thread: {error}");
                Err(Failure::Interrupted)
            }
        }
    }

    /// Delivers one frame; returns the position after it.
    fn frame(&mut self, frame: Frame<Object>) -> ControlFlow<(), Result<Option<ResourceVersion>, Failure>> {
        let version = match frame {
            Frame::Applied(item, version) => {
                (self.deliver)(WatchEvent::Applied(item))?;
                version
            }
            Frame::Deleted(key, version) => {
                (self.deliver)(WatchEvent::Deleted(key))?;
                version
            }
            Frame::Bookmark(version) => version,
            Frame::Skipped(skipped, version) => {
                self.warn_skipped(&skipped);
                version
            }
            Frame::Unknown(kind) => {
                log::debug!(watch:% = self.spec.name, "type":% = kind; "unknown frame type ignored");
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
        if error.code() == Some(404) && self.spec.resource == Resource::QUARKS_JOBS {
            self.detail.push_str(" (is the CRD missing? run: kubectl apply -f manifests/crd.yaml)");
        }
        failure_of(error)
    }

    fn warn_skipped(&self, skipped: &Skipped) {
        let Skipped { key, reason } = skipped;
        let (watch, resource, object) = (self.spec.name, self.spec.resource.plural, one_line(&key.to_string(), 300));
        log::warn!(watch:%, resource:%, object:%, reason:%; "object skipped, cannot decode it");
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
