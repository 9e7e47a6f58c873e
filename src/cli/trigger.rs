//! `quarks-job trigger`: requests one run with the annotation `run-requested`, and can wait for its outcome.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never, select};
use serde_json::json;

use crate::api::{
    ANNOTATION_RUN_REQUESTED, ActiveRun, LastRun, ObjectKey, Outcome, QuarksJob, QuarksJobStatus, Resource, ResourceVersion, Uid,
    is_subdomain,
};
use crate::clock;
use crate::contract::record::{Marker, REQUEST_MAX, RunRecord};
use crate::kube::{Client, ClientOptions, Config, Error, Request};
use crate::rules::own_status::own_status;
use crate::text::one_line;
use crate::watch::{Jitter, WatchEvent, WatchSpec, spawn};

use super::flag::{Flag, Given, Help};
use super::flags::{CONTEXT, KUBECONFIG, bad, boolean};
use super::output::{CliError, print, remark};

/// `trigger --help`.
pub(super) const HELP: Help = Help {
    head: "\
Usage: {me} trigger NAME [flags]   request one run of QuarksJob NAME; its spec does not change

",
    flags: &[&FLAGS],
    tail: "
Required rights on quarksjobs: patch; with --wait also list and watch.
Exit codes: 0 requested (with --wait: succeeded), 1 failed (with --wait: also if the run did not succeed), 2 usage error,
3 timed out; the request remains in effect.
",
};

static FLAGS: [Flag; 6] = [
    Flag::new("wait", "", "", "", "wait until the requested run has ended and print its outcome"),
    Flag::new("timeout", "DURATION", "", "no limit", "with --wait: how long to wait, for example 90s, 5m or 1h30m"),
    Flag::new(
        "request",
        "VALUE",
        "",
        "a new value each time",
        "value of annotation run-requested; a value that was already served requests\nnothing, so a repeated call starts no second run",
    ),
    Flag::new("namespace", "NS", "", "from the context; in a pod, the pod's", "namespace of the QuarksJob").short('n'),
    CONTEXT,
    KUBECONFIG,
];

/// Limit on one API call.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// The same for a credential plugin that waits for a person to log in.
const LOGIN_LIMIT: Duration = Duration::from_secs(300);
/// How often the request is sent while the API server does not answer: the same value asks only once.
const TRIES: u32 = 3;
/// First wait between them; it doubles.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait that the API server is granted between them.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Without any sign of an operator for this long, the likely reason is reported.
const QUIET: Duration = Duration::from_secs(10);

pub(super) fn main(arguments: &[OsString]) -> Result<(), CliError> {
    let given = Given::parse(&[&FLAGS], 1, arguments, &|_| None)?;
    let Some(name) = given.words.first() else { return Err(CliError::Usage("the NAME of a QuarksJob is required".to_owned())) };
    if !is_subdomain(name) {
        return Err(CliError::Usage(format!("{:?} is not a valid QuarksJob name", name.chars().take(60).collect::<String>())));
    }
    let is_waiting = boolean(given.find("wait"))?;
    let timeout = match given.find("timeout") {
        None => None,
        Some((_, text)) => {
            Some(duration(text).ok_or_else(|| bad(given.find("timeout"), "is not a valid duration; use for example 90s, 5m or 1h30m"))?)
        }
    };
    if timeout.is_some() && !is_waiting {
        return Err(CliError::Usage("--timeout requires --wait".to_owned()));
    }
    let value = given.value("request").unwrap_or_else(fresh_value);
    if value.is_empty() || value.len() > REQUEST_MAX {
        return Err(CliError::Usage(format!("--request: must be 1 to {REQUEST_MAX} bytes")));
    }
    let (namespace, kubeconfig) = (given.namespace()?, given.value("kubeconfig"));
    let config = Config::load(kubeconfig.as_deref().map(std::path::Path::new), given.value("context").as_deref()).map_err(failed)?;
    let key = ObjectKey::new(namespace.unwrap_or_else(|| config.namespace.clone()), name.as_str());
    let call_timeout = timeout.unwrap_or(CALL_LIMIT).min(CALL_LIMIT);
    let login_timeout = timeout.unwrap_or(LOGIN_LIMIT);
    let options = ClientOptions { call_timeout, login_timeout, plugin_says: remark, ..ClientOptions::default() };
    let client = Client::new(&config, options).map_err(failed)?;
    if is_waiting { Waiter::start(&client, &key, timeout)?.run(&client, value) } else { ask(&client, &key, &value) }
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(one_line(&error.to_string(), 1_000))
}

/// Without `--wait`.
fn ask(client: &Client, key: &ObjectKey, value: &str) -> Result<(), CliError> {
    let object = request_run(client, key, value)?;
    let name = &key.name;
    if object.metadata.is_being_deleted() {
        return Err(CliError::Failed(format!("{name} is being deleted; no run starts")));
    }
    if Marker::in_force(&object.metadata, &object.status, object.strategy()).request.as_deref() == Some(value) {
        return print(&format!("{name}: this request was already served\n"));
    }
    if let Some(note) = not_ready(&object) {
        remark(&format!("{name}: {note}"));
    }
    print(&format!("{name}: run requested\n"))
}

/// Sets the annotation. The same value asks once however often it is set, so an answer that is lost does no harm.
fn request_run(client: &Client, key: &ObjectKey, value: &str) -> Result<QuarksJob, CliError> {
    let body = json!({"metadata": {"annotations": {ANNOTATION_RUN_REQUESTED: value}}});
    let request = Request::merge_patch(Resource::QUARKS_JOBS, key, &body);
    let mut pause = RETRY;
    for _ in 1..TRIES {
        match client.call(&request) {
            Err(error) if error.is_transient() => thread::sleep(error.retry_after().unwrap_or(pause).min(RETRY_MAX)),
            other => return other.map_err(|error| explain(&error, key)),
        }
        pause *= 2;
    }
    client.call(&request).map_err(|error| explain(&error, key))
}

fn explain(error: &Error, key: &ObjectKey) -> CliError {
    let is_named = error.status().is_some_and(|status| *status.details.name == *key.name);
    failed(match error {
        error if error.is_not_found() && is_named => return absent(key),
        // For an unknown kind the API server answers in plain text, like a load balancer for an unknown path.
        error if error.code() == Some(404) => format!("{error} (is the CRD missing? run: quarks-job crd | kubectl apply -f -)"),
        error => error.to_string(),
    })
}

fn not_served(name: &str, why: &str) -> CliError {
    CliError::Failed(format!("{name}: request not served: {why}"))
}

fn absent(key: &ObjectKey) -> CliError {
    CliError::Failed(format!("QuarksJob {} not found in namespace {}", key.name, key.namespace))
}

/// A value that was never there before.
fn fresh_value() -> String {
    let random = (Jitter::from_entropy().next_factor() * f64::from(u32::MAX)) as u32;
    format!("{}-{random:08x}", clock::now_micros())
}

/// `1h30m`; at least a second.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let unit = match rest.as_bytes()[end] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            _ => return None,
        };
        seconds = seconds.checked_add(rest[..end].parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = &rest[end + 1..];
    }
    // Sums of instants stay within their range.
    (1..=u64::from(u32::MAX)).contains(&seconds).then(|| Duration::from_secs(seconds))
}

/// Why no run can start now, if that is so.
fn not_ready(object: &QuarksJob) -> Option<String> {
    let ready = object.status.condition("Ready").filter(|ready| !ready.is_true() || ready.reason == "Suspended")?;
    Some(format!("no run starts now: {}: {}", ready.reason, one_line(&ready.message, 300)))
}

/// How a run ended, in a line; and the Secrets that it stored, in another.
fn outcome(name: &str, last: &LastRun) -> String {
    let LastRun { run, job_name, start_time, completion_time, outcome, reason, message, outputs, trigger: _ } = last;
    let mut text = format!("{name}: run {run} {} (Job {job_name}", outcome.as_str());
    if let (Some(start), Some(end)) = (start_time, completion_time)
        && let Some(seconds) = clock::seconds_from(start, end)
    {
        text.push_str(&format!(", {seconds} s"));
    }
    text.push(')');
    if *outcome != Outcome::Succeeded {
        text.push_str(&format!(": {}: {}", one_line(reason, 100), one_line(message, 500)));
    }
    text.push('\n');
    if !outputs.is_empty() {
        let names: Vec<&str> = outputs.iter().map(|output| output.secret.as_str()).collect();
        text.push_str(&format!("{name}: stored {}\n", names.join(", ")));
    }
    text
}

/// What is known of a request while it is waited for. Pure.
#[derive(Debug)]
struct Followed {
    /// The QuarksJob that was asked.
    uid: Uid,
    /// Its version with our request.
    asked: ResourceVersion,
    /// The annotation before ours.
    before: Option<String>,
    /// Our value.
    value: String,
    /// Those that were set over it since: whichever run serves one of them began after our request.
    later: Vec<String>,
    /// The newest run that began before our request, and the value that is the served one when it has ended.
    run_before: u64,
    served_before: Option<String>,
    /// A later run has served another value since.
    is_served_anew: bool,
    /// The watch has shown our request, or a state after it.
    is_seen: bool,
    /// The run that served it, once it is settled.
    run: Option<u64>,
    /// What was reported last.
    told: String,
}

/// What a look at the QuarksJob says.
#[derive(Debug, PartialEq)]
enum Look {
    /// Still waiting; news to report, one line each.
    Waiting(Vec<String>),
    /// The run that served the request has ended.
    Over(Box<LastRun>),
    /// It will not be served, unless a run for it has begun that status does not show yet.
    Unserved(&'static str),
    /// It will not be served.
    Lost(&'static str),
}

impl Followed {
    /// `asked` has the request, `before` is the annotation before it.
    fn new(asked: &QuarksJob, value: String, before: Option<String>) -> Self {
        let marker = Marker::in_force(&asked.metadata, &asked.status, asked.strategy());
        let status = own_status(&asked.metadata, &asked.status);
        let active = active_run(&status);
        Self {
            uid: asked.metadata.uid.clone(),
            asked: asked.metadata.resource_version.clone(),
            before,
            value,
            later: Vec::new(),
            run_before: active.map_or(marker.runs, |active| active.run),
            served_before: active.and_then(request_of_active).or(marker.request),
            is_served_anew: false,
            is_seen: false,
            run: None,
            told: String::new(),
        }
    }

    /// True if a run that serves `request` serves ours.
    fn is_ours(&self, run: u64, request: &str) -> bool {
        let is_later = || self.later.iter().any(|value| value == request) && run > self.run_before;
        request == self.value || (is_later() && (self.is_served_anew || self.served_before.as_deref() != Some(request)))
    }

    /// `is_list`: it comes from a fresh list, and states in between may have been missed.
    fn look(&mut self, object: &QuarksJob, is_list: bool) -> Look {
        if object.metadata.uid != self.uid {
            return Look::Lost("it was deleted and re-created");
        }
        if object.metadata.is_being_deleted() {
            return Look::Lost("it is being deleted");
        }
        let marker = Marker::in_force(&object.metadata, &object.status, object.strategy());
        let status = own_status(&object.metadata, &object.status);
        let value = annotation(object);
        let is_own = value.as_ref() == Some(&self.value);
        // The watch shows every state, those before our request too; a fresh list shows a later one, or that of before.
        self.is_seen |=
            object.metadata.resource_version == self.asked || if value == self.before { is_list && is_own } else { is_own || is_list };
        let is_replaced = self.is_seen && !is_own;
        let is_new = is_replaced && value.as_ref().is_some_and(|value| !self.later.contains(value));
        self.later.extend(value.clone().filter(|_| is_new));
        self.is_served_anew |= marker.runs > self.run_before && marker.request != self.served_before;
        if self.run.is_none() && marker.request.as_ref().is_some_and(|request| self.is_ours(marker.runs, request)) {
            self.run = Some(marker.runs);
        }
        let active = active_run(&status);
        // Whether that value waits, too, is only known when the active run has ended.
        let may_be_served = value == marker.request || value == active.and_then(request_of_active);
        let replaced = || format!("another request replaced this one{}", if may_be_served { "" } else { "; its run serves both" });
        let mut news: Vec<String> = is_new.then(replaced).into_iter().collect();
        if let Some(run) = self.run {
            return match &status.last_run {
                Some(last) if last.run >= run => Look::Over(Box::new(last.clone())),
                _ => Look::Waiting(news),
            };
        }
        let serves = |active: &ActiveRun| request_of_active(active).is_some_and(|request| self.is_ours(active.run, &request));
        let state = match active {
            Some(active) if serves(active) => format!("run {} is active as Job {}", active.run, active.job_name),
            _ if is_replaced && value.is_none() => return Look::Unserved("the request was withdrawn"),
            Some(active) => format!("waiting for run {} to end", active.run),
            None if is_replaced && value == marker.request => {
                return Look::Unserved("another request replaced it, with a value that had been served before");
            }
            None => not_ready(object).unwrap_or_default(),
        };
        if !state.is_empty() && self.told != state {
            news.push(state.clone());
            self.told = state;
        }
        Look::Waiting(news)
    }
}

/// One that has ended and cannot be settled is not active: condition `Ready` says why.
fn active_run(status: &QuarksJobStatus) -> Option<&ActiveRun> {
    status.active.as_ref().filter(|active| status.last_run.as_ref().is_none_or(|last| last.run < active.run))
}

fn request_of_active(active: &ActiveRun) -> Option<String> {
    RunRecord::of_active(active)?.request
}

fn annotation(object: &QuarksJob) -> Option<String> {
    object.metadata.annotations.get(ANNOTATION_RUN_REQUESTED).filter(|value| !value.is_empty()).cloned()
}

/// The QuarksJob, or none if it is gone; and whether that comes from a fresh list.
type Shown = (Vec<Arc<QuarksJob>>, bool);

enum Event {
    Watched(WatchEvent<Arc<QuarksJob>>),
    /// The watch was interrupted, and why.
    Restarted(&'static str),
}

/// Waits with a watch of the one QuarksJob, which starts before the request is made: so no change in between is missed.
struct Waiter<'a> {
    key: &'a ObjectKey,
    start: Instant,
    timeout: Option<Duration>,
    /// What the watch has said and was not handled yet.
    events: Arc<Mutex<VecDeque<Event>>>,
    /// Says that there is something.
    news: Receiver<()>,
    signals: Receiver<()>,
    _watch: crate::watch::WatchHandle,
}

impl<'a> Waiter<'a> {
    fn start(client: &Client, key: &'a ObjectKey, timeout: Option<Duration>) -> Result<Self, CliError> {
        let start = Instant::now();
        // As process 1 of a container it would not hear signals otherwise.
        let signals = super::operator::signals()?;
        let selector = format!("metadata.name={}", key.name);
        // A watch retries forever; what can never work is reported at once.
        let list = Request::list(Resource::QUARKS_JOBS, &key.namespace).field_selector(&selector);
        client.call_unit(&list).map_err(|error| explain(&error, key))?;
        let events = Arc::new(Mutex::new(VecDeque::new()));
        let (waker, news) = bounded(1);
        let queue = Arc::clone(&events);
        let push = move |event| {
            lock(&queue).push_back(event);
            // Full: who waits is woken already.
            let _ = waker.try_send(());
        };
        let restarted = push.clone();
        let spec = WatchSpec {
            namespace: key.namespace.to_string(),
            field_selector: Some(selector),
            on_restart: Some(Arc::new(move |_, reason| restarted(Event::Restarted(reason)))),
            ..WatchSpec::new("watch-qjob", Resource::QUARKS_JOBS)
        };
        let watch = spawn(client, spec, move |event| {
            push(Event::Watched(event));
            ControlFlow::Continue(())
        });
        Ok(Self { key, start, timeout, events, news, signals, _watch: watch })
    }

    fn run(self, client: &Client, value: String) -> Result<(), CliError> {
        let name = &self.key.name;
        let (before, version) = loop {
            if let Some((objects, _)) = self.next(None, None)? {
                let object = objects.first().ok_or_else(|| absent(self.key))?;
                break (annotation(object), object.metadata.resource_version.clone());
            }
        };
        let object = request_run(client, self.key, &value)?;
        let mut followed = Followed::new(&object, value, before);
        let mut look = followed.look(&object, false);
        // What the watch shows next may be older than this answer, if that changed anything.
        followed.is_seen = version == followed.asked;
        let mut unserved: Option<(Instant, &'static str)> = None;
        loop {
            match look {
                Look::Over(last) => {
                    print(&outcome(name, &last))?;
                    return if last.outcome == Outcome::Succeeded { Ok(()) } else { Err(CliError::Said) };
                }
                Look::Lost(why) => return Err(not_served(name, why)),
                Look::Unserved(why) => unserved = Some((unserved.map_or_else(|| Instant::now() + QUIET, |(until, _)| until), why)),
                Look::Waiting(news) => {
                    unserved = None;
                    news.iter().for_each(|text| remark(&format!("{name}: {text}")));
                }
            }
            look = loop {
                if let Some((_, why)) = unserved.filter(|(until, _)| *until <= Instant::now()) {
                    return Err(not_served(name, why));
                }
                if let Some((objects, is_list)) = self.next(Some(&mut followed), unserved.map(|(until, _)| until))? {
                    break objects.first().map_or(Look::Lost("it was deleted"), |object| followed.look(object, is_list));
                }
            };
        }
    }

    /// What the watch shows next; `None` if nothing of the QuarksJob, and at `until` at the latest.
    fn next(&self, followed: Option<&mut Followed>, until: Option<Instant>) -> Result<Option<Shown>, CliError> {
        let name = &self.key.name;
        let left = self.timeout.map(|timeout| timeout.saturating_sub(self.start.elapsed()));
        let request = if followed.is_some() { "the request remains in effect" } else { "no run was requested" };
        let quiet = followed.filter(|followed| followed.told.is_empty());
        let until = until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = [left, until, quiet.is_some().then_some(QUIET)].into_iter().flatten().min();
        let timer = wait.map_or_else(never, crossbeam_channel::after);
        let next = lock(&self.events).pop_front();
        let Some(event) = next else {
            select! {
                recv(self.news) -> news => news.map_err(|_| CliError::Failed("internal error: the watch has stopped; please report this".to_owned()))?,
                recv(self.signals) -> _ => {
                    return Err(CliError::Failed(format!("{name}: interrupted; {request}")));
                }
                recv(timer) -> _ => {
                    if let Some(timeout) = self.timeout.filter(|timeout| self.start.elapsed() >= *timeout) {
                        let seconds = timeout.as_secs();
                        return Err(CliError::TimedOut(format!("{name}: timed out after {seconds} s; {request}")));
                    }
                    if let Some(followed) = quiet.filter(|_| until.is_none()) {
                        followed.told =
                            format!("nothing has happened yet; check that an operator is running and serves namespace {}", self.key.namespace);
                        remark(&format!("{name}: {}", followed.told));
                    }
                }
            }
            return Ok(None);
        };
        match event {
            Event::Watched(WatchEvent::Replaced(mut objects)) => {
                objects.retain(|object| *object.metadata.name == **name);
                Ok(Some((objects, true)))
            }
            Event::Watched(WatchEvent::Applied(object)) => Ok(Some((vec![object], false))),
            Event::Watched(WatchEvent::Deleted(_)) => Ok(Some((Vec::new(), false))),
            Event::Restarted(reason @ ("denied" | "missing")) => {
                Err(CliError::Failed(format!("{name}: cannot watch quarksjobs ({reason}); --wait requires the rights list and watch")))
            }
            Event::Restarted(_) => Ok(None),
        }
    }
}

fn lock(events: &Mutex<VecDeque<Event>>) -> MutexGuard<'_, VecDeque<Event>> {
    // Whole after each statement, so a panic elsewhere does not spoil it.
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "trigger_tests.rs"]
mod tests;
