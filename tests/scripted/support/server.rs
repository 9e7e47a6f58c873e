//! The listener: TLS, one blocking thread per connection, the record of requests, and the points where
//! faults act. What is answered comes from a `Backend`: the in-memory `Api`, or a real server (`proxy`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};
use serde_json::json;

use super::api::Api;
use super::faults::{Fault, Faults, FrameFault, FramePlan, Gate, Rule, When};
use super::http::{self, Backend, Frames, Next, Reply, Request, Response};
use super::proxy::Upstream;
use super::{times, tls};

/// The bearer token in the kubeconfig that `Server` writes.
pub const OPERATOR_TOKEN: &str = "operator-token-canary";
/// How long a watch waits before it looks for commands and a peer that is gone.
const TICK: Duration = Duration::from_millis(20);

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// One request as it was recorded on arrival; `status` and `fault` are filled in as it goes on.
#[derive(Clone, Debug)]
pub struct Entry {
    pub seq: usize,
    pub request: Request,
    pub user: String,
    /// Of the reply the backend gave or the fault made, also when it was never sent.
    pub status: Option<u16>,
    pub fault: Option<&'static str>,
}

impl Entry {
    pub fn is(&self, method: &str, path_part: &str) -> bool {
        self.request.method == method && self.request.path.contains(path_part)
    }
}

/// What a test can do to a watch that is already open.
#[derive(Clone)]
pub enum Command {
    /// A raw line; the newline is yours to add.
    Inject(Vec<u8>),
    End,
    Cut,
    Silence,
    /// Frames wait until the gate opens and are then sent as one chunk.
    Gather(Gate),
}

struct OpenWatch {
    request: Request,
    commands: Mutex<Vec<Command>>,
}

struct Shared {
    backend: Arc<dyn Backend>,
    faults: Faults,
    entries: Mutex<Vec<Entry>>,
    record_file: Mutex<Option<File>>,
    watches: Mutex<Vec<Arc<OpenWatch>>>,
    connections: Mutex<HashMap<usize, TcpStream>>,
    opened: AtomicUsize,
    seen: AtomicUsize,
    down: AtomicBool,
    stopped: AtomicBool,
    tls: Arc<rustls::ServerConfig>,
}

pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca_pem: String,
    api: Option<Arc<Api>>,
}

impl Server {
    /// An empty in-memory API server that knows the namespace `default` and the operator's token.
    pub fn start() -> Server {
        let api = Api::new(OPERATOR_TOKEN);
        Server::with_backend(Arc::new(api.clone()), Some(Arc::new(api)))
    }

    /// The same listener and faults in front of a real API server.
    pub fn proxy(upstream: Upstream) -> Server {
        Server::with_backend(Arc::new(upstream), None)
    }

    fn with_backend(backend: Arc<dyn Backend>, api: Option<Arc<Api>>) -> Server {
        times::begin();
        let identity = tls::identity();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            backend,
            faults: Faults::default(),
            entries: Mutex::default(),
            record_file: Mutex::default(),
            watches: Mutex::default(),
            connections: Mutex::default(),
            opened: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            tls: identity.config,
        });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &for_thread));
        Server { shared, address, ca_pem: identity.ca_pem, api }
    }

    /// The in-memory API, past TLS, faults and record: how a test arranges and looks.
    pub fn api(&self) -> &Arc<Api> {
        self.api.as_ref().expect("a proxy has no in-memory API")
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let path = folder.join("kubeconfig");
        tls::write_kubeconfig(&path, &self.url(), &self.ca_pem, OPERATOR_TOKEN, "default");
        path
    }

    pub fn fault(&self, when: When, fault: Fault) -> Rule {
        self.shared.faults.add(when, fault)
    }

    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    pub fn requests(&self) -> Vec<Entry> {
        self.shared.entries.lock().expect("record").clone()
    }

    pub fn mutations(&self) -> Vec<Entry> {
        let mut entries = self.requests();
        entries.retain(|entry| entry.request.is_mutation());
        entries
    }

    pub fn forget_requests(&self) {
        self.shared.entries.lock().expect("record").clear();
    }

    /// From now on every answered request is also one JSON line in this file.
    pub fn record_to(&self, path: &Path) {
        let file = File::create(path).expect("record file");
        *self.shared.record_file.lock().expect("record") = Some(file);
    }

    /// Paths of the watches open now.
    pub fn watches(&self) -> Vec<String> {
        let watches = self.shared.watches.lock().expect("watches");
        watches.iter().map(|w| w.request.path.clone()).collect()
    }

    /// Gives the command to every open watch whose path contains `path_part`; returns how many.
    pub fn command(&self, path_part: &str, command: &Command) -> usize {
        let watches = self.shared.watches.lock().expect("watches");
        let hit = watches.iter().filter(|w| w.request.path.contains(path_part));
        hit.map(|w| w.commands.lock().expect("watch").push(command.clone())).count()
    }

    /// Commands that watches whose path contains `path_part` have not taken in yet.
    pub fn pending(&self, path_part: &str) -> usize {
        let watches = self.shared.watches.lock().expect("watches");
        let hit = watches.iter().filter(|w| w.request.path.contains(path_part));
        hit.map(|w| w.commands.lock().expect("watch").len()).sum()
    }

    /// While down, every connection is closed, old and new.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
        if down {
            self.drop_connections();
        }
    }

    pub fn drop_connections(&self) {
        for socket in self.shared.connections.lock().expect("open").values() {
            socket.shutdown(Shutdown::Both).ok();
        }
    }

    /// Connections accepted so far.
    pub fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.drop_connections();
        // Wakes the accepting thread, which then sees `stopped`.
        TcpStream::connect(self.address).ok();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let id = shared.opened.fetch_add(1, Ordering::SeqCst);
        if let Ok(copy) = socket.try_clone() {
            shared.connections.lock().expect("open").insert(id, copy);
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // An error here is the peer's end of the story, and the peer tells it.
            serve(socket, &shared).ok();
            if let Some(copy) = shared.connections.lock().expect("open").remove(&id) {
                copy.shutdown(Shutdown::Both).ok();
            }
        });
    }
}

fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let tls = ServerConnection::new(Arc::clone(&shared.tls)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(tls, socket);
    let mut buffer = Vec::new();
    while !shared.down.load(Ordering::SeqCst) {
        let Some(request) = http::read_request(&mut stream, &mut buffer)? else {
            break;
        };
        if !answer(&mut stream, shared, request)? {
            break;
        }
    }
    Ok(())
}

/// Returns whether the connection may be used again.
fn answer(stream: &mut Stream, shared: &Shared, request: Request) -> io::Result<bool> {
    let seq = begin(shared, &request);
    let fault = shared.faults.take(&request);
    if let Some(fault) = &fault {
        note(shared, seq, |entry| entry.fault = Some(fault.name()));
    }
    match &fault {
        Some(Fault::KillBefore(callback)) => {
            callback();
            return finish(shared, seq, None, false);
        }
        Some(Fault::Reset) => return finish(shared, seq, None, false),
        Some(Fault::BlackHole) => {
            finish(shared, seq, None, false)?;
            while !over(shared, stream) {
                thread::park_timeout(TICK);
            }
            return Ok(false);
        }
        Some(Fault::Answer(response)) => {
            finish(shared, seq, Some(response.status), true)?;
            http::write_full(stream, response, false)?;
            return Ok(true);
        }
        Some(Fault::Hold(gate)) => gate.pass(),
        _ => {}
    }
    let mut reply = shared.backend.call(&request);
    finish(shared, seq, Some(reply.status()), true)?;
    match &fault {
        Some(Fault::KillAfter(callback)) => {
            callback();
            return Ok(false);
        }
        Some(Fault::LoseReply) => return Ok(false),
        Some(Fault::HoldReply(gate)) => gate.pass(),
        Some(Fault::AddHeaders(headers)) => match &mut reply {
            Reply::Full(head) | Reply::Stream(head, _) => head.headers.extend(headers.clone()),
        },
        _ => {}
    }
    match reply {
        Reply::Full(response) => {
            let half = matches!(fault, Some(Fault::HalfBody));
            http::write_full(stream, &response, half)?;
            Ok(!half)
        }
        Reply::Stream(head, frames) => {
            let plan = match fault {
                Some(Fault::Frames(faults)) => faults,
                _ => Vec::new(),
            };
            let watch = Arc::new(OpenWatch { request, commands: Mutex::default() });
            let open = || shared.watches.lock().expect("watches");
            open().push(Arc::clone(&watch));
            let result = follow(stream, shared, &head, frames, FramePlan::new(plan), &watch);
            open().retain(|other| !Arc::ptr_eq(other, &watch));
            result
        }
    }
}

/// Sends frames until the source, a fault, a command or the peer ends the watch.
fn follow(
    stream: &mut Stream,
    shared: &Shared,
    head: &Response,
    mut frames: Box<dyn Frames>,
    mut plan: FramePlan,
    watch: &OpenWatch,
) -> io::Result<bool> {
    http::write_stream_head(stream, head)?;
    let mut at = 0;
    let mut silent = false;
    let mut gathered: Option<(Gate, Vec<u8>)> = None;
    loop {
        let commands = std::mem::take(&mut *watch.commands.lock().expect("watch"));
        let planned = std::iter::from_fn(|| plan.next(at, false)).map(|fault| match fault {
            FrameFault::Inject(_, line) => Some(Command::Inject(line)),
            FrameFault::End(_) => Some(Command::End),
            FrameFault::Cut(_) => Some(Command::Cut),
            FrameFault::Silence(_) => Some(Command::Silence),
            FrameFault::Hold(_, gate) => {
                gate.pass();
                None
            }
            FrameFault::Drop(_) | FrameFault::Duplicate(_) | FrameFault::Split(..) => None,
        });
        for command in commands.into_iter().chain(planned.flatten()) {
            match command {
                Command::Inject(line) => http::write_chunk(stream, &line)?,
                Command::End => return http::write_chunk(stream, &[]).map(|()| true),
                Command::Cut => return Ok(false),
                Command::Silence => silent = true,
                Command::Gather(gate) => gathered = Some((gate, Vec::new())),
            }
        }
        if let Some((_, frames)) = gathered.take_if(|(gate, _)| gate.is_open())
            && !frames.is_empty()
        {
            http::write_chunk(stream, &frames)?;
        }
        if silent {
            thread::park_timeout(TICK);
        } else {
            match frames.next(TICK) {
                Next::Frame(line) => {
                    if let Some((_, frames)) = &mut gathered {
                        frames.extend(line);
                        at += 1;
                        continue;
                    }
                    send(stream, &line, std::iter::from_fn(|| plan.next(at, true)))?;
                    at += 1;
                    continue;
                }
                Next::End => return http::write_chunk(stream, &[]).map(|()| true),
                Next::Idle => {}
            }
        }
        if over(shared, stream) {
            return Ok(false);
        }
    }
}

fn send(stream: &mut Stream, line: &[u8], faults: impl Iterator<Item = FrameFault>) -> io::Result<()> {
    let (mut copies, mut size) = (1, line.len());
    for fault in faults {
        match fault {
            FrameFault::Drop(_) => copies = 0,
            FrameFault::Duplicate(_) => copies = 2,
            FrameFault::Split(_, bytes) => size = bytes,
            _ => {}
        }
    }
    for _ in 0..copies {
        for piece in line.chunks(size) {
            http::write_chunk(stream, piece)?;
        }
    }
    Ok(())
}

/// Whether the server stops or the peer is gone. A client says nothing during a watch, so anything
/// to read is its farewell.
fn over(shared: &Shared, stream: &Stream) -> bool {
    let socket = &stream.sock;
    if shared.stopped.load(Ordering::SeqCst) || socket.set_nonblocking(true).is_err() {
        return true;
    }
    let peeked = socket.peek(&mut [0; 1]);
    let waiting = matches!(&peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    !waiting || socket.set_nonblocking(false).is_err()
}

fn begin(shared: &Shared, request: &Request) -> usize {
    let mut entries = shared.entries.lock().expect("record");
    let seq = shared.seen.fetch_add(1, Ordering::SeqCst);
    entries.push(Entry { seq, request: request.clone(), user: shared.backend.user(request), status: None, fault: None });
    seq
}

/// `forget_requests` may have emptied the record meanwhile.
fn note(shared: &Shared, seq: usize, change: impl FnOnce(&mut Entry)) {
    let mut entries = shared.entries.lock().expect("record");
    if let Some(entry) = entries.iter_mut().rev().find(|entry| entry.seq == seq) {
        change(entry);
    }
}

fn finish(shared: &Shared, seq: usize, status: Option<u16>, reuse: bool) -> io::Result<bool> {
    let mut line = None;
    note(shared, seq, |entry| {
        entry.status = status;
        let request = &entry.request;
        line = Some(json!({"seq": seq, "method": request.method, "path": request.path,
            "query": request.query, "user": entry.user, "status": status, "fault": entry.fault,
            "userAgent": request.header("user-agent"), "contentType": request.header("content-type"),
            "body": String::from_utf8_lossy(&request.body)}));
    });
    let mut file = shared.record_file.lock().expect("record");
    if let (Some(file), Some(line)) = (file.as_mut(), line) {
        writeln!(file, "{line}")?;
    }
    Ok(reuse)
}
