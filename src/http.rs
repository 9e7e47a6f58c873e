//! `/healthz`, `/readyz` and `/metrics`. A request line in, a status line out: that needs no crate, and none without an async
//! runtime is smaller.
//!
//! Promise: a probe is answered whatever other peers do. A few threads answer; a peer that is not done after a short time is
//! disconnected, and when no thread would be free for the next peer, the oldest one is disconnected at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use log::{debug, warn};

use crate::api::is_subdomain;
use crate::controller::Health;
use crate::election::Leadership;
use crate::metrics::Metrics;
use crate::threads::Thread;

/// Threads that answer: two probes and a scrape at once, and one that takes the next connection.
const HANDLERS: usize = 4;
/// A peer has this long from its first byte to our last.
const PEER_LIMIT: Duration = Duration::from_secs(2);
/// Longest request that is read, in bytes.
const REQUEST_MAX: usize = 8 * 1024;
/// Pause after a connection could not be accepted: without it a lack of descriptors would cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whom probes are about.
#[derive(Debug, Default)]
pub struct Probed {
    /// Set once the operator works: at once, or when it has become the leader.
    pub operator: OnceLock<Health>,
    /// Set if there is an election.
    pub leadership: Option<Leadership>,
}

impl Probed {
    /// What is not alive, a line each.
    fn alive_failures(&self) -> String {
        let mut failures = self.operator.get().map(Health::alive_failures).unwrap_or_default();
        if self.leadership.as_ref().is_some_and(|leadership| !leadership.is_alive()) {
            failures.push_str("election: no progress\n");
        }
        failures
    }

    /// What is not ready, a line each. One that waits for the Lease is ready to take over: else a Deployment of two would never
    /// be available.
    fn ready_failures(&self) -> String {
        match (self.operator.get(), &self.leadership) {
            (Some(health), _) => health.ready_failures(),
            (None, Some(leadership)) if leadership.is_ready() => String::new(),
            (None, Some(_)) => "election: the Lease could not be read recently\n".to_owned(),
            (None, None) => "operator: not started yet\n".to_owned(),
        }
    }
}

/// True for what [`bind`] accepts: `HOST:PORT`, with IPv6 in brackets, or `:PORT`. Whether the host exists is not checked. Hosts
/// may have underscores and a dot at the end, unlike objects of Kubernetes.
pub fn is_address(text: &str) -> bool {
    let is_name = |host: &str| is_subdomain(&host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase().replace('_', "a"));
    let is_host = |host: &str| host.is_empty() || (is_name(host) && host.contains(|c: char| c.is_ascii_alphabetic()));
    let is_host_and_port = |(host, port): (&str, &str)| is_host(host) && !port.starts_with('+') && port.parse::<u16>().is_ok();
    text.parse::<SocketAddr>().is_ok() || text.rsplit_once(':').is_some_and(is_host_and_port)
}

/// Binds to the address; one without a host, like `:8080`, is every address of this machine, by IPv4 alone where it has no IPv6.
pub fn bind<T>(address: &str, bind: impl Fn(String) -> io::Result<T>) -> io::Result<T> {
    if !address.starts_with(':') {
        return bind(address.to_owned());
    }
    bind(format!("[::]{address}")).or_else(|error| match error.raw_os_error() {
        // The kernel has none, or no interface has an address of it.
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => bind(format!("0.0.0.0{address}")),
        _ => Err(error),
    })
}

/// Starts to answer. The threads end with the process: they only answer. One that panics is named on `panics`.
pub fn start(listener: TcpListener, probed: &Arc<Probed>, metrics: &Metrics, panics: &Sender<&'static str>) -> io::Result<()> {
    let server = Arc::new(Server { listener, peers: Peers::default(), probed: Arc::clone(probed), metrics: metrics.clone() });
    for _ in 0..HANDLERS {
        let server = Arc::clone(&server);
        Thread::spawn("http", panics, move || server.run())?;
    }
    Ok(())
}

struct Server {
    listener: TcpListener,
    peers: Peers,
    probed: Arc<Probed>,
    metrics: Metrics,
}

impl Server {
    /// One handler: all of them wait for the next connection, so that the next is taken as long as one is free.
    fn run(&self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let peer = Arc::new(stream);
                    self.peers.admit(&peer);
                    if let Err(error) = answer(&peer, &self.probed, &self.metrics) {
                        debug!(error:%; "cannot answer request");
                    }
                    self.peers.dismiss(&peer);
                }
                Err(error) => {
                    debug!(error:%; "cannot accept connection");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }
}

type Peer = Arc<TcpStream>;

/// Those that are being answered, the first comer first.
#[derive(Default)]
struct Peers(Mutex<Vec<Peer>>);

impl Peers {
    /// One more. If that takes the last free handler, the first comer goes: its handler notices at once and is free.
    fn admit(&self, peer: &Peer) {
        let mut peers = self.lock();
        peers.push(Arc::clone(peer));
        if peers.len() >= HANDLERS {
            // It may be gone already.
            let _ = peers.remove(0).shutdown(Shutdown::Both);
        }
    }

    fn dismiss(&self, peer: &Peer) {
        self.lock().retain(|other| !Arc::ptr_eq(other, peer));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(mut stream: &TcpStream, probed: &Probed, metrics: &Metrics) -> io::Result<()> {
    let deadline = Instant::now() + PEER_LIMIT;
    let request = read_request(stream, deadline)?;
    let text = respond(&request, &|page| match page {
        Page::Alive => probed.alive_failures(),
        Page::Ready => probed.ready_failures(),
        Page::Metrics => {
            if let Some(leadership) = &probed.leadership {
                metrics.set_leader(leadership.is_leader());
            }
            metrics.text()
        }
    });
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(text.as_bytes())
}

/// The request up to its empty line: a peer may not like an answer before it has sent that.
fn read_request(mut stream: &TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 1_024];
    while !is_whole(&request) && request.len() < REQUEST_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer)? {
            0 if request.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => break,
            amount => request.extend_from_slice(&buffer[..amount]),
        }
    }
    Ok(request)
}

fn is_whole(request: &[u8]) -> bool {
    request.ends_with(b"\r\n\r\n") || request.ends_with(b"\n\n")
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

enum Page {
    Alive,
    Ready,
    Metrics,
}

/// The whole answer. `content` gives a page: of a check what fails, so nothing if all is well.
fn respond(request: &[u8], content: &dyn Fn(Page) -> String) -> String {
    let line = request.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let page = match target.split('?').next().unwrap_or_default() {
        "/healthz" => Some(Page::Alive),
        "/readyz" => Some(Page::Ready),
        "/metrics" => Some(Page::Metrics),
        _ => None,
    };
    let (status, kind, body) = match (page, method) {
        (None, _) => ("404 Not Found", TEXT, "not found\n".to_owned()),
        (Some(Page::Metrics), "GET" | "HEAD") => ("200 OK", EXPOSITION, content(Page::Metrics)),
        (Some(page), "GET" | "HEAD") => {
            let is_alive_page = matches!(page, Page::Alive);
            match content(page) {
                failures if failures.is_empty() => ("200 OK", TEXT, "ok\n".to_owned()),
                failures => {
                    let failure = failures.trim_end();
                    if is_alive_page {
                        warn!(failures:% = failure; "not healthy");
                    } else {
                        debug!(failures:% = failure; "not ready");
                    }
                    ("503 Service Unavailable", TEXT, failures)
                }
            }
        }
        (Some(_), _) => ("405 Method Not Allowed", TEXT, "use GET\n".to_owned()),
    };
    let length = body.len();
    let body = if method == "HEAD" { "" } else { &body };
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(line: &str, alive: &str, ready: &str) -> String {
        respond(line.as_bytes(), &|page| match page {
            Page::Alive => alive.to_owned(),
            Page::Ready => ready.to_owned(),
            Page::Metrics => "a 1\n".to_owned(),
        })
    }

    #[test]
    fn answers() {
        for (line, alive, ready, expected) in [
            ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "", "x\n", "200"),
            ("GET /healthz?x=1 HTTP/1.1\r\n", "x\n", "x\n", "503"),
            ("GET /readyz HTTP/1.1\r\n", "", "x\n", "503"),
            ("GET /readyz HTTP/1.1\r\n", "", "", "200"),
            ("GET /metrics HTTP/1.1\r\n", "x\n", "x\n", "200"),
            ("GET /secret HTTP/1.1\r\n", "", "", "404"),
            ("POST /readyz HTTP/1.1\r\n", "", "", "405"),
            ("POST /metrics HTTP/1.1\r\n", "", "", "405"),
            ("", "", "", "404"),
            ("\u{fffd}\u{0} /healthz", "", "", "405"),
        ] {
            let answer = answer_to(line, alive, ready);
            assert_eq!(&answer[9..12], expected, "{line:?}");
        }
        assert_eq!(answer_to("GET \u{fffd}", "", "")[9..12], *"404");
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, expected) in [
            (":8080", true),
            (":0", true),
            ("127.0.0.1:8080", true),
            ("[::]:8080", true),
            ("[fe80::1%2]:8080", true),
            ("localhost:8080", true),
            ("Node-1.example:8080", true),
            ("my_host:8080", true),
            ("_node.example:8080", true),
            ("localhost.:8080", true),
            (".:8080", false),
            ("localhost..:8080", false),
            ("127.0.0.1.:8080", false),
            ("-my_host:8080", false),
            ("", false),
            ("foo", false),
            ("8080", false),
            (":", false),
            (":http", false),
            (":65536", false),
            (":+80", false),
            (":-1", false),
            ("::1:8080", false),
            ("[::1]", false),
            ("[foo]:8080", false),
            ("999.1.1.1:8080", false),
            ("http://localhost:8080", false),
            ("a b:8080", false),
            ("localhost:8080/metrics", false),
        ] {
            assert_eq!(is_address(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_address_without_a_host_is_bound_by_ipv4_where_there_is_no_ipv6() {
        const NONE: i32 = 0;
        for (address, error, tried, is_bound) in [
            (":8080", NONE, &["[::]:8080"][..], true),
            (":8080", libc::EAFNOSUPPORT, &["[::]:8080", "0.0.0.0:8080"], true),
            (":8080", libc::EADDRNOTAVAIL, &["[::]:8080", "0.0.0.0:8080"], true),
            // Somebody else listens there, or it may not be: not for want of IPv6.
            (":8080", libc::EADDRINUSE, &["[::]:8080"], false),
            (":80", libc::EACCES, &["[::]:80"], false),
            ("[::]:8080", libc::EAFNOSUPPORT, &["[::]:8080"], false),
            ("[::1]:8080", libc::EADDRNOTAVAIL, &["[::1]:8080"], false),
            ("127.0.0.1:8080", NONE, &["127.0.0.1:8080"], true),
        ] {
            let seen = Mutex::new(Vec::new());
            let bound = bind(address, |address| {
                let is_refused = error != NONE && address.starts_with('[');
                seen.lock().expect("seen").push(address);
                if is_refused { Err(io::Error::from_raw_os_error(error)) } else { Ok(()) }
            });
            assert_eq!(
                (seen.into_inner().expect("seen").as_slice(), bound.is_ok()),
                (&*tried.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), is_bound),
                "{address} {error}"
            );
        }
    }

    #[test]
    fn a_failing_check_says_what_fails() {
        let answer = answer_to("GET /readyz HTTP/1.1\r\n\r\n", "", "watch-jobs: 3 failures in a row\n");
        assert!(answer.ends_with("\r\nContent-Length: 32\r\nConnection: close\r\n\r\nwatch-jobs: 3 failures in a row\n"), "{answer}");
    }

    #[test]
    fn head_is_get_without_the_body() {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let get = answer_to(&format!("GET {path} HTTP/1.1\r\n"), "x\n", "");
            let head = answer_to(&format!("HEAD {path} HTTP/1.1\r\n"), "x\n", "");
            assert!(head.ends_with("\r\n\r\n"), "{head}");
            assert_eq!(get.split_once("\r\n\r\n").map(|(head, _)| head), head.strip_suffix("\r\n\r\n"), "{path}");
        }
        assert!(answer_to("GET /metrics HTTP/1.1\r\n", "", "").contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    }

    #[test]
    fn when_none_is_free_the_first_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let peers = Peers::default();
        let mut clients: Vec<TcpStream> = Vec::new();
        for _ in 0..HANDLERS {
            clients.push(TcpStream::connect(address).expect("connected"));
            let peer = Arc::new(listener.accept().expect("accepted").0);
            peers.admit(&peer);
        }
        assert_eq!(peers.lock().len(), HANDLERS - 1);
        let mut byte = [0];
        assert_eq!(clients[0].read(&mut byte).expect("closed in good order"), 0);
        clients[1].set_nonblocking(true).expect("set");
        assert!(clients[1].read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "the second stays");
        let second = peers.lock()[0].clone();
        peers.dismiss(&second);
        assert_eq!(peers.lock().len(), HANDLERS - 2);
    }
}
