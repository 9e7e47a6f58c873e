//! Events on QuarksJobs (`events.k8s.io/v1`). Best effort: a separate thread posts them, repeats are counted in a series, and
//! Events that the API server does not accept in time are dropped. Status is the record, Events are the story.
//!
//! Promises: a namespace whose Events are not accepted delays no other (`outbox`); Events of one object keep their order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use log::{Level, debug, log, warn};

use crate::api::{API_VERSION, Event, KIND, NAME_MAX, ObjectKey, ObjectMeta, ObjectReference, Uid};
use crate::clock;
use crate::digest::short_hex;
use crate::kube::{Client, Error};
use crate::rules::names::cut;
use crate::shutdown::Shutdown;

use super::action::Action;
use super::note::Note;
use super::outbox::{Offered, Outbox};

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
const TRIES: u32 = 5;
/// Limit on one call: an admission webhook that hangs in one namespace must not delay the others' Events for long.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// A namespace whose call failed waits for so many times as long as the call took: its share of the poster is small.
const SHARE: u32 = 10;
/// How often the thread looks up when nothing waits.
const IDLE: Duration = Duration::from_secs(60);

/// What is to be posted.
#[derive(Debug)]
struct Message {
    key: ObjectKey,
    uid: Uid,
    note: Note,
    tries: u32,
    /// As it was sent: an answer may have been lost.
    event: Option<Box<Event>>,
}

/// Where workers leave Events. Never blocks.
#[derive(Clone, Debug)]
pub struct EventSender(Sender<Message>);

impl EventSender {
    /// Leaves an Event about a QuarksJob to be posted.
    pub fn send(&self, key: &ObjectKey, uid: &Uid, note: Note) {
        match self.0.try_send(Message { key: key.clone(), uid: uid.clone(), note, tries: 0, event: None }) {
            Ok(()) => {}
            Err(TrySendError::Full(message)) => log_full(&message),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Posts Events; runs on a thread of its own.
#[derive(Debug)]
pub struct EventPoster {
    receiver: Receiver<Message>,
    instance: String,
    posted: HashMap<(Uid, Note), Posted>,
    outbox: Outbox<Message>,
    count: u64,
}

#[derive(Debug)]
struct Posted {
    key: ObjectKey,
    times: u32,
    at: Instant,
}

/// A sender and the poster behind it. `instance` names this process in Events.
pub fn pair(instance: String) -> (EventSender, EventPoster) {
    let (sender, receiver) = bounded(QUEUE_MAX);
    (EventSender(sender), EventPoster { receiver, instance, posted: HashMap::new(), outbox: Outbox::default(), count: 0 })
}

impl EventPoster {
    /// Posts until the shutdown, or until all senders are gone.
    pub fn run(mut self, client: &Client, shutdown: &Shutdown) {
        loop {
            let wait = self.outbox.next_due().map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
            // When something is due and something new arrives, each gets its turn.
            select! {
                recv(shutdown.channel()) -> _ => return,
                recv(self.receiver) -> message => match message {
                    Ok(message) => {
                        let namespace = Arc::clone(&message.key.namespace);
                        match self.outbox.offer(&namespace, message, Instant::now()) {
                            Offered::PostNow(message) => self.post(client, message),
                            Offered::Waits => {}
                            Offered::Full(message) => log_full(&message),
                        }
                    }
                    Err(_) => return,
                },
                default(wait) => {}
            }
            if let Some(message) = self.outbox.take(Instant::now()) {
                self.post(client, message);
            }
        }
    }

    /// Posts, or puts aside what may be taken later.
    fn post(&mut self, client: &Client, mut message: Message) {
        let started = Instant::now();
        let delivered = self.deliver(client, &mut message, started);
        let (now, namespace) = (Instant::now(), Arc::clone(&message.key.namespace));
        let Err(error) = delivered else { return self.outbox.answered(&namespace, now) };
        if error.is_transient() {
            message.tries += 1;
            let is_over = message.tries >= TRIES;
            if is_over {
                log_failure(&message, &error);
            } else {
                debug!(key:% = message.key, reason:% = message.note.reason, error:%; "Event deferred");
            }
            let at_least = error.retry_after().unwrap_or_default().max(now.duration_since(started) * SHARE);
            if let Some(message) = self.outbox.failed(&namespace, Some(message).filter(|_| !is_over), at_least, now) {
                log_full(&message);
            }
        } else if !error.is_shutdown() {
            log_failure(&message, &error);
            self.outbox.answered(&namespace, now);
        }
    }

    fn deliver(&mut self, client: &Client, message: &mut Message, now: Instant) -> Result<(), Error> {
        if self.posted.len() >= REMEMBERED_MAX {
            self.posted.retain(|_, posted| now.duration_since(posted.at) < SERIES_WINDOW);
        }
        if self.posted.len() >= REMEMBERED_MAX {
            self.posted.clear();
        }
        let Message { key, uid, note, tries: _, event } = message;
        let id = (uid.clone(), note.clone());
        if event.is_none()
            && let Some(posted) = self.posted.get_mut(&id)
            && now.duration_since(posted.at) < SERIES_WINDOW
        {
            let last_seen = clock::now_micros();
            // The same number when it is retried.
            let action = Action::CountEvent { key: &posted.key, count: posted.times + 1, last_seen: &last_seen };
            match client.call_unit_within(&action.request(), CALL_LIMIT) {
                Ok(()) => {
                    posted.times += 1;
                    posted.at = now;
                    return Ok(());
                }
                // It has expired on the server: a new one follows.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        self.count += 1;
        let event = event.get_or_insert_with(|| Box::new(build_event(key, &id.0, &id.1, &self.instance, self.count)));
        match client.call_unit_within(&Action::CreateEvent(event).request(), CALL_LIMIT) {
            Ok(()) => {}
            // An answer was lost, and the create had been done.
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        self.posted.insert(id, Posted { key: event.metadata.key(), times: 1, at: now });
        Ok(())
    }
}

fn log_full(message: &Message) {
    warn!(key:% = message.key, reason:% = message.note.reason; "Event dropped, too many pending");
}

/// A missing right is not temporary; anything else costs only an Event.
fn log_failure(message: &Message, error: &Error) {
    let level = if error.is_missing_right() { Level::Warn } else { Level::Debug };
    log!(level, key:% = message.key, reason:% = message.note.reason, error:%; "Event not posted");
}

fn build_event(key: &ObjectKey, uid: &Uid, note: &Note, instance: &str, count: u64) -> Event {
    let time = clock::now_micros();
    let unique = short_hex(format!("{instance} {uid} {time} {count}").as_bytes(), 16);
    // Room for a dot and what makes the name unique; the cut must not end in a dot or dash.
    let stem: String = key.name.chars().take(NAME_MAX - 17).collect();
    Event {
        metadata: ObjectMeta {
            name: format!("{}.{unique}", stem.trim_end_matches(['.', '-'])),
            namespace: key.namespace.to_string(),
            ..ObjectMeta::default()
        },
        event_time: time,
        action: note.action.to_owned(),
        reason: note.reason.to_string(),
        note: cut(&note.text, NOTE_MAX).to_owned(),
        kind: if note.reason.event() == Some(false) { "Normal" } else { "Warning" }.to_owned(),
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
    use std::thread;

    use serde_json::{Value, json};

    use super::*;
    use crate::contract::reason::Reason;
    use crate::kube::ClientOptions;
    use crate::kube::config::Auth;
    use crate::kube::scripted::{Reply, Script};
    use crate::kube::transport::{Limit, TransportErrorKind};
    use crate::shutdown;

    #[test]
    fn events_keep_the_limits_of_the_api() {
        let key = ObjectKey::new("ns", format!("{}.x", "a".repeat(235)) + &"b".repeat(16));
        let note = Note::new(Reason::InvalidSpec, "Observe", "ä".repeat(2_000));
        let event = build_event(&key, &Uid::from("u"), &note, "pod-1", 1);
        assert!(event.metadata.name.len() <= 253 && event.note.len() <= NOTE_MAX, "{event:?}");
        assert_eq!(event.kind, "Warning");
        assert_ne!(event.metadata.name, build_event(&key, &Uid::from("u"), &note, "pod-1", 2).metadata.name);
    }

    /// Posts these notes, namespace and text, with these answers; returns namespace and text of each request.
    fn posted(notes: &[(&str, &str)], replies: impl IntoIterator<Item = Reply>, requests: usize) -> Vec<String> {
        let script = Script::new(replies);
        let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default());
        let (sender, poster) = pair("i".to_owned());
        for (namespace, text) in notes {
            let note = Note::new(Reason::JobCreated, "Action", (*text).to_owned());
            sender.send(&ObjectKey::new(*namespace, "q"), &Uid::from(*namespace), note);
        }
        let (guard, shutdown) = shutdown::pair();
        let thread = thread::spawn({
            let client = client.clone();
            move || poster.run(&client, &shutdown)
        });
        script.wait_for(requests);
        drop((guard, sender));
        client.shutdown();
        thread.join().expect("no panic");
        let said = |seen: &crate::kube::scripted::Seen| {
            let body: Value = serde_json::from_slice(seen.body.as_deref().expect("a body")).expect("JSON");
            let namespace = seen.path_and_query.split('/').nth(5).unwrap_or_default().to_owned();
            match body["series"]["count"].as_u64() {
                Some(count) => format!("{namespace} count {count}"),
                None => format!("{namespace} {}", body["note"].as_str().unwrap_or_default()),
            }
        };
        script.seen().iter().map(said).collect()
    }

    fn made() -> Reply {
        Reply::json(201, &json!({}))
    }

    #[test]
    fn a_namespace_that_is_told_to_wait_holds_up_no_other() {
        let busy = Reply::text(429, "Too many requests").retry_after("600");
        let seen = posted(&[("a", "1"), ("b", "1"), ("a", "2"), ("b", "2"), ("c", "1")], [busy, made(), made(), made()], 4);
        assert_eq!(seen, ["a 1", "b 1", "b 2", "c 1"]);
    }

    #[test]
    fn what_failed_is_tried_again_in_order_and_what_is_refused_is_not() {
        let refused = Reply::json(403, &json!({"kind": "Status", "apiVersion": "v1", "code": 403, "reason": "Forbidden", "message": "no"}));
        let replies = [Reply::Fail(TransportErrorKind::Other), refused, made(), made()];
        let seen = posted(&[("a", "1"), ("b", "1"), ("a", "2")], replies, 4);
        assert_eq!(seen, ["a 1", "b 1", "a 1", "a 2"]);
    }

    #[test]
    fn a_lost_answer_makes_no_second_event() {
        let exists = Reply::json(409, &json!({"kind": "Status", "apiVersion": "v1", "code": 409, "reason": "AlreadyExists"}));
        let script = Script::new([Reply::Fail(TransportErrorKind::Other), exists]);
        let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default());
        let (_, mut poster) = pair("i".to_owned());
        let note = Note::new(Reason::JobCreated, "Action", String::new());
        poster.post(&client, Message { key: ObjectKey::new("a", "q"), uid: "u".into(), note, tries: 0, event: None });
        let later = poster.outbox.next_due().expect("it is put aside");
        let message = poster.outbox.take(later).expect("it is due");
        poster.post(&client, message);
        assert_eq!((poster.outbox.next_due(), poster.posted.len()), (None, 1));
        let seen = script.seen();
        assert_eq!((&seen[0].body, seen[0].limit), (&seen[1].body, Limit::Within(CALL_LIMIT)));
    }

    #[test]
    fn an_event_is_given_up_after_some_tries() {
        let script = Script::new(vec![Reply::Fail(TransportErrorKind::Other); 5]);
        let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default());
        let (_, mut poster) = pair("i".to_owned());
        let note = Note::new(Reason::JobCreated, "Action", String::new());
        let mut next = Some(Message { key: ObjectKey::new("a", "q"), uid: "u".into(), note, tries: 0, event: None });
        while let Some(message) = next {
            poster.post(&client, message);
            next = poster.outbox.next_due().and_then(|due| poster.outbox.take(due));
        }
        assert_eq!(script.seen().len(), 5);
    }

    #[test]
    fn repeats_are_counted() {
        let failed = Reply::json(500, &json!({"kind": "Status", "apiVersion": "v1", "code": 500, "reason": "InternalError"}));
        let gone = Reply::json(404, &json!({"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound"}));
        let replies = [made(), made(), failed, made(), gone, made()];
        let seen = posted(&[("a", "1"); 4], replies, 6);
        assert_eq!(seen, ["a 1", "a count 2", "a count 3", "a count 3", "a count 4", "a 1"]);
    }
}
