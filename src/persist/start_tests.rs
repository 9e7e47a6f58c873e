//! The whole sidecar but for its process: threads, loop and store against a small API server in memory.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, never, unbounded};
use serde_json::{Value, json};

use crate::contract::report::OutputErrorReason;
use crate::contract::report::StoredSecret;
use crate::kube::Method;
use crate::kube::config::Auth;
use crate::kube::scripted::TempDir;
use crate::kube::transport::{HttpRequest, HttpResponse, Transport, TransportError, TransportErrorKind};
use crate::persist::messages::StoreEvent;

use super::*;

const CANARY: &str = "CANARY-s3cr3t";

#[derive(Clone)]
struct Server {
    /// Frames of the pod's watch; closed on shutdown by dropping the receiver's end is not needed: tests end first.
    frames: Receiver<String>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    secrets: BTreeMap<String, Value>,
    requests: Vec<String>,
    closed: bool,
    /// Creates hang until shutdown.
    hang: bool,
}

struct Frames {
    server: Server,
    rest: Vec<u8>,
}

impl Server {
    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    fn wait_closed(&self) {
        while !self.lock().closed {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.server.frames.recv_timeout(Duration::from_millis(2)) {
                Ok(frame) => self.rest = frame.into_bytes(),
                Err(_) if self.server.lock().closed => return Err(io::ErrorKind::NotConnected.into()),
                Err(_) => {}
            }
        }
        let amount = self.rest.len().min(buffer.len());
        buffer[..amount].copy_from_slice(&self.rest[..amount]);
        self.rest.drain(..amount);
        Ok(amount)
    }
}

impl Transport for Server {
    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, TransportError> {
        let path = request.path_and_query.split('?').next().unwrap_or_default().to_owned();
        self.lock().requests.push(format!("{} {path}", request.method.as_str()));
        let answer = |status, value: Value| {
            let body = Box::new(io::Cursor::new(value.to_string().into_bytes()));
            Ok(HttpResponse { status, retry_after: None, warnings: Vec::new(), body })
        };
        if path.ends_with("/pods") {
            let body = Box::new(Frames { server: self.clone(), rest: Vec::new() });
            return Ok(HttpResponse { status: 200, retry_after: None, warnings: Vec::new(), body });
        }
        if path.ends_with("/quarksjobs/q") {
            return answer(200, json!({"metadata": {"name": "q", "uid": "u"}}));
        }
        assert_eq!(request.method, Method::Post, "{path}");
        if self.lock().hang {
            self.wait_closed();
            return Err(TransportError { kind: TransportErrorKind::Other, message: "closed".into() });
        }
        let body: Value = serde_json::from_slice(request.body.unwrap().1).unwrap();
        self.lock().secrets.insert(body["metadata"]["name"].as_str().unwrap().to_owned(), body.clone());
        answer(201, body)
    }

    fn fork(&self) -> Arc<dyn Transport> {
        Arc::new(self.clone())
    }

    fn shutdown(&self) {
        self.lock().closed = true;
    }
}

struct Bench {
    server: Server,
    frames: Sender<String>,
    events: Sender<LoopEvent>,
    thread: thread::JoinHandle<Finish>,
    _root: TempDir,
}

impl Bench {
    fn new(hang: bool) -> Self {
        let root = TempDir::new();
        for container in ["a", "b"] {
            std::fs::create_dir(root.path().join(container)).unwrap();
        }
        std::fs::write(root.path().join("a/f"), format!("{{\"k\":\"{CANARY}\"}}")).unwrap();
        std::fs::write(root.path().join("b/f"), format!("{{\"k\":[\"{CANARY}\"]}}")).unwrap();
        let plan = json!({
            "quarksJob": "q", "uid": "u", "run": 1,
            "containers": {"a": {"files": {"f": {"name": "s"}}}, "b": {"files": {"f": {"name": "t"}}}},
        });
        let environment = Environment::for_tests(plan, root.path());
        let (frames, receiver) = unbounded();
        let server = Server { frames: receiver, shared: Arc::new(Mutex::new(Shared { hang, ..Shared::default() })) };
        let client = Client::with_transport(Arc::new(server.clone()), &Auth::None, ClientOptions::default());
        let channels = Channels::new();
        let events = channels.events.0.clone();
        let thread = thread::spawn(move || run_with(&environment, &client, Until::default(), channels, 1).unwrap());
        Self { server, frames, events, thread, _root: root }
    }

    fn pod(&self, uid: &str, a: Value, b: Value) {
        let pod = json!({
            "metadata": {"name": "p", "uid": uid, "resourceVersion": "7"},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}, {"name": "output-persist"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "a", "state": a}, {"name": "b", "state": b}]},
        });
        self.frames.send(format!("{}\n", json!({"type": "MODIFIED", "object": pod}))).unwrap();
    }

    fn wait_for(&self, what: &str) {
        let start = Instant::now();
        while !self.server.lock().requests.iter().any(|request| request.contains(what)) {
            assert!(start.elapsed() < Duration::from_secs(20), "waited for {what}: {:?}", self.server.lock().requests);
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(self) -> Finish {
        let finish = self.thread.join().unwrap();
        let text = finish.report.encode();
        assert!(!text.contains("CANARY") && !text.contains("s3cr3t"), "{text}");
        finish
    }
}

fn running() -> Value {
    json!({"running": {}})
}

fn ended() -> Value {
    json!({"terminated": {"exitCode": 0}})
}

#[test]
fn each_container_is_stored_as_it_ends_and_the_report_tells_all() {
    let bench = Bench::new(false);
    bench.pod("earlier", ended(), ended());
    bench.pod("pod", running(), running());
    bench.pod("pod", ended(), running());
    bench.wait_for("POST /api/v1/namespaces/ns/secrets");
    bench.pod("pod", ended(), ended());
    let server = bench.server.clone();
    let finish = bench.end();
    assert!(finish.ending == ExitReason::Done && !finish.report.stored);
    assert_eq!(finish.report.secrets, [StoredSecret { name: "s".into(), version: None, container: "a".into(), file: "f".into() }]);
    assert_eq!(finish.report.errors.len(), 1);
    assert_eq!(finish.report.errors[0].message, "key \"k\" must be a string, not an array");
    assert_eq!(
        server.lock().requests,
        [
            "GET /api/v1/namespaces/ns/pods",
            "GET /apis/quarks.cloudfoundry.org/v1alpha1/namespaces/ns/quarksjobs/q",
            "POST /api/v1/namespaces/ns/secrets"
        ]
    );
    assert_eq!(server.lock().secrets["s"]["data"]["k"], "Q0FOQVJZLXMzY3IzdA==");
}

#[test]
fn a_stop_ends_the_wait_at_once() {
    let bench = Bench::new(false);
    bench.pod("pod", running(), running());
    bench.wait_for("GET /api/v1/namespaces/ns/pods");
    let start = Instant::now();
    bench.events.send(LoopEvent::Stop).unwrap();
    let finish = bench.end();
    assert!(finish.ending == ExitReason::Stopped && !finish.report.is_success() && start.elapsed() < Duration::from_secs(1));
    assert!(finish.report.errors.iter().all(|error| error.reason == OutputErrorReason::OutputNotStored));
}

#[test]
fn a_stop_while_the_api_server_hangs_ends_in_two_seconds() {
    let bench = Bench::new(true);
    bench.pod("pod", ended(), running());
    bench.wait_for("POST /api/v1/namespaces/ns/secrets");
    let start = Instant::now();
    bench.events.send(LoopEvent::Stop).unwrap();
    let finish = bench.end();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(finish.ending == ExitReason::Stopped && finish.report.secrets.is_empty() && finish.report.errors.len() == 2);
}

/// The loop alone, told the given events.
fn run_events(events: Vec<LoopEvent>) -> Finish {
    let plan = json!({"quarksJob": "q", "uid": "u", "run": 1, "containers": {"a": {"files": {"f": {"name": "s"}}}}});
    let environment = Environment::for_tests(plan, std::path::Path::new("/nonexistent"));
    let (sender, receiver) = unbounded();
    let files = UnseenFiles::start(&environment, &sender, &unbounded().0);
    for event in events {
        sender.send(event).unwrap();
    }
    drop(sender);
    run_loop(&environment, &receiver, &never(), &unbounded().0, files)
}

fn ended_pod() -> LoopEvent {
    let pod = json!({
        "metadata": {"name": "p", "uid": "pod"}, "spec": {"restartPolicy": "Never"},
        "status": {"containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0}}}]},
    });
    LoopEvent::Pod(Box::new(serde_json::from_value(pod).unwrap()))
}

fn finished() -> LoopEvent {
    LoopEvent::Store(StoreEvent::Finished("a".into()))
}

#[test]
fn after_a_stop_what_had_ended_is_still_stored() {
    let finish = run_events(vec![ended_pod(), LoopEvent::Stop, finished()]);
    assert!(finish.ending == ExitReason::Stopped && finish.report.is_success());
}

#[test]
fn a_pod_that_cannot_be_watched_is_told_and_ends_the_wait() {
    let finish = run_events(vec![LoopEvent::Blind("watch pods: 403 Forbidden".into()), ended_pod()]);
    assert_eq!(finish.ending, ExitReason::Done);
    assert_eq!(finish.report.errors[0].message, "watch pods: 403 Forbidden");
    // What was seen before is still stored.
    let finish = run_events(vec![ended_pod(), LoopEvent::Blind("x".into()), finished()]);
    assert!(finish.report.is_success());
}
