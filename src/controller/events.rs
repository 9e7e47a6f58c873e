//! Events on QuarksJobs (`events.k8s.io/v1`). Best effort: a thread of its own posts them, repeats are counted in a
//! series, and if the API server does not take them in time they are dropped. Status is the record, Events are the story.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use log::{Level, log, warn};

use crate::api::{API_VERSION, Event, KIND, ObjectKey, ObjectMeta, ObjectReference, Uid};
use crate::clock;
use crate::digest::short_hex;
use crate::kube::{Client, Error};
use crate::shutdown::Shutdown;

use super::action::Action;
use super::names::cut;

/// Name of the controller in Events.
const CONTROLLER: &str = "quarks.cloudfoundry.org/quarks-job";
/// Events that wait to be posted.
const QUEUE_MAX: usize = 4_096;
/// Longest note; the API's limit.
const NOTE_MAX: usize = 1_024;
/// The same Event within this time is counted instead of posted again; Kubernetes' own recorder takes six minutes.
const SERIES_WINDOW: Duration = Duration::from_secs(360);
/// Events remembered for counting.
const REMEMBERED_MAX: usize = 1_024;
/// Tries for one Event.
const TRIES: u32 = 3;
/// While many runs start an Event waits at most this long.
const RUSH_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked whether they still do.
const RUSH_TICK: Duration = Duration::from_millis(50);

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    is_warning: bool,
    reason: &'static str,
    action: &'static str,
    text: String,
}

impl Note {
    /// Something went as it should.
    pub fn normal(reason: &'static str, action: &'static str, text: String) -> Self {
        Self { is_warning: false, reason, action, text }
    }

    /// Someone should look.
    pub fn warning(reason: &'static str, action: &'static str, text: String) -> Self {
        Self { is_warning: true, reason, action, text }
    }
}

type Message = (ObjectKey, Uid, Note);

/// Where workers leave Events. Never blocks.
#[derive(Clone, Debug)]
pub struct EventSender(Sender<Message>);

impl EventSender {
    /// Leaves an Event about a QuarksJob to be posted.
    pub fn send(&self, key: &ObjectKey, uid: &Uid, note: Note) {
        match self.0.try_send((key.clone(), uid.clone(), note)) {
            Ok(()) => {}
            Err(TrySendError::Full((key, _, note))) => warn!("event dropped, too many wait key={key} reason={}", note.reason),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Posts Events; runs on a thread of its own.
#[derive(Debug)]
pub struct EventPoster {
    receiver: Receiver<Message>,
    instance: String,
    rush: Arc<AtomicBool>,
    posted: HashMap<(Uid, Note), Posted>,
    count: u64,
}

#[derive(Debug)]
struct Posted {
    key: ObjectKey,
    times: u32,
    at: Instant,
}

/// A sender and the poster behind it. `instance` names this process in Events; while `rush` is set Events hold back.
pub fn pair(instance: String, rush: Arc<AtomicBool>) -> (EventSender, EventPoster) {
    let (sender, receiver) = bounded(QUEUE_MAX);
    (EventSender(sender), EventPoster { receiver, instance, rush, posted: HashMap::new(), count: 0 })
}

impl EventPoster {
    /// Posts until the shutdown, or until all senders are gone.
    pub fn run(mut self, client: &Client, shutdown: &Shutdown) {
        loop {
            select! {
                recv(shutdown.channel()) -> _ => return,
                recv(self.receiver) -> message => match message {
                    Ok((key, uid, note)) => {
                        self.hold_back(shutdown);
                        self.post(client, shutdown, &key, uid, note);
                    }
                    Err(_) => return,
                },
            }
        }
    }

    /// Lets triggers have the API server to themselves, for a while.
    fn hold_back(&self, shutdown: &Shutdown) {
        let started = Instant::now();
        while self.rush.load(Ordering::Relaxed) && started.elapsed() < RUSH_LIMIT {
            if shutdown.wait(RUSH_TICK) {
                return;
            }
        }
    }

    fn post(&mut self, client: &Client, shutdown: &Shutdown, key: &ObjectKey, uid: Uid, note: Note) {
        let now = Instant::now();
        if self.posted.len() >= REMEMBERED_MAX {
            self.posted.retain(|_, posted| now.duration_since(posted.at) < SERIES_WINDOW);
        }
        if self.posted.len() >= REMEMBERED_MAX {
            self.posted.clear();
        }
        let note_reason = note.reason;
        let id = (uid, note);
        if let Some(posted) = self.posted.get_mut(&id)
            && now.duration_since(posted.at) < SERIES_WINDOW
        {
            posted.times += 1;
            posted.at = now;
            let last_seen = clock::now_micros();
            let action = Action::CountEvent { key: &posted.key, count: posted.times, last_seen: &last_seen };
            match deliver(client, shutdown, &action) {
                Ok(()) => return,
                // It has expired on the server: a new one follows.
                Err(error) if error.is_not_found() => {}
                Err(error) => return log_failure(key, note_reason, &error),
            }
        }
        self.count += 1;
        let event = build_event(key, &id.0, &id.1, &self.instance, self.count);
        let event_key = event.metadata.key();
        match deliver(client, shutdown, &Action::CreateEvent(&event)) {
            Ok(()) => {
                self.posted.insert(id, Posted { key: event_key, times: 1, at: now });
            }
            Err(error) => log_failure(key, note_reason, &error),
        }
    }
}

/// A missing right does not pass by itself; anything else costs an Event and no more.
fn log_failure(key: &ObjectKey, reason: &str, error: &Error) {
    let level = if error.is_missing_right() { Level::Warn } else { Level::Debug };
    log!(level, "event not posted key={key} reason={reason} error={error}");
}

fn deliver(client: &Client, shutdown: &Shutdown, action: &Action<'_>) -> Result<(), Error> {
    let request = action.request();
    let mut tries = 0;
    loop {
        tries += 1;
        match client.call_unit(&request) {
            // An answer was lost, and the create had been done.
            Err(error) if error.is_already_exists() => return Ok(()),
            Err(error) if error.is_transient() && tries < TRIES => {
                if shutdown.wait(error.retry_after().unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(10))) {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}

fn build_event(key: &ObjectKey, uid: &Uid, note: &Note, instance: &str, count: u64) -> Event {
    let time = clock::now_micros();
    let unique = short_hex(format!("{instance} {uid} {time} {count}").as_bytes(), 16);
    // A name has at most 253 characters, and the cut must not end in a dot or dash.
    let stem: String = key.name.chars().take(253 - 17).collect();
    Event {
        metadata: ObjectMeta {
            name: format!("{}.{unique}", stem.trim_end_matches(['.', '-'])),
            namespace: key.namespace.to_string(),
            ..ObjectMeta::default()
        },
        event_time: time,
        action: note.action.to_owned(),
        reason: note.reason.to_owned(),
        note: cut(&note.text, NOTE_MAX).to_owned(),
        kind: if note.is_warning { "Warning" } else { "Normal" }.to_owned(),
        reporting_controller: CONTROLLER.to_owned(),
        reporting_instance: instance.to_owned(),
        regarding: ObjectReference {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: uid.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_the_limits_of_the_api() {
        let key = ObjectKey::new("ns", format!("{}.x", "a".repeat(235)) + &"b".repeat(16));
        let note = Note::warning("InvalidSpec", "Observe", "ä".repeat(2_000));
        let event = build_event(&key, &Uid::from("u"), &note, "pod-1", 1);
        assert!(event.metadata.name.len() <= 253 && event.note.len() <= NOTE_MAX, "{event:?}");
        assert_eq!(event.kind, "Warning");
        assert_ne!(event.metadata.name, build_event(&key, &Uid::from("u"), &note, "pod-1", 2).metadata.name);
    }
}
