//! A kubectl that lasts; as a proxy without TLS, where one for each request would take too long.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

/// kubectl in the background. It ends with the value, and with this process however that ends: its shell reads what only this process
/// holds open. A child that stayed would hold the output of `cargo test` open.
pub struct Lasting {
    child: Child,
}

impl Lasting {
    pub fn start(args: &[&str]) -> (Self, BufReader<ChildStdout>) {
        let script = r#"kubectl "$@" 2>/dev/null & exec >/dev/null; cat; kill $!"#;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "sh"]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = shell.spawn().expect("a shell");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        (Self { child }, output)
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Ends with the value.
pub struct Proxy {
    _kubectl: Lasting,
    address: String,
}

impl Proxy {
    pub fn start() -> Self {
        let (kubectl, mut output) = Lasting::start(&["proxy", "--port=0"]);
        let mut line = String::new();
        output.read_line(&mut line).expect("kubectl proxy says where it listens");
        let address = line.trim().rsplit(' ').next().expect("an address").to_owned();
        Self { _kubectl: kubectl, address }
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
