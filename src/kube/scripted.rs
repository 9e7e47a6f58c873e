//! For tests: a transport that answers from a script, temporary folders, test certificates.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::request::Method;
use super::transport::{HttpRequest, HttpResponse, Limit, Transport, TransportError, TransportErrorKind};

/// Limit on every wait of a test.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// Certificates made for tests only, valid for a hundred years. `SERVER` is for 127.0.0.1 and
/// `kubernetes`, `NAMED` only for `kubernetes`.
pub(crate) mod testdata {
    pub(crate) const CA: &[u8] = include_bytes!("testdata/ca.crt");
    pub(crate) const OTHER_CA: &[u8] = include_bytes!("testdata/other-ca.crt");
    pub(crate) const SERVER: &[u8] = include_bytes!("testdata/server.crt");
    pub(crate) const SERVER_KEY: &[u8] = include_bytes!("testdata/server.key");
    pub(crate) const NAMED: &[u8] = include_bytes!("testdata/named.crt");
    pub(crate) const NAMED_KEY: &[u8] = include_bytes!("testdata/named.key");
    pub(crate) const CLIENT: &[u8] = include_bytes!("testdata/client.crt");
    pub(crate) const CLIENT_KEY: &[u8] = include_bytes!("testdata/client.key");
    /// A client certificate of X.509 version 1, as `openssl x509 -req` makes it without extensions.
    pub(crate) const V1: &[u8] = include_bytes!("testdata/v1.crt");
    pub(crate) const V1_KEY: &[u8] = include_bytes!("testdata/v1.key");
    /// An authority with a P-521 key, and a server's certificate for 127.0.0.1 that it has signed.
    pub(crate) const P_521: &[u8] = include_bytes!("testdata/p521.crt");
    pub(crate) const P_521_KEY: &[u8] = include_bytes!("testdata/p521.key");
    pub(crate) const BY_P_521: &[u8] = include_bytes!("testdata/by-p521.crt");
    pub(crate) const BY_P_521_KEY: &[u8] = include_bytes!("testdata/by-p521.key");
}

/// A request as the transport saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path_and_query: String,
    pub(crate) accept: &'static str,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) limit: Limit,
}

/// A piece of a body.
#[derive(Clone, Debug)]
pub(crate) enum Chunk {
    Bytes(Vec<u8>),
    Fail(io::ErrorKind),
    /// Blocks until the transport is shut down.
    Hang,
}

/// What the script answers to one request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Answer { status: u16, retry_after: Option<String>, warnings: Vec<String>, chunks: Vec<Chunk> },
    Fail(TransportErrorKind),
}

impl Reply {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::text(status, &body.to_string())
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::chunks(status, vec![Chunk::Bytes(body.as_bytes().to_vec())])
    }

    pub(crate) fn chunks(status: u16, chunks: Vec<Chunk>) -> Self {
        Self::Answer { status, retry_after: None, warnings: Vec::new(), chunks }
    }

    pub(crate) fn retry_after(mut self, value: &str) -> Self {
        if let Self::Answer { retry_after, .. } = &mut self {
            *retry_after = Some(value.to_owned());
        }
        self
    }

    pub(crate) fn warning(mut self, value: &str) -> Self {
        if let Self::Answer { warnings, .. } = &mut self {
            warnings.push(value.to_owned());
        }
        self
    }
}

#[derive(Default)]
struct State {
    replies: VecDeque<Reply>,
    seen: Vec<Seen>,
    /// Numbers of the transports that are shut down.
    closed: Vec<u32>,
    forks: u32,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A transport that answers from a script. A request beyond its end blocks until shutdown.
#[derive(Clone, Default)]
pub(crate) struct Script {
    shared: Arc<Shared>,
    number: u32,
}

impl Script {
    pub(crate) fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Self::default();
        script.extend(replies);
        script
    }

    pub(crate) fn extend(&self, replies: impl IntoIterator<Item = Reply>) {
        self.lock().replies.extend(replies);
        self.shared.changed.notify_all();
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// The requests' paths, once there are `count`.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<String> {
        let state = self.lock();
        let (state, _) =
            self.shared.changed.wait_timeout_while(state, WAIT, |state| state.seen.len() < count).unwrap_or_else(PoisonError::into_inner);
        let paths: Vec<_> = state.seen.iter().map(|seen| seen.path_and_query.clone()).collect();
        assert!(paths.len() >= count, "waited for {count} requests, saw {paths:?}");
        paths
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_closed(&self) {
        let _unused = self
            .shared
            .changed
            .wait_while(self.lock(), |state| !state.closed.contains(&self.number))
            .unwrap_or_else(PoisonError::into_inner);
    }
}

impl Transport for Script {
    fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, TransportError> {
        let refuse = |kind| Err(TransportError { kind, message: "scripted".to_owned() });
        let mut state = self.lock();
        state.seen.push(Seen {
            method: request.method,
            path_and_query: request.path_and_query.clone(),
            accept: request.accept,
            authorization: request.authorization.map(str::to_owned),
            body: request.body.map(|(_, bytes)| bytes.to_vec()),
            limit: request.limit,
        });
        self.shared.changed.notify_all();
        let mut state = self
            .shared
            .changed
            .wait_while(state, |state| state.replies.is_empty() && !state.closed.contains(&self.number))
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed.contains(&self.number) {
            return refuse(TransportErrorKind::Connect);
        }
        match state.replies.pop_front() {
            Some(Reply::Answer { status, retry_after, warnings, chunks }) => {
                let body = Box::new(Body { script: self.clone(), chunks: chunks.into() });
                Ok(HttpResponse { status, retry_after, warnings, body })
            }
            Some(Reply::Fail(kind)) => refuse(kind),
            None => refuse(TransportErrorKind::Other),
        }
    }

    fn fork(&self) -> Arc<dyn Transport> {
        let mut state = self.lock();
        state.forks += 1;
        Arc::new(Self { shared: Arc::clone(&self.shared), number: state.forks })
    }

    fn shutdown(&self) {
        self.lock().closed.push(self.number);
        self.shared.changed.notify_all();
    }
}

struct Body {
    script: Script,
    chunks: VecDeque<Chunk>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.chunks.pop_front() {
            None => Ok(0),
            Some(Chunk::Fail(kind)) => Err(kind.into()),
            Some(Chunk::Hang) => {
                self.script.wait_closed();
                Err(io::ErrorKind::NotConnected.into())
            }
            Some(Chunk::Bytes(mut bytes)) => {
                let amount = bytes.len().min(buffer.len());
                buffer[..amount].copy_from_slice(&bytes[..amount]);
                bytes.drain(..amount);
                if !bytes.is_empty() {
                    self.chunks.push_front(Chunk::Bytes(bytes));
                }
                Ok(amount)
            }
        }
    }
}

/// A folder that goes away with the value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("quarks-job-test-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a temporary file");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Polls a condition that nothing announces.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WAIT, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
