//! `/healthz` and `/readyz` for probes. A request line in, a status line out: no crate is needed for that, and none
//! without an async runtime is smaller.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use log::debug;

use crate::controller::Health;
use crate::election::Leadership;

/// A probe that sends or reads slower than this is cut off, so that it cannot hold up the next one for long.
const IO_LIMIT: Duration = Duration::from_secs(2);
/// Longest request that is read, in bytes.
const REQUEST_MAX: u64 = 8 * 1024;

/// Whom probes are about.
#[derive(Debug, Default)]
pub struct Probed {
    /// Set once the operator works: at once, or when it has become the leader.
    pub operator: OnceLock<Health>,
    /// Set if there is an election.
    pub leadership: Option<Leadership>,
}

impl Probed {
    fn is_alive(&self) -> bool {
        self.operator.get().is_none_or(Health::is_alive) && self.leadership.as_ref().is_none_or(Leadership::is_alive)
    }

    /// One that waits for the Lease is ready to take over: else a Deployment of two would never be available.
    fn is_ready(&self) -> bool {
        match (self.operator.get(), &self.leadership) {
            (Some(health), _) => health.is_ready(),
            (None, Some(leadership)) => leadership.is_ready(),
            (None, None) => false,
        }
    }
}

/// Answers probes for ever, one at a time. The process ends it.
pub fn serve(listener: &TcpListener, probed: &Probed) {
    for stream in listener.incoming() {
        if let Err(error) = stream.and_then(|stream| answer(stream, probed)) {
            debug!("probe not answered error={error}");
        }
    }
}

fn answer(mut stream: TcpStream, probed: &Probed) -> io::Result<()> {
    stream.set_read_timeout(Some(IO_LIMIT))?;
    stream.set_write_timeout(Some(IO_LIMIT))?;
    let mut reader = BufReader::with_capacity(1_024, (&stream).take(REQUEST_MAX));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    // The headers do not matter, but a peer may not like an answer before it has sent them.
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let (status, body) = respond(&first, probed.is_alive(), probed.is_ready());
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn respond(request_line: &str, is_alive: bool, is_ready: bool) -> (&'static str, &'static str) {
    let mut words = request_line.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let is_ok = match path {
        "/healthz" => is_alive,
        "/readyz" => is_ready,
        _ => return ("404 Not Found", "not found\n"),
    };
    match (method, is_ok) {
        ("GET", true) => ("200 OK", "ok\n"),
        ("GET", false) => ("503 Service Unavailable", "not ok\n"),
        _ => ("405 Method Not Allowed", "use GET\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let status = |line, alive, ready| respond(line, alive, ready).0[..3].to_owned();
        assert_eq!(status("GET /healthz HTTP/1.1\r\n", true, false), "200");
        assert_eq!(status("GET /healthz?x=1 HTTP/1.1", false, false), "503");
        assert_eq!(status("GET /readyz HTTP/1.1", true, false), "503");
        assert_eq!(status("GET /readyz HTTP/1.1", true, true), "200");
        assert_eq!(status("GET /secret HTTP/1.1", true, true), "404");
        assert_eq!(status("POST /readyz HTTP/1.1", true, true), "405");
        assert_eq!(status("", true, true), "404");
    }
}
