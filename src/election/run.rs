//! The thread that holds the Lease: does what [`Elector`] decides, and sets until when writes may leave the process.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{debug, info, warn};
use serde_json::Value;

use crate::api::{ObjectKey, Resource};
use crate::clock;
use crate::kube::{Client, Error, Request};
use crate::moment::Moment;
use crate::shutdown::{self, Shutdown, ShutdownGuard};
use crate::threads::Thread;
use crate::until::Until;

use super::lease::{Answer, Elector, Record, Step, Timing, claim};

/// A thread that has not moved for this long is stuck. Its calls end sooner, and so do its waits.
const STUCK: Duration = Duration::from_secs(60);

/// Largest Lease that is read, in bytes: a few hundred are usual.
const LEASE_MAX: usize = 1024 * 1024;

/// Who stands for which Lease.
#[derive(Clone, Debug)]
pub struct Candidacy {
    /// The Lease.
    pub lease: ObjectKey,
    /// Its holder's name: another one for each process, or a restarted one would take itself for its predecessor.
    pub identity: String,
    /// Limits.
    pub timing: Timing,
}

/// What others may know of an election. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    lease: ObjectKey,
    fence: Until,
    alive: Until,
    answered: Until,
    lost: Arc<OnceLock<String>>,
}

impl Leadership {
    /// Name of the Lease.
    pub fn name(&self) -> &str {
        &self.lease.name
    }

    /// True while this process holds the Lease and may write.
    pub fn is_leader(&self) -> bool {
        self.fence.holds()
    }

    /// The thread moves.
    pub fn is_alive(&self) -> bool {
        self.alive.holds()
    }

    /// Of one that waits: it moves, and the API server has let it look at the Lease not long ago.
    pub fn is_ready(&self) -> bool {
        self.is_alive() && self.answered.holds()
    }

    /// Why the Lease was lost, once it was.
    pub fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// How long until it is lost if it is not renewed; zero for one that does not lead.
    pub fn left(&self) -> Duration {
        self.fence.left()
    }
}

/// A running candidate.
#[derive(Debug)]
pub struct Election {
    leadership: Leadership,
    stop: ShutdownGuard,
    turns: Receiver<()>,
    thread: Thread,
}

/// Starts the thread. `fence` is that of the client that does the work; `client` must not have it.
pub fn start(client: Client, candidacy: Candidacy, fence: Until, panics: &Sender<&'static str>) -> io::Result<Election> {
    let Candidacy { lease, identity, timing } = candidacy;
    info!(lease:%, identity:%; "leader election started");
    let leadership = Leadership { lease, fence, alive: Until::default(), answered: Until::default(), lost: Arc::default() };
    leadership.alive.set(Moment::now() + STUCK);
    let (stop, stopped) = shutdown::pair();
    // It leads once and loses once.
    let (turn, turns) = bounded(2);
    // A tenth is enough to come apart, and a Lease that is given back is seen within 3 s.
    let jitter = Duration::from_millis(RandomState::new().build_hasher().finish() % (timing.retry.as_millis() as u64 / 10).max(1));
    let candidate = Candidate {
        elector: Elector::new(identity.clone(), timing, jitter, Moment::now()),
        client,
        leadership: leadership.clone(),
        identity,
        timing,
        object: Value::Null,
        told_holder: String::new(),
        is_failing: false,
    };
    let thread = Thread::spawn("election", panics, move || candidate.run(&stopped, &turn))?;
    Ok(Election { leadership, stop, turns, thread })
}

impl Election {
    /// For health checks and metrics.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Becomes ready when the Lease is held, and again when it is lost.
    pub fn turns(&self) -> &Receiver<()> {
        &self.turns
    }

    /// Releases the Lease, if it is held, and waits for that no longer than `limit`. All work must be over.
    pub fn stop(self, limit: Duration) {
        let Self { leadership: _, stop, turns: _, thread } = self;
        drop(stop);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && !thread.is_finished() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if thread.is_finished() {
            thread.join();
        } else {
            warn!("the Lease was not released in time");
        }
    }
}

struct Candidate {
    elector: Elector,
    client: Client,
    leadership: Leadership,
    identity: String,
    timing: Timing,
    /// The Lease as last read or written, so that what others have put into it stays.
    object: Value,
    told_holder: String,
    /// The last call did not work: one line is enough.
    is_failing: bool,
}

impl Candidate {
    fn run(mut self, stop: &Shutdown, turn: &Sender<()>) {
        loop {
            let now = Moment::now();
            self.leadership.alive.set(now + STUCK);
            let wait = match self.elector.step(now) {
                Step::Wait(duration) => duration,
                Step::Lost(lost) => {
                    self.leadership.fence.end();
                    // Set once: the thread ends here.
                    let _ = self.leadership.lost.set(lost.to_string());
                    let _ = turn.try_send(());
                    return;
                }
                Step::Read => self.send(&Request::get(Resource::LEASES, &self.leadership.lease), now),
                Step::Create => {
                    let ObjectKey { namespace, name } = self.leadership.lease.clone();
                    self.object = Value::Null;
                    self.object["apiVersion"] = "coordination.k8s.io/v1".into();
                    self.object["kind"] = "Lease".into();
                    self.object["metadata"]["name"] = (*name).into();
                    self.claim();
                    self.send(&Request::create(Resource::LEASES, &namespace, &self.object), now)
                }
                Step::Write => {
                    self.claim();
                    self.send(&Request::update(Resource::LEASES, &self.leadership.lease, &self.object), now)
                }
            };
            if let Some(until) = self.elector.until() {
                let is_first = !self.leadership.fence.holds();
                self.leadership.fence.set(until);
                if is_first && self.leadership.fence.holds() {
                    info!(lease:% = self.leadership.lease; "became leader");
                    let _ = turn.try_send(());
                }
            }
            if stop.wait(wait) {
                return self.release();
            }
        }
    }

    /// Before each write the object is read or written, so a claim that fails is not built upon.
    fn claim(&mut self) {
        claim(&mut self.object, &self.identity, self.timing.lease.as_secs(), &clock::now_micros());
    }

    /// Sends it and takes in what comes of it; what follows is decided at once.
    fn send(&mut self, request: &Request, sent: Moment) -> Duration {
        let result = self.client.call_text(request, LEASE_MAX);
        let now = Moment::now();
        let answer = match result {
            Ok(body) => {
                self.object = serde_json::from_slice(&body).unwrap_or_default();
                if self.object.is_object() {
                    self.good(now);
                    let record = Record::of(&self.object);
                    if request.method.is_write() { Answer::Written(record) } else { Answer::Found(record) }
                } else {
                    warn!(lease:% = self.leadership.lease; "cannot decode the Lease; will retry");
                    Answer::Failed
                }
            }
            Err(error) if error.is_not_found() && !request.method.is_write() => {
                self.good(now);
                Answer::Absent
            }
            Err(error) if error.is_conflict() || error.is_already_exists() => {
                self.good(now);
                Answer::Conflict
            }
            Err(error) => {
                self.bad(&error);
                Answer::Failed
            }
        };
        self.elector.take_in(answer, sent, now);
        let holder = self.elector.holder();
        if !holder.is_empty() && holder != self.told_holder && holder != self.identity {
            info!(lease:% = self.leadership.lease, holder:%; "waiting for the Lease");
            self.told_holder = holder.to_owned();
        }
        Duration::ZERO
    }

    fn good(&mut self, now: Moment) {
        self.leadership.answered.set(now + self.timing.lease);
        self.is_failing = false;
    }

    fn bad(&mut self, error: &Error) {
        let lease = &self.leadership.lease;
        if self.is_failing {
            debug!(lease:%, error:%; "Lease still not available");
        } else if let (true, Error::Status { verb, .. }) = (error.is_forbidden(), error) {
            warn!(
                verb:%, resource:% = "leases.coordination.k8s.io", namespace:% = lease.namespace, name:% = lease.name, error:%, remedy:% = "kubectl apply -f manifests/leader-election.yaml";
                "not allowed to use the Lease; will retry"
            );
        } else {
            warn!(lease:%, error:%; "Lease not available; will retry");
        }
        self.is_failing = true;
    }

    /// Nobody has to wait for the Lease of a process that has ended. If it does not work they wait.
    fn release(mut self) {
        let is_leader = self.elector.until().is_some();
        self.leadership.fence.end();
        if !is_leader {
            return;
        }
        let lease = self.leadership.lease.clone();
        if !self.elector.is_ours() {
            // A renewal that got no answer: the version may be another one now.
            self.send(&Request::get(Resource::LEASES, &lease), Moment::now());
        }
        if !self.elector.is_ours() {
            return;
        }
        claim(&mut self.object, "", 1, &clock::now_micros());
        match self.client.call_unit(&Request::update(Resource::LEASES, &lease, &self.object)) {
            Ok(()) => info!(lease:%; "Lease released"),
            Err(error) => warn!(lease:%, error:%; "cannot release the Lease"),
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
