//! What can go wrong with a request or a watch, and when. Pure bookkeeping: `server` carries it out.
//! Not for semantic failures such as a quota: answer those with `Fault::Answer`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::http::{Request, Response};

/// Runs on the server's thread; must not call back into the server by HTTP.
pub type Callback = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
pub enum Fault {
    /// The callback (say, SIGKILL of the client) runs, nothing is applied.
    KillBefore(Callback),
    /// Applied, then the callback; no reply.
    KillAfter(Callback),
    /// Applied, then the connection closes without a reply.
    LoseReply,
    /// Closed at once, nothing applied.
    Reset,
    /// Not applied until the gate opens.
    Hold(Gate),
    /// Applied; the reply waits for the gate.
    HoldReply(Gate),
    /// Not applied; this is the answer.
    Answer(Response),
    /// Applied; these headers are added to the reply (`Warning`, ...).
    AddHeaders(Vec<(String, String)>),
    /// Applied; the reply stops half-way through its body.
    HalfBody,
    /// Not applied, never answered, the connection stays open.
    BlackHole,
    /// For a watch: what happens at which frame.
    Frames(Vec<FrameFault>),
}

impl Fault {
    /// `Answer` with a `Status` body; `retry_after` in seconds or as a date.
    pub fn status(code: u16, reason: &str, message: &str, retry_after: Option<&str>) -> Fault {
        let response = Response::failure(code, reason, message, serde_json::Value::Null);
        Fault::Answer(match retry_after {
            Some(value) => response.with_header("Retry-After", value),
            None => response,
        })
    }

    /// `Answer` of a load balancer, not of the API server.
    pub fn text(code: u16, text: &str) -> Fault {
        Fault::Answer(Response::new(code, "text/plain", text.as_bytes().to_vec()))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Fault::KillBefore(_) => "KillBefore",
            Fault::KillAfter(_) => "KillAfter",
            Fault::LoseReply => "LoseReply",
            Fault::Reset => "Reset",
            Fault::Hold(_) => "Hold",
            Fault::HoldReply(_) => "HoldReply",
            Fault::Answer(_) => "Answer",
            Fault::AddHeaders(_) => "AddHeaders",
            Fault::HalfBody => "HalfBody",
            Fault::BlackHole => "BlackHole",
            Fault::Frames(_) => "Frames",
        }
    }
}

/// Positions count the frames of the source from 0. `Drop`, `Duplicate` and `Split` act on that frame,
/// the others before it, also when that frame never comes.
#[derive(Clone)]
pub enum FrameFault {
    Drop(usize),
    Duplicate(usize),
    /// Sent in chunks of so many bytes.
    Split(usize, usize),
    Hold(usize, Gate),
    /// A raw line; the newline is yours to add.
    Inject(usize, Vec<u8>),
    /// A clean end of the stream.
    End(usize),
    /// The connection closes in the middle of the stream.
    Cut(usize),
    /// From here on no byte, the connection stays open.
    Silence(usize),
}

impl FrameFault {
    pub fn position(&self) -> usize {
        match self {
            FrameFault::Drop(at)
            | FrameFault::Duplicate(at)
            | FrameFault::Split(at, _)
            | FrameFault::Hold(at, _)
            | FrameFault::Inject(at, _)
            | FrameFault::End(at)
            | FrameFault::Cut(at)
            | FrameFault::Silence(at) => *at,
        }
    }
}

/// Closed until `open`, then open for good.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        self.0.0.lock().expect("gate").0 = true;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        let mut state = self.0.0.lock().expect("gate");
        state.1 += 1;
        while !state.0 {
            state = self.0.1.wait(state).expect("gate");
        }
    }

    pub fn is_open(&self) -> bool {
        self.0.0.lock().expect("gate").0
    }

    /// How many came to the gate, waiting or through.
    pub fn arrived(&self) -> usize {
        self.0.0.lock().expect("gate").1
    }
}

type Predicate = Box<dyn Fn(&Request) -> bool + Send>;

/// Which requests a rule is about: `When::mutation().nth(3)`, `When::post("/jobs").every()`.
pub struct When {
    test: Predicate,
    skip: usize,
    times: usize,
}

impl When {
    pub fn matching(test: impl Fn(&Request) -> bool + Send + 'static) -> When {
        When { test: Box::new(test), skip: 0, times: 1 }
    }

    pub fn any() -> When {
        When::matching(|_| true)
    }

    pub fn mutation() -> When {
        When::matching(Request::is_mutation)
    }

    /// A request of this method whose path contains `part`; watches are not `GET`s here.
    pub fn request(method: &'static str, part: &'static str) -> When {
        When::matching(move |r| r.method == method && r.path.contains(part) && !r.is_watch())
    }

    pub fn watch(part: &'static str) -> When {
        When::matching(move |r| r.is_watch() && r.path.contains(part))
    }

    /// The k-th match from now, counted from 1 (the default is the first).
    pub fn nth(mut self, k: usize) -> When {
        self.skip = k - 1;
        self
    }

    pub fn times(mut self, times: usize) -> When {
        self.times = times;
        self
    }

    pub fn every(self) -> When {
        self.times(usize::MAX)
    }
}

/// Tells how often a rule has acted. Dropping it changes nothing; `cancel` ends the rule.
#[derive(Clone)]
pub struct Rule(Arc<(AtomicUsize, AtomicUsize)>);

impl Rule {
    pub fn hits(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn cancel(&self) {
        self.0.1.store(1, Ordering::SeqCst);
    }
}

/// The rules in force; the first that applies to a request acts, and all of them count it.
#[derive(Default)]
pub struct Faults(Mutex<Vec<(When, Fault, Rule)>>);

impl Faults {
    pub fn add(&self, when: When, fault: Fault) -> Rule {
        let rule = Rule(Arc::default());
        let entry = (when, fault, rule.clone());
        self.0.lock().expect("faults").push(entry);
        rule
    }

    pub fn clear(&self) {
        self.0.lock().expect("faults").clear();
    }

    pub fn take(&self, request: &Request) -> Option<Fault> {
        let mut rules = self.0.lock().expect("faults");
        rules.retain(|(when, _, rule)| when.times > 0 && rule.0.1.load(Ordering::SeqCst) == 0);
        let mut found = None;
        for (when, fault, rule) in rules.iter_mut() {
            if !(when.test)(request) {
                continue;
            }
            if when.skip > 0 {
                when.skip -= 1;
            } else if found.is_none() && when.times > 0 {
                when.times -= 1;
                rule.0.0.fetch_add(1, Ordering::SeqCst);
                found = Some(fault.clone());
            }
        }
        found
    }
}

/// The frame faults of one watch, in order of position.
pub struct FramePlan(VecDeque<FrameFault>);

impl FramePlan {
    pub fn new(mut faults: Vec<FrameFault>) -> FramePlan {
        faults.sort_by_key(FrameFault::position);
        FramePlan(faults.into())
    }

    /// The next fault that acts before frame `at`, or with `on_frame` the next that acts on it.
    pub fn next(&mut self, at: usize, on_frame: bool) -> Option<FrameFault> {
        use FrameFault::{Drop, Duplicate, Split};
        let index =
            self.0.iter().position(|fault| fault.position() == at && matches!(fault, Drop(_) | Duplicate(_) | Split(..)) == on_frame)?;
        self.0.remove(index)
    }
}
