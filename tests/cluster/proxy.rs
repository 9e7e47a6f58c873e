//! kubectl as a proxy without TLS: where a kubectl for each request would take too long.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// Ends with the value.
pub struct Proxy {
    child: Child,
    address: String,
}

impl Proxy {
    pub fn start() -> Self {
        let mut child = Command::new("kubectl").args(["proxy", "--port=0"]).stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("kubectl proxy says where it listens");
        let address = line.trim().rsplit(' ').next().expect("an address").to_owned();
        Self { child, address }
    }

    /// A merge patch; the answer's status and all of its text.
    pub fn patch(&self, path: &str, patch: &Value) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        let body = patch.to_string();
        let head = format!("PATCH {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/merge-patch+json");
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {answer}"));
        (status, answer)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
